"""A shaded picture of the finished mesh, for contact sheets."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..geometry.weld import smooth_normals
from ..types import Camera, Mesh
from .rasterize import interpolate
from .scene import Scene

_CLAY = 0.72
_AMBIENT = 0.55
_LIGHT = (0.35, 0.5, 0.8)
"""Direction to the lamp in camera space: over the viewer's right shoulder."""


def render_textured(mesh: Mesh, camera: Camera, size_px: int, device: torch.device | str = "cpu") -> Tensor:
    """[S,S,3] float32 sRGB picture of the mesh, softly lit, on white, on the CPU; grey if it has neither texture
    nor colours."""
    scene = Scene(mesh, device)
    view = scene.view(camera, size_px)
    raster, faces = view.raster, scene.faces
    # The rig mirrors the mesh, so normals computed on it point inwards.
    normals = -smooth_normals(view.positions, mesh.faces.cpu())
    normal = F.normalize(interpolate(normals.to(device), raster, faces), dim=-1)
    colour = torch.full_like(normal, _CLAY)
    if mesh.texture is not None and mesh.uvs is not None:
        uvs = interpolate(scene.uvs, raster, faces)
        colour = sample(mesh.texture.to(device), uvs)
    elif mesh.colors is not None:
        colour = interpolate(mesh.colors.to(device), raster, faces)
    rows_run_down = torch.tensor([1.0, -1.0, 1.0], device=normal.device)
    lamp = F.normalize(torch.tensor([_LIGHT], device=normal.device), dim=1)[0] * rows_run_down
    shade = _AMBIENT + (1 - _AMBIENT) * (normal @ lamp).clamp(min=0)
    picture = (colour * shade.unsqueeze(-1)).clamp(0, 1)
    picture[raster.face_ids == 0] = 1.0
    return picture.cpu()


def sample(texture: Tensor, uvs: Tensor) -> Tensor:
    """[S,S,3] bilinear samples of a texture [H,W,3] at UVs [S,S,2], v down; row r is at v = r / (H - 1)."""
    grid = (uvs * 2 - 1).unsqueeze(0)
    found = F.grid_sample(
        texture.permute(2, 0, 1).unsqueeze(0), grid, mode="bilinear", padding_mode="border", align_corners=True
    )
    return found[0].permute(1, 2, 0)
