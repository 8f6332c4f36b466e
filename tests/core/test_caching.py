"""The memory that a GPU's allocator reserves, computed by hand from its rules."""

from __future__ import annotations

import pytest
import torch
from caching import CachingAllocator
from counted import counted
from ledger import ledger

MIB = 2**20


def test_small_blocks_share_a_segment_of_two_mib() -> None:
    cache = CachingAllocator()
    first, second = cache.take(1), cache.take(513)
    assert (first.size, second.size, second.address) == (512, 1024, 512) and cache.reserved == 2 * MIB
    cache.take(MIB)
    assert cache.reserved == 2 * MIB, "the rest of the segment had room"
    cache.take(MIB)
    assert cache.reserved == 4 * MIB


def test_large_blocks_have_segments_by_their_size() -> None:
    cache = CachingAllocator()
    cache.take(MIB + 1)
    assert cache.reserved == 20 * MIB
    cache.take(9 * MIB)
    assert cache.reserved == 20 * MIB, "both lie in one"
    cache.take(11 * MIB)
    assert cache.reserved == (20 + 12) * MIB, "to the next two MiB"


def test_the_smallest_block_that_is_large_enough_is_reused() -> None:
    cache = CachingAllocator()
    large, middle, kept = cache.take(64 * MIB), cache.take(32 * MIB), cache.take(32 * MIB)
    cache.give_back(large)
    cache.give_back(middle)
    assert cache.take(31 * MIB).address == middle.address and cache.reserved == 128 * MIB
    assert middle.size == 32 * MIB, "a rest up to one MiB stays with its block"
    assert cache.take(30 * MIB).address == large.address and large.size == 30 * MIB, "split"
    assert cache.take(34 * MIB).address == large.address + 30 * MIB and not kept.is_free
    assert cache.reserved == 128 * MIB


def test_free_neighbours_join_and_whole_segments_can_be_given_back() -> None:
    cache = CachingAllocator()
    cache.give_back(cache.take(60 * MIB))
    parts = [cache.take(20 * MIB) for _ in range(3)]
    cache.give_back(parts[0])
    cache.give_back(parts[2])
    cache.empty_cache()
    assert cache.reserved == 60 * MIB, "the one between holds the segment: fragmentation"
    with pytest.raises(torch.OutOfMemoryError):
        cache.take(40 * MIB, limit=99 * MIB)
    cache.give_back(parts[1])
    assert cache.take(60 * MIB).address == parts[0].address and cache.peak == 60 * MIB


def test_streams_share_nothing() -> None:
    cache = CachingAllocator()
    cache.give_back(cache.take(60 * MIB))
    assert cache.take(60 * MIB, stream="side").address == 60 * MIB and cache.reserved == 120 * MIB


def test_before_it_fails_it_gives_back_what_it_keeps() -> None:
    cache = CachingAllocator()
    cache.give_back(cache.take(60 * MIB))
    cache.take(80 * MIB, limit=100 * MIB)
    assert cache.reserved == 80 * MIB, "never both at once"


def test_the_counting_device_reserves_by_it() -> None:
    with counted() as device, ledger.set(cap=8 * MIB, cache=CachingAllocator()):
        gpu = torch.get_device_module(device)
        tensor = torch.zeros(1000, device=device)
        assert (gpu.memory_allocated(), gpu.memory_reserved()) == (4000, 2 * MIB)
        assert gpu.mem_get_info() == (6 * MIB, 8 * MIB)
        with pytest.raises(torch.OutOfMemoryError, match="reserved"):
            torch.zeros(MIB, device=device)  # 4 MiB, in a segment of 20 MiB
        del tensor
        assert (gpu.memory_allocated(), gpu.memory_reserved()) == (0, 2 * MIB)
        gpu.empty_cache()
        assert gpu.memory_reserved() == 0 and gpu.max_memory_reserved() == 2 * MIB


def test_workspaces_are_reserved_and_not_counted_as_tensors() -> None:
    with counted() as device, torch.inference_mode(), ledger.set(limit=1, cache=CachingAllocator()):
        gpu = torch.get_device_module(device)
        picture = torch.empty(1, 8, 512, 512, device=device)  # 8 MiB
        kernel = torch.empty(8, 8, 1, 1, device=device)
        result = torch.nn.functional.conv2d(picture, kernel)
        assert gpu.max_memory_allocated() == 2 * picture.nbytes + kernel.nbytes
        assert gpu.memory_reserved() == (20 + 2 + 18) * MIB, "both tensors, the kernel, and copies of all three"
        picture @ result.transpose(-1, -2)
        held = gpu.memory_reserved()
        picture @ result.transpose(-1, -2)
        assert gpu.memory_reserved() == held, "the workspace for matrix products is taken once"
        del picture, kernel, result
        gpu.empty_cache()
        assert gpu.memory_reserved() == 34 * MIB and gpu.memory_allocated() == 0, "and never given back"
