"""Fills the holes of the texture."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from ..checks.meshes import check_mesh
from ..errors import BadInput
from ..fitting.budget import Need, plain_need
from ..fitting.ladder import fitted
from ..host import Host
from ..lending.geometry import geometry_device
from ..presets import PRESETS, Preset
from ..render.fill import fill_holes
from ..render.scene import Scene
from ..types import Atlas, Mesh

log = logging.getLogger(__name__)

TEXEL_BYTES = 9
FACE_BYTES = 30
PIECE_BYTES = 130
STRIP_BYTES = 50 * 2**20
"""Device memory: per texel of the pyramid, per face of the mesh, per piece of the cut faces, and for one strip."""
PIECES = 205_000
"""Faces with holes are cut into about so many pieces, for any size of texture."""


def inpaint(mesh: Mesh, atlas: Atlas, host: Host) -> Mesh:
    """The mesh with the atlas as its texture, without holes. Texels that a view saw keep their colour.

    Holes take colours that spread over the surface, across the seams of the UVs. The gaps between charts take the
    colours of the charts around them. See `fill_holes`.

    Raises:
        BadInput: the mesh has no usable UVs, the atlas is broken, or no view saw any texel.

    Memory: about 80 T^2 bytes of RAM. On the device (see `geometry_device`) 9 T^2 bytes or 130 per face, the larger of
    them, 30 per face and 50 MiB; nothing if every texel was seen.
    Source: hy3dgen texgen/differentiable_renderer, uv_inpaint and mesh_processor.py. What differs: see `fill_holes`;
    colours are rounded when they are saved, not truncated.
    """
    check_mesh(mesh, "inpaint", needs_uvs=True)
    check_atlas(atlas)
    # This stage reads no preset. The advice for a full device needs one that has the texture's size.
    settings = replace(PRESETS["8 GB Full"], texture_px=len(atlas.texture))
    texture = fitted("inpaint", settings, host, partial(_needs, mesh, atlas, host), partial(_fill, mesh, atlas, host))
    log.info("inpaint: %d px, %.1f %% filled", len(texture), 100 * float((~atlas.seen).float().mean()))
    return mesh.with_(texture=texture)


def _needs(mesh: Mesh, atlas: Atlas, host: Host, _: Preset) -> list[Need]:
    if bool(atlas.seen.all()) or geometry_device(host.device) != host.device:
        return []
    pyramid, pieces = TEXEL_BYTES * atlas.seen.numel(), PIECE_BYTES * max(PIECES, len(mesh.faces))
    used = FACE_BYTES * len(mesh.faces) + STRIP_BYTES + max(pyramid, pieces)
    return [plain_need("raster of the texture", used, {"texture_px"})]


def _fill(mesh: Mesh, atlas: Atlas, host: Host, _: Preset) -> Tensor:
    """[T,T,3] the texture without holes."""
    with host.phase("inpaint"):
        if bool(atlas.seen.all()):
            host.progress(1, 1)
            return atlas.texture
        scene = Scene(mesh, geometry_device(host.device))
        return fill_holes(scene, atlas.texture, atlas.seen, host.progress)


def check_atlas(atlas: Atlas) -> None:
    """Raises BadInput if the atlas cannot be filled."""
    texture, seen = atlas.texture, atlas.seen
    if texture.dim() != 3 or texture.shape[-1] != 3 or texture.shape[0] != texture.shape[1] or len(texture) < 2:
        raise BadInput(
            f"inpaint: the texture is {tuple(texture.shape)}; wanted [T,T,3], a square RGB picture. Bake it again."
        )
    if seen.shape != texture.shape[:2] or seen.dtype != torch.bool:
        raise BadInput(
            f"inpaint: the mask is {tuple(seen.shape)} of {seen.dtype}; wanted {tuple(texture.shape[:2])} of bool. "
            "Bake the texture again."
        )
    if not bool(torch.isfinite(texture).all()):
        raise BadInput("inpaint: the texture holds NaN or infinite colours; wanted 0 to 1. Bake it again.")
    if not bool(seen.any()):
        raise BadInput(
            "inpaint: no view painted a single texel; wanted at least some. "
            "Use larger renders, or views that face the object."
        )
