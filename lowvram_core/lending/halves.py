"""A batch of two guidance halves through a network whose blocks see one half at a time."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..host import Component, Host


@contextmanager
def in_halves(module: nn.Module, blocks: str) -> Iterator[None]:
    """Within it, each block runs on the first half of its batch and then on the second.

    Activations inside blocks are those of one half, and weights that stream come once for both: the network run on
    each half in turn would bring them twice.

    Args:
        blocks: pattern of the names of submodules whose inputs and outputs have the batch as their first dimension.
    """
    parts = [part for name, part in module.named_modules() if re.fullmatch(blocks, name)]
    for part in parts:
        part.forward = _halved(part.forward)
    try:
        yield
    finally:
        for part in parts:
            del part.forward  # the class's own shows again


@contextmanager
def guided(module: nn.Module, component: Component, host: Host, *, together: bool) -> Iterator[bool]:
    """Whether both halves of guidance go through the network at once.

    As asked; but where weights stream, both do, and without `together` each block sees one half at a time.
    """
    if host.streams(component) and not together:
        with in_halves(module, component.blocks):
            yield True
    else:
        yield together


def _halved(forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        given = (*args, *kwargs.values())
        if not any(isinstance(value, Tensor) and value.dim() and value.shape[0] % 2 == 0 for value in given):
            raise ValueError("a batch of two halves was expected in the first dimension")
        return _joined([forward(*_half(args, index), **_half(kwargs, index)) for index in (0, 1)])

    return run


def _half(value: Any, index: int) -> Any:
    if isinstance(value, Tensor):
        if value.dim() == 0 or value.shape[0] % 2:
            return value
        size = value.shape[0] // 2
        return value[index * size : (index + 1) * size]
    if isinstance(value, dict):
        return {key: _half(item, index) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_half(item, index) for item in value)
    return value


def _joined(results: list[Any]) -> Any:
    first = results[0]
    if isinstance(first, Tensor):
        return torch.cat(results)
    return type(first)(_joined([result[index] for result in results]) for index in range(len(first)))
