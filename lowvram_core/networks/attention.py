"""Which kernels the attention of diffusers' networks runs on.

`auto` never comes to xFormers: torch's fused attention takes as little memory, needs no package besides torch, and
whether xFormers is faster has not been measured here. Who has found it so on their card chooses it.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import BadInput, MissingDependency

SLICED_MIB = 123.0
"""Activations in float16 that sliced attention adds to a UNet of the published size: for one picture of 512 px, and for
several that attend to each other times the square of their number."""


def sliced_mib(choice: str, device: torch.device, dtype: torch.dtype, pictures: int = 1) -> float:
    """What a UNet's attention takes beside what the fused kernels would; 0 where it is not sliced."""
    return SLICED_MIB * pictures**2 if choose_attention(choice, device, dtype) == "sliced" else 0.0


def choose_attention(choice: str, device: torch.device, dtype: torch.dtype) -> str:
    """`fused`, `xformers` or `sliced`: what `auto` comes to, or the choice itself.

    Args:
        choice: `fused`, torch's scaled_dot_product_attention; `xformers`; `sliced`, some heads at a time, which saves
            memory only where no fused kernel serves and costs six times as much elsewhere; or `auto`, which is fused
            where there is a kernel for it and else sliced, never xformers.
        device: where networks run.
        dtype: at which precision.

    Raises:
        MissingDependency: xformers is chosen and not installed.
        BadInput: xformers is chosen for a device that it has no kernels for.
    """
    if choice == "auto":
        return "fused" if has_fused_kernel(device, dtype) else "sliced"
    if choice == "xformers" and device.type != "cuda":
        raise BadInput(f"attention: xformers on {device}; wanted an NVIDIA card for it. Choose auto.")
    if choice == "xformers" and importlib.util.find_spec("xformers") is None:
        raise MissingDependency(
            "attention: the Python package 'xformers' is not installed; wanted for attention xformers. Choose auto, "
            "or install the version made for your torch: python -m pip install --no-deps xformers",
            name="xformers",
        )
    return choice


def set_attention(module: nn.Module, chosen: str) -> None:
    """Sets every attention layer of a network to what `choose_attention` gave."""
    from diffusers.models.attention_processor import Attention

    layers: list[Any] = [part for part in module.modules() if isinstance(part, Attention)]
    for layer in layers:
        if chosen == "xformers":
            layer.set_use_memory_efficient_attention_xformers(True)
        else:
            layer.set_attention_slice(max(1, layer.sliceable_head_dim // 2) if chosen == "sliced" else None)


def has_fused_kernel(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether torch has attention for the device that makes no [L,S] matrix.

    On CUDA flash attention wants compute capability 8; the memory-efficient kernel, which older cards such as
    Turing's use, wants 5. The CPU's flash kernel takes every float type.
    """
    if device.type != "cuda":
        return True
    probe = torch.zeros(1, 1, 8, 64, device=device, dtype=dtype)
    params = _sdpa_params(probe)
    flash = torch.backends.cuda.can_use_flash_attention(params)
    return bool(flash or torch.backends.cuda.can_use_efficient_attention(params))


def _sdpa_params(probe: Tensor) -> Any:
    """What torch's checks want to know of an attention, without a mask; since torch 2.5 whether heads are grouped."""
    make: Any = torch.backends.cuda.SDPAParams
    known = (probe, probe, probe, None, 0.0, False)
    try:
        return make(*known, False)
    except TypeError:
        return make(*known)
