"""Rasterises triangles in plain torch, in bounded memory, on any device with float64 and int64 (lending/geometry.py).

There are two passes. The first goes through the faces in chunks. It cuts each face into spans of one pixel row, and
these into pieces of a few pixels. It tests the pixels of the pieces, and keeps the nearest face of each pixel in a
buffer of (depth, face) numbers. The second computes the barycentric coordinates, for the nearest faces only.

A value that is the same in a whole piece is gathered once for it. Coordinates are kept in one tensor each, because
torch computes contiguous tensors fastest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .compiled import draw_nearest, weigh
from .loops import mix

_ROWS_PER_CHUNK = 1 << 18
PIXELS_PER_CHUNK = 1 << 19
"""Sizes of chunks; each entry takes about 100 bytes while the chunk is computed."""
_CACHED = 1 << 15
"""Largest size of a chunk on a CPU, whose caches then hold it."""
_PIECE_PX = 4
"""Spans have about 8 pixels on a mesh of 40,000 faces at 2048 px."""
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
        planes = [*_planes(corners), *corners[..., 2].unbind(dim=1)]
        for spans in _spans(corners, size_px):
            _test_pixels(nearest, planes, *spans, size_px)
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
    corners, shares = corner_ids.t().contiguous(), weights.unbind(dim=1)
    for mean, column in zip(result.unbind(dim=1), values.unbind(dim=1), strict=True):
        a, b, c = (column.index_select(0, ids).mul_(share) for ids, share in zip(corners, shares, strict=True))
        torch.add(a.add_(b), c, out=mean)
    return result


def _screen(clip: Tensor, size_px: int) -> Tensor:
    """[V,3] pixel column, pixel row, depth 0..1; from clip positions [V,4]."""
    x, y, z = (clip[:, :3] / clip[:, 3:]).unbind(dim=1)
    return torch.stack(
        [(x * 0.5 + 0.5) * (size_px - 1) + 0.5, (y * 0.5 + 0.5) * (size_px - 1) + 0.5, z * 0.49999 + 0.5], dim=1
    )


def _spans(corners: Tensor, size_px: int) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Yields chunks of spans: (face, row, first column, number of columns), each [N].

    A span is a row of pixels that a face crosses, one pixel longer at each end. The number may be 0.
    """
    y = corners[..., 1]
    first = y.amin(dim=1).floor().clamp(0, size_px).long()
    # Faces with NaN or infinite corners give empty spans below.
    last = y.amax(dim=1).floor().clamp(-1, size_px - 1).long()
    rows = (last - first + 1).clamp(min=0)
    for begin, end in chunks(rows, _ROWS_PER_CHUNK):
        face, row = expanded(rows[begin:end])
        row += first[begin:end].index_select(0, face)
        face += begin
        left, right = crossings(corners, face, row + 0.5)
        column = left.floor_().sub_(1).clamp_(0, size_px).long()
        columns = right.floor_().add_(2).clamp_(0, size_px).long().sub_(column).clamp_(min=0)
        yield face, row, column, columns


def crossings(corners: Tensor, face: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
    """[N] smallest and [N] largest x where edges of faces cross y = `row` [N]; inf, -inf if none does.

    Args:
        corners: [F,3,2 or more] x and y.
        face: [N] int64.
    """
    left = torch.full_like(row, torch.inf)
    right = -left
    x, y = ([corner.index_select(0, face) for corner in corners[..., axis].unbind(dim=1)] for axis in (0, 1))
    for start, stop in ((0, 1), (1, 2), (2, 0)):
        x0, y0, x1, y1 = x[start], y[start], x[stop], y[stop]
        met = (torch.minimum(y0, y1) <= row) & (torch.maximum(y0, y1) >= row)
        share = ((row - y0) / (y1 - y0)).clamp_(0, 1)
        flat = y0 == y1
        cut = share.mul_(x1 - x0).add_(x0)
        low, high = torch.where(flat, torch.minimum(x0, x1), cut), torch.where(flat, torch.maximum(x0, x1), cut)
        left = torch.where(met, torch.minimum(left, low), left)
        right = torch.where(met, torch.maximum(right, high), right)
    return left, right


def _test_pixels(
    nearest: Tensor, planes: Sequence[Tensor], face: Tensor, row: Tensor, column: Tensor, columns: Tensor, size_px: int
) -> None:
    """Writes the spans' covered pixels to `nearest` [S*S] where they are nearer than what is there.

    `planes` are the results of `_planes`, and z of the corners.
    """
    width = min(_PIECE_PX, size_px)
    step = torch.arange(width, device=nearest.device).unsqueeze(1)
    pieces = (columns + (width - 1)) // width
    for begin, end in chunks(pieces, max(chunk_size(PIXELS_PER_CHUNK, nearest.device) // width, 1)):
        span, number = expanded(pieces[begin:end])
        face_, row_, column_ = (part[begin:end].index_select(0, span) for part in (face, row, column))
        # A piece at the right border moves to the left; to test a pixel twice changes nothing.
        column_.add_(number.mul_(width)).clamp_(max=size_px - width)
        a_x, a_y, ab_x, ab_y, ac_x, ac_y, scale, a_z, b_z, c_z = (part.index_select(0, face_) for part in planes)
        down, right = row_ + 0.5 - a_y, step + (column_ + 0.5) - a_x
        beta = (ac_x * down - right * ac_y).mul_(scale)
        gamma = (right * ab_y).sub_(ab_x * down).mul_(scale)
        alpha = beta.double().neg_().add_(1.0).sub_(gamma).float()
        # No weight is larger than 1 if none is negative. Faces with area 0 have NaN or infinite weights: they fail.
        least = torch.minimum(torch.minimum(alpha, beta), gamma)
        depth = alpha.mul_(a_z).add_(beta.mul_(b_z)).add_(gamma.mul_(c_z))
        covered = torch.minimum(least, depth) >= 0
        key = depth.mul_(_DEPTH_STEPS).long().bitwise_left_shift_(32).bitwise_or_(face_ + 1)
        key.bitwise_or_(covered.long().sub_(1)).bitwise_and_(_FAR)  # _FAR where it is not covered
        pixel = step + (row_.mul_(size_px).add_(column_))
        nearest.scatter_reduce_(0, pixel.view(-1), key.view(-1), "amin")


def _weighed(nearest: Tensor, corners: Tensor, w: Tensor, size_px: int) -> tuple[Tensor, Tensor]:
    """[S*S] int32 face + 1 of each pixel, [S*S,3] perspective-correct weights of its corners; 0 on the background."""
    face_ids = torch.empty(len(nearest), dtype=torch.int32, device=nearest.device)
    result = torch.empty(len(nearest), 3, device=corners.device)
    if weigh(result, face_ids, nearest, corners, w, size_px):
        return face_ids, result
    del face_ids, result  # what follows needs the room
    face_ids = nearest.int().clamp_(min=0)  # the lower 32 bits; those of _FAR are -1
    result = torch.zeros(len(nearest), 3, device=corners.device)
    planes = [*_planes(corners), *w.unbind(dim=1)]
    for pixels in face_ids.nonzero().squeeze(1).split(chunk_size(PIXELS_PER_CHUNK, nearest.device)):
        face = face_ids.index_select(0, pixels).long().sub_(1)
        a_x, a_y, ab_x, ab_y, ac_x, ac_y, scale, *shares = (part.index_select(0, face) for part in planes)
        row = pixels // size_px
        right, down = (pixels - row * size_px) + 0.5 - a_x, row + 0.5 - a_y
        beta = (ac_x * down).sub_(right * ac_y).mul_(scale)
        gamma = (right * ab_y).sub_(ab_x * down).mul_(scale)
        alpha = beta.double().neg_().add_(1.0).sub_(gamma).float()
        weights = [part.div_(share) for part, share in zip((alpha, beta, gamma), shares, strict=True)]
        total = 1.0 / (alpha + beta).add_(gamma)
        result.index_copy_(0, pixels, torch.stack([part.mul_(total) for part in weights], dim=1))
    return face_ids, result


def _planes(corners: Tensor) -> tuple[Tensor, ...]:
    """[F] each: x and y of the corner a, of the edges ab and ac, and 1 / twice the signed area; from [F,3,3]."""
    a, b, c = corners[..., :2].unbind(dim=1)
    ab, ac = b - a, c - a
    area = ac[:, 0] * ab[:, 1] - ab[:, 0] * ac[:, 1]  # positive if they turn clockwise with y down
    return *a.unbind(dim=1), *ab.unbind(dim=1), *ac.unbind(dim=1), 1.0 / area


def chunk_size(most: int, device: torch.device) -> int:
    """The size of a chunk that is computed quickly on the device: at most `most`."""
    return min(most, _CACHED) if device.type == "cpu" else most


def chunks(counts: Tensor, budget: int) -> Iterator[tuple[int, int]]:
    """Yields ranges (begin, end) of `counts` [N]. Each has a sum of at most `budget`, or has one entry."""
    ends = counts.cumsum(0).cpu()
    begin, spent = 0, 0
    while begin < len(ends) and spent < int(ends[-1]):
        end = int(torch.searchsorted(ends, spent + budget, right=True))
        end = max(end, begin + 1)
        yield begin, end
        begin, spent = end, int(ends[end - 1])


def expanded(counts: Tensor) -> tuple[Tensor, Tensor]:
    """[sum of counts] twice: i repeated counts[i] times for each i, and 0, 1, .. counts[i] - 1 for each i."""
    starts = counts.cumsum(0)
    index = torch.repeat_interleave(counts)
    starts -= counts
    return index, torch.arange(len(index), device=counts.device).sub_(starts.index_select(0, index))


def within(counts: Tensor) -> Tensor:
    """[sum of counts] 0, 1, .. count - 1 for each count of `counts` [N], concatenated."""
    return expanded(counts)[1]
