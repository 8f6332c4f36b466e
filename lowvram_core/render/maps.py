"""Normal map and position map: the pictures of the geometry that the paint model gets."""

from __future__ import annotations

from torch import Tensor

from ..types import Camera
from .rasterize import Raster, interpolate
from .scene import Scene


def normal_map(scene: Scene, camera: Camera, size_px: int) -> Tensor:
    """[S,S,3] uint8 normals in the mesh's own space as colours, on a white background, on the CPU.

    Source: hy3dgen texgen/differentiable_renderer/mesh_render.py, render_normal(use_abs_coor=True).
    """
    raster = scene.view(camera, size_px).raster
    normals = interpolate(scene.normals, raster, scene.faces).add_(1).mul_(0.5)
    return _to_bytes(normals, raster)


def position_map(scene: Scene, camera: Camera, size_px: int) -> Tensor:
    """[S,S,3] uint8 positions on the rig as colours, on a white background, on the CPU.

    Source: hy3dgen texgen/differentiable_renderer/mesh_render.py, render_position.
    """
    raster = scene.view(camera, size_px).raster
    return _to_bytes(interpolate(scene.places, raster, scene.faces), raster)


def _to_bytes(colours: Tensor, raster: Raster) -> Tensor:
    """[S,S,3] uint8 from [S,S,3] 0..1, white outside the mesh. Truncates: the model was trained on such pictures."""
    colours[raster.face_ids == 0] = 1.0
    return colours.mul_(255).clamp_(0, 255).byte().cpu()
