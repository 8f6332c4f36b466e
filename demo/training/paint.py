"""The paint model: upstream's 2.5D UNet, small, carrying a picture's colours to every view."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from . import linear_paths, pictures, upstream  # noqa: F401 (upstream first)
from .bank import REFERENCE, Bank
from .clock import Clock
from .denoise import draw_steps, encode, noisy, on_white

from diffusers import UNet2DConditionModel  # isort: skip
from hy3dgen.texgen.hunyuanpaint.unet.modules import UNet2p5DConditionModel  # isort: skip

log = logging.getLogger(__name__)
CONFIG = {
    "in_channels": 4, "out_channels": 4, "sample_size": 64, "block_out_channels": [32, 48, 48],
    "down_block_types": ["DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"], "layers_per_block": 1,
    "cross_attention_dim": 1024, "time_embedding_dim": 1280, "attention_head_dim": 2, "norm_num_groups": 8,
    "use_linear_projection": True,
}
VIEW_SETS = ((0, 1, 2, 3, 6, 7), (0, 1, 2, 3), (0, 4, 5))
GUIDANCE = 2.0
COLOURINGS = 5
SHARED = ("time_embedding", "time_emb_proj", "attn2")


def camera_class(azim: int, elev: int) -> int:
    """The paint model's number for a pose."""
    offset, stride = {-20: (0, 1), 0: (12, 1), 20: (24, 1), -90: (36, 3), 90: (40, 3)}[elev]
    return (azim // 30 + 9) % 12 // stride + offset


CAMERAS = torch.tensor([camera_class(azim, elev) for azim, elev in pictures.VIEWS])


@dataclass(frozen=True)
class Latents:
    """Scaled latents: normal and position [S,8,4,32,32]; coloured views and picture [S*COLOURINGS,9,4,32,32]."""

    normal: torch.Tensor
    position: torch.Tensor
    coloured: torch.Tensor


def prepare(bank: Bank, scale: float, seed: int) -> Latents:
    """Encode every map once, and COLOURINGS random colourings of every solid."""
    rng = np.random.default_rng(seed)
    normal, position, coloured = [], [], []
    for solid in range(len(bank)):
        faces = [bank.surface(solid, v) for v in range(REFERENCE + 1)]
        maps = [[(f(s) * 255).astype(np.uint8) for s in faces[:REFERENCE]]
                for f in (pictures.normal_map, pictures.position_map)]
        normal.append(encode(np.stack(maps[0])))
        position.append(encode(np.stack(maps[1])))
        for _ in range(COLOURINGS):
            draw = int(rng.integers(1 << 30))
            looks = [pictures.albedo(np.random.default_rng(draw), s.point) for s in faces]
            coloured.append(encode(np.stack([on_white(c, s.mask) for c, s in zip(looks, faces, strict=True)])))
    parts = (torch.stack(x) * scale for x in (normal, position, coloured))
    return Latents(*parts)


def build() -> UNet2p5DConditionModel:
    """The untrained network.

    The dual stream runs at timestep 0 and on one text only, so it shares the main one's layers for both:
    a third of the file, and stored once.
    """
    model = UNet2p5DConditionModel(UNet2DConditionModel(**CONFIG))
    model.unet.learned_text_clip_gen.data.mul_(0.1)
    model.unet.learned_text_clip_ref.data.mul_(0.1)
    for name, _ in list(model.unet_dual.named_parameters()):
        if any(part in name for part in SHARED):
            owner, leaf = name.rsplit(".", 1)
            setattr(model.unet_dual.get_submodule(owner), leaf, model.unet.get_parameter(name))
    return model


@torch.no_grad()
def open_reference(model: UNet2p5DConditionModel) -> None:
    """Let the picture's colours through the dual stream's norms to the first reference attention, as in linear_paths.

    Without it they have to be found by training, which is by far its slowest part.
    """
    dual, constant = model.unet_dual, 2.0

    def channels(width: int) -> list[tuple[int, int, int]]:
        return [(g * width // 8, g * width // 8 + 1, g * width // 8 + 2) for g in range(3)]

    def carry(layer: torch.nn.Module, kernel: torch.Tensor, *, fresh: bool = True) -> None:
        inputs, outputs = layer.weight.shape[1], layer.weight.shape[0]
        for i, (target, source) in enumerate(zip(channels(outputs), channels(inputs), strict=True)):
            layer.weight[list(target)] = 0
            layer.bias[list(target)] = 0
            if inputs == 4:
                layer.weight[target[0], i], layer.bias[target[0]] = kernel / 1.8, -0.5
            else:
                layer.weight[target[0], source[0]] = kernel
            if fresh:
                layer.bias[target[1]], layer.bias[target[2]] = constant, -constant
            else:
                layer.weight[target[1], source[1]] = layer.weight[target[2], source[2]] = 1

    carry(dual.conv_in, torch.tensor([[0.0, 0, 0], [0, 1, 0], [0, 0, 0]]))
    for block in dual.down_blocks:
        for resnet in block.resnets:
            rows = [c for group in channels(resnet.conv2.weight.shape[0]) for c in group]
            resnet.conv2.weight[rows], resnet.conv2.bias[rows] = 0, 0
            if resnet.conv_shortcut is not None:
                carry(resnet.conv_shortcut, torch.ones(1, 1))
        for down in block.downsamplers or []:
            carry(down.conv, linear_paths.TENT)
    carry(dual.down_blocks[-1].attentions[0].proj_in, torch.tensor(1.0), fresh=False)
    read = model.unet.down_blocks[-1].attentions[0].transformer_blocks[0].attn_refview.to_v.weight
    for head in range(2):
        for i, (colour, _, _) in enumerate(channels(read.shape[1])):
            row = head * read.shape[0] // 2 + i
            read[row] = 0
            read[row, colour] = 2.0


def _guided(model: UNet2p5DConditionModel, state: torch.Tensor, steps: torch.Tensor, **seen: torch.Tensor) -> tuple:
    """Velocities without and with the picture, [B,N,4,h,w] each, as upstream's pipeline asks for them."""
    b, n = state.shape[:2]
    text = model.unet.learned_text_clip_gen.expand(b, -1, -1)
    ref = seen.pop("ref")
    out = model(
        torch.cat([state] * 2), steps.repeat(2).repeat_interleave(n), torch.cat([torch.zeros_like(text), text]),
        ref_latents=torch.cat([torch.zeros_like(ref), ref]), camera_info_ref=torch.zeros(2 * b, 1, dtype=torch.long),
        ref_scale=torch.cat([torch.zeros(b), torch.ones(b)]), **{k: torch.cat([v, v]) for k, v in seen.items()},
    )[0]
    return tuple(x.unflatten(0, (b, n)) for x in out.chunk(2))


def train(data: Latents, seconds: float, seed: int, out: Path, batch: int = 3) -> None:
    """Train for about `seconds` of processor time: the velocity guided as upstream does, and its halves."""
    torch.manual_seed(seed)
    model = build()
    open_reference(model)
    if out.exists():
        model.load_state_dict(torch.load(out, weights_only=True))
    model.to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-3, betas=(0.9, 0.98))
    clock, average = Clock(seconds, 150), None
    while clock.running():
        for group in optimiser.param_groups:
            group["lr"] = clock.rate(1.2e-3)
        count = (3, 3, 3, 4, 6)[int(torch.randint(5, ()))]
        views = torch.randperm(REFERENCE)[:count]
        index = torch.randint(len(data.coloured), (batch,))
        solid = index // COLOURINGS
        steps = draw_steps(batch)
        state, velocity = noisy(data.coloured[index][:, views], steps)
        with torch.autocast("cpu", torch.bfloat16, enabled=clock.done() < 0.85):
            without, with_ = _guided(
                model, state, steps, ref=data.coloured[index, REFERENCE][:, None],
                normal_imgs=data.normal[solid][:, views], position_imgs=data.position[solid][:, views],
                camera_info_gen=CAMERAS[views].expand(batch, -1),
            )
        guided = without + GUIDANCE * (with_ - without)
        guided_error = (guided.float() - velocity)
        loss = guided_error.square().mean() + 0.3 * guided_error.abs().mean()
        loss = loss + 0.3 * (with_ - velocity).square().mean() + 0.2 * (without - velocity).square().mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        now = guided_error.detach().square().mean().item()
        average = now if average is None else 0.98 * average + 0.02 * now
        if clock.step % 100 == 0:
            log.info("paint: step %d, guided error^2 %.4f, %.0f s", clock.step, average, clock.spent())
            torch.save(model.state_dict(), out)
    torch.save(model.state_dict(), out)


def train_reference(data: Latents, seconds: float, seed: int, out: Path, batch: int = 20) -> None:
    """Continue with many colours a step and one view each, mostly at the noisy end, without the guidance.

    That is what teaches the reference attention; every seventh sample goes without the picture.
    """
    torch.manual_seed(seed)
    model = build()
    model.load_state_dict(torch.load(out, weights_only=True))
    model.to(memory_format=torch.channels_last)
    named = list(model.named_parameters())
    fast = [p for n, p in named if "refview" in n or "unet_dual" in n]
    slow = [p for n, p in named if not ("refview" in n or "unet_dual" in n)]
    optimiser = torch.optim.AdamW([{"params": fast}, {"params": slow}], weight_decay=1e-3, betas=(0.9, 0.98))
    clock = Clock(seconds, 20)
    while clock.running():
        for group, gain in zip(optimiser.param_groups, (2.5, 1.0), strict=True):
            group["lr"] = clock.rate(1.5e-3) * gain
        index, view = torch.randint(len(data.coloured), (batch,)), torch.randint(REFERENCE, (batch, 1))
        solid, row = index // COLOURINGS, torch.arange(batch)[:, None]
        noisy_end = torch.rand(batch) < 0.6
        steps = torch.where(noisy_end, torch.randint(700, 1000, (batch,)), torch.randint(0, 1000, (batch,)))
        state, velocity = noisy(data.coloured[index][row, view], steps)
        seen = (torch.rand(batch) > 0.15).float()
        with torch.autocast("cpu", torch.bfloat16):
            predicted = model(
                state, steps, model.unet.learned_text_clip_gen * seen[:, None, None],
                ref_latents=data.coloured[index, REFERENCE][:, None] * seen.view(-1, 1, 1, 1, 1), ref_scale=seen,
                camera_info_ref=torch.zeros(batch, 1, dtype=torch.long), camera_info_gen=CAMERAS[view],
                normal_imgs=data.normal[solid][row, view], position_imgs=data.position[solid][row, view],
            )[0]
        loss = (predicted.float().unflatten(0, (batch, 1)) - velocity).square().mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    torch.save(model.state_dict(), out)
