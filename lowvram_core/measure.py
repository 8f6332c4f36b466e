"""One step of a run on the clock and on the scales, for every host alike."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch

from .report import StepRecord


@contextmanager
def measured(name: str, device: torch.device, records: list[StepRecord]) -> Iterator[None]:
    """Appends the step's record when its body ends well; waits for the device, so that its work is counted."""
    on_cuda = device.type == "cuda"
    if on_cuda:
        torch.cuda.reset_peak_memory_stats(device)
    start = time.perf_counter()
    yield
    if on_cuda:
        torch.cuda.synchronize(device)
    records.append(
        StepRecord(
            name,
            time.perf_counter() - start,
            torch.cuda.memory_allocated(device) if on_cuda else None,
            torch.cuda.memory_reserved(device) if on_cuda else None,
            torch.cuda.max_memory_allocated(device) if on_cuda else None,
            psutil.Process().memory_info().rss,
        )
    )
