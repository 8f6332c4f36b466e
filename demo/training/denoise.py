"""What delight and paint share: the noise schedule, the velocity target, batches of flat and lit pictures."""

from __future__ import annotations

import numpy as np
import torch

from . import linear_paths, pictures, render
from .autoencoder import FRONT, to_model
from .bank import Bank

SCHEDULER = {
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000,
    "prediction_type": "v_prediction", "timestep_spacing": "trailing", "steps_offset": 1,
}


def alphas() -> torch.Tensor:
    """[1000] cumulative signal of the schedule that SCHEDULER names."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0).float()


ALPHAS = alphas()


def draw_steps(count: int) -> torch.Tensor:
    """[count] timesteps: half of them where few or many steps really land, half anywhere.

    The noisy end has more than its share: there the colours have to come from the picture.
    """
    anywhere = torch.randint(0, 1000, (count,))
    landing = torch.tensor([999, 999, 899, 799, 799, 599, 399, 199, 199, 33])[torch.randint(0, 10, (count,))]
    return torch.where(torch.rand(count) < 0.5, landing, anywhere)


def noisy(clean: torch.Tensor, steps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Clean latents and timesteps -> noisy latents and the velocity to predict."""
    a = ALPHAS[steps].view(-1, *[1] * (clean.ndim - 1))
    noise = torch.randn_like(clean)
    return a.sqrt() * clean + (1 - a).sqrt() * noise, a.sqrt() * noise - (1 - a).sqrt() * clean


def on_white(rgb: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """[H,W,3] 0..1 -> uint8 on white."""
    return (np.where(mask[..., None], np.clip(rgb, 0, 1), 1.0) * 255 + 0.5).astype(np.uint8)


def lit_and_flat(bank: Bank, solid: int, view: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The same view twice, [H,W,3] uint8 on white: lit, and its colour alone."""
    s = bank.surface(solid, view)
    paint = pictures.albedo(rng, s.point)
    return on_white(render.shade(s, paint, render.Light.draw(rng), FRONT), s.mask), on_white(paint, s.mask)


def encode(pixels: np.ndarray) -> torch.Tensor:
    """[B,H,W,3] uint8 -> [B,4,H/8,W/8] unscaled latents."""
    return linear_paths.code(to_model(pixels))
