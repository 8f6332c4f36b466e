"""Traces a picture of a signed distance function: first the geometry, then light and colour."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Distance = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Camera:
    """Looks at the origin from azimuth `azim` (0 is the front, +Z; 90 is +X) and elevation `elev`, in degrees.

    `half` is half of the picture's width at the origin. Distance 0 means orthographic.
    """

    azim: float = 0.0
    elev: float = 0.0
    half: float = 1.1
    distance: float = 0.0

    def axes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Unit right, up and towards-the-camera vectors."""
        az, el = np.radians(self.azim), np.radians(self.elev)
        back = np.array([np.sin(az) * np.cos(el), np.sin(el), np.cos(az) * np.cos(el)])
        right = np.array([np.cos(az), 0.0, -np.sin(az)])
        return right, np.cross(back, right), back

    def rays(self, size_px: int) -> tuple[np.ndarray, np.ndarray]:
        """[size*size, 3] origins and unit directions, rows from the top."""
        right, up, back = self.axes()
        t = ((np.arange(size_px) + 0.5) / size_px * 2 - 1) * self.half
        plane = (t[None, :, None] * right - t[:, None, None] * up).reshape(-1, 3)
        if not self.distance:
            return (plane + back * 3).astype(np.float32), np.broadcast_to(-back, plane.shape).astype(np.float32)
        eye = back * self.distance
        way = plane - eye
        way /= np.linalg.norm(way, axis=1, keepdims=True)
        return np.broadcast_to(eye, way.shape).astype(np.float32), way.astype(np.float32)


@dataclass(frozen=True)
class Surface:
    """What each pixel sees: mask [H,W] bool, point [H,W,3], normal [H,W,3] (unit; 0 where nothing is hit)."""

    mask: np.ndarray
    point: np.ndarray
    normal: np.ndarray


def trace(distance: Distance, origin: np.ndarray, way: np.ndarray, far: float, steps: int = 64) -> np.ndarray:
    """[N,3] rays -> [N] length to the first hit, inf where there is none."""
    length = np.zeros(len(origin), np.float32)
    result = np.full(len(origin), np.inf, np.float32)
    live = np.arange(len(origin))
    for _ in range(steps):
        d = distance(origin[live] + way[live] * length[live, None])
        hit = d < 1e-3
        result[live[hit]] = length[live[hit]]
        length[live] += d * 0.95
        live = live[~hit & (length[live] < far)]
        if not len(live):
            break
    return result


def gradient(distance: Distance, point: np.ndarray, eps: float = 2e-3) -> np.ndarray:
    """[N,3] unit outward normals from four samples of the distance."""
    corners = np.array([[1, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]], np.float32)
    total = sum(k * distance(point + k * eps)[:, None] for k in corners)
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-9)


def see(distance: Distance, camera: Camera, size_px: int) -> Surface:
    """Returns the surface that a camera sees, size_px square."""
    origin, way = camera.rays(size_px)
    # Everything lies within 1.5 of the origin, so rays may start and end at that sphere.
    b = np.einsum("ij,ij->i", origin, way)
    disc = b * b - (np.einsum("ij,ij->i", origin, origin) - 1.5**2)
    near = np.flatnonzero(disc > 0)
    root = np.sqrt(disc[near])
    start = origin[near] + way[near] * (-b[near] - root)[:, None]
    length = trace(distance, start, way[near], 3.1)
    hit = np.isfinite(length)
    index = near[hit]
    at = start[hit] + way[index] * length[hit, None]
    shape = (size_px, size_px)
    mask = np.zeros(size_px * size_px, bool)
    point = np.zeros((size_px * size_px, 3), np.float32)
    normal = np.zeros_like(point)
    mask[index], point[index], normal[index] = True, at, gradient(distance, at)
    return Surface(mask.reshape(shape), point.reshape(*shape, 3), normal.reshape(*shape, 3))


@dataclass(frozen=True)
class Light:
    """A sun (unit vector towards it), its strength, ambient light, a highlight, and darkening at the foot."""

    towards: np.ndarray
    sun: float
    ambient: float
    gloss: float
    foot: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Light:
        """A random light from above or the front."""
        towards = np.array([rng.normal() * 0.8, abs(rng.normal()) + 0.2, abs(rng.normal()) + 0.3])
        return cls(
            towards / np.linalg.norm(towards),
            rng.uniform(0.35, 0.8),
            rng.uniform(0.35, 0.6),
            rng.uniform(0, 0.35) * (rng.random() < 0.6),
            rng.uniform(0, 0.3),
        )


def shade(s: Surface, albedo: np.ndarray, light: Light, view: np.ndarray, lit: np.ndarray | None = None) -> np.ndarray:
    """[H,W,3] lit colours in 0..1; albedo broadcasts to [H,W,3]; lit [H,W] is 0 in cast shadow."""
    lit = np.ones(s.mask.shape, np.float32) if lit is None else lit
    cosine = np.clip(s.normal @ light.towards, 0, 1) * lit
    half = light.towards + view
    shine = np.clip(s.normal @ (half / np.linalg.norm(half)), 0, 1) ** 40 * lit
    foot = 1 - light.foot * np.clip(-s.normal[..., 1] * 0.5 - s.point[..., 1] * 0.4, 0, 1)
    sky = 0.85 + 0.15 * s.normal[..., 1]
    grey = (light.ambient * sky + light.sun * cosine) * foot
    return np.clip(albedo * grey[..., None] + (light.gloss * shine)[..., None], 0, 1)
