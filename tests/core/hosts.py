"""A host for tests: it runs on the CPU, records its calls and can cancel a run."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from lowvram_core.errors import Cancelled
from lowvram_core.host import Component
from lowvram_core.report import PhaseRecord


@dataclass
class RecordingHost:
    """Lends freshly loaded modules and records every call."""

    cancel_after: int | None = None
    """Number of progress reports before the next one raises Cancelled. None: never."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32
    phases: list[str] = field(default_factory=list)
    """Names of the phases that were started, in order."""
    finished: list[str] = field(default_factory=list)
    """Names of the phases that ended without an error."""
    borrowed: list[str] = field(default_factory=list)
    """Keys of the components that were lent, in order."""
    out: list[str] = field(default_factory=list)
    """Keys of the components that are lent now."""
    most_out: int = 0
    reports: list[tuple[str | None, int, int]] = field(default_factory=list)
    """(phase, done, total) of every progress report that did not cancel."""
    previews: list[Tensor] = field(default_factory=list)
    plans: list[list[str]] = field(default_factory=list)
    """Labels of the components that the host was told of, by call."""
    notes: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    current: str | None = None

    @contextmanager
    def borrow(self, component: Component) -> Iterator[nn.Module]:
        """Loads the component again and counts it as lent until the `with` ends."""
        self.borrowed.append(component.key)
        self.out.append(component.key)
        self.most_out = max(self.most_out, len(self.out))
        try:
            yield component.load().to(self.device)
        finally:
            self.out.remove(component.key)

    @contextmanager
    def reading_ahead(self, components: Sequence[Component]) -> Iterator[None]:
        """Records the plan."""
        self.plans.append([component.label for component in components])
        yield

    def make_room(self, wanted_bytes: int) -> int | None:
        """None: the CPU's free memory is not known."""
        return None

    @contextmanager
    def streaming(self, keys: Collection[str], *, ahead: bool = True) -> Iterator[None]:
        """Does nothing: nothing streams here."""
        yield

    def streams(self, component: Component) -> bool:
        """False: nothing streams here."""
        return False

    def note(self, text: str) -> None:
        """Keeps the text."""
        self.notes.append(text)

    def tell(self, text: str) -> None:
        """Keeps the text."""
        self.told.append(text)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Records the phase. Phases must not nest."""
        assert self.current is None, f"phase {name!r} begins inside phase {self.current!r}"
        self.current = name
        self.phases.append(name)
        try:
            yield
            self.finished.append(name)
        finally:
            self.current = None

    def record(self, record: PhaseRecord) -> None:
        """Takes the phase as finished."""
        self.finished.append(record.name)

    def progress(self, done: int, total: int, preview: Tensor | None = None) -> None:
        """Records the report, or raises Cancelled once `cancel_after` reports have passed."""
        assert 0 <= done <= total, f"progress {done} of {total}"
        if self.cancel_after is not None and len(self.reports) >= self.cancel_after:
            raise Cancelled("cancelled by the test")
        self.reports.append((self.current, done, total))
        if preview is not None:
            self.previews.append(preview)
