"""The device that geometry computes on."""

from __future__ import annotations

import torch

WITHOUT_FLOAT64 = ("mps", "privateuseone")
"""Device types without float64: Apple's GPUs and DirectML. Some of Intel's GPUs (xpu) lack it; torch knows which."""


def geometry_device(device: torch.device) -> torch.device:
    """The device for rasterising, baking and filling: `device`, or the CPU if `device` has no float64.

    The rasteriser needs float64 for weights that are upstream's to the bit, and `scatter_reduce` of int64.
    """
    if device.type in WITHOUT_FLOAT64:
        return torch.device("cpu")
    if device.type == "xpu" and not torch.xpu.get_device_properties(device).has_fp64:
        return torch.device("cpu")
    return device
