"""A cutout on a chequerboard."""

from __future__ import annotations

import torch
from torch import Tensor

from ..types import Cutout

_LIGHT_SQUARE, _DARK_SQUARE = 0.92, 0.80


def on_checkers(cutout: Cutout) -> Tensor:
    """[H,W,3] the cutout on a chequerboard, which shows through where it is transparent."""
    height, width = cutout.mask.shape
    cell = max(1, max(height, width) // 24)
    rows, columns = torch.arange(height)[:, None] // cell, torch.arange(width)[None] // cell
    ground = torch.where((rows + columns) % 2 == 0, _LIGHT_SQUARE, _DARK_SQUARE)[..., None]
    mask = cutout.mask[..., None]
    return cutout.image * mask + ground * (1 - mask)
