"""Shapes for tests."""

from __future__ import annotations

import numpy as np
import torch
import trimesh
from torch import Tensor

from lowvram_core.presets import Preset
from lowvram_core.presets import get as get_preset
from lowvram_core.types import Mesh


def to_mesh(shape: trimesh.Trimesh) -> Mesh:
    """The shape as a Mesh."""
    return Mesh(
        torch.tensor(np.asarray(shape.vertices), dtype=torch.float32),
        torch.tensor(np.asarray(shape.faces), dtype=torch.int64),
    )


def to_trimesh(mesh: Mesh) -> trimesh.Trimesh:
    """The mesh's geometry, untouched."""
    return trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=False)


def cube() -> Mesh:
    """12 faces, 8 vertices."""
    return to_mesh(trimesh.creation.box((1, 1, 1)))


def torus(major: int = 48, minor: int = 24, bumps: float = 0.0) -> Mesh:
    """2 major minor faces, lying in the XZ plane; `bumps` waves on its surface."""
    mesh = to_mesh(trimesh.creation.torus(1.0, 0.42, major_sections=major, minor_sections=minor))
    x, y, z = mesh.vertices.unbind(dim=1)
    points = torch.stack([x, z, -y], dim=1)
    wave = 1 + bumps * torch.sin(5 * x + 0.3) * torch.cos(4 * y - 0.7) * torch.sin(6 * z + 1.1)
    return mesh.with_(vertices=points * wave.unsqueeze(1))


def blob(subdivisions: int = 4, depth: float = 0.25) -> Mesh:
    """A bumpy ball of 20 x 4^subdivisions faces, unlike itself from every side."""
    mesh = to_mesh(trimesh.creation.icosphere(subdivisions=subdivisions))
    x, y, z = mesh.vertices.unbind(dim=1)
    radius = 1 + depth * (torch.sin(3 * x + 1) * torch.cos(4 * y) + 0.5 * torch.sin(5 * z - 2 * x))
    return mesh.with_(vertices=mesh.vertices * radius.unsqueeze(1) * torch.tensor([1.0, 1.2, 0.8]))


def solid_colour(points: Tensor) -> Tensor:
    """[N,3] a smooth colour 0.1..0.9 for each place [N,3]: the truth that a bake is compared with."""
    x, y, z = points.unbind(dim=1)
    return torch.stack(
        [0.5 + 0.4 * torch.sin(3 * x + y), 0.5 + 0.4 * torch.sin(2 * y - 2 * z + 1), 0.5 + 0.4 * torch.cos(3 * z + x)],
        dim=1,
    )


def small_preset(**changes: object) -> Preset:
    """A preset with small pictures."""
    return get_preset("8 GB Full").with_(**{"render_px": 256, "texture_px": 256, **changes})
