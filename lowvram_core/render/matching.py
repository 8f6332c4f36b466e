"""Brings views to the same brightness where they show the same surface."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..types import Camera
from .project import EXPONENT
from .scene import Scene
from .seen import look, shoot
from .texels import Texels

_SAMPLES = 1 << 16
"""About so many texels are compared."""
_SIZE_PX = 512
_FEWEST = 50
"""Two views are compared if both see at least so many of these texels."""
_DARK, _BRIGHT = 0.02, 0.98
"""Colours outside of this range say little about the gain: they are noise, or cut off."""
_MOST = 1.25
"""A gain is at most this, and at least 1 / this. Larger differences are no matter of brightness."""
_ANCHOR = 1e3
"""How strongly the mean gain is held at 1, compared with one texel that two views see."""
_TINY = 1e-12


def gains(scene: Scene, pictures: Tensor, cameras: Sequence[Camera], texels: Texels) -> Tensor:
    """[N,3] float32 factors for the channels of the pictures [N,P,P,3], which make them agree where they overlap.

    For each two views, the median of the ratio of their colours is taken over the texels that both see. The gains are
    the solution by least squares. Their mean, weighted by what each view adds to the texture, stays 1.

    Memory: that of `shoot` at 512 px, and 16 bytes of RAM per sample and view.
    """
    step = max(len(texels.index) // _SAMPLES, 1)
    places, normals = (part[::step].to(scene.device) for part in (texels.places, texels.normals))
    weights, logs = torch.zeros(len(cameras), len(places)), torch.zeros(len(cameras), len(places), 3)
    for view, (picture, camera) in enumerate(zip(pictures, cameras, strict=True)):
        shot = shoot(scene, picture.detach().float().to(scene.device), camera, _SIZE_PX)
        index, colours, cosine, trust = look(shot, places, normals)
        usable = ((colours > _DARK) & (colours < _BRIGHT)).all(dim=1).cpu()
        index = index.cpu()[usable]
        weights[view, index] = cosine.pow_(EXPONENT).mul_(camera.weight).mul_(trust).cpu()[usable]
        logs[view, index] = colours.cpu()[usable].log()
    return _solved(weights, logs).exp().clamp_(1 / _MOST, _MOST)


def _solved(weights: Tensor, logs: Tensor) -> Tensor:
    """[N,3] logarithms of the gains, from logarithms of colours [N,M,3]; weights [N,M] are 0 where nothing was seen."""
    count = len(weights)
    rows, wanted = [torch.eye(count)], [torch.zeros(count, 3)]
    for one in range(count):
        for other in range(one):
            both = (weights[one] > 0) & (weights[other] > 0)
            texels = int(both.sum())
            if texels >= _FEWEST:
                row = torch.zeros(1, count)
                row[0, one], row[0, other] = texels**0.5, -(texels**0.5)
                rows.append(row)
                ratio = (logs[other] - logs[one])[both].median(dim=0, keepdim=True).values
                wanted.append(texels**0.5 * ratio)
    shares = weights / weights.sum(dim=0).clamp(min=_TINY)
    rows.append(_ANCHOR * shares.sum(dim=1, keepdim=True).t() / shares.sum().clamp(min=_TINY))
    wanted.append(torch.zeros(1, 3))
    return torch.linalg.lstsq(torch.cat(rows), torch.cat(wanted)).solution
