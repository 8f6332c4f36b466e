"""Merges views that disagree, by upstream's weights and by matched gains, on colours that are known everywhere.

    python -W ignore benchmarks/merge.py
    python -W ignore benchmarks/merge.py --picture docs/pictures/merge.jpg

Each view of 512 px is moved by 2 to 4 px and gets a gain of its own, 0.9 to 1.1. There are two colours: half a wave
over the object, and the same with stripes of 10 px. A row of benchmarks/results/merge.json has, for a mesh and a rule:

    psnr         dB against the true half wave, where a view sees the texel
    psnr_agree   the same, if the views are not disturbed
    contrast     the amplitude of the stripes against the true one; ghosts lower it
    seams        steps of the error between neighbouring texels, 99.9 % are smaller, in steps of 1/255
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "tests" / "core")]

import torch  # noqa: E402  (these need the path above)
from bake_scenes import DRAWN_PX, VIEW_PX, Solid, bumpy, carved, crowd, paint  # noqa: E402
from meshes import torus  # noqa: E402
from PIL import Image  # noqa: E402
from torch import Tensor  # noqa: E402

from lowvram_core.app.torch_host import TorchHost  # noqa: E402
from lowvram_core.pictures.convert import pil_from_image  # noqa: E402
from lowvram_core.presets import MERGES, PRESETS, VIEW_SETS  # noqa: E402
from lowvram_core.render.cameras import HALF_WIDTH  # noqa: E402
from lowvram_core.render.preview import render_textured  # noqa: E402
from lowvram_core.render.scene import Scene  # noqa: E402
from lowvram_core.render.texels import Texels, surface_points  # noqa: E402
from lowvram_core.stages.bake import bake  # noqa: E402
from lowvram_core.stages.inpaint import inpaint  # noqa: E402
from lowvram_core.stages.unwrap import unwrap  # noqa: E402
from lowvram_core.types import Camera, Mesh, Views  # noqa: E402

log = logging.getLogger("merge")
RESULT = ROOT / "benchmarks" / "results" / "merge.json"
MESHES = {"carved": carved, "closed": lambda: bumpy(6), "many charts": crowd, "torus": lambda: torus(96, 48, 0.2)}
CAMERAS = VIEW_SETS["standard"]
STRIPES_PX = 10
WAVE = STRIPES_PX * 2 * HALF_WIDTH / VIEW_PX
"""Length of a stripe's period on the rig."""
AMPLITUDE = 0.12
BLOCK = 2.5 * WAVE
"""The stripes' amplitude is fitted in cubes of this size."""
POSE = (40, 25)
HOST = TorchHost(torch.device("cpu"), torch.float32)
Row = dict[str, Any]


def coarse(points: Tensor) -> Tensor:
    """[N,3] 0.25..0.75: half a wave over the object."""
    x, y, z = points.unbind(dim=1)
    return 0.5 + 0.25 * torch.stack([torch.sin(3 * x + y), torch.sin(2 * y - 2 * z + 1), torch.cos(3 * z + x)], dim=1)


def phases(points: Tensor) -> Tensor:
    """[N,3] phases of the stripes, which run another way in each channel."""
    x, y, z = (2 * math.pi / WAVE * points).unbind(dim=1)
    return torch.stack([y + 0.3 * x, z + 0.3 * y, x + 0.3 * z], dim=1)


def striped(points: Tensor) -> Tensor:
    """[N,3] the coarse colour with stripes."""
    return coarse(points) + AMPLITUDE * torch.sin(phases(points))


def disturbed(views: Views, seed: int = 5) -> Views:
    """Each view moved by 2 to 4 px, with a gain of 0.9 to 1.1."""
    generator = torch.Generator().manual_seed(seed)
    angle, reach, gain = torch.rand(3, len(views.images), generator=generator)
    angle, reach = 2 * math.pi * angle, 2 + 2 * reach
    moves = torch.stack([reach * angle.sin(), reach * angle.cos()], dim=1).round().int().tolist()
    images = [torch.roll(image, move, (0, 1)) for image, move in zip(views.images, moves, strict=True)]
    return Views((torch.stack(images) * (0.9 + 0.2 * gain).view(-1, 1, 1, 1)).clamp(0, 1), views.cameras)


def contrast(colours: Tensor, places: Tensor) -> float:
    """The stripes' amplitude in colours [N,3] at places [N,3], of the true one; whatever their phase is."""
    cubes = (places / BLOCK).floor().long()
    _, cube, count = torch.unique(cubes, dim=0, return_inverse=True, return_counts=True)
    found, used = 0.0, 0.0
    for channel, phase in enumerate(phases(places).unbind(dim=1)):
        basis = torch.stack([torch.ones_like(phase), phase.sin(), phase.cos()], dim=1).double()
        rest = (colours - coarse(places))[:, channel : channel + 1].double()
        system = torch.zeros(len(count), 3, 3, dtype=torch.float64)
        system.index_add_(0, cube, basis.unsqueeze(2) * basis.unsqueeze(1))
        right = torch.zeros(len(count), 3, dtype=torch.float64).index_add_(0, cube, basis * rest)
        # A cube with too few texels, or with a small part of a stripe, does not tell the amplitude.
        good = (count > 30) & (torch.linalg.cond(system + 1e-9 * torch.eye(3)) < 8)
        amplitude = torch.linalg.solve(system[good], right[good])[:, 1:].norm(dim=1)
        found, used = found + float((amplitude * count[good]).sum()), used + float(count[good].sum())
    return found / used / AMPLITUDE


def seams(error: Tensor, seen: Tensor) -> float:
    """What 99.9 % of the steps of the error [T,T,3] between neighbouring seen texels stay below, in 1/255."""
    steps = []
    for one, other, both in (
        (error[1:], error[:-1], seen[1:] & seen[:-1]), (error[:, 1:], error[:, :-1], seen[:, 1:] & seen[:, :-1]),
    ):  # fmt: skip
        steps.append((one - other).abs().amax(dim=-1)[both])
    values = torch.cat(steps)
    return 255 * float(values.kthvalue(max(int(0.999 * len(values)), 1)).values)


def psnr(error: Tensor) -> float:
    """dB."""
    return float(-10 * torch.log10(error.square().mean()))


def compare(name: str, size_px: int, drawn_px: int = DRAWN_PX) -> tuple[list[Row], list[Mesh]]:
    """A row for each rule; the mesh with stripes: true, and by each rule.

    Args:
        drawn_px: the size at which the true views are drawn.
    """
    preset = PRESETS["8 GB Full"].with_(unwrapper="uvunwrap", render_px=size_px, texture_px=size_px)
    mesh = unwrap(MESHES[name](), preset, HOST)
    texels = surface_points(Scene(mesh), size_px)
    views = {colour: paint(Solid(mesh, colour), mesh, CAMERAS, drawn_px=drawn_px) for colour in (coarse, striped)}
    rows, textured = [], [inpaint(mesh, bake(mesh, views[striped], preset, HOST), HOST)]
    for rule in MERGES:
        ruled = preset.with_(merge=rule)
        one = bake(mesh, disturbed(views[coarse]), ruled, HOST)
        calm = bake(mesh, views[coarse], ruled, HOST)
        lined = bake(mesh, disturbed(views[striped]), ruled, HOST)
        true = _picture(texels, coarse(texels.places), size_px)
        visible = lined.seen.view(-1)[texels.index]
        rows.append({
            "mesh": name, "texture_px": size_px, "merge": rule,
            "psnr": round(psnr((one.texture - true)[one.seen]), 2),
            "psnr_agree": round(psnr((calm.texture - true)[calm.seen]), 2),
            "contrast": round(contrast(lined.texture.view(-1, 3)[texels.index][visible], texels.places[visible]), 3),
            "seams": round(seams(one.texture - true, one.seen), 2),
            "coverage": round(float(visible.float().mean()), 4),
        })  # fmt: skip
        textured.append(inpaint(mesh, lined, HOST))
    return rows, textured


def _picture(texels: Texels, colours: Tensor, size_px: int) -> Tensor:
    """[T,T,3] the colours [N,3] of the texels."""
    return torch.zeros(size_px**2, 3).index_copy_(0, texels.index, colours).view(size_px, size_px, 3)


def draw(rows: list[list[Mesh]], tile_px: int = 400) -> Image.Image:
    """One row a mesh: from views that agree, then from views that do not, merged by each rule."""
    sheet = Image.new("RGB", (len(rows[0]) * tile_px, len(rows) * tile_px), "white")
    for y, meshes in enumerate(rows):
        for x, mesh in enumerate(meshes):
            picture = pil_from_image(render_textured(mesh, Camera(*POSE), tile_px))
            sheet.paste(picture, (x * tile_px, y * tile_px))
    return sheet


def main() -> None:
    """Measures the meshes and writes benchmarks/results/merge.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--meshes", nargs="+", default=list(MESHES), choices=list(MESHES))
    parser.add_argument("--texture-px", type=int, default=1024)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    logging.getLogger("lowvram_core").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    rows, pictures = [], []
    for name in options.meshes:
        found, textured = compare(name, options.texture_px)
        rows += found
        pictures.append(textured)
        for row in found:
            log.info("%s", json.dumps(row))
    if options.picture:
        draw(pictures[:2]).save(options.picture, quality=88)
    options.output.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
