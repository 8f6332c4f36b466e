"""Renames published DINOv2 weights to the names that the installed transformers uses.

transformers 5.18 renamed Dinov2's attention and split the giant's fused SwiGLU projection in two. The published
checkpoints have the old names. Checkpoints saved by a new transformers have the new names, and an older transformers
needs them renamed back.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TypeVar

import torch
from torch import Tensor

from ..files.checkpoints import Shape

_RENAMED = (
    (".attention.attention.query.", ".attention.q_proj."),
    (".attention.attention.key.", ".attention.k_proj."),
    (".attention.attention.value.", ".attention.v_proj."),
    (".attention.output.dense.", ".attention.o_proj."),
    (".mlp.weights_out.", ".mlp.down_proj."),
)
_FUSED = ".mlp.weights_in."
_SPLIT = (".mlp.gate_proj.", ".mlp.up_proj.")

Item = TypeVar("Item", Tensor, Shape)


def to_installed_names(state: Mapping[str, Item], wanted: Collection[str]) -> dict[str, Item]:
    """Renames a checkpoint to the names that the installed transformers uses.

    Args:
        state: tensors, or their shapes, under old or new names.
        wanted: the names of the empty module's weights.
    """
    return _to_new(state) if any(_RENAMED[0][1] in name for name in wanted) else _to_old(state)


def _to_new(state: Mapping[str, Item]) -> dict[str, Item]:
    renamed: dict[str, Item] = {}
    for name, item in state.items():
        if _FUSED in name:
            gate, up = _halves(item)
            renamed[name.replace(_FUSED, _SPLIT[0])] = gate
            renamed[name.replace(_FUSED, _SPLIT[1])] = up
        else:
            renamed[_replace(name, forwards=True)] = item
    return renamed


def _to_old(state: Mapping[str, Item]) -> dict[str, Item]:
    renamed: dict[str, Item] = {}
    for name, item in state.items():
        if _SPLIT[0] in name:
            renamed[name.replace(_SPLIT[0], _FUSED)] = _joined(item, state[name.replace(_SPLIT[0], _SPLIT[1])])
        elif _SPLIT[1] not in name:
            renamed[_replace(name, forwards=False)] = item
    return renamed


def _replace(name: str, forwards: bool) -> str:
    for old, new in _RENAMED:
        name = name.replace(old, new) if forwards else name.replace(new, old)
    return name


def _halves(item: Item) -> tuple[Item, Item]:
    if isinstance(item, tuple):
        half = (item[0] // 2, *item[1:])
        return half, half
    gate, up = item.chunk(2, dim=0)
    return gate, up


def _joined(gate: Item, up: Item) -> Item:
    if isinstance(gate, tuple):
        return (gate[0] * 2, *gate[1:])
    assert isinstance(up, Tensor)
    return torch.cat([gate, up])
