"""The pictures of geometry that the painting model is shown: normals and positions as colours."""

from __future__ import annotations

import torch
from torch import Tensor

from ..geometry.weld import mean_normals
from ..types import Camera, Mesh
from .cameras import SCALE, project, to_rig
from .rasterize import Raster, interpolate, rasterize


class Scene:
    """A mesh on the rig, prepared once for many views.

    Memory: the vertices and faces, and one raster of 16 S^2 bytes (the last camera's) on the device.
    """

    def __init__(self, mesh: Mesh, size_px: int, device: torch.device | str = "cpu") -> None:
        self.size_px = size_px
        self._rig = to_rig(mesh.vertices)
        self._faces = mesh.faces.to(device)
        # On the vertices as they are, split at seams: the model was trained on that look.
        self._normals = mean_normals(self._rig, mesh.faces.cpu()).to(device)
        self._positions = (0.5 - self._rig / SCALE).to(device)
        self._last: tuple[Camera, Raster] | None = None

    def normal_map(self, camera: Camera) -> Tensor:
        """[S,S,3] uint8 normals of the mesh's own space as colours, on a white background, on the CPU.

        Source: hy3dgen texgen/differentiable_renderer/mesh_render.py, render_normal(use_abs_coor=True).
        """
        raster = self._raster(camera)
        normals = interpolate(self._normals, raster, self._faces).add_(1).mul_(0.5)
        return _to_bytes(normals, raster)

    def position_map(self, camera: Camera) -> Tensor:
        """[S,S,3] uint8 positions on the rig as colours, on a white background, on the CPU.

        Source: hy3dgen texgen/differentiable_renderer/mesh_render.py, render_position.
        """
        raster = self._raster(camera)
        return _to_bytes(interpolate(self._positions, raster, self._faces), raster)

    def _raster(self, camera: Camera) -> Raster:
        if self._last is None or self._last[0] != camera:
            self._last = None  # two rasters never live at once
            clip = project(self._rig, camera)[1].to(self._faces.device)
            self._last = camera, rasterize(clip, self._faces, self.size_px)
        return self._last[1]


def _to_bytes(colours: Tensor, raster: Raster) -> Tensor:
    """[S,S,3] uint8 of [S,S,3] in 0..1, white outside; truncated as in the pictures the model was trained on."""
    colours[raster.face_ids == 0] = 1.0
    return colours.mul_(255).clamp_(0, 255).byte().cpu()
