"""Fewer faces for a mesh."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..checks.packages import missing_package

_GENTLE, _FIRM = 5.0, 7.0
"""Aggressiveness of fast_simplification. The gentle one keeps the shape better; the firm one always reaches the
budget."""


def decimate(vertices: Tensor, faces: Tensor, budget: int) -> tuple[Tensor, Tensor]:
    """[W,3], [G,3] with at most `budget` faces, by quadric edge collapse; unchanged if there are no more than that.

    Args:
        vertices: [V,3] float32 on the CPU.
        faces: [F,3] int64 on the CPU.
        budget: the most faces that the result may have.

    Raises:
        MissingDependency: fast_simplification is not installed.
    """
    if len(faces) <= budget:
        return vertices, faces
    try:
        from fast_simplification import simplify
    except ImportError as error:
        raise missing_package("clean", error) from error
    low, high = vertices.amin(dim=0), vertices.amax(dim=0)
    # The package's error threshold is absolute, so every mesh is scaled to the same size.
    scale = float((high - low).max()) / 2 or 1.0
    points = ((vertices - low) / scale).numpy().astype(np.float64)
    triangles = faces.numpy().astype(np.int32)
    for aggressiveness in (_GENTLE, _FIRM):
        found, triangles_left = simplify(points, triangles, target_count=budget, agg=aggressiveness)
        if len(triangles_left) <= budget:
            break
    if not len(triangles_left):
        return vertices, faces
    return torch.from_numpy(found).float() * scale + low, torch.from_numpy(triangles_left.astype(np.int64))
