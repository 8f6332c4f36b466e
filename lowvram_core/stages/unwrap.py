"""Makes UVs for the mesh, before it is painted."""

from __future__ import annotations

import logging

from ..checks.meshes import check_mesh
from ..checks.packages import is_there
from ..errors import BadInput
from ..geometry.unwrappers import LARGEST_FOR_XATLAS, unwrap_uvunwrap, unwrap_xatlas
from ..host import Host
from ..presets import UNWRAPPERS, Preset
from ..render.facing import face_outwards
from ..types import Mesh

log = logging.getLogger(__name__)


def unwrap(mesh: Mesh, preset: Preset, host: Host, *, keep_uvs: bool = False) -> Mesh:
    """The mesh with UVs. Vertices at the border of a chart are duplicated. Faces that face inwards are turned.

    It may run in any thread. Other threads of the program go on meanwhile, unless the host got a note that they cannot.

    Args:
        preset: reads unwrapper. A mesh of more than LARGEST_FOR_XATLAS faces gets uvunwrap, and a note.
        keep_uvs: a mesh that has UVs keeps them.

    Raises:
        BadInput: the mesh is broken or not manifold, its own UVs cannot be used, or the unwrapper is unknown.
        MissingDependency: the unwrapper is not installed.
    """
    keep = keep_uvs and mesh.uvs is not None
    check_mesh(mesh, "unwrap", needs_uvs=keep, manifold=not keep)
    if preset.unwrapper not in UNWRAPPERS:
        raise BadInput(
            f"unwrap: the unwrapper is {preset.unwrapper!r}; wanted one of {', '.join(UNWRAPPERS)}. Choose one of them."
        )
    if keep:
        log.info("unwrap: the mesh's own UVs are kept")
        return face_outwards(mesh)
    unwrapper = _for_size(preset.unwrapper, len(mesh.faces), host)
    with host.phase("unwrap"):
        host.progress(0, 100)
        mesh = face_outwards(mesh)
        if unwrapper == "xatlas":
            result = unwrap_xatlas(mesh, host.progress, host.note)
        else:
            result = unwrap_uvunwrap(mesh, host.progress)
        host.progress(100, 100)
    log.info("unwrap: %d faces, %d -> %d vertices, %s", len(mesh.faces), len(mesh.vertices), len(result.vertices),
             unwrapper)  # fmt: skip
    return result


def _for_size(unwrapper: str, faces: int, host: Host) -> str:
    """The unwrapper that a mesh of that many faces gets."""
    if unwrapper != "xatlas" or faces <= LARGEST_FOR_XATLAS:
        return unwrapper
    advice = f"Run Clean Mesh with a face budget of at most {LARGEST_FOR_XATLAS:,} to have it cut by xatlas."
    if not is_there("uvunwrap"):
        host.note(f"unwrap: xatlas takes minutes for {faces:,} faces. {advice} Or install uvunwrap, which is fast.")
        return unwrapper
    host.note(f"unwrap: uvunwrap cut the mesh, because xatlas takes minutes for {faces:,} faces. {advice}")
    return "uvunwrap"
