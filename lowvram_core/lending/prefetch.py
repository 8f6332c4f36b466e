"""Weights on their way to the device: copied when they are asked for, or while the layer before computes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from .device import memory_of

Tensors = dict[str, Tensor | None]

PINNED_SHARE = 0.25
"""Of the RAM that is free when a network begins to stream, so much may be pinned."""
_ARENA_BYTES = 512 * 2**20
"""Pinned at once: torch rounds what it pins up to a power of two, so that a layer by itself would waste a half."""
_ALIGNMENT = 256
"""Bytes; where torch's own allocator lets tensors begin on a GPU."""


@dataclass(eq=False)
class Load:
    """Tensors that travel together, where they rest."""

    resting: list[Tensors]
    pinned: Tensor | None = None
    """The same bytes as `packed` lays them out, where a GPU reads them by itself."""

    @cached_property
    def nbytes(self) -> int:
        """Room that it takes packed."""
        return sum(_padded(tensor) for table in self.resting for tensor in table.values() if tensor is not None)

    def packed(self, flat: Tensor) -> list[Tensors]:
        """The load's tensors as views into one block of `nbytes` bytes."""
        tables: list[Tensors] = []
        start = 0
        for resting in self.resting:
            tables.append({})
            for name, tensor in resting.items():
                if tensor is None:
                    tables[-1][name] = None
                    continue
                view = flat[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
                tables[-1][name] = _like(tensor, view)
                start += _padded(tensor)
        return tables

    @cached_property
    def can_be_packed(self) -> bool:
        """Whether views into a block have the strides of what rests; kernels are chosen by them."""
        tensors = [tensor for table in self.resting for tensor in table.values() if tensor is not None]
        return bool(tensors) and all(tensor.is_contiguous() for tensor in tensors)


class Fetcher:
    """Copies a load when it is asked for."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def take(self, load: Load) -> list[Tensors]:
        """The load's tensors on the device."""
        return [{name: _copy(tensor, self.device) for name, tensor in table.items()} for table in load.resting]

    def done(self) -> None:
        """What was taken last has been put to use."""

    def close(self) -> None:
        """Nothing more is asked for."""


@dataclass
class _Coming:
    load: Load
    flat: Tensor
    free: Any
    """The event after which the room may be written to."""
    arrived: Any = None
    """The event of the copy's end, once it has begun."""


class Prefetcher(Fetcher):
    """Copies the load that followed the last time on a stream of its own, while the device computes with this one.

    The first pass through a network shows the order. Room is taken before a layer's work is queued, so that the copy
    waits for the work before that alone; the copy is queued after, since one from memory that is not pinned holds the
    program up until it is through. A load that does not come as foreseen is copied as by Fetcher.

    Memory:
        On the device two loads that follow each other. In RAM pinned copies, up to PINNED_SHARE of what is free.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._streams = torch.get_device_module(device)
        self._side = self._streams.Stream(device)
        self._seen: set[Load] = set()
        self._following: dict[Load, Load] = {}
        self._last: Load | None = None
        self._coming: _Coming | None = None
        self._pinned = _Pinned()
        self._has_room = True

    def take(self, load: Load) -> list[Tensors]:
        """The load's tensors on the device; room is taken for what followed it the last time."""
        tables = self._arrived(load)
        if tables is None:
            tables = super().take(load)
        if load not in self._seen:
            self._seen.add(load)
            self._pinned.wanted += load.nbytes
        if self._last is not None:
            self._following[self._last] = load
        self._last = load
        following = self._following.get(load)
        if following is not None and following is not load:
            self._make_room(following)
        return tables

    def done(self) -> None:
        """What was taken last has been put to use: what follows it is sent."""
        if self._coming is not None and self._coming.arrived is None:
            self._send(self._coming)

    def close(self) -> None:
        """Nothing more is asked for: what is on its way is waited for, and RAM is unpinned."""
        self._drop()
        for load in self._seen:
            load.pinned = None
        if self._pinned.close():
            self._side.synchronize()
            empty_host_cache()

    def _arrived(self, load: Load) -> list[Tensors] | None:
        coming = self._coming
        if coming is None or coming.load is not load:
            self._drop()
            return None
        self.done()
        self._drop()
        return load.packed(coming.flat)

    def _drop(self) -> None:
        """Lets go of what is coming; the device's own work waits for the copy, as its room is used again after."""
        if self._coming is not None and self._coming.arrived is not None:
            self._streams.current_stream(self.device).wait_event(self._coming.arrived)
        self._coming = None

    def _make_room(self, load: Load) -> None:
        if not self._has_room or not load.can_be_packed:
            return
        try:
            flat = torch.empty(load.nbytes, dtype=torch.uint8, device=self.device)
        except torch.OutOfMemoryError:  # it goes without
            self._has_room = False
            return
        self._coming = _Coming(load, flat, self._streams.current_stream(self.device).record_event())

    def _send(self, coming: _Coming) -> None:
        load = coming.load
        if load.pinned is None:
            load.pinned = self._pinned.copy_of(load)
        self._side.wait_event(coming.free)
        try:
            with self._streams.stream(self._side):
                if load.pinned is not None:
                    coming.flat.copy_(load.pinned, non_blocking=True)
                else:
                    _copy_into(load.packed(coming.flat), load.resting)
        finally:
            coming.arrived = self._side.record_event()


class _Pinned:
    """Room in RAM that a GPU reads by itself, taken in few large pieces."""

    def __init__(self) -> None:
        import psutil  # here, so that a missing package costs the run and not the import of the pack

        self.wanted = 0
        """Bytes of all loads that may come."""
        self._left = int(psutil.virtual_memory().available * PINNED_SHARE)
        self._arena: Tensor | None = None
        self._used = 0

    def copy_of(self, load: Load) -> Tensor | None:
        """The load, packed; None where there is no room for it."""
        if self._arena is None or self._used + load.nbytes > self._arena.nbytes:
            size = min(_ARENA_BYTES, 1 << math.ceil(math.log2(self.wanted)))
            if load.nbytes > size or size > self._left:
                return None
            try:
                self._arena = pinned(size)
            except RuntimeError:  # the system refuses
                self._left = 0
                return None
            self._left -= size
            self._used = 0
        flat = self._arena[self._used : self._used + load.nbytes]
        self._used += load.nbytes
        _copy_into(load.packed(flat), load.resting)
        return flat

    def close(self) -> bool:
        """Lets go of it; whether anything was pinned."""
        taken, self._arena = self._arena is not None, None
        return taken


def pinned(nbytes: int) -> Tensor:
    """A block of RAM that a GPU reads by itself.

    Raises:
        RuntimeError: there is none.
    """
    return torch.empty(nbytes, dtype=torch.uint8, pin_memory=True)


def empty_host_cache() -> None:
    """Gives what is not pinned any more back to the system; torch would keep it for who pins as much again."""
    empty = getattr(getattr(torch, "accelerator", None), "empty_host_cache", None)
    if empty is not None:  # older ones keep it
        empty()


def fetcher(device: torch.device, *, ahead: bool = True) -> Fetcher:
    """A Prefetcher where it is wanted and the device can copy while it computes, else a Fetcher."""
    return Prefetcher(device) if ahead and hasattr(memory_of(device), "current_stream") else Fetcher(device)


def _copy(tensor: Tensor | None, device: torch.device) -> Tensor | None:
    return None if tensor is None else _like(tensor, tensor.detach().to(device))


def _like(tensor: Tensor, there: Tensor) -> Tensor:
    return nn.Parameter(there, requires_grad=False) if isinstance(tensor, nn.Parameter) else there


def _copy_into(there: list[Tensors], resting: list[Tensors]) -> None:
    for table, source in zip(there, resting, strict=True):
        for name, tensor in source.items():
            if tensor is not None:
                table[name].copy_(tensor, non_blocking=True)  # type: ignore[union-attr]


def _padded(tensor: Tensor) -> int:
    return math.ceil(tensor.nbytes / _ALIGNMENT) * _ALIGNMENT
