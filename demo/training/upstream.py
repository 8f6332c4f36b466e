"""Makes hy3dgen importable for training on a CPU. Import this module before diffusers or hy3dgen."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import types

import torch


def prepare() -> None:
    """Replaces what training does not need: torchvision's compiled operators and pymeshlab."""
    for name in ("nms", "qnms"):
        # Raises if a complete torchvision has already defined the operator.
        with contextlib.suppress(RuntimeError):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    if importlib.util.find_spec("pymeshlab") is None:
        stub = types.ModuleType("pymeshlab")
        stub.MeshSet = object  # type: ignore[attr-defined]
        sys.modules["pymeshlab"] = stub


prepare()
