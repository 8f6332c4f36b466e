"""Makes UVs for a mesh. Vertices at the border of a chart are duplicated."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ..checks.packages import missing_package
from ..errors import BadInput
from ..types import Mesh

_OTHERWISE = "Or choose the other unwrapper."
Progress = Callable[[int, int], None]
_PHASES = ("segmenting", "parameterizing", "packing", "output")
"""Of a run of uvunwrap, in their order."""
BESIDE_OTHER_WORK = ("uvunwrap",)
"""Unwrappers that let other threads run. xatlas holds Python's global lock from beginning to end."""
_POLL_S = 0.05
_LARGEST_POSITION = 1e6
"""A mesh with larger coordinates is scaled down for the unwrapper; the result keeps its own positions."""


def unwrap_xatlas(mesh: Mesh) -> Mesh:
    """The mesh with [V,2] UVs from xatlas, with its default options as upstream uses it; 6 s for 40,000 faces.

    Raises:
        BadInput: xatlas cannot unwrap the mesh.
        MissingDependency: xatlas is not installed.
    """
    try:
        import xatlas
    except ImportError as error:
        raise missing_package("unwrap", error, otherwise=_OTHERWISE) from error
    positions, faces = _arrays(mesh)
    try:
        source, indices, uvs = xatlas.parametrize(positions, faces)
    except (RuntimeError, ValueError) as error:
        raise BadInput(f"unwrap: xatlas refused the mesh ({error}); wanted a clean one. Run Clean first.") from error
    return _split(mesh, source, indices, uvs)


def unwrap_uvunwrap(mesh: Mesh, page_px: int = 2048, progress: Progress | None = None) -> Mesh:
    """The mesh with [V,2] UVs from uvunwrap: several times faster than xatlas, with fewer charts and less stretch.

    Args:
        page_px: width of the texture; the gaps between charts are chosen for it.
        progress: called with (done, total) now and then; an error that it raises stops the work.

    Raises:
        BadInput: uvunwrap cannot unwrap the mesh, or not into one texture.
        MissingDependency: uvunwrap is not installed.
    """
    try:
        import uvunwrap
    except ImportError as error:
        raise missing_package("unwrap", error, otherwise=_OTHERWISE) from error
    positions, faces = _arrays(mesh)
    try:
        job = uvunwrap.start([uvunwrap.Mesh(positions, faces)], page_size=page_px)
        _watch(job, progress)
        atlas = job.result()
    except uvunwrap.UnwrapError as error:
        raise BadInput(f"unwrap: uvunwrap refused the mesh ({error}); wanted a clean one. Run Clean first.") from error
    result = atlas.meshes[0]
    if atlas.page_count != 1:
        raise BadInput(f"unwrap: the charts need {atlas.page_count} pages; wanted one. Choose xatlas.")
    return _split(mesh, np.asarray(result.xref), np.asarray(result.indices), np.asarray(result.uv, dtype=np.float32))


def _watch(job: Any, progress: Progress | None) -> None:
    """Waits for a job and reports its progress. Cancels the job if the report raises an error."""
    try:
        while not job.done:
            if progress is not None:
                phase = getattr(job.progress, "stage", None)
                progress(_PHASES.index(phase) if phase in _PHASES else 0, len(_PHASES))
            time.sleep(_POLL_S)
    except BaseException:
        job.cancel()
        raise


def _arrays(mesh: Mesh) -> tuple[np.ndarray, np.ndarray]:
    """Positions and faces for an unwrapper.

    Large meshes are scaled: UVs do not depend on the scale, and xatlas never ends on a mesh larger than 1e10.
    """
    positions = mesh.vertices.detach().cpu().float().numpy()
    if np.abs(positions).max() > _LARGEST_POSITION:
        exact = positions.astype(np.float64)
        exact -= (exact.max(axis=0) + exact.min(axis=0)) / 2
        positions = (exact / np.abs(exact).max()).astype(np.float32)
    return np.ascontiguousarray(positions), np.ascontiguousarray(mesh.faces.cpu().numpy().astype(np.uint32))


def _split(mesh: Mesh, source: np.ndarray, indices: np.ndarray, uvs: np.ndarray) -> Mesh:
    """The unwrapped mesh: vertex i is a copy of vertex source[i]. `uvs` are the unwrapper's, v up."""
    vertices = mesh.vertices.detach().cpu().float()[torch.from_numpy(source.astype(np.int64))]
    up = torch.from_numpy(np.ascontiguousarray(uvs, dtype=np.float32)).view(-1, 2)
    faces = torch.from_numpy(indices.astype(np.int64)).view(-1, 3)
    return Mesh(vertices, faces, uvs=torch.stack([up[:, 0], 1.0 - up[:, 1]], dim=1))
