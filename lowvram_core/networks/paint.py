"""The paint model: the main UNet paints all views, the dual UNet reads the reference pictures for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

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
from . import hy3dgen
from .diffusers_folders import BLOCKS, component, find_weights, load_vae, read_json
from .schedulers import euler_ancestral

_DUAL = "unet_dual."
_REFERENCE_TEXT = "unet.learned_text_clip_ref"
_BATCHED = (
    "input_tensor", "temb", "hidden_states", "encoder_hidden_states", "cross_attention_kwargs.condition_embed_dict",
    "cross_attention_kwargs.ref_scale",
)  # fmt: skip
"""Arguments of ResnetBlock2D and Transformer2DModel whose first dimension is the batch."""

References = dict[str, Tensor]
"""What the dual UNet read from R reference pictures, by attention layer: [halves,R*tokens,channels]."""


@dataclass(frozen=True)
class PaintModel:
    """The paint checkpoint, opened but not loaded. Painting never runs its text encoder, so there is none."""

    vae: Component
    dual: Component
    """A DualStream."""
    main: Component
    """Upstream's UNet2p5DConditionModel without its dual UNet; it takes `condition_embed_dict` instead."""
    make_scheduler: Callable[[], Any]
    timestep_settings: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of the scheduler's `set_timesteps`."""
    guided: bool = True
    """Whether it takes classifier-free guidance: two halves, without and with the reference picture."""
    masked: bool = False
    """Whether the attention between the views is masked, see position_masks.py."""

    @property
    def order(self) -> tuple[Component, ...]:
        """The components in the order in which a run borrows them."""
        return self.vae, self.dual, self.main, self.vae


def open_paint(
    folder: Path, dtype: torch.dtype, *, weights: Path | None = None, vae_folder: Path | None = None
) -> PaintModel:
    """Reads the paint checkpoint's configuration and checks its weights' layout; loads nothing.

    Args:
        folder: the published diffusers layout; the UNet's weights as .safetensors or as a .bin of tensors.
        dtype: the precision to run in.
        weights: the UNet's weights, if not the first file that is found.
        vae_folder: the folder with the subfolder `vae`, if not the same.

    Raises:
        BadCheckpoint: a part is missing, truncated or of another model.
    """
    weights = weights or find_weights(folder / "unet")
    config = read_json(folder / "unet" / "config.json")
    entries = read_shapes(weights)
    check_names(_layout(json.dumps(config)), entries, weights)
    dual = {name: entry for name, entry in entries.items() if name.startswith(_DUAL) or name == _REFERENCE_TEXT}
    main = {name: entry for name, entry in entries.items() if not name.startswith(_DUAL)}
    return PaintModel(
        vae=component((vae_folder or folder) / "vae", dtype, "paint VAE", load_vae, "AutoencoderKL", BLOCKS),
        dual=_component(f"{weights}:dual:{dtype}", "paint dual UNet", dual, dtype,
                        partial(_load_dual, weights, config, dtype), weights),
        main=_component(f"{weights}:main:{dtype}", "paint UNet", main, dtype,
                        partial(_load_main, weights, config, dtype), weights),
        make_scheduler=euler_ancestral(folder, timestep_spacing="trailing"),
    )  # fmt: skip


def _component(
    key: str, label: str, entries: Mapping[str, Shape], dtype: torch.dtype, load: Callable[[], nn.Module], weights: Path
) -> Component:
    return Component(
        key, label, bytes_at(entries, dtype), load, largest_layer_bytes(entries, dtype, BLOCKS), BLOCKS,
        _BATCHED, files=file_parts(weights, entries.__contains__),
    )  # fmt: skip


class DualStream(nn.Module):
    """The UNet that reads the reference pictures, and the learned text embedding that it takes.

    Upstream runs it at every step, although its input never changes. Here it runs once for each picture.
    """

    def __init__(self, unet: nn.Module, learned_text_clip_ref: nn.Parameter) -> None:
        super().__init__()
        self.unet = unet
        self.learned_text_clip_ref = learned_text_clip_ref

    def forward(self, reference_latents: Tensor) -> References:
        """Returns what each attention layer of the main UNet will attend to in one picture.

        Args:
            reference_latents: [halves,4,h,w], of the picture for one half of guidance or for both.
        """
        references: References = {}
        self.unet(
            reference_latents,
            0,
            encoder_hidden_states=self.learned_text_clip_ref.repeat(len(reference_latents), 1, 1),
            return_dict=False,
            cross_attention_kwargs={"mode": "w", "num_in_batch": 1, "condition_embed_dict": references},
        )
        return references


def read_references(dual: Callable[[Tensor], References], pictures: Sequence[Tensor]) -> References:
    """What the dual UNet reads from all pictures: the tokens of the first one, then those of the second one, ...

    Upstream's UNet takes all pictures in one batch, with `num_in_batch` as their number. They do not attend to each
    other. So each has a pass of its own here, which takes the memory of one picture and differs by rounding.

    Args:
        dual: the DualStream.
        pictures: for each picture [halves,4,h,w].
    """
    read = [dual(latents) for latents in pictures]
    if len(read) == 1:
        return read[0]
    return {layer: torch.cat([one.pop(layer) for one in read], dim=1) for layer in list(read[0])}


@contextmanager
def without_reference(main: nn.Module) -> Iterator[None]:
    """Skips the main UNet's attention to the reference pictures, for the run of guidance that ignores them.

    Source: hy3dgen texgen/hunyuanpaint/unet/modules.py, which computes it and multiplies it by `ref_scale` 0.
    """
    blocks: list[Any] = [part for part in main.modules() if getattr(part, "use_ra", False)]
    for block in blocks:
        block.use_ra = False
    try:
        yield
    finally:
        for block in blocks:
            block.use_ra = True


def _build(config: dict[str, Any]) -> Any:
    from diffusers import UNet2DConditionModel

    settings = {key: value for key, value in config.items() if not key.startswith("_")}
    two_and_a_half_d = hy3dgen.paint_unet()
    try:
        return build_empty(lambda: two_and_a_half_d(UNet2DConditionModel(**settings)))
    except Exception as error:  # diffusers and torch have errors of their own for settings that they cannot use
        raise BadCheckpoint(
            f"paint: the UNet's config.json cannot be used ({error}); wanted the published one. "
            "Download the folder again."
        ) from error


@lru_cache(maxsize=4)
def _layout(config: str) -> Mapping[str, Shape]:
    """The names and shapes of the weights of the UNet with this configuration, as JSON. Building it takes 0.2 s."""
    return layout(_build(json.loads(config)))


def _load_dual(weights: Path, config: dict[str, Any], dtype: torch.dtype) -> nn.Module:
    whole = _build(config)
    stream = DualStream(whole.unet_dual, whole.unet.learned_text_clip_ref)
    state = read_weights(weights)
    kept = {"unet." + name.removeprefix(_DUAL): value for name, value in state.items() if name.startswith(_DUAL)}
    kept["learned_text_clip_ref"] = state[_REFERENCE_TEXT]
    return fill(stream, kept, dtype, weights)


def _load_main(weights: Path, config: dict[str, Any], dtype: torch.dtype) -> nn.Module:
    whole = _build(config)
    del whole.unet_dual
    state = {name: value for name, value in read_weights(weights).items() if not name.startswith(_DUAL)}
    return fill(whole, state, dtype, weights)
