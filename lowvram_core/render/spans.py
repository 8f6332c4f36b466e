"""Rasterises triangles to a depth map or to face numbers, for the bake: quicker than rasterize.py, not upstream's bits.

Each face is cut into spans: runs of pixels in one row whose centres are inside the face. Nothing is tested per pixel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .compiled import fill_depth, number_faces
from .rasterize import chunk_size, chunks, crossings, expanded

_ROWS_PER_CHUNK = 1 << 17
_PIXELS_PER_CHUNK = 1 << 20
"""Sizes of chunks: a row of a face takes about 200 bytes while its chunk is computed, a pixel about 40."""
_PIECE_PX = 4
"""Spans have about 4 pixels on a mesh of 40,000 faces at 2048 px."""
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

    def pieces(self, width: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yields chunks of pieces of P pixels: [N] number of the span, [P,N] places in the span, [P,N] pixels.

        A pixel is row * width + column. Where a span ends within a piece, its last pixel is repeated.
        """
        size = chunk_size(_PIXELS_PER_CHUNK, self.row.device)
        step = torch.arange(_PIECE_PX, device=self.row.device).unsqueeze(1)
        counts = (self.count + (_PIECE_PX - 1)) // _PIECE_PX
        start, last = self.row * width + self.column, self.count - 1
        for begin, end in chunks(counts, max(size // _PIECE_PX, 1)):
            span, number = expanded(counts[begin:end])
            span += begin
            place = torch.minimum(step + number.mul_(_PIECE_PX), last.index_select(0, span))
            yield span, place, place + start.index_select(0, span)


def spans(corners: Tensor, width: int, rows: range) -> Iterator[Spans]:
    """Yields chunks of the spans of all faces in a band of pixel rows.

    Args:
        corners: [F,3,2 or more] float32 column and row; whole numbers are pixel centres.
        width: columns of the picture.
        rows: the rows that are wanted.
    """
    y = corners[..., 1]
    low, high = y.amin(dim=1).ceil(), y.amax(dim=1).floor()
    first = low.clamp(rows.start, rows.stop).long()
    count = (high.clamp(rows.start - 1, rows.stop - 1).long() - first + 1).clamp(min=0)
    touched = count.nonzero().squeeze(1)
    first, count = first[touched], count[touched]
    for begin, end in chunks(count, chunk_size(_ROWS_PER_CHUNK, corners.device)):
        index, row = expanded(count[begin:end])
        row += first[begin:end].index_select(0, index)
        face = touched[begin:end].index_select(0, index)
        left, right = crossings(corners, face, row.float())
        column = left.sub_(_SLACK_PX).ceil_().clamp_(0, width).long()
        columns = right.add_(_SLACK_PX).floor_().clamp_(-1, width - 1).long().sub_(column).add_(1)
        kept = (columns > 0).nonzero().squeeze(1)
        yield Spans(*(part.index_select(0, kept) for part in (face, row, column, columns)))


def depth_map(points: Tensor, faces: Tensor, size_px: int) -> Tensor:
    """[S,S] float32 the largest z of all faces at each pixel; -inf where there is none.

    Args:
        points: [V,3] float32 column, row and z; whole numbers are pixel centres.
        faces: [F,3] whole numbers, on the same device.
        size_px: width and height.

    Memory: 4 S^2 bytes and about 60 MiB for a chunk.
    """
    depth = torch.full((size_px * size_px,), -torch.inf, device=points.device)
    corners = points[faces.long()]
    if fill_depth(depth, corners, size_px, _SLACK_PX):
        return depth.view(size_px, size_px)
    for run in spans(corners, size_px, range(size_px)):
        left = _z_at(corners, run.face, run.column, run.row)
        right = _z_at(corners, run.face, run.column + run.count - 1, run.row)
        step = (right - left) / (run.count - 1).clamp(min=1)
        for span, place, pixel in run.pieces(size_px):
            z = place.float().mul_(step.index_select(0, span)).add_(left.index_select(0, span))
            depth.scatter_reduce_(0, pixel.view(-1), z.view(-1), "amax")
    return depth.view(size_px, size_px)


def face_numbers(corners: Tensor, width: int, rows: range) -> Tensor:
    """[R,W] int64 the lowest number of a face, corners [F,3,2], that covers the pixel; F where there is none."""
    numbers = torch.full((len(rows) * width,), len(corners), device=corners.device)
    if number_faces(numbers, corners, width, rows, _SLACK_PX):
        return numbers.view(len(rows), width)
    for run in spans(corners, width, rows):
        for span, _, pixel in run.pieces(width):
            face = run.face.index_select(0, span).expand(pixel.shape)
            numbers.scatter_reduce_(0, pixel.sub_(rows.start * width).view(-1), face.reshape(-1), "amin")
    return numbers.view(len(rows), width)


def barycentric(corners: Tensor, face: Tensor, column: Tensor, row: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """[N] each: weights of the three corners at a pixel, 0..1; a face without area gives its first corner.

    Args:
        corners: [F,3,2 or more] float32 column and row.
        face, column, row: [N] int64.
    """
    (a_x, b_x, c_x), (a_y, b_y, c_y) = (
        [corner.index_select(0, face) for corner in corners[..., axis].unbind(dim=1)] for axis in (0, 1)
    )
    ab_x, ab_y, ac_x, ac_y, ap_x, ap_y = b_x - a_x, b_y - a_y, c_x - a_x, c_y - a_y, column - a_x, row - a_y
    area = (ab_x * ac_y).sub_(ab_y * ac_x)
    scale = torch.where(area == 0, 0.0, 1 / area)
    beta = (ap_x * ac_y).sub_(ap_y * ac_x).mul_(scale).clamp_(0, 1)
    gamma = (ab_x * ap_y).sub_(ab_y * ap_x).mul_(scale).clamp_(0, 1)
    gamma = torch.minimum(gamma, 1 - beta)
    return 1 - beta - gamma, beta, gamma


def _z_at(corners: Tensor, face: Tensor, column: Tensor, row: Tensor) -> Tensor:
    """[N] z of the faces' planes, corners [F,3,3], at pixels; never beyond the corners' own z."""
    a, b, c = (
        corners[:, corner, 2].index_select(0, face).mul_(weight)
        for corner, weight in enumerate(barycentric(corners, face, column, row))
    )
    return a.add_(b).add_(c)
