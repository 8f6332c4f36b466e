"""The stand-alone host: plain torch, no ComfyUI."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psutil
import torch
from torch import Tensor, nn

from .errors import BadInput, Cancelled
from .host import Component
from .memory.streaming import streamed
from .presets import Residency
from .report import StepRecord

Listener = Callable[[str, int, int], None]
"""Called with the step, what is done and the total."""


def pick_device(name: str | None = None) -> torch.device:
    """The device of that name; without one the GPU if there is one, else the CPU.

    Raises:
        BadInput: torch does not know the device, or it is not there.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise BadInput(
            f"device: {name!r} cannot be used ({str(error).splitlines()[0]}); wanted cpu, cuda or cuda:N on a machine "
            "that has it. Choose another, or leave it out."
        ) from error
    return device


@dataclass
class TorchHost:
    """Lends each component for its step and takes it off the device after."""

    device: torch.device = field(default_factory=pick_device)
    precision: torch.dtype | None = None
    """None: float16 on a GPU, float32 on the CPU."""
    residency: Residency = "free"
    """stream: weights pass through the device; free: off it after each step; keep: there for the next run."""
    on_progress: Listener | None = None
    is_cancelled: Callable[[], bool] | None = None
    records: list[StepRecord] = field(default_factory=list)
    """One per finished step, since the host was made or the list was last cleared."""

    _step: str = ""
    _kept: dict[str, nn.Module] = field(default_factory=dict)

    @property
    def dtype(self) -> torch.dtype:
        """The precision in which networks run."""
        return self.precision or (torch.float32 if self.device.type == "cpu" else torch.float16)

    @contextmanager
    def borrow(self, component: Component) -> Iterator[nn.Module]:
        """The component's module on the device; see Host."""
        module = self._kept.pop(component.key, None) or component.load()
        try:
            if self.residency == "stream":
                with streamed(module, self.device):
                    yield module
            else:
                yield module.to(self.device)
            if self.residency == "keep":
                self._kept[component.key] = module
        finally:
            if component.key not in self._kept:
                _drop(module)
                self._empty_cache()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Times the step and measures its memory; see Host."""
        self._step = name
        on_cuda = self.device.type == "cuda"
        if on_cuda:
            torch.cuda.reset_peak_memory_stats(self.device)
        start = time.perf_counter()
        yield
        if on_cuda:
            torch.cuda.synchronize(self.device)
        self.records.append(
            StepRecord(
                name,
                time.perf_counter() - start,
                torch.cuda.memory_allocated(self.device) if on_cuda else None,
                torch.cuda.memory_reserved(self.device) if on_cuda else None,
                torch.cuda.max_memory_allocated(self.device) if on_cuda else None,
                psutil.Process().memory_info().rss,
            )
        )

    def progress(self, done: int, total: int, preview: Tensor | None = None) -> None:
        """Tells the listener, and stops the run if it was cancelled; see Host."""
        if self.on_progress is not None:
            self.on_progress(self._step, done, total)
        if self.is_cancelled is not None and self.is_cancelled():
            raise Cancelled(f"{self._step}: cancelled by the user.")

    def release(self) -> None:
        """Takes everything off the device, kept components too."""
        while self._kept:
            _drop(self._kept.popitem()[1])
        gc.collect()
        self._empty_cache()

    def _empty_cache(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def _drop(module: nn.Module) -> None:
    """Frees the weights now, even where a traceback still holds the module."""
    nn.Module.to(module, "meta")  # not the library's own `to`, which may refuse
