"""What the stand-alone host and ComfyUI's host have in common."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch

from ..host import Component
from ..report import PhaseRecord
from .device import full_device_is_named, measured
from .read_ahead import ReadAhead


class LendingHost:
    """Keeps track of the components that stream and of the phase that runs. See Host."""

    device: torch.device
    records: list[PhaseRecord]
    _streamed: frozenset[str] = frozenset()
    _ahead = True
    _phase = ""
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

    def _read_ahead(self, component: Component) -> None:
        """Called by `borrow` before it loads the component."""
        if self._reader is not None:
            self._reader.borrows(component)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measures the time and memory of a phase; see Host.

        Raises:
            OutOfMemory: the device is full.
        """
        self._phase = name
        try:
            with full_device_is_named(self.device, name), measured(name, self.device, self.records):
                yield
        finally:
            self._phase = ""

    def record(self, record: PhaseRecord) -> None:
        """See Host."""
        self.records.append(record)

    def _names_full_device(self, component: Component) -> AbstractContextManager[None]:
        """Within it, torch's out-of-memory error becomes an OutOfMemory that names the phase and the component."""
        return full_device_is_named(self.device, self._phase, f" while the {component.label} is on it")
