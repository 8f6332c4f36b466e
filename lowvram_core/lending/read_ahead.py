"""Reads the files of the components that come next, while another one computes, so that loading finds them in RAM.

Nothing is kept here: the pages go into the system's cache of files, which gives them up when memory is needed.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import BinaryIO

from ..host import Component, FilePart
from .device import free_ram_bytes

CHUNK_BYTES = 4 * 2**20
"""Read at once. The end of a run waits for at most one chunk."""
RAM_SHARE = 0.5
"""At most this share of the available RAM is filled with pages of components that were not borrowed yet. The rest is
for the component that runs, whose pages are read again at every step while it streams, and for pinned copies."""


class ReadAhead:
    """Reads the components of a plan in one background thread, in order.

    Args:
        plan: the components in the order in which they will be borrowed.
    """

    def __init__(self, plan: Sequence[Component]) -> None:
        self._plan = plan
        self._now = 0
        """Place of the component that was borrowed last."""
        self._done = 0
        """Components at the beginning of the plan that were read."""
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def borrows(self, component: Component) -> None:
        """Called when a component is about to be loaded. Reads it, if that is not done yet, and then those after it."""
        count = len(self._plan)
        places = (place % count for place in range(self._now, self._now + count))
        place = next((place for place in places if self._plan[place].key == component.key), None)
        if place is None:
            return
        self._now = place
        if self._done < count and (self._thread is None or not self._thread.is_alive()):
            self._thread = threading.Thread(target=self._read, name="hunyuan3d-read-ahead", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Ends the thread. No file is open afterwards."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _read(self) -> None:
        buffer = bytearray(CHUNK_BYTES)
        while (place := max(self._done, self._now)) < len(self._plan):
            if not self._has_room(place):
                return  # the next borrow tries again
            for part in self._plan[place].files:
                try:
                    self._read_part(part, memoryview(buffer))
                except OSError:  # the load meets the same error and tells it
                    return
                if self._stop.is_set():
                    return
            self._done = place + 1

    def _has_room(self, place: int) -> bool:
        """Whether a component fits beside the one that runs and those that were read and not borrowed yet."""
        ahead = {component.key: _nbytes(component) for component in self._plan[self._now : place + 1]}
        return sum(ahead.values()) <= free_ram_bytes() * RAM_SHARE

    def _read_part(self, part: FilePart, buffer: memoryview) -> None:
        with part.path.open("rb", buffering=0) as file:
            for start in range(part.start, part.start + part.nbytes, CHUNK_BYTES):
                wanted = min(CHUNK_BYTES, part.start + part.nbytes - start)
                if self._stop.is_set():
                    return
                if not _is_cached(file, start, wanted):
                    file.seek(start)
                    file.readinto(buffer[:wanted])


def _nbytes(component: Component) -> int:
    return sum(part.nbytes for part in component.files)


def _is_cached(file: BinaryIO, start: int, nbytes: int) -> bool:
    """Whether the first and the last byte are in RAM. False where the system does not tell (all but Linux)."""
    no_wait = getattr(os, "RWF_NOWAIT", None)
    if no_wait is None:
        return False
    byte = bytearray(1)
    try:
        return all(os.preadv(file.fileno(), [byte], place, no_wait) == 1 for place in (start, start + nbytes - 1))
    except OSError:  # not in RAM, or the file system cannot tell
        return False
