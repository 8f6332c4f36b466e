"""Compares the unwrappers: seconds, charts, use of the texture, mip levels, and what the paint model is shown.

    python benchmarks/unwrap.py          # all of these, into benchmarks/results/unwrap.json
    python benchmarks/unwrap.py table    # both unwrappers; and docs/pictures/unwrap.jpg
    python benchmarks/unwrap.py parts    # the mesh cut into parts, for xatlas side by side
    python benchmarks/unwrap.py sizes    # xatlas on 100,000 faces, which takes minutes

Meshes are what the pipeline gives the unwrapper: marching cubes, cleaned and decimated by the stage `clean`. Seconds
are CPU seconds, so that other work on the machine hardly counts.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

from lowvram_core.app.torch_host import TorchHost  # noqa: E402  (needs the path above)
from lowvram_core.geometry import unwrappers  # noqa: E402
from lowvram_core.geometry.marching import extract  # noqa: E402
from lowvram_core.geometry.xatlas_script import parametrize  # noqa: E402
from lowvram_core.presets import PRESETS, VIEW_SETS  # noqa: E402
from lowvram_core.render.atlas import rasterize_atlas  # noqa: E402
from lowvram_core.render.maps import normal_map, position_map  # noqa: E402
from lowvram_core.render.scene import Scene  # noqa: E402
from lowvram_core.stages.clean import clean  # noqa: E402
from lowvram_core.types import Mesh  # noqa: E402

log = logging.getLogger("unwrap")
RESULT = ROOT / "benchmarks" / "results" / "unwrap.json"
PICTURE = ROOT / "docs" / "pictures" / "unwrap.jpg"
HOST = TorchHost(torch.device("cpu"), torch.float32)
SIZES_PX = (1024, 2048)
SHOWN_PX = 512
"""The paint model is shown maps of this size."""
Row = dict[str, Any]


def torus(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """A smooth ring: large charts, and charts of single faces where decimation left thin ones."""
    return 0.3 - (((x * x + z * z).sqrt() - 0.65) ** 2 + y * y).sqrt()


def bumpy(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """A ball with bumps of two sizes: many small charts."""
    large = 0.08 * (9 * x).sin() * (8 * y).cos() * (10 * z + 1).sin()
    return 0.75 + large + 0.03 * (23 * x + 1).sin() * (21 * y).sin() * (25 * z).cos() - (x * x + y * y + z * z).sqrt()


FIELDS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {"torus": torus, "bumpy ball": bumpy}


def a_mesh(name: str, faces: int = 40_000, octree: int = 128) -> Mesh:
    """A mesh as the pipeline makes it, of at most that many faces."""
    axis = torch.linspace(-1.1, 1.1, octree + 1)
    field = FIELDS[name](*torch.meshgrid(axis, axis, axis, indexing="ij"))
    return clean(extract(field, octree), PRESETS["8 GB Full"].with_(face_budget=faces), HOST)


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """The result, and CPU seconds of this process and of children that ended meanwhile."""

    def now() -> float:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return time.process_time() + children.ru_utime + children.ru_stime

    start = now()
    return work(), now() - start


def charts(mesh: Mesh) -> Tensor:
    """[F] the chart of each face: faces that share a vertex of the unwrapped mesh."""
    from trimesh.graph import connected_component_labels

    pairs = mesh.faces[:, [0, 1, 1, 2]].reshape(-1, 2).numpy()
    return torch.from_numpy(connected_component_labels(pairs, node_count=len(mesh.vertices))).long()[mesh.faces[:, 0]]


def seam_length(mesh: Mesh) -> float:
    """Length of the seams, as a share of the mesh's size: the diagonal of its bounding box."""
    ends = torch.stack([mesh.faces, mesh.faces.roll(-1, dims=1)], dim=-1).reshape(-1, 2).sort(dim=1).values
    edges, counts = torch.unique(ends, dim=0, return_counts=True)
    border = edges[counts == 1]
    length = (mesh.vertices[border[:, 0]] - mesh.vertices[border[:, 1]]).norm(dim=1).sum() / 2
    return float(length / (mesh.vertices.amax(0) - mesh.vertices.amin(0)).norm())


def use(mesh: Mesh, size_px: int) -> tuple[float, float]:
    """The share of the texture that charts cover, and the share of their 8 x 8 blocks that hold texels of two charts.

    Such a block is one texel of mip level 3.
    """
    assert mesh.uvs is not None
    faces = rasterize_atlas(mesh.uvs, mesh.faces, size_px).face_ids.long()
    chart = torch.where(faces > 0, charts(mesh)[(faces - 1).clamp(min=0)] + 1, 0)
    largest = F.max_pool2d(chart.double()[None], 8)
    smallest = -F.max_pool2d(torch.where(chart > 0, -chart, -(2**40)).double()[None], 8)
    mixed = (largest != smallest) & (largest > 0)
    return float((faces > 0).float().mean()), float(mixed.sum() / (largest > 0).sum())


def maps(mesh: Mesh) -> Tensor:
    """[12,S,S,3] uint8 normal maps and position maps of the six views, as the paint model is shown them."""
    scene = Scene(mesh)
    drawn = [draw(scene, camera, 2048) for draw in (normal_map, position_map) for camera in VIEW_SETS["standard"]]
    small = [Image.fromarray(one.numpy()).resize((SHOWN_PX, SHOWN_PX)) for one in drawn]
    return torch.from_numpy(np.stack([np.array(one) for one in small]))


def difference(one: Tensor, other: Tensor) -> Row:
    """How the maps of one unwrapper differ from the other's, over the pixels of the object."""
    thing = (one != 255).any(dim=-1) | (other != 255).any(dim=-1)
    off = (one.int() - other.int()).abs().amax(dim=-1)
    normals, positions = off[:6][thing[:6]].double(), off[6:][thing[6:]].double()
    return {
        "normals_over_1": round(float((normals > 1).double().mean()), 4),
        "normals_over_8": round(float((normals > 8).double().mean()), 4),
        "normals_mean": round(float(normals.mean()), 3),
        "normals_worst": int(normals.max()),
        "positions_over_1": round(float((positions > 1).double().mean()), 4),
    }


def row(name: str, mesh: Mesh, unwrapper: str, size_px: int, cut: Callable[[Mesh], Mesh]) -> tuple[Row, Mesh]:
    """One line of the table, and the unwrapped mesh."""
    result, seconds = timed(lambda: cut(mesh))
    covered, mixed = use(result, size_px)
    found: Row = {
        "mesh": name, "faces": len(mesh.faces), "unwrapper": unwrapper, "texture_px": size_px,
        "cpu_s": round(seconds, 1), "charts": int(charts(result).max()) + 1, "seams": round(seam_length(result), 1),
        "covered": round(covered, 3), "mixed_at_mip_3": round(mixed, 4),
    }  # fmt: skip
    log.info("%s", found)
    return found, result


def by_default(mesh: Mesh) -> Mesh:
    """xatlas as upstream calls it: it chooses the resolution, and packs without padding."""
    return unwrappers._split(mesh, *parametrize(*unwrappers._arrays(mesh), 0, 0))


def parts_of(mesh: Mesh, count: int) -> list[Tensor]:
    """[F] int64 faces of each part: cut in halves across its longest side, until there are `count`."""
    centres = mesh.vertices[mesh.faces].mean(dim=1)
    parts = [torch.arange(len(mesh.faces))]
    while len(parts) < count:
        halves = []
        for part in parts:
            axis = int((centres[part].amax(0) - centres[part].amin(0)).argmax())
            order = part[centres[part, axis].argsort()]
            halves += [order[: len(order) // 2], order[len(order) // 2 :]]
        parts = halves
    return parts


def in_parts(name: str, mesh: Mesh, count: int) -> Row:
    """xatlas on each part alone. The charts are not packed together: that takes a second."""
    seconds, found, seams, copies = [], 0, 0.0, 0
    for part in parts_of(mesh, count):
        used, faces = torch.unique(mesh.faces[part], return_inverse=True)
        piece = Mesh(mesh.vertices[used], faces)
        result, taken = timed(lambda piece=piece: by_default(piece))
        seconds.append(taken)
        found += int(charts(result).max()) + 1
        seams += seam_length(result) * float((piece.vertices.amax(0) - piece.vertices.amin(0)).norm())
        copies += len(result.vertices)
    seams /= float((mesh.vertices.amax(0) - mesh.vertices.amin(0)).norm())
    result = {
        "mesh": name, "parts": count, "cpu_s": round(sum(seconds), 1), "slowest_s": round(max(seconds), 1),
        "charts": found, "seams": round(seams, 1), "vertices": copies,
    }  # fmt: skip
    log.info("%s", result)
    return result


def picture(shown: dict[str, Tensor]) -> Image.Image:
    """A normal map by each unwrapper, and their difference times 8; the front and the top."""
    rows = []
    for view in (0, 4):
        one, other = (shown[name][view].int() for name in ("xatlas", "uvunwrap"))
        off = ((one - other).abs() * 8).clamp(max=255)
        rows.append(torch.cat([one, other, off], dim=1))
    return Image.fromarray(torch.cat(rows, dim=0).byte().numpy())


def table() -> Row:
    """The rows of the table and the differences of the maps. Draws the picture, of the last mesh."""
    rows: list[Row] = []
    differences: list[Row] = []
    for name in FIELDS:
        mesh, shown = a_mesh(name), {}
        for size_px in SIZES_PX:
            for unwrapper, cut in UNWRAPPERS.items():
                line, shown[unwrapper] = row(name, mesh, unwrapper, size_px, cut)
                rows.append(line)
        rows.append(row(name, mesh, "xatlas, packed as upstream", SIZES_PX[-1], by_default)[0])
        drawn = {unwrapper: maps(result) for unwrapper, result in shown.items()}
        differences.append({"mesh": name, **difference(*drawn.values())})
        log.info("%s", differences[-1])
    picture(drawn).save(PICTURE, quality=88)
    return {"rows": rows, "maps": differences}


def parts() -> Row:
    """xatlas on the meshes cut into parts."""
    return {"parts": [in_parts(name, a_mesh(name), count) for name in FIELDS for count in (1, 2, 4, 8)]}


def sizes() -> Row:
    """xatlas on larger meshes."""
    return {"sizes": [row(name, a_mesh(name, 100_000, 256), "xatlas", 2048, unwrappers.unwrap_xatlas)[0]
                      for name in FIELDS]}  # fmt: skip


UNWRAPPERS: dict[str, Callable[[Mesh], Mesh]] = {
    "xatlas": unwrappers.unwrap_xatlas, "uvunwrap": unwrappers.unwrap_uvunwrap,
}  # fmt: skip
MEASURES: dict[str, Callable[[], Row]] = {"table": table, "parts": parts, "sizes": sizes}


def main() -> None:
    """Measures, prints and writes. What is not measured again stays in the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", choices=[*MEASURES, []], help="by default all")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("lowvram_core").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    found = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    for name in parser.parse_args().what or MEASURES:
        found |= MEASURES[name]()
        RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
