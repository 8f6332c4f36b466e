"""What a stage asks of whoever runs it: a device, models on loan, a place to report to.

`Host.borrow` is the only door to the device. A component carries how to load itself, so that a host
knows no model, and a stage keeps none.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
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
    largest_layer_bytes: int = 0
    """The most weights that one layer, or one of `blocks`, has."""
    blocks: str = ""
    """Pattern of the names of submodules that stream as a whole; the batch is the first dimension of what they take."""
    stays: str = ""
    """Pattern of the names of submodules that stay on the device while the rest streams."""


class StreamsByKey:
    """What hosts share: which components' weights pass through the device, and whether the next layer's are sent."""

    _streamed: frozenset[str] = frozenset()
    _ahead = True

    @contextmanager
    def streaming(self, keys: Collection[str], *, ahead: bool = True) -> Iterator[None]:
        """See Host."""
        before = self._streamed, self._ahead
        self._streamed, self._ahead = frozenset(keys), ahead
        try:
            yield
        finally:
            self._streamed, self._ahead = before


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

    def make_room(self, wanted_bytes: int) -> int | None:
        """Moves other models off the device until so much is free; what is free then, None if the device cannot say."""
        ...

    def streaming(self, keys: Collection[str], *, ahead: bool = True) -> AbstractContextManager[None]:
        """Within it, the weights of the components with these keys pass through the device instead of lying there.

        Args:
            ahead: those of the next layer are on their way while one computes, so that two are there at once.
        """
        ...

    def streams(self, component: Component) -> bool:
        """Whether the component's weights pass through the device when it is borrowed now."""
        ...

    def note(self, text: str) -> None:
        """Something that the user should know of the run: logged, and shown with the report."""
        ...

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Times one named step and measures its memory. Steps of one host do not nest."""
        ...

    def progress(self, done: int, total: int, preview: Tensor | None = None) -> None:
        """Reports `done` of `total` within the current step; raises Cancelled (or the host's own) on a cancel.

        Args:
            preview: [H,W,3] float32 sRGB 0..1 on any device, or None.
        """
        ...
