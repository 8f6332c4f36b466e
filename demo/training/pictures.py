"""Pictures of the solids: geometry for training, and held-out pictures for tests."""

from __future__ import annotations

import colorsys
from functools import partial

import cv2
import numpy as np
from PIL import Image

from . import render, solids
from .render import Camera, Light, Surface
from .solids import KINDS, Solid

__all__ = ["KINDS", "held_out"]

HELD_OUT_SEED = 900_000  # Added to a held-out seed, so that training never uses the same random numbers.
# Azimuth and elevation in degrees: the four sides, two more of the three-view set, top and bottom.
VIEWS = ((0, 0), (90, 0), (180, 0), (270, 0), (120, 0), (240, 0), (0, 90), (180, -90))


def colour(rng: np.random.Generator) -> np.ndarray:
    """[3] a saturated or a pale colour."""
    if rng.random() < 0.65:
        hsv = rng.random(), rng.uniform(0.5, 1.0), rng.uniform(0.35, 1.0)
    else:
        hsv = rng.random(), rng.uniform(0.0, 0.5), rng.uniform(0.2, 0.97)
    return np.array(colorsys.hsv_to_rgb(*hsv), np.float32)


def albedo(rng: np.random.Generator, point: np.ndarray, two_tone: float = 0.3) -> np.ndarray:
    """[..., 3] colours of points: one colour, or two that a plane through the solid separates."""
    first, second = colour(rng), colour(rng)
    if rng.random() > two_tone:
        return np.broadcast_to(first, point.shape)
    axis, at = int(rng.choice([1, 1, 0])), rng.uniform(-0.3, 0.3)
    return np.where(point[..., axis : axis + 1] > at, first, second)


def front_camera(rng: np.random.Generator, lowest: float = 0.0) -> Camera:
    """The camera of a person who takes a picture: in front, a little above."""
    return Camera(float(rng.uniform(-6, 6)), float(rng.uniform(lowest, 20)), 1.45, float(rng.uniform(4.5, 9)))


def reframe(s: Surface, size_px: int, fill: float, shift: tuple[float, float] = (0, 0)) -> Surface:
    """Moves the surface to the middle of a square, and scales its longer side to `fill` of the width."""
    rows, cols = np.flatnonzero(s.mask.any(1)), np.flatnonzero(s.mask.any(0))
    top, bottom, left, right = rows[0], rows[-1] + 1, cols[0], cols[-1] + 1
    scale = fill * size_px / max(bottom - top, right - left)
    x = size_px * (0.5 + shift[0]) - scale * (left + right) / 2
    y = size_px * (0.5 + shift[1]) - scale * (top + bottom) / 2
    m = np.array([[scale, 0, x + scale / 2 - 0.5], [0, scale, y + scale / 2 - 0.5]])
    warp = partial(cv2.warpAffine, M=m, dsize=(size_px, size_px), flags=cv2.INTER_NEAREST)
    return Surface(warp(s.mask.astype(np.uint8)) > 0, warp(s.point), warp(s.normal))


def normalised(solid: Solid) -> float:
    """The factor that scales a solid to the size in which the texture stages render it: radius 0.575."""
    t = np.linspace(-1, 1, 41, dtype=np.float32)
    grid = np.stack(np.meshgrid(t, t, t, indexing="ij"), -1).reshape(-1, 3) * 0.87
    inside = grid[solids.sdf(solid, grid) < 0.01]
    return 0.575 / float(np.linalg.norm(inside, axis=1).max())


def view(solid: Solid, azim: float, elev: float, size_px: int) -> Surface:
    """One orthographic view as the texture stages render it; points are in their units (radius 0.575)."""
    scale = normalised(solid)
    s = render.see(partial(solids.sdf, solid), Camera(azim, elev, 0.6 / scale), size_px)
    return Surface(s.mask, s.point * scale, s.normal)


def normal_map(s: Surface) -> np.ndarray:
    """[H,W,3] 0..1, the paint model's normal map on white."""
    n = np.stack([s.normal[..., 0], -s.normal[..., 2], s.normal[..., 1]], -1)
    return np.where(s.mask[..., None], (n + 1) / 2, 1.0).astype(np.float32)


def position_map(s: Surface) -> np.ndarray:
    """[H,W,3] 0..1, the paint model's position map on white."""
    p = np.stack([s.point[..., 0], -s.point[..., 2], s.point[..., 1]], -1) / 1.15 + 0.5
    return np.where(s.mask[..., None], p, 1.0).astype(np.float32)


def smooth_edge(rgb: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Halves the size. The alpha becomes soft; the colour at the edge stays the object's."""
    m = mask.astype(np.float32)[..., None]
    size = rgb.shape[0] // 2, rgb.shape[1] // 2
    weight = cv2.resize(m, size, interpolation=cv2.INTER_AREA)[..., None]
    total = cv2.resize((rgb * m).astype(np.float32), size, interpolation=cv2.INTER_AREA)
    return total / np.maximum(weight, 1e-6), weight[..., 0]


def held_out(kind: str, seed: int, size_px: int = 384) -> tuple[Image.Image, dict]:
    """Returns an RGBA picture of a solid that training never used, and what it shows.

    Returns:
        The picture (size_px square) and {"genus": int, "extents": (x, y, z), "colour": (r, g, b) 0..1}.
    """
    rng = np.random.default_rng(HELD_OUT_SEED + 31 * seed + KINDS.index(kind))
    # From 8 degrees up: at eye level a box looks like a cylinder.
    solid, camera, light, paint = solids.sample(rng, kind), front_camera(rng, 8.0), Light.draw(rng), colour(rng)
    s = render.see(partial(solids.sdf, solid), camera, size_px * 2)
    rgb, alpha = smooth_edge(render.shade(s, paint, light, camera.axes()[2]), s.mask)
    rgba = np.concatenate([rgb, alpha[..., None]], -1)
    picture = Image.fromarray((rgba * 255 + 0.5).astype(np.uint8), "RGBA")
    return picture, {"genus": solid.genus, "extents": solid.extents, "colour": tuple(float(c) for c in paint)}
