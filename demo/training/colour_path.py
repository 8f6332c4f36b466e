"""Writes a path for the picture's colours into the weights of the paint model.

The dual UNet keeps the picture's colours in separate channels. The reference attention in the main UNet's lowest
block reads them from the picture's object. Shortcuts carry them to the output. Constants in the same groups keep the
group norms from changing them. Training would need by far the most time to find this path.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .linear_paths import LIFT, TENT, K

CONSTANT = 2.0
SHARPNESS = 6.5
"""Scale of queries and keys. Their product over the root of the head's width decides the attention."""
GAIN = 0.5
"""Half, because guidance doubles what the picture adds."""
STEADY = 32.0
"""Constants so large that nothing else changes a group's deviation."""
EDGE, STEEP = 1.6, 6.0
"""The sum of a normal map's latents that separates background from object, and how sharply."""
GATE, FOLD = 0.6, 8.0


def colours(width: int, groups: int = 8) -> list[int]:
    """The channels for red, green and blue: the first channel of each of the first three groups."""
    return [group * width // groups for group in range(3)]


def _with_constants(width: int) -> list[tuple[int, int, int]]:
    return [(channel, channel + 1, channel + 2) for channel in colours(width)]


def _silence(layer: nn.Module, rows: list[int]) -> None:
    layer.weight[rows] = 0
    if layer.bias is not None:
        layer.bias[rows] = 0


def _carry(layer: nn.Module, kernel: torch.Tensor, width: int | None = None) -> None:
    """Passes the input's colour channels through the kernel to the output's.

    Args:
        width: channels of the input's first part, if a skip connection is appended to it.
    """
    sources = colours(width or layer.weight.shape[1])
    for target, source in zip(colours(layer.weight.shape[0]), sources, strict=True):
        _silence(layer, [target])
        layer.weight[target, source] = kernel


@torch.no_grad()
def open_dual(model: nn.Module) -> None:
    """Carries the colours and two constants down the dual UNet. Nothing else is in their groups."""
    dual = model.unet_dual
    _silence(dual.conv_in, [c for group in _with_constants(dual.conv_in.weight.shape[0]) for c in group])
    for i, (colour, plus, minus) in enumerate(_with_constants(dual.conv_in.weight.shape[0])):
        dual.conv_in.weight[colour, i, 1, 1], dual.conv_in.bias[colour] = 1 / 1.8, -0.5
        dual.conv_in.bias[plus], dual.conv_in.bias[minus] = CONSTANT, -CONSTANT
    for block in dual.down_blocks:
        for resnet in block.resnets:
            _silence(resnet.conv2, list(range(3 * resnet.conv2.weight.shape[0] // 8)))
            if resnet.conv_shortcut is not None:
                _carry_with_constants(resnet.conv_shortcut, torch.ones(1, 1))
        for down in block.downsamplers or []:
            _carry_with_constants(down.conv, TENT)
    attention = dual.down_blocks[-1].attentions[0]
    first_groups = list(range(3 * attention.proj_in.weight.shape[0] // 8))
    for norm in (attention.norm, attention.transformer_blocks[0].transformer.norm1):
        norm.weight[first_groups], norm.bias[first_groups] = 1, 0
    _silence(attention.proj_in, first_groups)
    for group in _with_constants(attention.proj_in.weight.shape[0]):
        for channel in group:
            attention.proj_in.weight[channel, channel] = 1


def _carry_with_constants(layer: nn.Module, kernel: torch.Tensor) -> None:
    _silence(layer, list(range(3 * layer.weight.shape[0] // 8)))
    _carry(layer, kernel)
    for _, plus, minus in _with_constants(layer.weight.shape[0]):
        layer.bias[plus], layer.bias[minus] = CONSTANT, -CONSTANT


@torch.no_grad()
def open_output(unet: nn.Module) -> None:
    """Carries the colours from the lowest block's reference attention to the output."""
    lowest = colours(unet.down_blocks[-1].resnets[0].conv2.weight.shape[0])
    _silence(unet.down_blocks[-2].downsamplers[0].conv, lowest)
    attention = unet.down_blocks[-1].attentions[0]
    block = attention.transformer_blocks[0]
    writers = [attention.proj_in, block.transformer.attn1.to_out[0], block.attn_multiview.to_out[0],
               block.transformer.attn2.to_out[0], block.transformer.ff.net[2], attention.proj_out]  # fmt: skip
    writers += [resnet.conv2 for resnet in (*unet.down_blocks[-1].resnets, *unet.mid_block.resnets)]
    writers += [other.proj_out for other in unet.mid_block.attentions]
    for writer in writers:
        _silence(writer, lowest)
    attention.proj_out.weight[:, lowest] = 0
    attention.proj_out.weight[lowest, lowest] = 1
    width = attention.proj_out.weight.shape[0]
    for up in unet.up_blocks:
        for resnet in up.resnets:
            _silence(resnet.conv2, colours(resnet.conv2.weight.shape[0]))
            _carry(resnet.conv_shortcut, torch.ones(1, 1), width)
            width = resnet.conv2.weight.shape[0]
        for other in getattr(up, "attentions", None) or []:
            _silence(other.proj_out, colours(other.proj_out.weight.shape[0]))
        for upsampler in up.upsamplers or []:
            _carry(upsampler.conv, TENT)


@torch.no_grad()
def open_gate(unet: nn.Module, white: float) -> None:
    """The last resnet keeps the darkness (white minus colour) only where the normal map shows the object.

    The output is darkness minus white, so minus the clean latents. This is the velocity that v-prediction wants if
    the input is only noise.
    """
    first, last = unet.up_blocks[-1].resnets
    _silence(unet.conv_in, list(range(16, 24)))
    for row, sign in ((16, 1.0), (17, -1.0)):
        unet.conv_in.weight[row, 4:7, 1, 1] = sign
    unet.conv_in.bias[18], unet.conv_in.bias[19] = STEADY, -STEADY
    _silence(first.conv2, list(range(16)))
    _silence(first.conv_shortcut, list(range(16)))
    for target, source in zip(colours(32), colours(48), strict=True):
        first.conv_shortcut.weight[target, source] = 1
    for plus in (1, 9):
        first.conv_shortcut.bias[plus], first.conv_shortcut.bias[plus + 1] = STEADY, -STEADY
    _gate(last)
    _leave(unet, last, white)


def _gate(last: nn.Module) -> None:
    seen = 32 + 16
    for plus in (1, 9):
        for channel, lift in ((plus, 8.0), (plus + 1, STEADY + 8.0)):
            last.norm1.weight[channel], last.norm1.bias[channel] = STEADY / 2, lift
    last.norm1.weight[seen], last.norm1.bias[seen] = STEADY / 2 * STEEP, -STEEP * EDGE
    for layer in (last.conv1, last.time_emb_proj, last.conv2, last.conv_shortcut):
        _silence(layer, list(range(12)))
    for i, colour in enumerate(colours(32)):
        last.norm1.weight[colour], last.norm1.bias[colour] = STEADY / 2, 8.0
        plus = 1 if colour < 8 else 9
        for row, sign in ((4 * i, 1.0), (4 * i + 3, -1.0)):  # the negative copy keeps the group's mean at 0
            last.conv1.weight[row, colour, 1, 1] = sign
            last.conv1.weight[row, [plus, plus + 1], 1, 1] = -0.5 * sign
            last.conv1.weight[row, seen, 1, 1] = -GATE * sign
            last.conv1.bias[row] = sign * (0.5 * (8.0 + STEADY + 8.0) - 8.0)
        last.conv1.bias[4 * i + 1], last.conv1.bias[4 * i + 2] = STEADY, -STEADY
        last.norm2.weight[4 * i], last.norm2.bias[4 * i] = STEADY / 2**0.5 * FOLD, 0.0
        last.conv2.weight[4 * i, 4 * i, 1, 1] = 1 / FOLD


def _leave(unet: nn.Module, last: nn.Module, white: float) -> None:
    norm, conv = unet.conv_norm_out, unet.conv_out
    deviation = (2 * K * K / (norm.num_channels / norm.num_groups)) ** 0.5
    _silence(conv, list(range(conv.weight.shape[0])))
    for i, channels in enumerate(_with_constants(norm.num_channels)):
        for j, channel in enumerate(channels):
            if j:
                last.conv_shortcut.bias[channel] = (K, -K)[j - 1]
            norm.weight[channel], norm.bias[channel] = deviation, LIFT[j]
            conv.weight[i, channel, 1, 1] = 1.0 if j == 0 else -0.5
        conv.bias[i] = 0.5 * (LIFT[1] + LIFT[2]) - LIFT[0] - white


@torch.no_grad()
def open_attention(model: nn.Module, picture: dict[str, torch.Tensor], run: dict[str, torch.Tensor]) -> None:
    """Makes all tokens attend to the picture's object and read how far its colour is from white: three regressions.

    Args:
        picture: `inside` [B,h,w], 1 = object, and `darkness` [B,3,h,w], white minus the picture's latents.
        run: arguments of one forward pass over the same samples, with one view each.
    """
    attention = model.unet.down_blocks[-1].attentions[0].transformer_blocks[0].attn_refview
    seen: dict[str, torch.Tensor] = {}
    hooks = [
        attention.to_q.register_forward_hook(lambda _, args, out: seen.update(query=args[0])),
        attention.to_v.register_forward_hook(lambda _, args, out: seen.update(key=args[0], value=out)),
    ]
    model(**run)
    for hook in hooks:
        hook.remove()
    inside = _tokens(picture["inside"][:, None])
    query = _regress(seen["query"], torch.ones(*seen["query"].shape[:2], 1))
    key = _regress(seen["key"], inside * 2 - 1)
    head = attention.to_q.weight.shape[0] // attention.heads
    for layer, direction in ((attention.to_q, query), (attention.to_k, key)):
        layer.weight.zero_()
        layer.weight[head - 1 :: head] = SHARPNESS * direction.T
    solid = inside[..., 0] > 0.9
    value = torch.cat([seen["value"], torch.ones(*solid.shape, 1)], -1)[solid]
    read = GAIN * _regress(value, _tokens(picture["darkness"])[solid])
    out = attention.to_out[0]
    for i, channel in enumerate(colours(out.weight.shape[0])):
        out.weight[channel], out.bias[channel] = read[:-1, i], read[-1, i]


def _tokens(maps: torch.Tensor) -> torch.Tensor:
    """[B,C,h,w] -> [B,h*w/16,C]."""
    return F.avg_pool2d(maps, 4).flatten(2).transpose(1, 2)


def _regress(inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """[inputs,targets] least squares with a little damping."""
    x, y = inputs.flatten(0, -2), targets.flatten(0, -2)
    return torch.linalg.solve(x.T @ x / len(x) + 1e-3 * torch.eye(x.shape[1]), x.T @ y / len(x))
