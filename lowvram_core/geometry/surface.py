"""Extracts a surface from a field of logits."""

from __future__ import annotations

import math
from contextlib import suppress

import torch
from torch import Tensor

from ..errors import NumericalFailure
from ..types import Mesh
from .bricks import unravel
from .fields import BOX, Asking, Field, ask, axis
from .marching import extract, extract_from_bricks
from .repair import floaters, parts
from .sparse import sparse_logits


def surface(field: Field, octree: int, how: Asking, *, edge: int) -> Mesh:
    """The surface where the field is LEVEL, by marching cubes: a dense mesh without UVs.

    Args:
        octree: number of cells along one edge of the grid.
        edge: see `lattice_edge`. 1 asks the field at every point of the grid. 2 and 4 ask every second or fourth, and
            then only near the surface: the same mesh, except for parts that may be too small to be seen. If such a part
            could be more than a floater, `edge` is halved.

    Raises:
        NumericalFailure: some logits are NaN or infinite, or all are on one side of LEVEL.

    Memory:
        On `how.gather_on` 4 (octree + 1)^3 bytes if all points are asked, and the same amount in RAM for marching
        cubes. Else see `sparse_logits` and `extract_from_bricks`.
    """
    while edge > 1:
        found = sparse_logits(field, octree, edge, how)
        with suppress(NumericalFailure):  # no point of this lattice saw the surface
            mesh = extract_from_bricks(found.bricks)
            if _would_be_floater(found.missable * 2 * BOX / octree, mesh):
                return mesh
        edge //= 2
    return extract(dense_logits(field, octree, how), octree)


def _would_be_floater(radius: float, mesh: Mesh) -> bool:
    """Whether a ball of that radius would be a floater beside the mesh."""
    _, areas, extents = parts(mesh.vertices, mesh.faces)
    areas = torch.cat([areas, areas.new_tensor([4 * math.pi * radius**2])])
    extents = torch.cat([extents, extents.new_tensor([2 * radius])])
    return bool(floaters(areas, extents)[-1])


@torch.inference_mode()
def dense_logits(field: Field, octree: int, how: Asking) -> Tensor:
    """[R,R,R] float32 logits of all points of the grid, on the CPU; R = octree + 1.

    Raises:
        NumericalFailure: some logits are NaN or infinite.
    """
    across = octree + 1
    along = axis(octree, how.device)

    def points(start: int, stop: int) -> Tensor:
        return along[unravel(torch.arange(start, stop, device=how.device), across)]

    logits = ask(field, across**3, points, how, lambda done: how.progress(done, across**3))
    return logits.cpu().view(across, across, across)
