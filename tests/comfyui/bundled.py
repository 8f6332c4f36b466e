"""The bundled workflows and blueprints as graphs. write_workflows.py writes their files.

Two rows run from left to right: the picture and the shape above, the texture below. Wires run in the gaps between the
nodes, and the preset's wires run in one line above each row. There is room for a picture under each node.
"""

from __future__ import annotations

import tomllib
from typing import Any

from comfy_server import ROOT
from graph_file import Graph, Json, Point

TEXTS: Json = tomllib.loads((ROOT / "locales" / "workflows.toml").read_text(encoding="utf-8"))
PICTURE, SHAPE, TEXTURE, RESULT, SETTINGS = "#3f5159", "#3f789e", "#8a6d3b", "#446644", "#2f6f4f"
SAVE = "3d/hunyuan3d"
BALANCED = "8 GB Balanced"
ROW = 680
"""Top of the lower row."""
LINE, GUTTER = -110, 560
"""Height of the preset's wires, above the upper and above the lower row."""
LOAD_MESH_PX = 106
"""Height of Load Mesh with the upload button that web/upload.js adds."""
VIEWS = ("front", "left", "back", "right")
HUGGING_FACE = "https://huggingface.co/Comfy-Org"
CHECKPOINTS: dict[str, tuple[str, str]] = {
    "2_0": ("hunyuan3d-dit-v2_fp16.safetensors", "hunyuan3D_2.0_repackaged/resolve/main/split_files"),
    "2_1": ("hunyuan_3d_v2.1.safetensors", "hunyuan3D_2.1_repackaged/resolve/main"),
}
"""Core's checkpoints, and where ComfyUI's own template offers them."""


def text(kind: str, key: str) -> str:
    """An English text of locales/workflows.toml."""
    found: str = TEXTS[kind][key]["en"]
    return found.strip()


def box(graph: Graph, title: str, color: str, left: float, top: float, right: float, bottom: float) -> None:
    """Adds a group."""
    graph.group(text("title", title), color, (left, top, right - left, bottom - top))


def start(name: str, note: str = "", preset: str = BALANCED) -> Graph:
    """Returns a workflow with its note and its preset, on the left."""
    graph = Graph(name)
    words = text("note", note or name)
    graph.node("note", "PrimitiveStringMultiline", (0, -40), 420, 470, text("title", "note"), value=words)
    graph.node("preset", "Preset", (0, 560), 420, 330, preset=preset)
    box(graph, "settings", SETTINGS, -20, 480, 440, 960)
    return graph


def load_picture(graph: Graph, pos: Point = (520, 0), key: str = "image", title: str = "", height: float = 340) -> None:
    """Adds Load Image."""
    graph.node(key, "LoadImage", pos, 300, height, title, image="example.png")


def make_shape(graph: Graph, x: float, kind: str = "GenerateShape") -> None:
    """Adds the nodes from Generate Shape to Unwrap UVs: the upper row."""
    graph.node("shape", kind, (x, 0), 300)
    graph.node("clean", "CleanMesh", (x + 400, 0), 260)
    graph.node("unwrap", "UnwrapUVs", (x + 760, 0), 280)
    graph.link("shape.mesh > clean.mesh", "clean.mesh > unwrap.mesh")


def make_texture(graph: Graph, x: float, y: float, mesh: str) -> None:
    """Adds the nodes from Paint Views to Inpaint Texture."""
    graph.node("paint", "PaintViews", (x, y), 280)
    graph.node("bake", "BakeTexture", (x + 360, y), 280)
    graph.node("inpaint", "InpaintTexture", (x + 740, y), 280)
    graph.link(
        "paint.mesh > bake.mesh", "paint.images > bake.images", "paint.views > bake.views", "bake.mesh > inpaint.mesh",
        "bake.seen > inpaint.seen",
    )  # fmt: skip


def two_rows(graph: Graph, x: float, kind: str = "GenerateShape") -> None:
    """Adds everything between Remove Background and the textured mesh. `x` is the left of Generate Shape."""
    make_shape(graph, x, kind)
    graph.node("delight", "Delight", (x, ROW), 300)
    make_texture(graph, x + 400, ROW, "unwrap.mesh")
    graph.link(
        "unwrap.mesh > paint.mesh",
        via=[(x + 1090, 100), (x + 1090, GUTTER + 30), (x + 350, GUTTER + 30), (x + 345, ROW)],
    )
    graph.link("delight.image > paint.image")


def one_picture(graph: Graph, x: float, image: str, mask: str) -> None:
    """Adds everything between one picture and the textured mesh. `x` is the left of Generate Shape."""
    graph.node("cut", "RemoveBackground", (x - 390, 0), 290)
    graph.link(f"{image} > cut.image", f"{mask} > cut.mask")
    two_rows(graph, x)
    graph.link(
        "cut.image > shape.image", "cut.object mask > shape.mask", "cut.image > delight.image",
        "cut.object mask > delight.mask",
    )  # fmt: skip


def preset_lines(
    graph: Graph, source: str, left: float, x: float, cuts: list[tuple[Point, str]], low: tuple[Point, ...] = ()
) -> None:
    """Links the preset: one line above each row, which starts at `left`. `low` bends the lower one."""
    graph.bus(
        source,
        [((left, GUTTER), ""), ((left, LINE), ""), *cuts, ((x - 50, LINE), "shape.preset"),
         ((x + 350, LINE), "clean.preset"), ((x + 710, LINE), "unwrap.preset")],
    )  # fmt: skip
    graph.bus(
        source,
        [((left, GUTTER), ""), *((point, "") for point in low), ((x - 50, GUTTER), "delight.preset"),
         ((x + 360, GUTTER), "paint.preset"),
         ((x + 720, GUTTER), "bake.preset")],
    )  # fmt: skip


def finish(graph: Graph, x: float, mesh: str, y: float = 0) -> None:
    """Adds Save 3D Model and Memory Report on the right."""
    graph.node("save", "SaveGLB", (x, y), 640, 560, filename_prefix=SAVE)
    graph.node("report", "MemoryReport", (x, y + 720), 640, 440)
    graph.link(f"{mesh} > save.mesh", f"{mesh} > report.mesh")
    box(graph, "result", RESULT, x - 20, y - 80, x + 660, y + 600)
    box(graph, "cost", RESULT, x - 20, y + 640, x + 660, y + 1200)


def frame(graph: Graph, x: float) -> None:
    """Adds the groups of the two rows."""
    box(graph, "shape", SHAPE, x - 20, -80, x + 1060, 520)
    box(graph, "texture", TEXTURE, x - 20, ROW - 80, x + 1440, ROW + 700)


def hunyuan3d_8gb() -> Graph:
    """From a picture to a textured mesh, each step a node."""
    graph, x = start("hunyuan3d_8gb"), 1310
    load_picture(graph)
    one_picture(graph, x, "image.IMAGE", "image.MASK")
    preset_lines(graph, "preset.preset", 470, x, [((870, LINE), "cut.preset")])
    box(graph, "picture", PICTURE, 500, -80, 1230, 520)
    frame(graph, x)
    finish(graph, x + 1510, "inpaint.mesh")
    return graph


def whole() -> Graph:
    """The blueprint from a picture to a textured mesh."""
    graph = Graph(
        text("subgraph", "whole"),
        {"image": "IMAGE", "mask": "MASK", "preset": "HY3D_PRESET", "shape_seed": "INT", "paint_seed": "INT"},
        {"mesh": "MESH"},
        ((640, 0), (2820, ROW)),
        "Makes a textured mesh of one picture. Connect a Preset, and Save 3D Model.",
        ("image to 3d", "picture to mesh", "hunyuan3d", "사진에서 메시"),
    )
    x = 1310
    one_picture(graph, x, "in.image", "in.mask")
    preset_lines(graph, "in.preset", 840, x, [((870, LINE), "cut.preset")])
    graph.link("in.shape_seed > shape.seed", via=[(840, GUTTER - 20), (1250, GUTTER - 20)])
    graph.link("in.paint_seed > paint.seed", via=[(840, GUTTER + 60), (1670, GUTTER + 60)])
    graph.node("report", "MemoryReport", (2820, ROW + 160), 640, 440)
    graph.link("inpaint.mesh > out.mesh", "inpaint.mesh > report.mesh")
    frame(graph, x)
    return graph


def shape_only() -> Graph:
    """The blueprint from a picture to a shape."""
    graph = Graph(
        text("subgraph", "shape"),
        {"image": "IMAGE", "mask": "MASK", "preset": "HY3D_PRESET", "shape_seed": "INT"},
        {"mesh": "MESH"},
        ((640, 0), (2050, 0)),
        "Makes a clean mesh of one picture, without colours. Connect a Preset.",
        ("image to 3d", "hunyuan3d", "shape", "사진에서 형상"),
    )
    graph.node("cut", "RemoveBackground", (920, 0), 290)
    graph.node("shape", "GenerateShape", (1310, 0), 300)
    graph.node("clean", "CleanMesh", (1710, 0), 260)
    graph.link(
        "in.image > cut.image", "in.mask > cut.mask", "cut.image > shape.image", "cut.object mask > shape.mask",
        "shape.mesh > clean.mesh", "clean.mesh > out.mesh",
    )  # fmt: skip
    points: list[tuple[Point, str]] = [
        ((840, LINE), ""), ((870, LINE), "cut.preset"), ((1260, LINE), "shape.preset"), ((1660, LINE), "clean.preset"),
    ]  # fmt: skip
    graph.bus("in.preset", points)
    graph.link("in.shape_seed > shape.seed", via=[(840, 400), (1250, 400)])
    return graph


def texture_row(graph: Graph, x: float, image: str, mask: str, mesh: str, preset: str, left: float) -> None:
    """Adds the nodes that texture a mesh: the picture's above, the mesh's below. Remove Background's left is `x`."""
    graph.node("cut", "RemoveBackground", (x, 0), 290)
    graph.node("delight", "Delight", (x + 390, 0), 300)
    graph.node("unwrap", "UnwrapUVs", (x + 390, ROW), 280, keep_uvs=True)
    make_texture(graph, x + 790, 0, "unwrap.mesh")
    graph.link(
        f"{image} > cut.image", f"{mask} > cut.mask", "cut.image > delight.image", "cut.object mask > delight.mask",
        "delight.image > paint.image", f"{mesh} > unwrap.mesh", "unwrap.mesh > paint.mesh",
    )  # fmt: skip
    graph.bus(
        preset,
        [((left, GUTTER), ""), ((left, LINE), ""), ((x - 50, LINE), "cut.preset"), ((x + 340, LINE), "delight.preset"),
         ((x + 740, LINE), "paint.preset"), ((x + 1110, LINE), "bake.preset")],
    )  # fmt: skip
    graph.bus(preset, [((left, GUTTER), ""), ((x + 340, GUTTER), "unwrap.preset")])


def texture_own_mesh() -> Graph:
    """Colours for a mesh from a file, after a picture."""
    graph, x = start("texture_own_mesh"), 920
    load_picture(graph)
    graph.node("mesh", "LoadMesh", (x, ROW), 290, LOAD_MESH_PX, file="mesh.glb")
    texture_row(graph, x, "image.IMAGE", "image.MASK", "mesh.mesh", "preset.preset", 470)
    box(graph, "picture", PICTURE, 500, -80, x + 310, 520)
    box(graph, "own_mesh", SHAPE, x - 20, ROW - 80, x + 690, ROW + 440)
    box(graph, "texture", TEXTURE, x + 370, -80, x + 1830, 520)
    finish(graph, x + 1900, "inpaint.mesh")
    return graph


def texture_only() -> Graph:
    """The blueprint that textures a mesh."""
    graph = Graph(
        text("subgraph", "texture"),
        {"mesh": "MESH", "image": "IMAGE", "mask": "MASK", "preset": "HY3D_PRESET", "paint_seed": "INT"},
        {"mesh": "MESH"},
        ((640, 0), (2820, 0)),
        "Paints a mesh after one picture. Its front looks along +Z, up is +Y. Its UVs are kept. Connect a Preset.",
        ("texture mesh", "paint mesh", "hunyuan3d", "텍스처"),
    )
    texture_row(graph, 920, "in.image", "in.mask", "in.mesh", "in.preset", 840)
    graph.link("in.paint_seed > paint.seed", via=[(840, GUTTER - 20), (1660, GUTTER - 20)])
    graph.node("report", "MemoryReport", (2820, 160), 640, 440)
    graph.link("inpaint.mesh > out.mesh", "inpaint.mesh > report.mesh")
    return graph


def cut_views(graph: Graph, x: float, sources: dict[str, tuple[str, str]]) -> list[tuple[Point, str]]:
    """Adds Remove Background for each view. Returns the points of the preset's line to them."""
    for index, view in enumerate(VIEWS):
        image, mask = sources[view]
        graph.node(f"cut_{view}", "RemoveBackground", (x, 430 * index), 290)
        graph.link(f"{image} > cut_{view}.image", f"{mask} > cut_{view}.mask")
        target = ("image", "mask") if view == "front" else (view, f"{view}_mask")
        graph.link(
            f"cut_{view}.image > shape.{view}", f"cut_{view}.object mask > shape.{view}_mask",
            f"cut_{view}.image > delight.{target[0]}", f"cut_{view}.object mask > delight.{target[1]}",
        )  # fmt: skip
    first: list[tuple[Point, str]] = [((x - 45, LINE), "cut_front.preset")]
    return first + [((x - 45, 430 * index - 75), f"cut_{view}.preset") for index, view in enumerate(VIEWS) if index]


def link_views(graph: Graph, source: str, x: float, sources: dict[str, tuple[str, str]], left: float) -> None:
    """Adds everything between four pictures and the textured mesh. `x` is the left of Remove Background."""
    two_rows(graph, x + 500, "GenerateShapeMultiView")
    down = cut_views(graph, x, sources)
    graph.bus(source, [((left, GUTTER), ""), ((left, LINE), ""), *down])
    preset_lines(graph, source, left, x + 500, [], ((left, 360), (x + 330, 360)))
    frame(graph, x + 500)


def four_views_to_mesh() -> Graph:
    """One textured mesh from four pictures."""
    graph, x = start("four_views_to_mesh"), 920
    for index, view in enumerate(VIEWS):
        load_picture(graph, (520, 430 * index), view, text("title", view), 320)
    link_views(graph, "preset.preset", x, {view: (f"{view}.IMAGE", f"{view}.MASK") for view in VIEWS}, 470)
    box(graph, "pictures", PICTURE, 500, -80, x + 310, 1640)
    finish(graph, x + 2010, "inpaint.mesh")
    return graph


def views_only() -> Graph:
    """The blueprint from four pictures to a textured mesh."""
    pictures = {name: kind for view in VIEWS for name, kind in ((view, "IMAGE"), (f"{view}_mask", "MASK"))}
    graph = Graph(
        text("subgraph", "views"),
        {**pictures, "preset": "HY3D_PRESET", "shape_seed": "INT", "paint_seed": "INT"},
        {"mesh": "MESH"},
        ((560, 0), (3000, ROW)),
        "Makes a textured mesh of four pictures: the front, left, back and right of one object. Connect a Preset.",
        ("multi-view", "four views to 3d", "hunyuan3d", "네 시점"),
    )
    link_views(graph, "in.preset", 920, {view: (f"in.{view}", f"in.{view}_mask") for view in VIEWS}, 780)
    graph.link("in.shape_seed > shape.seed", via=[(780, GUTTER - 20), (1350, GUTTER - 20)])
    graph.link("in.paint_seed > paint.seed", via=[(780, GUTTER + 60), (1760, GUTTER + 60)])
    graph.node("report", "MemoryReport", (3000, ROW + 160), 640, 440)
    graph.link("inpaint.mesh > out.mesh", "inpaint.mesh > report.mesh")
    return graph


def picture_to_mesh() -> Graph:
    """The simple path: five nodes."""
    graph = start("picture_to_mesh", preset="Auto")
    load_picture(graph)
    simple(graph, "image.IMAGE", "image.MASK")
    return graph


def simple(graph: Graph, image: str, mask: str) -> None:
    """Adds the whole path as one node, and Save 3D Model."""
    graph.subgraph("whole", whole(), (900, 0), 340)
    graph.node("save", "SaveGLB", (1320, 0), 800, 850, filename_prefix=SAVE)
    graph.link(f"{image} > whole.image", f"{mask} > whole.mask", "whole.mesh > save.mesh")
    graph.link("preset.preset > whole.preset", via=[(860, 500)])


BLUEPRINTS: dict[str, Any] = {"whole": whole, "shape": shape_only, "texture": texture_only, "views": views_only}
