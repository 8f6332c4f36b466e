"""One step of a run on the clock and on the scales, for every host alike; and a device that is full."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ..errors import OutOfMemory
from ..report import PhaseRecord


@contextmanager
def measured(name: str, device: torch.device, records: list[PhaseRecord]) -> Iterator[None]:
    """Appends the step's record when its body ends well; waits for the device, so that its work is counted."""
    import psutil  # here, so that a missing package costs the run and not the import of the pack

    scales = memory_of(device)
    if scales is not None:
        if hasattr(scales, "init"):
            scales.init()  # torch resets no peak on a device that nothing has used yet
        scales.reset_peak_memory_stats(device)
    start = time.perf_counter()
    yield
    if scales is not None:
        scales.synchronize(device)
    records.append(
        PhaseRecord(
            name,
            time.perf_counter() - start,
            None if scales is None else scales.memory_allocated(device),
            None if scales is None else scales.memory_reserved(device),
            None if scales is None else scales.max_memory_allocated(device),
            psutil.Process().memory_info().rss,
        )
    )


def memory_of(device: torch.device) -> Any:
    """torch's module for that device, such as torch.cuda; None where it does not count memory, as on the CPU."""
    if device.type in ("cpu", "meta"):
        return None
    try:
        module = torch.get_device_module(device)
    except RuntimeError:  # torch knows none, as for DirectML
        return None
    return module if hasattr(module, "max_memory_allocated") else None


def free_bytes(device: torch.device) -> int | None:
    """What the device can still take, what torch keeps for reuse included; None where it does not tell."""
    scales = memory_of(device)
    if scales is None or not hasattr(scales, "mem_get_info"):
        return None
    free, total = scales.mem_get_info(device)
    reserved = scales.memory_reserved(device)
    share = getattr(scales, "get_per_process_memory_fraction", None)
    if share is not None:
        index = scales.current_device() if device.index is None else device.index
        free = min(free, int(share(index) * total) - reserved)
    return max(0, int(free + reserved - scales.memory_allocated(device)))


_FULL = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
"""In the errors of the driver, of its libraries and of Apple's GPUs, which are not torch.OutOfMemoryError."""


def is_full(error: BaseException) -> bool:
    """Whether an error says that a device has no memory left."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _FULL)


@contextmanager
def full_device_is_named(device: torch.device, step: str, when: str = "") -> Iterator[None]:
    """Turns torch's error into ours, without the frames that hold the tensors which filled the device.

    Raises:
        OutOfMemory: the device is full.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_full(error):
            raise
        met = str(error).split(". ")[0].strip()
        traceback.clear_frames(error.__traceback__)
        error.__traceback__ = None
    else:
        return
    raise OutOfMemory(f"{step or 'memory'}: {device} is full{when} ({met}); wanted room for this step.") from None
