"""Weights that pass through the device layer by layer instead of lying there."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .prefetch import Fetcher, Load, Tensors, fetcher

_WHOLE = (nn.MultiheadAttention,)
"""Layers that read their children's weights without calling the children."""


@contextmanager
def streamed(
    module: nn.Module, device: torch.device, *, blocks: str = "", stays: str = "", ahead: bool = True
) -> Iterator[nn.Module]:
    """Within it, each layer brings its weights to the device before it runs, and drops that copy after.

    What rests stays what it was: the very tensors, memory-mapped or shared, are back in place after each layer and
    when the `with` ends, whatever ended it. Code that reads a weight outside a forward finds it where it rests.

    Args:
        module: its weights rest where they are now.
        device: where layers compute; inputs of layers that have weights are brought there.
        blocks: pattern of the names of submodules whose layers travel together.
        stays: pattern of the names of submodules that are brought at once and stay; for those that run very often.
        ahead: the next layer's weights are on their way while one computes, where the device can.

    Memory:
        On the device the weights of a layer or block, and where the device can copy while it computes those of the
        next (see prefetch.py), what stays, and what belongs to the modules around.

    Source:
        The idea of diffusers.hooks.apply_group_offloading; that one copies weights back from the device, refuses
        `.to` on what it was applied to, and stays. Its blocks are too big here: 571 MiB in the paint UNet.
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
    """The parameters and buffers that a module needs while it runs: its own, or all below it too."""
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
    """Within it, a layer's weights come to the device before it runs, and that copy is dropped after.

    Args:
        tables: of the modules whose weights they are, such as `_parameters`; what rests is put back into them.
        bringer: shared by the layers of a network, so that one can be on its way while another runs.
    """
    load = Load([dict(table) for table in tables])
    visits: list[list[Tensors]] = []  # a stack: a layer may be called within itself

    def fetch(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        visits.append([dict(table) for table in tables])
        _fill(tables, bringer.take(load))
        return _brought(args, bringer.device), _brought(kwargs, bringer.device)

    def put_back(*_: object) -> None:
        if visits:  # nothing was fetched where another's hook raised first
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
        while visits:  # a KeyboardInterrupt calls no hooks
            _fill(tables, visits.pop())


def _fill(tables: list[Tensors], tensors: list[Tensors]) -> None:
    for table, those in zip(tables, tensors, strict=True):
        table.update(those)


def _brought(value: Any, device: torch.device) -> Any:
    """The value with its tensors on the device; a container with nothing to move is handed on itself, as some are
    written to."""
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
