"""The stand-alone host: plain torch, no ComfyUI."""

from __future__ import annotations

import gc
import logging
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..errors import BadInput, Cancelled
from ..host import Component
from ..lending.device import free_bytes, memory_of
from ..lending.hosts import LendingHost
from ..lending.prefetch import empty_host_cache
from ..presets import Preset, Residency
from ..report import PhaseRecord

log = logging.getLogger(__name__)

Listener = Callable[[str, int, int], None]
"""Called with the phase, what is done and the total."""
BarListener = Callable[[float, str], None]
"""Called with the bar, 0 to 1, and a line of text; from several threads, but never by two at once."""


def pick_device(name: str | None = None) -> torch.device:
    """The device of that name, cpu or cuda. Without a name: the GPU if there is one, else the CPU.

    Raises:
        BadInput: the device is of another kind, or the machine does not have it.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):
            raise NotImplementedError("it is neither a CPU nor an NVIDIA card")
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise BadInput(
            f"device: {name!r} cannot be used ({str(error).splitlines()[0]}); wanted cpu, cuda or cuda:N on a machine "
            "that has it. Choose another, or leave it out."
        ) from error
    return device


_WEAK_FLOAT16 = ("GTX 16", "T500", "T550", "T600", "T1000", "T1200", "T2000", "MX450", "MX550")
"""Turing cards without tensor cores. Users of Stable Diffusion reported NaN from their float16 convolutions."""


def trusts_float16(device: torch.device) -> bool:
    """Whether networks run in float16 on the device. It is slow on a CPU, and some cards compute it wrongly."""
    if device.type == "cpu":
        return False
    if device.type != "cuda":
        return True
    name = torch.cuda.get_device_name(device)
    old = torch.cuda.get_device_capability(device) < (6, 0)
    return not old and not any(weak in name.split("NVIDIA")[-1] for weak in _WEAK_FLOAT16)


_RESERVED_MIB = {False: 400, True: 600}
"""Memory of a GPU that is left free, by whether the system is Windows.

The driver needs it for kernels that it loads on first use, and other programs need some too. It is more on Windows,
where the driver does not refuse an allocation that does not fit but moves memory to RAM.
Source: ComfyUI's EXTRA_RESERVED_VRAM.
"""


@dataclass
class TorchHost(LendingHost):
    """Lends each component to the stage that runs, and takes it off the device afterwards."""

    device: torch.device = field(default_factory=pick_device)
    precision: torch.dtype | None = None
    """None: see `trusts_float16`."""
    residency: Residency = "free"
    """stream: weights are copied to the device layer by layer. free: a component leaves the device when it is given
    back. keep: it stays there for the next run."""
    on_progress: Listener | None = None
    on_bar: BarListener | None = None
    """Told of the bar of a run that `expect` began."""
    is_cancelled: Callable[[], bool] | None = None
    records: list[PhaseRecord] = field(default_factory=list)
    """One for each finished phase."""
    notes: list[str] = field(default_factory=list)
    """What the user should know about the run, in order."""

    _wanted_bytes: int = 0
    """The largest need of the stage."""
    _kept: dict[str, nn.Module] = field(default_factory=dict)

    @classmethod
    def for_preset(
        cls, preset: Preset, device: torch.device | None = None, precision: torch.dtype | None = None
    ) -> TorchHost:
        """A host with the preset's residency.

        Args:
            device: `pick_device` chooses it if it is None.
            precision: the preset's if it is None.
        """
        chosen = None if preset.precision == "auto" else getattr(torch, preset.precision)
        return cls(device or pick_device(), precision or chosen, preset.residency)

    @property
    def dtype(self) -> torch.dtype:
        """The precision in which networks run."""
        return self.precision or (torch.float16 if trusts_float16(self.device) else torch.float32)

    @contextmanager
    def borrow(self, component: Component) -> Iterator[nn.Module]:
        """The component's module on the device; see Host.

        Raises:
            OutOfMemory: the device is full.
        """
        with self._borrowing(component, streams=self.streams(component)) as loaded:
            yield from self._borrowed(component, loaded)

    def _borrowed(self, component: Component, loaded: Callable[[], None]) -> Iterator[nn.Module]:
        module = self._kept.pop(component.key, None) or component.load()
        if self._kept and memory_of(self.device) is not None:
            self.make_room(self._wanted_bytes)
        try:
            with self._names_full_device(component):
                if self.streams(component):
                    with self._with_streaming(module, component):
                        loaded()
                        yield module
                else:
                    module.to(self.device)
                    loaded()
                    yield module
            if self.residency == "keep" and not self.streams(component):
                self._kept[component.key] = module
        finally:
            if component.key not in self._kept:
                _drop(module)
                self._empty_cache()

    def make_room(self, wanted_bytes: int) -> int | None:
        """Takes kept components off the device, oldest first, until `wanted_bytes` are free; see Host."""
        self._wanted_bytes = wanted_bytes
        free = self._free()
        if free is None or free >= wanted_bytes:  # collecting takes some 0.3 s
            return free
        free = self._collected()
        while self._kept and free is not None and free < wanted_bytes:
            _drop(self._kept.pop(next(iter(self._kept))))
            free = self._collected()
        return free

    def streams(self, component: Component) -> bool:
        """See Host."""
        return self.residency == "stream" or component.key in self._streamed

    def note(self, text: str) -> None:
        """See Host."""
        log.info("%s", text)
        self.notes.append(text)

    def _stop_if_cancelled(self) -> None:
        if self.is_cancelled is not None and self.is_cancelled():
            raise Cancelled(f"{self._phase or 'run'}: cancelled by the user.")

    def _show(self, fraction: float, line: str, preview: Tensor | None) -> None:
        if self.on_bar is not None:
            self.on_bar(fraction, line)

    def _report(self, done: int, total: int, preview: Tensor | None) -> None:
        if self.on_progress is not None:
            self.on_progress(self._phase, done, total)

    def release(self) -> None:
        """Takes everything off the device, including kept components."""
        while self._kept:
            _drop(self._kept.popitem()[1])
        self.collect()

    def collect(self) -> None:
        """Frees what nothing uses any more. Kept components stay."""
        gc.collect()
        self._empty_cache()

    def _collected(self) -> int | None:
        self.collect()
        return self._free()

    def _free(self) -> int | None:
        free = free_bytes(self.device)
        if free is None or self.device.type != "cuda":
            return free
        return max(0, free - _RESERVED_MIB[platform.system() == "Windows"] * 2**20)

    def _empty_cache(self) -> None:
        module = memory_of(self.device)
        if module is not None:
            module.empty_cache()
            empty_host_cache(self.device)


def _drop(module: nn.Module) -> None:
    """Frees the weights now, even if a traceback still holds the module."""
    nn.Module.to(module, "meta")  # a library's own `to` may refuse
