"""Makes `import torchvision` work where torchvision's compiled library does not load.

The project's .venv has the CPU build of torch, and the only torchvision wheel for it is a CUDA build. On import,
torchvision registers Python kernels for operators that its compiled library declares. Without the library that import
fails with "operator torchvision::nms does not exist", so the operators must be declared first.

`make install` copies this file into the .venv's site-packages, with a torchvision_hook.pth that calls `install` at
every start of Python. A user's torchvision fits the user's torch and needs none of this.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any

_OPERATORS = ("nms", "qnms")
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


class _Finder:
    """Finds torchvision as Python does, and declares the operators right before it is executed."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The spec of torchvision, or None for any other module. Imports nothing."""
        if name != "torchvision":
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            _declare(spec)
            execute(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _declare(spec: ModuleSpec) -> None:
    """Declares the operators, unless the compiled library of this torchvision loads and has done so."""
    from pathlib import Path

    import torch

    for folder in spec.submodule_search_locations or ():
        for library in (*Path(folder).glob("_C*.so"), *Path(folder).glob("_C*.pyd")):
            try:
                torch.ops.load_library(str(library))
            except OSError:
                continue
            return
    for name in _OPERATORS:
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f"torchvision::{name}", _SCHEMA)


def install() -> None:
    """Adds the import hook. Does nothing where it is there, or torchvision is imported already."""
    if "torchvision" not in sys.modules and _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)  # type: ignore[arg-type]
