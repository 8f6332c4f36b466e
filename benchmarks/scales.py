"""Where a benchmark's memory is weighed: a device that only counts, or a GPU."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from counted import counted, ledger
from torch import nn

from lowvram_core.host import Component
from lowvram_core.torch_host import TorchHost

GIB = 2**30
WITHOUT_VALUES = 1 << 14
"""Elements past which a tensor of the counting device has none."""
GEOMETRY = ("normals", "positions", "resize", "bake", "inpaint")
"""Steps whose memory depends on values, and which are small enough to be computed."""


class CountingScale:
    """The published sizes on a device that counts bytes and computes geometry only: exact peaks of tensors."""

    name = "computed: bytes of tensors, fused attention, no allocator and no workspaces"
    device: torch.device

    @contextmanager
    def weighing(self, cap_gib: float | None = None) -> Iterator[None]:
        """The device, with so much memory."""
        cap = None if cap_gib is None else int(cap_gib * GIB)
        with counted() as self.device, ledger.set(cap=cap, limit=WITHOUT_VALUES):
            yield

    def host(self, **settings: Any) -> SizingHost:
        """The stand-alone host on the device."""
        return SizingHost(self.device, torch.float16, **settings)

    def reset(self) -> None:
        """Forgets the peak."""
        ledger.peak = ledger.current

    def peak_mib(self) -> dict[str, float]:
        """The most that was alive since the reset."""
        return {"allocated": ledger.peak / 2**20}


@dataclass
class SizingHost(TorchHost):
    """Geometry is computed, networks are followed; the peak while each component was lent is kept."""

    peaks: dict[str, int] = field(default_factory=dict)
    """Bytes by the component's key, its weights included."""

    @contextmanager
    def borrow(self, component: Component) -> Iterator[nn.Module]:
        outer, ledger.peak = ledger.peak, ledger.current
        with super().borrow(component) as module:
            yield module
        self.peaks[component.key] = max(ledger.peak, self.peaks.get(component.key, 0))
        ledger.peak = max(ledger.peak, outer)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        limit, ledger.limit = ledger.limit, None if name in GEOMETRY else WITHOUT_VALUES
        try:
            with super().step(name):
                yield
        finally:
            ledger.limit = limit


class CudaScale:
    """A GPU under a hard cap."""

    def __init__(self) -> None:
        self.device = torch.device("cuda")
        self.name = torch.cuda.get_device_name(self.device)
        self._used = 0
        self._watching = False

    @contextmanager
    def weighing(self, cap_gib: float | None = None) -> Iterator[None]:
        """The GPU, of whose memory this process may take so much."""
        total = torch.cuda.mem_get_info(self.device)[1]
        share = 1.0 if cap_gib is None else min(1.0, cap_gib * GIB / total)
        torch.cuda.set_per_process_memory_fraction(share, self.device)
        self._watching = True
        watcher = threading.Thread(target=self._watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            self._watching = False
            watcher.join()
            torch.cuda.set_per_process_memory_fraction(1.0, self.device)

    def _watch(self) -> None:
        """Device-wide use, the context and other processes included, every 5 ms."""
        stop = threading.Event()
        while self._watching:
            free, total = torch.cuda.mem_get_info(self.device)
            self._used = max(self._used, total - free)
            stop.wait(0.005)

    def host(self, **settings: Any) -> TorchHost:
        """The stand-alone host on the GPU."""
        return TorchHost(self.device, torch.float16, **settings)

    def reset(self) -> None:
        """Forgets the peaks."""
        torch.cuda.synchronize(self.device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self.device)
        self._used = 0

    def peak_mib(self) -> dict[str, float]:
        """The most since the reset: allocated, reserved, and used of the whole device."""
        torch.cuda.synchronize(self.device)
        peaks = (
            torch.cuda.max_memory_allocated(self.device), torch.cuda.max_memory_reserved(self.device), self._used,
        )  # fmt: skip
        return dict(zip(("allocated", "reserved", "device"), (peak / 2**20 for peak in peaks), strict=True))
