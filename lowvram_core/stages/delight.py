"""delight: removes light and shadow from cutouts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor

from ..checks.finite import check_finite
from ..checks.pictures import check_cutout, named
from ..errors import BadInput
from ..files.store import ModelStore
from ..fitting.budget import Need, need, tiled_mib
from ..fitting.ladder import fitted
from ..host import Host
from ..networks.attention import choose_attention, set_attention, sliced_mib
from ..networks.delight import DelightModel, open_delight
from ..networks.previews import preview, silhouettes
from ..networks.schedulers import next_latents
from ..networks.vae import DECODE_MIB, VIEW_PX, decode_pictures, set_slicing
from ..pictures.convert import rgba_from_cutout
from ..pictures.recentre import recentre
from ..presets import Preset
from ..types import Cutout

SEED = 42
"""Upstream's."""
ERODE_PX = 3
COLOUR_KEPT = 0.95
"""The colour correction scales the mean colour by this; upstream's value."""

TEXT_MIB = 2.0
UNET_MIB = 65.0
"""Activations in float16."""

log = logging.getLogger(__name__)


def delight(cutout: Cutout, preset: Preset, host: Host, store: ModelStore, *, seed: int = SEED) -> Tensor:
    """[512,512,3] float32 sRGB: the object recentred on white, evenly lit, with its own colours. See `delight_all`."""
    return delight_all([cutout], preset, host, store, seed=seed)[0]


def delight_all(
    cutouts: Sequence[Cutout], preset: Preset, host: Host, store: ModelStore, *, seed: int = SEED
) -> Tensor:
    """[R,512,512,3] float32 sRGB: each object recentred on white, evenly lit, with its own colours.

    Each picture gets the noise of a run by itself, so it is the same in every bit. Each network is borrowed once for
    all pictures.

    Args:
        cutouts: R >= 1 pictures of any size.
        preset: reads delight_steps, vae_slicing, vae_tiling, vae_tile_px, attention.
        seed: for all noise, which is drawn on the CPU.

    Raises:
        BadInput: a cutout is empty or too thin, or the checkpoint cannot be used.
        NumericalFailure: a network gave NaN.

    Memory:
        One component at a time: text encoder, VAE, UNet, VAE. The text encoder is loaded only in the first run; its
        output is kept beside the model.

    Source:
        hy3dgen.texgen.utils.dehighlight_utils.Light_Shadow_Remover and diffusers' InstructPix2Pix pipeline, which
        runs without guidance at text guidance 1.0. Bit-identical on the CPU in float32.
    """
    names = [named("delight", index, len(cutouts)) for index in range(len(cutouts))]
    for cutout, name in zip(cutouts, names, strict=True):
        check_cutout(cutout, name)
    choose_attention(preset.attention, host.device, host.dtype)
    model = open_delight(store.folder("delight"), host.dtype)
    with host.phase("recentre"):
        targets = [frame(cutout, name) for cutout, name in zip(cutouts, names, strict=True)]

    kept = model.kept_prompt(host.device).read()

    def run(fitting: Preset) -> np.ndarray:
        with host.phase("delight"):
            relit = _relight(targets, model, kept, fitting, host, seed)
            matched = [_match_colours(one, np.asarray(target)) for one, target in zip(relit, targets, strict=True)]
            return np.stack(matched)

    with host.reading_ahead(model.order):
        images = fitted("delight", preset, host, partial(_needs, model, host, reads_text=kept is None), run)
    log.info("delight: %d steps, %d px, %d pictures", preset.delight_steps, VIEW_PX, len(cutouts))
    return torch.from_numpy(images.astype(np.float32) / 255.0)


def _needs(model: DelightModel, host: Host, preset: Preset, *, reads_text: bool = True) -> list[Need]:
    return [
        *([need(model.text_encoder, host, TEXT_MIB)] if reads_text else []),
        need(model.vae, host, tiled_mib(DECODE_MIB, preset), {"vae_tile_px"}),
        need(model.unet, host, UNET_MIB + sliced_mib(preset.attention, host.device, host.dtype)),
    ]


def frame(cutout: Cutout, name: str = "delight") -> Image.Image:
    """[512,512] RGBA: the object recentred on white, its edge eroded. This is the networks' input.

    Args:
        name: begins the message of an error.

    Raises:
        BadInput: the object is so thin that nothing of it remains.
    """
    picture = _erode_alpha(recentre(rgba_from_cutout(cutout)).resize((VIEW_PX, VIEW_PX)))
    if picture.getchannel("A").getextrema() == (0, 0):
        solid = cutout.mask >= 0.5
        raise BadInput(
            f"{name}: the object is {int(solid.any(dim=0).sum())}x{int(solid.any(dim=1).sum())} px, and nothing of it "
            f"is left at {VIEW_PX} px with {ERODE_PX} px of edge taken off; wanted a thicker one. Use another picture."
        )
    return picture


def _erode_alpha(picture: Image.Image) -> Image.Image:
    import cv2

    pixels = np.array(picture)
    alpha = cv2.erode(pixels[..., 3], np.ones((ERODE_PX, ERODE_PX), np.uint8), iterations=1)
    pixels[alpha == 0, :3] = 255
    pixels[..., 3] = alpha
    return Image.fromarray(pixels)


@torch.inference_mode()
def _relight(
    targets: Sequence[Image.Image], model: DelightModel, kept: Tensor | None, preset: Preset, host: Host, seed: int
) -> list[np.ndarray]:
    """[512,512,3] uint8 each: the pictures from the diffusion model, one after the other in each network.

    Args:
        targets: RGBA; the networks do not see the alpha channel.
        kept: the empty prompt's embedding from an earlier run, or None.
    """
    prompt = _empty_prompt(model, host) if kept is None else kept.to(host.device)
    with host.borrow(model.vae) as vae:
        set_slicing(vae, preset)
        encoded = [_encode(vae, target.convert("RGB"), host) for target in targets]
    check_finite("delight", "encode", host.dtype, *encoded)
    masks = torch.from_numpy(np.stack([np.asarray(target.getchannel("A")) for target in targets]) / np.float32(255))
    latents = _denoise(model, prompt, encoded, masks, preset, host, seed)
    check_finite("delight", "denoise", host.dtype, *latents)
    with host.borrow(model.vae) as vae:
        set_slicing(vae, preset)
        relit = [decode_pictures(vae, one)[0].permute(1, 2, 0).cpu() for one in latents]
    check_finite("delight", "decode", host.dtype, *relit)
    return [(one.numpy() * 255).round().astype(np.uint8) for one in relit]


def _encode(vae: Any, picture: Image.Image, host: Host) -> Tensor:
    """Latents [1,4,64,64] of a picture, not scaled."""
    # the batch dimension before the permutation: the strides choose the kernel of the convolution and so the last bits
    pixels = torch.from_numpy(np.asarray(picture, np.float32)[None] / 255.0).permute(0, 3, 1, 2)
    latents: Tensor = vae.encode((pixels * 2.0 - 1.0).to(host.device, host.dtype)).latent_dist.mode()
    return latents


def _empty_prompt(model: DelightModel, host: Host) -> Tensor:
    """[1,77,C] on the device: the empty prompt's embedding from the text encoder. It is kept for later runs."""
    with host.borrow(model.text_encoder) as text_encoder:
        prompt: Tensor = text_encoder()
    check_finite("delight", "prompt", host.dtype, prompt)
    if not prompt.is_meta:
        model.kept_prompt(host.device).write(prompt)
    return prompt


def _denoise(
    model: DelightModel, prompt: Tensor, encoded: Sequence[Tensor], masks: Tensor, preset: Preset, host: Host, seed: int
) -> list[Tensor]:
    """Scaled latents [1,4,64,64] of each picture.

    Args:
        masks: [R,512,512] 0..1, the objects, for the previews.
    """
    objects = silhouettes(masks, (encoded[0].shape[2], encoded[0].shape[3])).split(1)
    done, total = 0, len(encoded) * preset.delight_steps
    with host.borrow(model.unet) as unet:
        set_attention(unet, choose_attention(preset.attention, host.device, host.dtype))
        results: list[Tensor] = []
        for image_latents, alone in zip(encoded, objects, strict=True):
            scheduler, generator = model.make_scheduler(), torch.Generator().manual_seed(seed)
            scheduler.set_timesteps(preset.delight_steps, device=host.device)
            latents = randn_tensor(image_latents.shape, generator=generator, device=host.device, dtype=prompt.dtype)
            latents = latents * scheduler.init_noise_sigma
            for timestep in scheduler.timesteps:
                scaled = torch.cat([scheduler.scale_model_input(latents, timestep), image_latents], dim=1)
                noise = unet(scaled, timestep, encoder_hidden_states=prompt, return_dict=False)[0]
                latents, guess = next_latents(scheduler, noise, timestep, latents, generator)
                done += 1
                host.progress(done, total, preview=preview(guess, alone))
            results.append(latents)
    return results


def _match_colours(relit: np.ndarray, target: np.ndarray) -> np.ndarray:
    """[H,W,3] uint8: the relit picture on white, with the target's mean and standard deviation in each channel.

    The colours are not corrected if that would increase the distance to the target. They are not corrected either if
    fewer than two pixels are inside the object, or if a channel is constant. There upstream's picture gets black or
    white. Computed in float64, as upstream does.

    Args:
        relit: [H,W,3] uint8.
        target: [H,W,4] uint8, the picture before, with its alpha.
    """
    source = torch.tensor(relit / 255.0)
    wanted = torch.tensor(target / 255.0)
    alpha, wanted = wanted[..., 3:], wanted[..., :3]
    inside = (alpha > 0.5).reshape(-1)
    # masked as rows of three, as upstream does: another memory order gives another sum, and other truncated values
    mine_inside, wanted_inside = source.reshape(-1, 3)[inside], wanted.reshape(-1, 3)[inside]
    matched, measured = torch.zeros_like(source), len(mine_inside) >= 2
    for channel in range(3 if measured else 0):
        mine, theirs = mine_inside[:, channel], wanted_inside[:, channel]
        spread = torch.std(theirs) / torch.std(mine)
        measured &= bool(torch.isfinite(spread))
        moved = (source[..., channel] - COLOUR_KEPT * torch.mean(mine)) * spread + COLOUR_KEPT * torch.mean(theirs)
        matched[..., channel] = torch.clamp(moved, 0, 1)
    if not measured or torch.mean((source - wanted) ** 2) < torch.mean((matched - wanted) ** 2):
        matched = source
    flat = matched * alpha + torch.ones_like(matched) * (1.0 - alpha)
    return (flat.numpy() * 255).astype(np.uint8)
