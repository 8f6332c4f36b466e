"""The winding of faces: which faces agree with each other, and which way closed patches face.

A patch is a set of faces that are connected across edges with exactly two faces. All functions take vertices [V,3]
float32 and faces [F,3] int64 on the CPU.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..checks.meshes import edge_face_counts
from .weld import components, weld

_SAMPLES = 16
"""About how many vertices of a closed patch are tested for lying inside another one."""
_PAIRS_PER_CHUNK = 2**18
"""Pairs of a point and a face in one chunk of the winding numbers."""


@dataclass(frozen=True)
class Patches:
    """The patches of a mesh."""

    of_face: Tensor
    """[F] int64 the patch of each face."""
    closed: Tensor
    """[P] bool: the patch has no border, and two sides."""

    def total(self, values: Tensor) -> Tensor:
        """[P] float64 sum of the values [F] over each patch."""
        return torch.zeros(len(self.closed), dtype=torch.float64).index_add_(0, self.of_face, values.double())


def turned(faces: Tensor, which: Tensor) -> Tensor:
    """[F,3] faces, with the winding of those in `which` [F] bool reversed."""
    return torch.where(which.unsqueeze(1), faces.flip(1), faces)


def agreeing(vertices: Tensor, faces: Tensor) -> tuple[Tensor, Patches]:
    """[F,3] the faces with all faces of a patch wound alike, and the patches.

    The larger part of each patch, by area, keeps its winding. A patch with one side, such as a Moebius strip, stays as
    it is. Vertices at the same position count as one, so that UV seams connect.
    """
    welded = weld(vertices)[1][faces]
    pairs, agree = _neighbours(welded)
    count = len(faces)
    # Every face is two nodes: f as it is, f + count reversed. Neighbours that do not agree connect crosswise.
    one, other = pairs.unbind(dim=1)
    across = torch.where(agree, 0, count)
    links = torch.cat([torch.stack([one, other + across], 1), torch.stack([one + count, other + count - across], 1)])
    nodes = components(links, 2 * count).view(2, count)
    of_face = torch.unique(nodes.amin(dim=0), return_inverse=True)[1]
    two_sided = nodes[0] != nodes[1]
    reversed_ = (nodes[0] > nodes[1]) & two_sided
    patches = Patches(of_face, _closed(welded, of_face, two_sided))
    more = patches.total(double_areas(vertices, faces) * (reversed_.double() - 0.5)) > 0
    return turned(faces, reversed_ ^ (more[of_face] & two_sided)), patches


def closed_outwards(vertices: Tensor, faces: Tensor, patches: Patches) -> Tensor:
    """[F,3] the faces, with closed patches facing outwards. Cavities stay cavities.

    A closed patch that faces inwards is a cavity if it lies inside closed patches that face outwards.

    Args:
        faces: as `agreeing` returns them.
    """
    volume = torch.where(patches.closed, patches.total(_volumes(vertices, faces)), 0.0)
    if float(volume.sum()) < 0:  # the mesh is inside out, and so are its cavities
        faces, volume = turned(faces, patches.closed[patches.of_face]), -volume
    solid = faces[(volume > 0)[patches.of_face]]
    inside_out = torch.zeros_like(patches.closed)
    for patch in (volume < 0).nonzero().flatten().tolist():
        corners = faces[patches.of_face == patch].flatten()
        points = vertices[corners[:: max(1, len(corners) // _SAMPLES)]]
        inside_out[patch] = not bool((_winding_numbers(points, vertices, solid) > 0.5).all())
    return turned(faces, inside_out[patches.of_face])


def _neighbours(faces: Tensor) -> tuple[Tensor, Tensor]:
    """[N,2] the two faces of each edge that has exactly two, and [N] bool: they are wound alike.

    Faces with two equal corners have no neighbours.
    """
    proper = _proper(faces).nonzero().squeeze(1)
    if not len(proper):
        return torch.zeros(0, 2, dtype=torch.int64), torch.zeros(0, dtype=torch.bool)
    counts, half_edge = edge_face_counts(faces[proper])
    order = torch.argsort(half_edge, stable=True)
    both = order[counts[half_edge[order]] == 2].view(-1, 2)
    start = faces[proper].flatten()
    return proper[both // 3], start[both[:, 0]] != start[both[:, 1]]


def _proper(faces: Tensor) -> Tensor:
    """[F] bool: the face has three different corners."""
    return (faces != faces.roll(1, dims=1)).all(dim=1)


def _closed(faces: Tensor, of_face: Tensor, two_sided: Tensor) -> Tensor:
    """[P] bool: every edge of the patch belongs to exactly two of its faces, and it has two sides."""
    proper = _proper(faces)
    stride = int(faces.max()) + 1
    own = faces[proper] + of_face[proper].unsqueeze(1) * stride  # an edge of two patches counts once for each
    closed = torch.ones(int(of_face.max()) + 1, dtype=torch.bool)
    counts, half_edge = edge_face_counts(torch.unique(own, return_inverse=True)[1])
    closed[of_face[proper][(counts[half_edge] != 2).view(-1, 3).any(dim=1)]] = False
    closed[of_face[~two_sided | ~proper]] = False
    return closed


def double_areas(vertices: Tensor, faces: Tensor) -> Tensor:
    """[F] float64 twice the area of each face."""
    a, b, c = vertices.double()[faces].unbind(dim=1)
    return torch.linalg.vector_norm(torch.cross(b - a, c - a, dim=1), dim=1)


def _volumes(vertices: Tensor, faces: Tensor) -> Tensor:
    """[F] float64 six times the signed volume between each face and the centre."""
    points = vertices.double() - vertices.double().mean(dim=0)
    a, b, c = points[faces].unbind(dim=1)
    return (a * torch.cross(b, c, dim=1)).sum(dim=1)


def _winding_numbers(points: Tensor, vertices: Tensor, faces: Tensor) -> Tensor:
    """[N] how often closed faces wind around each of the points [N,3]: 0 outside, 1 inside.

    Source: van Oosterom and Strackee, The Solid Angle of a Plane Triangle, 1983.
    """
    total = torch.zeros(len(points), dtype=torch.float64)
    for chunk in faces.split(max(1, _PAIRS_PER_CHUNK // len(points))):
        a, b, c = (vertices.double()[chunk] - points.double()[:, None, None]).unbind(dim=2)
        la, lb, lc = (torch.linalg.vector_norm(part, dim=-1) for part in (a, b, c))
        above = (a * torch.cross(b, c, dim=-1)).sum(dim=-1)
        below = la * lb * lc + (a * b).sum(-1) * lc + (b * c).sum(-1) * la + (c * a).sum(-1) * lb
        total += torch.atan2(above, below).sum(dim=1)
    return total / (2 * torch.pi)
