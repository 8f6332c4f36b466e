"""Normal map and position map: the pictures of the geometry that the paint model gets."""

from __future__ import annotations

import torch
from torch import Tensor

from ..types import Camera
from .loops import colour
from .rasterize import PIXELS_PER_CHUNK, chunk_size, interpolate_at
from .scene import Scene


def normal_map(scene: Scene, camera: Camera, size_px: int) -> Tensor:
    """[S,S,3] uint8 normals in the mesh's own space as colours, on a white background, on the CPU.

    Source: hy3dgen texgen/differentiable_renderer/mesh_render.py, render_normal(use_abs_coor=True).
    """
    return _drawn(scene, scene.normals, camera, size_px, 1, 0.5)


def position_map(scene: Scene, camera: Camera, size_px: int) -> Tensor:
    """[S,S,3] uint8 positions on the rig as colours, on a white background, on the CPU.

    Source: hy3dgen texgen/differentiable_renderer/mesh_render.py, render_position.
    """
    return _drawn(scene, scene.places, camera, size_px, 0, 1)


def _drawn(scene: Scene, values: Tensor, camera: Camera, size_px: int, shift: float, scale: float) -> Tensor:
    """[S,S,3] uint8 colours (value + shift) * scale of vertex values [V,3], white outside the mesh, on the CPU.

    Truncates: the model was trained on such pictures.
    """
    raster = scene.view(camera, size_px).raster
    ids, weights = raster.face_ids.flatten(), raster.barycentric.view(-1, 3)
    picture = torch.full((len(ids), 3), 255, dtype=torch.uint8, device=ids.device)
    if colour(picture, values, scene.faces, ids, weights, shift, scale):
        return picture.view(size_px, size_px, 3)
    for pixels in ids.nonzero().squeeze(1).split(chunk_size(PIXELS_PER_CHUNK, ids.device)):
        corners = scene.faces.index_select(0, ids.index_select(0, pixels) - 1)
        found = interpolate_at(values, corners, weights.index_select(0, pixels))
        picture.index_copy_(0, pixels, found.add_(shift).mul_(scale).mul_(255).clamp_(0, 255).byte())
    return picture.view(size_px, size_px, 3).cpu()
