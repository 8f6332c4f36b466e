"""The core's stages, imported when a node runs: a missing package costs that node, not the whole pack."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from ..lowvram_core.errors import MissingDependency

_PACKAGE = __package__.rpartition(".")[0]


def stage(name: str) -> ModuleType:
    """The module lowvram_core.stages.<name>.

    Raises:
        MissingDependency: a package that it needs is not installed; the message names it.
    """
    return core(f"stages.{name}")


def core(name: str) -> ModuleType:
    """The module lowvram_core.<name>; see `stage`."""
    try:
        return import_module(f"{_PACKAGE}.lowvram_core.{name}")
    except MissingDependency:
        raise
    except ImportError as error:
        missing = (error.name or str(error)).split(".")[0]
        raise MissingDependency(
            f"{name}: the Python package {missing!r} could not be imported ({error}); this node needs it. "
            "Run in ComfyUI's Python: python -m pip install -r requirements.txt, from this pack's folder.",
            name=missing,
        ) from error
