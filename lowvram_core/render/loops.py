"""Loops over texels and pixels as machine code, for the CPU, where numba is installed (see compiled.py).

Each function does the same as plain torch in the module that calls it, without the intermediate tensors. It returns
False where it cannot do it. Then nothing has changed.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from torch import Tensor

from .compiled import run

_ZERO, _ONE = np.float32(0), np.float32(1)


def _mix(result: Any, values: Any, corners: Any, weights: Any) -> None:
    for point in range(len(result)):
        a, b, c = corners[point, 0], corners[point, 1], corners[point, 2]
        for part in range(values.shape[1]):
            mean = values[a, part] * weights[point, 0]
            mean += values[b, part] * weights[point, 1]
            result[point, part] = mean + values[c, part] * weights[point, 2]


def _colour(picture: Any, values: Any, faces: Any, face_ids: Any, weights: Any, shift: float, scale: float) -> None:
    shift32, scale32, full = np.float32(shift), np.float32(scale), np.float32(255)
    for pixel in range(len(face_ids)):
        face = face_ids[pixel] - 1
        if face < 0:
            continue
        a, b, c = faces[face, 0], faces[face, 1], faces[face, 2]
        for part in range(3):
            mean = values[a, part] * weights[pixel, 0]
            mean += values[b, part] * weights[pixel, 1]
            mean += values[c, part] * weights[pixel, 2]
            picture[pixel, part] = np.uint8(min(max((mean + shift32) * scale32 * full, _ZERO), full))


def _locate(index: Any, corners: Any, weights: Any, face: Any, numbers: Any, points: Any, faces: Any, at: Any) -> None:
    first, width = at[0], at[1]
    found = 0
    for texel in range(len(numbers)):
        number = numbers[texel]
        if number == len(faces):
            continue
        index[found], face[found] = first + texel, number
        a, b, c = faces[number, 0], faces[number, 1], faces[number, 2]
        corners[found, 0], corners[found, 1], corners[found, 2] = a, b, c
        ab_x, ab_y = points[b, 0] - points[a, 0], points[b, 1] - points[a, 1]
        ac_x, ac_y = points[c, 0] - points[a, 0], points[c, 1] - points[a, 1]
        ap_x = np.float32((first + texel) % width) - points[a, 0]
        ap_y = np.float32((first + texel) // width) - points[a, 1]
        area = ab_x * ac_y - ab_y * ac_x
        scale = _ONE / area if area != _ZERO else _ZERO
        beta = min(max((ap_x * ac_y - ap_y * ac_x) * scale, _ZERO), _ONE)
        gamma = min(min(max((ab_x * ap_y - ab_y * ap_x) * scale, _ZERO), _ONE), _ONE - beta)
        weights[found, 0], weights[found, 1], weights[found, 2] = _ONE - beta - gamma, beta, gamma
        found += 1


def _jumps(found: Any, depth: Any, jump: float) -> None:
    size, half = len(depth), jump / 2
    for row in range(size):
        for column in range(size):
            here = depth[row, column]
            if here == -np.inf:
                continue
            for axis in range(2):
                down, right = axis, 1 - axis
                if row + down >= size or column + right >= size:
                    continue
                step = depth[row + down, column + right] - here
                if not (np.isfinite(step) and abs(step) > jump):
                    continue
                # A step that the slopes beside it do not have. Beside the background there is no slope.
                sudden = True
                if (column if right else row) > 0:
                    sudden = not abs(step - (here - depth[row - down, column - right])) <= half
                if sudden and (column + 2 if right else row + 2) < size:
                    after = depth[row + 2 * down, column + 2 * right] - depth[row + down, column + right]
                    sudden = not abs(after - step) <= half
                if sudden:
                    found[row, column] = True
                    found[row + down, column + right] = True


def _look(
    total: Any, sums: Any, places: Any, normals: Any, matrix: Any, depth: Any, trusts: Any, picture: Any, limits: Any
) -> None:
    size, fine = len(depth), len(picture)
    scale, least, tolerance, camera_weight = limits[0], limits[1], limits[2], limits[3]
    exponent, power = int(limits[4]), int(limits[5])
    middle, ratio = np.float32((size - 1) / 2), np.float32(fine / size)
    half, zero, last = np.float32(0.5), np.float32(0), np.float32(fine - 1)
    for texel in range(len(sums)):
        x, y, z = normals[texel, 0], normals[texel, 1], normals[texel, 2]
        normal_z = matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2] * z
        if not -normal_z >= least:
            continue
        slope_x = (matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2] * z) / normal_z
        slope_y = (matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2] * z) / normal_z
        x, y, z = places[texel, 0], places[texel, 1], places[texel, 2]
        column = (matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2] * z + matrix[0, 3]) * scale + middle
        row = (matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2] * z + matrix[1, 3]) * scale + middle
        nearest_x: Any = min(max(np.int64(math.floor(column + half)), 0), size - 1)
        nearest_y: Any = min(max(np.int64(math.floor(row + half)), 0), size - 1)
        trust = trusts[nearest_y, nearest_x]
        if not trust > zero:
            continue
        own = (matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2] * z + matrix[2, 3]) * scale
        own -= (np.float32(nearest_x) - column) * slope_x + (np.float32(nearest_y) - row) * slope_y
        steep = math.sqrt(slope_x * slope_x + slope_y * slope_y)
        if not abs(depth[nearest_y, nearest_x] - own) <= tolerance + half * steep:
            continue
        fine_x = min(max((column + half) * ratio - half, zero), last)
        fine_y = min(max((row + half) * ratio - half, zero), last)
        left, top = np.int64(fine_x), np.int64(fine_y)
        right, bottom = min(left + 1, fine - 1), min(top + 1, fine - 1)
        share_x, share_y = fine_x - np.float32(left), fine_y - np.float32(top)
        single = camera_weight * trust
        for _ in range(exponent):
            single *= -normal_z
        weight = single
        for _ in range(power - 1):
            weight *= single
        sums[texel] += weight
        for part in range(3):
            upper = picture[top, left, part] * (_ONE - share_x) + picture[top, right, part] * share_x
            lower = picture[bottom, left, part] * (_ONE - share_x) + picture[bottom, right, part] * share_x
            total[texel, part] += (upper * (_ONE - share_y) + lower * share_y) * weight


def _pull(coarse: Any, coarse_weights: Any, fine: Any, weights: Any) -> None:
    height, width = weights.shape
    for row in range(len(coarse)):
        for column in range(coarse.shape[1]):
            total, red, green, blue = _ZERO, _ZERO, _ZERO, _ZERO
            for y in range(2 * row, min(2 * row + 2, height)):
                for x in range(2 * column, min(2 * column + 2, width)):
                    weight = weights[y, x]
                    total += weight
                    red += fine[y, x, 0] * weight
                    green += fine[y, x, 1] * weight
                    blue += fine[y, x, 2] * weight
            scale = _ONE / total if total > _ZERO else _ZERO
            coarse_weights[row, column] = min(total, _ONE)
            coarse[row, column, 0], coarse[row, column, 1], coarse[row, column, 2] = (
                red * scale, green * scale, blue * scale,
            )  # fmt: skip


def _push(fine: Any, weights: Any, coarse: Any) -> None:
    height, width = weights.shape
    near, far = np.float32(0.75), np.float32(0.25)
    for row in range(height):
        up = row // 2
        other_up = min(max(up + 2 * (row % 2) - 1, 0), len(coarse) - 1)
        for column in range(width):
            weight = weights[row, column]
            if weight >= _ONE:
                continue
            left = column // 2
            other_left = min(max(left + 2 * (column % 2) - 1, 0), coarse.shape[1] - 1)
            for part in range(3):
                upper = near * coarse[up, left, part] + far * coarse[up, other_left, part]
                lower = near * coarse[other_up, left, part] + far * coarse[other_up, other_left, part]
                around = near * upper + far * lower
                fine[row, column, part] = fine[row, column, part] * weight + around * (_ONE - weight)


def mix(result: Tensor, values: Tensor, corners: Tensor, weights: Tensor) -> bool:
    """Writes the weighted sums of vertex values to `result` [N,C], see `interpolate_at`."""
    return run(_mix, result, values, corners, weights)


def colour(
    picture: Tensor, values: Tensor, faces: Tensor, face_ids: Tensor, weights: Tensor, shift: float, scale: float
) -> bool:
    """Writes (value + shift) * scale of the vertex values [V,3] to the pixels [N,3] uint8 that show a face."""
    return run(_colour, picture, values, faces, face_ids, weights, shift, scale)


def locate(
    index: Tensor, corners: Tensor, weights: Tensor, face: Tensor, numbers: Tensor, points: Tensor, faces: Tensor,
    at: Tensor,
) -> bool:  # fmt: skip
    """Writes the fields of a Band for the texels with a face number; `at` is the first texel and the atlas' width."""
    return run(_locate, index, corners, weights, face, numbers, points, faces, at)


def find_jumps(found: Tensor, depth: Tensor, jump: float) -> bool:
    """Marks the depth edges of a depth map [S,S] in `found` [S,S] bool."""
    return run(_jumps, found, depth, jump)


def look_up(
    total: Tensor, sums: Tensor, places: Tensor, normals: Tensor, matrix: Tensor, depth: Tensor, trust: Tensor,
    picture: Tensor, limits: Tensor,
) -> bool:  # fmt: skip
    """Adds the weighted colours of a picture [E,E,3] to the sums [N,3] and [N] of the texels that it shows.

    Args:
        depth, trust: [S,S], see `Shot`.
        limits: [6] float32 pixels per unit, smallest cosine, tolerance of depth, camera's weight, exponent of the
            cosine, power of the whole weight.
    """
    return run(_look, total, sums, places, normals, matrix, depth, trust, picture, limits)


def pull(coarse: Tensor, coarse_weights: Tensor, fine: Tensor, weights: Tensor) -> bool:
    """Writes the weighted means of 2 x 2 colours [H,W,3], and the sums of their weights, limited to 1."""
    return run(_pull, coarse, coarse_weights, fine, weights)


def push(fine: Tensor, weights: Tensor, coarse: Tensor) -> bool:
    """Adds to the colours [H,W,3] what they lack of weight 1 from the coarser ones, interpolated bilinearly."""
    return run(_push, fine, weights, coarse)
