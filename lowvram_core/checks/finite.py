"""The check for NaN and infinity that runs after each network."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import NumericalFailure


def check_finite(stage: str, part: str, dtype: torch.dtype, *tensors: Tensor) -> None:
    """Raises NumericalFailure if a tensor holds NaN or infinity.

    Args:
        stage: begins the message.
        part: what the stage computed, such as `encode`.
        dtype: the precision of the computation.
        tensors: any shape, any device.
    """
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors):
        raise NumericalFailure(
            f"{stage}: {part} gave NaN or infinity in {dtype}; wanted finite numbers. "
            "Run in float32 (precision, in Preset Custom or on the command line): some cards, such as the GTX 16 "
            "series, compute float16 wrongly. If it was float32, the model's files are damaged: download them again."
        )
