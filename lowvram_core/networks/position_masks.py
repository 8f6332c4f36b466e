"""Masks for the attention between views: two parts of the views attend to each other if they lie close on the object.

Only the turbo paint model uses them. `masked_views` is the one place that puts them into the network. Another kind of
attention between views would be another processor class and another context manager like it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

GRIDS = (32, 16, 8)
"""Windows along the edge of a view, in upstream's order. Each is the grid of one level of the UNet; the finest level,
64, attends everywhere."""
REACH = 1.73
"""Two windows attend to each other if their mean positions are less than this share of a window's edge apart."""
FEWEST_PIXELS = 5
"""A window with fewer pixels of the object has the position 0."""
ROWS = 128
"""Rows of a mask that are computed at once. One coordinate takes 3 MiB for six views at grid 32."""
ATTENTION_ROWS = 512
"""Query rows per call where the device has no fused kernel."""

WindowMeans = Mapping[int, Tensor]
"""By grid: the mean positions of all windows, [N*grid*grid,3] float16. Empty: no masks."""


def window_means(positions: Tensor, *, background_counts: bool = True) -> WindowMeans:
    """Mean positions of the windows of each grid, by view, row and column.

    Args:
        positions: [N,3,S,S] 0..1, exactly 1 where there is no object; S is a multiple of 32.
        background_counts: count the background as pixels at position 0 in all grids but the first. Upstream does so:
            its first grid overwrites the maps that the others read.

    Source:
        The position masks of Hunyuan3D-2's paint pipeline in git, with is_turbo; in float16, in this order.
    """
    maps = positions.half()
    seen = (maps != 1).all(dim=1, keepdim=True)
    maps = torch.where(seen, maps, torch.zeros_like(maps))
    means = {}
    for index, grid in enumerate(GRIDS):
        counted = torch.ones_like(seen) if index and background_counts else seen
        means[grid] = _means(maps, counted, grid)
    return means


def _means(maps: Tensor, counted: Tensor, grid: int) -> Tensor:
    """[N*grid*grid,3] float16."""
    pixels = _windows(counted, grid).sum(dim=(-2, -1))
    means = _windows(maps, grid).sum(dim=(-2, -1)) / pixels.clamp(min=1)
    return means.where(pixels >= FEWEST_PIXELS, torch.zeros_like(means)).flatten(0, 2)


def _windows(maps: Tensor, grid: int) -> Tensor:
    """[N,grid,grid,C,h,w] of maps [N,C,S,S]."""
    count, channels, height, width = maps.shape
    parts = maps.view(count, channels, grid, height // grid, grid, width // grid)
    return parts.permute(0, 2, 4, 1, 3, 5)


def mask_bytes(views: int) -> int:
    """Bytes of all masks. One view needs none: it has no attention between views."""
    return sum((views * grid**2) ** 2 for grid in GRIDS) if views > 1 else 0


def position_masks(means: WindowMeans, device: torch.device) -> dict[int, Tensor]:
    """By number of tokens: the mask of all heads, [1,1,tokens,tokens] bool. True: attend."""
    return {len(places): _mask(places.to(device), REACH / grid) for grid, places in means.items()}


def _mask(places: Tensor, reach: float) -> Tensor:
    """Differences and distances are rounded to float16, as upstream's. Coordinate by coordinate is much faster than
    the norm of [rows,tokens,3], and gives the same bits: the squares of float16 numbers are exact in float32."""
    mask = torch.empty(1, 1, len(places), len(places), dtype=torch.bool, device=places.device)
    for start in range(0, len(places), ROWS):
        x, y, z = ((one[start : start + ROWS, None] - one[None]).float().square() for one in places.mT.contiguous())
        mask[0, 0, start : start + ROWS] = (x + y + z).sqrt().half() < reach
    return mask


@contextmanager
def masked_views(unet: nn.Module, means: WindowMeans, device: torch.device, *, in_rows: bool = False) -> Iterator[None]:
    """Within it, the attention between the views of a paint UNet is masked. Without means nothing changes.

    Args:
        means: of as many views as run at once.
        in_rows: compute some query rows at a time, where the device has no fused kernel.

    Memory:
        The masks, see `mask_bytes`. On CUDA, attention makes a bias of each one while it runs: twice its bytes in
        float16.
    """
    masks = position_masks(means, device)
    layers: Sequence[Any] = [part for name, part in unet.named_modules() if name.endswith(".attn_multiview")]
    before = [layer.processor for layer in layers]
    for layer in layers if masks else ():
        layer.set_processor(MaskedAttention(masks, layer.processor, ATTENTION_ROWS if in_rows else None))
    try:
        yield
    finally:
        for layer, processor in zip(layers, before, strict=True):
            layer.set_processor(processor)


class MaskedAttention:
    """A processor for diffusers' Attention that chooses a mask by the number of tokens.

    The masked layers call torch's scaled_dot_product_attention, whatever kernels are chosen: xFormers and diffusers'
    sliced attention would need the mask once for each head.

    Args:
        masks: by number of tokens.
        plain: the processor for every other number of tokens.
        rows: query rows per call; None: all.
    """

    def __init__(self, masks: Mapping[int, Tensor], plain: Any, rows: int | None = None) -> None:
        self.masks = masks
        self.plain = plain
        self.rows = rows

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """[B,tokens,channels], as diffusers' AttnProcessor2_0 without group norm, residual or norm of the keys."""
        mask = self.masks.get(hidden_states.shape[1])
        if mask is None:
            plain: Tensor = self.plain(attn, hidden_states, encoder_hidden_states, attention_mask)
            return plain
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = (
            projected.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for projected in (attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context))
        )
        step = self.rows or query.shape[2]
        attended = [
            nn.functional.scaled_dot_product_attention(part, key, value, attn_mask=rows)
            for part, rows in zip(query.split(step, dim=2), mask.split(step, dim=2), strict=True)
        ]
        result = attended[0] if len(attended) == 1 else torch.cat(attended, dim=2)
        del query, key, value, attended
        out: Tensor = attn.to_out[0](result.transpose(1, 2).flatten(-2))
        return out
