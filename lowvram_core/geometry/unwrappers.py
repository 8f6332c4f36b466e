"""Makes UVs for a mesh. Vertices at the border of a chart are duplicated."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ..checks.packages import is_there, missing_package
from ..errors import BadInput
from ..types import Mesh
from .xatlas_child import ChildEnded, NoChild, Progress, parametrize_in_child
from .xatlas_script import Refused, parametrize

_OTHERWISE = "Or choose the other unwrapper."
_PHASES = ("segmenting", "parameterizing", "packing", "output")
"""Of a run of uvunwrap, in their order."""
_POLL_S = 0.05
_LARGEST_POSITION = 1e6
"""A mesh with larger coordinates is scaled down for the unwrapper; the result keeps its own positions."""
LARGEST_FOR_XATLAS = 100_000
"""Faces. For that many xatlas takes 70 to 110 s on one CPU core, and the time grows faster than the faces."""
PACKING_PX = {"xatlas": 2048, "uvunwrap": 1024}
"""Charts are packed for a texture of this width, whatever the width of the texture: so another width keeps the UVs, and
what was painted with them. xatlas cuts many small charts: packed for 1024 px they would lose 11 to 18 % of the texels.
uvunwrap's lose 2 to 6 % by it, and keep apart in smaller textures, too."""
_PADDING_PX = 5
"""Empty texels around each chart of a texture of PACKING_PX: at least 8 lie between two charts. A texel of mip level 3
is made of 8 x 8, so none mixes two charts; in a texture of half that width, none of level 2. A padding of 8 would take
another 13 to 23 % of their texels from the charts of a bumpy ball."""


def unwrap_xatlas(
    mesh: Mesh,
    progress: Progress | None = None,
    note: Callable[[str], None] | None = None,
) -> Mesh:
    """The mesh with [V,2] UVs from xatlas, with its default chart options as upstream uses it.

    Upstream also lets xatlas choose the packing; that changes only the UVs.

    It takes 16 to 30 s for 40,000 faces (benchmarks/unwrap.py).

    xatlas runs in a child process. Where none can be started, it runs in this process, and other threads stand still.

    Args:
        progress: called with (done, total) ten times a second; an error that it raises stops the work.
        note: called with a sentence if no child process could be started.

    Raises:
        BadInput: xatlas cannot unwrap the mesh.
        MissingDependency: xatlas is not installed.
    """
    if not is_there("xatlas"):
        raise missing_package("unwrap", ["xatlas"], otherwise=_OTHERWISE)
    arrays = _arrays(mesh)
    try:
        try:
            source, indices, uvs = parametrize_in_child(*arrays, PACKING_PX["xatlas"], _PADDING_PX, progress)
        except NoChild as reason:
            if note is not None:
                note(
                    f"unwrap: no other process could be started for xatlas ({reason}), so it runs in this one. "
                    "Until it ends, the program does not answer and cannot be interrupted. uvunwrap has no such pause."
                )
            source, indices, uvs = parametrize(*arrays, PACKING_PX["xatlas"], _PADDING_PX)
    except ImportError as error:
        raise missing_package("unwrap", error, otherwise=_OTHERWISE) from error
    except Refused as error:
        raise BadInput(f"unwrap: xatlas refused the mesh ({error}); wanted a clean one. Run Clean first.") from error
    except ChildEnded as error:
        raise BadInput(
            f"unwrap: xatlas did not finish ({error}); wanted UVs. Run Clean with a smaller face budget, or choose "
            "uvunwrap."
        ) from error
    return _split(mesh, source, indices, uvs)


def unwrap_uvunwrap(mesh: Mesh, progress: Progress | None = None) -> Mesh:
    """The mesh with [V,2] UVs from uvunwrap: many times faster than xatlas, with fewer charts and less stretch.

    Args:
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
        job = uvunwrap.start([uvunwrap.Mesh(positions, faces)], page_size=PACKING_PX["uvunwrap"], padding=_PADDING_PX)
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
                progress(_percent(job.progress), 100)
            time.sleep(_POLL_S)
    except BaseException:
        job.cancel()
        raise


def _percent(reached: Any) -> int:
    """What uvunwrap has done, 0 to 100: each of its phases counts the same."""
    phase, done, total = (getattr(reached, name, None) for name in ("stage", "done", "total"))
    if phase not in _PHASES:
        return 0
    share = min(1.0, done / total) if done and total else 0.0
    return int(100 * (_PHASES.index(phase) + share) / len(_PHASES))


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
    copies = torch.from_numpy(source.astype(np.int64))
    up = torch.from_numpy(np.ascontiguousarray(uvs, dtype=np.float32)).view(-1, 2)
    return Mesh(
        mesh.vertices.detach().cpu().float()[copies],
        torch.from_numpy(indices.astype(np.int64)).view(-1, 3),
        uvs=torch.stack([up[:, 0], 1.0 - up[:, 1]], dim=1),
        normals=None if mesh.normals is None else mesh.normals.detach().cpu().float()[copies],
        colors=None if mesh.colors is None else mesh.colors.detach().cpu().float()[copies],
    )
