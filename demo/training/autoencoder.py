"""The picture autoencoder (AutoencoderKL, 8x smaller, 4 channels) that delight and paint share."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from . import linear_paths, pictures, render, upstream  # noqa: F401 (upstream first: diffusers needs its shim)
from .bank import REFERENCE, SIZE_PX, Bank
from .clock import Clock

from diffusers import AutoencoderKL  # isort: skip

log = logging.getLogger(__name__)
CONFIG = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [16, 32, 64, 64],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "mid_block_add_attention": False,
    "sample_size": 512,
}
FRONT = np.array([0.0, 0.0, 1.0])


def picture(bank: Bank, rng: np.random.Generator) -> np.ndarray:
    """[H,W,3] uint8: a lit picture, flat colours, a normal map or a position map of a random view."""
    solid, view = int(rng.integers(len(bank))), int(rng.integers(REFERENCE + 1))
    s = bank.surface(solid, view)
    what = rng.random()
    if what < 0.17:
        rgb = pictures.normal_map(s)
    elif what < 0.34:
        rgb = pictures.position_map(s)
    else:
        paint = pictures.albedo(rng, s.point)
        lit = what < 0.67
        rgb = render.shade(s, paint, render.Light.draw(rng), FRONT) if lit else paint
        rgb = np.where(s.mask[..., None], rgb, 1.0)
    return (rgb * 255 + 0.5).astype(np.uint8)


def to_model(pixels: np.ndarray) -> torch.Tensor:
    """[B,H,W,3] uint8 -> [B,3,H,W] float32 in -1..1."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def _batch(pool: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
    """Returns whole pictures in 30 % of the batches, for the group norms; otherwise crops, some of them enlarged."""
    if rng.random() < 0.3:
        return to_model(pool[rng.integers(len(pool), size=2)])
    x = to_model(pool[rng.integers(len(pool), size=4)])
    if rng.random() < 0.35:  # The scale of a 512 px picture: flatter gradients, equally sharp edges.
        x = F.interpolate(x, scale_factor=2, mode="bicubic").clamp(-1, 1)
    top, left = (int(v) for v in rng.integers(0, (x.shape[-1] - 128) // 8 + 1, 2) * 8)
    return x[..., top : top + 128, left : left + 128]


def _loss(vae: AutoencoderKL, x: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
    # Noise on the code, so that the decoder hides the noise that a small denoiser leaves.
    noise = torch.randn_like(code) * torch.rand(len(x), 1, 1, 1) * 0.12
    error = vae.decode(code + noise).sample - x
    weight = 1 + 2 * (x.amin(1, keepdim=True) < 0.99)
    return (weight * (error.abs() + 2 * error.square())).mean()


def train(bank: Bank, seconds: float, seed: int, out: Path) -> AutoencoderKL:
    """Trains the decoder for about `seconds`. The encoder is built by hand. Saves to `out` every 100 batches."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    vae = linear_paths.build(AutoencoderKL(**CONFIG)).to(memory_format=torch.channels_last)
    if out.exists():
        vae.load_state_dict(torch.load(out, weights_only=True)["state"])
    weights = [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()]
    optimiser = torch.optim.AdamW(weights, lr=1e-3, weight_decay=1e-4, betas=(0.9, 0.97))
    pool = np.stack([picture(bank, rng) for _ in range(700)])
    save(vae, pool, out)
    clock, average = Clock(seconds, 50), None
    while clock.running():
        for group in optimiser.param_groups:
            group["lr"] = clock.rate(1e-3)
        x = _batch(pool, rng).to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=clock.done() < 0.75):
            loss = _loss(vae, x, linear_paths.code(x))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        average = loss.item() if average is None else 0.97 * average + 0.03 * loss.item()
        if clock.step % 100 == 0:
            log.info("autoencoder: step %d, loss %.4f, %.0f s", clock.step, average, clock.spent())
            save(vae, pool, out)
    save(vae, pool, out)
    return vae


@torch.no_grad()
def save(vae: AutoencoderKL, pool: np.ndarray, out: Path) -> None:
    """Writes the weights, and the factor that scales the latents to a standard deviation of 1."""
    std = torch.cat([vae.encode(to_model(pool[i : i + 4])).latent_dist.mean for i in range(0, 32, 4)]).std()
    torch.save({"state": vae.state_dict(), "scaling_factor": float(1 / std), "size": SIZE_PX}, out)


def load(path: Path) -> AutoencoderKL:
    """Returns the trained autoencoder in float32, with its scaling factor in the config."""
    saved = torch.load(path, weights_only=True)
    vae = AutoencoderKL(**CONFIG, scaling_factor=round(saved["scaling_factor"], 5))
    vae.load_state_dict(saved["state"])
    return vae.eval().requires_grad_(False).to(memory_format=torch.channels_last)
