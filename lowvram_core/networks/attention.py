"""Chooses the kernels for the attention of diffusers' networks.

`auto` never chooses xFormers: torch's fused attention takes as little memory and needs no other package. Whether
xFormers is faster has not been measured here. Users who found it faster on their card can choose it.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import Tensor, nn

from ..checks.packages import missing_package
from ..errors import BadInput

SLICED_MIB = 123.0
"""Activations in float16 that sliced attention adds to a UNet of the published size, for the scores of one picture of
512 px that attends to one picture."""


def sliced_mib(
    choice: str, device: torch.device, dtype: torch.dtype, *, pictures: int = 1, references: int = 1
) -> float:
    """MiB that a UNet's attention takes on top of the fused kernels; 0 where it is not sliced.

    Args:
        pictures: number of pictures that attend to each other.
        references: number of other pictures that each of them attends to.
    """
    largest = max(pictures**2, references)  # the attentions of a block run one after the other
    return SLICED_MIB * largest if choose_attention(choice, device, dtype) == "sliced" else 0.0


def choose_attention(choice: str, device: torch.device, dtype: torch.dtype) -> str:
    """Returns `fused`, `xformers` or `sliced`: the choice itself, or what `auto` means on the device.

    Args:
        choice: `fused` is torch's scaled_dot_product_attention. `sliced` computes some heads at a time: it saves memory
            where the device has no fused kernel, and takes six times as much elsewhere. `auto` is fused where the
            device has a kernel for it, else sliced.
        device: where the networks run.
        dtype: the precision that they run at.

    Raises:
        MissingDependency: xformers is chosen and not installed.
        BadInput: xformers is chosen, but has no kernels for the device.
    """
    if choice == "auto":
        return "fused" if has_fused_kernel(device, dtype) else "sliced"
    if choice == "xformers" and device.type != "cuda":
        raise BadInput(f"attention: xformers on {device}; wanted an NVIDIA card for it. Choose auto.")
    if choice == "xformers" and importlib.util.find_spec("xformers") is None:
        raise missing_package("attention", ["xformers"], otherwise="It must fit your torch. Or choose attention auto.")
    return choice


def set_attention(module: nn.Module, chosen: str) -> None:
    """Sets every attention layer of a network to the result of `choose_attention`."""
    from diffusers.models.attention_processor import Attention

    layers: list[Any] = [part for part in module.modules() if isinstance(part, Attention)]
    for layer in layers:
        if chosen == "xformers":
            layer.set_use_memory_efficient_attention_xformers(True)
        else:
            layer.set_attention_slice(max(1, layer.sliceable_head_dim // 2) if chosen == "sliced" else None)


def has_fused_kernel(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether torch has attention for the device that makes no [L,S] matrix.

    On CUDA, flash attention needs compute capability 8. The memory-efficient kernel needs 5, so it serves older cards
    such as Turing's. The CPU's flash kernel takes every float type.
    """
    if device.type != "cuda":
        return True
    probe = torch.zeros(1, 1, 8, 64, device=device, dtype=dtype)
    params = _sdpa_params(probe)
    flash = torch.backends.cuda.can_use_flash_attention(params)
    return bool(flash or torch.backends.cuda.can_use_efficient_attention(params))


def _sdpa_params(probe: Tensor) -> Any:
    """Describes an unmasked attention to torch's checks, which since torch 2.5 ask whether heads are grouped."""
    make: Any = torch.backends.cuda.SDPAParams
    known = (probe, probe, probe, None, 0.0, False)
    try:
        return make(*known, False)
    except TypeError:
        return make(*known)
