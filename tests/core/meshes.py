"""Meshes for tests."""

from __future__ import annotations

import numpy as np
import torch
import trimesh
from torch import Tensor

from lowvram_core.presets import Preset
from lowvram_core.presets import get as get_preset
from lowvram_core.render.atlas import rasterize_atlas
from lowvram_core.render.rasterize import interpolate
from lowvram_core.render.scene import Scene
from lowvram_core.types import Camera, Mesh, Views


def to_mesh(shape: trimesh.Trimesh) -> Mesh:
    """Converts the shape to a Mesh."""
    return Mesh(
        torch.tensor(np.asarray(shape.vertices), dtype=torch.float32),
        torch.tensor(np.asarray(shape.faces), dtype=torch.int64),
    )


def to_trimesh(mesh: Mesh) -> trimesh.Trimesh:
    """Converts the mesh's geometry, unchanged."""
    return trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=False)


def cube() -> Mesh:
    """12 faces, 8 vertices."""
    return to_mesh(trimesh.creation.box((1, 1, 1)))


def torus(major: int = 48, minor: int = 24, bumps: float = 0.0) -> Mesh:
    """2 * major * minor faces, lying in the XZ plane. `bumps` is the height of waves on its surface."""
    mesh = to_mesh(trimesh.creation.torus(1.0, 0.42, major_sections=major, minor_sections=minor))
    x, y, z = mesh.vertices.unbind(dim=1)
    points = torch.stack([x, z, -y], dim=1)
    wave = 1 + bumps * torch.sin(5 * x + 0.3) * torch.cos(4 * y - 0.7) * torch.sin(6 * z + 1.1)
    return mesh.with_(vertices=points * wave.unsqueeze(1))


def blob(subdivisions: int = 4, depth: float = 0.25) -> Mesh:
    """A bumpy ball of 20 * 4^subdivisions faces that looks different from every side."""
    mesh = to_mesh(trimesh.creation.icosphere(subdivisions=subdivisions))
    x, y, z = mesh.vertices.unbind(dim=1)
    radius = 1 + depth * (torch.sin(3 * x + 1) * torch.cos(4 * y) + 0.5 * torch.sin(5 * z - 2 * x))
    return mesh.with_(vertices=mesh.vertices * radius.unsqueeze(1) * torch.tensor([1.0, 1.2, 0.8]))


def solid_colour(points: Tensor) -> Tensor:
    """[N,3] places -> [N,3] a smooth colour in 0.1..0.9. A bake is compared with this true colour."""
    x, y, z = points.unbind(dim=1)
    return torch.stack(
        [0.5 + 0.4 * torch.sin(3 * x + y), 0.5 + 0.4 * torch.sin(2 * y - 2 * z + 1), 0.5 + 0.4 * torch.cos(3 * z + x)],
        dim=1,
    )


def small_preset(**changes: object) -> Preset:
    """A preset with small pictures."""
    return get_preset("8 GB Full").with_(**{"render_px": 256, "texture_px": 256, **changes})


def picture_views(mesh: Mesh, cameras: tuple[Camera, ...], size_px: int) -> Views:
    """Pictures of the mesh in its solid colour on white, rounded to 1/255."""
    scene, images = Scene(mesh), []
    for camera in cameras:
        raster = scene.view(camera, size_px).raster
        where = interpolate(scene.rig, raster, scene.faces)
        image = solid_colour(where.view(-1, 3)).view_as(where)
        image[raster.face_ids == 0] = 1.0
        images.append((image * 255).round() / 255)
    return Views(torch.stack(images), cameras)


def texel_truth(mesh: Mesh, size_px: int) -> tuple[Tensor, Tensor]:
    """[T,T,3] true colour of each texel, and [T,T] bool: the texel is inside a chart."""
    places, inside = texel_places(mesh, size_px)
    return solid_colour(places.view(-1, 3)).view_as(places), inside


def texel_places(mesh: Mesh, size_px: int) -> tuple[Tensor, Tensor]:
    """[T,T,3] place of each texel on the rig, and [T,T] bool: the texel is inside a chart."""
    scene = Scene(mesh)
    raster = rasterize_atlas(scene.uvs, scene.faces, size_px)
    return interpolate(scene.rig, raster, scene.faces), raster.face_ids > 0


def group() -> Mesh:
    """A ring, a ball in it and balls around it: closed parts that hide each other from every side."""
    parts = [torus(40, 20, 0.1)]
    for x, y, z, size in ((0, 0, 0, 0.45), (0.9, 0.75, 0.2, 0.35), (-0.5, -0.8, 0.6, 0.4), (0.2, 0.1, 1.7, 0.3)):
        ball = blob(2)
        parts.append(ball.with_(vertices=ball.vertices * size + torch.tensor([x, y, z], dtype=torch.float32)))
    return join(*parts)


def join(*meshes: Mesh) -> Mesh:
    """Joins the meshes into one, without UVs."""
    starts = np.cumsum([0] + [len(mesh.vertices) for mesh in meshes])
    return Mesh(
        torch.cat([mesh.vertices for mesh in meshes]),
        torch.cat([mesh.faces + int(start) for mesh, start in zip(meshes, starts, strict=False)]),
    )


def fin() -> Mesh:
    """A cube with an extra triangle on one edge, so that this edge has three faces."""
    mesh = cube()
    tip = torch.tensor([[0.0, 2.0, 2.0]])
    face = torch.tensor([[int(mesh.faces[0, 0]), int(mesh.faces[0, 1]), len(mesh.vertices)]])
    return mesh.with_(vertices=torch.cat([mesh.vertices, tip]), faces=torch.cat([mesh.faces, face]))
