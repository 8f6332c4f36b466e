"""All errors that this package raises on purpose, as one tree.

LowVramError
|-- BadInput                the user can correct it: picture, mesh, views, setting (also a ValueError)
|   |-- MissingModel        a checkpoint is not on the disk and could not be downloaded
|   `-- BadCheckpoint       a checkpoint is damaged, or belongs to another model
|-- MissingDependency       a Python package is not installed (also an ImportError)
|-- NumericalFailure        a network gave NaN, or a field without a surface
|-- OutOfMemory             the device is full
`-- Cancelled               the user stopped the run

Messages read `stage: what was met; what is wanted. What to do.` This is the first line; lists follow on further lines.
"""

from __future__ import annotations

from typing import Any

SHOWN_MODULE = "hunyuan3d_lowvram"
"""The module that the errors name as theirs. ComfyUI and tracebacks show it in front of the class. The real name holds
the path of the folder that ComfyUI loaded the pack from."""


class LowVramError(Exception):
    """Base of all errors that this package raises on purpose."""

    __module__ = SHOWN_MODULE

    def __init_subclass__(cls, **rest: Any) -> None:
        super().__init_subclass__(**rest)
        cls.__module__ = SHOWN_MODULE

    def __reduce__(self) -> tuple[Any, ...]:
        """Names the class for pickle, which cannot import SHOWN_MODULE."""
        reduced = super().__reduce__()
        assert isinstance(reduced, tuple)
        return (_again, (type(self).__name__, reduced[1]), *reduced[2:])


class BadInput(LowVramError, ValueError):
    """The input cannot be used. It is raised before a network is borrowed."""


class MissingModel(BadInput):
    """A model's files are in none of the models folders."""


class BadCheckpoint(BadInput):
    """A model's files exist but cannot be used."""


class MissingDependency(LowVramError, ImportError):
    """A Python package is missing or broken."""


class NumericalFailure(LowVramError):
    """A computation gave NaN, infinite values or no surface."""


class OutOfMemory(LowVramError):
    """The device has no free memory left."""


class Cancelled(LowVramError):
    """The user cancelled. Everything that was borrowed has been given back."""


def _again(name: str, arguments: tuple[Any, ...]) -> LowVramError:
    """Makes a pickled error again. Its class stands in this module."""
    error: LowVramError = globals()[name](*arguments)
    return error
