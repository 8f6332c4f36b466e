"""Makes hy3dgen importable for training without pymeshlab. Import it before hy3dgen."""

from __future__ import annotations

import importlib.util
import sys
import types


def prepare() -> None:
    """Puts an empty module in the place of pymeshlab, which training does not use."""
    if importlib.util.find_spec("pymeshlab") is None:
        stub = types.ModuleType("pymeshlab")
        stub.MeshSet = object  # type: ignore[attr-defined]
        sys.modules["pymeshlab"] = stub


prepare()
