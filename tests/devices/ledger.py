"""What lives on the counting device, in bytes, and how much it may be."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from caching import Block, CachingAllocator


@dataclass(frozen=True)
class _Storage:
    size: int
    born: int
    """The number of its allocation."""
    cache: CachingAllocator | None
    block: Block | None
    """Where it lies in the cache."""


@dataclass
class Ledger:
    """What lives on the device, in bytes of storages."""

    current: int = 0
    peak: int = 0
    cap: int | None = None
    """Past it an allocation fails."""
    share: float = 1.0
    """Of the cap, which is all that the device has, so much is this process's."""
    limit: int | None = None
    """Elements past which a tensor has no values; None: all have."""
    allocations: int = 0
    fail_at: int | None = None
    """The number of the allocation that fails, whatever is free."""
    cache: CachingAllocator | None = None
    """None: the device takes every tensor by itself, and gives it back at once."""
    _alive: dict[int, _Storage] = field(default_factory=dict)

    def enter(self, storage: torch.UntypedStorage, stream: object = None) -> bool:
        """Counts a storage until it dies; whether it was not counted yet.

        Raises:
            torch.OutOfMemoryError: it does not fit.
        """
        key = storage._cdata
        if key in self._alive:
            return False
        size = storage.nbytes()
        self.allocations += 1
        limit = math.inf if self.cap is None else self.share * self.cap
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

    @property
    def reserved(self) -> int:
        """Bytes that are not free for other programs."""
        return self.current if self.cache is None else self.cache.reserved

    @property
    def reserved_peak(self) -> int:
        """The most of these."""
        return self.peak if self.cache is None else self.cache.peak

    def reset_peak(self) -> None:
        """The peak is what is there now."""
        self.peak = self.current
        if self.cache is not None:
            self.cache.peak = self.cache.reserved

    def raise_peak(self, peak: int, reserved_peak: int) -> None:
        """No less than it was before a look at a part."""
        self.peak = max(self.peak, peak)
        if self.cache is not None:
            self.cache.peak = max(self.cache.peak, reserved_peak)

    def born(self, tensor: torch.Tensor) -> int:
        """The number of the allocation that a tensor of the device lies in."""
        return self._alive[tensor.untyped_storage()._cdata].born

    @contextmanager
    def set(
        self, *, cap: int | None = None, limit: int | None = None, fail_after: int | None = None,
        cache: CachingAllocator | None = None,
    ) -> Iterator[None]:  # fmt: skip
        """Other settings within the block, and a fresh peak; `fail_after` counts allocations from here."""
        before = self.cap, self.limit, self.fail_at, self.cache
        self.cap, self.limit, self.cache = cap, limit, cache
        self.fail_at = None if fail_after is None else self.allocations + fail_after
        self.reset_peak()
        try:
            yield
        finally:
            self.cap, self.limit, self.fail_at, self.cache = before


ledger = Ledger()
