"""Rasterises triangles to a depth map or to face numbers, for the bake: quicker than rasterize.py, not upstream's bits.

Each face is cut into spans: runs of pixels in one row whose centres are inside the face. Nothing is tested per pixel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .compiled import fill_depth, number_faces
from .rasterize import chunks, crossings, within

_ROWS_PER_CHUNK = 1 << 17
_PIXELS_PER_CHUNK = 1 << 20
"""Sizes of chunks: a row of a face takes about 200 bytes while its chunk is computed, a pixel about 40."""
_SLACK_PX = 1e-3
"""A span is this much longer at both ends, so that rounding leaves no gap between two faces."""


@dataclass(frozen=True)
class Spans:
    """Runs of pixels, one row of a face each."""

    face: Tensor
    """[N] face numbers."""
    row: Tensor
    """[N] int64 pixel rows."""
    column: Tensor
    """[N] int64 first columns."""
    count: Tensor
    """[N] int64 numbers of pixels, at least 1."""

    def part(self, begin: int, end: int) -> Spans:
        """The spans `begin` to `end` - 1."""
        return Spans(self.face[begin:end], self.row[begin:end], self.column[begin:end], self.count[begin:end])

    def pixels(self, width: int) -> Tensor:
        """[sum of counts] int64 row * width + column of every pixel."""
        return torch.repeat_interleave(self.row * width + self.column, self.count) + within(self.count)


def spans(points: Tensor, faces: Tensor, width: int, rows: range) -> Iterator[Spans]:
    """Yields chunks of the spans of all faces in a band of pixel rows.

    Args:
        points: [V,2] float32 column and row; whole numbers are pixel centres.
        faces: [F,3] whole numbers.
        width: columns of the picture.
        rows: the rows that are wanted.
    """
    y = points[:, 1][faces.long()]
    low, high = y.amin(dim=1).ceil(), y.amax(dim=1).floor()
    first = low.clamp(rows.start, rows.stop).long()
    count = (high.clamp(rows.start - 1, rows.stop - 1).long() - first + 1).clamp(min=0)
    touched = count.nonzero().squeeze(1)
    first, count = first[touched], count[touched]
    for begin, end in chunks(count, _ROWS_PER_CHUNK):
        lengths = count[begin:end]
        face = torch.repeat_interleave(touched[begin:end], lengths)
        row = torch.repeat_interleave(first[begin:end], lengths) + within(lengths)
        left, right = crossings(points[faces[face].long()], row.float())
        column = (left - _SLACK_PX).ceil().clamp(0, width).long()
        columns = (right + _SLACK_PX).floor().clamp(-1, width - 1).long() - column + 1
        kept = (columns > 0).nonzero().squeeze(1)
        found = Spans(face[kept], row[kept], column[kept], columns[kept])
        yield from (found.part(*ends) for ends in chunks(found.count, _PIXELS_PER_CHUNK))


def depth_map(points: Tensor, faces: Tensor, size_px: int) -> Tensor:
    """[S,S] float32 the largest z of all faces at each pixel; -inf where there is none.

    Args:
        points: [V,3] float32 column, row and z; whole numbers are pixel centres.
        faces: [F,3] whole numbers, on the same device.
        size_px: width and height.

    Memory: 4 S^2 bytes and about 60 MiB for a chunk.
    """
    depth = torch.full((size_px * size_px,), -torch.inf, device=points.device)
    if fill_depth(depth, points[faces.long()], size_px, _SLACK_PX):
        return depth.view(size_px, size_px)
    for run in spans(points[:, :2], faces, size_px, range(size_px)):
        corners = points[faces[run.face].long()]
        left, right = (_z_at(corners, run.column, run.row), _z_at(corners, run.column + run.count - 1, run.row))
        step = (right - left) / (run.count - 1).clamp(min=1)
        z = torch.repeat_interleave(left, run.count)
        z += torch.repeat_interleave(step, run.count) * within(run.count)
        depth.scatter_reduce_(0, run.pixels(size_px), z, "amax")
    return depth.view(size_px, size_px)


def face_numbers(points: Tensor, faces: Tensor, width: int, rows: range) -> Tensor:
    """[R,W] int64 the lowest number of a face [F,3] that covers the pixel; len(faces) where there is none."""
    numbers = torch.full((len(rows) * width,), len(faces), device=points.device)
    if number_faces(numbers, points[faces.long()], width, rows, _SLACK_PX):
        return numbers.view(len(rows), width)
    for run in spans(points, faces, width, rows):
        pixels = run.pixels(width).sub_(rows.start * width)
        numbers.scatter_reduce_(0, pixels, torch.repeat_interleave(run.face, run.count), "amin")
    return numbers.view(len(rows), width)


def barycentric(corners: Tensor, points: Tensor) -> Tensor:
    """[N,3] weights of the corners [N,3,2] at the points [N,2], 0..1; a face without area -> its first corner."""
    a, b, c = corners.unbind(dim=1)
    ab, ac, ap = b - a, c - a, points - a
    area = ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]
    scale = torch.where(area == 0, 0.0, 1 / area)
    beta = ((ap[:, 0] * ac[:, 1] - ap[:, 1] * ac[:, 0]) * scale).clamp(0, 1)
    gamma = torch.minimum(((ab[:, 0] * ap[:, 1] - ab[:, 1] * ap[:, 0]) * scale).clamp(0, 1), 1 - beta)
    return torch.stack([1 - beta - gamma, beta, gamma], dim=1)


def _z_at(corners: Tensor, column: Tensor, row: Tensor) -> Tensor:
    """[N] z of the faces' planes, corners [N,3,3], at pixels; never beyond the corners' own z."""
    weights = barycentric(corners[..., :2], torch.stack([column, row], dim=1).float())
    return (weights * corners[..., 2]).sum(dim=1)
