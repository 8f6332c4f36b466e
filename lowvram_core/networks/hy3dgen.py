"""Imports hy3dgen's networks without its pip requirements. No other module imports hy3dgen.

`import hy3dgen.shapegen` loads pymeshlab (GPL-3, 280 MB) for postprocessors that this package replaces. Where pymeshlab
is not installed, an empty module takes its place during that import.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from ..checks.packages import is_there, missing_package


def shapegen(submodule: str) -> ModuleType:
    """Imports the module `hy3dgen.shapegen.<submodule>`.

    Raises:
        MissingDependency: hy3dgen, or a package that it needs, is not installed.
    """
    module = _import(f"hy3dgen.shapegen.{submodule}")
    _quiet("hy3dgen.shapgen")
    return module


def paint_unet() -> Any:
    """Returns the class UNet2p5DConditionModel, the painting network with its attention between views.

    Raises:
        MissingDependency: as `shapegen`.
    """
    return _import("hy3dgen.texgen.hunyuanpaint.unet.modules").UNet2p5DConditionModel


def _import(name: str) -> ModuleType:
    try:
        with _without_pymeshlab():
            return importlib.import_module(name)
    except ImportError as error:
        raise missing_package("models", error) from error


@contextlib.contextmanager
def _without_pymeshlab() -> Iterator[None]:
    if is_there("pymeshlab"):
        yield
        return
    stand_in = ModuleType("pymeshlab")
    stand_in.MeshSet = object  # type: ignore[attr-defined]  # named in upstream's annotations
    sys.modules["pymeshlab"] = stand_in
    try:
        yield
    finally:
        sys.modules.pop("pymeshlab", None)


def _quiet(logger_name: str) -> None:
    """Removes the handler of upstream's logger, which would show every line twice on the console."""
    logger = logging.getLogger(logger_name)
    logger.handlers.clear()
    logger.setLevel(logging.WARNING)
