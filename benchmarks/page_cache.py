"""Drops files from the system's page cache, so that the next run reads them from the disk."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

STAYS = 0.05
"""The largest share of the files that may still be in the page cache of a cold run."""


def drop(folder: Path) -> str | None:
    """Drops all files in a folder from the page cache.

    Returns:
        None, or the reason why a cold run cannot be measured there.
    """
    if not hasattr(os, "posix_fadvise"):
        return "this system has no posix_fadvise"
    paths = [path for path in folder.rglob("*") if path.is_file()]
    for path in paths:
        with path.open("rb") as file:
            os.fsync(file.fileno())  # the system keeps pages that it has not written yet
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    share = cached_share(paths)
    if share is None:
        return "this system does not say which pages are in its page cache"
    if share > STAYS:
        return f"{share:.0%} of the files stayed in the page cache; a RAM disk keeps all of them"
    return None


def cached_share(paths: Iterable[Path]) -> float | None:
    """The share of the files' pages that is in the page cache. None if the system does not say it."""
    mincore = getattr(ctypes.CDLL(None), "mincore", None)
    if mincore is None:
        return None
    cached = total = 0
    for path in paths:
        size = path.stat().st_size
        if size == 0:
            continue
        mapped = np.memmap(path, mode="r")
        found = np.zeros(-(-size // os.sysconf("SC_PAGE_SIZE")), np.uint8)
        if mincore(ctypes.c_void_p(mapped.ctypes.data), ctypes.c_size_t(size), ctypes.c_void_p(found.ctypes.data)):
            return None
        cached += int((found & 1).sum())
        total += len(found)
    return cached / total if total else 0.0
