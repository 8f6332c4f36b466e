"""Turns the faces of a mesh the way the cameras see them."""

from __future__ import annotations

import torch
from torch import Tensor

from ..geometry.winding import Patches, agreeing, closed_outwards, double_areas, turned
from ..presets import VIEW_SETS
from ..types import Mesh
from .cameras import HALF_WIDTH, project, to_rig

_SIZE_PX = 128
_SAMPLES = 2**18
"""Points on the mesh that are looked at: enough for several in each pixel, and less than the factor in `_nearest`."""
_CLEARLY = 1.5
"""An open patch is turned if the cameras see this many times more of its back than of its front."""


def face_outwards(mesh: Mesh) -> Mesh:
    """The mesh with its faces wound as a texture needs them; the same object where nothing has to be turned.

    A view paints only the fronts of faces. So the faces of a patch (see geometry/winding.py) are wound alike, closed
    patches face outwards, and open patches, such as a bowl, face the cameras. Cavities, and patches that no camera
    sees, stay as they are. A mesh with turned faces loses its own normals.
    """
    vertices, given = mesh.vertices.detach().cpu().float(), mesh.faces.cpu().long()
    faces, patches = agreeing(vertices, given)
    faces = closed_outwards(vertices, faces, patches)
    if not bool(patches.closed.all()):
        front, back = _seen(vertices, faces, patches)
        faces = turned(faces, (~patches.closed & (back > _CLEARLY * front))[patches.of_face])
    return mesh if torch.equal(faces, given) else mesh.with_(faces=faces, normals=None)


def _seen(vertices: Tensor, faces: Tensor, patches: Patches) -> tuple[Tensor, Tensor]:
    """[P], [P] how much of the fronts and of the backs of each patch the standard cameras see.

    Each pixel counts with the weight of its camera, as in the bake.
    """
    rig = to_rig(vertices)
    front, back = torch.zeros(2, len(faces), dtype=torch.float64)
    face, shares = _samples(rig, faces)
    for camera in VIEW_SETS["standard"]:
        corners = project(rig, camera)[0][faces]
        seen = _nearest((corners[face] * shares.unsqueeze(2)).sum(dim=1))
        a, b, c = corners.unbind(dim=1)
        # The rig mirrors the mesh (see cameras.py), so the normal of a front points away from the camera.
        normal = torch.cross(b - a, c - a, dim=1)[:, 2]
        pixels = camera.weight * torch.bincount(face[seen], minlength=len(faces)).double()
        front += pixels * (normal < 0)
        back += pixels * (normal > 0)
    return patches.total(front), patches.total(back)


def _samples(vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """[N] faces and [N,3] barycentric coordinates of points that are spread evenly over the surface."""
    area = double_areas(vertices, faces).cumsum(dim=0)
    steps = (torch.arange(_SAMPLES, dtype=torch.float64) + 0.5) / _SAMPLES * area[-1]
    face = torch.searchsorted(area, steps).clamp_(max=len(faces) - 1)
    u, v = torch.rand(2, _SAMPLES, generator=torch.Generator().manual_seed(0))
    u = u.sqrt()
    return face, torch.stack([1 - u, u * (1 - v), u * v], dim=1)


def _nearest(points: Tensor) -> Tensor:
    """[M] the points [N,3] in a camera's space that are nearest to it in their pixel."""
    column, row = ((points[:, :2] / HALF_WIDTH / 2 + 0.5) * _SIZE_PX).long().clamp_(0, _SIZE_PX - 1).unbind(dim=1)
    # One number holds the depth, of which less is nearer, and the index.
    key = (-points[:, 2] * 2**24).long() * _SAMPLES + torch.arange(len(points))
    nearest = torch.full((_SIZE_PX**2,), 2**62).scatter_reduce_(0, row * _SIZE_PX + column, key, "amin")
    return nearest[nearest < 2**62] % _SAMPLES
