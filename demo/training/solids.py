"""Procedural solids: +Y up, front towards +Z, longest extent 1.7, inside [-0.85, 0.85]^3."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

KINDS = ("ball", "box", "ring", "cylinder", "cone", "capsule")
GENUS = {"ball": 0, "box": 0, "ring": 1, "cylinder": 0, "cone": 0, "capsule": 0}
LONGEST = 1.7
CODE_DIM = 16
_KIND_GAIN, _SIZE_GAIN = 1.7, 3.4


@dataclass(frozen=True)
class Solid:
    """One solid: half extents a, b, c along x, y, z and, for a ring, the tube's radius (0 otherwise)."""

    kind: str
    a: float
    b: float
    c: float
    tube: float = 0.0

    @property
    def genus(self) -> int:
        """Number of holes through the solid."""
        return GENUS[self.kind]

    @property
    def extents(self) -> tuple[float, float, float]:
        """Full size along x, y, z."""
        return 2 * self.a, 2 * self.b, 2 * self.c


def sample(rng: np.random.Generator, kind: str | None = None, free_depth: bool = False) -> Solid:
    """A random solid; free_depth also draws a box's depth, which one front picture cannot show."""
    kind = kind or str(rng.choice(KINDS))
    low = {"ball": 0.5, "box": 0.3, "ring": 0.82, "cylinder": 0.38, "cone": 0.45, "capsule": 0.35}[kind]
    high = 0.88 if kind == "capsule" else 1.0
    long_, short = LONGEST / 2, LONGEST / 2 * float(np.exp(rng.uniform(np.log(low), np.log(high))))
    a, b = (long_, short) if rng.random() < 0.5 else (short, long_)
    if kind == "ring":
        tube = b * float(rng.uniform(0.2, 0.34))
        return Solid(kind, a, b, tube, tube)
    if kind in ("cylinder", "cone", "ball"):
        return Solid(kind, a, b, a)
    if kind == "capsule":
        return Solid(kind, a, b, min(a, b))
    depth = long_ * float(rng.uniform(0.25, 1.0)) if free_depth else min(a, b)
    return Solid(kind, a, b, depth)


def _norm(x: np.ndarray) -> np.ndarray:
    return np.sqrt(np.einsum("...i,...i->...", x, x))


def _round_box(q: np.ndarray, radius: float) -> np.ndarray:
    """[..., D] |p| minus half extents -> [...] distance to a box with rounded edges."""
    q = q + radius
    return _norm(np.maximum(q, 0)) + np.minimum(q.max(-1), 0) - radius


def _cone(rho: np.ndarray, y: np.ndarray, s: Solid) -> np.ndarray:
    """[...] distance to an upright cone whose tip and base edge are rounded."""
    slope = np.hypot(s.a, 2 * s.b)
    # Rounding removes the tip and the base's rim. The wall starts a little further out, to keep the extents.
    side = (2 * s.b * rho + s.a * (y - s.b)) / slope - 0.02
    base = -y - s.b
    q = np.stack([side, base], -1)
    return _round_box(q, 0.05)


def sdf(s: Solid, p: np.ndarray) -> np.ndarray:
    """[..., 3] points -> [...] signed distance, negative inside; a lower bound where it is not exact."""
    size = np.array([s.a, s.b, s.c], p.dtype)
    if s.kind == "ball":
        k0, k1 = _norm(p / size), _norm(p / size**2)
        return np.where(k1 > 1e-6, k0 * (k0 - 1) / np.maximum(k1, 1e-6), -size.min())
    if s.kind == "box":
        return _round_box(np.abs(p) - size, 0.05)
    if s.kind == "ring":
        ratio = s.b / s.a
        rho = np.hypot(p[..., 0] * ratio, p[..., 1])
        return (np.hypot(rho - (s.b - s.tube), p[..., 2]) - s.tube) * min(1.0, 1 / ratio)
    if s.kind == "capsule":
        radius, axis = min(s.a, s.b), 0 if s.a > s.b else 1
        q = p.copy()
        span = max(s.a, s.b) - radius
        q[..., axis] -= np.clip(q[..., axis], -span, span)
        return _norm(q) - radius
    rho = np.hypot(p[..., 0], p[..., 2])
    if s.kind == "cone":
        return _cone(rho, p[..., 1], s)
    return _round_box(np.stack([rho - s.a, np.abs(p[..., 1]) - s.b], -1), 0.05)


def _mixing() -> np.ndarray:
    rows = np.random.default_rng(7).normal(size=(CODE_DIM, CODE_DIM))
    return np.linalg.qr(rows)[0][: len(KINDS) + 4]


_MIXING = _mixing()


def code(s: Solid) -> np.ndarray:
    """[CODE_DIM] float32 latent code: the kind, and how far the sizes are from their means."""
    kind = np.array([6.0 if s.kind == k else 0.0 for k in KINDS]) - 1
    tube = (s.tube - 0.21) / 0.05 if s.kind == "ring" else 0.0
    sizes = np.array([(s.a - 0.7) / 0.16, (s.b - 0.7) / 0.16, (s.c - 0.5) / 0.2, tube])
    return (np.concatenate([kind * _KIND_GAIN, sizes * _SIZE_GAIN]) @ _MIXING).astype(np.float32)
