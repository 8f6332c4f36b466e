"""The clock of a training run. It counts CPU time, so that a busy machine does not shorten the training."""

from __future__ import annotations

import os
import time


class Clock:
    """Counts CPU seconds. DEMO_WALL_S, if set, also ends a run after that many seconds of wall time."""

    def __init__(self, seconds: float, rise: int = 100) -> None:
        self.seconds, self.rise, self.step = seconds, rise, 0
        self._cpu, self._wall = time.process_time(), time.monotonic()
        self._limit = float(os.environ.get("DEMO_WALL_S", "inf"))

    def spent(self) -> float:
        """CPU seconds since the start."""
        return time.process_time() - self._cpu

    def done(self) -> float:
        """The finished fraction of the run, 0 to 1."""
        return min(1.0, max(self.spent() / self.seconds, (time.monotonic() - self._wall) / self._limit))

    def running(self) -> bool:
        """Counts a batch. Returns False when the time is over."""
        self.step += 1
        return self.done() < 1

    def rate(self, top: float) -> float:
        """The learning rate: a short warm-up, then a linear decay to nearly zero."""
        return top * min(1, self.step / self.rise) * (1 - self.done()) + top / 300
