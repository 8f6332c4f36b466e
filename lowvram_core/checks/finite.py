"""Are these numbers numbers? Asked after each step that a network computed."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import NumericalFailure


def check_finite(stage: str, step: str, dtype: torch.dtype, *tensors: Tensor) -> None:
    """Raises NumericalFailure where a step of a stage gave NaN or infinity.

    Args:
        dtype: the precision that the step ran in.
        tensors: of any shape, on any device.
    """
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors):
        raise NumericalFailure(
            f"{stage}: the {step} step gave NaN or infinity in {dtype}; wanted finite numbers. "
            "Run in float32 (precision, in Preset Custom or on the command line): some cards, such as the GTX 16 "
            "series, cannot do float16. If it was float32, the model's files are damaged: download them again."
        )
