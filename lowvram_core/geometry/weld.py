"""Vertices that stand at the same place: found, and given common normals."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def weld(vertices: Tensor) -> tuple[Tensor, Tensor]:
    """[W] first vertex at each distinct position, [V] which of them each of [V,3] vertices stands at."""
    points = vertices.detach().cpu().float().numpy() + np.float32(0)  # -0.0 becomes 0.0
    order = np.lexsort(points.T[::-1])
    points = points[order]
    fresh = np.ones(len(points), dtype=bool)
    fresh[1:] = (points[1:] != points[:-1]).any(axis=1)
    group = np.empty(len(points), dtype=np.int64)
    group[order] = np.cumsum(fresh) - 1
    first = np.full(int(fresh.sum()), len(points), dtype=np.int64)
    np.minimum.at(first, group, np.arange(len(points)))
    # Numbered by first appearance, so that welding a mesh without duplicates changes nothing.
    rank = np.empty_like(first)
    rank[np.argsort(first)] = np.arange(len(first))
    return torch.from_numpy(np.sort(first)), torch.from_numpy(rank[group])


def face_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """[F,3] unit face normals (degenerate faces -> zero)."""
    a, b, c = vertices[faces.long()].unbind(dim=1)
    return F.normalize(torch.cross(b - a, c - a, dim=-1), dim=-1)


def mean_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """[V,3] float32 unweighted mean of the faces' normals at each vertex, normalised (loose vertices -> zero)."""
    total = torch.zeros(len(vertices), 3, dtype=torch.float64, device=vertices.device)
    normals = face_normals(vertices, faces).double()
    for corner in faces.long().unbind(dim=1):
        total.index_add_(0, corner, normals)
    return F.normalize(total, dim=1).float()


def smooth_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """[V,3] float32 area-weighted normals, equal at vertices that stand at the same place: no seam shows."""
    first, group = weld(vertices)
    a, b, c = vertices[faces.long()].unbind(dim=1)
    weighted = torch.cross(b - a, c - a, dim=-1).double()
    total = torch.zeros(len(first), 3, dtype=torch.float64)
    for corner in group[faces.long()].unbind(dim=1):
        total.index_add_(0, corner, weighted)
    return F.normalize(total, dim=1, eps=1e-30).float()[group]
