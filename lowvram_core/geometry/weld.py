"""Vertices at the same position, connected ones, and normals that they share."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from trimesh.graph import connected_component_labels
from trimesh.grouping import unique_rows


def weld(vertices: Tensor) -> tuple[Tensor, Tensor]:
    """[W] index of the first vertex at each distinct position, [V] which of these positions each vertex [V,3] has.

    Positions are numbered in the order of their first vertex: a mesh without duplicates keeps its numbering.
    """
    points = vertices.detach().cpu().float().numpy() + np.float32(0)  # -0.0 becomes 0.0
    # trimesh rounds floats but compares whole numbers exactly, so it gets the bits of the floats.
    first, group = unique_rows(points.view(np.int32), keep_order=True)
    return torch.from_numpy(first), torch.from_numpy(group)


def components(pairs: Tensor, count: int) -> Tensor:
    """[count] the connected component of each node; `pairs` [N,2] are the connections. On the CPU."""
    return torch.from_numpy(connected_component_labels(pairs.numpy(), node_count=count)).long()


def face_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """[F,3] unit face normals (degenerate faces -> zero)."""
    a, b, c = vertices[faces.long()].unbind(dim=1)
    return F.normalize(torch.cross(b - a, c - a, dim=-1), dim=-1)


def face_areas(vertices: Tensor, faces: Tensor) -> Tensor:
    """[F] float64 areas of the faces."""
    a, b, c = vertices[faces.long()].double().unbind(dim=1)
    return torch.cross(b - a, c - a, dim=-1).norm(dim=-1) / 2


def mean_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """[V,3] float32 unit normals: the unweighted mean of the face normals at each vertex (unused vertices -> zero).

    Sums in float64, so the tensors must be on a device that has it.
    """
    total = torch.zeros(len(vertices), 3, dtype=torch.float64, device=vertices.device)
    normals = face_normals(vertices, faces).double()
    for corner in faces.long().unbind(dim=1):
        total.index_add_(0, corner, normals)
    return F.normalize(total, dim=1).float()


def smooth_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """[V,3] float32 area-weighted unit normals. Vertices at the same position get the same normal, so no seam shows."""
    first, group = weld(vertices)
    a, b, c = vertices[faces.long()].unbind(dim=1)
    weighted = torch.cross(b - a, c - a, dim=-1).double()
    total = torch.zeros(len(first), 3, dtype=torch.float64)
    for corner in group[faces.long()].unbind(dim=1):
        total.index_add_(0, corner, weighted)
    return F.normalize(total, dim=1, eps=1e-30).float()[group]
