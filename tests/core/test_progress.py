"""Progress: a cancel is seen at every call, and the user hears of it at most ten times a second."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from lowvram_core.app.torch_host import TorchHost
from lowvram_core.errors import Cancelled
from lowvram_core.lending.hosts import LendingHost, Throttle

CPU = torch.device("cpu")


@dataclass
class Clock:
    """A clock that the test sets."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now


def sent(clock: Clock, steps: int, every_s: float, preview_at: int = 0) -> list[int]:
    """The steps that are sent of a phase whose steps take `every_s` each."""
    throttle, found = Throttle(clock), []
    for step in range(1, steps + 1):
        picture = torch.zeros(1, 1, 3) if step == preview_at else None
        if throttle.lets_through(step, steps, picture):
            found.append(step)
        clock.now += every_s
    return found


def test_ten_a_second_and_the_first_and_the_last() -> None:
    found = sent(Clock(), 1000, 1 / 64)
    assert found == [*range(1, 1000, 7), 1000], "7 / 64 s is the first multiple of a step above 0.1 s"


def test_slow_steps_are_all_sent() -> None:
    assert sent(Clock(), 8, 0.125) == list(range(1, 9))


def test_a_preview_is_always_sent() -> None:
    assert sent(Clock(), 50, 0.001, preview_at=7) == [1, 7, 50]


def test_a_count_that_starts_again_is_a_first_one() -> None:
    throttle = Throttle(Clock())
    assert [throttle.lets_through(done, 9, None) for done in (3, 4, 5, 0, 1)] == [True, False, False, True, False]


def test_each_phase_has_its_first_and_last_report(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[tuple[str, int, int]] = []
    monkeypatch.setattr("lowvram_core.lending.hosts.time.monotonic", lambda: 0.0)
    host = TorchHost(CPU, on_progress=lambda *report: heard.append(report))
    for phase in ("one", "two"):
        with host.phase(phase):
            for done in range(1, 6):
                host.progress(done, 5)
    assert heard == [("one", 1, 5), ("one", 5, 5), ("two", 1, 5), ("two", 5, 5)]


def test_a_cancel_is_seen_at_a_call_that_sends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[tuple[str, int, int]] = []
    monkeypatch.setattr("lowvram_core.lending.hosts.time.monotonic", lambda: 0.0)
    cancelled = [False]
    host = TorchHost(CPU, on_progress=lambda *report: heard.append(report), is_cancelled=lambda: cancelled[0])
    with host.phase("decode"):
        host.progress(1, 9)
        host.progress(2, 9)
        cancelled[0] = True
        with pytest.raises(Cancelled, match="decode"):
            host.progress(3, 9)
    assert heard == [("decode", 1, 9)]


def test_both_hosts_share_it() -> None:
    assert TorchHost.progress is LendingHost.progress
