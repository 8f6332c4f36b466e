"""Prepares a raw surface for unwrapping: no floating parts, few faces, manifold."""

from __future__ import annotations

import logging

from torch import Tensor

from ..checks.meshes import check_mesh
from ..geometry.decimate import decimate
from ..geometry.repair import drop_floaters, split_non_manifold, weld_mesh
from ..host import Host
from ..presets import Preset
from ..render.facing import face_outwards
from ..types import Mesh

log = logging.getLogger(__name__)


def clean(mesh: Mesh, preset: Preset, host: Host, *, remove_floaters: bool = True, longest_side: float = 0.0) -> Mesh:
    """A welded, manifold mesh with at most `preset.face_budget` faces, without UVs and texture.

    A clean closed mesh stays closed and keeps its genus. Parts that are inside out are turned, because no
    view could paint them. The host gets a note if parts were removed, or if the budget or the area cannot be kept.

    Args:
        remove_floaters: also removes small parts (repair.floaters).
        longest_side: the mesh is centred and scaled until the longest side of its box has this length. 0: it is not.

    Raises:
        BadInput: the mesh is empty or broken.
        MissingDependency: fast_simplification is wanted and not installed.
        NumericalFailure: all faces are degenerate.
    """
    check_mesh(mesh, "clean")
    dropped = 0
    notes: list[str] = []
    with host.phase("clean"):
        vertices, faces = mesh.vertices.detach().cpu().float(), mesh.faces.cpu().long()
        host.progress(0, 4)
        vertices, faces = weld_mesh(vertices, faces)
        if remove_floaters:
            vertices, faces, dropped = drop_floaters(vertices, faces)
        host.progress(1, 4)
        vertices, faces = decimate(vertices, faces, preset.face_budget, notes.append)
        host.progress(2, 4)
        vertices, faces = weld_mesh(vertices, faces)
        host.progress(3, 4)
        faces = face_outwards(Mesh(vertices, faces)).faces
        vertices, faces = split_non_manifold(vertices, faces)
        if longest_side:
            vertices = _centred(vertices, longest_side)
        host.progress(4, 4)
    if dropped:
        host.note(f"clean: removed small loose parts: {dropped}. To keep such parts, turn remove_floaters off.")
    for note in notes:
        host.note(note)
    log.info("clean: %d -> %d faces, %d vertices", len(mesh.faces), len(faces), len(vertices))
    return Mesh(vertices, faces)


def _centred(vertices: Tensor, longest_side: float) -> Tensor:
    """[V,3] the vertices, in a box around 0 whose longest side has that length."""
    low, high = vertices.amin(dim=0), vertices.amax(dim=0)
    return (vertices - (low + high) / 2) * (longest_side / (high - low).max())
