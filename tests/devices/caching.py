"""Simulates torch's caching allocator for GPUs: it reserves segments, splits them into blocks and keeps both.

It works with sizes and addresses only and allocates nothing. Each stream has its own segments. Source:
c10/cuda/CUDACachingAllocator.cpp of torch 2, at its default settings.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass, field

import torch

UNIT = 512
"""Bytes. The size of every block is a multiple of it."""
SMALL = 2**20
"""Bytes. Blocks up to this size come from the segments for small blocks."""
SMALL_SEGMENT = 2 * 2**20
MIDDLE = 10 * 2**20
"""Bytes. Blocks below this size share segments of MIDDLE_SEGMENT. Each larger block gets a segment of its own size."""
MIDDLE_SEGMENT = 20 * 2**20
LARGE_UNIT = 2 * 2**20


class _Pool:
    """Free blocks. `best` returns the smallest block that is large enough; among equal sizes, the lowest address."""

    def __init__(self, *, is_small: bool) -> None:
        self.is_small = is_small
        self._order: list[tuple[int, int]] = []
        self._blocks: dict[int, Block] = {}

    def add(self, block: Block) -> None:
        block.is_free = True
        bisect.insort(self._order, (block.size, block.address))
        self._blocks[block.address] = block

    def remove(self, block: Block) -> None:
        block.is_free = False
        del self._order[bisect.bisect_left(self._order, (block.size, block.address))]
        del self._blocks[block.address]

    def best(self, size: int) -> Block | None:
        place = bisect.bisect_left(self._order, (size, 0))
        return None if place == len(self._order) else self._blocks[self._order[place][1]]

    def whole_segments(self) -> list[Block]:
        return [block for block in self._blocks.values() if block.before is None and block.after is None]


@dataclass(eq=False)
class Block:
    """A part of a segment, linked to the blocks before and after it."""

    address: int
    size: int
    pool: _Pool
    is_free: bool = False
    before: Block | None = None
    after: Block | None = None


@dataclass
class CachingAllocator:
    """The segments and blocks of one device."""

    reserved: int = 0
    """The bytes of all segments."""
    peak: int = 0
    """The highest value of `reserved`. The ledger resets it."""
    _end: int = 0
    _pools: dict[tuple[object, bool], _Pool] = field(default_factory=dict)
    """By stream and by whether the blocks are small."""

    def take(self, size: int, limit: float = math.inf, stream: object = None) -> Block:
        """Returns a block of at least `size` bytes for a stream.

        Raises:
            torch.OutOfMemoryError: more than `limit` bytes would be reserved, even after empty_cache.
        """
        size = max(UNIT, -(-size // UNIT) * UNIT)
        is_small = size <= SMALL
        pool = self._pools.setdefault((stream, is_small), _Pool(is_small=is_small))
        block = pool.best(size)
        if block is None:
            block = Block(*self._segment(size, limit), pool)
        else:
            pool.remove(block)
        rest = block.size - size
        if rest >= UNIT if is_small else rest > SMALL:
            self._split(block, size)
        return block

    def give_back(self, block: Block) -> None:
        """Frees the block and merges it with free neighbours. The segment stays reserved."""
        pool = block.pool
        for other in (block.before, block.after):
            if other is not None and other.is_free:
                pool.remove(other)
                first, second = (other, block) if other is block.before else (block, other)
                first.size += second.size
                _link(first, second.after)
                block = first
        pool.add(block)

    def empty_cache(self) -> None:
        """Releases the segments without a used block."""
        for pool in self._pools.values():
            for block in pool.whole_segments():
                pool.remove(block)
                self.reserved -= block.size

    def _segment(self, size: int, limit: float) -> tuple[int, int]:
        """Reserves a segment for `size` bytes and returns its address and size."""
        if size <= SMALL:
            segment = SMALL_SEGMENT
        elif size < MIDDLE:
            segment = MIDDLE_SEGMENT
        else:
            segment = -(-size // LARGE_UNIT) * LARGE_UNIT
        if self.reserved + segment > limit:
            self.empty_cache()
        if self.reserved + segment > limit:
            raise torch.OutOfMemoryError(
                f"Counted out of memory. Tried to allocate {size} bytes. {self.reserved} are reserved."
            )
        self.reserved += segment
        self.peak = max(self.peak, self.reserved)
        self._end += segment
        return self._end - segment, segment

    def _split(self, block: Block, size: int) -> None:
        rest = Block(block.address + size, block.size - size, block.pool)
        block.size = size
        _link(rest, block.after)
        _link(block, rest)
        block.pool.add(rest)


def _link(first: Block, second: Block | None) -> None:
    first.after = second
    if second is not None:
        second.before = first
