"""Copies streamed weights to the device: when a layer needs them, or (prefetch) while the layer before computes."""

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
"""At most this share of the RAM that is free when a network begins to stream is pinned."""
_ARENA_BYTES = 512 * 2**20
"""Size of the pinned blocks. torch rounds sizes up to a power of two, which would waste much for single layers."""
_ALIGNMENT = 256
"""In bytes. It is that of torch's own allocator on a GPU."""


@dataclass(eq=False)
class Load:
    """Tensors that are copied together, as they are off the device."""

    resting: list[Tensors]
    pinned: Tensor | None = None
    """A copy of the tensors in pinned memory, in the layout of `packed`."""

    @cached_property
    def nbytes(self) -> int:
        """Size in the layout of `packed`."""
        return sum(_padded(tensor) for table in self.resting for tensor in table.values() if tensor is not None)

    def packed(self, flat: Tensor) -> list[Tensors]:
        """Views into `flat`, one for each tensor of the load.

        Args:
            flat: [nbytes] uint8.
        """
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
        """Whether views into one block have the strides of the tensors. The choice of kernels depends on them."""
        tensors = [tensor for table in self.resting for tensor in table.values() if tensor is not None]
        return bool(tensors) and all(tensor.is_contiguous() for tensor in tensors)


class Fetcher:
    """Copies a load when `take` asks for it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def take(self, load: Load) -> list[Tensors]:
        """The load's tensors on the device."""
        return [{name: _copy(tensor, self.device) for name, tensor in table.items()} for table in load.resting]

    def done(self) -> None:
        """Called when the layer that took the last load has been queued."""

    def close(self) -> None:
        """Called at the end."""


@dataclass
class _Coming:
    load: Load
    flat: Tensor
    free: Any
    """The event after which `flat` may be written to."""
    arrived: Any = None
    """The event at the end of the copy. None until the copy is queued."""


class Prefetcher(Fetcher):
    """Copies the next load on its own CUDA stream while the device computes with the current one.

    The first pass through a network shows the order of the loads. Memory for the next load is allocated before the
    current layer is queued, so that the copy waits only for the layers before it. The copy is queued after the current
    layer, because a copy from memory that is not pinned blocks the program. A load that comes out of order is copied as
    Fetcher does.

    Memory:
        On the device two successive loads. In RAM pinned copies, up to PINNED_SHARE of the free RAM.
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
        """The load's tensors on the device. Allocates memory for the load that came next in the last pass."""
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
        """Called when the layer that took the last load has been queued. Starts the copy of the next load."""
        if self._coming is not None and self._coming.arrived is None:
            self._send(self._coming)

    def close(self) -> None:
        """Called at the end. Waits for the copy that runs, and unpins the RAM."""
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
        """Drops the next load. Its memory is reused afterwards, so the device's own work waits for the copy first."""
        if self._coming is not None and self._coming.arrived is not None:
            self._streams.current_stream(self.device).wait_event(self._coming.arrived)
        self._coming = None

    def _make_room(self, load: Load) -> None:
        if not self._has_room or not load.can_be_packed:
            return
        try:
            flat = torch.empty(load.nbytes, dtype=torch.uint8, device=self.device)
        except torch.OutOfMemoryError:  # no prefetch then
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
    """Pinned memory, allocated in few large blocks."""

    def __init__(self) -> None:
        import psutil  # here, so that a missing package costs the run and not the import of the pack

        self.wanted = 0
        """Bytes of all loads that were seen."""
        self._left = int(psutil.virtual_memory().available * PINNED_SHARE)
        self._arena: Tensor | None = None
        self._used = 0

    def copy_of(self, load: Load) -> Tensor | None:
        """A packed copy of the load; None if there is no memory for it."""
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
        """Drops the blocks. Returns whether anything was pinned."""
        taken, self._arena = self._arena is not None, None
        return taken


def pinned(nbytes: int) -> Tensor:
    """[nbytes] uint8 in pinned memory, which a GPU can copy while the program goes on.

    Raises:
        RuntimeError: the system refuses.
    """
    return torch.empty(nbytes, dtype=torch.uint8, pin_memory=True)


def empty_host_cache() -> None:
    """Returns unused pinned memory to the system. torch would keep it for reuse."""
    empty = getattr(getattr(torch, "accelerator", None), "empty_host_cache", None)
    if empty is not None:  # older versions of torch lack it
        empty()


def fetcher(device: torch.device, *, ahead: bool = True) -> Fetcher:
    """A Prefetcher if `ahead` and if the device can copy while it computes, else a Fetcher."""
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
