"""The delight model: an InstructPix2Pix that always runs with the empty prompt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import BadCheckpoint
from ..files.kept import KeptTensor, hash_of_files
from ..host import Component
from .diffusers_folders import BLOCKS, component, find_weights, load_diffusers, load_unet, load_vae
from .schedulers import euler_ancestral


@dataclass(frozen=True)
class DelightModel:
    """The delight checkpoint, opened but not loaded."""

    text_encoder: Component
    """A module that returns the empty prompt's embedding [1,77,C]."""
    kept_prompt: Callable[[torch.device], KeptTensor]
    """The embedding from an earlier run on such a device. The text encoder is then not loaded."""
    unet: Component
    vae: Component
    make_scheduler: Callable[[], Any]

    @property
    def order(self) -> tuple[Component, ...]:
        """The components in the order in which a run borrows them, without the text encoder."""
        return self.vae, self.unet, self.vae


def open_delight(folder: Path, dtype: torch.dtype) -> DelightModel:
    """Reads the delight checkpoint's configuration and checks its weights; loads nothing.

    Args:
        folder: the published diffusers layout.
        dtype: the precision to run in.

    Raises:
        BadCheckpoint: a part is missing, truncated or of another kind.
    """
    return DelightModel(
        text_encoder=component(
            folder / "text_encoder", dtype, "delight text encoder", _load_empty_prompt, blocks=r".*\.layers\.\d+"
        ),
        kept_prompt=partial(_kept_prompt, folder, dtype),
        unet=component(folder / "unet", dtype, "delight UNet", load_unet, "UNet2DConditionModel", BLOCKS),
        vae=component(folder / "vae", dtype, "delight VAE", load_vae, "AutoencoderKL", BLOCKS),
        make_scheduler=euler_ancestral(folder),
    )


def _kept_prompt(folder: Path, dtype: torch.dtype, device: torch.device) -> KeptTensor:
    """The empty prompt's embedding beside the model, with everything that its bits depend on."""
    described = [folder / "text_encoder" / "config.json", *sorted((folder / "tokenizer").glob("*"))]
    return KeptTensor(
        name="empty_prompt",
        weights=find_weights(folder / "text_encoder"),
        folder=folder,
        recipe={
            "precision": str(dtype).removeprefix("torch."),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "configuration": hash_of_files(described),
            "torch": torch.__version__,
            "transformers": version("transformers"),
        },
    )


class EmptyPrompt(nn.Module):
    """The text encoder with the empty prompt's tokens."""

    def __init__(self, encoder: nn.Module, tokens: Tensor) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("tokens", tokens, persistent=False)

    def forward(self) -> Tensor:
        """[1,77,C] embedding that the UNet attends to at every step."""
        embedding: Tensor = self.encoder(self.tokens, attention_mask=None)[0]
        return embedding


def _load_empty_prompt(folder: Path, dtype: torch.dtype) -> nn.Module:
    from transformers import CLIPTextModel, CLIPTokenizer

    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder.parent / "tokenizer", local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        raise BadCheckpoint(
            f"delight: {folder.parent / 'tokenizer'} could not be loaded ({error}); wanted the published files. "
            "Download the folder again."
        ) from error
    tokens = tokenizer(
        "", padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
    ).input_ids
    return EmptyPrompt(load_diffusers(CLIPTextModel, folder, dtype), tokens)
