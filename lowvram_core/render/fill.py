"""Colours for the parts that no view saw: neighbours on the surface pass theirs on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from ..geometry.weld import weld
from ..types import Mesh
from .atlas import rasterize_atlas
from .rasterize import interpolate
from .scene import Scene

_SMOOTHING_SWEEPS = 200
_MIN_DISTANCE = 1e-4
_REPORT_EVERY = 20


def seen_colours(mesh: Mesh, texture: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """[V,3] the colour of each vertex's texel, [V] bool whether a view saw it; from `texture` [T,T,3], `seen` [T,T]."""
    assert mesh.uvs is not None
    columns, rows = (mesh.uvs * (len(texture) - 1)).round().long().clamp(0, len(texture) - 1).unbind(dim=1)
    return texture[rows, columns], seen[rows, columns]


def spread_colours(
    scene: Scene, colours: Tensor, known: Tensor, progress: Callable[[int, int], None]
) -> tuple[Tensor, Tensor]:
    """[V,3] colours, [V] bool which vertices have one: all that are connected with a known vertex.

    In each sweep an unknown vertex takes the mean of its coloured neighbours, weighted by 1/d^2. When no further
    vertex gets a colour, _SMOOTHING_SWEEPS more sweeps smooth the result. Vertices at the same position count as
    one, so colour crosses the seams of the UVs.

    Args:
        colours: [V,3] float32.
        known: [V] bool: the vertices whose colours are given. They keep them.
        progress: called with (done, total); an error that it raises stops the work.

    Source: hy3dgen texgen/differentiable_renderer/mesh_processor.py. What differs: vertices are welded; a sweep
    computes all vertices from the sweep before, where upstream's uses its own results in face order; more sweeps.
    """
    mesh = scene.mesh
    first, group = weld(mesh.vertices)
    number = np.bincount(group[known].numpy(), minlength=len(first))
    value = np.zeros((len(first), 3))
    np.add.at(value, group[known].numpy(), colours[known].double().numpy())
    value /= np.maximum(number, 1)[:, None]
    has = number > 0
    free = np.flatnonzero(~has)
    links = _links(scene.rig[first].double().numpy(), group[mesh.faces.long()].numpy())[free]
    growing, left, sweep, missing = True, _SMOOTHING_SWEEPS, 0, len(free)
    while len(free) and (growing or left > 0):
        weight = links @ has.astype(np.float64)
        reached = weight > 0
        value[free[reached]] = ((links @ (value * has[:, None]))[reached].T / weight[reached]).T
        has[free[reached]] = True
        growing, missing = int((~reached).sum()) < missing, int((~reached).sum())
        left -= 0 if growing else 1
        sweep += 1
        if sweep % _REPORT_EVERY == 0:
            progress(min(_SMOOTHING_SWEEPS - left, _SMOOTHING_SWEEPS), _SMOOTHING_SWEEPS)
    return torch.from_numpy(value).float()[group], torch.from_numpy(has)[group]


def paint_faces(scene: Scene, colours: Tensor, has: Tensor, size_px: int) -> tuple[Tensor, Tensor]:
    """[T,T,3] the vertices' colours interpolated over the faces in the atlas, [T,T] bool where; on the CPU.

    Args:
        scene: a mesh with UVs.
        colours: [V,3] float32.
        has: [V] bool: vertices with a colour. A face is painted if all its corners have one.
    """
    faces = scene.mesh.faces
    faces = faces[has[faces.long()].all(dim=1)].to(scene.device)
    raster = rasterize_atlas(scene.uvs, faces, size_px)
    return interpolate(colours.to(scene.device), raster, faces).cpu(), (raster.face_ids > 0).cpu()


def _links(points: np.ndarray, faces: np.ndarray) -> csr_matrix:
    """[W,W] sparse matrix: for each edge of the faces [F,3], 1/d^2 between its ends `points` [W,3]."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    edges = edges[edges[:, 0] != edges[:, 1]]
    keys = np.unique(edges.min(axis=1) * len(points) + edges.max(axis=1))
    one, other = keys // len(points), keys % len(points)
    distance = np.maximum(np.linalg.norm(points[one] - points[other], axis=1), _MIN_DISTANCE)
    rows, columns = np.concatenate([one, other]), np.concatenate([other, one])
    return csr_matrix((np.tile(distance**-2.0, 2), (rows, columns)), shape=(len(points), len(points)))
