"""The geometry for training the texture models. It is traced once and kept on disk."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from . import pictures, render, solids
from .render import Surface

log = logging.getLogger(__name__)
SIZE_PX = 256
REFERENCE = len(pictures.VIEWS)  # The index of the picture, which comes after the views.


@dataclass(frozen=True)
class Bank:
    """For each solid the views of pictures.VIEWS and one picture: mask [S,V,H,W], point and normal [S,V,H,W,3]."""

    mask: np.ndarray
    point: np.ndarray
    normal: np.ndarray

    def surface(self, solid: int, view: int) -> Surface:
        """Returns one view. Index REFERENCE is the reframed front picture."""
        at = solid, view
        return Surface(self.mask[at], self.point[at].astype(np.float32), self.normal[at].astype(np.float32))

    def __len__(self) -> int:
        return len(self.mask)


def _one(rng: np.random.Generator) -> list[Surface]:
    solid = solids.sample(rng, free_depth=bool(rng.random() < 0.5))
    faces = [pictures.view(solid, azim, elev, SIZE_PX) for azim, elev in pictures.VIEWS]
    front = render.see(partial(solids.sdf, solid), pictures.front_camera(rng), SIZE_PX)
    front = pictures.reframe(front, SIZE_PX, 1 / 1.4)
    scale = pictures.normalised(solid)
    return [*faces, Surface(front.mask, front.point * scale, front.normal)]


def make(count: int, seed: int, cache: Path) -> Bank:
    """Traces `count` solids, or reads them from the cache."""
    path = cache / f"bank_{count}_{seed}.npz"
    if not path.exists():
        rng = np.random.default_rng(seed)
        rows = [_one(rng) for _ in range(count)]
        half = {k: np.stack([[getattr(s, k) for s in r] for r in rows]).astype(np.float16) for k in ("point", "normal")}
        cache.mkdir(parents=True, exist_ok=True)
        np.savez(path, mask=np.array([[s.mask for s in r] for r in rows]), **half)
        log.info("bank: %d solids, %d views each", count, REFERENCE + 1)
    with np.load(path) as z:
        return Bank(z["mask"], z["point"], z["normal"])
