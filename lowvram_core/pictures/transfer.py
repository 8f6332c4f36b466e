"""The transfer function of sRGB: pictures hold encoded values, glTF's factors and vertex colours are linear."""

from __future__ import annotations

import torch
from torch import Tensor


def linear(encoded: Tensor) -> Tensor:
    """Linear values of sRGB values, both in 0..1. Source: IEC 61966-2-1."""
    return torch.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055).clamp(min=0) ** 2.4)


def srgb(values: Tensor) -> Tensor:
    """sRGB values of linear values, both in 0..1. Source: IEC 61966-2-1."""
    return torch.where(values <= 0.0031308, values * 12.92, 1.055 * values.clamp(min=1e-9) ** (1 / 2.4) - 0.055)
