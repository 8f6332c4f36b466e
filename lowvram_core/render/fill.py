"""Colours for what no view saw, carried over the surface."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from ..geometry.weld import weld
from ..types import Mesh
from .cameras import to_rig
from .rasterize import interpolate, rasterize

SMOOTHING_SWEEPS = 200
_MIN_DISTANCE = 1e-4
_REPORT_EVERY = 20


def seen_colours(mesh: Mesh, texture: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """[V,3] colour of each vertex's texel and [V] bool whether it was seen, from [T,T,3] and [T,T]."""
    assert mesh.uvs is not None
    columns, rows = (mesh.uvs * (len(texture) - 1)).round().long().clamp(0, len(texture) - 1).unbind(dim=1)
    return texture[rows, columns], seen[rows, columns]


def spread_colours(
    mesh: Mesh, colours: Tensor, known: Tensor, progress: Callable[[int, int], None]
) -> tuple[Tensor, Tensor]:
    """[V,3] colours carried from known vertices to all that are connected with one, and [V] bool which have one.

    Unknown vertices take the mean of their coloured neighbours by 1/d^2, sweep by sweep; SMOOTHING_SWEEPS more then
    even out what met. Vertices at one place are one vertex: colour crosses the seams of the UVs.

    Args:
        colours: [V,3] float32.
        known: [V] bool.
        progress: told (done, total); what it raises stops the work.

    Source: hy3dgen texgen/differentiable_renderer/mesh_processor.py. What differs: welded vertices, all vertices of
    a sweep at once, and more smoothing than upstream's, whose sweeps take each other's results in face order.
    """
    first, group = weld(mesh.vertices)
    number = np.bincount(group[known].numpy(), minlength=len(first))
    value = np.zeros((len(first), 3))
    np.add.at(value, group[known].numpy(), colours[known].double().numpy())
    value /= np.maximum(number, 1)[:, None]
    has = number > 0
    free = np.flatnonzero(~has)
    links = _links(to_rig(mesh.vertices)[first].double().numpy(), group[mesh.faces.long()].numpy())[free]
    growing, left, sweep, missing = True, SMOOTHING_SWEEPS, 0, len(free)
    while len(free) and (growing or left > 0):
        weight = links @ has.astype(np.float64)
        reached = weight > 0
        value[free[reached]] = ((links @ (value * has[:, None]))[reached].T / weight[reached]).T
        has[free[reached]] = True
        growing, missing = int((~reached).sum()) < missing, int((~reached).sum())
        left -= 0 if growing else 1
        sweep += 1
        if sweep % _REPORT_EVERY == 0:
            progress(min(SMOOTHING_SWEEPS - left, SMOOTHING_SWEEPS), SMOOTHING_SWEEPS)
    return torch.from_numpy(value).float()[group], torch.from_numpy(has)[group]


def paint_faces(mesh: Mesh, colours: Tensor, has: Tensor, size_px: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """[T,T,3] colours of the vertices spread over the faces in the atlas, [T,T] bool where; on the CPU.

    Args:
        colours: [V,3] float32.
        has: [V] bool: which colours count; a face is painted if all its corners' do.
    """
    assert mesh.uvs is not None
    faces = mesh.faces[has[mesh.faces.long()].all(dim=1)].to(device)
    clip = torch.cat([mesh.uvs.float() * 2 - 1, torch.tensor([[0.0, 1.0]]).expand(len(mesh.uvs), 2)], dim=1).to(device)
    raster = rasterize(clip, faces, size_px)
    return interpolate(colours.to(device), raster, faces).cpu(), (raster.face_ids > 0).cpu()


def _links(points: np.ndarray, faces: np.ndarray) -> csr_matrix:
    """[W,W] sparse 1/d^2 between the ends of each edge of the faces [F,3]."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    edges = edges[edges[:, 0] != edges[:, 1]]
    keys = np.unique(edges.min(axis=1) * len(points) + edges.max(axis=1))
    one, other = keys // len(points), keys % len(points)
    distance = np.maximum(np.linalg.norm(points[one] - points[other], axis=1), _MIN_DISTANCE)
    rows, columns = np.concatenate([one, other]), np.concatenate([other, one])
    return csr_matrix((np.tile(distance**-2.0, 2), (rows, columns)), shape=(len(points), len(points)))
