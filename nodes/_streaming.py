"""Weights that pass through the device under ComfyUI: its own layers fetch them, its own loader keeps the books.

Belongs to _host.py. A module that is adopted here is never given back as it was: it was loaded for one borrow, and is
dropped after it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import comfy.model_management as mm
import torch
from torch import Tensor, nn

from ..lowvram_core.errors import OutOfMemory
from ..lowvram_core.lending.prefetch import fetcher
from ..lowvram_core.lending.streaming import visiting

NEXT_TO_NOTHING = 0.1
"""Bytes of weights that ComfyUI's loader may leave on the device; 0 would mean all of them."""

_READ_FROM_OUTSIDE = (nn.MultiheadAttention, nn.TransformerEncoderLayer)
"""Their children's weights are read without calling the children."""


@contextmanager
def streamed(
    patcher: Any, module: nn.Module, device: torch.device, *, blocks: str = "", stays: str = "", ahead: bool = True
) -> Iterator[None]:
    """Within it, a module's weights pass through the device once ComfyUI's loader has left them where they rest.

    With dynamic VRAM on it goes the same way, since the patcher is a plain ModelPatcher, which loads and unloads as
    without it; the layers have no pages in the virtual address space by which they would know of it. The allocator
    that dynamic VRAM puts under torch takes pages of other packs' models away where these tensors want the room.

    Args:
        blocks: pattern of the names of submodules whose layers' weights come together, by the core's own fetcher, and
            stay until it is through: so they come once where a block runs on one half of its batch and then on the
            other, and lie where they find room of their size, not in one pool of the allocator for each stream.
        stays: pattern of the names of submodules that are brought at once; for those that run very often.
        ahead: the next block's weights are on their way while one computes.

    Raises:
        OutOfMemory: this ComfyUI's layers do not fetch weights.
    """
    for part in adopt(module, stays):
        _bring(part, device)
    for part in module.modules():
        if part._parameters or part._buffers:
            _bring_inputs(part, device)
    patcher.pin_weight_to_device = _pin_nothing
    with ExitStack() as visits:
        if hasattr(mm, "reset_cast_buffers"):  # ComfyUI 0.8 keeps none; newer ones do this after each node themselves
            visits.callback(mm.reset_cast_buffers)
        bringer = fetcher(device, ahead=ahead)
        visits.callback(bringer.close)
        for name, part in module.named_modules():
            if blocks and re.fullmatch(blocks, name):
                tables = [layer._parameters for layer in part.modules() if getattr(layer, "comfy_cast_weights", False)]
                visits.enter_context(visiting(part, tables, bringer))
        yield


def _pin_nothing(key: str) -> None:
    """ComfyUI would pin all that rests in RAM where it lies, without our limit; these pages are a mapped file's, and
    the core pins copies of the blocks within PINNED_SHARE."""


def adopt(module: nn.Module, stays: str = "") -> list[nn.Module]:
    """Gives every torch layer ComfyUI's class of the same name; returns the modules whose own tensors are left over.

    Those are bare parameters and buffers, layers of other classes, and what stays: 4.3 MiB of the image encoder, less
    of every other network.

    Raises:
        OutOfMemory: this ComfyUI's layers do not fetch weights.
    """
    classes = _fetching_classes()
    left = []
    for part, whole in _parts(module, stays):
        fetching = None if whole else classes.get(type(part))
        if fetching is not None and _is_plain(part):
            part.__class__ = fetching
            if not hasattr(part, "bias"):  # ComfyUI's ask for one, torch's RMSNorm and Embedding have none
                part.bias = None
        elif part._parameters or part._buffers:
            left.append(part)
    return left


def _fetching_classes() -> dict[type[nn.Module], type[nn.Module]]:
    """By torch's own class; a subclass may compute something else, and is not in it."""
    try:
        from comfy.ops import manual_cast
    except ImportError:
        manual_cast = None
    if not getattr(getattr(manual_cast, "Linear", None), "comfy_cast_weights", False):
        raise OutOfMemory(
            "memory: this ComfyUI's layers cannot fetch their weights one by one (comfy.ops.manual_cast); wanted that, "
            "as the model does not fit on the card as a whole. Update ComfyUI."
        )
    found = {name: getattr(nn, name, None) for name in dir(manual_cast) if not name.startswith("_")}
    return {ours: getattr(manual_cast, name) for name, ours in found.items() if ours is not None}


def _parts(module: nn.Module, stays: str) -> Iterator[tuple[nn.Module, bool]]:
    """Every submodule, and whether it must be on the device as a whole."""
    covered: list[str] = []
    for name, part in module.named_modules():
        inside = any(name.startswith(prefix) for prefix in covered)
        if not inside and (isinstance(part, _READ_FROM_OUTSIDE) or (stays and re.fullmatch(stays, name))):
            covered.append(f"{name}." if name else "")
            inside = True
        yield part, inside


def _is_plain(part: nn.Module) -> bool:
    """Whether a layer has a weight, perhaps a bias, and nothing else that would have to travel."""
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
    """ComfyUI's layers compute where their input lies: one that was made where the weights rest would stay there."""

    def bring(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        brought = tuple(value.to(device) if isinstance(value, Tensor) else value for value in args)
        return brought, {key: value.to(device) if isinstance(value, Tensor) else value for key, value in kwargs.items()}

    part.register_forward_pre_hook(bring, with_kwargs=True)
