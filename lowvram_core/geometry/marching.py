"""Marching cubes, on a grid of logits or on the bricks that hold the logits near a surface."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import NumericalFailure
from ..types import Mesh
from .bricks import Bricks, crossed
from .fields import BOX, LEVEL

Array = NDArray[np.float32]
SLAB_CELLS = 16
"""Bricks are marched in slabs of this thickness."""
_EPSILON = float(np.spacing(1.0))
_EDGE = ((0, 0),)
_CELL = ((0, 0), (0, 1), (1, 1), (1, 0))
"""Corners of an edge along the first axis, and of a cell, in the order in which skimage adds them up."""


def extract(logits: Tensor, octree: int) -> Mesh:
    """The surface in a grid [R,R,R] of logits on the CPU; R = octree + 1.

    Raises:
        NumericalFailure: all logits are on one side of LEVEL.

    Source: hy3dgen shapegen/models/autoencoders/surface_extractors.py, MCSurfaceExtractor. Upstream divides by the
    number of points instead of cells, so the mesh is slightly too small. This does the same.
    """
    from skimage.measure import marching_cubes

    low, high = float(logits.min()), float(logits.max())
    if not low < LEVEL < high:
        raise _no_surface(low, high)
    vertices, faces, _, _ = marching_cubes(logits.numpy(), LEVEL, method="lewiner")
    return _mesh(vertices, faces, octree)


def extract_from_bricks(bricks: Bricks) -> Mesh:
    """The surface where all corners of a cell are known: the same mesh, bit for bit, as `extract` finds in the whole
    grid, if the surface crosses no other cell.

    Raises:
        NumericalFailure: no such cell is crossed by the surface.

    Memory:
        In RAM one slab of the grid, SLAB_CELLS thick.
    """
    parts = [_march(bricks, first) for first in range(0, bricks.cells, SLAB_CELLS)]
    found = [part for part in parts if part is not None]
    if not found:
        raise _no_surface(*bricks.extremes())
    starts = np.cumsum([0, *(len(vertices) for vertices, _ in found)])
    faces = [start + part for start, (_, part) in zip(starts, found, strict=False)]
    return _mesh(np.concatenate([vertices for vertices, _ in found]), np.concatenate(faces), bricks.cells)


def _no_surface(low: float, high: float) -> NumericalFailure:
    return NumericalFailure(
        f"shape: the decoded field runs from {low:.3g} to {high:.3g} and never crosses {LEVEL}; wanted a surface. "
        "Try another seed, more steps, or a picture with a clearer object."
    )


def _mesh(vertices: Array, faces: NDArray[np.int32], octree: int) -> Mesh:
    """The mesh of vertices [V,3] in cells of the grid. Equal vertices are merged."""
    import trimesh

    vertices = (vertices.astype(np.float64) / (octree + 1) * (2 * BOX) - BOX).astype(np.float32)
    merged = trimesh.Trimesh(vertices, faces[:, ::-1])
    return Mesh(torch.from_numpy(merged.vertices.astype(np.float32)), torch.from_numpy(merged.faces.astype(np.int64)))


def _march(bricks: Bricks, first: int) -> tuple[Array, NDArray[np.int32]] | None:
    """Vertices [V,3] and faces [F,3] of a slab that begins at a plane of the grid; None if it has no surface."""
    from skimage.measure import marching_cubes

    logits = bricks.planes(first, min(first + SLAB_CELLS, bricks.cells))
    mask = torch.zeros(logits.shape, dtype=torch.bool)
    mask[1:, 1:, 1:] = crossed(logits)  # skimage looks at a cell's last corner
    if not mask.any():
        return None
    values = logits.nan_to_num_(nan=-1.0).numpy()
    vertices, faces, _, _ = marching_cubes(values, LEVEL, method="lewiner", mask=mask.numpy())
    return _moved(vertices, values, first) if first else vertices, faces


def _moved(vertices: Array, logits: Array, first: int) -> Array:
    """The vertices [V,3] of a slab in the whole grid, as if the whole grid had been marched.

    Adding `first` to the rounded position would round twice. So the position along the first axis is computed anew
    from the logits, by skimage's rule: the mean of the corners, each with weight 1 / (epsilon + |logit|).
    """
    first_corner = np.floor(vertices).astype(np.int64)
    fraction = vertices != first_corner
    whole = first + vertices[:, 0].astype(np.float64)
    inside = fraction[:, 1:].any(axis=1)  # a few cells have a vertex inside
    for which, corners in ((fraction[:, 0] & ~inside, _EDGE), (fraction[:, 0] & inside, _CELL)):
        z, y, x = np.minimum(first_corner[which], np.array(logits.shape) - np.array(corners).max() - 1).T
        low = sum(_weight(logits[z, y + j, x + i]) for j, i in corners)
        high = [_weight(logits[z + 1, y + j, x + i]) for j, i in corners]
        whole[which] = first + z + sum(high) / sum(high, start=low)
    moved = vertices.copy()
    moved[:, 0] = whole
    return moved


def _weight(logits: Array) -> NDArray[np.float64]:
    return 1.0 / (_EPSILON + np.abs(logits.astype(np.float64)))
