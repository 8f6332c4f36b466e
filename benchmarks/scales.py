"""Where a benchmark's memory is weighed: a device that only counts, or a GPU."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from caching import CachingAllocator
from counted import counted
from ledger import ledger
from torch import nn

from lowvram_core.app.torch_host import TorchHost
from lowvram_core.host import Component

GIB = 2**30
WITHOUT_VALUES = 1 << 14
"""Elements past which a tensor of the counting device has none."""
GEOMETRY = ("normals", "positions", "resize", "bake", "inpaint")
"""Steps whose memory depends on values, and which are small enough to be computed."""


class Scale(Protocol):
    """What a benchmark asks of a device to weigh on."""

    device: torch.device
    name: str
    """As the results say it."""

    def weighing(self, cap_gib: float | None = None) -> AbstractContextManager[None]:
        """The device as if it had so much memory in all."""
        ...

    def host(self, **settings: Any) -> WeighingHost:
        """The stand-alone host on the device."""
        ...

    def reset(self, *, empty: bool = True) -> None:
        """Forgets the peaks, and gives back what the allocator keeps for reuse unless told not to."""
        ...

    def peak_mib(self) -> dict[str, float]:
        """The most since the reset, by kind: allocated, reserved and, where there is one, of the whole device."""
        ...


@dataclass
class WeighingHost(TorchHost):
    """The stand-alone host, with the peaks of each step that its records leave out."""

    scale: Scale | None = None
    beside: dict[str, dict[str, float]] = field(default_factory=dict)
    """MiB by step and kind."""

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        assert self.scale is not None
        self.scale.reset(empty=False)
        with super().phase(name):
            yield
        before, peaks = self.beside.get(name, {}), self.scale.peak_mib()
        self.beside[name] = {kind: max(value, before.get(kind, 0.0)) for kind, value in peaks.items()}


class CountingScale:
    """The published sizes on a device that counts bytes and computes geometry only: exact peaks of tensors."""

    name = "computed: bytes of tensors, fused attention; reserved as torch's allocator would; no context, no workspaces"
    device: torch.device

    @contextmanager
    def weighing(self, cap_gib: float | None = None) -> Iterator[None]:
        """The device, with so much memory."""
        cap = None if cap_gib is None else int(cap_gib * GIB)
        with counted() as self.device, ledger.set(cap=cap, limit=WITHOUT_VALUES, cache=CachingAllocator()):
            yield

    def host(self, **settings: Any) -> SizingHost:
        """The stand-alone host on the device."""
        return SizingHost(self.device, torch.float16, scale=self, **settings)

    def reset(self, *, empty: bool = True) -> None:
        """See Scale."""
        if empty:
            torch.get_device_module(self.device).empty_cache()
        ledger.reset_peak()

    def peak_mib(self) -> dict[str, float]:
        """The most since the reset: alive, and reserved."""
        return {"allocated": ledger.peak / 2**20, "reserved": ledger.reserved_peak / 2**20}


@dataclass
class SizingHost(WeighingHost):
    """Geometry is computed, networks are followed; the peak while each component was lent is kept."""

    peaks: dict[str, int] = field(default_factory=dict)
    """Bytes by the component's key, its weights included."""
    reserved_peaks: dict[str, int] = field(default_factory=dict)
    """The same of what is reserved."""

    @contextmanager
    def borrow(self, component: Component) -> Iterator[nn.Module]:
        outer = ledger.peak, ledger.reserved_peak
        ledger.reset_peak()
        with super().borrow(component) as module:
            yield module
        self.peaks[component.key] = max(ledger.peak, self.peaks.get(component.key, 0))
        self.reserved_peaks[component.key] = max(ledger.reserved_peak, self.reserved_peaks.get(component.key, 0))
        ledger.raise_peak(*outer)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        limit, ledger.limit = ledger.limit, None if name in GEOMETRY else WITHOUT_VALUES
        try:
            with super().phase(name):
                yield
        finally:
            ledger.limit = limit


class GpuScale:
    """A GPU under a hard cap."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.used = 0
        """The most that was in use of the whole device since it was set to 0, its context and other programs too."""
        self._gone = 0
        """In use by others than torch when weighing began."""
        self._gpu = torch.get_device_module(device)
        self.name: str = self._gpu.get_device_name(device)
        _warm_up(device)

    @contextmanager
    def weighing(self, cap_gib: float | None = None) -> Iterator[None]:
        """The GPU as if it had so much memory in all, of which what is in use by now is gone."""
        gc.collect()
        self._gpu.empty_cache()
        free, total = self._gpu.mem_get_info(self.device)
        self._gone = total - free - self._gpu.memory_reserved(self.device)
        share = 1.0 if cap_gib is None else max(0.0, min(1.0, (cap_gib * GIB - self._gone) / total))
        self._gpu.set_per_process_memory_fraction(share, self.device)
        over = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(over,), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()
            self._gpu.set_per_process_memory_fraction(1.0, self.device)

    def _watch(self, over: threading.Event) -> None:
        while not over.wait(0.02):
            self._look()

    def _look(self) -> None:
        free, total = self._gpu.mem_get_info(self.device)
        self.used = max(self.used, total - free)

    def host(self, **settings: Any) -> WeighingHost:
        """The stand-alone host on the GPU."""
        return WeighingHost(self.device, torch.float16, scale=self, **settings)

    def reset(self, *, empty: bool = True) -> None:
        """See Scale."""
        self._gpu.synchronize(self.device)
        if empty:
            self._gpu.empty_cache()
        self._gpu.reset_peak_memory_stats(self.device)
        self.used = 0

    def peak_mib(self) -> dict[str, float]:
        """The most since the reset: allocated, reserved, and used of the whole device."""
        self._gpu.synchronize(self.device)
        self._look()
        reserved = self._gpu.max_memory_reserved(self.device)
        device = max(self.used, self._gone + reserved)  # a peak may pass between two looks
        peaks = self._gpu.max_memory_allocated(self.device), reserved, device
        return dict(zip(("allocated", "reserved", "device"), (peak / 2**20 for peak in peaks), strict=True))


def _warm_up(device: torch.device) -> None:
    """Loads the libraries of matrices and convolutions, so that no measured step pays for them."""
    picture = torch.ones(1, 8, 16, 16, device=device, dtype=torch.float16)
    torch.nn.functional.conv2d(picture, torch.ones(8, 8, 3, 3, device=device, dtype=torch.float16))
    torch.nn.functional.scaled_dot_product_attention(picture, picture, picture)
