"""What a stage needs from the program that runs it: a device, networks on loan, and reports of progress.

`Host.borrow` is the only way to the device. A component knows how to load itself. So a host knows no model, and a
stage keeps none.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from .report import PhaseRecord


@dataclass(frozen=True)
class FilePart:
    """A range of bytes in a file."""

    path: Path
    start: int
    nbytes: int


@dataclass(frozen=True)
class Component:
    """A network that can be borrowed.

    Two components with equal keys have the same weights in the same precision.
    """

    key: str
    """Unique and stable: checkpoint folder, part, precision."""
    label: str
    """For messages, e.g. `shape DiT`."""
    weight_bytes: int
    """Size of the weights in the precision in which the network runs."""
    load: Callable[[], nn.Module]
    """Builds the module on the CPU with its weights, in evaluation mode and in that precision."""
    largest_layer_bytes: int = 0
    """Size of the weights of the largest layer, or of the largest of `blocks`."""
    blocks: str = ""
    """Pattern of the names of submodules. When weights stream, all layers of such a block are copied together."""
    batched: tuple[str, ...] = ()
    """Arguments of the blocks' `forward` whose first dimension is the batch; see lending/halves.py."""
    stays: str = ""
    """Pattern of the names of submodules that stay on the device while the other weights stream."""
    files: tuple[FilePart, ...] = ()
    """What `load` reads, so that a host can read it ahead."""


class Host(Protocol):
    """Runs stages: the stand-alone host or ComfyUI's."""

    @property
    def device(self) -> torch.device:
        """Where networks compute."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """The precision in which networks run: float16 on a GPU unless the user chose another."""
        ...

    def borrow(self, component: Component) -> AbstractContextManager[Any]:
        """The component's nn.Module on `device`. It is given back after success, an error or a cancel."""
        ...

    def reading_ahead(self, components: Sequence[Component]) -> AbstractContextManager[None]:
        """Within it, the files of the next components are read while one computes, as far as the RAM allows.

        Results do not depend on it. Inside another `reading_ahead` it does nothing, because the outer plan goes on.

        Args:
            components: in the order in which they will be borrowed.
        """
        ...

    def make_room(self, wanted_bytes: int) -> int | None:
        """Moves other models off the device until `wanted_bytes` are free.

        Returns:
            The bytes that are free then, or None where the device does not report it.
        """
        ...

    def streaming(self, keys: Collection[str], *, ahead: bool = True) -> AbstractContextManager[None]:
        """Within it, the weights of the components with these keys stream.

        Streamed weights stay off the device, and each layer's weights are copied to it when the layer runs.

        Args:
            ahead: prefetch, which copies the next layer's weights while a layer computes. Two layers' weights are then
                on the device at once.
        """
        ...

    def streams(self, component: Component) -> bool:
        """Whether the component's weights stream if it is borrowed now."""
        ...

    def note(self, text: str) -> None:
        """Logs something that the user should know about the run, and shows it in the report."""
        ...

    def tell(self, text: str) -> None:
        """Shows a short line about what is going on."""

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Measures the time and memory of a named phase. Phases of one host do not nest."""
        ...

    def record(self, record: PhaseRecord) -> None:
        """Adds a phase that another thread measured."""
        ...

    def progress(self, done: int, total: int, preview: Tensor | None = None) -> None:
        """Reports `done` of `total` within the current phase.

        Args:
            preview: [H,W,3] float32 sRGB 0..1 on any device, or None.

        Raises:
            Cancelled: the user cancelled; a host may raise its own exception instead.
        """
        ...
