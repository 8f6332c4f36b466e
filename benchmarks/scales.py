"""The devices on which benchmarks measure memory: one that only counts bytes, or a GPU."""

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
"""A tensor of the counting device with more elements than this has no values."""
GEOMETRY = ("normals", "positions", "resize", "bake", "inpaint")
"""Phases whose memory depends on values. They are computed; they are small enough."""


class Scale(Protocol):
    """A device on which a benchmark measures memory."""

    device: torch.device
    name: str
    """For the results."""

    def weighing(self, cap_gib: float | None = None) -> AbstractContextManager[None]:
        """Within it, the device has `cap_gib` of memory."""
        ...

    def host(self, **settings: Any) -> WeighingHost:
        """Returns the stand-alone host on the device."""
        ...

    def reset(self, *, empty: bool = True) -> None:
        """Resets the peaks. With `empty` it also empties the allocator's cache."""
        ...

    def peak_mib(self) -> dict[str, float]:
        """Peaks since the reset: allocated, reserved and, on a GPU, of the whole device."""
        ...


@dataclass
class WeighingHost(TorchHost):
    """The stand-alone host, with peaks of each phase that its records do not have."""

    scale: Scale | None = None
    beside: dict[str, dict[str, float]] = field(default_factory=dict)
    """MiB by phase and kind."""

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        assert self.scale is not None
        self.scale.reset(empty=False)
        with super().phase(name):
            yield
        before, peaks = self.beside.get(name, {}), self.scale.peak_mib()
        self.beside[name] = {kind: max(value, before.get(kind, 0.0)) for kind, value in peaks.items()}


class CountingScale:
    """A device that counts bytes and computes only geometry: exact peaks of tensors at the published sizes."""

    name = (
        "computed: bytes of tensors, fused attention; reserved as torch's allocator would, with the workspaces of "
        "cuBLAS and cuDNN; no context"
    )
    device: torch.device

    @contextmanager
    def weighing(self, cap_gib: float | None = None) -> Iterator[None]:
        """See Scale."""
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
        """Peaks since the reset: allocated and reserved."""
        return {"allocated": ledger.peak / 2**20, "reserved": ledger.reserved_peak / 2**20}


@dataclass
class SizingHost(WeighingHost):
    """Computes geometry, runs networks without values, and keeps the peak while each component was lent."""

    peaks: dict[str, int] = field(default_factory=dict)
    """Bytes by the component's key, with its weights."""
    reserved_peaks: dict[str, int] = field(default_factory=dict)
    """The same for reserved memory."""

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
    """A GPU with a hard memory limit."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.used = 0
        """The peak of the whole device, with its context and other programs, since it was set to 0."""
        self._gone = 0
        """Bytes that others than torch used when the measurement began."""
        self._gpu = torch.get_device_module(device)
        self.name: str = self._gpu.get_device_name(device)
        _warm_up(device)

    @contextmanager
    def weighing(self, cap_gib: float | None = None) -> Iterator[None]:
        """Within it, the GPU has `cap_gib` of memory. What is in use already counts."""
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
        """Peaks since the reset: allocated, reserved, and of the whole device."""
        self._gpu.synchronize(self.device)
        self._look()
        reserved = self._gpu.max_memory_reserved(self.device)
        device = max(self.used, self._gone + reserved)  # the watcher can miss a short peak
        peaks = self._gpu.max_memory_allocated(self.device), reserved, device
        return dict(zip(("allocated", "reserved", "device"), (peak / 2**20 for peak in peaks), strict=True))


def _warm_up(device: torch.device) -> None:
    """Loads the libraries for matrices and convolutions, so that no measured phase includes it."""
    picture = torch.ones(1, 8, 16, 16, device=device, dtype=torch.float16)
    torch.nn.functional.conv2d(picture, torch.ones(8, 8, 3, 3, device=device, dtype=torch.float16))
    torch.nn.functional.scaled_dot_product_attention(picture, picture, picture)
