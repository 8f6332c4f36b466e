"""The values that stages pass to each other. All tensors are on the CPU.

Pictures are [H,W,3] float32 sRGB in 0..1. Meshes are right-handed, +Y up, and their front faces +Z.
UVs are as in glTF: v runs down, so texel row = v * (height - 1).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

SIDES = ("front", "left", "back", "right")
"""Names of the pictures that the multi-view shape models take, in the models' order."""
FRONT = SIDES[0]
"""The picture that gives the colours, and the only one where there is only one."""


@dataclass(frozen=True)
class Cutout:
    """A picture and the mask of its object."""

    image: Tensor
    """[H,W,3] float32 sRGB 0..1; where `mask` is 0 the colour has no meaning."""
    mask: Tensor
    """[H,W] float32, 1 = object."""


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh. Unwrapping adds `uvs`, inpainting adds `texture`."""

    vertices: Tensor
    """[V,3] float32."""
    faces: Tensor
    """[F,3] int64, counter-clockwise when seen from outside."""
    uvs: Tensor | None = None
    """[V,2] float32 in 0..1, v down."""
    texture: Tensor | None = None
    """[H,W,3] float32 sRGB 0..1."""
    normals: Tensor | None = None
    """[V,3] float32 unit normals to save with the mesh. None: smooth ones. Nothing is rendered or baked with them."""
    colors: Tensor | None = None
    """[V,3] float32 sRGB 0..1 colours to save with the mesh, where it has no texture. Nothing is baked with them."""

    def with_(self, **changes: Any) -> Mesh:
        """Returns a copy with some fields replaced."""
        return replace(self, **changes)


@dataclass(frozen=True)
class Camera:
    """The pose of one view on upstream's orthographic rig."""

    azimuth_deg: int
    elevation_deg: int
    weight: float = 1.0
    """Of its colours, where the bake mixes views."""


@dataclass(frozen=True)
class Views:
    """Painted pictures of one mesh, and their cameras."""

    images: Tensor
    """[N,S,S,3] float32 sRGB 0..1."""
    cameras: tuple[Camera, ...]
    """N poses, in the order of `images`."""


@dataclass(frozen=True)
class Atlas:
    """A texture that may have holes."""

    texture: Tensor
    """[T,T,3] float32 sRGB 0..1."""
    seen: Tensor
    """[T,T] bool: texels that at least one view saw."""
