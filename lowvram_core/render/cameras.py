"""The rig: the space in which meshes are drawn, and the cameras in it.

The rig mirrors the mesh: the point (x, y, z) of the mesh is at (-x, z, -y) on the rig, +Z up. Normals computed there
point inwards. The paint model was trained on such pictures, so this must stay.
Everything here is computed on the CPU: it is little work, and a GPU in TF32 mode would move pixels.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ..errors import BadInput
from ..types import Camera

SCALE = 1.15
"""Diameter on the rig of a mesh's bounding sphere, whose centre is the centre of the bounding box."""
_DISTANCE = 1.45
"""From the camera to the centre."""
HALF_WIDTH = 0.6
"""Half the width and height of what a camera sees."""
_NEAR, _FAR = 0.1, 100.0
"""Distances of the clip planes from the camera."""

_CLASS_TABLE = {-90: (36, 3), -20: (0, 1), 0: (12, 1), 20: (24, 1), 90: (40, 3)}
"""Elevation -> (first class, azimuth between two classes in units of 30 degrees)."""


def camera_class(camera: Camera) -> int:
    """Returns the paint model's class index of a camera, 0 to 43.

    Raises:
        BadInput: the model was not trained on this pose.
    """
    azimuth, elevation = camera.azimuth_deg, camera.elevation_deg
    if elevation not in _CLASS_TABLE:
        raise BadInput(
            f"paint: a camera at elevation {elevation}; wanted one of -90, -20, 0, 20, 90. "
            "Choose one of these: the paint model was trained on no others."
        )
    first, spacing = _CLASS_TABLE[elevation]
    if azimuth % (30 * spacing):
        raise BadInput(
            f"paint: a camera at azimuth {azimuth}, elevation {elevation}; wanted a multiple of {30 * spacing}. "
            "Choose such an azimuth: the paint model was trained on no others."
        )
    return first + (int(azimuth) // 30 + 9) % 12 // spacing


def to_rig(vertices: Tensor) -> Tensor:
    """[V,3] float32 positions on the rig: axes swapped, centred on the bounding box, scaled to SCALE.

    Source: hy3dgen texgen/differentiable_renderer/mesh_render.py, set_mesh: the same operations in the same order.
    """
    x, y, z = vertices.detach().cpu().float().unbind(dim=1)
    points = torch.stack([-x, z, -y], dim=1)
    centre = (points.amax(dim=0) + points.amin(dim=0)) / 2
    diameter = torch.linalg.vector_norm(points - centre, dim=1).max() * 2.0
    return (points - centre) * (SCALE / max(float(diameter), 1e-30))


def view_from_rig(camera: Camera) -> Tensor:
    """[4,4] float32 matrix from the rig's space to the camera's, which looks along -Z.

    Source: hy3dgen texgen/differentiable_renderer/camera_utils.py, get_mv_matrix.
    """
    elevation, azimuth = math.radians(-camera.elevation_deg), math.radians(camera.azimuth_deg + 90)
    eye = np.array(
        [
            _DISTANCE * math.cos(elevation) * math.cos(azimuth),
            _DISTANCE * math.cos(elevation) * math.sin(azimuth),
            _DISTANCE * math.sin(elevation),
        ]
    )
    # Elevations of 90 degrees need no special case: cos(90 degrees) is 6e-17 here, so `right` is not zero.
    forward = -eye / np.linalg.norm(eye)
    right = np.cross(forward, np.array([0.0, 0.0, 1.0]))
    right /= np.linalg.norm(right)
    up = np.cross(right, forward)
    up /= np.linalg.norm(up)
    matrix = np.eye(4)
    matrix[:3, :3] = np.stack([right, up, -forward])
    matrix[:3, 3] = -matrix[:3, :3] @ eye
    return torch.from_numpy(matrix.astype(np.float32))


def clip_from_view() -> Tensor:
    """[4,4] float32 matrix from a camera's space to clip space: the orthographic projection, equal for all cameras."""
    matrix = torch.eye(4)
    matrix[0, 0] = matrix[1, 1] = 2 / (HALF_WIDTH + HALF_WIDTH)
    matrix[2, 2] = -2 / (_FAR - _NEAR)
    matrix[2, 3] = -(_FAR + _NEAR) / (_FAR - _NEAR)
    return matrix


def project(rig: Tensor, camera: Camera) -> tuple[Tensor, Tensor]:
    """[V,3] positions in the camera's space, [V,4] in clip space; from positions [V,3] on the rig."""
    view = torch.cat([rig, torch.ones(len(rig), 1)], dim=1) @ view_from_rig(camera).t()
    return view[:, :3] / view[:, 3:], view @ clip_from_view().t()
