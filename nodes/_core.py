"""The core's stages, imported when a node runs: a missing package disables that node, not the whole pack."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from importlib import import_module
from types import ModuleType
from typing import Any

from ..lowvram_core.checks.packages import missing_package
from ..lowvram_core.errors import MissingDependency

_PACKAGE = __package__.rpartition(".")[0]


def stage(name: str) -> Any:
    """The module lowvram_core.stages.<name>. If a function of it needs a missing package, the error names the package.

    Raises:
        MissingDependency: a package that it needs is not installed; the message names it.
    """
    return guarded(f"stages.{name}")


def guarded(name: str) -> Any:
    """The module lowvram_core.<name>; see `stage`."""
    return _Guarded(core(name), name)


def core(name: str) -> ModuleType:
    """The module lowvram_core.<name>; see `stage`."""
    with naming(name):
        return import_module(f"{_PACKAGE}.lowvram_core.{name}")


class _Guarded:
    """A module whose functions may import packages when they run."""

    def __init__(self, module: ModuleType, name: str) -> None:
        self._module = module
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        found = getattr(self._module, attribute)

        @wraps(found)
        def call(*given: Any, **named: Any) -> Any:
            with naming(self._name):
                return found(*given, **named)

        return call


@contextmanager
def naming(what: str) -> Iterator[None]:
    """Within it, a package that cannot be imported becomes a MissingDependency of the last part of `what`."""
    try:
        yield
    except MissingDependency:
        raise
    except ImportError as error:
        raise missing_package(what.rpartition(".")[2], error) from error
