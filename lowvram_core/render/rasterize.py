"""Rasterises triangles in plain torch, in bounded memory, on any device with float64 and int64 (lending/geometry.py).

There are two passes. The first goes through the faces in chunks. It cuts each face into spans of one pixel row, tests
the pixels of the spans, and keeps the nearest face of each pixel in a buffer of (depth, face) numbers. The second
computes the barycentric coordinates, for the nearest faces only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .compiled import draw_nearest, weigh
from .loops import mix

_ROWS_PER_CHUNK = 1 << 18
PIXELS_PER_CHUNK = 1 << 19
"""Sizes of chunks; each entry takes about 100 bytes while the chunk is computed."""
_DEPTH_STEPS = 2 << 17
"""Resolution of the depth range."""
_FAR = torch.iinfo(torch.int64).max


@dataclass(frozen=True)
class Raster:
    """The face that each pixel shows, and the position in that face."""

    face_ids: Tensor
    """[S,S] int32: face number + 1, 0 = background. Row 0 is clip y = -1."""
    barycentric: Tensor
    """[S,S,3] float32 weights of the face's corners; 0 on the background."""


def rasterize(clip: Tensor, faces: Tensor, size_px: int) -> Raster:
    """Raster of triangles in clip space, on their device.

    A face covers a pixel if the pixel's centre is inside it or on its edge; both sides of a face are visible. The
    nearest face is shown. Depth has steps of 1/2^18 of its range; in the same step the lower face number is shown.
    Clip x = -1 and 1 are the centres of the first and the last pixel.

    Args:
        clip: [V,4] float32.
        faces: [F,3] whole numbers.
        size_px: width and height of the picture.

    Memory: about 16 S^2 bytes for the result, 8 S^2 for the buffer and 50 MiB for a chunk.
    Source: hy3dgen texgen/custom_rasterizer, rasterizer.cpp: the same float operations. What differs: upstream tests
    all pixels of a face's bounding box.
    """
    corners = _screen(clip, size_px)[faces.long()]
    nearest = torch.full((size_px * size_px,), _FAR, dtype=torch.int64, device=clip.device)
    if not draw_nearest(nearest, corners, size_px, _DEPTH_STEPS):
        for spans in _spans(corners, size_px):
            _test_pixels(nearest, corners, *spans, size_px)
    face_ids, barycentric = _weighed(nearest, corners, clip[:, 3][faces.long()], size_px)
    return Raster(face_ids.view(size_px, size_px), barycentric.view(size_px, size_px, 3))


def interpolate(values: Tensor, raster: Raster, faces: Tensor) -> Tensor:
    """[S,S,C] vertex values [V,C] interpolated over the faces; 0 on the background."""
    ids, weights = raster.face_ids.flatten(), raster.barycentric.view(-1, 3)
    result = torch.zeros(len(ids), values.shape[1], dtype=values.dtype, device=values.device)
    pixels = ids.nonzero().squeeze(1)
    for chunk in pixels.split(PIXELS_PER_CHUNK):
        result[chunk] = interpolate_at(values, faces[ids[chunk].long() - 1], weights[chunk])
    return result.view(*raster.face_ids.shape, -1)


def interpolate_at(values: Tensor, corner_ids: Tensor, weights: Tensor) -> Tensor:
    """[N,C] weighted sums of vertex values [V,C], from corner numbers [N,3] and weights [N,3]."""
    result = torch.empty(len(corner_ids), values.shape[1], dtype=values.dtype, device=values.device)
    if mix(result, values, corner_ids, weights):
        return result
    corner_ids = corner_ids.long()
    result = values[corner_ids[:, 0]] * weights[:, :1]
    result += values[corner_ids[:, 1]] * weights[:, 1:2]
    return result.add_(values[corner_ids[:, 2]] * weights[:, 2:])


def _screen(clip: Tensor, size_px: int) -> Tensor:
    """[V,3] pixel column, pixel row, depth 0..1; from clip positions [V,4]."""
    x, y, z = (clip[:, :3] / clip[:, 3:]).unbind(dim=1)
    return torch.stack(
        [(x * 0.5 + 0.5) * (size_px - 1) + 0.5, (y * 0.5 + 0.5) * (size_px - 1) + 0.5, z * 0.49999 + 0.5], dim=1
    )


def _spans(corners: Tensor, size_px: int) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Yields chunks of spans: (face, row, first column, number of columns), each [N].

    A span is a row of pixels that a face crosses, one pixel longer at each end.
    """
    y = corners[..., 1]
    first = y.amin(dim=1).floor().clamp(0, size_px).long()
    # Faces with NaN or infinite corners give empty spans below.
    last = y.amax(dim=1).floor().clamp(-1, size_px - 1).long()
    rows = (last - first + 1).clamp(min=0)
    for begin, end in chunks(rows, _ROWS_PER_CHUNK):
        face = torch.repeat_interleave(torch.arange(begin, end, device=rows.device), rows[begin:end])
        row = first[face] + within(rows[begin:end])
        left, right = crossings(corners[face, :, :2], row + 0.5)
        column = (left.floor() - 1).clamp(0, size_px).long()
        columns = (right.floor() + 1).clamp(-1, size_px - 1).long() - column + 1
        kept = (columns > 0).nonzero().squeeze(1)
        if len(kept):
            yield face[kept], row[kept], column[kept], columns[kept]


def crossings(triangles: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
    """[N] smallest and [N] largest x where edges of triangles [N,3,2] cross y = `row` [N]; inf, -inf if none does."""
    left = torch.full_like(row, torch.inf)
    right = -left
    for start, stop in ((0, 1), (1, 2), (2, 0)):
        (x0, y0), (x1, y1) = triangles[:, start].unbind(1), triangles[:, stop].unbind(1)
        met = (torch.minimum(y0, y1) <= row) & (torch.maximum(y0, y1) >= row)
        share = ((row - y0) / (y1 - y0)).clamp(0, 1)
        flat = y0 == y1
        cut = x0 + share * (x1 - x0)
        low, high = torch.where(flat, torch.minimum(x0, x1), cut), torch.where(flat, torch.maximum(x0, x1), cut)
        left = torch.where(met, torch.minimum(left, low), left)
        right = torch.where(met, torch.maximum(right, high), right)
    return left, right


def _test_pixels(
    nearest: Tensor, corners: Tensor, face: Tensor, row: Tensor, column: Tensor, columns: Tensor, size_px: int
) -> None:
    """Writes the spans' covered pixels to `nearest` [S*S] where they are nearer than what is there."""
    a, b, c = corners[face, :, :2].unbind(dim=1)
    ab, ac, down = b - a, c - a, row + 0.5 - a[:, 1]
    inverse = 1.0 / _area(ab, ac)
    # Values that are constant in a span are computed once: a_x, and beta and gamma as linear functions of x - a_x.
    table = torch.stack([a[:, 0], ac[:, 0] * down, ac[:, 1], ab[:, 1], ab[:, 0] * down, inverse], dim=1)
    for begin, end in chunks(columns, PIXELS_PER_CHUNK):
        lengths = columns[begin:end]
        span = torch.repeat_interleave(torch.arange(begin, end, device=lengths.device), lengths)
        x = column[span] + within(lengths)
        a_x, beta_0, beta_x, gamma_x, gamma_0, scale = table[span].unbind(dim=1)
        right = x + 0.5 - a_x
        beta = (beta_0 - right * beta_x) * scale
        gamma = (right * gamma_x - gamma_0) * scale
        alpha = (1.0 - beta.double() - gamma.double()).float()
        least, most = torch.minimum(torch.minimum(alpha, beta), gamma), torch.maximum(torch.maximum(alpha, beta), gamma)
        # Faces with area 0 have NaN or infinite weights, so they fail this test.
        kept = ((least >= 0) & (most <= 1)).nonzero().squeeze(1)
        span = span[kept]
        z = corners[face[span], :, 2]
        depth = alpha[kept] * z[:, 0] + beta[kept] * z[:, 1] + gamma[kept] * z[:, 2]
        key = ((depth * _DEPTH_STEPS).long() << 32) | (face[span] + 1)
        key = torch.where(depth >= 0, key, _FAR)
        nearest.scatter_reduce_(0, row[span] * size_px + x[kept], key, "amin")


def _weighed(nearest: Tensor, corners: Tensor, w: Tensor, size_px: int) -> tuple[Tensor, Tensor]:
    """[S*S] int32 face + 1 of each pixel, [S*S,3] perspective-correct weights of its corners; 0 on the background."""
    face_ids = torch.empty(len(nearest), dtype=torch.int32, device=nearest.device)
    result = torch.empty(len(nearest), 3, device=corners.device)
    if weigh(result, face_ids, nearest, corners, w, size_px):
        return face_ids, result
    del face_ids, result  # what follows needs the room
    face_ids = torch.where(nearest == _FAR, 0, nearest & 0xFFFFFFFF).int()
    result = torch.zeros(len(nearest), 3, device=corners.device)
    for pixels in face_ids.nonzero().squeeze(1).split(PIXELS_PER_CHUNK):
        face = face_ids[pixels].long() - 1
        a, b, c = corners[face, :, :2].unbind(dim=1)
        p = torch.stack([pixels % size_px, pixels // size_px], dim=1) + 0.5
        ab, ac, ap = b - a, c - a, p - a
        inverse = 1.0 / _area(ab, ac)
        beta, gamma = _area(ap, ac) * inverse, _area(ab, ap) * inverse
        alpha = (1.0 - beta.double() - gamma.double()).float()
        weights = torch.stack([alpha, beta, gamma], dim=1) / w[face]
        result[pixels] = weights * (1.0 / (weights[:, :1] + weights[:, 1:2] + weights[:, 2:]))
    return face_ids, result


def _area(ab: Tensor, ac: Tensor) -> Tensor:
    """[N] twice the signed area between edges [N,2]; positive if they turn clockwise with y down."""
    return ac[:, 0] * ab[:, 1] - ab[:, 0] * ac[:, 1]


def chunks(counts: Tensor, budget: int) -> Iterator[tuple[int, int]]:
    """Yields ranges (begin, end) of `counts` [N]. Each has a sum of at most `budget`, or has one entry."""
    ends = counts.cumsum(0).cpu()
    begin, spent = 0, 0
    while begin < len(ends) and spent < int(ends[-1]):
        end = int(torch.searchsorted(ends, spent + budget, right=True))
        end = max(end, begin + 1)
        yield begin, end
        begin, spent = end, int(ends[end - 1])


def within(counts: Tensor) -> Tensor:
    """[sum of counts] 0, 1, .. count - 1 for each count of `counts` [N], concatenated."""
    starts = counts.cumsum(0) - counts
    return torch.arange(int(counts.sum()), device=counts.device) - torch.repeat_interleave(starts, counts)
