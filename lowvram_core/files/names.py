"""The names of files that people type or paste."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def pasted(name: str) -> str:
    """The name without the quotes that Windows' "Copy as path" puts around it, and without spaces at its ends."""
    name = name.strip()
    return name[1:-1] if len(name) > 1 and name[0] == name[-1] and name[0] in "\"'" else name


def is_file(path: Path) -> bool:
    """Whether there is such a file. A name that the system cannot have, such as one that is too long, is no file."""
    return _holds(path.is_file)


def is_folder(path: Path) -> bool:
    """Whether there is such a folder; see `is_file`."""
    return _holds(path.is_dir)


def exists(path: Path) -> bool:
    """Whether there is such a file or folder; see `is_file`."""
    return _holds(path.exists)


def _holds(question: Callable[[], bool]) -> bool:
    try:
        return question()
    except OSError:
        return False
