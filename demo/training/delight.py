"""The delight model: an InstructPix2Pix UNet that turns a lit picture into its flat colours."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from . import upstream  # noqa: F401 (upstream first: diffusers needs its shim)
from .bank import REFERENCE, Bank
from .clock import Clock
from .denoise import close_noise, encode, lit_and_flat, noisy

from diffusers import UNet2DConditionModel  # isort: skip

log = logging.getLogger(__name__)
TEXT_DIM = 32
CONFIG = {
    "in_channels": 8,
    "out_channels": 4,
    "sample_size": 64,
    "block_out_channels": [32, 48, 64],
    "down_block_types": ["DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"],
    "layers_per_block": 1,
    "cross_attention_dim": TEXT_DIM,
    "attention_head_dim": 2,
    "norm_num_groups": 8,
    "use_linear_projection": True,
}
PAIRS = 1200


def _pairs(bank: Bank, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """[N,4,32,32] unscaled latents of lit pictures and of their flat colours."""
    lit, flat = [], []
    for i in range(PAIRS):
        view = REFERENCE if i % 3 else int(rng.integers(REFERENCE))
        a, b = lit_and_flat(bank, int(rng.integers(len(bank))), view, rng)
        lit.append(a)
        flat.append(b)
    return encode(np.stack(lit)), encode(np.stack(flat))


def train(bank: Bank, scale: float, text: torch.Tensor, seconds: float, seed: int, out: Path) -> None:
    """Trains for about `seconds` of CPU time. Starts from the weights in `out` if it exists.

    Args:
        bank, seconds, seed, out: geometry, time, random seed, and the file for the weights.
        scale: the autoencoder's scaling factor.
        text: [1,77,TEXT_DIM] embedding of the empty prompt.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    unet = UNet2DConditionModel(**CONFIG).to(memory_format=torch.channels_last)
    if out.exists():
        unet.load_state_dict(torch.load(out, weights_only=True))
    close_noise(unet.conv_in)
    optimiser = torch.optim.AdamW(unet.parameters(), lr=1e-3, weight_decay=1e-3, betas=(0.9, 0.98))
    lit, flat = _pairs(bank, rng)
    clock, average = Clock(seconds, 100), None
    while clock.running():
        for group in optimiser.param_groups:
            group["lr"] = clock.rate(1.5e-3)
        index = torch.randint(len(lit), (16,))
        steps = torch.randint(0, 1000, (len(index),))
        state, velocity = noisy(flat[index] * scale, steps)
        with torch.autocast("cpu", torch.bfloat16, enabled=clock.done() < 0.8):
            x = torch.cat([state, lit[index]], 1).to(memory_format=torch.channels_last)
            predicted = unet(x, steps, encoder_hidden_states=text.expand(len(index), -1, -1)).sample
        error = predicted.float() - velocity
        blotches = F.avg_pool2d(error, 4)  # they are more visible than soft edges
        loss = error.square().mean() + 0.5 * blotches.square().mean() + 0.3 * blotches.abs().mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimiser.step()
        close_noise(unet.conv_in)
        average = loss.item() if average is None else 0.98 * average + 0.02 * loss.item()
        if clock.step % 100 == 0:
            log.info("delight: step %d, loss %.4f, %.0f s", clock.step, average, clock.spent())
            torch.save(unet.state_dict(), out)
    torch.save(unet.state_dict(), out)
