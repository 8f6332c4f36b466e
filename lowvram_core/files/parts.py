"""Joins the parts of a file to one mesh: their textures become one, and their colours the mesh's."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from trimesh.path import packing

from ..geometry.weld import components, weld
from ..types import Mesh

LONGEST_PX = 8192
"""Edge of the largest texture that is made of several."""
BORDER_PX = 8
"""What a picture in the joined texture repeats of its edge, so that no neighbour bleeds into it."""
_PLAIN_PX = 16
"""Edge of the patch of a part that has one colour."""
_SEED = 0
"""Of the order in which trimesh tries to pack pictures."""

Note = Callable[[str], None]


@dataclass(frozen=True)
class Part:
    """A piece of a mesh with one material."""

    vertices: Tensor
    """[V,3] float32."""
    faces: Tensor
    """[F,3] int64."""
    normals: Tensor | None = None
    """[V,3] unit normals, as the file gave them."""
    uvs: Tensor | None = None
    """[V,2] v down; outside of 0..1, the texture repeats."""
    texture: Tensor | None = None
    """[H,W,3] float32 sRGB 0..1."""
    colors: Tensor | None = None
    """[V,3] float32 sRGB 0..1, where there is no texture."""


def joined(parts: Sequence[Part], note: Note) -> Mesh:
    """One mesh of all parts.

    Parts with textures share one new texture, in which a part without one gets a patch of its mean colour. Without
    textures, the mesh has the parts' colours, and UVs only if it is a single part.
    """
    parts = [_within_one(part) for part in parts]
    if len(parts) == 1:
        return _alone(parts[0])
    if any(part.texture is not None and part.uvs is not None for part in parts):
        return _whole([_untextured(part, note) for part in parts], note)
    if any(part.uvs is not None for part in parts):
        note(f"its {len(parts)} parts have UVs without a texture, which were left out")
    colors = None
    if any(part.colors is not None for part in parts):
        colors = torch.cat([torch.ones_like(part.vertices) if part.colors is None else part.colors for part in parts])
    return _welded(_geometry(parts).with_(colors=colors))


def _alone(part: Part) -> Mesh:
    mesh = Mesh(part.vertices, part.faces, part.uvs, part.texture, part.normals, part.colors)
    return mesh if part.uvs is not None else _welded(mesh)


def _geometry(parts: Sequence[Part]) -> Mesh:
    starts = np.cumsum([0, *(len(part.vertices) for part in parts)])
    faces = [part.faces + int(start) for part, start in zip(parts, starts, strict=False)]
    normals = [part.normals for part in parts if part.normals is not None]
    return Mesh(
        torch.cat([part.vertices for part in parts]),
        torch.cat(faces),
        normals=torch.cat(normals) if len(normals) == len(parts) else None,
    )


def _welded(mesh: Mesh) -> Mesh:
    """The mesh with each position once, without normals; STL and the like repeat a vertex for each face.

    Where vertices at one position have several colours, all stay.
    """
    if not len(mesh.faces):
        return mesh
    first, group = weld(mesh.vertices)
    if mesh.colors is not None and not torch.equal(mesh.colors[first][group], mesh.colors):
        return mesh.with_(normals=None)
    colors = None if mesh.colors is None else mesh.colors[first]
    return Mesh(mesh.vertices[first], group[mesh.faces], colors=colors)


def _within_one(part: Part) -> Part:
    """Moves each connected piece of the UVs by whole tiles into 0..1, if it fits: a repeated texture looks the same."""
    uvs = part.uvs
    if uvs is None or not len(part.faces) or not bool(torch.isfinite(uvs).all()):
        return part
    if float(uvs.min()) >= 0 and float(uvs.max()) <= 1:
        return part
    pairs = torch.cat([part.faces[:, :2], part.faces[:, 1:]])
    piece = components(pairs, len(uvs))
    count = int(piece.max()) + 1
    index = piece[:, None].expand(-1, 2)
    low = torch.full((count, 2), math.inf).scatter_reduce(0, index, uvs, "amin")
    high = torch.full((count, 2), -math.inf).scatter_reduce(0, index, uvs, "amax")
    tile = torch.where(high - low <= 1, torch.maximum(low.floor(), (high - 1).ceil()), torch.zeros(()))
    fits = ((low - tile >= -1e-6) & (high - tile <= 1 + 1e-6)).all(dim=1, keepdim=True)
    return replace(part, uvs=uvs - torch.where(fits, tile, torch.zeros(()))[piece])


def _untextured(part: Part, note: Note) -> Part:
    """A part without a texture, with a patch of its colour as its texture."""
    if part.texture is not None and part.uvs is not None:
        return part
    color = torch.ones(3) if part.colors is None else part.colors.mean(dim=0)
    if part.colors is not None and bool((part.colors - color).abs().max() > 0.5 / 255):
        note("a part with colours at its vertices got their mean, because other parts have textures")
    return replace(
        part, texture=color.expand(_PLAIN_PX, _PLAIN_PX, 3), uvs=torch.full((len(part.vertices), 2), 0.5), colors=None
    )


def _whole(parts: Sequence[Part], note: Note) -> Mesh:
    """The mesh of parts that all have textures."""
    pictures, which = _distinct([_repeated(part, note) for part in parts])
    mesh = _geometry(parts)
    if len(pictures) == 1:
        return mesh.with_(uvs=torch.cat([part.uvs for part in parts if part.uvs is not None]), texture=pictures[0])
    texture, places = _packed(pictures, note)
    uvs = []
    for part, index in zip(parts, which, strict=True):
        tiles, (x, y, width, height) = _tiles(part), places[index]
        assert part.uvs is not None
        inside = (part.uvs - tiles[0]) / (tiles[1] - tiles[0])
        pixels = torch.tensor([x, y]) + inside * torch.tensor([width, height])
        uvs.append(pixels / torch.tensor([texture.shape[1], texture.shape[0]]))
    return mesh.with_(uvs=torch.cat(uvs).float(), texture=texture)


def _tiles(part: Part) -> Tensor:
    """[2,2] the first and the last tile of the plane that the UVs touch, in whole numbers."""
    assert part.uvs is not None
    low = (part.uvs.amin(dim=0) + 1e-5).floor().clamp(max=0)
    return torch.stack([low, torch.maximum((part.uvs.amax(dim=0) - 1e-5).ceil(), low + 1).clamp(min=1)])


def _repeated(part: Part, note: Note) -> Tensor:
    """The part's picture, as often as its UVs repeat it; smaller if it would grow too large."""
    assert part.texture is not None
    first, last = _tiles(part)
    columns, rows = (max(1, int(count)) for count in (last - first).tolist())
    if rows == columns == 1:
        return part.texture
    height, width = part.texture.shape[:2]
    height, width = min(height, max(1, LONGEST_PX // 2 // rows)), min(width, max(1, LONGEST_PX // 2 // columns))
    if (height, width) != part.texture.shape[:2]:
        note(f"a texture that repeats {columns} x {rows} times was made smaller, to {width} x {height} px each")
    return _resized(part.texture, height, width).repeat(rows, columns, 1)[:LONGEST_PX, :LONGEST_PX]


def _resized(picture: Tensor, height: int, width: int) -> Tensor:
    if (height, width) == picture.shape[:2]:
        return picture
    channels = picture.permute(2, 0, 1)[None]
    return F.interpolate(channels, (height, width), mode="area")[0].permute(1, 2, 0)


def _distinct(pictures: Sequence[Tensor]) -> tuple[list[Tensor], list[int]]:
    """The pictures without repetition, and which of them each is."""
    found: dict[str, int] = {}
    kept: list[Tensor] = []
    which = []
    for picture in pictures:
        key = hashlib.sha256(picture.contiguous().numpy().tobytes()).hexdigest() + str(tuple(picture.shape))
        if key not in found:
            found[key] = len(kept)
            kept.append(picture)
        which.append(found[key])
    return kept, which


def _packed(pictures: Sequence[Tensor], note: Note) -> tuple[Tensor, list[tuple[int, int, int, int]]]:
    """One picture with all of them, and where each lies: x, y, width, height."""
    scale = 1.0
    while True:
        sizes = [tuple(max(1, round(side * scale)) for side in picture.shape[:2]) for picture in pictures]
        extents = np.array([(width + 2 * BORDER_PX, height + 2 * BORDER_PX) for height, width in sizes])
        bounds, _ = packing.rectangles(extents, rotate=False, iterations=8, seed=_SEED)
        bounds = np.rint(bounds - bounds.min(axis=(0, 1))).astype(int)
        whole_width, whole_height = bounds[:, 1].max(axis=0)
        if max(whole_width, whole_height) <= LONGEST_PX:
            break
        scale *= 0.9 * LONGEST_PX / max(whole_width, whole_height)
    if scale < 1:
        note(f"its textures were made smaller ({scale:.0%}), because together they are larger than {LONGEST_PX} px")
    sheet = torch.zeros(int(whole_height), int(whole_width), 3)
    places = []
    for picture, (height, width), ((x, y), _) in zip(pictures, sizes, bounds.tolist(), strict=True):
        padded = F.pad(_resized(picture, height, width).permute(2, 0, 1)[None], (BORDER_PX,) * 4, mode="replicate")[0]
        sheet[y : y + padded.shape[1], x : x + padded.shape[2]] = padded.permute(1, 2, 0)
        places.append((x + BORDER_PX, y + BORDER_PX, width, height))
    return sheet, places
