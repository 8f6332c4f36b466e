"""Lets the CPU build of torch import torchvision, whose wheel is the CUDA build.

torchvision registers kernels for two operators of its compiled library on import; without the library
the operators must be declared first. For tests and the demo only: a user's torchvision fits their torch.
"""

from __future__ import annotations

import torch

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def declare() -> None:
    """Declares the operators; to be called before the first import of torchvision. Harmless where they exist."""
    if torch.version.cuda is not None or torch.version.hip is not None:
        return
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f"torchvision::{name}", _SCHEMA)
