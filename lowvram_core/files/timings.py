"""The seconds that this machine took in earlier runs, in a small JSON file.

The file only serves the time that is left, so no error of it stops a run.
"""

from __future__ import annotations

import json
import logging
import math
import uuid
from contextlib import suppress
from pathlib import Path

log = logging.getLogger(__name__)

NEWEST = 0.5
"""The weight of a new run against all earlier ones."""
MOST_NAMES = 500
MOST_BYTES = 1_000_000
"""A larger file is not read: it is not ours."""


def cache_file() -> Path:
    """The file of the command line."""
    return Path.home() / ".cache" / "hunyuan3d-lowvram" / "timings.json"


class FileTimings:
    """Timings in a file: seconds per unit of work, by name. The file is read at the first question.

    Args:
        path: the file. Its folder is made when the timings are saved.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, float] | None = None
        self._learnt: dict[str, float] = {}

    def find(self, key: str) -> float | None:
        """Seconds per unit, or None if nothing is known."""
        return self._read().get(key)

    def learn(self, key: str, seconds: float) -> None:
        """Adds one more run. `save` writes it."""
        if not (math.isfinite(seconds) and seconds >= 0):
            return
        before = self._read().pop(key, None)  # it comes last again: the oldest names are dropped first
        self._learnt[key] = seconds if before is None else NEWEST * seconds + (1 - NEWEST) * before
        self._read()[key] = self._learnt[key]

    def save(self) -> None:
        """Writes what was learnt, completely or not at all. What another process wrote meanwhile is kept."""
        if not self._learnt:
            return
        merged = {name: value for name, value in _stored(self._path).items() if name not in self._learnt}
        merged |= self._learnt
        self._known = dict(list(merged.items())[-MOST_NAMES:])
        self._learnt = {}
        part = self._path.with_name(f".{self._path.name}.{uuid.uuid4().hex}.part")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps({name: float(f"{value:.4g}") for name, value in self._known.items()}))
            part.replace(self._path)
        except OSError as error:
            log.debug("timings: %s cannot be written (%s)", self._path, error)
            with suppress(OSError):
                part.unlink(missing_ok=True)

    def _read(self) -> dict[str, float]:
        if self._known is None:
            self._known = _stored(self._path)
        return self._known


def _stored(path: Path) -> dict[str, float]:
    """The names and seconds in a file. Empty if it is missing or damaged; entries that make no sense are left out."""
    try:
        if path.stat().st_size > MOST_BYTES:
            return {}
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {
        name: float(value)
        for name, value in found.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
    }
