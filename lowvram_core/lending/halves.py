"""Classifier-free guidance with one half of the batch at a time, inside each block of a network."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..host import Component, Host


@contextmanager
def in_halves(module: nn.Module, blocks: str, batched: Collection[str]) -> Iterator[None]:
    """Within it, each block runs on the first half of its batch and then on the second half.

    The activations inside a block are those of one half, and weights that stream are copied once for both halves.
    Two runs of the whole network, one for each half, would copy them twice.

    Args:
        blocks: pattern of the names of the submodules that run in halves.
        batched: names of the arguments of the blocks' `forward` whose first dimension is the batch. `a.b` is the entry
            `b` of a dict `a`. A dict, list or tuple stands for every tensor in it. A block's `forward` may lack some
            of the names. All other arguments are handed on whole.

    Raises:
        ValueError: a block is called without any of these arguments, or a tensor of theirs has an odd first dimension.
    """
    parts = [part for name, part in module.named_modules() if re.fullmatch(blocks, name)]
    for part in parts:
        part.forward = _halved(part.forward, batched)
    try:
        yield
    finally:
        for part in parts:
            del part.forward  # uncovers the method of the class


@contextmanager
def guided(module: nn.Module, component: Component, host: Host, *, together: bool) -> Iterator[bool]:
    """Yields whether the caller passes both halves of guidance through the network in one batch.

    That is `together`, except where the weights stream: then the caller always passes both halves in one batch, and
    without `together` each block runs on one half at a time.
    """
    if host.streams(component) and not together:
        with in_halves(module, component.blocks, component.batched):
            yield True
    else:
        yield together


def _halved(forward: Callable[..., Any], batched: Collection[str]) -> Callable[..., Any]:
    signature, paths = inspect.signature(forward), [name.split(".") for name in batched]

    def run(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs).arguments
        if not any(path[0] in given for path in paths):
            names = ", ".join(batched) or "the names of its batch arguments"
            raise ValueError(f"halves: a block got {', '.join(given)}; wanted {names}.")
        return _joined([_call(forward, signature, _half_of_each(given, paths, index)) for index in (0, 1)])

    return run


def _call(forward: Callable[..., Any], signature: inspect.Signature, arguments: dict[str, Any]) -> Any:
    bound = inspect.BoundArguments(signature, arguments)
    return forward(*bound.args, **bound.kwargs)


def _half_of_each(values: Mapping[str, Any], paths: Sequence[Sequence[str]], index: int) -> dict[str, Any]:
    """The values, those at the paths replaced by one half of them."""
    result = dict(values)
    for name, *rest in paths:
        if isinstance(result.get(name), Mapping) and rest:
            result[name] = _half_of_each(result[name], [rest], index)
        elif name in result and not rest:
            result[name] = _half(result[name], name, index)
    return result


def _half(value: Any, name: str, index: int) -> Any:
    if isinstance(value, Tensor):
        if value.dim() == 0 or value.shape[0] % 2:
            raise ValueError(f"halves: {name} is {tuple(value.shape)}; wanted a batch of two halves.")
        return value.chunk(2)[index]
    if isinstance(value, dict):
        return {key: _half(item, f"{name}.{key}", index) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_half(item, name, index) for item in value)
    return value


def _joined(results: list[Any]) -> Any:
    first = results[0]
    if isinstance(first, Tensor):
        return torch.cat(results)
    return type(first)(_joined([result[index] for result in results]) for index in range(len(first)))
