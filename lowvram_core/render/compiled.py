"""The inner loops of the rasterisers as machine code, for the CPU, where numba is installed.

rasterize.py and spans.py hold the same loops in plain torch, for GPUs and for a Python without numba. rembg needs
numba, so most installations have it. loops.py has the loops over texels and pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any
from zlib import crc32

import numpy as np
import torch

_HALF = np.float32(0.5)
_ZERO, _ONE = np.float32(0), np.float32(1)
_FAR = np.int64(torch.iinfo(torch.int64).max)
"""The key of a pixel without a face."""


def _test_faces(nearest: Any, corners: Any, size_px: int, steps: int) -> None:
    """Writes (depth, face number + 1) of the nearest face to `nearest` [S*S]; corners [F,3,3] float32 in pixels."""
    steps32 = np.float32(steps)
    for face in range(len(corners)):
        a, b, c = corners[face, 0], corners[face, 1], corners[face, 2]
        if not np.isfinite(a[0] + a[1] + b[0] + b[1] + c[0] + c[1]):
            continue
        low_x, high_x = min(a[0], b[0], c[0]), max(a[0], b[0], c[0])
        low_y, high_y = min(a[1], b[1], c[1]), max(a[1], b[1], c[1])
        first_row, last_row = max(int(low_y), 0), min(int(high_y), size_px - 1)
        first, last = max(int(low_x) - 1, 0), min(int(high_x) + 1, size_px - 1)
        ab_x, ab_y, ac_x, ac_y = b[0] - a[0], b[1] - a[1], c[0] - a[0], c[1] - a[1]
        area = ac_x * ab_y - ac_y * ab_x
        if area == _ZERO:
            continue
        scale = _ONE / area
        # Each weight is a linear function of the column, which is 0 and 1 at two columns. Outside of all three pairs of
        # columns, and of a margin for what float32 rounds there, no test passes.
        doubt = 2e-6 * (max(high_x - low_x, high_y - low_y) + 2.0) ** 2
        beta_x, gamma_x = np.float64(ac_y), np.float64(ab_y)
        alpha_x = beta_x - gamma_x
        for row in range(first_row, last_row + 1):
            down = np.float32(row) + _HALF - a[1]
            beta_0, gamma_0 = ac_x * down, ab_x * down
            low, high = np.float64(first), np.float64(last)
            alpha_0 = np.float64(beta_0) - np.float64(gamma_0)
            for rise, at_0, at_1 in (
                (beta_x, np.float64(beta_0), np.float64(beta_0) - area),
                (gamma_x, np.float64(gamma_0), np.float64(gamma_0) + area),
                (alpha_x, alpha_0 - area, alpha_0),
            ):
                if rise != 0:
                    one, other, margin = at_0 / rise, at_1 / rise, 1.0 + doubt / abs(rise)
                    low = max(low, min(one, other) + a[0] - 0.5 - margin)
                    high = min(high, max(one, other) + a[0] - 0.5 + margin)
            for column in range(int(low), int(high) + 1):
                right = np.float32(column) + _HALF - a[0]
                beta = (beta_0 - right * ac_y) * scale
                gamma = (right * ab_y - gamma_0) * scale
                if not (beta >= _ZERO and beta <= _ONE and gamma >= _ZERO and gamma <= _ONE):
                    continue
                alpha = np.float32(1.0 - np.float64(beta) - np.float64(gamma))
                if not (alpha >= _ZERO and alpha <= _ONE):
                    continue
                depth = alpha * a[2] + beta * b[2] + gamma * c[2]
                if depth >= _ZERO:
                    key = (np.int64(depth * steps32) << 32) | (face + 1)
                    if key < nearest[row * size_px + column]:
                        nearest[row * size_px + column] = key


def _weigh(result: Any, face_ids: Any, nearest: Any, corners: Any, w: Any, size_px: int) -> None:
    """Writes each pixel's face + 1, or 0, to `face_ids` [S*S], and the weights of its corners to `result` [S*S,3].

    All floats are float32: the corners [F,3,3] in pixels and their w [F,3].
    """
    for pixel in range(len(face_ids)):
        face = np.int64(nearest[pixel] & 0xFFFFFFFF) - 1
        if nearest[pixel] == _FAR:
            face_ids[pixel] = 0
            result[pixel, 0], result[pixel, 1], result[pixel, 2] = _ZERO, _ZERO, _ZERO
            continue
        face_ids[pixel] = face + 1
        a, b, c = corners[face, 0], corners[face, 1], corners[face, 2]
        ap_x, ap_y = np.float32(pixel % size_px) + _HALF - a[0], np.float32(pixel // size_px) + _HALF - a[1]
        ab_x, ab_y, ac_x, ac_y = b[0] - a[0], b[1] - a[1], c[0] - a[0], c[1] - a[1]
        inverse = _ONE / (ac_x * ab_y - ac_y * ab_x)
        beta, gamma = (ac_x * ap_y - ac_y * ap_x) * inverse, (ap_x * ab_y - ap_y * ab_x) * inverse
        alpha = np.float32(1.0 - np.float64(beta) - np.float64(gamma))
        one, two, three = alpha / w[face, 0], beta / w[face, 1], gamma / w[face, 2]
        scale = _ONE / (one + two + three)
        result[pixel, 0], result[pixel, 1], result[pixel, 2] = one * scale, two * scale, three * scale


def _number(numbers: Any, corners: Any, width: int, first_row: int, last_row: int, slack: float) -> None:
    """Writes the lowest face number at each pixel of a band of rows to `numbers` [R*W]; corners [F,3,2]."""
    for face in range(len(corners)):
        points = corners[face]
        low, high = min(points[0, 1], points[1, 1], points[2, 1]), max(points[0, 1], points[1, 1], points[2, 1])
        if not (high >= first_row and low <= last_row):
            continue
        for row in range(max(int(np.ceil(low)), first_row), min(int(np.floor(high)), last_row) + 1):
            left, right = np.inf, -np.inf
            for start in range(3):
                p, q = points[start], points[(start + 1) % 3]
                if p[1] > q[1]:
                    p, q = q, p
                if p[1] <= row and row <= q[1]:
                    for end in range(2):
                        if p[1] == q[1]:
                            share = np.float64(end)
                        else:
                            share = (row - np.float64(p[1])) / (np.float64(q[1]) - np.float64(p[1]))
                        x = p[0] + share * (q[0] - p[0])
                        left, right = min(left, x), max(right, x)
            for column in range(max(int(np.ceil(left - slack)), 0), min(int(np.floor(right + slack)), width - 1) + 1):
                pixel = (row - first_row) * width + column
                if face < numbers[pixel]:
                    numbers[pixel] = face


def _fill_depth(depth: Any, corners: Any, size_px: int, slack: float) -> None:
    """Writes the largest z at each pixel to `depth` [S*S]; corners [F,3,3] column, row, z."""
    start, step, first, last = np.zeros((3, 2)), np.zeros((3, 2)), np.zeros(3), np.zeros(3)  # of each edge
    for face in range(len(corners)):
        points = corners[face]
        low, high = min(points[0, 1], points[1, 1], points[2, 1]), max(points[0, 1], points[1, 1], points[2, 1])
        top, bottom = max(math.ceil(low), 0), min(math.floor(high), size_px - 1)
        if not (np.isfinite(low) and np.isfinite(high)) or top > bottom:
            continue
        for edge in range(3):
            p, q = points[edge], points[(edge + 1) % 3]
            if p[1] > q[1]:  # from top to bottom, so that two faces cut their common edge at the same place
                p, q = q, p
            first[edge], last[edge] = p[1], q[1]
            height = np.float64(q[1]) - np.float64(p[1])
            for part in range(2):
                start[edge, part] = p[2 * part]
                rise = np.float64(q[2 * part]) - np.float64(p[2 * part])
                step[edge, part] = rise / height if height > 0 else rise
        for row in range(top, bottom + 1):
            left, right, left_z, right_z = np.inf, -np.inf, 0.0, 0.0
            for edge in range(3):
                if not (first[edge] <= row and row <= last[edge]):
                    continue
                flat = first[edge] == last[edge]
                for end in range(2 if flat else 1):  # a horizontal edge has two ends in its row
                    share = np.float64(end) if flat else row - first[edge]
                    x, z = start[edge, 0] + share * step[edge, 0], start[edge, 1] + share * step[edge, 1]
                    if x < left:
                        left, left_z = x, z
                    if x > right:
                        right, right_z = x, z
            slope = (right_z - left_z) / (right - left) if right > left else 0.0
            offset = row * size_px
            for column in range(max(math.ceil(left - slack), 0), min(math.floor(right + slack), size_px - 1) + 1):
                z = left_z + slope * min(max(column - left, 0.0), right - left)
                if z > depth[offset + column]:
                    depth[offset + column] = z


@cache
def _kernel(function: Callable[..., None]) -> Callable[..., None] | None:
    """The function as machine code; None without numba."""
    try:
        from numba import njit
    except ImportError:
        return None
    # What numba keeps on the disk refers to this module by its name, and ComfyUI loads it under another one.
    function.__qualname__ = f"{function.__name__}_{crc32(__name__.encode()):x}"
    try:
        compiled: Callable[..., None] = njit(cache=True, nogil=True)(function)
    except RuntimeError:  # no folder to keep the machine code in
        compiled = njit(nogil=True)(function)
    return compiled


def run(function: Callable[..., None], *arguments: torch.Tensor | float) -> bool:
    """Runs the function as machine code. False where it cannot: tensors are not on the CPU, or there is no numba."""
    tensors = [argument for argument in arguments if isinstance(argument, torch.Tensor)]
    kernel = _kernel(function) if all(tensor.device.type == "cpu" for tensor in tensors) else None
    if kernel is None:
        return False
    kernel(*(argument.numpy() if isinstance(argument, torch.Tensor) else argument for argument in arguments))
    return True


def draw_nearest(nearest: torch.Tensor, corners: torch.Tensor, size_px: int, steps: int) -> bool:
    """Tests all pixels of all faces, see rasterize.py. False where it cannot, see `run`."""
    return run(_test_faces, nearest, corners, size_px, steps)


def weigh(
    result: torch.Tensor, face_ids: torch.Tensor, nearest: torch.Tensor, corners: torch.Tensor, w: torch.Tensor,
    size_px: int,
) -> bool:  # fmt: skip
    """Finds the faces and their barycentric coordinates, see rasterize.py. False where it cannot, see `run`."""
    return run(_weigh, result, face_ids, nearest, corners, w, size_px)


def fill_depth(depth: torch.Tensor, corners: torch.Tensor, size_px: int, slack: float) -> bool:
    """Draws a depth map, see spans.py. False where it cannot, see `run`."""
    return run(_fill_depth, depth, corners, size_px, slack)


def number_faces(numbers: torch.Tensor, corners: torch.Tensor, width: int, rows: range, slack: float) -> bool:
    """Draws face numbers, see spans.py. False where it cannot, see `run`."""
    return run(_number, numbers, corners, width, rows.start, rows.stop - 1, slack)
