"""Gives the field of a solid to a shape VAE with random weights, whose own field has no surface.

The geometry decoder computes every point that it is asked for, so the time is that of the real network. Only its result
is replaced. So marching cubes, cleaning and unwrapping get a real mesh, and a decoder that asks only near the surface
asks as many points as for a real object. Ours and upstream get the same field.

This file is the only place where the benchmarks change what a network of the shape model returns. It relies on two
names of upstream's ShapeVAE: `geo_decoder`, and its argument `queries`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lowvram_core.app.torch_host import TorchHost
from lowvram_core.host import Component

RING = (0.6, 0.2)
"""Radius of the torus, and of its tube."""
BALL = 0.32
"""Radius of the ball, which sits on the torus. Together they are one part with one hole."""
REACH = 1 / 128
"""The distance at which the logit reaches 1. Trained VAEs are about this steep."""


def solid_logits(points: Tensor) -> Tensor:
    """[...] float32 logits of [...,3] points: the distance to the surface over REACH, at most 1, positive inside."""
    x, y, z = points.float().unbind(-1)
    ball = BALL - ((x - RING[0]) ** 2 + y * y + z * z).sqrt()
    around = (x * x + z * z).sqrt() - RING[0]
    ring = RING[1] - (around * around + y * y).sqrt()
    return (torch.maximum(ball, ring) / REACH).clamp(-1.0, 1.0)


@contextmanager
def solid_field(geo_decoder: nn.Module) -> Iterator[None]:
    """Within it, the geometry decoder returns the solid's logits at the points, after it has computed its own."""

    def replace(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], logits: Tensor) -> Tensor:
        queries = kwargs["queries"] if "queries" in kwargs else args[0]
        return solid_logits(queries)[..., None].to(logits.dtype)

    handle = geo_decoder.register_forward_hook(replace, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@dataclass
class SolidHost(TorchHost):
    """The stand-alone host. While the shape VAE is borrowed, its field is that of the solid."""

    @contextmanager
    def borrow(self, component: Component) -> Iterator[nn.Module]:
        with super().borrow(component) as module:
            decoder = getattr(module, "geo_decoder", None)
            if decoder is None:
                yield module
                return
            with solid_field(decoder):
                yield module
