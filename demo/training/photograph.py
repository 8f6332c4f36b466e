"""The two pictures of `make demo`: a JPEG of a ring in a room, like a photograph, and a PNG cutout of a capsule."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from . import pictures, render, solids
from .render import Camera, Light, Surface
from .solids import Solid

RING = Solid("ring", 0.85, 0.85, 0.24, 0.24)
CAPSULE = Solid("capsule", 0.46, 0.85, 0.46)


def _room(origin: np.ndarray, way: np.ndarray, floor: float, wall: float) -> tuple[np.ndarray, np.ndarray]:
    """[N] distance to the floor (y = floor) or the wall (z = wall), and [N] bool: it is the floor."""
    with np.errstate(divide="ignore"):
        down = np.where(way[:, 1] < 0, (floor - origin[:, 1]) / way[:, 1], np.inf)
        back = np.where(way[:, 2] < 0, (wall - origin[:, 2]) / way[:, 2], np.inf)
    return np.minimum(down, back), down < back


def _shadow(solid: Solid, at: np.ndarray, light: np.ndarray, rng: np.random.Generator, rays: int = 6) -> np.ndarray:
    """[N] fraction of an area light that reaches each point."""
    total = np.zeros(len(at), np.float32)
    for _ in range(rays):
        towards = light + rng.normal(size=3) * 0.09
        way = np.broadcast_to(towards / np.linalg.norm(towards), at.shape).astype(np.float32)
        total += ~np.isfinite(render.trace(partial(solids.sdf, solid), at + way * 0.02, way, 4.0, 40))
    return total / rays


def ring_in_a_room(size_px: int = 640) -> Image.Image:
    """A red-orange ring that stands on a wooden floor in front of a wall."""
    rng = np.random.default_rng(20)
    distance, camera = partial(solids.sdf, RING), Camera(4, 9, 1.5, 6.5)
    fine = size_px * 3 // 2
    light = Light(np.array([-0.5, 0.72, 0.48]), 0.72, 0.36, 0.3, 0.2)
    light = Light(light.towards / np.linalg.norm(light.towards), light.sun, light.ambient, light.gloss, light.foot)
    s = render.see(distance, camera, fine)
    origin, way = camera.rays(fine)
    length, is_floor = _room(origin, way, -0.86, -2.6)
    length = np.minimum(length, 60)
    at = origin + way * length[:, None]
    grain = np.sin(at[:, 2] * 9 + 0.8 * np.sin(at[:, 0] * 2.3) + 0.35 * np.sin(at[:, 0] * 11)) * 0.03
    boards = (np.mod(at[:, 2] + 0.2, 0.55) < 0.012) * -0.10
    floor = np.array([0.60, 0.50, 0.40]) * (1 + grain + boards)[:, None]
    wall = np.array([0.66, 0.70, 0.71]) * (1 - 0.06 * np.clip(at[:, 1:2], -1, 3))
    lit = _shadow(RING, at, light.towards, rng)
    contact = 1 - 0.45 * np.exp(-np.maximum(solids.sdf(RING, at), 0) * 7)
    bright = (0.42 + 0.52 * lit) * np.where(is_floor, contact, 1)
    scene = np.where(is_floor[:, None], floor, wall) * bright[:, None]
    own = np.ones(s.mask.shape, np.float32)
    own[s.mask] = _shadow(RING, s.point[s.mask] + s.normal[s.mask] * 0.02, light.towards, rng)
    body = render.shade(s, np.array([0.93, 0.30, 0.10]), light, camera.axes()[2], own)
    rgb = np.where(s.mask[..., None], body, scene.reshape(fine, fine, 3)).astype(np.float32)
    rgb = cv2.resize(rgb, (size_px, size_px), interpolation=cv2.INTER_AREA)
    t = np.linspace(-1, 1, size_px)
    rgb *= (1 - 0.13 * (t[:, None] ** 2 + t[None] ** 2))[..., None]
    rgb += rng.normal(size=rgb.shape) * 0.012
    return Image.fromarray((np.clip(rgb, 0, 1) * 255 + 0.5).astype(np.uint8))


def capsule_cut_out(size_px: int = 512) -> Image.Image:
    """A blue-green capsule with real transparency around it."""
    camera = Camera(0, 8, 1.15, 7)
    light = Light(np.array([0.51, 0.62, 0.60]), 0.62, 0.45, 0.25, 0.2)
    s: Surface = render.see(partial(solids.sdf, CAPSULE), camera, size_px * 2)
    lit = render.shade(s, np.array([0.10, 0.55, 0.62]), light, camera.axes()[2])
    rgb, alpha = pictures.smooth_edge(lit, s.mask)
    return Image.fromarray((np.concatenate([rgb, alpha[..., None]], -1) * 255 + 0.5).astype(np.uint8), "RGBA")


def write(folder: Path) -> None:
    """Writes both pictures into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    ring_in_a_room().save(folder / "ring.jpg", quality=92)
    capsule_cut_out().save(folder / "capsule.png", optimize=True)
