"""Shaded pictures of meshes, for contact sheets, for nodes and for turntables. On the CPU or a GPU."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from ..types import Camera, Mesh
from .cameras import clip_from_view, view_from_rig
from .rasterize import Raster, interpolate, rasterize
from .scene import Scene

_CLAY = 0.72
_AMBIENT = 0.55
_LIGHT = (0.35, 0.5, 0.8)
"""Direction to the lamp in camera space: over the viewer's right shoulder."""
TURNTABLE_ELEVATION_DEG = 15


def render_textured(mesh: Mesh, camera: Camera, size_px: int, device: torch.device | str = "cpu") -> Tensor:
    """[S,S,3] float32 sRGB picture of the mesh, softly lit, on white, on the CPU; grey if it has neither texture
    nor colours."""
    scene = Scene(mesh, device)
    view = scene.view(camera, size_px)
    normal = interpolate(_smooth(scene, view_from_rig(camera)), view.raster, scene.faces)
    return shaded(scene, view.raster, F.normalize(normal, dim=-1)).cpu()


def turntable(
    mesh: Mesh, frames: int, size_px: int, *, background: float = 1.0, device: torch.device | str = "cpu"
) -> Iterator[Tensor]:
    """Yields [S,S,3] float32 sRGB pictures on the CPU, once around the mesh, the front first, then its right side.

    Each picture is drawn at twice the size and scaled down.

    Args:
        background: the grey behind the mesh, 0 to 1.
    """
    scene = Scene(mesh, device)
    for frame in range(frames):
        angle = 2 * math.pi * frame / frames
        turn = torch.eye(4)
        turn[:2, :2] = torch.tensor([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        matrix = view_from_rig(Camera(0, TURNTABLE_ELEVATION_DEG)) @ turn
        points = torch.cat([scene.rig, torch.ones(len(scene.rig), 1)], dim=1)
        clip = points @ matrix.t() @ clip_from_view().t()
        raster = rasterize(clip.to(scene.device), scene.faces, 2 * size_px)
        normal = F.normalize(interpolate(_smooth(scene, matrix), raster, scene.faces), dim=-1)
        yield halved(shaded(scene, raster, normal, background)).cpu()


def halved(picture: Tensor) -> Tensor:
    """[H/2,W/2,3]: a picture [H,W,3] at half its size."""
    small: Tensor = F.avg_pool2d(picture.permute(2, 0, 1).unsqueeze(0), 2)[0].permute(1, 2, 0)
    return small


def _smooth(scene: Scene, matrix: Tensor) -> Tensor:
    """[V,3] normals in camera space, on the device. The rig mirrors the mesh, so those computed on it point inwards."""
    return (-scene.smooth_normals @ matrix[:3, :3].t()).to(scene.device)


def shaded(scene: Scene, raster: Raster, normal: Tensor, background: float = 1.0) -> Tensor:
    """[S,S,3] float32 sRGB on the device: the raster in the mesh's colours, lit.

    Args:
        normal: [S,S,3] unit normals in camera space.
    """
    mesh = scene.mesh
    colour = torch.full_like(normal, _CLAY)
    if mesh.texture is not None and mesh.uvs is not None:
        colour = sample(mesh.texture.to(scene.device), interpolate(scene.uvs, raster, scene.faces))
    elif mesh.colors is not None:
        colour = interpolate(mesh.colors.to(scene.device), raster, scene.faces)
    picture = (colour * lit(normal).unsqueeze(-1)).clamp(0, 1)
    picture[raster.face_ids == 0] = background
    return picture


def lit(normal: Tensor) -> Tensor:
    """[...] brightness 0..1 of unit normals [...,3] in camera space."""
    rows_run_down = torch.tensor([1.0, -1.0, 1.0], device=normal.device)
    lamp = F.normalize(torch.tensor([_LIGHT], device=normal.device), dim=1)[0] * rows_run_down
    return _AMBIENT + (1 - _AMBIENT) * (normal @ lamp).clamp(min=0)


def sample(texture: Tensor, uvs: Tensor) -> Tensor:
    """[S,S,3] bilinear samples of a texture [H,W,3] at UVs [S,S,2], v down; row r is at v = r / (H - 1)."""
    grid = (uvs * 2 - 1).unsqueeze(0)
    found = F.grid_sample(
        texture.permute(2, 0, 1).unsqueeze(0), grid, mode="bilinear", padding_mode="border", align_corners=True
    )
    return found[0].permute(1, 2, 0)
