"""A mesh on the rig, prepared once for everything that draws it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..geometry.weld import mean_normals, smooth_normals
from ..types import Camera, Mesh
from .cameras import SCALE, project, to_rig
from .rasterize import Raster, rasterize


@dataclass(frozen=True)
class View:
    """A scene as one camera sees it."""

    positions: Tensor
    """[V,3] float32 vertices in the camera's space, on the CPU."""
    raster: Raster
    """On the scene's device."""


class Scene:
    """A mesh on the rig. What the device needs of it is sent there at the first use, and stays.

    Memory: on the device 24 bytes per face, 8 per vertex for the UVs, 12 each for normals and places, and the last
    view's raster, 16 S^2 bytes.
    """

    def __init__(self, mesh: Mesh, device: torch.device | str = "cpu") -> None:
        self.mesh = mesh
        self.device = torch.device(device)
        self.rig = to_rig(mesh.vertices)
        """[V,3] float32 positions on the rig, on the CPU."""
        self._last: tuple[tuple[Camera, int], View] | None = None

    @cached_property
    def faces(self) -> Tensor:
        """[F,3] the mesh's faces, on the device."""
        return self.mesh.faces.to(self.device)

    @cached_property
    def uvs(self) -> Tensor:
        """[V,2] float32 the mesh's UVs, on the device."""
        assert self.mesh.uvs is not None
        return self.mesh.uvs.detach().float().to(self.device)

    @cached_property
    def normals(self) -> Tensor:
        """[V,3] float32 mean normals on the rig, on the device. They point inwards (see cameras.py)."""
        # The vertices are not welded, so normals break at UV seams: the model was trained on such pictures.
        return mean_normals(self.rig, self.mesh.faces.cpu()).to(self.device)

    @cached_property
    def smooth_normals(self) -> Tensor:
        """[V,3] float32 normals on the rig that do not break at UV seams, on the CPU. They point inwards."""
        return smooth_normals(self.rig, self.mesh.faces.cpu())

    @cached_property
    def places(self) -> Tensor:
        """[V,3] float32 positions on the rig as colours 0..1, on the device."""
        return (0.5 - self.rig / SCALE).to(self.device)

    def view(self, camera: Camera, size_px: int) -> View:
        """The scene from a camera, as a picture of `size_px` pixels; the last one is kept for the next call."""
        key = camera, size_px
        if self._last is None or self._last[0] != key:
            self._last = None  # two rasters never exist at once
            positions, clip = project(self.rig, camera)
            self._last = key, View(positions, rasterize(clip.to(self.device), self.faces, size_px))
        return self._last[1]
