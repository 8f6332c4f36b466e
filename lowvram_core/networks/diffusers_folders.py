"""Opens, checks and loads networks from folders in diffusers' layout; runs no code from them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..errors import BadCheckpoint
from ..files.checkpoints import (
    Shape,
    build_empty,
    bytes_at,
    check_names,
    file_parts,
    fill,
    largest_layer_bytes,
    layout,
    read_shapes,
    read_weights,
)
from ..host import Component
from .local_only import check_local

Item = TypeVar("Item", Tensor, Shape)

BLOCKS = r".*\.(?:attentions|resnets)\.\d+"
"""Pattern of the modules that stream as a whole in UNets and VAEs, of up to 94 MiB. A UNet's blocks have up to 571."""

WEIGHTS = (
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
        described: the diffusers class that is built from config.json, to compare the layout of the weights.
        blocks: pattern of the names of submodules that stream as a whole.

    Raises:
        BadCheckpoint: the weights are missing, truncated or of another layout.
    """
    weights = find_weights(folder)
    entries = read_shapes(weights)
    if described is not None:
        check_names(_layout(described, json.dumps(read_json(folder / "config.json")), folder),
                    _today(entries), weights)  # fmt: skip
    return Component(
        key=f"{weights}:{dtype}",
        label=label,
        weight_bytes=bytes_at(entries, dtype),
        load=partial(load, folder, dtype),
        largest_layer_bytes=largest_layer_bytes(entries, dtype, blocks),
        blocks=blocks,
        files=file_parts(weights),
    )


@lru_cache(maxsize=8)
def _layout(described: str, config: str, folder: Path) -> Mapping[str, Shape]:
    """The names and shapes of the weights of a diffusers class. Building the class takes 0.1 s for a UNet.

    Raises:
        BadCheckpoint: the class cannot be built.
    """
    import diffusers

    return layout(_built(getattr(diffusers, described), json.loads(config), folder))


def _built(cls: Any, config: dict[str, Any], folder: Path) -> nn.Module:
    """A network of a diffusers or transformers class without weights. Nothing is drawn at random.

    Raises:
        BadCheckpoint: the configuration is not one of the class, or something would be fetched from the hub.
    """
    check_local(config, folder / "config.json")
    settings = {key: value for key, value in config.items() if not key.startswith("_")}
    try:
        if hasattr(cls, "config_class"):  # a class of transformers
            return build_empty(lambda: cls(cls.config_class(**settings)))
        return build_empty(partial(cls.from_config, config))
    except Exception as error:  # the libraries have errors of their own for settings that they cannot use
        raise BadCheckpoint(
            f"models: {folder / 'config.json'} cannot be used ({error}); wanted the published {cls.__name__}. "
            "Download the folder again."
        ) from error


_RENAMED = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""The attention of a VAE in files of older versions of diffusers, and its names today."""


def _today(state: Mapping[str, Item]) -> dict[str, Item]:
    """Tensors of a diffusers network, or their shapes, under today's names."""
    return {
        re.sub(r"(\.attentions\.\d+\.)(query|key|value|proj_attn)(?=\.(?:weight|bias)$)",
               lambda found: found[1] + _RENAMED[found[2]], name): item
        for name, item in state.items()
    }  # fmt: skip


_TEXT = "text_model."


def _as_installed(state: Mapping[str, Item], wanted: Collection[str]) -> dict[str, Item]:
    """Tensors of a text encoder under the names of the installed transformers.

    Files of older versions also hold the positions, which are no weights. Newer versions leave out the prefix.
    """
    weights = {name: item for name, item in state.items() if name in wanted or not name.endswith(".position_ids")}
    plain = {name.removeprefix(_TEXT): item for name, item in weights.items()}
    prefixed = any(name.startswith(_TEXT) for name in wanted)
    return {_TEXT + name: item for name, item in plain.items()} if prefixed else plain


def find_weights(folder: Path, names: Sequence[str] = WEIGHTS) -> Path:
    """The weights file of a diffusers-style folder.

    Args:
        names: of the files that count, best first.

    Raises:
        BadCheckpoint: there is none, or an index of split weights lies beside it.
    """
    index = next(folder.glob("*.index*.json"), None)
    if index is not None:  # diffusers would load the files that it names, pickles too, instead of the one found here
        raise BadCheckpoint(
            f"models: {index} splits the weights over several files; wanted the published single file. "
            "Delete the index, or download the folder again."
        )
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise BadCheckpoint(
        f"models: {folder} holds no weights; wanted one of {', '.join(WEIGHTS[:4])} or a .bin. Download it again."
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
    """Loads a network of a class of diffusers, or a text encoder of transformers, from its folder.

    The network is built without weights, and gets those of the file. `from_pretrained` is not called: in some versions
    it draws random weights first, and for a text encoder it takes 0.4 s more.

    Raises:
        BadCheckpoint: the weights are missing or of another layout, or something would be fetched from the hub.
    """
    weights = find_weights(folder)
    module = _built(cls, read_json(folder / "config.json"), folder)
    state = read_weights(weights)
    state = _as_installed(state, module.state_dict()) if hasattr(cls, "config_class") else _today(state)
    return fill(module, state, dtype, weights)
