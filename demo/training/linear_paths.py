"""Builds a picture autoencoder that works without training: three latent channels are a thumbnail, the fourth a detail.

Group norms remove absolute colours, so small autoencoders take long to learn them. Here every group with a colour
channel also has two constant channels, +K and -K. They fix the group's deviation, and their sum gives its mean. So the
norm does not change the colour. Inside, white is 0, so that zero padding continues the background.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

K = 8.0
GAIN, MEAN, DETAIL_GAIN = 1.5, 0.5, 4.0
LIFT = {0: 8.0, 1: 8.0, 2: 16.0}  # Offsets before SiLU: colour, +K and -K pass where it is linear.
BOX = torch.tensor([[1.0, 1, 0], [1, 1, 0], [0, 0, 0]]) / 4
TENT = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16


def _reserved(width: int, groups: int) -> list[tuple[int, int, int]]:
    """The channels of colour, +K and -K in each of the first groups."""
    return [(g * width // 4, g * width // 4 + 1, g * width // 4 + 2) for g in range(groups)]


def _constants(conv: nn.Conv2d, groups: int) -> None:
    for _, plus, minus in _reserved(conv.out_channels, groups):
        conv.weight[plus] = conv.weight[minus] = 0
        conv.bias[plus], conv.bias[minus] = K, -K


def _carry(conv: nn.Conv2d, kernel: torch.Tensor, groups: int) -> None:
    """Passes the input's colour channels through the kernel to the output's. The constants are set again."""
    _constants(conv, groups)
    ends = zip(_reserved(conv.in_channels, groups), _reserved(conv.out_channels, groups), strict=True)
    for (source, *_), (target, *_) in ends:
        conv.weight[target], conv.bias[target] = 0, 0
        conv.weight[target, source] = kernel


def _silent(net: nn.Module, groups: int) -> None:
    """Sets the residual branches to zero. The shortcuts carry the values."""
    for block in net.modules():
        if hasattr(block, "conv_shortcut"):
            nn.init.zeros_(block.conv2.weight)
            nn.init.zeros_(block.conv2.bias)
            if block.conv_shortcut is not None:
                _carry(block.conv_shortcut, torch.ones(1, 1), groups)


def _leave(norm: nn.GroupNorm, conv: nn.Conv2d, gains: list[float], offsets: list[float]) -> None:
    """Sets the last norm and convolution: output i = gains[i] * (colour i + offsets[i]). Other outputs are 0."""
    deviation = (2 * K * K / (norm.num_channels / norm.num_groups)) ** 0.5
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)
    for i, (gain, offset) in enumerate(zip(gains, offsets, strict=True)):
        channels = _reserved(norm.num_channels, len(gains))[i]
        for j, channel in enumerate(channels):
            norm.weight[channel], norm.bias[channel] = deviation, LIFT[j]
            conv.weight[i, channel, 1, 1] = gain * (1.0 if j == 0 else -0.5)
        lift = LIFT[0] - 0.5 * (LIFT[1] + LIFT[2])
        conv.bias[i] = gain * (offset - lift)


def code(x: torch.Tensor) -> torch.Tensor:
    """[B,3,H,W] in -1..1 -> [B,4,H/8,W/8]: the built encoder's output within 0.01, computed directly."""
    thumbnail = F.avg_pool2d(x, 8)
    quarter = F.avg_pool2d(x.mean(1, keepdim=True), 4)[..., ::2, ::2]
    detail = quarter - thumbnail.mean(1, keepdim=True)
    return torch.cat([GAIN * (thumbnail - MEAN), DETAIL_GAIN * detail], 1)


@torch.no_grad()
def build(vae: AutoencoderKL) -> AutoencoderKL:
    """Writes the paths into a fresh autoencoder. Its encoder is then finished; its decoder enlarges smoothly."""
    encoder, decoder = vae.encoder, vae.decoder
    for p in encoder.parameters():
        p.zero_()
    _constants(encoder.conv_in, 4)
    for i, (channel, *_) in enumerate(_reserved(encoder.conv_in.out_channels, 4)):
        sources = [i] if i < 3 else [0, 1, 2]
        encoder.conv_in.weight[channel, sources, 1, 1] = 1 / len(sources)
        encoder.conv_in.bias[channel] = -1
    _silent(encoder, 4)
    downs = [d for b in encoder.down_blocks if b.downsamplers for d in b.downsamplers]
    for down in downs:
        _carry(down.conv, BOX, 4)
    last = downs[-1].conv
    detail = -BOX.clone()
    detail[0, 0] += 1  # The cell's first quarter minus its mean shows where in the cell an edge is.
    source, target = _reserved(last.in_channels, 4)[3][0], _reserved(last.out_channels, 4)[3][0]
    last.weight[target, source] = detail
    _leave(encoder.conv_norm_out, encoder.conv_out, [GAIN] * 3 + [DETAIL_GAIN], [1 - MEAN] * 3 + [0.0])
    encoder.conv_out.bias[4:] = -12  # Log variance: practically no noise.
    for conv in (vae.quant_conv, vae.post_quant_conv):
        nn.init.dirac_(conv.weight)
        nn.init.zeros_(conv.bias)
    _constants(decoder.conv_in, 3)
    for i, (channel, *_) in enumerate(_reserved(decoder.conv_in.out_channels, 3)):
        decoder.conv_in.weight[channel], decoder.conv_in.bias[channel] = 0, MEAN - 1
        decoder.conv_in.weight[channel, i, 1, 1] = 1 / GAIN
    _silent(decoder, 3)
    for up in [u for b in decoder.up_blocks if b.upsamplers for u in b.upsamplers]:
        _carry(up.conv, TENT, 3)
    _leave(decoder.conv_norm_out, decoder.conv_out, [1.0] * 3, [1.0] * 3)
    return vae
