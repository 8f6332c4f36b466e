"""Weights that pass through the device leaf by leaf instead of lying there."""

from __future__ import annotations

import torch
from torch import nn


def stream(module: nn.Module, device: torch.device) -> nn.Module:
    """Has each leaf layer fetch its weights to the device before it runs, and put them back after.

    Args:
        module: on the CPU; it is changed in place and stays there between calls.
        device: where the layers compute; inputs are brought there.

    Memory:
        The largest leaf layer's weights, plus parameters that belong to no leaf.

    Source:
        diffusers.hooks.apply_group_offloading at leaf level: whole blocks are too big (571 MiB in the paint UNet).
    """
    from diffusers.hooks import apply_group_offloading

    apply_group_offloading(module, onload_device=device, offload_type="leaf_level")
    return module
