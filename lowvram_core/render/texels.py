"""The surface point of each texel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks.meshes import unique_edges
from .loops import locate
from .rasterize import interpolate_at, within
from .scene import Scene
from .spans import barycentric, face_numbers

TEXELS_PER_STRIP = 1 << 18
"""About 200 bytes of the device's memory are used per texel of a strip."""
_SAMPLES_PER_TEXEL = 2
_DISTANCE_STEPS = 1 << 20


@dataclass(frozen=True)
class Band:
    """The texels in some rows of the atlas that lie on the surface, on the scene's device."""

    index: Tensor
    """[N] int64 flat index in the whole atlas."""
    corners: Tensor
    """[N,3] int64 vertices whose values are mixed."""
    weights: Tensor
    """[N,3] float32 their shares."""
    face: Tensor
    """[N] int64 face number; -1 for a texel of a chart's border, whose centre lies outside all faces."""


@dataclass(frozen=True)
class Texels:
    """The surface points of all texels, in RAM."""

    index: Tensor
    """[N] int64 flat index in the atlas."""
    places: Tensor
    """[N,3] float32 positions on the rig."""
    normals: Tensor
    """[N,3] float32 unit mean normals on the rig. They point inwards (see cameras.py)."""


class Layout:
    """The UVs of a mesh on a texture of one size, ready to be rasterised band by band."""

    def __init__(self, uvs: Tensor, faces: Tensor, size_px: int) -> None:
        self.points = uvs * (size_px - 1)
        """[V,2] float32 column and row of the vertices in texels."""
        self.faces = faces
        self.corners = self.points[faces.long()]
        """[F,3,2] the points of the faces' corners."""
        self.size_px = size_px
        self._edges = border_edges(faces.cpu()).to(faces.device)

    def bands(self) -> Iterator[Band]:
        """Yields the atlas from the first row to the last. Bands without a face are left out."""
        for rows in self._strips():
            band = _joined(*self._inside(rows))
            if len(band.index):
                yield band

    def numbers(self) -> Iterator[tuple[slice, Tensor]]:
        """Yields for bands of rows their place in the flat atlas, and the face of each texel; len(faces): none."""
        for rows in self._strips():
            place = slice(rows.start * self.size_px, rows.stop * self.size_px)
            yield place, face_numbers(self.corners, self.size_px, rows).flatten()

    def _strips(self) -> Iterator[range]:
        """Yields the rows of the atlas in bands of about TEXELS_PER_STRIP texels."""
        height = max(TEXELS_PER_STRIP // self.size_px, 1)
        for start in range(0, self.size_px, height):
            yield range(start, min(start + height, self.size_px))

    def _inside(self, rows: range) -> tuple[Band, Band]:
        """The texels inside the faces, and those of the charts' borders."""
        numbers = face_numbers(self.corners, self.size_px, rows).flatten()
        free = numbers == len(self.faces)
        return self._located(rows, numbers, free), self._border(rows, free)

    def _located(self, rows: range, numbers: Tensor, free: Tensor) -> Band:
        """The texels of a band that have a face number [R*W]; `free` [R*W] bool are all others."""
        count, device = free.numel() - int(free.sum()), free.device
        index, face = torch.empty(2, count, dtype=torch.int64, device=device)
        corners, weights = torch.empty(count, 3, dtype=torch.int64, device=device), torch.empty(count, 3, device=device)
        at = torch.tensor([rows.start * self.size_px, self.size_px])
        if locate(index, corners, weights, face, numbers, self.points, self.faces, at):
            return Band(index, corners, weights, face)
        texel = (~free).nonzero().squeeze(1)
        face = numbers.index_select(0, texel)
        index = texel + rows.start * self.size_px
        row = index // self.size_px
        weights = torch.stack(barycentric(self.corners, face, index - row * self.size_px, row), dim=1)
        return Band(index, self.faces.index_select(0, face).long(), weights, face)

    def _border(self, rows: range, free: Tensor) -> Band:
        """The texels without a face that bilinear sampling of a chart's edge reads: each gets the nearest edge point.

        Without them, an edge would mix the chart's colour with that of the gutter, and a chart that is smaller than a
        texel would have no texel.
        """
        start, end = (self.points[corner] for corner in self._edges.unbind(dim=1))
        low, high = torch.minimum(start[:, 1], end[:, 1]), torch.maximum(start[:, 1], end[:, 1])
        near = ((high > rows.start - 1) & (low < rows.stop)).nonzero().squeeze(1)
        counts = ((end - start)[near].norm(dim=1) * _SAMPLES_PER_TEXEL).ceil().clamp(1, 4 * self.size_px).long() + 1
        edge = torch.repeat_interleave(near, counts)
        share = within(counts) / torch.repeat_interleave(counts - 1, counts)
        points = torch.lerp(start[edge], end[edge], share.unsqueeze(1))
        nearest = torch.full_like(free, torch.iinfo(torch.int64).max, dtype=torch.int64)
        for offset in ((0, 0), (1, 0), (0, 1), (1, 1)):
            texel = points.floor() + torch.tensor(offset, device=points.device)
            distance = (texel - points).square().sum(dim=1)
            column, row = texel.long().unbind(dim=1)
            inside = (row >= rows.start) & (row < rows.stop) & (column >= 0) & (column < self.size_px)
            kept = inside.nonzero().squeeze(1)
            key = ((distance[kept] * _DISTANCE_STEPS).long() << 32) | kept
            nearest.scatter_reduce_(0, (row[kept] - rows.start) * self.size_px + column[kept], key, "amin")
        texel = (free & (nearest != torch.iinfo(torch.int64).max)).nonzero().squeeze(1)
        sample = nearest[texel] & 0xFFFFFFFF
        one, other = self._edges[edge[sample]].unbind(dim=1)
        along = share[sample]
        return Band(
            texel + rows.start * self.size_px,
            torch.stack([one, other, other], dim=1),
            torch.stack([1 - along, along, torch.zeros_like(along)], dim=1),
            torch.full_like(texel, -1),
        )


def border_edges(faces: Tensor) -> Tensor:
    """[E,2] int64 vertices of the edges that one face alone has: the outlines of the charts."""
    edges, _, counts = unique_edges(faces)
    return edges[counts == 1]


def surface_points(scene: Scene, size_px: int) -> Texels:
    """The surface points of a texture with `size_px` texels at each edge.

    Memory: 32 bytes of RAM per texel of a chart, and about 200 bytes of the device's memory per texel of a band.
    """
    rig = scene.rig.to(scene.device)
    parts = []
    for band in Layout(scene.uvs, scene.faces, size_px).bands():
        places = interpolate_at(rig, band.corners, band.weights)
        normals = F.normalize(interpolate_at(scene.normals, band.corners, band.weights), dim=1)
        parts.append((band.index.cpu(), places.cpu(), normals.cpu()))
    if not parts:
        return Texels(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 3), torch.zeros(0, 3))
    return Texels(*(torch.cat(part) for part in zip(*parts, strict=True)))


def _joined(*bands: Band) -> Band:
    return Band(
        torch.cat([band.index for band in bands]),
        torch.cat([band.corners for band in bands]),
        torch.cat([band.weights for band in bands]),
        torch.cat([band.face for band in bands]),
    )
