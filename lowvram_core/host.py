"""What a stage asks of whoever runs it: a device, models on loan, a place to report to.

`Host.borrow` is the only door to the device. A component carries how to load itself, so that a host
knows no model, and a stage keeps none.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Component:
    """A network that can be borrowed.

    Two components with equal keys are the same weights in the same precision.
    """

    key: str
    """Unique and stable: checkpoint folder, part, precision."""
    label: str
    """For people, e.g. `shape DiT`."""
    weight_bytes: int
    """Bytes of the weights at the precision in which they run."""
    load: Callable[[], nn.Module]
    """Builds the module on the CPU with its weights, in evaluation mode and at its precision."""


class Host(Protocol):
    """Runs stages: the stand-alone host or ComfyUI's."""

    @property
    def device(self) -> torch.device:
        """Where networks compute."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """The precision in which networks run: float16 on a GPU unless the user chose float32."""
        ...

    def borrow(self, component: Component) -> AbstractContextManager[Any]:
        """The component's nn.Module on `device`; given back on success, error and cancel alike."""
        ...

    def step(self, name: str) -> AbstractContextManager[None]:
        """Times one named step and measures its memory. Steps of one host do not nest."""
        ...

    def progress(self, done: int, total: int, preview: Tensor | None = None) -> None:
        """Reports `done` of `total` within the current step; raises Cancelled (or the host's own) on a cancel.

        Args:
            preview: [H,W,3] float32 sRGB 0..1 on any device, or None.
        """
        ...
