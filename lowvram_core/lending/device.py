"""The memory of a device: measured during a phase, free now, or full. For every host."""

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
    """Measures the phase in the `with` and appends its record, unless the phase ends with an error.

    It waits until the device has finished the work of the phase.
    """
    import psutil  # here, so that a missing package stops the run and not the import of the pack

    memory = memory_of(device)
    if memory is not None:
        if hasattr(memory, "init"):
            memory.init()  # torch cannot reset the peak of a device that nothing has used yet
        memory.reset_peak_memory_stats(device)
    start = time.perf_counter()
    yield
    if memory is not None:
        memory.synchronize(device)
    records.append(
        PhaseRecord(
            name,
            time.perf_counter() - start,
            None if memory is None else memory.memory_allocated(device),
            None if memory is None else memory.memory_reserved(device),
            None if memory is None else memory.max_memory_allocated(device),
            psutil.Process().memory_info().rss,
        )
    )


def memory_of(device: torch.device) -> Any:
    """torch's module for the device, such as torch.cuda. None if it does not count memory, as on the CPU."""
    if device.type in ("cpu", "meta"):
        return None
    try:
        module = torch.get_device_module(device)
    except RuntimeError:  # torch has no module for it, as for DirectML
        return None
    return module if hasattr(module, "max_memory_allocated") else None


def name_of(device: torch.device) -> str:
    """The card's name, or the kind of the device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def free_bytes(device: torch.device) -> int | None:
    """Bytes that can still be allocated, including those that torch keeps for reuse.

    None if the device does not report its free memory.
    """
    memory = memory_of(device)
    if memory is None or not hasattr(memory, "mem_get_info"):
        return None
    free, total = memory.mem_get_info(device)
    reserved = memory.memory_reserved(device)
    share = getattr(memory, "get_per_process_memory_fraction", None)
    if share is not None:
        index = memory.current_device() if device.index is None else device.index
        free = min(free, int(share(index) * total) - reserved)
    return max(0, int(free + reserved - memory.memory_allocated(device)))


def free_ram_bytes() -> int:
    """Bytes of RAM that programs can still take without swapping."""
    import psutil  # here, so that a missing package stops the run and not the import of the pack

    return int(psutil.virtual_memory().available)


_ALSO_FULL = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
"""Messages of NVIDIA's driver and libraries that accelerate does not know."""


def is_full(error: BaseException) -> bool:
    """Whether an error says that a device, or the RAM, has no free memory left."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    if not isinstance(error, RuntimeError):
        return False
    from accelerate.utils.memory import should_reduce_batch_size  # here, because the import is slow

    text = str(error)
    # accelerate looks only at errors with one argument, and that must be a text
    return bool(should_reduce_batch_size(RuntimeError(text))) or any(known in text for known in _ALSO_FULL)


@contextmanager
def full_device_is_named(device: torch.device, name: str, when: str = "") -> Iterator[None]:
    """Turns torch's out-of-memory error into ours.

    It also frees the tensors that the frames of torch's error keep alive.

    Args:
        name: the phase or stage, for the message.
        when: more for the message, after "is full".

    Raises:
        OutOfMemory: the device is full.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_full(error):
            raise
        full = "the RAM" if "DefaultCPUAllocator" in str(error) else device
        met = str(error).split(". ")[0].strip()
        traceback.clear_frames(error.__traceback__)
        error.__traceback__ = None
    else:
        return
    raise OutOfMemory(f"{name or 'memory'}: {full} is full{when} ({met}); wanted free memory.") from None
