"""Draws the bundled workflows in the real front end: `python draw_workflows.py <ComfyUI's folder> [name ...]`.

Each graph is built, run on the demo checkpoints, and written to workflows/ as .json and .jpg (a screenshot).
full_quality is not run: it takes hours without a GPU. Use this after a change of the nodes. The pack ships the files
in workflows/.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from browser import Editor, editor
from server import ROOT, running

WORKFLOWS = ROOT / "workflows"
PREFIX = "Hy3dLowVram_"
NOTE = "PrimitiveStringMultiline"
"""The core node that shows a note. comfy-test does not know the front end's own note nodes."""
PICTURE, SHAPE, TEXTURE, RESULT = "#3f5159", "#3f789e", "#8a6d3b", "#446644"
SAVE = "3d/hunyuan3d"
BELOW_PREVIEWS = 830
"""Delight and Paint Views keep their last preview, which makes them higher."""


@dataclass
class Graph:
    """A graph to draw: nodes with keys, links between `key.output` and `key.input`, groups."""

    note: str
    nodes: list[dict[str, Any]] = field(default_factory=list)
    links: list[list[str]] = field(default_factory=list)
    groups: list[dict[str, Any]] = field(default_factory=list)

    def node(
        self, key: str, kind: str, pos: Sequence[float], size: Sequence[float], title: str = "", **values: Any
    ) -> None:
        """Adds a node. A kind that is not from the core is one of ours."""
        own = kind if kind in {"LoadImage", "SaveGLB", NOTE} else PREFIX + kind
        self.nodes.append(
            {"key": key, "type": own, "title": title, "pos": list(pos), "size": list(size), "values": values}
        )

    def link(self, *arrows: str) -> None:
        """Adds links, each written `from.output > to.input`."""
        for arrow in arrows:
            source, target = arrow.split(" > ")
            self.links.append([*source.split("."), *target.split(".")])

    def preset_to(self, *keys: str) -> None:
        """Links the preset to these nodes."""
        self.link(*(f"preset.preset > {key}.preset" for key in keys))

    def group(self, title: str, color: str, bounds: Sequence[float]) -> None:
        """Adds a titled box: x, y, width, height."""
        self.groups.append({"title": title, "color": color, "bounds": list(bounds)})


START = """PICTURE TO TEXTURED MESH

1. Load Image: choose a picture of one object, best from the front.
2. Press Run. The first run loads (and, where they are missing, downloads) the models: a node's bar moves slowly \
then, but it is not hanging.
3. The mesh turns in Save 3D Model; the file lies in output/3d.

Too slow, too coarse, out of memory? Replace the Preset node below with another one of the same menu, and connect it \
to the same nodes. Preset Auto chooses by your card.

Seeds are fixed: queue again, and only what you changed runs again. Another shape: change the seed of Generate Shape.
"""
OWN_MESH = """COLOURS FOR A MESH OF YOUR OWN

1. Put a GLB, OBJ, PLY or STL into ComfyUI's input folder and write its name into Load Mesh.
2. Load Image: a picture that shows how it should look, from its front.
3. Press Run.

The mesh's front looks along +Z, up is +Y. UVs that it has are kept; switch keep_uvs off for new ones. A mesh of many \
more than 100,000 faces: put Clean Mesh in front of Unwrap UVs.
"""
FOUR_VIEWS = """FOUR PICTURES OF ONE OBJECT TO A TEXTURED MESH

One picture each, of one object seen from its front, left, back and right. A view that you do not have: disconnect it \
from Generate Shape and from Delight; keep the front.

The multi-view model is another download. Delight changes the four pictures one by one and hands them on as a batch. \
Paint Views takes its colours from all of them, but the paint model does not know which side a picture shows. If views \
mix up sides that look alike, connect fewer pictures to Delight.
"""
FULL = """UPSTREAM'S FULL QUALITY ON 8 GB

50 steps, octree 384, six painted views, 2048 px: what Tencent's own code does. It takes many times as long as 8 GB \
Balanced; try the picture there first.
"""


def picture(graph: Graph) -> None:
    """Adds Load Image and Remove Background, on the left. The object goes to Delight, below is Memory Report."""
    graph.node("image", "LoadImage", (500, 0), (320, 340), "Your picture", image="example.png")
    graph.node("cut", "RemoveBackground", (500, 450), (320, 130))
    graph.node("report", "MemoryReport", (500, 835), (720, 450))
    graph.link(
        "image.IMAGE > cut.image", "image.MASK > cut.mask", "cut.image > delight.image",
        "cut.object mask > delight.mask",
    )  # fmt: skip
    graph.preset_to("cut")
    graph.group("1 Picture", PICTURE, (480, -95, 360, 815))
    graph.group("4 What it cost", RESULT, (480, 740, 760, 580))


def texture(graph: Graph, mesh: str, x: float, width: float = 640, below: float = BELOW_PREVIEWS) -> None:
    """Adds the nodes from Delight to the saved file.

    Args:
        width: of the saved file's node.
        below: top of the nodes below the previews.
    """
    graph.node("delight", "Delight", (x, 0), (320, 270), seed=42, control_after_generate="fixed")
    graph.node("paint", "PaintViews", (x + 360, 0), (320, 330), seed=0, control_after_generate="fixed")
    graph.node("bake", "BakeTexture", (x, below), (320, 110))
    graph.node("inpaint", "InpaintTexture", (x + 360, below), (320, 80))
    graph.node("save", "SaveGLB", (x + 760, 0), (width, 1300), filename_prefix=SAVE)
    graph.link(
        f"{mesh} > paint.mesh", "delight.image > paint.image", "paint.mesh > bake.mesh",
        "paint.images > bake.images", "paint.views > bake.views", "bake.mesh > inpaint.mesh",
        "bake.seen > inpaint.seen", "inpaint.mesh > report.mesh", "report.mesh > save.mesh",
    )  # fmt: skip
    graph.preset_to("delight", "paint", "bake")
    graph.group("5 Result", RESULT, (x + 740, -95, width + 40, 1415))


def start(note: str, preset: str) -> Graph:
    """Returns a graph with the note and the preset."""
    graph = Graph(note)
    graph.node("note", NOTE, (0, -40), (420, 430), "Read me first", value=note)
    graph.node("preset", preset, (0, 520), (300, 450))
    graph.group("Settings: swap this node", "#2f6f4f", (-20, 425, 460, 615))
    return graph


def picture_to_mesh(note: str, preset: str) -> Graph:
    """The whole graph from a picture to a textured mesh."""
    graph = start(note, preset)
    picture(graph)
    graph.node("shape", "GenerateShape", (900, 0), (320, 180), seed=0, control_after_generate="fixed")
    graph.node("clean", "CleanMesh", (900, 290), (320, 110))
    graph.node("unwrap", "UnwrapUVs", (900, 510), (320, 110))
    graph.link(
        "cut.image > shape.image", "cut.object mask > shape.mask", "shape.mesh > clean.mesh", "clean.mesh > unwrap.mesh"
    )
    graph.preset_to("shape", "clean", "unwrap")
    graph.group("2 Shape", SHAPE, (880, -95, 360, 815))
    texture(graph, "unwrap.mesh", 1300)
    graph.group("3 Texture", TEXTURE, (1280, -95, 720, 1415))
    return graph


def texture_own_mesh() -> Graph:
    """The graph that textures a mesh from a file, with a picture."""
    graph = start(OWN_MESH, "Preset8GBBalanced")
    picture(graph)
    graph.node("mesh", "LoadMesh", (900, 0), (320, 60), "Your mesh", file="mesh.glb")
    graph.node("unwrap", "UnwrapUVs", (900, 200), (320, 110), keep_uvs=True)
    graph.link("mesh.mesh > unwrap.mesh")
    graph.preset_to("unwrap")
    graph.group("2 Mesh", SHAPE, (880, -95, 360, 505))
    texture(graph, "unwrap.mesh", 1300)
    graph.group("3 Texture", TEXTURE, (1280, -95, 720, 1415))
    return graph


def four_views() -> Graph:
    """The graph that makes one textured mesh from four pictures."""
    graph = start(FOUR_VIEWS, "Preset8GBBalanced")
    for index, view in enumerate(("front", "left", "back", "right")):
        x, y = 500 + 360 * (index % 2), 630 * (index // 2)
        graph.node(view, "LoadImage", (x, y), (320, 290), view.capitalize(), image="example.png")
        graph.node(f"cut_{view}", "RemoveBackground", (x, y + 370), (320, 90))
        graph.link(f"{view}.IMAGE > cut_{view}.image", f"{view}.MASK > cut_{view}.mask")
        graph.link(f"cut_{view}.image > shape.{view}", f"cut_{view}.object mask > shape.{view}_mask")
        image, mask = ("image", "mask") if view == "front" else (view, f"{view}_mask")
        graph.link(f"cut_{view}.image > delight.{image}", f"cut_{view}.object mask > delight.{mask}")
        graph.preset_to(f"cut_{view}")
    graph.node(
        "shape", "GenerateShapeMultiView", (1260, 0), (320, 300), seed=0, control_after_generate="fixed",
    )  # fmt: skip
    graph.node("clean", "CleanMesh", (1260, 430), (320, 110))
    graph.node("unwrap", "UnwrapUVs", (1260, 640), (320, 110))
    graph.node("report", "MemoryReport", (1640, 1000), (680, 290))
    graph.link("shape.mesh > clean.mesh", "clean.mesh > unwrap.mesh")
    graph.preset_to("shape", "clean", "unwrap")
    texture(graph, "unwrap.mesh", 1640, width=480, below=735)
    graph.group("1 Four pictures", PICTURE, (480, -95, 720, 1455))
    graph.group("2 Shape", SHAPE, (1240, -95, 360, 1455))
    graph.group("3 Texture", TEXTURE, (1620, -95, 720, 1012))
    graph.group("4 What it cost", RESULT, (1620, 925, 720, 435))
    return graph


GRAPHS = {
    "hunyuan3d_8gb": lambda: picture_to_mesh(START, "Preset8GBBalanced"),
    "texture_own_mesh": texture_own_mesh,
    "four_views_to_shape": four_views,
    "full_quality": lambda: picture_to_mesh(FULL, "Preset8GBFull"),
}
NOT_RUN = {"full_quality"}


def draw(tab: Editor, name: str) -> None:
    """Writes one workflow and its picture."""
    graph = GRAPHS[name]()
    tab.js("() => { localStorage.clear(); sessionStorage.clear(); }")
    tab.page.reload()  # the front end keeps previews by node id, even for another graph
    tab.wait()
    tab.build(graph.nodes, graph.links, graph.groups)
    data = tab.js("() => app.graph.serialize()")
    (WORKFLOWS / f"{name}.json").write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    tab.load(data)
    if name not in NOT_RUN:
        tab.run()
        tab.page.wait_for_timeout(6000)
    tab.show_all()
    tab.shot(WORKFLOWS / f"{name}.jpg")


def main() -> None:
    """Draws the named workflows, or all."""
    WORKFLOWS.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        running(Path(folder) / "comfy", Path(sys.argv[1])) as server,
        editor(server) as tab,
    ):
        for name in sys.argv[2:] or GRAPHS:
            draw(tab, name)


if __name__ == "__main__":
    main()
