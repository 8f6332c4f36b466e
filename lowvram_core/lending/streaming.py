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


@contextmanager
def streamed(
    module: nn.Module, device: torch.device, *, blocks: str = "", stays: str = "", ahead: bool = True
) -> Iterator[nn.Module]:
    """Within it, each layer copies its weights to the device before it runs, and drops the copies afterwards.

    The module's own tensors, which may be memory-mapped or shared, do not change. They are back in place after each
    layer and when the `with` ends, also after an error. Code that reads a weight outside a forward gets the module's
    own tensor, off the device.

    Args:
        module: its weights stay where they are now.
        device: where layers compute. The inputs of layers with weights are moved there.
        blocks: pattern of the names of submodules whose layers are copied together.
        stays: pattern of the names of submodules that are copied once and stay; for modules that run very often.
        ahead: prefetch, if the device can copy while it computes.

    Memory:
        On the device the weights of one layer or block, with prefetch those of the next one too (see prefetch.py), what
        stays, and the weights that the modules around them own themselves.

    Source:
        The idea of diffusers.hooks.apply_group_offloading. That function copies weights back from the device, makes
        `.to` fail, and stays applied. Its blocks are too large: up to 571 MiB in the paint UNet.
    """
    with ExitStack() as hooks:
        covered: list[str] = []
        bringer = fetcher(device, ahead=ahead)
        hooks.callback(bringer.close)
        for name, part in module.named_modules():
            if any(name.startswith(prefix) for prefix in covered):
                continue
            waits, is_block = (bool(pattern and re.fullmatch(pattern, name)) for pattern in (stays, blocks))
            whole = waits or is_block or isinstance(part, _WHOLE)
            if whole:
                covered.append(f"{name}." if name else "")
            tables = _tables(part, whole=whole)
            if tables:
                hooks.enter_context((_brought_for_long if waits else visiting)(part, tables, bringer))
        yield module


def _tables(part: nn.Module, *, whole: bool) -> list[Tensors]:
    """The tables of parameters and buffers of a module, or of the module and all its submodules."""
    owners = part.modules() if whole else [part]
    return [table for owner in owners for table in (owner._parameters, owner._buffers) if table]  # type: ignore[misc]


@contextmanager
def _brought_for_long(part: nn.Module, tables: list[Tensors], bringer: Fetcher) -> Iterator[None]:
    resting = [dict(table) for table in tables]
    handle = part.register_forward_pre_hook(
        lambda _, args, kwargs: (_brought(args, bringer.device), _brought(kwargs, bringer.device)), with_kwargs=True
    )
    try:
        _fill(tables, Fetcher(bringer.device).take(Load(resting)))
        yield
    finally:
        handle.remove()
        _fill(tables, resting)


@contextmanager
def visiting(layer: nn.Module, tables: list[Tensors], bringer: Fetcher) -> Iterator[None]:
    """Within it, a layer copies its weights to the device before it runs, and drops the copies afterwards.

    Args:
        tables: tables of weights, such as a module's `_parameters`. They hold the copies while the layer runs.
        bringer: one for all layers of a network, so that it can prefetch.
    """
    load = Load([dict(table) for table in tables])
    visits: list[list[Tensors]] = []  # a stack, because a layer may call itself

    def fetch(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        visits.append([dict(table) for table in tables])
        _fill(tables, bringer.take(load))
        return _brought(args, bringer.device), _brought(kwargs, bringer.device)

    def put_back(*_: object) -> None:
        if visits:  # empty if the hook of another raised first
            _fill(tables, visits.pop())
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
        while visits:  # a KeyboardInterrupt does not call the hooks
            _fill(tables, visits.pop())


def _fill(tables: list[Tensors], tensors: list[Tensors]) -> None:
    for table, those in zip(tables, tensors, strict=True):
        table.update(those)


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
