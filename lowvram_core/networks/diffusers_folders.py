"""Opens, checks and loads networks from folders in diffusers' layout; runs no code from them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import BadCheckpoint
from ..files.checkpoints import build_empty, bytes_at, check_pickles_are_safe, largest_layer_bytes, read_shapes
from ..host import Component
from .local_only import check_local

BLOCKS = r".*\.(?:attentions|resnets)\.\d+"
"""Pattern of the modules that stream as a whole in UNets and VAEs, of up to 94 MiB. A UNet's blocks have up to 571."""

_WEIGHTS = (
    "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors",
    "model.safetensors", "model.fp16.safetensors",
    "diffusion_pytorch_model.bin", "diffusion_pytorch_model.fp16.bin", "pytorch_model.bin",
)  # fmt: skip
"""File names of weights, best first. Any of them serves every precision."""


def read_json(path: Path) -> dict[str, Any]:
    """Reads a checkpoint's JSON file.

    Raises:
        BadCheckpoint: it is missing or damaged.
    """
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise BadCheckpoint(
            f"models: {path} cannot be read ({error}); wanted the published file. Download its folder again."
        ) from error


def component(
    folder: Path,
    dtype: torch.dtype,
    label: str,
    load: Callable[[Path, torch.dtype], nn.Module],
    described: str | None = None,
    blocks: str = "",
) -> Component:
    """Describes the network in a diffusers-style folder. Its weights are checked for truncation, but not read.

    Args:
        described: the diffusers class that is built from config.json, to compare the number of weights.
        blocks: pattern of the names of submodules that stream as a whole.

    Raises:
        BadCheckpoint: the weights are missing, truncated or of another size.
    """
    weights = find_weights(folder)
    entries = read_shapes(weights)
    size = bytes_at(entries, dtype)
    if described is not None:
        _check_size(folder, weights, size // dtype.itemsize, described)
    return Component(
        key=f"{weights}:{dtype}",
        label=label,
        weight_bytes=size,
        load=partial(load, folder, dtype),
        largest_layer_bytes=largest_layer_bytes(entries, dtype, blocks),
        blocks=blocks,
    )


def _check_size(folder: Path, weights: Path, count: int, described: str) -> None:
    """Compares the number of weights, not their names: older files use other names, which the library translates."""
    import diffusers

    config = read_json(folder / "config.json")
    try:
        module = build_empty(partial(getattr(diffusers, described).from_config, config))
    except (TypeError, ValueError, AttributeError) as error:
        raise BadCheckpoint(
            f"models: {folder / 'config.json'} cannot be used ({error}); wanted the published {described}. "
            "Download the folder again."
        ) from error
    wanted = sum(tensor.numel() for tensor in module.state_dict().values())
    if count != wanted:
        raise BadCheckpoint(
            f"models: {weights} holds {count:,} numbers; wanted the {wanted:,} that its config.json describes. "
            "The files are of different models: download the folder again."
        )


def find_weights(folder: Path) -> Path:
    """The weights file of a diffusers-style folder.

    Raises:
        BadCheckpoint: there is none, or an index of split weights lies beside it.
    """
    index = next(folder.glob("*.index*.json"), None)
    if index is not None:  # diffusers would load the files that it names, pickles too, instead of the one found here
        raise BadCheckpoint(
            f"models: {index} splits the weights over several files; wanted the published single file. "
            "Delete the index, or download the folder again."
        )
    for name in _WEIGHTS:
        if (folder / name).exists():
            return folder / name
    raise BadCheckpoint(
        f"models: {folder} holds no weights; wanted one of {', '.join(_WEIGHTS[:4])} or a .bin. Download it again."
    )


def load_vae(folder: Path, dtype: torch.dtype) -> nn.Module:
    """Loads an AutoencoderKL."""
    from diffusers import AutoencoderKL

    vae: nn.Module = load_diffusers(AutoencoderKL, folder, dtype)
    return vae


def load_unet(folder: Path, dtype: torch.dtype) -> nn.Module:
    """Loads a UNet2DConditionModel."""
    from diffusers import UNet2DConditionModel

    return load_diffusers(UNet2DConditionModel, folder, dtype)


def load_diffusers(cls: Any, folder: Path, dtype: torch.dtype) -> Any:
    """Loads a diffusers or transformers network from its folder: local files only, and no code of theirs.

    Raises:
        BadCheckpoint: there are no weights, the library could not load them, or something would be fetched from the
            hub.
    """
    weights = find_weights(folder)
    check_local(read_json(folder / "config.json"), folder / "config.json")
    if weights.suffix == ".bin":
        check_pickles_are_safe(weights)
    try:
        with _without_transformers_bars():
            module, info = cls.from_pretrained(
                folder,
                local_files_only=True,
                output_loading_info=True,
                use_safetensors=weights.suffix == ".safetensors",
                variant="fp16" if ".fp16." in weights.name else None,
                **{_dtype_word(cls): dtype},
            )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise BadCheckpoint(
            f"models: {folder} could not be loaded ({error}); wanted the published files. Download the folder again."
        ) from error
    lost = list(info.get("missing_keys", ())) + list(info.get("mismatched_keys", ()))
    if lost:
        raise BadCheckpoint(
            f"models: {folder} lacks {lost[0]} ({len(lost)} in all); wanted the weights that its configuration "
            "describes. Download the folder again."
        )
    return module.requires_grad_(False).eval()


@contextlib.contextmanager
def _without_transformers_bars() -> Iterator[None]:
    """Hides the progress bars of transformers, which would break up the host's own bar."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _dtype_word(cls: Any) -> str:
    """The name of from_pretrained's argument for the precision. transformers renamed it in 4.56."""
    if cls.__module__.startswith("diffusers"):
        return "torch_dtype"
    import transformers

    major, minor = (int(part) for part in transformers.__version__.split(".")[:2])
    return "dtype" if (major, minor) >= (4, 56) else "torch_dtype"
