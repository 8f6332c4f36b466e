"""The line of text about a running download: file, size, speed and time left."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from ..progress import short_time

EVERY_S = 0.5
"""A line is shown at most once in this time."""

SPAN_S = 10.0
"""The speed is the mean of this time."""


class DownloadLine:
    """Shows a line now and then.

    Args:
        tell: takes the line.
        name: the model's id.
        done: the bytes that are there at the start.
        total: the bytes in all.
        clock: seconds from any start.
    """

    def __init__(
        self, tell: Callable[[str], None], name: str, done: int, total: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.file = ""
        """The file that is being fetched."""
        self._tell = tell
        self._name = name
        self._total = total
        self._clock = clock
        self._seen = deque([(clock(), done)])
        self._told: float | None = None
        self._ended = False

    def show(self, done: int) -> None:
        """Takes the number of bytes that are there; shows the line if it is due.

        After the last byte the content is checked, which the line then says.
        """
        now = self._clock()
        self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[1][0] > SPAN_S:
            self._seen.popleft()
        is_end = done >= self._total and not self._ended
        if self._told is None or now - self._told >= EVERY_S or is_end:
            self._told = now
            self._tell(f"checking {self._name}: {self.file}" if self._ended else self._line(done))
            self._ended = done >= self._total

    def _line(self, done: int) -> str:
        unit, size = ("GB", 1e9) if self._total >= 1e8 else ("MB", 1e6)
        parts = [f"{done / size:.2f} of {self._total / size:.2f} {unit}"]
        (start, before), (now, _) = self._seen[0], self._seen[-1]
        speed = (done - before) / (now - start) if now > start else 0.0
        if speed:
            parts += [f"{speed / 1e6:.1f} MB/s", f"{short_time((self._total - done) / speed)} left"]
        elif now - start > EVERY_S:
            parts.append("waiting for the server")
        return f"downloading {self._name}: {self.file}, {', '.join(parts)}"
