"""Conversion between Pillow's pictures and the tensors that stages exchange."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..types import Cutout


def limit_long_side(image: Image.Image, px: int) -> Image.Image:
    """Returns the picture, scaled down (LANCZOS) if its long side has more than `px` pixels."""
    long_side = max(image.size)
    if long_side <= px:
        return image
    width, height = (max(1, round(side * px / long_side)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def flatten(image: Image.Image) -> Image.Image:
    """Returns the picture as RGB; transparent pixels show white."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def image_from_pil(rgb: Image.Image) -> Tensor:
    """[H,W,3] float32 0..1 of a picture, without its alpha channel."""
    return torch.from_numpy(np.array(rgb.convert("RGB"), dtype=np.float32)).div_(255)


def pil_from_image(image: Tensor) -> Image.Image:
    """RGB picture of [H,W,3] values in 0..1, rounded to 8 bits."""
    return Image.fromarray(to_bytes(image))


def cutout_from_rgba(image: Image.Image) -> Cutout:
    """Returns a cutout. Its mask is the alpha channel of the picture."""
    values = torch.from_numpy(np.array(image.convert("RGBA"), dtype=np.float32)).div_(255)
    return Cutout(values[..., :3].contiguous(), values[..., 3].contiguous())


def rgba_from_cutout(cutout: Cutout) -> Image.Image:
    """Returns an RGBA picture. Its alpha is the mask of the cutout; 8-bit values survive the round trip."""
    return Image.fromarray(to_bytes(torch.cat((cutout.image, cutout.mask[..., None]), dim=-1)))


def to_bytes(values: Tensor) -> np.ndarray:
    """uint8 of values in 0..1, rounded. Values outside are limited."""
    return values.detach().cpu().float().mul(255).round().clamp(0, 255).to(torch.uint8).numpy()
