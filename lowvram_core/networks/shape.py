"""The shape model: conditioner (DINOv2), diffusion transformer and shape VAE, from one checkpoint folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial, reduce
from operator import getitem
from pathlib import Path
from typing import Any

import torch
import yaml
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
    read_header,
    read_safetensors,
)
from ..files.single_files import upstream_names
from ..host import Component
from . import hy3dgen
from .dinov2 import to_installed_names
from .local_only import check_local

CONFIG = "config.yaml"
WEIGHTS = ("model.fp16.safetensors", "model.safetensors")

_CLASSES: Mapping[str, tuple[str, str]] = {
    "Hunyuan3DDiT": ("models", "Hunyuan3DDiT"),
    "ShapeVAE": ("models", "ShapeVAE"),
    "SingleImageEncoder": ("models", "SingleImageEncoder"),
    "DualImageEncoder": ("models", "DualImageEncoder"),
    "FlowMatchEulerDiscreteScheduler": ("schedulers", "FlowMatchEulerDiscreteScheduler"),
    "ConsistencyFlowMatchEulerDiscreteScheduler": ("schedulers", "ConsistencyFlowMatchEulerDiscreteScheduler"),
    "ImageProcessorV2": ("preprocessors", "ImageProcessorV2"),
    "MVImageProcessorV2": ("preprocessors", "MVImageProcessorV2"),
}
"""The classes that a configuration may name. Others are refused, so that a checkpoint cannot choose code to run."""

_PARTS = {"conditioner": "image encoder (DINOv2)", "model": "shape DiT", "vae": "shape VAE"}

_BLOCKS = {"conditioner": r".*\.layers?\.\d+", "model": r"(?:double|single)_blocks\.\d+", "vae": ""}
"""Patterns of the modules that stream as a whole."""
_BATCHED = {"model": ("img", "txt", "x", "vec")}
"""Arguments of the blocks whose first dimension is the batch."""
_STAYS = {"vae": "geo_decoder"}
"""Modules that stay on the device: the geometry decoder runs once for every few thousand points."""


@dataclass(frozen=True)
class ShapeModel:
    """One shape checkpoint, opened but not loaded."""

    conditioner: Component
    dit: Component
    vae: Component
    make_scheduler: Callable[[], Any]
    """Makes a fresh scheduler for each run, since a scheduler remembers its position."""
    image_processor: Any
    """Turns pictures into the conditioner's input. A multi-view model's takes a dict of named views."""
    multiview: bool
    guidance_embed: bool
    """The guidance is an input of the network, so no second, unconditional pass runs."""
    latent_shape: tuple[int, int]
    """Number of latent tokens, and channels of each."""
    scale_factor: float

    @property
    def order(self) -> tuple[Component, ...]:
        """The components in the order in which a run borrows them."""
        return self.conditioner, self.dit, self.vae


def open_shape(folder: Path, dtype: torch.dtype, *, weights: Path | None = None) -> ShapeModel:
    """Reads a shape checkpoint's configuration and checks its weights' layout; loads nothing.

    Args:
        folder: holds config.yaml and model.fp16.safetensors, as published.
        dtype: the precision to run in.
        weights: another program's file of the same weights, if the folder has none; see files/single_files.py.

    Raises:
        BadCheckpoint: the configuration or the weights are damaged, of another model, or would be fetched from the hub.
    """
    config = _read_yaml(folder / CONFIG)
    weights = weights or _weights(folder)
    header = read_header(weights)
    parts = {part: _component(part, config[part], weights, header, f"{part}.", dtype) for part in _PARTS}
    vae = config["vae"]["params"]
    return ShapeModel(
        conditioner=parts["conditioner"],
        dit=parts["model"],
        vae=parts["vae"],
        make_scheduler=partial(_make, config["scheduler"]),
        image_processor=_make(config["image_processor"]),
        multiview=config["image_processor"]["target"].endswith("MVImageProcessorV2"),
        guidance_embed=bool(config["model"]["params"].get("guidance_embed", False)),
        latent_shape=(int(vae["num_latents"]), int(vae["embed_dim"])),
        scale_factor=float(vae.get("scale_factor", 1.0)),
    )


def with_other_vae(model: ShapeModel, folder: Path, dtype: torch.dtype) -> ShapeModel:
    """The model with a VAE from a folder of its own, such as hunyuan3d-vae-v2-0-turbo; loads nothing.

    Args:
        folder: holds config.yaml and model.fp16.safetensors, as published.

    Raises:
        BadCheckpoint: the files are damaged, or the VAE is for latents of another shape.

    Source: hy3dgen shapegen/pipelines.py, enable_flashvdm, which swaps the VAE and then decodes in another way.
    """
    path = folder / CONFIG
    config = _read_yaml(path, {"vae": ()})
    weights = _weights(folder)
    vae = config["params"]
    shape = (int(vae["num_latents"]), int(vae["embed_dim"]))
    if shape != model.latent_shape:
        raise BadCheckpoint(
            f"shape: the VAE in {folder} decodes latents of shape {shape}, and the model makes {model.latent_shape}; "
            "wanted the VAE of the same model. Use the published folder."
        )
    component = _component("vae", config, weights, read_header(weights), "", dtype)
    return replace(model, vae=component, scale_factor=float(vae.get("scale_factor", 1.0)))


def _weights(folder: Path) -> Path:
    return next((folder / name for name in WEIGHTS if (folder / name).exists()), folder / WEIGHTS[0])


_NODES: Mapping[str, tuple[str, ...]] = {name: (name,) for name in (*_PARTS, "scheduler", "image_processor")}
"""The nodes of a shape model's configuration that name a class, each with the keys that lead to it."""


def _read_yaml(path: Path, nodes: Mapping[str, tuple[str, ...]] = _NODES) -> dict[str, Any]:
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        found = [reduce(getitem, keys, config) for keys in nodes.values()]
        for name, node in zip(nodes, found, strict=True):
            if not isinstance(node["target"], str):
                raise TypeError(f"{name}.target is not a name")
    except (OSError, yaml.YAMLError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise BadCheckpoint(
            f"shape: {path} cannot be used ({error!r}); wanted the published configuration with {', '.join(nodes)}. "
            "Download the folder again."
        ) from error
    for node in found:
        if _class_name(node) not in _CLASSES:
            raise BadCheckpoint(
                f"shape: {path} names {node['target']!r}; wanted one of {', '.join(_CLASSES)}. "
                "This is no Hunyuan3D-2 shape model: use a published folder."
            )
    check_local(config, path)
    return dict(config)


def _class_name(node: Mapping[str, Any]) -> str:
    return str(node["target"]).rsplit(".", 1)[-1]


def _make(node: Mapping[str, Any]) -> Any:
    module, cls = _CLASSES[_class_name(node)]
    params = {key: value for key, value in (node.get("params") or {}).items() if key != "ckpt_path"}
    try:
        return getattr(hy3dgen.shapegen(module), cls)(**params)
    except Exception as error:  # each class has errors of its own for settings that it cannot use
        raise BadCheckpoint(
            f"shape: the settings of {_class_name(node)} in {CONFIG} cannot be used ({type(error).__name__}: {error}); "
            "wanted the published configuration. Download the folder again."
        ) from error


def _component(
    part: str, node: Mapping[str, Any], weights: Path, header: Mapping[str, Shape], prefix: str, dtype: torch.dtype
) -> Component:
    entries = {name.removeprefix(prefix): entry for name, entry in header.items() if name.startswith(prefix)}
    wanted = _layout(yaml.safe_dump(node))
    check_names(wanted, to_installed_names(upstream_names(entries), wanted), weights)
    return Component(
        key=f"{weights}:{part}:{dtype}",
        label=_PARTS[part],
        weight_bytes=bytes_at(entries, dtype),
        load=partial(_load, node, weights, prefix, dtype),
        largest_layer_bytes=largest_layer_bytes(entries, dtype, _BLOCKS[part] or _STAYS.get(part, "")),
        blocks=_BLOCKS[part],
        batched=_BATCHED.get(part, ()),
        stays=_STAYS.get(part, ""),
        files=file_parts(weights, lambda name: name.startswith(prefix)),
    )


@lru_cache(maxsize=16)
def _layout(node: str) -> Mapping[str, Shape]:
    """The names and shapes of the weights of a class that a configuration names. Building all three takes 0.3 s.

    Args:
        node: the configuration's entry, as YAML.
    """
    return layout(build_empty(partial(_make, yaml.safe_load(node))))


def _load(node: Mapping[str, Any], weights: Path, prefix: str, dtype: torch.dtype) -> nn.Module:
    module = build_empty(partial(_make, node))
    state = to_installed_names(upstream_names(read_safetensors(weights, prefix)), module.state_dict())
    return fill(module, state, dtype, weights)


@contextmanager
def shape_field(vae: Any, latents: Tensor, *, keys_once: bool) -> Iterator[Callable[[Tensor], Tensor]]:
    """Decodes latents into a field: a function from [N,3] float32 points to [N] float32 logits.

    Args:
        vae: upstream's ShapeVAE, on the device.
        latents: [1,tokens,channels] on that device, at the precision of the VAE.
        keys_once: the geometry decoder projects the tokens to keys and values once instead of at every call.
    """
    with torch.inference_mode():
        tokens = vae(latents)
    attention = vae.geo_decoder.cross_attn_decoder.attn

    @torch.inference_mode()
    def field(points: Tensor) -> Tensor:
        logits: Tensor = vae.geo_decoder(queries=points[None].to(latents), latents=tokens)[0, :, 0]
        return logits.float()

    attention.kv_cache = keys_once
    try:
        yield field
    finally:
        attention.kv_cache = False
        attention.data = None
