"""Pictures for the shape models. Geometry is traced once; light, colour and cutout are new in every batch."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch

from . import pictures, render, solids
from .render import Camera, Light, Surface

log = logging.getLogger(__name__)
TRACED_PX, MODEL_PX = 192, 126
FILL = 0.85  # Upstream's image processor recentres with a border of 0.15.
SIDES = (0.0, 90.0, 180.0, 270.0)


@dataclass(frozen=True)
class Traced:
    """geometry [N,V,H,W,4] int8 (normal, height; all 0 outside the solid), codes [N,16]."""

    geometry: np.ndarray
    codes: np.ndarray

    def __len__(self) -> int:
        return len(self.codes)


def _packed(s: Surface) -> np.ndarray:
    flat = np.concatenate([s.normal, s.point[..., 1:2]], -1) * 126
    flat[s.mask] += (np.abs(flat[s.mask]).max(-1, keepdims=True) < 1) * 1.0
    return np.round(flat).astype(np.int8)


def trace(count: int, seed: int, views: int, cache: Path) -> Traced:
    """Traces `count` solids from the front (views 1) or from four sides (views 4, with free depths)."""
    path = cache / f"traced_{count}_{seed}_{views}.npz"
    if not path.exists():
        rng = np.random.default_rng(seed)
        rows, codes = [], []
        for _ in range(count):
            solid = solids.sample(rng, free_depth=views > 1 and bool(rng.random() < 0.6))
            front = pictures.front_camera(rng)
            cameras = [Camera(front.azim + a, front.elev, 1.4, front.distance) for a in SIDES[:views]]
            rows.append([_packed(render.see(partial(solids.sdf, solid), c, TRACED_PX)) for c in cameras])
            codes.append(solids.code(solid))
        cache.mkdir(parents=True, exist_ok=True)
        np.savez(path, geometry=np.array(rows), codes=np.array(codes))
        log.info("shape pictures: %d solids, %d views each", count, views)
    with np.load(path) as z:
        return Traced(z["geometry"], z["codes"])


def _cut(rgb: np.ndarray, alpha: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """[H,W,3] and [H,W] float -> [MODEL_PX,MODEL_PX,3]: adds the faults of a segmentation, then recentres on white."""
    if rng.random() < 0.35:
        k = np.ones((3, 3), np.uint8)
        alpha = cv2.erode(alpha, k) if rng.random() < 0.5 else cv2.dilate(alpha, k)
    if rng.random() < 0.35:
        alpha = cv2.GaussianBlur(alpha, (0, 0), rng.uniform(0.6, 1.6))
    rows, cols = np.flatnonzero((alpha > 0.02).any(1)), np.flatnonzero((alpha > 0.02).any(0))
    top, bottom, left, right = rows[0], rows[-1] + 1, cols[0], cols[-1] + 1
    if rng.random() < 0.15:  # The rest of a shadow at the foot.
        inset = (right - left) // 5
        foot = (slice(bottom - rng.integers(2, 7), bottom), slice(left + inset, right - inset))
        alpha[foot] = np.maximum(alpha[foot], rng.uniform(0.1, 0.6))
        rgb[foot] = np.where(alpha[foot][..., None] < 0.9, rng.uniform(0.2, 0.6), rgb[foot])
    scale = FILL * MODEL_PX / max(bottom - top, right - left) * rng.uniform(0.97, 1.02)
    x = MODEL_PX * (0.5 + rng.normal() * 0.006) - scale * (left + right) / 2
    y = MODEL_PX * (0.5 + rng.normal() * 0.006) - scale * (top + bottom) / 2
    m = np.array([[scale, 0, x + scale / 2 - 0.5], [0, scale, y + scale / 2 - 0.5]])
    on_white = rgb * alpha[..., None] + 1 - alpha[..., None]
    return cv2.warpAffine(
        on_white.astype(np.float32),
        m,
        (MODEL_PX, MODEL_PX),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(1, 1, 1),
    )


def picture(geometry: np.ndarray, paint: np.ndarray, light: Light, rng: np.random.Generator) -> np.ndarray:
    """[H,W,4] int8 -> [MODEL_PX,MODEL_PX,3] 0..1 on white, as the conditioner gets it."""
    flat = geometry.astype(np.float32) / 126
    mask = geometry.any(-1)
    s = Surface(mask, np.stack([flat[..., 3]] * 3, -1), flat[..., :3])
    rgb = render.shade(s, paint, light, np.array([0.0, 0.15, 1.0]))
    rgb = np.clip(rgb + rng.normal(size=rgb.shape) * rng.uniform(0, 0.03), 0, 1)
    return _cut(rgb.astype(np.float32), mask.astype(np.float32), rng)


def batch(traced: Traced, index: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
    """[B] indices -> [B,V,3,MODEL_PX,MODEL_PX] float32 in 0..1; the views of one solid share light and colour."""
    out = []
    for i in index:
        light, paint = Light.draw(rng), pictures.colour(rng)
        if rng.random() < 0.15:  # Two colours, separated at some height.
            at = rng.uniform(-40, 40)
            paint = np.where(traced.geometry[i, 0, ..., 3:] > at, paint, pictures.colour(rng))
        out.append([picture(g, paint, light, rng) for g in traced.geometry[i]])
    return torch.from_numpy(np.array(out)).permute(0, 1, 4, 2, 3).contiguous()
