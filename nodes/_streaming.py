"""Streaming under ComfyUI: its own layers copy their weights to the device, and its own loader counts the memory.

A part of _host.py. `adopt` changes a module for good. That does no harm, since the module is loaded for one borrow and
dropped after it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import comfy.model_management as mm
import torch
from comfy.ops import manual_cast
from torch import Tensor, nn

from ..lowvram_core.lending.prefetch import fetcher
from ..lowvram_core.lending.streaming import visiting

NO_WEIGHTS = 0.1
"""Bytes of weights that ComfyUI's loader may put on the device. 0 would mean all of them."""

_READ_FROM_OUTSIDE = (nn.MultiheadAttention, nn.TransformerEncoderLayer)
"""These layers read the weights of their children without calling them."""


@contextmanager
def streamed(
    patcher: Any, module: nn.Module, device: torch.device, *, blocks: str = "", stays: str = "", ahead: bool = True
) -> Iterator[None]:
    """Within it, a module's weights stream. Load the patcher with NO_WEIGHTS inside the `with`.

    ComfyUI's dynamic VRAM changes little here. The patcher is a plain ModelPatcher, which loads and unloads in the
    same way with and without it. But dynamic VRAM replaces torch's allocator, and that allocator evicts other packs'
    models when the tensors of this module need the room.

    Args:
        blocks: pattern of the names of submodules that stream as a whole. The core's own fetcher copies all weights of
            a block when it starts, and drops the copies when it ends. So they are copied once even if the block runs
            on one half of its batch after the other, and no buffer is kept for each of ComfyUI's streams.
        stays: pattern of the names of submodules whose weights stay on the device; for modules that run very often.
        ahead: prefetch, which copies the next block's weights while a block computes.
    """
    for part in adopt(module, stays):
        _bring(part, device)
    for part in module.modules():
        if part._parameters or part._buffers:
            _bring_inputs(part, device)
    patcher.pin_weight_to_device = _pin_nothing
    with ExitStack() as visits:
        visits.callback(mm.reset_cast_buffers)  # ComfyUI itself frees these buffers only when the node ends
        bringer = fetcher(device, ahead=ahead)
        visits.callback(bringer.close)
        for name, part in module.named_modules():
            if blocks and re.fullmatch(blocks, name):
                tables = [layer._parameters for layer in part.modules() if getattr(layer, "comfy_cast_weights", False)]
                visits.enter_context(visiting(part, tables, bringer))
        yield


def _pin_nothing(key: str) -> None:
    """Replaces ComfyUI's pinning, which would pin the pages of a memory-mapped file, and without our limit.

    The core pins copies of the blocks instead, up to PINNED_SHARE of the free RAM.
    """


def adopt(module: nn.Module, stays: str = "") -> list[nn.Module]:
    """Changes the class of every torch layer to ComfyUI's class of the same name, which streams its weights.

    Returns:
        The modules whose own tensors do not stream: those with bare parameters or buffers, layers of other classes,
        and the ones that `stays` names. Without the latter that is 4.3 MiB of the image encoder, and less of every
        other network.
    """
    classes = _streaming_classes()
    left = []
    for part, whole in _parts(module, stays):
        streaming = None if whole else classes.get(type(part))
        if streaming is not None and _is_plain(part):
            part.__class__ = streaming
            if not hasattr(part, "bias"):  # ComfyUI's classes read one; torch's RMSNorm and Embedding have none
                part.bias = None
        elif part._parameters or part._buffers:
            left.append(part)
    return left


def _streaming_classes() -> dict[type[nn.Module], type[nn.Module]]:
    """ComfyUI's layer classes by torch's. Subclasses of torch's are not in it, as they may compute something else."""
    found = {name: getattr(nn, name, None) for name in dir(manual_cast) if not name.startswith("_")}
    return {ours: getattr(manual_cast, name) for name, ours in found.items() if ours is not None}


def _parts(module: nn.Module, stays: str) -> Iterator[tuple[nn.Module, bool]]:
    """Every submodule, and whether it or a module around it must be on the device as a whole."""
    covered: list[str] = []
    for name, part in module.named_modules():
        inside = any(name.startswith(prefix) for prefix in covered)
        if not inside and (isinstance(part, _READ_FROM_OUTSIDE) or (stays and re.fullmatch(stays, name))):
            covered.append(f"{name}." if name else "")
            inside = True
        yield part, inside


def _is_plain(part: nn.Module) -> bool:
    """Whether a layer has a weight, perhaps a bias, and no other tensors or submodules."""
    own = {name for name, tensor in part._parameters.items() if tensor is not None}
    return "weight" in own and own <= {"weight", "bias"} and not part._buffers and not part._modules


def _bring(part: nn.Module, device: torch.device) -> None:
    for name, parameter in part._parameters.items():
        if parameter is not None:
            part._parameters[name] = nn.Parameter(parameter.detach().to(device), requires_grad=False)
    for name, buffer in part._buffers.items():
        if buffer is not None:
            part._buffers[name] = buffer.to(device)


def _bring_inputs(part: nn.Module, device: torch.device) -> None:
    """Moves a module's inputs to the device, because ComfyUI's layers compute where their input is."""

    def bring(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        brought = tuple(value.to(device) if isinstance(value, Tensor) else value for value in args)
        return brought, {key: value.to(device) if isinstance(value, Tensor) else value for key, value in kwargs.items()}

    part.register_forward_pre_hook(bring, with_kwargs=True)
