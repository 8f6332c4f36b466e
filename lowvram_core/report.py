"""The table of phases: seconds, share of the time, memory on the device and in RAM."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

GIB = 1024**3

PHASES = (
    "recentre", "background", "condition", "sample", "decode", "clean", "unwrap", "normals", "positions",
    "delight", "paint", "resize", "bake", "inpaint", "save",
)  # fmt: skip
"""Every phase of a run, in the order of the table."""

DOWNLOAD = "download"
"""The phase before them, in a run that downloads models."""


OTHER = "other"
"""A row after the phases: what a node's time holds beside them."""


@dataclass(frozen=True)
class PhaseRecord:
    """What one phase took. Figures of the device are None where the device does not count its memory, as on the CPU."""

    name: str
    seconds: float
    allocated_bytes: int | None
    """On the device when the phase ended."""
    reserved_bytes: int | None
    peak_bytes: int | None
    """The most that was allocated on the device during the phase."""
    ram_bytes: int
    """The resident set of the process when the phase ended."""
    cached: bool = False
    """Whether the record is from an earlier run whose result is used again."""
    hidden_seconds: float = 0.0
    """The part of `seconds` in which another phase ran too. Totals leave it out."""

    @property
    def added_seconds(self) -> float:
        """What the phase added to the run."""
        return self.seconds - self.hidden_seconds


def merge(records: Iterable[PhaseRecord]) -> list[PhaseRecord]:
    """One record for each name, in the order of the table. Cached records are merged separately.

    Seconds and hidden seconds are added up, the highest peak counts, and all other figures are the last ones.
    """
    merged: dict[tuple[str, bool], PhaseRecord] = {}
    for record in records:
        key = record.name, record.cached
        first = merged.get(key)
        if first is None:
            merged[key] = record
            continue
        peaks = [peak for peak in (first.peak_bytes, record.peak_bytes) if peak is not None]
        merged[key] = replace(
            record, seconds=first.seconds + record.seconds, peak_bytes=max(peaks, default=None),
            hidden_seconds=first.hidden_seconds + record.hidden_seconds,
        )  # fmt: skip
    order = {name: index for index, name in enumerate((DOWNLOAD, *PHASES))}
    return sorted(merged.values(), key=lambda record: order.get(record.name, len(order)))


def format_table(records: Sequence[PhaseRecord]) -> str:
    """The records as a text table with the total, which counts seconds that overlap once.

    Where some phases are cached, the total of this run stands before the total with what was cached. The columns of the
    device are left out where no record has figures of one.
    """
    rows = merge(records)
    total = sum(row.added_seconds for row in rows)
    on_device = any(row.peak_bytes is not None for row in rows)
    lines = [_line("phase", "seconds", "share", ("alloc GiB", "reserved", "peak"), "RAM GiB", on_device)]
    for row in rows:
        share = row.added_seconds / total if total else 0.0
        device = _gib(row.allocated_bytes), _gib(row.reserved_bytes), _gib(row.peak_bytes)
        line = _line(row.name, f"{row.seconds:.2f}", f"{share:.1%}", device, _gib(row.ram_bytes), on_device)
        beside = f"  {row.hidden_seconds:.2f} s beside others" if row.hidden_seconds >= 0.005 else ""
        lines.append(f"{line}{beside}{'  cached' if row.cached else ''}")
    here = [row for row in rows if not row.cached]
    if len(here) < len(rows):
        lines.append(_total("this run", here, sum(row.added_seconds for row in here), total, on_device))
    lines.append(_total("total" if len(here) == len(rows) else "with cached", rows, total, total, on_device))
    return "\n".join(lines)


def _total(name: str, rows: Sequence[PhaseRecord], seconds: float, of: float, on_device: bool) -> str:
    peak = max((row.peak_bytes for row in rows if row.peak_bytes is not None), default=None)
    ram = max((row.ram_bytes for row in rows), default=None)
    share = f"{seconds / of if of else 1.0:.1%}"
    return _line(name, f"{seconds:.2f}", share, ("", "", _gib(peak)), _gib(ram), on_device)


def _line(name: str, seconds: str, share: str, device: tuple[str, str, str], ram: str, on_device: bool) -> str:
    columns = f"{device[0]:>11}{device[1]:>10}{device[2]:>8}" if on_device else ""
    return f"{name:<12}{seconds:>9}{share:>8}{columns}{ram:>9}"


def summary(records: Iterable[PhaseRecord], made: str = "") -> str:
    """One line, such as `textured mesh in 262 s: sample 120, paint 80`: the seconds of each phase that takes long.

    Args:
        made: what was made. Without it the line begins with the seconds.
    """
    rows = [row for row in merge(records) if not row.cached]
    total = sum(row.added_seconds for row in rows)
    told = [f"{row.name} {_s(row.added_seconds)}" for row in rows if row.added_seconds >= max(0.05, 0.01 * total)]
    within = f"{_s(total)} s" + (f": {', '.join(told)}" if told else "")
    return f"{made} in {within}" if made else within


def _s(seconds: float) -> str:
    return f"{seconds:.0f}" if seconds >= 100 else f"{seconds:.1f}"


def _gib(count: int | None) -> str:
    return "-" if count is None else f"{count / GIB:.2f}"
