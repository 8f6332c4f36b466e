"""The values that stages hand to each other. All tensors live on the CPU.

Pictures are float32 sRGB in 0..1, height first. Meshes are right-handed, +Y up, the front facing +Z.
UVs are glTF style: v runs down, so texel row = v * (height - 1).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Cutout:
    """A picture with its object cut out."""

    image: Tensor
    """[H,W,3] float32 sRGB 0..1; where `mask` is 0 the colour means nothing."""
    mask: Tensor
    """[H,W] float32, 1 = object."""


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh; `uvs` and `texture` are there from unwrapping and baking on."""

    vertices: Tensor
    """[V,3] float32."""
    faces: Tensor
    """[F,3] int64, counter-clockwise seen from outside."""
    uvs: Tensor | None = None
    """[V,2] float32 in 0..1, v down."""
    texture: Tensor | None = None
    """[H,W,3] float32 sRGB 0..1."""

    def with_(self, **changes: Any) -> Mesh:
        """A copy with some fields replaced."""
        return replace(self, **changes)


@dataclass(frozen=True)
class Camera:
    """One view's pose on upstream's orthographic rig, and its say in the bake."""

    azimuth_deg: int
    elevation_deg: int
    weight: float = 1.0


@dataclass(frozen=True)
class Views:
    """Painted pictures of one mesh, with the cameras they were painted from."""

    images: Tensor
    """[N,S,S,3] float32 sRGB 0..1."""
    cameras: tuple[Camera, ...]
    """N poses, in the order of `images`."""


@dataclass(frozen=True)
class Atlas:
    """A texture that may still have holes."""

    texture: Tensor
    """[T,T,3] float32 sRGB 0..1."""
    seen: Tensor
    """[T,T] bool: texels that at least one view painted."""
