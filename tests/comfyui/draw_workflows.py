"""Draws the bundled workflows: `python draw_workflows.py <ComfyUI's folder> [name ...]`.

Each workflow runs on the demo checkpoints, with values that a CPU takes a minute for. The pack's own renderer draws
what came out, for the template browser: workflows/<name>.jpg, with the input in a corner. For core's shape nodes, whose
checkpoints are not here, a ball of voxels stands for what they make. picture_to_mesh runs with the preset 8 GB Fast and
is also photographed in the front end, for the READMEs, and so is the template browser. write_workflows.py writes the
workflows themselves.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from comfy_server import CHROMIUM, ROOT, Server, running
from graphs import PREFIX, Prompt, node, ours, saved, tiny_preset, to_prompt, workflow
from neighbours import WORKFLOWS
from PIL import Image, ImageChops, ImageDraw, ImageOps

sys.path.append(str(ROOT))

from lowvram_core.files.load_meshes import load_mesh
from lowvram_core.pictures.convert import pil_from_image
from lowvram_core.render.preview import render_textured
from lowvram_core.types import Camera, Mesh

SIDE_PX, INSET_PX, RIM_PX, CAPTION_PX = 480, 120, 14, 90
SEEN_FROM = Camera(30, 20)
PRESET = "8 GB Fast"
LIGHT = {"octree": 96, "render_px": 512, "texture_px": 512, "face_budget": 6000, "paint_steps": 3}
"""Values of Preset Custom, beside the tiny ones of the tests."""
LIGHT_CORE = {
    "RemeshMesh": {"resolution": 96}, "DecimateMesh": {"target_face_count": 6000},
    "RenderMesh": {"width": 96, "height": 96}, "VoxelToMesh": {"threshold": 0.5},
}  # fmt: skip
"""Values of core's nodes, which are slow on a CPU."""
SCREENSHOT = ROOT / "docs" / "pictures" / "picture_to_mesh.jpg"
TEMPLATES = ROOT / "docs" / "pictures" / "templates.jpg"
CAPTION, BALL_CAPTION = "demo models", "demo models; a ball for core's shape"


def cropped(picture: Image.Image, width: int, height: int) -> Image.Image:
    """The object of a picture on white, as large as it fits."""
    box = ImageChops.difference(picture, Image.new("RGB", picture.size, "white")).getbbox()
    return ImageOps.pad(picture.crop(box), (width, height), Image.Resampling.LANCZOS, "white")


def drawn(mesh: Mesh, width: int, height: int) -> Image.Image:
    """The mesh from the front, a little from the side and from above."""
    return cropped(pil_from_image(render_textured(mesh, SEEN_FROM, 2 * SIDE_PX)), width, height)


def thumbnail(meshes: Sequence[Mesh], insets: Sequence[Image.Image], caption: str = CAPTION) -> Image.Image:
    """A square picture: the results side by side, the inputs in a row below, and who made it."""
    sheet = Image.new("RGB", (SIDE_PX, SIDE_PX), "white")
    below = INSET_PX + 2 * RIM_PX
    width = (SIDE_PX - RIM_PX) // len(meshes) - RIM_PX
    for index, mesh in enumerate(meshes):
        height = SIDE_PX - below - RIM_PX
        sheet.paste(drawn(mesh, width, height), (RIM_PX + index * (width + RIM_PX), RIM_PX))
    side = min(INSET_PX, (SIDE_PX - 2 * RIM_PX - CAPTION_PX) // len(insets) - RIM_PX)
    for index, inset in enumerate(insets):
        framed = ImageOps.expand(ImageOps.fit(inset.convert("RGB"), (side - 2, side - 2)), 1, "#999999")
        sheet.paste(framed, (RIM_PX + index * (side + RIM_PX), SIDE_PX - RIM_PX - side))
    draw = ImageDraw.Draw(sheet)
    draw.text((SIDE_PX - RIM_PX, SIDE_PX - RIM_PX), caption, fill="#777777", anchor="rs", font_size=15)
    return sheet


def inputs(server: Server, prompt: Prompt) -> list[Image.Image]:
    """What the workflow starts from: its pictures on white, and its mesh in grey."""
    found = []
    for part in prompt.values():
        kind = part["class_type"]
        if kind == "LoadImage":
            found.append(server.input / part["inputs"]["image"])
        elif kind == f"{PREFIX}LoadPictures":
            found += sorted((server.input / part["inputs"]["folder"]).iterdir())
        elif kind == f"{PREFIX}LoadMesh":
            found.append(server.input / part["inputs"]["file"])
    return [_shown(path) for path in found]


def _shown(path: Path) -> Image.Image:
    if path.suffix == ".glb":
        return drawn(load_mesh(path), INSET_PX, INSET_PX)
    with Image.open(path) as picture:
        whole = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", whole.size, "white"), whole).convert("RGB")


def prepared(name: str, info: dict[str, Any]) -> Prompt:
    """The workflow's prompt with the preset, and with voxels in place of core's shape model."""
    prompt = to_prompt(workflow(name), info)
    for part in prompt.values():
        if part["class_type"] == f"{PREFIX}Preset":
            simple = name == "picture_to_mesh"
            part.update(ours(info, "Preset", preset=PRESET) if simple else tiny_preset(info, **LIGHT))
        part["inputs"] |= LIGHT_CORE.get(part["class_type"], {})
        if part["class_type"] == "VoxelToMesh":
            part["inputs"]["voxel"] = ["ball", 0]
    return {**prompt, "ball": node(info, "Hy3dTest_Ball")} if "core_shape" in name else prompt


def four_sides(server: Server, prompt: Prompt) -> None:
    """Gives the four-views workflow the capsule from four sides. It looks the same from each."""
    for part in prompt.values():
        if part["class_type"] == "LoadImage":
            part["inputs"]["image"] = "capsule.png"


def draw(server: Server, name: str, info: dict[str, Any]) -> None:
    """Writes one workflow's thumbnail."""
    prompt = prepared(name, info)
    if name == "four_views_to_mesh":
        four_sides(server, prompt)
    run = server.run(prompt)
    save = next(key for key, part in prompt.items() if part["class_type"] == "SaveGLB")
    paths = [
        path for data in run.of("executed") if data["node"] == save for path in saved(server.output, data["output"])
    ]
    meshes = [load_mesh(path) for path in dict.fromkeys(paths)]
    picture = thumbnail(meshes, inputs(server, prompt), BALL_CAPTION if "ball" in prompt else CAPTION)
    assert np.asarray(picture).std() > 10, f"{name}: the picture is empty"
    picture.save(ROOT / "workflows" / f"{name}.jpg", quality=88, optimize=True)


def photograph(server: Server) -> None:
    """Writes the screenshot of the simple path after a run."""
    from browser import editor

    with editor(server, 1600, 800) as tab:
        tab.load(workflow("picture_to_mesh"))
        tab.set_value(tab.node_id(f"{PREFIX}Preset"), "preset", PRESET)
        tab.run()
        tab.page.wait_for_timeout(6000)
        tab.show_all()
        tab.shot(SCREENSHOT)


def photograph_templates(server: Server) -> None:
    """Writes the screenshot of the pack's list in the template browser, with the thumbnails as they are now."""
    from browser import editor

    with editor(server, 1120, 720) as tab:
        tab.show_templates([*WORKFLOWS])
        tab.shot(TEMPLATES)


def main() -> None:
    """Draws the named workflows, or all."""
    names = sys.argv[2:] or list(WORKFLOWS)
    with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "comfy", Path(sys.argv[1])) as server:
        info = server.get("/object_info")
        for name in names:
            draw(server, name, info)
            if CHROMIUM and name == "picture_to_mesh":
                photograph(server)  # while ComfyUI still has its results
        if CHROMIUM:
            photograph_templates(server)


if __name__ == "__main__":
    main()
