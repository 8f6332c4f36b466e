"""Fewer faces for a mesh."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..checks.packages import is_there, missing_package
from .repair import split_non_manifold
from .weld import face_areas

_GENTLE, _FIRM = 5.0, 7.0
"""Aggressiveness of fast_simplification. The gentle one keeps the shape better; the firm one reaches more budgets."""
AREA_CHANGE = 0.01
"""A result whose area differs by more than this share is compared with one of libigl."""
NOTED_CHANGE = 0.05
"""A larger change of the area gets a note."""
CAREFUL_FACES = 100_000
"""libigl takes 19 s for 328,000 faces. Above this number it starts from the result of fast_simplification."""

log = logging.getLogger(__name__)
Surface = tuple[Tensor, Tensor]


def decimate(vertices: Tensor, faces: Tensor, budget: int, note: Callable[[str], None] | None = None) -> Surface:
    """[W,3], [G,3] with at most `budget` faces, by quadric edge collapse; unchanged if there are no more than that.

    fast_simplification keeps no outline of an open sheet, and refuses thin triangles, such as those of a finely divided
    cylinder or coin. Where it misses the budget, or changes the area, libigl's slower `qslim` tries too, and the better
    result counts.

    Args:
        vertices: [V,3] float32 on the CPU.
        faces: [F,3] int64 on the CPU.
        budget: the most faces that the result may have.
        note: gets a text if the result has more faces, or another area.

    Raises:
        MissingDependency: fast_simplification is not installed.
    """
    if len(faces) <= budget:
        return vertices, faces
    low, high = vertices.amin(dim=0), vertices.amax(dim=0)
    # The error threshold of fast_simplification is absolute, so every mesh is scaled to the same size.
    scale = float((high - low).max()) / 2 or 1.0
    whole = (vertices - low) / scale, faces
    found = _fast(*whole, budget)
    if _fault(whole, found, budget):
        careful = _careful(*(whole if len(faces) <= CAREFUL_FACES else found), budget)
        found = min(found, careful or found, key=lambda one: _fault(whole, one, budget))
    _tell(whole, found, budget, note)
    return found[0] * scale + low, found[1]


def _fast(points: Tensor, faces: Tensor, budget: int) -> Surface:
    try:
        from fast_simplification import simplify
    except ImportError as error:
        raise missing_package("clean", error) from error
    given = points.numpy().astype(np.float64), faces.numpy().astype(np.int32)
    for aggressiveness in (_GENTLE, _FIRM):
        found, left = simplify(*given, target_count=budget, agg=aggressiveness)
        if len(left) <= budget:
            break
    return (torch.from_numpy(found).float(), torch.from_numpy(left.astype(np.int64))) if len(left) else (points, faces)


def _careful(points: Tensor, faces: Tensor, budget: int) -> Surface | None:
    """The result of libigl. None if it is not installed, is too old, or refuses the mesh."""
    try:
        from igl import qslim
    except ImportError:
        return None
    points, faces = split_non_manifold(points, faces)  # qslim needs that
    given = np.asfortranarray(points.numpy(), np.float64), np.asfortranarray(faces.numpy(), np.int32)
    try:
        found, left = qslim(*given, budget)[:2]
    except (TypeError, ValueError, RuntimeError) as error:
        log.info("clean: libigl cannot reduce the mesh (%s)", error)
        return None
    if not len(left) or not np.isfinite(found).all():
        return None
    return torch.from_numpy(np.ascontiguousarray(found)).float(), torch.from_numpy(np.ascontiguousarray(left)).long()


def _fault(whole: Surface, found: Surface, budget: int) -> float:
    """0 for a good result; else its change of area as a share, and 1 more for each face over the budget."""
    change = _area_change(whole, found)
    return max(0, len(found[1]) - budget) + (abs(change) if abs(change) > AREA_CHANGE else 0.0)


def _area_change(whole: Surface, found: Surface) -> float:
    before = float(face_areas(*whole).sum())
    return float(face_areas(*found).sum()) / before - 1 if before else 0.0


def _tell(whole: Surface, found: Surface, budget: int, note: Callable[[str], None] | None) -> None:
    if note is None:
        return
    change = _area_change(whole, found)
    if len(found[1]) > budget:
        advice = "Remesh it before."
        if not is_there("igl"):
            advice = "Install libigl, which can often do it: python -m pip install libigl."
        note(f"clean: {len(found[1]):,} faces are left; wanted at most {budget:,}. No more could be merged. {advice}")
    elif abs(change) > NOTED_CHANGE:
        note(
            f"clean: with {len(found[1]):,} faces the area of the mesh changed by {change:+.1%}. Raise the face budget "
            "to stay closer to the shape."
        )
