"""Small previews of latents, made without the VAE."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

LATENT_COLOURS = (
    (0.3444, 0.1385, 0.0670), (0.1247, 0.4027, 0.1494), (-0.3192, 0.2513, 0.2103), (-0.1307, -0.1874, -0.7445),
)  # fmt: skip
"""What each of the four channels of Stable Diffusion's (1 and 2) scaled latents adds, about, to red, green and blue in
-1..1. Source: figures by Keturn, erucipe and torridgristle, discuss.huggingface.co/t/23204. They are fits to outputs of
the published VAE, and rough: of random latents, they differ from ComfyUI's table for Stable Diffusion 1 by 0.11 of the
range 0..1 (root mean square), and from Keturn's first table by 0.12. The latents that are white here are white within
0.02 in Keturn's table and too bright by 0.2 in ComfyUI's."""


def preview(latents: Tensor, objects: Tensor | None = None) -> Tensor:
    """[R*h,C*w,3] float32 0..1 on the CPU: a rough sheet of N previews, from scaled latents [N,4,h,w].

    Args:
        objects: [N,h,w] 0..1, 1 = object; see `silhouettes`. The background is white, as in the finished pictures.
            The colours of latents are too rough for that: a white background would look grey or tinted.
    """
    pictures = latents.detach().cpu().float().permute(0, 2, 3, 1) @ torch.tensor(LATENT_COLOURS)
    pictures = (pictures * 0.5 + 0.5).nan_to_num(0).clamp(0, 1)
    if objects is not None:
        pictures = 1.0 - objects.unsqueeze(-1) * (1.0 - pictures)
    return sheet(pictures)


def sheet(pictures: Tensor) -> Tensor:
    """[R*H,C*W,3]: pictures [N,H,W,3] side by side, an even number above two in two rows."""
    rows = 2 if len(pictures) > 2 and len(pictures) % 2 == 0 else 1
    count, height, width, _ = pictures.shape
    return pictures.reshape(rows, count // rows, height, width, 3).transpose(1, 2).reshape(rows * height, -1, 3)


def silhouettes(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """[N,h,w] float32 on the CPU: the masks [N,H,W] of the objects, scaled to the size of the latents."""
    return F.adaptive_avg_pool2d(masks.detach().cpu().float(), size)
