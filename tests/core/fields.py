"""Fields of known solids: logits that rise slowly or steeply across the surface. Shared by tests and benchmarks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

Distance = Callable[[Tensor], Tensor]
"""[N,3] points -> [N] distance to the surface, positive inside; a bound where it is not exact."""

SLOW, STEEP = 0.1, 1 / 128
"""Distances within which a logit rises from 0 to 1. Users' reports suggest STEEP for the published shape VAE."""


def logits(distance: Distance, rise: float) -> Distance:
    """The field whose logit is the distance in units of `rise`, clipped to -1 and 1."""
    return lambda points: (distance(points) / rise).clamp(-1, 1)


def _ball(points: Tensor, radius: float, centre: tuple[float, float, float] = (0, 0, 0)) -> Tensor:
    return radius - (points - torch.tensor(centre, device=points.device)).norm(dim=1)


def _box(points: Tensor, half: tuple[float, float, float], centre: tuple[float, float, float] = (0, 0, 0)) -> Tensor:
    outside = (points - torch.tensor(centre, device=points.device)).abs() - torch.tensor(half, device=points.device)
    return -(outside.clamp(min=0).norm(dim=1) + outside.amax(dim=1).clamp(max=0))


def _turned(points: Tensor) -> Tensor:
    x, y, z = points.T
    x, y = math.cos(0.5) * x - math.sin(0.5) * y, math.sin(0.5) * x + math.cos(0.5) * y
    y, z = math.cos(0.3) * y - math.sin(0.3) * z, math.sin(0.3) * y + math.cos(0.3) * z
    return torch.stack([x, y, z], dim=1)


def _thin(points: Tensor) -> Tensor:
    return _box(points, (0.7, 0.0088, 0.6))


def _wires(points: Tensor) -> Tensor:
    """Three straight wires and a helix."""
    x, y, z = points.T
    straight = [torch.hypot(x - 0.31, y + 0.17), torch.hypot(y - 0.43, z - 0.11), torch.hypot(x + 0.4, z + 0.37)]
    wires = [0.008 - distance for distance in straight]
    angle = 12 * y
    helix = torch.hypot(x - 0.5 * angle.cos(), z - 0.5 * angle.sin()) / math.hypot(1, 0.5 * 12)
    ends = 0.8 - points.abs().amax(dim=1)
    return torch.minimum(torch.stack([*wires, 0.012 / math.hypot(1, 6) - helix]).amax(dim=0), ends)


def _nested(points: Tensor) -> Tensor:
    radius = points.norm(dim=1)
    shells = [0.01 - (radius - 0.8).abs(), 0.008 - (radius - 0.55).abs(), 0.3 - radius]
    return torch.stack(shells).amax(dim=0)


def _two_blobs(points: Tensor) -> Tensor:
    return torch.maximum(_ball(points, 0.5, (-0.2, 0, 0)), _ball(points, 0.02, (0.7, 0.31, 0.23)))


def _dust(points: Tensor) -> Tensor:
    """A ball and 120 grains of radius 0.004 to 0.04 around it."""
    generator = torch.Generator().manual_seed(3)
    direction = torch.randn(120, 3, generator=generator)
    centres = direction / direction.norm(dim=1, keepdim=True) * (0.55 + 0.35 * torch.rand(120, 1, generator=generator))
    radii = 0.004 + 0.036 * torch.rand(120, generator=generator)
    grains = (radii.to(points) - torch.cdist(points, centres.to(points))).amax(dim=1)
    return torch.maximum(_ball(points, 0.4), grains)


def _gyroid(points: Tensor) -> Tensor:
    x, y, z = (9 * points).T
    sheet = x.sin() * y.cos() + y.sin() * z.cos() + z.sin() * x.cos()
    return torch.minimum((0.35 - sheet.abs()) / 16, _ball(points, 0.85))


def _chair(points: Tensor) -> Tensor:
    legs = [_box(points, (0.035, 0.4, 0.035), (x, -0.4, z)) for x in (-0.4, 0.4) for z in (-0.4, 0.4)]
    rails = [_box(points, (0.012, 0.4, 0.012), (x, 0.4, -0.42)) for x in (-0.4, -0.2, 0.0, 0.2, 0.4)]
    rest = [_box(points, (0.45, 0.03, 0.45)), _box(points, (0.45, 0.04, 0.02), (0, 0.8, -0.42))]
    return torch.stack([*legs, *rails, *rest]).amax(dim=0)


def _slit(points: Tensor) -> Tensor:
    return torch.minimum(_box(points, (0.7, 0.5, 0.4)), -_box(points, (0.006, 1.0, 1.0), (0.11, 0, 0.3)))


ANALYTIC: Mapping[str, Distance] = MappingProxyType(
    {
        "sphere": lambda points: _ball(points, 0.75), "plate along the axes": _thin,
        "tilted plate": lambda points: _thin(_turned(points)), "wires": _wires, "nested shells": _nested,
        "two blobs": _two_blobs, "dust": _dust, "gyroid": _gyroid, "chair": _chair, "slit": _slit,
    }
)  # fmt: skip
