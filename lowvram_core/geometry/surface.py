"""Extracts a surface from a field of logits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..checks.finite import check_finite
from ..errors import NumericalFailure
from ..types import Mesh

BOX = 1.01
"""Half the edge of the cube in which the field is sampled; upstream's box_v."""
LEVEL = 0.0
"""The surface is where the field has this logit; upstream's mc_level."""

Field = Callable[[Tensor], Tensor]
"""Takes [N,3] float32 points, returns [N] float32 logits, positive inside; each on any device."""


def surface(
    field: Field,
    octree: int,
    *,
    points_per_chunk: int,
    gather_on: torch.device,
    dtype: torch.dtype,
    progress: Callable[[int, int], None],
) -> Mesh:
    """The surface where the field is LEVEL, by marching cubes: a dense mesh without UVs.

    Args:
        field: called with at most points_per_chunk points.
        octree: number of cells along one edge of the grid.
        gather_on: the device on which all logits are collected.
        dtype: the precision in which the field computes, for the error message.
        progress: called with (points done, all points) after each chunk; an error that it raises stops the work.

    Raises:
        NumericalFailure: some logits are NaN or infinite, or all are on one side of LEVEL.

    Memory:
        4 (octree + 1)^3 bytes on `gather_on`, and the same amount in RAM for marching cubes.
    """
    logits = dense_logits(field, octree, points_per_chunk=points_per_chunk, gather_on=gather_on, progress=progress)
    check_finite("shape", "decode", dtype, logits)
    return extract(logits, octree)


@torch.inference_mode()
def dense_logits(
    field: Field,
    octree: int,
    *,
    points_per_chunk: int,
    gather_on: torch.device,
    progress: Callable[[int, int], None],
) -> Tensor:
    """[R,R,R] float32 logits of all points of the grid, on the CPU; R = octree + 1. For the arguments see `surface`."""
    resolution = octree + 1
    axis = torch.from_numpy(np.linspace(-BOX, BOX, resolution, dtype=np.float32))
    logits = torch.empty(resolution**3, dtype=torch.float32, device=gather_on)
    for start in range(0, len(logits), points_per_chunk):
        stop = min(start + points_per_chunk, len(logits))
        logits[start:stop] = field(_grid_points(axis, start, stop)).to(gather_on)
        progress(stop, len(logits))
    return logits.cpu().view(resolution, resolution, resolution)


def _grid_points(axis: Tensor, start: int, stop: int) -> Tensor:
    """[N,3] float32 points number `start` to `stop` of the grid; the last coordinate changes fastest."""
    index = torch.arange(start, stop)
    edge = len(axis)
    return torch.stack([axis[index // edge**2], axis[index // edge % edge], axis[index % edge]], dim=1)


def extract(logits: Tensor, octree: int) -> Mesh:
    """The surface in a grid [R,R,R] of logits on the CPU; R = octree + 1.

    Raises:
        NumericalFailure: all logits are on one side of LEVEL.

    Source: hy3dgen shapegen/models/autoencoders/surface_extractors.py, MCSurfaceExtractor. Upstream divides by the
    number of points instead of cells, so the mesh is slightly too small. This does the same.
    """
    import trimesh
    from skimage.measure import marching_cubes

    low, high = float(logits.min()), float(logits.max())
    if not low < LEVEL < high:
        raise NumericalFailure(
            f"shape: the decoded field runs from {low:.3g} to {high:.3g} and never crosses {LEVEL}; wanted a surface. "
            "Try another seed, more steps, or a picture with a clearer object."
        )
    vertices, faces, _, _ = marching_cubes(logits.numpy(), LEVEL, method="lewiner")
    vertices = (vertices.astype(np.float64) / (octree + 1) * (2 * BOX) - BOX).astype(np.float32)
    merged = trimesh.Trimesh(vertices, faces[:, ::-1])
    return Mesh(torch.from_numpy(merged.vertices.astype(np.float32)), torch.from_numpy(merged.faces.astype(np.int64)))
