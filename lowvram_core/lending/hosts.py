"""What the stand-alone host and ComfyUI's host have in common."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

from ..host import Component
from ..report import DOWNLOAD, PhaseRecord
from .device import full_device_is_named, measured
from .read_ahead import ReadAhead
from .shown import ShownProgress
from .streaming import streamed

REPORT_EVERY_S = 0.1
"""Progress is reported at most once in this time."""


@dataclass
class Throttle:
    """Chooses the reports of progress that are sent.

    Args:
        clock: seconds from any start.
    """

    clock: Callable[[], float]
    _sent: float | None = None
    _done: int = 0

    def lets_through(self, done: int, total: int, preview: Tensor | None) -> bool:
        """Whether to send a report: the first and last one of a phase, those with a preview, and ten a second."""
        now = self.clock()
        is_first = self._sent is None or done < self._done  # the next phase counts from 0 again
        self._done = done
        due = self._sent is None or now - self._sent >= REPORT_EVERY_S
        if not (is_first or due or done >= total or preview is not None):
            return False
        self._sent = now
        return True


class LendingHost(ShownProgress):
    """Keeps track of the components that stream and of the phase that runs. See Host."""

    records: list[PhaseRecord]
    _streamed: frozenset[str] = frozenset()
    _ahead = True
    _phase = ""
    _throttle: Throttle | None = None
    _reader: ReadAhead | None = None

    @contextmanager
    def streaming(self, keys: Collection[str], *, ahead: bool = True) -> Iterator[None]:
        """See Host."""
        before = self._streamed, self._ahead
        self._streamed, self._ahead = frozenset(keys), ahead
        try:
            yield
        finally:
            self._streamed, self._ahead = before

    @contextmanager
    def reading_ahead(self, components: Sequence[Component]) -> Iterator[None]:
        """See Host."""
        if self._reader is not None:
            yield
            return
        self._reader = ReadAhead(components)
        try:
            yield
        finally:
            self._reader.close()
            self._reader = None

    @contextmanager
    def _borrowing(self, component: Component, *, streams: bool) -> Iterator[Callable[[], None]]:
        """Around all that `borrow` does.

        Yields:
            What `borrow` calls when the component is loaded.
        """
        if self._reader is not None:
            self._reader.borrows(component)
        with self._shown_borrow(component, streams=streams) as loaded:
            yield loaded

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measures the time and memory of a phase; see Host.

        Raises:
            OutOfMemory: the device is full.
        """
        self._phase = name
        self._throttle = None
        self._download_bytes = 0
        try:
            with (
                self._part(name),
                full_device_is_named(self.device, name),
                measured(name, self.device, self.records),
            ):
                yield
        finally:
            self._phase = ""

    def record(self, record: PhaseRecord) -> None:
        """See Host."""
        self.records.append(record)

    def _names_full_device(self, component: Component) -> AbstractContextManager[None]:
        """Within it, torch's out-of-memory error becomes an OutOfMemory that names the phase and the component."""
        return full_device_is_named(self.device, self._phase, f" while the {component.label} is on it")

    def _with_streaming(self, module: nn.Module, component: Component) -> AbstractContextManager[nn.Module]:
        """Within it, the module's weights stream."""
        return streamed(module, self.device, blocks=component.blocks, stays=component.stays, ahead=self._ahead)

    def progress(self, done: int, total: int, preview: Tensor | None = None) -> None:
        """Looks for a cancel at every call, and sends the report at most ten times a second; see Host.

        The first and the last report of a phase and those with a preview are always sent.

        Raises:
            Cancelled: the user cancelled. ComfyUI's host raises ComfyUI's own exception.
        """
        self._stop_if_cancelled()
        if self._phase == DOWNLOAD:
            self._plan_download(total)
        if self._throttle is None:
            self._throttle = Throttle(time.monotonic)
        sends = self._throttle.lets_through(done, total, preview)
        with self._changing(preview, shows=sends) as bar:
            bar.at(done, total)
        if sends:
            self._report(done, total, preview)

    def _stop_if_cancelled(self) -> None:
        raise NotImplementedError

    def _report(self, done: int, total: int, preview: Tensor | None) -> None:
        """Sends a report about the running phase; a host that shows only the bar does nothing here."""
