"""The turbo paint model: the network of the standard paint model with other weights, run in another way. Experimental.

It takes ten steps of the LCM scheduler, no guidance, and masks in the attention between the views. The hub's folder has
a Python file for the network that is not read here, see docs/turbo_painting.md.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from ..errors import BadCheckpoint
from ..files.checkpoints import read_header
from ..presets import TURBO_PAINT_STEPS
from .diffusers_folders import WEIGHTS, find_weights
from .paint import PaintModel, open_paint
from .schedulers import lcm

MASKED = True
"""Whether the attention between the views is masked, as Hunyuan3D-2's code in git means it. False: plain attention, as
in the standard model."""
LCM_STEPS = {"original_inference_steps": TURBO_PAINT_STEPS}
"""Upstream takes every third step of 30. Ten steps are at 989, 890, 791, 692, 593, 494, 395, 296, 197 and 98."""


def open_turbo_paint(folder: Path, vae_folder: Path, dtype: torch.dtype) -> PaintModel:
    """Reads the turbo paint checkpoint's configuration and checks its weights' layout; loads nothing.

    Args:
        folder: the published layout; the UNet's weights as the published .bin, or converted.
        vae_folder: the standard paint model's folder, whose VAE is the same.

    Raises:
        BadCheckpoint: a part is missing, truncated or of another model.
    """
    return replace(
        open_paint(folder, dtype, weights=find_turbo_weights(folder / "unet"), vae_folder=vae_folder),
        make_scheduler=lcm(folder, timestep_spacing="trailing"),
        timestep_settings=LCM_STEPS, guided=False, masked=MASKED,
    )  # fmt: skip


def find_turbo_weights(folder: Path) -> Path:
    """The weights file of the turbo paint UNet. The older network that was published beside it does not count.

    Raises:
        BadCheckpoint: there is none, or only the older network.
    """
    older = {name for name in WEIGHTS if name.endswith(".safetensors") and _has_ip_adapter(folder / name)}
    names = [name for name in WEIGHTS if name not in older]
    if older and not any((folder / name).is_file() for name in names):
        raise BadCheckpoint(
            f"paint: {folder / sorted(older)[0]} is an older turbo network with an IP adapter, which painting does not "
            "use; wanted diffusion_pytorch_model.bin of the same folder on the hub. Download that file, or move this "
            "one away and allow downloads."
        )
    return find_weights(folder, names)


def _has_ip_adapter(file: Path) -> bool:
    if not file.is_file():
        return False
    return any(name.startswith("image_proj_model.") or "_ip." in name for name in read_header(file))
