"""Makes UVs for the mesh, before it is painted."""

from __future__ import annotations

import logging

from ..checks.meshes import check_mesh
from ..errors import BadInput
from ..geometry.unwrappers import unwrap_uvunwrap, unwrap_xatlas
from ..host import Host
from ..presets import UNWRAPPERS, Preset
from ..types import Mesh

log = logging.getLogger(__name__)


def unwrap(mesh: Mesh, preset: Preset, host: Host, *, keep_uvs: bool = False) -> Mesh:
    """The mesh with UVs. Vertices at the border of a chart are duplicated.

    Args:
        keep_uvs: returns a mesh that has UVs unchanged.

    Raises:
        BadInput: the mesh is broken or not manifold, its own UVs cannot be used, or the unwrapper is unknown.
        MissingDependency: the unwrapper is not installed.
    """
    keep = keep_uvs and mesh.uvs is not None
    check_mesh(mesh, "unwrap", needs_uvs=keep, manifold=not keep)
    if preset.unwrapper not in UNWRAPPERS:
        raise BadInput(
            f"unwrap: the unwrapper is {preset.unwrapper!r}; wanted {' or '.join(UNWRAPPERS)}. Choose one of them."
        )
    if keep:
        log.info("unwrap: the mesh's own UVs are kept")
        return mesh
    with host.phase("unwrap"):
        host.progress(0, 1)
        if preset.unwrapper == "xatlas":
            result = unwrap_xatlas(mesh)
        else:
            result = unwrap_uvunwrap(mesh, preset.texture_px, host.progress)
        host.progress(1, 1)
    log.info("unwrap: %d faces, %d -> %d vertices, %s", len(mesh.faces), len(mesh.vertices), len(result.vertices),
             preset.unwrapper)  # fmt: skip
    return result
