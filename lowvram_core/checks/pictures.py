"""Checks of pictures and cutouts."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import BadInput
from ..pictures.recentre import SOLID
from ..types import Cutout

MIN_SIDE_PX = 16
MAX_SIDE_PX = 16_384
MAX_PIXELS = 128_000_000
"""About 0.5 GB as RGBA. The largest cameras make fewer pixels; Pillow refuses more as a decompression bomb."""
MAX_REFERENCES = 5
"""The paint model has this many camera numbers for reference pictures. Upstream does not check their number."""
SHORTER = "Scale it down and try again."
MIN_CLEAR_PX = 4
"""The fewest clear pixels of an alpha channel that is used: one in each corner of a rounded card."""

INVERTED_BORDER = 0.98
INVERTED_CLEAR = 0.01
"""A mask looks inverted if it marks this share of the border, and leaves out this share of the picture."""


def check_size(size_px: tuple[int, int], name: str, smallest_px: int = MIN_SIDE_PX) -> None:
    """Raises BadInput if (width, height) is out of range. Call it before the pixels are decoded."""
    width, height = size_px
    if min(width, height) < smallest_px:
        raise BadInput(
            f"picture: {name} is {width}x{height} px; wanted at least {smallest_px} px a side. Use a larger picture."
        )
    if max(width, height) > MAX_SIDE_PX or width * height > MAX_PIXELS:
        raise BadInput(
            f"picture: {name} is {width}x{height} px; wanted at most {MAX_SIDE_PX} px a side and "
            f"{MAX_PIXELS // 1_000_000} million pixels. {SHORTER}"
        )


def check_visible(image: Image.Image, name: str) -> None:
    """Raises BadInput if every pixel is fully transparent."""
    if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema() == (0, 0):
        raise BadInput(f"picture: {name} is fully transparent; wanted something to see. Use another picture.")


def has_real_transparency(image: Image.Image) -> bool:
    """Returns whether the picture is a cutout already: its alpha channel is used, see `is_used`."""
    if not image.has_transparency_data:
        return False
    return is_used(np.asarray(image.convert("RGBA").getchannel("A")) < SOLID)


def is_used(clear: np.ndarray) -> bool:
    """Returns whether an alpha channel says where the object is.

    Args:
        clear: [H,W] bool: pixels that are less than half opaque.
    """
    return int(clear.sum()) >= MIN_CLEAR_PX


def touched_sides(mask: Tensor) -> list[str]:
    """Names the sides of the picture that the object reaches; it may be cut off there."""
    solid = mask >= 0.5
    lines = {"left": solid[:, 0], "right": solid[:, -1], "top": solid[0], "bottom": solid[-1]}
    return [side for side, line in lines.items() if bool(line.any())]


def looks_inverted(mask: Tensor) -> bool:
    """Returns whether a mask [H,W] probably marks the background: it marks the border all round, but not all inside.

    A mask that marks the whole picture does not look inverted.
    """
    solid = mask >= 0.5
    if min(mask.shape) < 2 or bool(solid.all()):
        return False
    border = torch.cat([solid[0], solid[-1], solid[1:-1, 0], solid[1:-1, -1]])
    clear = float((~solid).float().mean())
    return float(border.float().mean()) >= INVERTED_BORDER and clear >= INVERTED_CLEAR


def check_reference_count(count: int) -> None:
    """Raises BadInput if so many reference pictures of one object cannot be painted from."""
    if not 1 <= count <= MAX_REFERENCES:
        raise BadInput(
            f"paint: {count} pictures of the object; wanted 1 to {MAX_REFERENCES}. Choose those that show it best."
        )


def named(stage: str, index: int, count: int) -> str:
    """How messages name one of several pictures of a stage: `paint, picture 2`. One picture needs no number."""
    return stage if count == 1 else f"{stage}, picture {index + 1}"


def check_cutout(cutout: Cutout, stage: str) -> None:
    """Raises BadInput if a cutout cannot be used; `stage` begins the message."""
    image, mask = cutout.image, cutout.mask
    if image.ndim != 3 or image.shape[-1] != 3 or mask.shape != image.shape[:2] or mask.numel() == 0:
        raise BadInput(
            f"{stage}: the cutout's picture is {list(image.shape)} and its mask {list(mask.shape)}; "
            "wanted [H,W,3] and [H,W]. Give a picture and a mask of one size."
        )
    for name, values in (("picture", image), ("mask", mask)):
        if not torch.isfinite(values).all():
            raise BadInput(f"{stage}: the cutout's {name} has NaN or infinite values; wanted 0 to 1. Make it again.")
        low, high = float(values.min()), float(values.max())
        if low < -1e-3 or high > 1 + 1e-3:
            raise BadInput(
                f"{stage}: the cutout's {name} has values {low:.3g} to {high:.3g}; wanted 0 to 1. "
                "Divide 8-bit values by 255."
            )
    _check_object(mask, stage)


def _check_object(mask: Tensor, stage: str) -> None:
    solid = mask >= 0.5
    if not solid.any():
        met = "is fully transparent" if float(mask.max()) == 0 else "has no pixel that is at least half opaque"
        raise BadInput(f"{stage}: the cutout {met}; wanted an object. Use another background model or picture.")
    height = int(solid.any(dim=1).sum())
    width = int(solid.any(dim=0).sum())
    if min(width, height) < 2:
        raise BadInput(
            f"{stage}: the object is {width}x{height} px; wanted at least 2 px a side. Use a picture that it fills."
        )
