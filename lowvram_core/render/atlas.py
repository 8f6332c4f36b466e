"""The UV layout as a picture."""

from __future__ import annotations

import torch
from torch import Tensor

from .rasterize import Raster, rasterize


def rasterize_atlas(uvs: Tensor, faces: Tensor, size_px: int) -> Raster:
    """Raster of the UV layout: the face that each texel belongs to. Row 0 is v = 0.

    Args:
        uvs: [V,2] 0..1, v down.
        faces: [F,3] whole numbers, on the same device.
        size_px: edge of the texture.
    """
    flat = torch.tensor([[0.0, 1.0]], device=uvs.device).expand(len(uvs), 2)  # depth 0, w 1
    return rasterize(torch.cat([uvs.float() * 2 - 1, flat], dim=1), faces, size_px)
