"""Compares view sets: how much of the atlas they cover, and the PSNR of a known colour after baking.

    python benchmarks/views.py

For each set of cameras, several meshes are painted with a smooth colour that depends on the place. The pack's own
stages bake and inpaint it. The result is compared with the true colour. Prints a table and writes
benchmarks/results/views.json.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import numpy as np
import torch
import trimesh
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

from lowvram_core.app.torch_host import TorchHost  # noqa: E402  (needs the path above)
from lowvram_core.presets import PRESETS, VIEW_SETS  # noqa: E402
from lowvram_core.render.atlas import rasterize_atlas  # noqa: E402
from lowvram_core.render.rasterize import interpolate  # noqa: E402
from lowvram_core.render.scene import Scene  # noqa: E402
from lowvram_core.stages.bake import bake  # noqa: E402
from lowvram_core.stages.inpaint import inpaint  # noqa: E402
from lowvram_core.stages.unwrap import unwrap  # noqa: E402
from lowvram_core.types import Camera, Mesh, Views  # noqa: E402

log = logging.getLogger("views")
RESULT = ROOT / "benchmarks" / "results" / "views.json"
PRESET = PRESETS["8 GB Fast"].with_(render_px=512, texture_px=512)
HOST = TorchHost(torch.device("cpu"), torch.float32)


def ring(*azimuths: int, elevation: int = 0) -> list[tuple[int, int]]:
    """Returns camera poses around the object at one elevation."""
    return [(azimuth, elevation) for azimuth in azimuths]


CANDIDATES: dict[str, list[tuple[int, int]]] = {
    "3: 0 120 240 @0": ring(0, 120, 240),
    "3: 0 @0, 120 240 @20": [(0, 0), *ring(120, 240, elevation=20)],
    "3: 0 @0, 120 @20, 240 @-20": [(0, 0), (120, 20), (240, -20)],
    "3: 0 90 180 @0": ring(0, 90, 180),
    "4: 0 90 180 270 @0": ring(0, 90, 180, 270),
    "4: 0 180 @0, 90 @20, 270 @-20": [(0, 0), (180, 0), (90, 20), (270, -20)],
    "4: 0 120 240 @0, top": [*ring(0, 120, 240), (0, 90)],
    "6: standard": [(camera.azimuth_deg, camera.elevation_deg) for camera in VIEW_SETS["standard"]],
}
SIDE_WEIGHTS = (0.05, 0.1, 0.3, 1.0)


def meshes() -> dict[str, Mesh]:
    """Solids that hide parts of themselves in different ways, with a few thousand faces each."""
    ball = trimesh.creation.icosphere(subdivisions=4)
    bumpy = ball.copy()
    bumpy.vertices *= (1 + 0.25 * np.sin(5 * ball.vertices).prod(axis=1) * 3)[:, None]
    table = [trimesh.creation.box((1.6, 0.15, 1.0), trimesh.transformations.translation_matrix((0, 0.5, 0)))]
    table += [
        trimesh.creation.box((0.15, 1.0, 0.15), trimesh.transformations.translation_matrix((x, 0, z)))
        for x in (-0.7, 0.7) for z in (-0.4, 0.4)
    ]  # fmt: skip
    upright = trimesh.transformations.rotation_matrix(np.pi / 2, (1, 0, 0))
    kinds = {
        "ball": ball,
        "bumpy ball": bumpy,
        "torus": trimesh.creation.torus(1.0, 0.35),
        "upright cylinder": trimesh.creation.cylinder(0.5, 1.6, transform=upright),
        "table": trimesh.util.concatenate([leg.subdivide().subdivide() for leg in table]),
    }
    return {
        name: Mesh(torch.from_numpy(kind.vertices.astype(np.float32)), torch.from_numpy(kind.faces.astype(np.int64)))
        for name, kind in kinds.items()
    }


def colour_at(points: Tensor) -> Tensor:
    """[...,3] 0..1: a smooth colour that is nowhere constant."""
    return 0.5 + 0.45 * torch.sin(points * torch.tensor([2.1, 2.7, 3.3]) + torch.tensor([0.3, 1.1, 2.0]))


def paint(mesh: Mesh, cameras: tuple[Camera, ...]) -> Views:
    """Returns what a perfect paint model would return."""
    scene, images = Scene(mesh), []
    for camera in cameras:
        raster = scene.view(camera, PRESET.render_px).raster
        image = colour_at(interpolate(scene.rig, raster, scene.faces))
        image[raster.face_ids == 0] = 1.0
        images.append(image)
    return Views(torch.stack(images), cameras)


def prepare(mesh: Mesh) -> tuple[Mesh, Tensor, Tensor]:
    """The mesh with UVs, its true texture [T,T,3], and [T,T] bool: the texel lies on the mesh."""
    mesh = unwrap(mesh, PRESET, HOST)
    assert mesh.uvs is not None
    raster = rasterize_atlas(mesh.uvs, mesh.faces, PRESET.texture_px)
    return mesh, colour_at(interpolate(Scene(mesh).rig, raster, mesh.faces)), raster.face_ids > 0


def measure(mesh: Mesh, truth: Tensor, chart: Tensor, cameras: tuple[Camera, ...]) -> tuple[float, float]:
    """Returns the fraction of the atlas's texels that were seen, and the PSNR of the filled texture in dB."""
    atlas = bake(mesh, paint(mesh, cameras), PRESET, HOST)
    error = (inpaint(mesh, atlas, HOST).texture - truth)[chart]  # type: ignore[operator]
    return float(atlas.seen[chart].float().mean()), float(-10 * torch.log10((error**2).mean()))


def main() -> None:
    """Measures every set on every mesh. For the two sets that are rings, it tries several weights of the sides."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    logging.getLogger("lowvram_core").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    prepared = {name: prepare(mesh) for name, mesh in meshes().items()}
    rows = []
    for label, poses in CANDIDATES.items():
        for side in SIDE_WEIGHTS if label in ("3: 0 120 240 @0", "4: 0 90 180 270 @0") else (None,):
            cameras = tuple(Camera(*pose, _weight(pose, side)) for pose in poses)
            found = {name: measure(*scene, cameras) for name, scene in prepared.items()}
            row = {"set": label, "side weight": side, **{name: [round(v, 3) for v in f] for name, f in found.items()}}
            row["mean coverage"] = round(float(np.mean([f[0] for f in found.values()])), 3)
            row["mean PSNR"] = round(float(np.mean([f[1] for f in found.values()])), 2)
            rows.append(row)
            log.info("%-32s side %-5s coverage %.3f  PSNR %.2f dB", label, side, row["mean coverage"], row["mean PSNR"])
    RESULT.write_text(json.dumps(rows, indent=1) + "\n")


def _weight(pose: tuple[int, int], side: float | None) -> float:
    known = {(c.azimuth_deg, c.elevation_deg): c.weight for c in VIEW_SETS["standard"]}
    if pose == (0, 0):
        return 1.0
    if side is not None and pose != (180, 0):
        return side
    return known.get(pose, 0.3)


if __name__ == "__main__":
    main()
