"""Streaming: each layer's weights are copied to the device when it runs, and the copies are dropped afterwards."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .prefetch import Fetcher, Load, Tensors, fetcher

_WHOLE = (nn.MultiheadAttention,)
"""Layers that read the weights of their children without calling them."""


STAYING_SHARE = 1 / 64
"""Layers of at most this share of the largest load stay on the device: their copies would take longer than themselves.
That is 0.3 to 5 MiB of each network."""


@contextmanager
def streamed(
    module: nn.Module, device: torch.device, *, blocks: str = "", stays: str = "", ahead: bool = True
) -> Iterator[nn.Module]:
    """Within it, each layer copies its weights to the device before it runs, and drops the copies afterwards.

    The module's own tensors are back in place after each layer and when the `with` ends, also after an error. They may
    be memory-mapped or shared, and are not written to. Where weights are pinned, the module's tensors become views into
    pinned memory, with the same values (see prefetch.py). Code that reads a weight outside of a forward gets the
    module's own tensor, off the device.

    Args:
        module: its weights stay off the device.
        device: where layers compute. The inputs of layers with weights are moved there.
        blocks: pattern of the names of submodules whose layers are copied together.
        stays: pattern of the names of submodules that are copied once and stay; for modules that run very often. Other
            small layers stay, too, see STAYING_SHARE.
        ahead: prefetch, if the device can copy while it computes.

    Memory:
        On the device the weights of one layer or block, with prefetch those of the next one too (see prefetch.py), what
        stays, and the weights that the modules around them own themselves.

    Source:
        The idea of diffusers.hooks.apply_group_offloading. That function copies weights back from the device, makes
        `.to` fail, and stays applied. Its blocks are too large: up to 571 MiB in the paint UNet.
    """
    with ExitStack() as hooks:
        bringer = fetcher(device, ahead=ahead)
        hooks.callback(bringer.close)
        parts = [(part, Load(tables), waits) for part, tables, waits in _parts(module, blocks, stays)]
        small = STAYING_SHARE * max((load.nbytes for _, load, waits in parts if not waits), default=0)
        staying: list[Tensors] = []
        for part, load, waits in parts:
            if waits or load.nbytes <= small:
                staying += load.tables
                hooks.enter_context(_inputs_brought(part, device))
            else:
                hooks.enter_context(_visiting(part, load, bringer))
        if staying:
            hooks.enter_context(_brought_for_long(Load(staying), bringer))
        yield module


def _parts(module: nn.Module, blocks: str, stays: str) -> Iterator[tuple[nn.Module, list[Tensors], bool]]:
    """The layers and blocks with weights of their own: the module, its tables of weights, and whether `stays` names it.

    The tables of a block are those of all its submodules.
    """
    covered: list[str] = []
    for name, part in module.named_modules():
        if any(name.startswith(prefix) for prefix in covered):
            continue
        waits, is_block = (bool(pattern and re.fullmatch(pattern, name)) for pattern in (stays, blocks))
        whole = waits or is_block or isinstance(part, _WHOLE)
        if whole:
            covered.append(f"{name}." if name else "")
        tables = _tables(part, whole=whole)
        if tables:
            yield part, tables, waits


def _tables(part: nn.Module, *, whole: bool) -> list[Tensors]:
    """The tables of parameters and buffers of a module, or of the module and all its submodules."""
    owners = part.modules() if whole else [part]
    return [table for owner in owners for table in (owner._parameters, owner._buffers) if table]  # type: ignore[misc]


@contextmanager
def _brought_for_long(load: Load, bringer: Fetcher) -> Iterator[None]:
    """Within it, the load's tensors are on the device."""
    try:
        load.fill(Fetcher.take(bringer, load))
        yield
    finally:
        load.fill(load.resting)


@contextmanager
def _inputs_brought(part: nn.Module, device: torch.device) -> Iterator[None]:
    """Within it, the inputs of a module are moved to the device."""
    handle = part.register_forward_pre_hook(
        lambda _, args, kwargs: (_brought(args, device), _brought(kwargs, device)), with_kwargs=True
    )
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _visiting(layer: nn.Module, load: Load, bringer: Fetcher) -> Iterator[None]:
    """Within it, a layer copies its weights to the device before it runs, and drops the copies afterwards."""

    def fetch(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        load.depth += 1
        if load.depth == 1:
            load.fill(bringer.take(load))
        return _brought(args, bringer.device), _brought(kwargs, bringer.device)

    def put_back(*_: object) -> None:
        if not load.depth:  # the hook of another raised first
            return
        load.depth -= 1
        if not load.depth:
            load.fill(load.resting)
            bringer.done()

    handles = [
        layer.register_forward_pre_hook(fetch, with_kwargs=True),
        layer.register_forward_hook(put_back, always_call=True),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        load.depth = 0
        load.fill(load.resting)  # a KeyboardInterrupt does not call the hooks


def _brought(value: Any, device: torch.device) -> Any:
    """The value with its tensors on the device. A container without tensors to move is returned itself, because the
    layer may write to it."""
    if isinstance(value, Tensor):
        return value.to(device)
    if type(value) not in _REBUILD:
        return value
    items = list(value.values()) if isinstance(value, dict) else list(value)
    moved = [_brought(item, device) for item in items]
    if all(new is old for new, old in zip(moved, items, strict=True)):
        return value
    return _REBUILD[type(value)](value, moved)


_REBUILD: dict[type, Callable[[Any, list[Any]], Any]] = {
    dict: lambda old, new: dict(zip(old, new, strict=True)),
    list: lambda old, new: new,
    tuple: lambda old, new: tuple(new),
}
