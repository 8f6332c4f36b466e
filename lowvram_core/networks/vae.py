"""Stable Diffusion's VAE: slicing, tiling, and decoding latents to pictures."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..presets import Preset

VIEW_PX = 512
"""Edge of the pictures that the delight and paint models work on."""

DECODE_MIB = 486.0
"""Activations of the VAE in float16 for each picture that it decodes at once. Encoding takes less."""


def vae_scale(vae: nn.Module) -> int:
    """Pixels of a picture along the edge of one latent pixel."""
    config: Any = vae.config
    return int(2 ** (len(config.block_out_channels) - 1))


def set_slicing(vae: Any, preset: Preset) -> None:
    """Sets whether the VAE works picture by picture, and in tiles where a picture is larger than a tile."""
    vae.use_slicing = preset.vae_slicing
    vae.use_tiling = preset.vae_tiling
    vae.tile_sample_min_size = preset.vae_tile_px
    vae.tile_latent_min_size = preset.vae_tile_px // vae_scale(vae)


def decode_pictures(vae: Any, latents: Tensor) -> Tensor:
    """[N,3,H,W] float32 0..1 from scaled latents [N,4,h,w]."""
    pictures = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]
    return (pictures * 0.5 + 0.5).clamp(0, 1).float()
