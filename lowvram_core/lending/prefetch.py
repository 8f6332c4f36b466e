"""Copies streamed weights to the device: when a layer needs them, or (prefetch) while the layer before computes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ..files.mapped import file_spans, give_back
from .device import free_ram_bytes, memory_of

Tensors = dict[str, Tensor | None]

PINNED_SHARE = 0.25
"""At most this share of the RAM that is free when a network begins to stream is pinned."""
_ARENA_BYTES = 512 * 2**20
"""Size of the pinned blocks. torch rounds sizes up to a power of two, which would waste much for single layers."""
_ALIGNMENT = 256
"""In bytes. It is that of torch's own allocator on a GPU."""
_RESERVED_BYTES = 768 * 2**20
"""If torch has reserved more than this while weights stream, it returns its unused memory to the device.

Convolutions of a VAE take workspaces of up to 257 MiB. Tensors of many sizes beside them leave gaps in torch's memory:
its VAE decoder reserved 1,124 MiB for 644 MiB, measured on an H200.
"""
_UNUSED_BYTES = 256 * 2**20
"""Less unused memory than this is kept."""
_WATCHED_PASSES = 8
"""The reserved memory is looked at in this many passes through a network. A look takes 0.1 ms, a return some ms."""


@dataclass(frozen=True)
class _Place:
    """Where a tensor lies in the block of its load."""

    table: int
    name: str
    dtype: torch.dtype
    shape: torch.Size
    strides: tuple[int, ...]
    offset: int
    """In elements of `dtype`."""


class Load:
    """Tensors that are copied together, in one block of memory.

    Args:
        tables: tables of weights, such as a module's `_parameters`. They hold the copies while the layer runs, and
            `resting` at all other times.
    """

    def __init__(self, tables: list[Tensors]) -> None:
        self.tables = tables
        self.resting = [{name: tensor for name, tensor in table.items() if tensor is not None} for table in tables]
        """The tensors off the device: the module's own, or views into `pinned`."""
        self.pinned: Tensor | None = None
        """[nbytes] uint8 in pinned memory, with the tensors in the layout of `packed`."""
        self.depth = 0
        """How many calls of the layer are running. More than one if the layer calls itself."""
        self.passes = 0
        """How often a fetcher was asked for it."""

    @cached_property
    def nbytes(self) -> int:
        """Size in the layout of `packed`."""
        return sum(_padded(tensor) for table in self.resting for tensor in table.values())

    @cached_property
    def _places(self) -> list[_Place]:
        places, start = [], 0
        for index, table in enumerate(self.resting):
            for name, tensor in table.items():
                offset = start // tensor.itemsize
                places.append(_Place(index, name, tensor.dtype, tensor.shape, _strides(tensor), offset))
                start += _padded(tensor)
        return places

    def packed(self, flat: Tensor) -> list[dict[str, Tensor]]:
        """Views into `flat`, one for each tensor of the load, with the tensor's strides.

        The strides are kept because the choice of kernels depends on them.

        Args:
            flat: [nbytes] uint8.
        """
        typed: dict[torch.dtype, Tensor] = {}
        views: list[dict[str, Tensor]] = [{} for _ in self.resting]
        for place in self._places:
            if place.dtype not in typed:
                typed[place.dtype] = flat.view(place.dtype)
            whole = typed[place.dtype]
            start = whole.storage_offset() + place.offset  # as_strided counts from the start of the storage
            views[place.table][place.name] = whole.as_strided(place.shape, place.strides, start)
        return views

    def fill(self, tensors: list[dict[str, Tensor]]) -> None:
        """Puts these tensors into the module's tables."""
        for table, those in zip(self.tables, tensors, strict=True):
            table.update(those)

    def rest_in(self, flat: Tensor, spans: list[range]) -> None:
        """Copies the tensors to pinned memory. From now on the module's tensors are views into it.

        So the weights are in RAM once: the pages of a mapped file leave RAM, and other tensors are freed if nothing
        else refers to them.

        Args:
            flat: [nbytes] uint8 in pinned memory.
            spans: addresses of mapped files; see files/mapped.py.
        """
        views = self.packed(flat)
        for old, new in self._pairs(views):
            new.copy_(old)
        for table, those in zip(self.resting, views, strict=True):
            for name, old in table.items():
                give_back(old, spans)
                those[name] = nn.Parameter(those[name], False) if isinstance(old, nn.Parameter) else those[name]
        self.pinned, self.resting = flat, views
        if not self.depth:
            self.fill(views)

    def copy_to(self, flat: Tensor) -> list[dict[str, Tensor]]:
        """Queues copies of the tensors into a block on the device, and returns the views into it."""
        views = self.packed(flat)
        if self.pinned is not None:
            flat.copy_(self.pinned, non_blocking=True)
        else:
            for here, there in self._pairs(views):
                there.copy_(here, non_blocking=True)
        return views

    def _pairs(self, views: list[dict[str, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        for table, those in zip(self.resting, views, strict=True):
            yield from ((tensor, those[name]) for name, tensor in table.items())


class Fetcher:
    """Copies a load when `take` asks for it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._memory = memory_of(device)

    def take(self, load: Load) -> list[dict[str, Tensor]]:
        """The load's tensors on the device."""
        self._limit_reserved(load)
        return load.resting if self.device.type == "cpu" else load.copy_to(self._empty(load))

    def done(self) -> None:
        """Called when the layer that took the last load has been queued."""

    def close(self) -> None:
        """Called at the end."""

    def _limit_reserved(self, load: Load) -> None:
        """Returns unused memory to the device; see _RESERVED_BYTES."""
        load.passes += 1
        if self._memory is None or load.passes > _WATCHED_PASSES:
            return
        reserved = self._memory.memory_reserved(self.device)
        unused = reserved - self._memory.memory_allocated(self.device)
        if reserved > _RESERVED_BYTES and unused > _UNUSED_BYTES:
            self._memory.empty_cache()

    def _empty(self, load: Load) -> Tensor:
        return torch.empty(load.nbytes, dtype=torch.uint8, device=self.device)


@dataclass
class _Coming:
    load: Load
    flat: Tensor
    free: Any
    """The event after which `flat` may be written to."""
    views: list[dict[str, Tensor]] | None = None
    """None until the copy is queued."""
    arrived: Any = None
    """The event at the end of the copy. None until the copy is queued."""


class Prefetcher(Fetcher):
    """Copies the next load on its own CUDA stream while the device computes with the current one.

    The first pass through a network shows the order of the loads. Memory for the next load is allocated before the
    current layer is queued, so that the copy waits only for the layers before it. A copy from pinned memory is queued
    then, too. A copy from other memory is queued after the current layer, because it blocks the program. A load that
    comes out of order is copied as Fetcher does.

    Memory:
        On the device two successive loads. In RAM the weights once: up to PINNED_SHARE of the free RAM they are moved
        to pinned memory in the second pass. A network that runs once pins nothing.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._side = self._memory.Stream(device)
        self._following: dict[Load, Load] = {}
        self._last: Load | None = None
        self._coming: _Coming | None = None
        self._pinned = _Pinned()
        self._has_room = True

    def take(self, load: Load) -> list[dict[str, Tensor]]:
        """The load's tensors on the device. Begins with the load that came next in the last pass."""
        views = self._arrived(load)
        if views is None:
            views = super().take(load)
        else:
            self._limit_reserved(load)
        if load.passes == 1:
            self._pinned.wanted += load.nbytes
        if self._last is not None:
            self._following[self._last] = load
        self._last = load
        following = self._following.get(load)
        if following is not None and following is not load:
            self._make_room(following)
        return views

    def done(self) -> None:
        """Called when the layer that took the last load has been queued. Starts the copy of the next load."""
        if self._coming is not None and self._coming.arrived is None:
            self._send(self._coming)

    def close(self) -> None:
        """Called at the end. Waits for the copy that runs."""
        if self._coming is not None and self._coming.arrived is not None:
            self._side.synchronize()  # the pinned memory may be freed next
        self._drop()
        self._pinned.close()

    def _arrived(self, load: Load) -> list[dict[str, Tensor]] | None:
        coming = self._coming
        if coming is None or coming.load is not load:
            self._drop()
            return None
        self.done()
        self._drop()
        return coming.views

    def _drop(self) -> None:
        """Drops the next load. Its memory is reused afterwards, so the device's own work waits for the copy first."""
        if self._coming is not None and self._coming.arrived is not None:
            self._memory.current_stream(self.device).wait_event(self._coming.arrived)
        self._coming = None

    def _make_room(self, load: Load) -> None:
        if not self._has_room:
            return
        try:
            flat = self._empty(load)
        except torch.OutOfMemoryError:  # no prefetch then
            self._has_room = False
            return
        self._coming = _Coming(load, flat, self._memory.current_stream(self.device).record_event())
        if load.pinned is not None:
            self._send(self._coming)

    def _send(self, coming: _Coming) -> None:
        load = coming.load
        if load.pinned is None:
            flat = self._pinned.block_for(load)
            if flat is not None:
                load.rest_in(flat, self._pinned.spans)
        self._side.wait_event(coming.free)
        try:
            with self._memory.stream(self._side):
                coming.views = load.copy_to(coming.flat)
        finally:
            coming.arrived = self._side.record_event()


class _Pinned:
    """Pinned memory, allocated in few large blocks."""

    def __init__(self) -> None:
        self.wanted = 0
        """Bytes of the loads that were seen and have no pinned memory yet."""
        self._left = int(free_ram_bytes() * PINNED_SHARE)
        self._arena: Tensor | None = None
        self._used = 0

    @cached_property
    def spans(self) -> list[range]:
        """The addresses of mapped files, read once: the weights of a network do not move while it streams."""
        return file_spans()

    def block_for(self, load: Load) -> Tensor | None:
        """[nbytes] uint8 in pinned memory; None if there is no memory for it."""
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
        self.wanted -= load.nbytes
        return flat

    def close(self) -> None:
        """Drops the last block. A block is freed when no weights lie in it any more."""
        self._arena = None


def pinned(nbytes: int) -> Tensor:
    """[nbytes] uint8 in pinned memory, which a GPU can copy while the program goes on.

    Raises:
        RuntimeError: the system refuses.
    """
    return torch.empty(nbytes, dtype=torch.uint8, pin_memory=True)


def empty_host_cache(device: torch.device) -> None:
    """Returns unused pinned memory to the system. torch would keep it for reuse."""
    empty = getattr(getattr(torch, "accelerator", None), "empty_host_cache", None)
    if empty is not None and device.type in ("cuda", "xpu"):  # older versions of torch lack it
        empty()


def fetcher(device: torch.device, *, ahead: bool = True) -> Fetcher:
    """A Prefetcher if `ahead` and if the device can copy while it computes, else a Fetcher."""
    return Prefetcher(device) if ahead and hasattr(memory_of(device), "current_stream") else Fetcher(device)


def _strides(tensor: Tensor) -> tuple[int, ...]:
    """The tensor's strides, or those of a contiguous copy if elements share memory or have gaps between them."""
    dense = sorted((stride, size) for stride, size in zip(tensor.stride(), tensor.shape, strict=True) if size > 1)
    expected = 1
    for stride, size in dense:
        if stride != expected:
            return torch.empty(tensor.shape, device="meta").stride()
        expected *= size
    return tensor.stride()


def _padded(tensor: Tensor) -> int:
    return math.ceil(tensor.nbytes / _ALIGNMENT) * _ALIGNMENT
