"""What one view shows of the texels: a depth test for each texel, and the colour at its place in the picture."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..types import Camera
from .cameras import HALF_WIDTH, project, view_from_rig
from .loops import find_jumps, look_up
from .project import EXPONENT, MARGIN, MAX_ANGLE_DEG
from .scene import Scene
from .spans import depth_map
from .texels import TEXELS_PER_STRIP, Texels

_LEAST_COSINE = math.cos(math.radians(MAX_ANGLE_DEG))

_JUMP = 5.0
"""Two neighbouring pixels whose depths differ by more than this many pixels are a depth edge. A surface at
MAX_ANGLE_DEG has 3.7. Depth is measured in pixels, so the depth of the object does not matter."""
_TOLERANCE_PX = 1.5
"""A texel may lie this far behind the depth map, and half its slope more."""
_WEAK_MARGIN = 0.5 / 512
"""Like MARGIN: pixels between it and MARGIN of the silhouette count with WEAK."""
_WEAK = 1e-4
"""Factor for the weight of pixels near the silhouette: they count only where no view sees the texel better."""
_FINEST = 2
"""The picture is enlarged by at most this factor before it is sampled bilinearly."""
_RIM_PX = 512
"""The silhouette's pixels are those of a picture of this size, or of its own size if it is smaller: the size that views
are painted at. In a picture that was enlarged after painting, the background reaches as far in."""
_GROW_PX = 4
"""So many pixels of the painted picture around the silhouette are replaced by their inner neighbours."""


@dataclass(frozen=True)
class Shot:
    """A painted picture, and what its camera sees of the mesh. All tensors are on the scene's device."""

    camera: Camera
    picture: Tensor
    """[E,E,3] float32 0..1."""
    depth: Tensor
    """[S,S] float32 depth in pixels, larger is nearer; -inf on the background."""
    trust: Tensor
    """[S,S] float32 factor for the weight of a pixel's colour: 1, _WEAK or 0."""
    size_px: int
    """S"""


def picture_px(given_px: int, size_px: int, finest_px: int) -> int:
    """The edge E of the picture that texels are looked up in.

    A picture that is smaller than the depth map is enlarged by at most _FINEST. A larger one keeps its size, up to
    `finest_px`.
    """
    return min(max(given_px, min(size_px, _FINEST * given_px)), max(size_px, finest_px))


def shoot(scene: Scene, picture: Tensor, camera: Camera, size_px: int, finest_px: int = 0) -> Shot:
    """The picture [P,P,3] on the scene's device, with a depth map of `size_px` pixels.

    Args:
        finest_px: a picture that is larger than the depth map keeps up to so many pixels; 0: those of the depth map.

    Memory: about 15 S^2 bytes while it is made, 8 S^2 and 12 E^2 after that (see picture_px), and for a chunk see
    spans.py. If P > 512, 44 E^2 more while it is made.
    """
    positions, clip = project(scene.rig, camera)
    scale = (size_px - 1) / 2
    points = torch.cat([(clip[:, :2] + 1) * scale, positions[:, 2:] * (scale / HALF_WIDTH)], dim=1)
    depth = depth_map(points.to(scene.device), scene.faces, size_px)
    thing = depth > -torch.inf
    jumps = _jumps(depth, thing)
    reach, near = int(MARGIN * size_px), round(_WEAK_MARGIN * size_px)
    trust = (thing & ~_widened(~thing, near) & ~_widened(jumps, reach // 2)).float().mul_(_WEAK)
    trust.masked_fill_(~_widened(~thing | jumps, reach), 1)
    fine_px = picture_px(len(picture), size_px, finest_px)
    given = picture.permute(2, 0, 1).unsqueeze(0)
    fine = _resized(_without_rim(given if len(picture) <= fine_px else _resized(given, fine_px), thing), fine_px)
    return Shot(camera, fine[0].permute(1, 2, 0).contiguous(), depth, trust, size_px)


def add_view(total: Tensor, sums: Tensor, shot: Shot, texels: Texels, power: int = 1) -> None:
    """Adds the view's weighted colours to the sums [N,3] of colours and [N] of weights of all texels, in RAM.

    The weight is taken to a power. A higher one narrows the strip in which two views are mixed.

    Memory: about 200 bytes of the device's memory per texel of a strip.
    """
    limits = (_scale(shot), _LEAST_COSINE, _TOLERANCE_PX, shot.camera.weight, EXPONENT, power)
    if shot.depth.device.type == "cpu" and look_up(
        total, sums, texels.places, texels.normals, view_from_rig(shot.camera), shot.depth, shot.trust, shot.picture,
        torch.tensor(limits),
    ):  # fmt: skip
        return
    for start in range(0, len(sums), TEXELS_PER_STRIP):
        strip = slice(start, start + TEXELS_PER_STRIP)
        places, normals = (part[strip].to(shot.depth.device) for part in (texels.places, texels.normals))
        index, colours, cosine, trust = look(shot, places, normals)
        weight = cosine.pow_(EXPONENT).mul_(shot.camera.weight).mul_(trust).pow_(power)
        index = index.cpu() + start
        total.index_add_(0, index, (colours * weight.unsqueeze(1)).cpu())
        sums.index_add_(0, index, weight.cpu())


def look(shot: Shot, places: Tensor, normals: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """[M] which of the texels the view sees, [M,3] their colours, [M] cosines, [M] trust in the pixels.

    Args:
        places: [N,3] positions of the texels on the rig.
        normals: [N,3] unit normals that point inwards.
    """
    matrix = view_from_rig(shot.camera).to(places.device)
    facing = -(normals @ matrix[2, :3])
    index = (facing >= _LEAST_COSINE).nonzero().squeeze(1)
    pixels = places.index_select(0, index) @ matrix[:3, :3].t() + matrix[:3, 3]
    pixels = pixels.mul_(_scale(shot))
    place = pixels[:, :2] + (shot.size_px - 1) / 2
    nearest = place.round().clamp_(0, shot.size_px - 1)
    pixel = nearest[:, 1].long() * shot.size_px + nearest[:, 0].long()
    # The depth map holds the depth at the pixel's centre. The texel's plane tells its own depth there.
    normal = normals.index_select(0, index) @ matrix[:3, :3].t()
    slope = normal[:, :2] / normal[:, 2:]
    depth = pixels[:, 2] - ((nearest - place) * slope).sum(dim=1)
    steep = slope.norm(dim=1)
    trust = shot.trust.view(-1).index_select(0, pixel)
    visible = ((shot.depth.view(-1).index_select(0, pixel) - depth).abs_() <= _TOLERANCE_PX + 0.5 * steep) & (trust > 0)
    kept = visible.nonzero().squeeze(1)
    # The picture was resized, so the centre of its first pixel is not the centre of the depth map's.
    grid = ((place.index_select(0, kept) + 0.5) * (2 / shot.size_px) - 1).view(1, 1, -1, 2)
    picture = shot.picture.permute(2, 0, 1).unsqueeze(0)
    colours = F.grid_sample(picture, grid, mode="bilinear", padding_mode="border", align_corners=False)
    index = index.index_select(0, kept)
    return index, colours[0, :, 0].t(), facing.index_select(0, index), trust.index_select(0, kept)


def _scale(shot: Shot) -> float:
    """Pixels of the depth map per unit of the rig."""
    return (shot.size_px - 1) / (2 * HALF_WIDTH)


def _jumps(depth: Tensor, thing: Tensor) -> Tensor:
    """[S,S] bool: pixels of the mesh on both sides of a depth edge: a step that the slopes beside it do not have."""
    found = torch.zeros_like(thing)
    if find_jumps(found, depth, _JUMP):
        return found
    for z, there, jumps in ((depth, thing, found), (depth.t(), thing.t(), found.t())):
        step = z[:, 1:] - z[:, :-1]
        sudden = ~((step[:, 1:] - step[:, :-1]).abs_() <= _JUMP / 2)  # true for NaN: beside the background
        edge = (step.abs_() > _JUMP) & there[:, 1:] & there[:, :-1]
        edge[:, 1:] &= sudden
        edge[:, :-1] &= sudden
        jumps[:, 1:] |= edge
        jumps[:, :-1] |= edge
    return found


def _widened(mask: Tensor, reach: int) -> Tensor:
    """[S,S] bool: a pixel of `mask` lies in the square of 2 * reach + 1 pixels around."""
    if mask.device.type == "cpu":
        window = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
        return torch.from_numpy(cv2.dilate(mask.byte().numpy(), window)).bool()
    return _windows(mask, reach)


def _windows(mask: Tensor, reach: int) -> Tensor:
    """Does what `_widened` does, in torch: OpenCV is faster, but it needs the CPU."""
    for _ in range(2):
        # The "or" of a window of n pixels is that of two windows of half the length.
        window = torch.zeros(mask.shape[0], mask.shape[1] + 2 * reach, dtype=torch.bool, device=mask.device)
        window[:, reach : reach + mask.shape[1]] = mask
        length = 1
        while length < 2 * reach + 1:
            move = min(length, 2 * reach + 1 - length)
            window = window[:, move:] | window[:, :-move]
            length += move
        mask = window.t()
    return mask


def _without_rim(picture: Tensor, thing: Tensor) -> Tensor:
    """[1,3,P,P] the picture; at the silhouette, where colours are mixed with the background, the inner neighbours'."""
    size = min(picture.shape[-1], len(thing), _RIM_PX)
    coarse = _resized(picture, size)
    outside = F.adaptive_max_pool2d((~thing).float()[None], size)[0] > 0
    known = (~_widened(outside, 1)).float()[None, None]
    total = torch.cat([coarse * known, known], dim=1)
    for _ in range(_GROW_PX):
        wide = F.pad(total, (1, 1, 1, 1))
        rows = wide[:, :, :-2] + wide[:, :, 1:-1] + wide[:, :, 2:]
        around = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
        around /= around[:, 3:].clamp(min=1)
        total = torch.where(total[:, 3:] > 0, total, around)
    filled = torch.where(total[:, 3:] > 0, total[:, :3], coarse)
    if coarse is picture:
        return filled
    kept = F.interpolate(known, size=picture.shape[-2:], mode="nearest") > 0
    return torch.where(kept, picture, _resized(filled, picture.shape[-1]))


def _resized(picture: Tensor, size_px: int) -> Tensor:
    if picture.shape[-1] == size_px:
        return picture
    return F.interpolate(picture, size=(size_px, size_px), mode="bicubic", antialias=True).clamp_(0, 1)
