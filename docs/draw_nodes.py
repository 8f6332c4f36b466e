"""Draws the pictures of docs/nodes.md: `python docs/draw_nodes.py`, on the CPU in about a minute.

Every stage runs as in `make demo`, with the same checkpoints, photograph and preset. The pictures of the preset nodes
and of Memory Report are taken in ComfyUI, by tests/comfyui/draw_nodes.py.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "demo"
sys.path[:0] = [str(ROOT), str(DEMO)]

import numpy as np  # noqa: E402  (needs the path above)
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from PIL import Image, ImageDraw, ImageFont  # noqa: E402
from torch import Tensor  # noqa: E402
from training import pictures as demo_pictures  # noqa: E402
from training import render as demo_render  # noqa: E402
from training import solids  # noqa: E402

from lowvram_core.app.pipeline import Seeds  # noqa: E402
from lowvram_core.app.torch_host import TorchHost  # noqa: E402
from lowvram_core.files.load_meshes import from_trimesh  # noqa: E402
from lowvram_core.files.meshes import to_trimesh  # noqa: E402
from lowvram_core.files.pictures import find_pictures, load_picture  # noqa: E402
from lowvram_core.files.store import ModelStore  # noqa: E402
from lowvram_core.pictures.checkers import on_checkers  # noqa: E402
from lowvram_core.pictures.convert import cutout_from_rgba, pil_from_image  # noqa: E402
from lowvram_core.presets import get  # noqa: E402
from lowvram_core.render.cameras import project, to_rig  # noqa: E402
from lowvram_core.render.preview import render_textured, turntable  # noqa: E402
from lowvram_core.stages.background import remove_background  # noqa: E402
from lowvram_core.stages.bake import bake  # noqa: E402
from lowvram_core.stages.clean import clean  # noqa: E402
from lowvram_core.stages.delight import delight  # noqa: E402
from lowvram_core.stages.inpaint import inpaint  # noqa: E402
from lowvram_core.stages.paint import paint_views  # noqa: E402
from lowvram_core.stages.shape import generate_shape  # noqa: E402
from lowvram_core.stages.unwrap import unwrap  # noqa: E402
from lowvram_core.types import SIDES, Atlas, Camera, Cutout, Mesh, Views  # noqa: E402

OUT = ROOT / "docs" / "pictures" / "nodes"
MOST_BYTES = 60_000
WIDTH, HEIGHT = 840, 250
TOP, FOOT, ARROW, GAP, LARGEST_TILE = 26, 42, 64, 12, 180
INK, FAINT, LINE = "#222222", "#777777", "#c8c8c8"
CORNER = Camera(35, 20)
"""The camera for pictures of meshes: at the front, moved to the side and a little up."""
DRAWN_PX = 1024
EDGE = (60, 60, 60)
LEFT_LIMB = (0.2, 0.42)
"""A place in the ring's picture, as fractions of its width and height."""
ZOOM = 5
FEW_FACES = 1500
"""Face budget for the picture of Clean Mesh. With the preset's budget the faces are too small to see."""

Tile = tuple[str, str, Image.Image]
"""The socket's type, a short note, and a picture."""


@dataclass(frozen=True)
class Made:
    """The results of one run, stage by stage. `other` is a shape from four pictures."""

    picture: Image.Image
    cutout: Cutout
    dense: Mesh
    few: Mesh
    mesh: Mesh
    delit: Tensor
    views: Views
    atlas: Atlas
    textured: Mesh
    side_views: dict[str, Image.Image]
    other: Mesh


def make() -> Made:
    """Runs the stages."""
    preset = get("8 GB Balanced").with_(background_model="u2netp")
    host, store, seeds = TorchHost(torch.device("cpu")), ModelStore([DEMO], offline=True), Seeds()
    picture = load_picture(DEMO / "pictures" / "ring.jpg")
    cutout = remove_background(picture, preset, host, store)
    dense = generate_shape(cutout, preset, host, store, seed=seeds.shape)
    mesh = unwrap(clean(dense, preset, host), preset, host)
    delit = delight(cutout, preset, host, store, seed=seeds.delight)
    views = paint_views(mesh, delit, preset, host, store, seed=seeds.paint)
    atlas = bake(mesh, views, preset, host)
    side_views = pictures_of_a_ring()
    cutouts = {name: cutout_from_rgba(view) for name, view in side_views.items()}
    other = generate_shape(cutouts, preset.with_(variant="mv-turbo", shape_steps=5), host, store, seed=seeds.shape)
    few = clean(dense, preset.with_(face_budget=FEW_FACES), host)
    textured = inpaint(mesh, atlas, host)
    return Made(picture, cutout, dense, few, mesh, delit, views, atlas, textured, side_views, other)


def pictures_of_a_ring() -> dict[str, Image.Image]:
    """Returns RGBA pictures of another ring from its four sides, by view name."""
    distance = partial(solids.sdf, solids.Solid("ring", 0.85, 0.85, 0.22, 0.22))
    lamp = demo_render.Light(np.array([0.4, 0.6, 0.7]), 0.6, 0.5, 0.0, 0.0)
    made = {}
    for turns, name in enumerate(SIDES):
        camera = demo_render.Camera(90.0 * turns, 12.0, 1.2, 6.0)
        seen = demo_render.see(distance, camera, 768)
        turned = demo_render.Light(camera_to_world(lamp.towards, camera), 0.6, 0.5, 0.0, 0.0)
        rgb = demo_render.shade(seen, np.array([0.25, 0.5, 0.75]), turned, camera.axes()[2])
        rgb, alpha = demo_pictures.smooth_edge(rgb, seen.mask)
        pixels = np.concatenate([rgb, alpha[..., None]], -1) * 255 + 0.5
        made[name] = Image.fromarray(pixels.astype(np.uint8), "RGBA")
    return made


def camera_to_world(vector: np.ndarray, camera: demo_render.Camera) -> np.ndarray:
    """[3] unit vector in world space. The lamp moves with the camera."""
    world: np.ndarray = np.stack(camera.axes(), 1) @ vector
    return world / np.linalg.norm(world)


def font(px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Returns Pillow's own font, so that every machine draws the same picture."""
    return ImageFont.load_default(px)


def write(draw: ImageDraw.ImageDraw, x: float, y: float, text: str, px: int = 14, fill: str = INK) -> None:
    """Writes a text, centred at x, from y downwards."""
    draw.text((x, y), text, fill=fill, font=font(px), anchor="ma")


def strip(inputs: Sequence[Tile], outputs: Sequence[Tile]) -> Image.Image:
    """Draws the tiles of the inputs, an arrow, and the tiles of the outputs, as RGB."""
    count = len(inputs) + len(outputs)
    edge = min(LARGEST_TILE, (WIDTH - ARROW - (count + 1) * GAP) // count)
    picture = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(picture)
    x = (WIDTH - ARROW - count * (edge + GAP) + GAP) // 2
    y = TOP + (HEIGHT - TOP - FOOT - edge) // 2
    for word, tiles in (("input", inputs), ("output", outputs)):
        write(draw, x + (len(tiles) * (edge + GAP) - GAP) / 2, y - 20, word, 13, FAINT)
        for kind, note, image in tiles:
            picture.paste(fit(image, edge), (x, y))
            draw.rectangle((x, y, x + edge - 1, y + edge - 1), outline=LINE)
            write(draw, x + edge / 2, y + edge + 4, kind)
            write(draw, x + edge / 2, y + edge + 22, note, 12, FAINT)
            x += edge + GAP
        if word == "input":
            arrow(draw, x, y + edge / 2)
            x += ARROW
    return picture


def arrow(draw: ImageDraw.ImageDraw, x: float, y: float) -> None:
    """Draws an arrow to the right, with its middle at y."""
    left, right = x + 4, x + ARROW - GAP - 6
    draw.line((left, y, right - 8, y), fill=FAINT, width=4)
    draw.polygon([(right - 12, y - 9), (right, y), (right - 12, y + 9)], fill=FAINT)


def fit(image: Image.Image, edge: int) -> Image.Image:
    """RGB [edge,edge]: the whole picture on white. Transparent parts become white."""
    scale = edge / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    small = image.convert("RGBA").resize(size, Image.Resampling.LANCZOS)
    tile = Image.new("RGB", (edge, edge), "white")
    tile.paste(small, ((edge - small.width) // 2, (edge - small.height) // 2), small)
    return tile


def card(*lines: str) -> Image.Image:
    """Draws a sheet of paper with words on it: the picture of a file."""
    paper = Image.new("RGB", (360, 360), "white")
    draw = ImageDraw.Draw(paper)
    draw.polygon([(70, 30), (230, 30), (290, 90), (290, 330), (70, 330)], fill="#f4f4f4", outline=FAINT, width=4)
    draw.line([(230, 30), (230, 90), (290, 90)], fill=FAINT, width=4)
    for index, line in enumerate(lines):
        write(draw, 180, 200 - 22 * len(lines) + 46 * index, line, 34)
    return paper


def four(images: Sequence[Image.Image]) -> Image.Image:
    """Puts four pictures into two rows."""
    edge, rim = 256, 10
    picture = Image.new("RGB", (2 * edge, 2 * edge), "white")
    for index, image in enumerate(images):
        picture.paste(fit(image, edge - 2 * rim), (edge * (index % 2) + rim, edge * (index // 2) + rim))
    return picture


def mask(values: Tensor) -> Image.Image:
    """White where the value is 1."""
    return pil_from_image(values.float()[..., None].expand(-1, -1, 3))


def look(mesh: Mesh, camera: Camera = CORNER) -> Image.Image:
    """Renders the mesh as on contact sheets."""
    return pil_from_image(render_textured(mesh, camera, 512))


def facets(mesh: Mesh, zoom: int = 1) -> Image.Image:
    """Draws each face with one grey, shaded as if it faced the camera. A zoom above 1 shows LEFT_LIMB."""
    view, points = on_screen(mesh)
    a, b, c = view[mesh.faces].unbind(1)
    normal = F.normalize(torch.linalg.cross(b - a, c - a))
    normal = normal * normal[:, 2:].sign()
    lamp = F.normalize(torch.tensor([0.35, -0.5, 0.8]), dim=0)
    greys = ((0.45 + 0.55 * (normal @ lamp).clamp(min=0)) * 230).byte()[:, None].expand(-1, 3)
    centre = torch.tensor(LEFT_LIMB if zoom > 1 else (0.5, 0.5)) * DRAWN_PX
    points = (points - centre) * zoom + DRAWN_PX / 2
    return polygons(points, mesh.faces, greys, view[:, 2], edge_px=2 if zoom == 1 else 4)


def coloured(mesh: Mesh) -> Image.Image:
    """Draws the mesh in the colours of `layout`."""
    view, points = on_screen(mesh)
    return polygons(points, mesh.faces, directions(mesh), view[:, 2])


def on_screen(mesh: Mesh) -> tuple[Tensor, Tensor]:
    """[V,3] in camera space, where a larger z is nearer, and [V,2] in pixels."""
    view, clip = project(to_rig(mesh.vertices), CORNER)
    return view, (clip[:, :2] + 1) / 2 * (DRAWN_PX - 1)


def layout(mesh: Mesh) -> Image.Image:
    """Draws the charts of the texture. The colours show the directions of the faces."""
    assert mesh.uvs is not None
    return polygons(mesh.uvs * (DRAWN_PX - 1), mesh.faces, directions(mesh), torch.zeros(len(mesh.uvs)))


def directions(mesh: Mesh) -> Tensor:
    """[F,3] uint8 face normals as colours."""
    a, b, c = mesh.vertices[mesh.faces].unbind(1)
    normal = F.normalize(torch.linalg.cross(b - a, c - a))
    return ((normal * 0.4 + 0.5) * 255).byte()


def polygons(points: Tensor, faces: Tensor, colours: Tensor, depth: Tensor, edge_px: int = 0) -> Image.Image:
    """Fills triangles [F,3] of points [V,2] in pixels with colours [F,3]. A larger depth [V] is drawn later."""
    picture = Image.new("RGB", (DRAWN_PX, DRAWN_PX), "white")
    draw = ImageDraw.Draw(picture)
    order = depth[faces].mean(1).argsort(stable=True)
    for triangle, colour in zip(points[faces[order]].tolist(), colours[order].tolist(), strict=True):
        fill = (colour[0], colour[1], colour[2])
        draw.polygon([(x, y) for x, y in triangle], fill=fill, outline=EDGE if edge_px else fill, width=max(1, edge_px))
    return picture


def faces_of(mesh: Mesh) -> str:
    """Returns the number of faces as text."""
    return f"{len(mesh.faces):,} faces"


def detailed(mesh: Mesh) -> list[Tile]:
    """Draws the mesh's faces, and an enlarged detail."""
    return [("MESH", faces_of(mesh), facets(mesh)), ("", f"detail, {ZOOM} x", facets(mesh, ZOOM))]


def turned(mesh: Mesh) -> list[Tile]:
    """Draws four frames of a turn."""
    frames = [pil_from_image(frame) for frame in turntable(mesh, 36, 256)]
    return [("IMAGE", f"frame {number + 1} of {len(frames)}", frames[number]) for number in (0, 4, 8, 12)]


def folder_strip() -> Image.Image:
    """The picture of Load Pictures from Folder, with the demo's own pictures."""
    paths = find_pictures([DEMO / "pictures"])
    cutouts = [cutout_from_rgba(load_picture(path).convert("RGBA")) for path in paths]
    outputs = [("IMAGE", path.stem, pil_from_image(cutout.image)) for path, cutout in zip(paths, cutouts, strict=True)]
    for path, cutout in zip(paths, cutouts, strict=True):
        whole = bool((cutout.mask == cutout.mask[0, 0]).all())
        outputs.append(("MASK", f"{path.stem}, all 0" if whole else path.stem, mask(1 - cutout.mask)))
    return strip([("folder", "pictures/", card(*(path.name for path in paths)))], outputs)


def draw_all(made: Made) -> dict[str, Image.Image]:
    """Returns the pictures by the name of their file."""
    shown = pil_from_image(on_checkers(made.cutout))
    cut: list[Tile] = [("IMAGE", "where MASK is 1", shown), ("MASK", "1 = object", mask(made.cutout.mask))]
    bare = Mesh(made.mesh.vertices, made.mesh.faces)
    baked = made.mesh.with_(texture=made.atlas.texture)
    seen: Tile = ("MASK", "seen", mask(made.atlas.seen))
    assert made.textured.texture is not None
    before, after = pil_from_image(made.atlas.texture), pil_from_image(made.textured.texture)
    sides = [("IMAGE", name, view) for name, view in made.side_views.items()]
    views = four([pil_from_image(image) for image in made.views.images])
    textured: Tile = ("MESH", "with texture", look(made.textured))
    there = from_trimesh(to_trimesh(made.textured))
    return {
        "load_pictures": folder_strip(),
        "remove_background": strip([("IMAGE", "", made.picture)], cut),
        "generate_shape": strip(cut, [("MESH", faces_of(made.dense), look(made.dense))]),
        "generate_shape_multiview": strip(sides, [("MESH", faces_of(made.other), look(made.other))]),
        "clean_mesh": strip(detailed(made.dense), detailed(made.few)),
        "unwrap_uvs": strip(
            [("MESH", faces_of(bare), coloured(bare))], [("MESH", "with UVs: their layout", layout(made.mesh))]
        ),
        "delight": strip(cut, [("IMAGE", "512 px", pil_from_image(made.delit))]),
        "paint_views": strip(
            [("MESH", "with UVs", look(bare)), ("IMAGE", "", pil_from_image(made.delit))],
            [("IMAGE", "4 views", views)],
        ),
        "bake_texture": strip(
            [("MESH", "with UVs", look(bare)), ("IMAGE", "4 views", views)],
            [("MESH", "with texture", look(baked, Camera(35, 45))), ("texture", "", before), seen],
        ),
        "inpaint_texture": strip(
            [("MESH", "with texture", look(baked, Camera(35, 45))), ("texture", "", before), seen],
            [("MESH", "with texture", look(made.textured, Camera(35, 45))), ("texture", "", after)],
        ),
        "load_mesh": strip([("file", "GLB, OBJ, PLY, STL", card("ring.glb"))], [textured]),
        "mesh_to_trimesh": strip([textured], [("TRIMESH", "trimesh.Trimesh", look(there))]),
        "trimesh_to_mesh": strip([("TRIMESH", "trimesh.Trimesh", look(there))], [textured]),
        "turntable": strip([textured], turned(made.textured)),
        "save_mesh": strip([textured], [("file", "GLB, OBJ, PLY, STL", card("ring.glb"))]),
    }


def save(picture: Image.Image, path: Path) -> None:
    """Writes a JPEG, in the best quality that keeps it within MOST_BYTES."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for quality in (90, 85, 80, 70, 60):
        picture.save(path, quality=quality, optimize=True)
        if path.stat().st_size <= MOST_BYTES:
            return


def main() -> None:
    """Runs the stages, then draws and writes the pictures."""
    torch.set_num_threads(1)
    for slug, picture in draw_all(make()).items():
        save(picture, OUT / f"{slug}.jpg")


if __name__ == "__main__":
    main()
