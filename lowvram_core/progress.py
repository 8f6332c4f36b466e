"""One progress bar for a run: planned parts of different length become one fraction that only grows.

A plan lists the parts of a run in their order, with the seconds that each should take. When a part begins, it gets its
share of what is left of the bar. So the fraction never falls: not where parts are skipped, nor where a stage runs again
with less memory. If earlier runs on this machine are known, their seconds replace the planned ones, and the bar tells
how much time is left.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Protocol

WIDE = 0.7
"""The share of a part that passes at a constant speed if the part only counts seconds. What follows slows down."""


@dataclass(frozen=True)
class Part:
    """A part of a run: loading a network, its work, or a phase without a network."""

    key: str
    """A network's label for its work, `load <label>` for its loading, or the name of a phase."""
    seconds: float
    """Planned. Only the ratio to the other parts counts, until this machine's own seconds are known."""
    units: float = 1.0
    """The amount of work, such as steps. This machine's seconds are known per unit."""
    detail: str = ""
    """The settings that change the seconds of a unit."""
    doing: str = ""
    """What to show while it runs. `{done}`, `{total}` and `{percent}` are filled in."""
    silent: bool = False
    """Whether it reports no progress. Its share of the bar then follows the clock."""


class Timings(Protocol):
    """The seconds that this machine took in earlier runs."""

    def find(self, key: str) -> float | None:
        """Seconds per unit, or None if nothing is known."""
        ...

    def learn(self, key: str, seconds: float) -> None:
        """Adds the seconds per unit of one more run."""
        ...


def loading(label: str) -> str:
    """The key of the part that loads the network of that label."""
    return f"load {label}"


class Bar:
    """The bar of one run. It is not safe to use from several threads at once.

    Args:
        plan: the parts in their order. Several parts may have one key. Without a plan, the first part is the whole bar.
        timings: of this machine; None: nothing is known or learnt.
        machine: the device and the precision. Seconds of other machines do not count.
        clock: seconds from any start.
    """

    def __init__(
        self, plan: Iterable[Part] = (), timings: Timings | None = None, machine: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._parts = list(plan)
        self._has_plan = bool(self._parts)
        self._timings = timings
        self._machine = machine
        self._clock = clock
        self._next = 0
        """The first part that has not ended; the running one, if one runs."""
        self._runs = False
        self._began = 0.0
        self._reported = 0.0
        self._start, self._width = 0.0, 0.0
        """Where the running part begins on the bar, and its length there."""
        self._highest = 0.0
        self._text = ""
        self.also = ""
        """Shown after the text as long as it is set."""

    @property
    def fraction(self) -> float:
        """How much of the run is done, 0 to 1. It never falls."""
        reached = self._start + self._width * self._share() if self._runs else self._start
        self._highest = min(1.0, max(self._highest, reached))
        return self._highest

    def enter(self, key: str, *, detail: str = "") -> None:
        """Begins a part. A part that still runs counts as left without an end.

        Args:
            key: the next part of this key begins. If there is none, the last one begins again. A key that is not in
                the plan stops the bar until the next part begins.
            detail: settings that were not known before.
        """
        index = self._index(key)
        if index is None:
            self._start, self._runs, self._text = self.fraction, False, ""
            return
        part = self._parts[index]
        self._parts[index] = replace(part, detail=f"{part.detail} {detail}".strip())
        self._begin(index)

    def _begin(self, index: int) -> None:
        self._start, self._runs, part = self.fraction, False, self._parts[index]
        self._next = index
        rest = sum(self._seconds(later) for later in self._parts[index:])
        self._width = (1.0 - self._start) * self._seconds(part) / rest if rest else 0.0
        self._runs, self._began, self._reported = True, self._clock(), 0.0
        self._text = "" if "{" in part.doing else part.doing

    def leave(self, key: str, *, finished: bool = True) -> None:
        """Ends a part, if it is the one that runs. Its seconds are learnt if it was finished."""
        if not self._runs or self._parts[self._next].key != key:
            return
        if finished:
            self._learn(self._parts[self._next], self._clock() - self._began)
            self._start += self._width
            self._next += 1
        else:
            self._start = self.fraction
        self._runs = False

    def add(self, part: Part) -> None:
        """Begins a part that the plan does not have, such as a download. The parts after it get the rest of the bar."""
        index = self._next + (1 if self._runs else 0)
        self._parts.insert(index, part)
        self._has_plan = True
        self._begin(index)

    def at(self, done: int, total: int) -> None:
        """Sets how far the running part is."""
        if not self._runs or total <= 0:
            return
        self._reported = max(self._reported, min(1.0, done / total))
        doing = self._parts[self._next].doing
        if "{" in doing:
            self._text = doing.format(done=done, total=total, percent=round(100 * done / total))

    def tell(self, text: str) -> None:
        """Shows a text until the next part begins or reports a text of its own."""
        self._text = text

    def finish(self) -> None:
        """Fills the bar."""
        self._start, self._highest, self._runs, self._text, self.also = 1.0, 1.0, False, "", ""
        self._next = len(self._parts)

    def left_s(self) -> float | None:
        """Seconds until the end. None if a part of what is left was never timed on this machine."""
        waiting = self._parts[self._next + (1 if self._runs else 0) :]
        known = [self._known(part) for part in waiting]
        if self._runs:
            known.append(self._left_of_running())
        return None if None in known or not known else sum(seconds for seconds in known if seconds is not None)

    def line(self) -> str:
        """A line such as `step 12 of 50, about 40 s left`. Empty if there is nothing to tell."""
        left = self.left_s()
        pieces = [self._text, self.also, f"about {short_time(left)} left" if left is not None and left >= 1 else ""]
        return ", ".join(piece for piece in pieces if piece)

    def _index(self, key: str) -> int | None:
        """The number of the next part of that key, else of the last one before."""
        if not self._has_plan:
            self._parts.append(Part(key, 1.0))
            self._has_plan = True
        found = [index for index, part in enumerate(self._parts) if part.key == key]
        return next((index for index in found if index >= self._next), found[-1] if found else None)

    def _share(self) -> float:
        """How much of the running part is done, 0 to 1."""
        part = self._parts[self._next]
        if not part.silent:
            return self._reported
        expected = self._seconds(part)
        passed = (self._clock() - self._began) / expected if expected > 0 else math.inf
        timed = passed if passed <= WIDE else 1.0 - (1.0 - WIDE) * math.exp(-(passed - WIDE) / (1.0 - WIDE))
        return max(self._reported, timed)

    def _left_of_running(self) -> float | None:
        part, passed = self._parts[self._next], self._clock() - self._began
        if self._reported > 0 and passed >= 1.0 and not part.silent:
            return passed * (1.0 - self._reported) / self._reported
        known = self._known(part)
        return None if known is None else max(0.0, known - passed)

    def _names(self, part: Part) -> tuple[str, str]:
        """The exact name of the part's seconds, and the name that leaves out the settings."""
        return f"{self._machine}|{part.key}|{part.detail}", f"{self._machine}|{part.key}"

    def _known(self, part: Part) -> float | None:
        """The seconds that the part took on this machine, for its amount of work."""
        rates = [] if self._timings is None else [self._timings.find(name) for name in self._names(part)]
        return next((rate * part.units for rate in rates if rate is not None), None)

    def _seconds(self, part: Part) -> float:
        known = self._known(part)
        return part.seconds if known is None else known

    def _learn(self, part: Part, seconds: float) -> None:
        if self._timings is not None and part.units > 0:
            for name in self._names(part):
                self._timings.learn(name, seconds / part.units)


def short_time(seconds: float) -> str:
    """Seconds as `40 s`, `3 min 20 s` or `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        minutes, rest = divmod(whole, 60)
        return f"{minutes} min {rest} s" if minutes < 10 and rest else f"{minutes} min"
    hours, rest = divmod(round(whole / 60), 60)
    return f"{hours} h {rest} min" if rest else f"{hours} h"
