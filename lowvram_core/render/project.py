"""Projects one picture onto the texture: colours of the texels, and the angle at which they were seen."""

from __future__ import annotations

import math

import cv2
import torch
import torch.nn.functional as F
from torch import Tensor

from ..geometry.weld import mean_normals
from ..types import Camera
from .rasterize import PIXELS_PER_CHUNK, Raster, interpolate, interpolate_at
from .scene import Scene

MAX_ANGLE_DEG = 75.0
"""A view gives no colour to surfaces that are turned further away from it."""
EXPONENT = 4
"""The weight of a view's colour is its camera's weight times the cosine of this angle, to this power."""
MARGIN = 2 / 512
"""Share of the picture's width: pixels nearer than this to a silhouette or a depth edge are not used."""
_CANNY = (30, 80)
_NO_COUNT = 1e-30
"""Much smaller than any share of a pixel in a texel. It makes 0 / 0 give 0."""


def project_view(scene: Scene, picture: Tensor, camera: Camera, texture_px: int) -> tuple[Tensor, Tensor]:
    """[T,T,3] colours and [T,T] cosines that a picture [S,S,3] gives to the texture, on the scene's device.

    Pixels within MARGIN of the silhouette or of a depth edge are not used. Every other pixel is spread over the four
    texels around its UV. Texels without colour have cosine 0.

    Args:
        scene: a mesh with UVs.
        picture: [S,S,3] float32 0..1 on the scene's device.

    Memory: about 45 S^2 and 20 T^2 bytes, and 100 MiB for a chunk of pixels.
    Source: hy3dgen texgen/differentiable_renderer/mesh_render.py, back_project. What differs: no boundary map, and
    a flat depth range gives no edges instead of NaN.
    """
    device, faces = scene.device, scene.faces
    view = scene.view(camera, picture.shape[0])
    raster = view.raster
    normals = mean_normals(view.positions, scene.mesh.faces.cpu()).to(device)
    depth = _depth(view.positions[:, 2:].to(device), raster, faces)
    pixels = _trusted(raster, depth).flatten().nonzero().squeeze(1)
    ids, weights = raster.face_ids.flatten(), raster.barycentric.view(-1, 3)
    picture = picture.view(-1, 3)
    total = torch.zeros(texture_px, texture_px, 5, device=device)
    for chunk in pixels.split(PIXELS_PER_CHUNK):
        corners = faces[ids[chunk].long() - 1]
        cosine = _cosine(interpolate_at(normals, corners, weights[chunk]))
        splat(total, interpolate_at(scene.uvs, corners, weights[chunk]), torch.cat([picture[chunk], cosine], dim=1))
    mean = total[..., :4].div_(total[..., 4:].clamp_(min=_NO_COUNT))
    return mean[..., :3], mean[..., 3]


def splat(total: Tensor, uvs: Tensor, values: Tensor) -> None:
    """Spreads each of the values [N,C] over the four texels around its UV [N,2], and adds it to the sums [T,T,C+1].

    The last sum is the sum of the shares, which the others are divided by later.
    """
    size = len(total)
    column, row = (uvs * (size - 1)).unbind(dim=1)
    left, top = (part.floor().clamp(0, size - 2) for part in (column, row))
    right_share, bottom_share = column - left, row - top
    texel = top.long() * size + left.long()
    values = torch.cat([values, torch.ones_like(values[:, :1])], dim=1)
    for down in (0, 1):
        for right in (0, 1):
            share = (bottom_share if down else 1 - bottom_share) * (right_share if right else 1 - right_share)
            total.view(size * size, -1).index_add_(0, texel + (down * size + right), values * share.unsqueeze(1))


def _depth(depth: Tensor, raster: Raster, faces: Tensor) -> Tensor:
    """[S,S] uint8 depth, scaled so that the visible range is 0..255; 0 on the background."""
    image = interpolate(depth, raster, faces).squeeze(-1)
    visible = raster.face_ids > 0
    if not bool(visible.any()):
        return torch.zeros_like(image, dtype=torch.uint8)
    low, high = image[visible].min(), image[visible].max()
    if not bool(high > low):
        return torch.zeros_like(image, dtype=torch.uint8)
    return image.sub_(low).div_(high - low).mul_(visible).mul_(255).byte()


def _trusted(raster: Raster, depth: Tensor) -> Tensor:
    """[S,S] bool: pixels of the mesh that are at least MARGIN away from its silhouette and from depth edges."""
    edges = torch.from_numpy(cv2.Canny(depth.cpu().numpy(), *_CANNY)).to(depth.device) > 0
    doubtful = (raster.face_ids == 0) | edges
    reach = int(MARGIN * depth.shape[0])
    widened = F.max_pool2d(doubtful.float()[None, None], (2 * reach + 1, 1), 1, (reach, 0))
    return F.max_pool2d(widened, (1, 2 * reach + 1), 1, (0, reach))[0, 0] == 0


def _cosine(normals: Tensor) -> Tensor:
    """[N,1] cosine of the angle between the view and camera-space normals [N,3]; 0 beyond MAX_ANGLE_DEG."""
    towards = torch.tensor([[0.0, 0.0, -1.0]], device=normals.device)
    cosine = F.cosine_similarity(towards, normals).unsqueeze(1)
    return torch.where(cosine < math.cos(math.radians(MAX_ANGLE_DEG)), 0.0, cosine)
