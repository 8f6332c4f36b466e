"""Turbo painting as Hunyuan3D-2's code in git means it, on the CPU in float32.

That code cannot run. So this is a second implementation of what it describes, independent of lowvram_core: hy3dgen's
own UNet and diffusers' own processor, one mask for each head, all differences of the masks at once, and the ten
timesteps as a list.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, LCMScheduler
from diffusers.image_processor import VaeImageProcessor
from diffusers.models.attention_processor import AttnProcessor2_0
from einops import rearrange
from PIL import Image
from torch import Tensor

from lowvram_core.networks import hy3dgen

TIMESTEPS = [989, 890, 791, 692, 593, 494, 395, 296, 197, 98]


def position_mask(position: Tensor, grid: int) -> Tensor:
    """[1,L,L] bool of maps [1,N,3,S,S]. A float16 tensor is overwritten, because `half` does not copy it."""
    position = position.half()
    known = (position != 1).all(dim=2, keepdim=True).expand_as(position)
    position[~known] = 0
    windows = "b n c (h p) (w q) -> b n h w c p q"
    total = rearrange(position, windows, h=grid, w=grid).sum(dim=(-2, -1))
    count = rearrange(known, windows, h=grid, w=grid).sum(dim=(-2, -1))
    mean = total / count.clamp(min=1)
    mean[count < 5] = 0
    mean = rearrange(mean, "b n h w c -> b (n h w) c")
    apart = torch.norm(mean[:, :, None] - mean[:, None, :], p=2, dim=-1)
    return apart < 1.73 / grid


def masks_of(positions: Tensor, *, in_place: bool) -> dict[int, Tensor]:
    """The masks of all grids by number of tokens.

    Args:
        positions: [N,3,S,S] float32.
        in_place: give the maps in float16, so that each grid overwrites those of the next one.
    """
    maps = positions[None].half() if in_place else positions[None].clone()
    masks = [position_mask(maps, grid) for grid in (32, 16, 8)]
    return {mask.shape[-1]: mask for mask in masks}


class Stock:
    """diffusers' processor with a mask by the number of tokens."""

    def __init__(self, masks: dict[int, Tensor]) -> None:
        self.masks = masks

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, attention_mask: Any = None
    ) -> Tensor:
        """diffusers repeats the mask for each head."""
        assert attention_mask is None
        mask = self.masks.get(hidden_states.shape[1])
        result: Tensor = AttnProcessor2_0()(attn, hidden_states, encoder_hidden_states, mask)
        return result


def masked_unet(folder: Path, masks: dict[int, Tensor]) -> Any:
    """hy3dgen's own UNet with its own loader; attention between views is masked."""
    unet = hy3dgen.paint_unet().from_pretrained(str(folder / "unet")).eval()
    for name, part in unet.named_modules():
        if name.endswith("attn_multiview"):
            part.set_processor(Stock(masks))
    return unet


@torch.no_grad()
def paint_views(
    folder: Path, vae_folder: Path, picture: Image.Image, normals: Tensor, positions: Tensor, classes: list[int]
) -> list[Image.Image]:
    """Ten steps, one half, no guidance."""
    vae = AutoencoderKL.from_pretrained(vae_folder / "vae", torch_dtype=torch.float32)
    unet = masked_unet(folder, masks_of(positions, in_place=True))
    scheduler = LCMScheduler.from_config(LCMScheduler.load_config(folder / "scheduler"), timestep_spacing="trailing")
    scheduler.set_timesteps(timesteps=TIMESTEPS, original_inference_steps=30)
    assert scheduler.timesteps.tolist() == TIMESTEPS
    square = torch.from_numpy(np.array(picture.resize((512, 512))) / 255.0).float().permute(2, 0, 1)[None]

    def encoded(images: Tensor) -> Tensor:
        return vae.encode((images - 0.5) * 2.0).latent_dist.sample() * vae.config.scaling_factor

    with torch.random.fork_rng():
        torch.manual_seed(0)
        cached = {
            "ref_latents": encoded(square)[None], "normal_imgs": encoded(normals)[None],
            "position_imgs": encoded(positions)[None], "camera_info_gen": torch.tensor([classes]),
            "camera_info_ref": torch.tensor([[0]]),
        }  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(len(normals), 4, 64, 64, generator=generator)
    for timestep in scheduler.timesteps:
        noise = unet(latents[None], timestep, encoder_hidden_states=unet.unet.learned_text_clip_gen, **cached)[0]
        latents = scheduler.step(noise, timestep, latents, generator=generator).prev_sample
    images = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]
    pictures: list[Image.Image] = VaeImageProcessor().postprocess(images, output_type="pil")
    return pictures
