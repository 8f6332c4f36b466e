"""The memory of this process as Linux counts it."""

from __future__ import annotations

from pathlib import Path


def resident_mib(field: str) -> float:
    """VmHWM is the peak since the last reset. RssAnon is the part of the resident memory that no file backs."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(field + ":"))) / 1024


def reset_peak() -> None:
    """The peak starts again from the resident memory of now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
