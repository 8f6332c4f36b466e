"""What can go wrong, as one tree.

LowVramError
|-- BadInput                the user can put it right: picture, mesh, views, setting (also a ValueError)
|   |-- MissingModel        a checkpoint is not on disk and could not be fetched
|   `-- BadCheckpoint       a checkpoint is there but truncated, or of another model
|-- MissingDependency       a Python package is not installed (also an ImportError)
|-- NumericalFailure        the networks gave NaN or nothing to make a surface of
|-- OutOfMemory             the device is full
`-- Cancelled               the user stopped the run

Messages read `stage: what was met; what is wanted. What to do.`
"""

from __future__ import annotations


class LowVramError(Exception):
    """Anything this package raises on purpose."""


class BadInput(LowVramError, ValueError):
    """The input cannot be used; raised before a model is borrowed."""


class MissingModel(BadInput):
    """A model's files are not in any models folder."""


class BadCheckpoint(BadInput):
    """A model's files are there but cannot be used."""


class MissingDependency(LowVramError, ImportError):
    """A Python package is missing or broken."""


class NumericalFailure(LowVramError):
    """The arithmetic failed: NaN, infinities, or no surface."""


class OutOfMemory(LowVramError):
    """The device has no room left."""


class Cancelled(LowVramError):
    """The user cancelled; everything borrowed has been given back."""
