"""A training run's clock: processor time, so that a busy machine does not shorten the training."""

from __future__ import annotations

import os
import time


class Clock:
    """Counts processor seconds; DEMO_WALL_S, if set, also ends a run after that many seconds on the wall."""

    def __init__(self, seconds: float, rise: int = 100) -> None:
        self.seconds, self.rise, self.step = seconds, rise, 0
        self._cpu, self._wall = time.process_time(), time.monotonic()
        self._limit = float(os.environ.get("DEMO_WALL_S", "inf"))

    def spent(self) -> float:
        """Processor seconds since the start."""
        return time.process_time() - self._cpu

    def done(self) -> float:
        """Share of the run that is over, 0 to 1."""
        return min(1.0, max(self.spent() / self.seconds, (time.monotonic() - self._wall) / self._limit))

    def running(self) -> bool:
        """Counts a step; False once the time is up."""
        self.step += 1
        return self.done() < 1

    def rate(self, top: float) -> float:
        """The learning rate: a short rise, then a straight fall to nearly nothing."""
        return top * min(1, self.step / self.rise) * (1 - self.done()) + top / 300
