"""Shared by delight and paint: the noise schedule, the velocity target, flat and lit pictures."""

from __future__ import annotations

import numpy as np
import torch

from . import linear_paths, pictures, render
from .autoencoder import FRONT, to_model
from .bank import Bank

SIGNAL = 1e-4
"""Fraction of the signal left at every timestep. It is so small that a network can ignore the noisy picture."""
SCHEDULER = {
    "trained_betas": [1 - SIGNAL] + [1e-6] * 999,
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
    "steps_offset": 1,
}
ALPHAS = torch.cumprod(1 - torch.tensor(SCHEDULER["trained_betas"], dtype=torch.float64), 0).float()


def close_noise(conv_in: torch.nn.Conv2d) -> None:
    """Sets the weights of the first four channels, which hold the noisy latents, to zero."""
    with torch.no_grad():
        conv_in.weight[:, :4] = 0


def noisy(clean: torch.Tensor, steps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Clean latents and timesteps -> noisy latents and the velocity to predict."""
    a = ALPHAS[steps].view(-1, *[1] * (clean.ndim - 1))
    noise = torch.randn_like(clean)
    return a.sqrt() * clean + (1 - a).sqrt() * noise, a.sqrt() * noise - (1 - a).sqrt() * clean


def on_white(rgb: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """[H,W,3] 0..1 -> uint8 on white."""
    return (np.where(mask[..., None], np.clip(rgb, 0, 1), 1.0) * 255 + 0.5).astype(np.uint8)


def lit_and_flat(bank: Bank, solid: int, view: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """[H,W,3] uint8 on white, the same view twice: lit, and in flat colours."""
    s = bank.surface(solid, view)
    paint = pictures.albedo(rng, s.point)
    return on_white(render.shade(s, paint, render.Light.draw(rng), FRONT), s.mask), on_white(paint, s.mask)


def encode(pixels: np.ndarray) -> torch.Tensor:
    """[B,H,W,3] uint8 -> [B,4,H/8,W/8] unscaled latents."""
    return linear_paths.code(to_model(pixels))
