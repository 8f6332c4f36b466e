"""Cuts large faces of a mesh with UVs into small ones."""

from __future__ import annotations

import torch
from torch import Tensor

from ..checks.meshes import unique_edges

_MOST_FACES = 400_000
_MOST_ROUNDS = 12


def subdivide(
    points: Tensor, uvs: Tensor, faces: Tensor, chosen: Tensor, longest: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """[V,3] points, [V,2] UVs, [F,3] faces, [F] bool: the mesh with the chosen faces cut.

    A face with an edge that is longer than `longest` in the UVs is cut at the middles of its edges, again and again,
    until the mesh has more than _MOST_FACES faces. The middle of an edge has the same position on both sides of a seam.

    Args:
        points: [V,3] float32.
        uvs: [V,2] float32.
        faces: [F,3] int64.
        chosen: [F] bool. In the result, the pieces of these faces.
    """
    for _ in range(_MOST_ROUNDS):
        corners = uvs[faces]
        edges = (corners - corners.roll(-1, dims=1)).square().sum(dim=2).amax(dim=1)
        cut = chosen & (edges > longest**2)
        number = int(cut.sum())
        if number == 0 or len(faces) + 3 * number > _MOST_FACES:
            break
        whole = faces[cut]
        pairs, middle, _ = unique_edges(whole)
        ab, bc, ca = (middle.view(-1, 3) + len(points)).unbind(dim=1)
        a, b, c = whole.unbind(dim=1)
        pieces = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
        points = torch.cat([points, points[pairs].mean(dim=1)])
        uvs = torch.cat([uvs, uvs[pairs].mean(dim=1)])
        faces = torch.cat([faces[~cut], *(torch.stack(piece, dim=1) for piece in pieces)])
        chosen = torch.cat([chosen[~cut], torch.ones(4 * number, dtype=torch.bool)])
    return points, uvs, faces, chosen
