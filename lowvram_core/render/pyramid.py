"""Fills what has no colour in a picture from what has one, coarse to fine ("pull-push")."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .loops import pull, push

_TEXELS_PER_STRIP = 1 << 20
_TINY = 1e-12


def pull_push(colours: Tensor, weights: Tensor, device: torch.device) -> None:
    """Replaces the colours [T,T,3] in RAM by weight * colour + (1 - weight) * what the texels around say.

    Each level of a pyramid is the weighted mean of 2 x 2 texels of the finer one. Going back, a texel takes what it
    lacks of weight 1 from the coarser level, interpolated bilinearly.

    Args:
        weights: [T,T] float32 0..1 in RAM. At least one is larger than 0.
        device: computes; it never holds the finest level.

    Memory: 16 / 3 * T^2 bytes on the device, half as much again while the finest levels are computed, and 60 MiB.
    """
    if device.type == "cpu" and _pull_push(colours, weights):
        return
    size = len(weights)
    strips = [slice(start, start + _rows(size)) for start in range(0, size, _rows(size))]
    levels = [torch.cat([_coarser(_weighted(colours[rows], weights[rows], device)) for rows in strips], dim=1)]
    while levels[-1].shape[1] > 1:
        levels.append(_coarser(levels[-1]))
    top = levels.pop()
    coarse = top[:3] / top[3:].clamp(min=_TINY)
    while levels:
        coarse = _finer(levels.pop(), coarse)
    for rows in strips:
        fine = _weighted(colours[rows], weights[rows], device)
        # One row more on each side, so that the strips meet without a step.
        above, below = max(rows.start // 2 - 1, 0), (rows.start + fine.shape[1] + 1) // 2 + 1
        filled = _finer(fine, coarse[:, above:below], skip=rows.start - 2 * above)
        colours[rows] = filled.permute(1, 2, 0).cpu()


def _pull_push(colours: Tensor, weights: Tensor) -> bool:
    """Does the same in RAM as machine code. False without numba; then the colours are as they were."""
    levels = [(colours, weights)]
    while len(levels[-1][1]) > 1:
        height, width = ((length + 1) // 2 for length in levels[-1][1].shape)
        coarser = torch.empty(height, width, 3), torch.empty(height, width)
        if not pull(*coarser, *levels[-1]):
            return False
        levels.append(coarser)
    coarse, _ = levels.pop()
    while levels:
        fine, weight = levels.pop()
        push(fine, weight, coarse)
        coarse = fine
    return True


def _rows(size: int) -> int:
    """An even number of rows."""
    return max(_TEXELS_PER_STRIP // size // 2 * 2, 2)


def _weighted(colours: Tensor, weights: Tensor, device: torch.device) -> Tensor:
    """[4,H,W] colours [H,W,3] times weights [H,W], and the weights."""
    weight = weights.to(device).unsqueeze(0)
    return torch.cat([colours.to(device).permute(2, 0, 1) * weight, weight])


def _coarser(fine: Tensor) -> Tensor:
    """[4,ceil(H/2),ceil(W/2)] sums of 2 x 2 texels of [4,H,W], with the weight limited to 1."""
    if fine.shape[1] % 2 or fine.shape[2] % 2:
        fine = F.pad(fine, (0, fine.shape[2] % 2, 0, fine.shape[1] % 2))
    rows = fine[:, ::2] + fine[:, 1::2]
    total = rows[..., ::2] + rows[..., 1::2]
    return total.div_(total[3:].clamp(min=1))


def _finer(fine: Tensor, coarse: Tensor, skip: int = 0) -> Tensor:
    """[3,H,W] what [4,H,W] lacks of weight 1 from the coarser colours, whose first `skip` fine rows are left out."""
    _, height, width = fine.shape
    up = F.interpolate(coarse[None], scale_factor=2.0, mode="bilinear", align_corners=False)[0]
    return torch.addcmul(fine[:3], up[:, skip : skip + height, :width], 1 - fine[3:])
