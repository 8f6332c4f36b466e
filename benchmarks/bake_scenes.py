"""Meshes that are hard to bake, each with a colour that is known everywhere on it.

The views are what a perfect paint model would return: the colour is drawn at 2048 px, and reduced to the 512 px that
the model paints, by the mean of the pixels. It is not rounded to bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
import trimesh
from torch import Tensor

from lowvram_core.geometry.decimate import decimate
from lowvram_core.geometry.fields import BOX
from lowvram_core.geometry.marching import extract
from lowvram_core.render.atlas import rasterize_atlas
from lowvram_core.render.rasterize import interpolate
from lowvram_core.render.scene import Scene
from lowvram_core.types import Camera, Mesh, Views

Colour = Callable[[Tensor], Tensor]
VIEW_PX = 512
DRAWN_PX = 2048


@dataclass(frozen=True)
class Solid:
    """A mesh, and the colour [N,3] of each of its points [N,3] on the rig."""

    mesh: Mesh
    colour: Colour


def smooth(points: Tensor) -> Tensor:
    """[N,3] 0.06..0.94: half a wave over the object, and fine waves that a blurred texture would lose."""
    x, y, z = points.unbind(dim=1)
    coarse = [torch.sin(3 * x + y), torch.sin(2 * y - 2 * z + 1), torch.cos(3 * z + x)]
    fine = [torch.sin(60 * y), torch.sin(60 * z), torch.sin(60 * x)]
    return 0.5 + 0.4 * torch.stack(coarse, dim=1) + 0.04 * torch.stack(fine, dim=1)


def two_sides(points: Tensor) -> Tensor:
    """[N,3] orange outside the shell's middle, blue inside: the two sides are `SHELL` apart."""
    outside = (points.norm(dim=1, keepdim=True) > 0.575 * (1 - SHELL / 2)).float()
    return outside * torch.tensor([0.9, 0.5, 0.1]) + (1 - outside) * torch.tensor([0.1, 0.3, 0.9])


SHELL = 0.03
"""Thickness of the shell, as a share of its radius."""


def _mesh(shape: trimesh.Trimesh) -> Mesh:
    vertices, faces = np.asarray(shape.vertices, np.float32), np.asarray(shape.faces, np.int64)
    return Mesh(torch.from_numpy(vertices.copy()), torch.from_numpy(faces.copy()))


def carved(octree: int = 160, faces: int = 40_000) -> Mesh:
    """A body of five balls with tunnels and knobs, from marching cubes, reduced to 40,000 faces."""
    axis = torch.linspace(-BOX, BOX, octree + 1)
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    field = torch.full_like(x, -1.0)
    for cx, cy, cz, radius in (
        (0, 0, 0, 0.55), (0.5, 0.35, 0.1, 0.3), (-0.45, 0.4, 0.2, 0.28), (0.1, -0.5, 0.3, 0.35),
        (-0.2, 0.1, -0.55, 0.3),
    ):  # fmt: skip
        field = torch.maximum(field, radius - ((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2).sqrt())
    tunnels = torch.minimum(0.13 - (y**2 + (z - 0.1) ** 2).sqrt(), torch.tensor(1.0))
    tunnels = torch.maximum(tunnels, 0.11 - ((x + 0.2) ** 2 + (y - 0.2) ** 2).sqrt())
    field = torch.minimum(field, -tunnels) + 0.02 * torch.sin(14 * x) * torch.sin(13 * y) * torch.sin(15 * z)
    mesh = extract((field * 64).clamp(-1, 1), octree)
    vertices, triangles = decimate(mesh.vertices, mesh.faces, faces)
    return Mesh(vertices, triangles)


def ball(subdivisions: int, radius: float = 1.0, *, inverted: bool = False) -> trimesh.Trimesh:
    """An icosphere; inverted: seen from inside."""
    shape = trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius)
    if inverted:
        shape.invert()
    return shape


def bumpy(subdivisions: int) -> Mesh:
    """A closed ball with bumps: 20 * 4^subdivisions faces."""
    shape = ball(subdivisions)
    x, y, z = shape.vertices.T
    shape.vertices *= (1 + 0.12 * np.sin(6 * x) * np.cos(5 * y + 1) * np.sin(7 * z))[:, None] * [1.0, 1.2, 0.8]
    return _mesh(shape)


def bowl() -> Mesh:
    """Half a ball without thickness, open at the top."""
    shape = ball(5)
    shape.update_faces(shape.triangles_center[:, 1] < 0.1)
    shape.remove_unreferenced_vertices()
    return _mesh(shape)


def shell() -> Mesh:
    """A ball with a wall of SHELL and a window in it: both sides of the wall are seen."""
    parts = []
    for shape in (ball(5), ball(5, 1 - SHELL, inverted=True)):
        middle = shape.triangles_center
        shape.update_faces(~((middle[:, 2] > 0.6 * np.linalg.norm(middle, axis=1)) & (middle[:, 1] > 0)))
        shape.remove_unreferenced_vertices()
        parts.append(shape)
    return _mesh(trimesh.util.concatenate(parts))


def crowd() -> Mesh:
    """343 boxes on a grid: more than 2000 flat charts."""
    parts = []
    generator = np.random.default_rng(3)
    for index in range(343):
        place = np.array([index % 7, index // 7 % 7, index // 49], float) / 3 - 1
        box = trimesh.creation.box(0.12 + 0.1 * generator.random(3))
        box.apply_transform(trimesh.transformations.random_rotation_matrix(generator.random(3)))
        box.apply_translation(place)
        parts.append(box)
    return _mesh(trimesh.util.concatenate(parts))


def cavity() -> Mesh:
    """A ball with a hollow that nobody sees."""
    return _mesh(trimesh.util.concatenate([ball(5), ball(4, 0.6, inverted=True)]))


def slab() -> Mesh:
    """A flat box of 12 faces, its front 1.4 x 2."""
    return _mesh(trimesh.creation.box((1.4, 2.0, 0.3)))


def card() -> Mesh:
    """A rectangle of two faces."""
    corners = torch.tensor([[-0.7, -1.0, 0], [0.7, -1, 0], [0.7, 1, 0], [-0.7, 1, 0]])
    return Mesh(corners, torch.tensor([[0, 1, 2], [0, 2, 3]]))


def dense(around: int = 1000, along: int = 250) -> Mesh:
    """A closed ring with waves: 2 * around * along faces, 500,000 by default, 4 times as long as wide.

    It has UVs. Its grid is cut along two lines, where vertices are doubled.
    """
    u, v = torch.meshgrid(torch.linspace(0, 1, around + 1), torch.linspace(0, 1, along + 1), indexing="ij")
    # The last row and column are the first ones again, to the bit.
    angle, turn = 2 * math.pi * (u * (u < 1)), 2 * math.pi * (v * (v < 1))
    tube = 0.35 * (1 + 0.15 * torch.sin(9 * angle) * torch.cos(2 * turn) + 0.02 * torch.sin(120 * angle))
    reach = 1 + tube * torch.cos(turn)
    points = torch.stack([reach * torch.cos(angle), reach * torch.sin(angle), 1.4 * tube * torch.sin(turn)], dim=-1)
    corner = torch.arange((around + 1) * (along + 1)).view(around + 1, along + 1)
    a, b, c, d = corner[:-1, :-1], corner[1:, :-1], corner[1:, 1:], corner[:-1, 1:]
    faces = torch.stack([torch.stack([a, b, c], dim=-1), torch.stack([a, c, d], dim=-1)], dim=2)
    uvs = torch.stack([u, v], dim=-1) * 0.98 + 0.01
    return Mesh(points.view(-1, 3), faces.view(-1, 3), uvs=uvs.view(-1, 2))


SOLIDS: dict[str, Callable[[], Solid]] = {
    "carved": lambda: Solid(carved(), smooth),
    "closed": lambda: Solid(bumpy(6), smooth),
    "open": lambda: Solid(bowl(), smooth),
    "thin": lambda: Solid(shell(), two_sides),
    "many charts": lambda: Solid(crowd(), smooth),
    "cavity": lambda: Solid(cavity(), smooth),
    "slab": lambda: Solid(slab(), smooth),
    "card": lambda: Solid(card(), smooth),
    "large": lambda: Solid(bumpy(7), smooth),
}
"""carved is like what the pipeline makes. large has 327,680 faces."""


def paint(
    solid: Solid, mesh: Mesh, cameras: tuple[Camera, ...], view_px: int = VIEW_PX, drawn_px: int = DRAWN_PX
) -> Views:
    """What a perfect paint model would return for the unwrapped mesh."""
    scene, images = Scene(mesh), []
    for camera in cameras:
        raster = scene.view(camera, drawn_px).raster
        places = interpolate(scene.rig, raster, scene.faces).view(-1, 3)
        image = solid.colour(places).view(drawn_px, drawn_px, 3)
        image[raster.face_ids == 0] = 1.0
        small = F.adaptive_avg_pool2d(image.permute(2, 0, 1), view_px)
        images.append(small.permute(1, 2, 0))
    return Views(torch.stack(images), cameras)


def truth(solid: Solid, mesh: Mesh, size_px: int) -> tuple[Tensor, Tensor]:
    """[T,T,3] true colour of each texel, [T,T] bool: the texel is inside a chart."""
    scene = Scene(mesh)
    raster = rasterize_atlas(scene.uvs, scene.faces, size_px)
    places = interpolate(scene.rig, raster, scene.faces).view(-1, 3)
    return solid.colour(places).view(size_px, size_px, 3), raster.face_ids > 0
