"""Asks a field for its logits, chunk by chunk, while the device stays busy."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checks.finite import check_finite

BOX = 1.01
"""Half the edge of the cube in which a field is sampled; upstream's box_v."""
LEVEL = 0.0
"""The surface is where the field has this logit; upstream's mc_level."""
IN_FLIGHT = 2
"""Chunks that are queued on a GPU at once: one computes, and the next waits, so that the GPU never waits for Python."""

Field = Callable[[Tensor], Tensor]
"""Takes [N,3] float32 points, returns [N] float32 logits, positive inside; both on the device of the network."""

Points = Callable[[int, int], Tensor]
"""Returns the points number `start` to `stop` as [N,3] float32 on any device."""


@dataclass(frozen=True)
class Asking:
    """How a field is asked."""

    device: torch.device
    """Where the field computes."""
    gather_on: torch.device
    """Where all its logits are collected."""
    points_per_chunk: int
    """At most so many points go into one call of the field."""
    dtype: torch.dtype
    """The precision in which the field computes, for the error message."""
    progress: Callable[[int, int], None]
    """Called with what is done and all, after each chunk; an error that it raises stops the work."""


def axis(octree: int, device: torch.device) -> Tensor:
    """[octree + 1] float32 coordinates of the grid's points along one axis."""
    return torch.from_numpy(np.linspace(-BOX, BOX, octree + 1, dtype=np.float32)).to(device)


def ask(
    field: Field, count: int, points: Points, how: Asking, done: Callable[[int], None], *, padded: bool = False
) -> Tensor:
    """[count] float32 logits of the points, on `how.gather_on`.

    From another device the logits come through pinned memory while the next chunk computes.

    Args:
        done: called with the number of points done after each chunk, instead of `how.progress`.
        padded: repeats the last point until the last chunk is full. The rounding of a network depends on the number of
            points in the call, so a point then gets the same logit in whichever chunk it is asked.

    Raises:
        NumericalFailure: some logits are NaN or infinite.
    """
    logits = torch.empty(count, device=how.gather_on)
    sent: deque[_Sent] = deque()
    buffers: list[Tensor] = []
    arrived = 0
    for start in range(0, count, how.points_per_chunk):
        chunk = points(start, min(start + how.points_per_chunk, count)).to(how.device)
        there = logits[start : start + len(chunk)]
        if padded and len(chunk) < how.points_per_chunk:
            chunk = torch.cat([chunk, chunk[-1:].expand(how.points_per_chunk - len(chunk), 3)])
        sent.append(_send(field(chunk)[: len(there)], there, buffers))
        if len(sent) == IN_FLIGHT:
            arrived += _arrive(sent.popleft(), buffers)
            done(arrived)
    while sent:
        arrived += _arrive(sent.popleft(), buffers)
        done(arrived)
    check_finite("shape", "decode", how.dtype, logits)
    return logits


@dataclass
class _Sent:
    """Logits of a chunk on their way."""

    there: Tensor
    """Where they belong: a part of the tensor that holds all."""
    pinned: Tensor | None
    """Where they arrive first; None if they are copied to `there` at once."""
    done: Any
    """An event of the device, or None where the copy is already over."""


def _send(logits: Tensor, there: Tensor, buffers: list[Tensor]) -> _Sent:
    streams: Any = None if logits.device.type in ("cpu", "meta") else torch.get_device_module(logits.device)
    if not hasattr(streams, "current_stream"):
        there.copy_(logits)
        return _Sent(there, None, None)
    pinned = None
    if there.device == logits.device:
        there.copy_(logits)
    else:
        pinned = buffers.pop() if buffers else _pinned(logits)
        pinned[: len(logits)].copy_(logits, non_blocking=True)
    return _Sent(there, pinned, streams.current_stream(logits.device).record_event())


def _pinned(like: Tensor) -> Tensor:
    try:
        return torch.empty(like.shape, dtype=like.dtype, pin_memory=True)
    except RuntimeError:  # the system refuses; the copy then waits for the device
        return torch.empty(like.shape, dtype=like.dtype)


def _arrive(sent: _Sent, buffers: list[Tensor]) -> int:
    """Waits for the logits and puts them where they belong; returns their number."""
    if sent.done is not None:
        sent.done.synchronize()
    if sent.pinned is not None:
        sent.there.copy_(sent.pinned[: len(sent.there)])
        buffers.append(sent.pinned)
    return len(sent.there)
