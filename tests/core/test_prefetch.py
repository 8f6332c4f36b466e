"""Prefetch: the right weights in time, at most two loads at once, and nothing left at the end.

The device counts bytes. Its stream for copies runs as late as possible: a tensor that nobody waited for is NaN, and a
copy to memory that may still be in use fails.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from caching import CachingAllocator
from counted import Stream, counted, ledger
from safetensors.torch import save_file
from torch import Tensor, nn

from lowvram_core.files.checkpoints import fill, read_safetensors
from lowvram_core.lending import prefetch
from lowvram_core.lending.streaming import streamed

FLOAT_BYTES = 4
WIDTHS = (64, 256, 32, 512, 64)
LOADS = [FLOAT_BYTES * (wide * narrow + narrow) for wide, narrow in pairwise(WIDTHS)]
"""Bytes of each layer. All are multiples of the alignment of loads."""


class Chain(nn.Module):
    """Layers that run one after the other, forwards or backwards."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(WIDTHS))
        self.backwards = False
        self.error: Exception | None = None

    def forward(self, x: Tensor) -> Tensor:
        """[N,64] to [N,64]."""
        if self.backwards:  # each layer by itself, on zeros
            for layer in reversed(self.layers):
                result = layer(torch.zeros(len(x), layer.in_features, device=x.device))  # type: ignore[arg-type]
            return result  # type: ignore[no-any-return]
        for layer in self.layers:
            x = layer(x)
            if self.error is not None:
                raise self.error
        return x


@pytest.fixture
def device() -> Iterator[torch.device]:
    with counted() as device:
        yield device
    assert ledger.current == 0 and Stream.on_the_way == 0


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> list[prefetch.Load]:
    """The loads that were copied only when a layer needed them."""
    found: list[prefetch.Load] = []
    original = prefetch.Fetcher.take

    def spied(self: prefetch.Fetcher, load: prefetch.Load) -> Any:
        found.append(load)
        return original(self, load)

    monkeypatch.setattr(prefetch.Fetcher, "take", spied)
    return found


@torch.inference_mode()
def test_from_the_second_pass_on_each_layer_is_there_when_it_is_asked_for(
    device: torch.device, late: list[prefetch.Load]
) -> None:
    chain, x = Chain(), torch.randn(3, 64)
    plain = chain(x)
    with streamed(chain, device):
        for _ in range(3):
            assert torch.equal(chain(x.to(device)).cpu(), plain)
    assert len(late) == len(LOADS) + 1, "the first pass, and the first layer again, which is not known to follow"


@torch.inference_mode()
def test_by_choice_no_layer_is_there_before_it_is_asked_for(device: torch.device, late: list[prefetch.Load]) -> None:
    chain, x = Chain(), torch.randn(3, 64)
    plain = chain(x)
    with streamed(chain, device, ahead=False), ledger.set():
        for _ in range(3):
            assert torch.equal(chain(x.to(device)).cpu(), plain)
        assert ledger.peak <= max(LOADS) + 8192
    assert len(late) == 3 * len(LOADS)


@torch.inference_mode()
def test_two_loads_that_follow_each_other_are_there_at_once(device: torch.device) -> None:
    chain, x = Chain(), torch.randn(1, 64)
    with streamed(chain, device), ledger.set():
        there = x.to(device)
        chain(there)
        assert max(LOADS) <= ledger.peak <= max(LOADS) + 8192, "nothing is foreseen in the first pass"
        chain(there)
        pairs = [one + other for one, other in pairwise(LOADS)]
        assert max(pairs) <= ledger.peak <= max(pairs) + 8192


@torch.inference_mode()
def test_another_order_is_right_too(device: torch.device) -> None:
    chain, x = Chain(), torch.randn(3, 64)
    forwards = chain(x)
    chain.backwards = True
    backwards = chain(x)
    with streamed(chain, device):
        for way in (False, False, True, False, True, True):
            chain.backwards = way
            assert torch.equal(chain(x.to(device)).cpu(), backwards if way else forwards)


@torch.inference_mode()
def test_where_there_is_no_room_for_two_it_goes_without(device: torch.device, late: list[prefetch.Load]) -> None:
    chain, x = Chain(), torch.randn(1, 64)
    plain = chain(x)
    with streamed(chain, device), ledger.set(cap=max(LOADS) + 8192):
        for _ in range(3):
            assert torch.equal(chain(x.to(device)).cpu(), plain)
    assert len(late) > 2 * len(LOADS)


@torch.inference_mode()
def test_an_error_leaves_nothing_on_the_way(device: torch.device) -> None:
    chain, x = Chain(), torch.randn(1, 64)
    resting = dict(chain.named_parameters())
    with streamed(chain, device):
        chain(x.to(device))
        chain.error = ZeroDivisionError()
        with pytest.raises(ZeroDivisionError):
            chain(x.to(device))
        assert ledger.current > 0, "the second layer is on its way"
        chain.error = None
    assert all(value is resting[name] for name, value in chain.named_parameters())


@torch.inference_mode()
def test_strides_are_kept(device: torch.device) -> None:
    chain, x = Chain(), torch.randn(3, 64)
    chain.layers[1].weight = nn.Parameter(chain.layers[1].weight.t().contiguous().t())
    plain, strides = chain(x), []
    chain.layers[1].register_forward_hook(lambda layer, *_: strides.append(layer.weight.stride()), prepend=True)
    with streamed(chain, device):
        for _ in range(2):
            assert torch.equal(chain(x.to(device)).cpu(), plain)
    assert set(strides) == {chain.layers[1].weight.stride()}


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Weak references to all blocks of pinned memory. Plain memory stands in for it."""
    taken: list[Any] = []

    def pinned(nbytes: int) -> Tensor:
        block = torch.empty(nbytes, dtype=torch.uint8)
        taken.append(weakref.ref(block.untyped_storage()))
        return block

    monkeypatch.setattr(prefetch, "pinned", pinned)
    return taken


@pytest.mark.parametrize("share", [1.0, 0.25, 0.0])
@torch.inference_mode()
def test_pinned_within_a_share_of_the_free_ram(
    device: torch.device, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    taken: list[int] = []

    def pinned(nbytes: int) -> Tensor:
        taken.append(nbytes)
        return torch.empty(nbytes, dtype=torch.uint8)

    class Memory:
        available = int(4 * share * 2**19)

    monkeypatch.setattr(prefetch, "pinned", pinned)
    monkeypatch.setattr(prefetch, "_ARENA_BYTES", 2**18)
    monkeypatch.setattr(psutil, "virtual_memory", Memory)
    chain, x = Chain(), torch.randn(3, 64)
    plain = chain(x)
    with streamed(chain, device):
        for _ in range(3):
            assert torch.equal(chain(x.to(device)).cpu(), plain)
    assert sum(taken) <= share * 2**19 and bool(taken) == (share >= 0.5)
    assert share < 1 or sum(taken) < 1.5 * sum(LOADS), "the last block is only as large as what is left"


@torch.inference_mode()
def test_pinned_weights_are_the_modules_own_and_outlive_the_stream(device: torch.device, blocks: list[Any]) -> None:
    chain, x = Chain(), torch.randn(3, 64)
    plain = chain(x)
    own = [weakref.ref(layer.weight) for layer in chain.layers]
    with streamed(chain, device):
        chain(x.to(device))
        assert not blocks, "a network that runs once pins nothing"
        for _ in range(2):
            chain(x.to(device))
        assert [weight() is None for weight in own] == [True] * len(LOADS), "no second copy is left in RAM"
        assert all(isinstance(weight, nn.Parameter) for weight in chain.parameters())
    assert torch.equal(chain(x), plain), "the same values"
    assert all(block() is not None for block in blocks)
    chain.to("meta")
    assert blocks and all(block() is None for block in blocks), "freed with the last weight"


@torch.inference_mode()
def test_weights_that_others_use_stay_valid(device: torch.device, blocks: list[Any]) -> None:
    chain, x = Chain(), torch.randn(3, 64)
    shared = dict(chain.state_dict())
    before = {name: tensor.clone() for name, tensor in shared.items()}
    with streamed(chain, device):
        for _ in range(3):
            chain(x.to(device))
    chain.to("meta")
    assert blocks and all(torch.equal(tensor, before[name]) for name, tensor in shared.items())


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="only Linux tells which pages are in RAM")
@torch.inference_mode()
def test_a_mapped_file_leaves_ram_while_its_weights_are_pinned(
    device: torch.device, blocks: list[Any], tmp_path: Path
) -> None:
    wide, count, file = 512, 16, tmp_path / "weights.safetensors"
    network = nn.Sequential(*[nn.Linear(wide, wide, bias=False) for _ in range(count)])
    save_file(network.state_dict(), file)
    expected = network(torch.ones(1, wide))
    network.to("meta")
    fill(network, read_safetensors(file), torch.float32, file)
    layers: list[float] = []
    network[-1].register_forward_hook(lambda *_: layers.append(bytes_in_ram(file) / (FLOAT_BYTES * wide * wide)))
    with streamed(network, device):
        for _ in range(3):
            result = network(torch.ones(1, wide, device=device))
    assert torch.equal(result.cpu(), expected)
    assert layers[0] >= count and layers[1] <= 3 and layers[2] == 0, f"layers in RAM after each pass: {layers}"


def bytes_in_ram(file: Path) -> int:
    """Bytes of a mapped file that are in this process's RAM."""
    found, is_its = 0, False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8", errors="replace").splitlines():
        fields = line.split()
        if "-" in fields[0]:
            is_its = fields[-1] == str(file)
        elif fields[0] == "Rss:" and is_its:
            found += 1024 * int(fields[1])
    return found


def test_the_test_device_shows_a_copy_that_nobody_waited_for(device: torch.device) -> None:
    streams = torch.get_device_module(device)
    side, main = streams.Stream(device), streams.current_stream(device)
    there = torch.zeros(3, device=device)
    with pytest.raises(RuntimeError, match="may still be in use"), streams.stream(side):
        there.copy_(torch.ones(3), non_blocking=True)
    side.wait_event(main.record_event())
    with streams.stream(side):
        there.copy_(torch.ones(3), non_blocking=True)
    arrived = side.record_event()
    assert there.cpu().isnan().all()
    main.wait_event(arrived)
    assert torch.equal(there.cpu(), torch.ones(3))


@pytest.mark.parametrize("tensor", [torch.zeros(2, 1).expand(2, 3), torch.zeros(8)[::2]])
def test_a_tensor_with_gaps_or_shared_elements_gets_plain_strides(tensor: Tensor) -> None:
    load = prefetch.Load([{"weight": tensor}])
    (copy,) = load.copy_to(torch.empty(load.nbytes, dtype=torch.uint8))
    assert torch.equal(copy["weight"], tensor) and copy["weight"].is_contiguous()


@torch.inference_mode()
def test_much_unused_memory_is_returned_to_the_device(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the first passes only, because a return takes time."""
    chain, x = Chain(), torch.randn(1, 64)
    monkeypatch.setattr(prefetch, "_RESERVED_BYTES", 64 * 2**20)
    monkeypatch.setattr(prefetch, "_UNUSED_BYTES", 24 * 2**20)
    with streamed(chain, device), ledger.set(cache=CachingAllocator()):
        there, reserved = x.to(device), []
        for _ in range(prefetch._WATCHED_PASSES + 1):
            torch.empty(64 * 2**20, dtype=torch.uint8, device=device)  # dropped at once; torch keeps its memory
            chain(there)
            reserved.append(ledger.reserved)
    assert max(reserved[:-1]) < 64 * 2**20 < reserved[-1]


@pytest.mark.parametrize("name", ["cpu", "meta"])
def test_devices_without_streams_copy_when_asked(name: str) -> None:
    assert type(prefetch.fetcher(torch.device(name))) is prefetch.Fetcher
