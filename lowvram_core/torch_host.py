"""The stand-alone host: plain torch, no ComfyUI."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .errors import BadInput, Cancelled, OutOfMemory
from .host import Component
from .measure import measured
from .memory.streaming import streamed
from .presets import Preset, Residency
from .report import StepRecord

Listener = Callable[[str, int, int], None]
"""Called with the step, what is done and the total."""


_WHAT_HELPS = {
    "condition": "Choose --residency stream",
    "sample": "Choose --no-cfg-together, --residency stream or a mini variant",
    "decode": "Lower --points-per-chunk, or choose --residency stream",
    "normals": "Lower --render-px",
    "positions": "Lower --render-px",
    "delight": "Choose --residency stream",
    "multiview": "Choose --no-cfg-together, fewer --views, --vae-slicing or --residency stream",
    "bake": "Lower --render-px or --texture-px",
    "inpaint": "Lower --texture-px",
}
"""By step, what lowers its memory."""


def pick_device(name: str | None = None) -> torch.device:
    """The device of that name, cpu or cuda; without one the GPU if there is one, else the CPU.

    Raises:
        BadInput: it is of another kind, or not there.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):
            raise NotImplementedError("nothing here was made for it")
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

    @classmethod
    def for_preset(
        cls, preset: Preset, device: torch.device | None = None, precision: torch.dtype | None = None
    ) -> TorchHost:
        """A host that keeps weights where the preset says; on `pick_device`'s device if none is given."""
        return cls(device or pick_device(), precision, preset.residency)

    @property
    def dtype(self) -> torch.dtype:
        """The precision in which networks run."""
        return self.precision or (torch.float32 if self.device.type == "cpu" else torch.float16)

    @contextmanager
    def borrow(self, component: Component) -> Iterator[nn.Module]:
        """The component's module on the device; see Host.

        Raises:
            OutOfMemory: the device is full.
        """
        module = self._kept.pop(component.key, None) or component.load()
        try:
            with self._full_device_is_named(f" while the {component.label} is on it"):
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
        """Times the step and measures its memory; see Host.

        Raises:
            OutOfMemory: the device is full.
        """
        self._step = name
        try:
            with self._full_device_is_named(), measured(name, self.device, self.records):
                yield
        finally:
            self._step = ""

    @contextmanager
    def _full_device_is_named(self, when: str = "") -> Iterator[None]:
        """Turns torch's error into ours, without the frames that hold the tensors which filled the device."""
        try:
            yield
        except torch.cuda.OutOfMemoryError as error:
            met = str(error).split(". ")[0].strip()
            traceback.clear_frames(error.__traceback__)
            error.__traceback__ = None
        else:
            return
        step = self._step or "memory"
        advice = _WHAT_HELPS.get(step, "Choose a smaller preset")
        raise OutOfMemory(
            f"{step}: {self.device} is full{when} ({met}); wanted room for this step. {advice}, or close other "
            "programs that use the card."
        ) from None

    def progress(self, done: int, total: int, preview: Tensor | None = None) -> None:
        """Tells the listener, and stops the run if it was cancelled; see Host."""
        if self.on_progress is not None:
            self.on_progress(self._step, done, total)
        if self.is_cancelled is not None and self.is_cancelled():
            raise Cancelled(f"{self._step or 'run'}: cancelled by the user.")

    def release(self) -> None:
        """Takes everything off the device, kept components too."""
        while self._kept:
            _drop(self._kept.popitem()[1])
        self.collect()

    def collect(self) -> None:
        """Gives back what nothing uses any more; kept components stay."""
        gc.collect()
        self._empty_cache()

    def _empty_cache(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def _drop(module: nn.Module) -> None:
    """Frees the weights now, even where a traceback still holds the module."""
    nn.Module.to(module, "meta")  # not the library's own `to`, which may refuse
