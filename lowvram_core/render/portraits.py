"""Small pictures of what a stage made: four sides, the wireframe, the layout of the UVs.

They are drawn fast: 256 px a tile, each face with its own shade.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..geometry.weld import face_normals
from ..types import SIDES, Camera, Mesh
from .atlas import rasterize_atlas
from .cameras import project
from .preview import halved, shaded
from .rasterize import Raster, rasterize
from .scene import Scene

TILE_PX = 256
CAMERAS = {side: Camera(-90 * turn % 360, 0) for turn, side in enumerate(SIDES)}
"""By the side that the camera sees."""
CORNER = Camera(35, 20)
"""At the front, moved to the side and a little up."""
DETAIL_PX = 9.0
"""What the inner radius of a middle-sized face is enlarged to in the detail of the wireframe."""
MOST_ZOOM = 16.0
LINE = 0.15
"""The grey of lines."""
LINE_PX = 0.7
"""Half the width of a line."""


def look(mesh: Mesh, tile_px: int = TILE_PX) -> Tensor:
    """[2S,2S,3] float32 sRGB on the CPU: front, right, left and back, with texture or colours if the mesh has any."""
    scene = Scene(mesh)
    tiles = [_side(scene, CAMERAS[side], tile_px) for side in ("front", "right", "left", "back")]
    return torch.cat([torch.cat(tiles[:2], dim=1), torch.cat(tiles[2:], dim=1)])


def wireframe(mesh: Mesh, tile_px: int = TILE_PX) -> Tensor:
    """[S,2S,3] float32 sRGB on the CPU: the faces with their edges, and an enlarged detail of the middle."""
    scene = Scene(Mesh(mesh.vertices, mesh.faces))
    positions, clip = project(scene.rig, CORNER)
    whole = rasterize(clip, scene.faces, tile_px)
    seen = whole.face_ids.flatten().nonzero().squeeze(1)
    if not len(seen):
        return torch.ones(tile_px, 2 * tile_px, 3)
    pixels = torch.stack([seen % tile_px, seen // tile_px], dim=1)
    middle = pixels[(pixels - pixels.float().mean(dim=0)).square().sum(dim=1).argmin()]
    centre = middle / (tile_px - 1) * 2 - 1
    drawn = scene.faces[whole.face_ids.flatten()[seen].long() - 1]
    zoom = float((DETAIL_PX / _radius(_pixels(clip, tile_px)[drawn]).median().clamp(min=1e-6)).clamp(1.5, MOST_ZOOM))
    nearer = clip.clone()
    nearer[:, :2] = (clip[:, :2] - centre) * zoom
    detail = rasterize(nearer, scene.faces, tile_px)
    tiles = [_wired(scene, positions, one, raster, tile_px) for one, raster in ((clip, whole), (nearer, detail))]
    return torch.cat(tiles, dim=1)


def layout(mesh: Mesh, size_px: int = 384) -> Tensor:
    """[S,S,3] float32 sRGB on the CPU: the charts of the mesh's UVs on white. Colours show the directions of the faces.

    White if the mesh has no UVs.
    """
    if mesh.uvs is None:
        return torch.ones(size_px, size_px, 3)
    uvs, faces = mesh.uvs.detach().cpu().float(), mesh.faces.cpu()
    ids = rasterize_atlas(uvs, faces, 2 * size_px).face_ids.flatten()
    picture = torch.ones(len(ids), 3)
    drawn = ids.nonzero().squeeze(1)
    colours = face_normals(mesh.vertices.detach().cpu().float(), faces) * 0.4 + 0.5
    picture[drawn] = colours[ids[drawn].long() - 1]
    return halved(picture.view(2 * size_px, 2 * size_px, 3))


def _side(scene: Scene, camera: Camera, size_px: int) -> Tensor:
    positions, clip = project(scene.rig, camera)
    raster = rasterize(clip, scene.faces, size_px)
    return shaded(scene, raster, _flat(scene, positions, raster))


def _flat(scene: Scene, positions: Tensor, raster: Raster) -> Tensor:
    """[S,S,3] the normals of the visible faces in camera space; 0 on the background."""
    ids = raster.face_ids.flatten()
    drawn = ids.nonzero().squeeze(1)
    normals = torch.zeros(len(ids), 3)
    normals[drawn] = -face_normals(positions, scene.faces[ids[drawn].long() - 1])  # the rig mirrors the mesh
    return normals.view(*raster.face_ids.shape, 3)


def _wired(scene: Scene, positions: Tensor, clip: Tensor, raster: Raster, size_px: int) -> Tensor:
    """[S,S,3]: the raster with the edges of its faces. Edges of faces smaller than a line are pale."""
    picture = shaded(scene, raster, _flat(scene, positions, raster)).view(-1, 3)
    ids = raster.face_ids.flatten()
    drawn = ids.nonzero().squeeze(1)
    corners = _pixels(clip, size_px)[scene.faces[ids[drawn].long() - 1]]
    near = (raster.barycentric.view(-1, 3)[drawn] * _heights(corners)).amin(dim=1)
    cover = (LINE_PX + 0.5 - near).clamp(0, 1) * (_radius(corners) / 2.0).clamp(0.2, 1)
    picture[drawn] = torch.lerp(picture[drawn], torch.full((1, 3), LINE), cover.unsqueeze(1))
    return picture.view(size_px, size_px, 3)


def _pixels(clip: Tensor, size_px: int) -> Tensor:
    """[V,2] columns and rows."""
    return (clip[:, :2] * 0.5 + 0.5) * (size_px - 1)


def _heights(corners: Tensor) -> Tensor:
    """[F,3] the heights of triangles [F,3,2] over the edges that face their corners."""
    a, b, c = corners.unbind(dim=1)
    lengths = torch.stack([(c - b).norm(dim=1), (a - c).norm(dim=1), (b - a).norm(dim=1)], dim=1)
    return _doubled(corners).unsqueeze(1) / lengths.clamp(min=1e-6)


def _radius(corners: Tensor) -> Tensor:
    """[F] the radii of the circles inside triangles [F,3,2]."""
    a, b, c = corners.unbind(dim=1)
    around = (c - b).norm(dim=1) + (a - c).norm(dim=1) + (b - a).norm(dim=1)
    return _doubled(corners) / around.clamp(min=1e-6)


def _doubled(corners: Tensor) -> Tensor:
    """[F] twice the areas of triangles [F,3,2]."""
    ab, ac = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    return (ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]).abs()
