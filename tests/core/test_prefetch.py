"""Prefetch: the right weights in time, at most two loads at once, and nothing left at the end.

The device counts bytes. Its stream for copies runs as late as possible: a tensor that nobody waited for is NaN, and a
copy to memory that may still be in use fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import psutil
import pytest
import torch
from counted import Stream, counted, ledger
from torch import Tensor, nn

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
def test_strides_that_a_block_cannot_keep_are_copied_as_they_are(device: torch.device) -> None:
    chain, x = Chain(), torch.randn(3, 64)
    chain.layers[1].weight = nn.Parameter(chain.layers[1].weight.t().contiguous().t())
    plain, strides = chain(x), []
    chain.layers[1].register_forward_hook(lambda layer, *_: strides.append(layer.weight.stride()), prepend=True)
    with streamed(chain, device):
        for _ in range(2):
            assert torch.equal(chain(x.to(device)).cpu(), plain)
    assert set(strides) == {chain.layers[1].weight.stride()}


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
        available = int(4 * share * 2**18)

    given_back: list[bool] = []
    monkeypatch.setattr(prefetch, "pinned", pinned)
    monkeypatch.setattr(prefetch, "empty_host_cache", lambda: given_back.append(True))
    monkeypatch.setattr(prefetch, "_ARENA_BYTES", 2**17)
    monkeypatch.setattr(psutil, "virtual_memory", Memory)
    chain, x = Chain(), torch.randn(3, 64)
    plain = chain(x)
    with streamed(chain, device):
        for _ in range(3):
            assert torch.equal(chain(x.to(device)).cpu(), plain)
    assert sum(taken) <= share * 2**18 and bool(taken) == bool(given_back) == (share >= 0.5)


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


@pytest.mark.parametrize("name", ["cpu", "meta"])
def test_devices_without_streams_copy_when_asked(name: str) -> None:
    assert type(prefetch.fetcher(torch.device(name))) is prefetch.Fetcher
