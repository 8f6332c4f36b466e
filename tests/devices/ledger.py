"""Counts the bytes of the tensors on the counting device, and enforces its limits."""

from __future__ import annotations

import math
import weakref
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from caching import Block, CachingAllocator

CUBLAS_BYTES = 33 * 2**20
"""The workspaces of cuBLAS, from the first matrix product on. Measured on an H200; older cards take about 8 MiB."""
_MATRIX_PRODUCTS = ("mm", "addmm", "bmm", "baddbmm")
_SMALL_BYTES = 2**20
"""The workspaces of convolutions whose tensors are all smaller are left out."""


@dataclass(frozen=True)
class _Storage:
    size: int
    born: int
    """The number of the allocation."""
    cache: CachingAllocator | None
    block: Block | None
    """Its place in the cache."""


@dataclass
class Ledger:
    """The memory state of the device. Tensors that share a storage count once."""

    current: int = 0
    peak: int = 0
    cap: int | None = None
    """Bytes of the whole device. An allocation beyond it fails. None: no limit."""
    share: float = 1.0
    """The fraction of `cap` that this process may use."""
    limit: int | None = None
    """Tensors with more elements than this have no values. None: all tensors have values."""
    allocations: int = 0
    fail_at: int | None = None
    """The number of an allocation that fails even if memory is free."""
    cache: CachingAllocator | None = None
    """None: each tensor is allocated alone and freed immediately."""
    _alive: dict[int, _Storage] = field(default_factory=dict)
    _cublas: CachingAllocator | None = None

    def enter(self, storage: torch.UntypedStorage, stream: object = None) -> bool:
        """Counts a storage until it is deleted. Returns whether the storage is new.

        Raises:
            torch.OutOfMemoryError: the storage does not fit.
        """
        key = storage._cdata
        if key in self._alive:
            return False
        size = storage.nbytes()
        self.allocations += 1
        limit = self._limit
        if self.allocations == self.fail_at or (self.cache is None and self.current + size > limit):
            raise torch.OutOfMemoryError(
                f"Counted out of memory. Tried to allocate {size} bytes. {self.current} are in use of {self.cap}."
            )
        block = None if self.cache is None else self.cache.take(size, limit, stream)
        self._alive[key] = _Storage(size, self.allocations, self.cache, block)
        self.current += size
        self.peak = max(self.peak, self.current)
        weakref.finalize(storage, self._leave, key)
        return True

    def _leave(self, key: int) -> None:
        gone = self._alive.pop(key)
        self.current -= gone.size
        if gone.cache is not None and gone.block is not None:
            gone.cache.give_back(gone.block)

    def use_workspace(self, operator: str, sizes: Collection[int]) -> None:
        """Reserves what NVIDIA's libraries need beside an operator's tensors, whose sizes are given.

        cuDNN copies the tensors of a convolution to another layout. So its workspace is as large as all of them:
        computed with it, the VAEs allocate 643.6 and 651.2 MiB, and an H200 measured 644 and 652. It is in `reserved`
        only, because `current` and `peak` count tensors.
        """
        if self.cache is None:
            return
        if operator in _MATRIX_PRODUCTS and self._cublas is not self.cache:
            self._cublas = self.cache  # the block is never given back
            self.cache.take(CUBLAS_BYTES, self._limit)
        elif operator.startswith("convolution") and max(sizes) > _SMALL_BYTES:
            self.cache.give_back(self.cache.take(sum(sizes), self._limit))

    @property
    def _limit(self) -> float:
        return math.inf if self.cap is None else self.share * self.cap

    @property
    def reserved(self) -> int:
        """Bytes that other programs cannot use."""
        return self.current if self.cache is None else self.cache.reserved

    @property
    def reserved_peak(self) -> int:
        """The highest value of `reserved` since the last reset."""
        return self.peak if self.cache is None else self.cache.peak

    def reset_peak(self) -> None:
        """Sets both peaks to the present values."""
        self.peak = self.current
        if self.cache is not None:
            self.cache.peak = self.cache.reserved

    def raise_peak(self, peak: int, reserved_peak: int) -> None:
        """Raises the peaks to at least these values, after a part was measured with fresh peaks."""
        self.peak = max(self.peak, peak)
        if self.cache is not None:
            self.cache.peak = max(self.cache.peak, reserved_peak)

    def born(self, tensor: torch.Tensor) -> int:
        """The number of the allocation that holds the tensor."""
        return self._alive[tensor.untyped_storage()._cdata].born

    @contextmanager
    def set(
        self, *, cap: int | None = None, limit: int | None = None, fail_after: int | None = None,
        cache: CachingAllocator | None = None,
    ) -> Iterator[None]:  # fmt: skip
        """Changes settings inside the `with` block and resets the peaks. `fail_after` counts allocations from here."""
        before = self.cap, self.limit, self.fail_at, self.cache
        self.cap, self.limit, self.cache = cap, limit, cache
        self.fail_at = None if fail_after is None else self.allocations + fail_after
        self.reset_peak()
        try:
            yield
        finally:
            self.cap, self.limit, self.fail_at, self.cache = before


ledger = Ledger()
