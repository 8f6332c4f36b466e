"""Colours for the parts that no view saw: they spread over the surface, from chart to chart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy.spatial import cKDTree
from torch import Tensor

from ..geometry.weld import weld
from .pyramid import pull_push
from .rasterize import interpolate_at
from .scene import Scene
from .subdivide import subdivide
from .surface_graph import Graph
from .texels import Layout

Progress = Callable[[int, int], None]
_FACE_SHARE = 1 / 128
"""A face with holes is cut until its edges are at most this share of the texture long."""
_SHORTEST_TEXELS = 8.0
_NEIGHBOURS = 4
"""A part without any seen vertex takes the colours of so many seen vertices nearest to it."""


@dataclass(frozen=True)
class Patch:
    """The faces that have holes, cut into small ones, and all others. On the CPU."""

    points: Tensor
    """[V,3] float32 positions on the rig."""
    uvs: Tensor
    """[V,2] float32."""
    faces: Tensor
    """[F,3] int64."""
    holed: Tensor
    """[F] bool."""


def fill_holes(scene: Scene, texture: Tensor, seen: Tensor, progress: Progress) -> Tensor:
    """[T,T,3] float32 the texture with a colour everywhere; texels that were seen keep theirs. In RAM.

    1. Faces with holes are cut into faces of a few texels.
    2. Vertices in the seen part take its colours; the others get those of the smoothest surface between them. Vertices
       at the same position count as one, so colour crosses the seams of the UVs.
    3. Holes take the colours of the vertices, plus the difference that the seen texels around them have to theirs.
    4. The gaps between the charts take the colours of the charts around.

    Args:
        texture: [T,T,3] float32 in RAM.
        seen: [T,T] bool in RAM.
        progress: called with (done, total); an error that it raises stops the work.

    Memory: about 80 T^2 bytes of RAM; on the device see stages/inpaint.py.
    Source: the idea of step 2 is that of hy3dgen texgen/differentiable_renderer/mesh_processor.py. What differs:
    vertices are welded, the surface is finer, and the colours are those of a membrane.
    """
    size = len(seen)
    progress(0, 4)
    inside, holed = _faces_with_holes(scene, seen)
    progress(1, 4)
    known = seen.clone()
    result = texture.clone()
    if bool(holed.any()):
        limit = max(_FACE_SHARE * size, _SHORTEST_TEXELS) / (size - 1)
        patch = Patch(*subdivide(scene.rig, scene.uvs.cpu(), scene.faces.long().cpu(), holed, limit))
        colours = vertex_colours(patch, texture, seen, scene.device)
        progress(2, 4)
        known |= _paint(result, patch, colours, seen, inside, scene.device)
    progress(3, 4)
    pull_push(result, known.float(), scene.device)
    progress(4, 4)
    return torch.where(seen.unsqueeze(-1), texture, result.clamp_(0, 1))


def _faces_with_holes(scene: Scene, seen: Tensor) -> tuple[Tensor, Tensor]:
    """[T,T] bool texels inside charts, [F] bool faces with a texel that was not seen; in RAM."""
    inside = torch.zeros_like(seen)
    holed = torch.zeros(len(scene.faces) + 1, dtype=torch.bool)  # the last one is "no face"
    for place, numbers in Layout(scene.uvs, scene.faces, len(seen)).numbers():
        face = numbers.cpu()
        inside.view(-1)[place] = face < len(scene.faces)
        holed[face[~seen.view(-1)[place]]] = True
    return inside, holed[:-1]


def vertex_colours(patch: Patch, texture: Tensor, seen: Tensor, device: torch.device) -> Tensor:
    """[V,3] float32 a colour for each vertex, in RAM; from a texture [T,T,3] and the mask [T,T] of its seen texels."""
    size = len(seen)
    columns, rows = (patch.uvs * (size - 1)).round().long().clamp(0, size - 1).unbind(dim=1)
    known = seen[rows, columns]
    first, group = weld(patch.points)
    total = torch.zeros(len(first), 4)
    total.index_add_(0, group[known], torch.cat([texture[rows, columns], torch.ones(len(rows), 1)], dim=1)[known])
    has = total[:, 3] > 0
    colours = total[:, :3] / total[:, 3:].clamp(min=1)
    if bool(has.all()):
        return colours[group]
    if not bool(has.any()):  # only texels between the vertices were seen
        return texture[seen].mean(dim=0).expand(len(group), 3).clone()
    points = patch.points[first]
    colours[~has] = _nearest(points[has], colours[has], points[~has])
    faces = group[patch.faces]
    graph = Graph(points, faces[~has[faces].all(dim=1)])
    graph.relax(colours, has, device)
    return colours[group]


def _nearest(points: Tensor, colours: Tensor, wanted: Tensor) -> Tensor:
    """[M,3] mean colour of the nearest of the points [N,3] with colours [N,3], weighted by 1/d^2, at `wanted` [M,3]."""
    count = min(_NEIGHBOURS, len(points))
    distance, index = cKDTree(points.numpy()).query(wanted.numpy(), k=list(range(1, count + 1)))
    weight = 1 / torch.from_numpy(distance).float().square().clamp(min=1e-12)
    return (colours[torch.from_numpy(index)] * weight.unsqueeze(2)).sum(dim=1) / weight.sum(dim=1, keepdim=True)


def _paint(
    texture: Tensor, patch: Patch, colours: Tensor, seen: Tensor, inside: Tensor, device: torch.device
) -> Tensor:
    """[T,T] bool: the holes of the texture [T,T,3] in the cut faces, now filled with their vertices' colours [V,3].

    Args:
        inside: [T,T] bool texels inside faces. Of the others, those beside a chart are filled, too.

    The colours of the vertices alone would leave a step at the edge of a hole. The difference between the seen texels
    and the vertices' colours is known on one side of the edge. It continues into the hole for about the size of a face.
    """
    base, weights = _base(patch, colours, inside, device)
    here = weights > 0
    known = here & seen
    rest = (texture - base).mul_(known.unsqueeze(-1))
    weights.masked_fill_(known, 1)
    if bool(known.any()):
        pull_push(rest, weights, device)
    hole = here & ~seen
    texture.copy_(torch.where(hole.unsqueeze(-1), rest.add_(base), texture))
    return hole


def _base(patch: Patch, colours: Tensor, inside: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """[T,T,3] colours of the vertices [V,3] interpolated over the cut faces, [T,T] 1 / texels of the face, else 0."""
    size = len(inside)
    base, weights = torch.zeros(size, size, 3), torch.zeros(size, size)
    faces = patch.faces[patch.holed].to(device)
    layout, values = Layout(patch.uvs.to(device), faces, size), colours.to(device)
    a, b, c = layout.corners.unbind(dim=1)
    texels = ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]).abs().mul_(0.5).clamp_(min=1)
    texels = torch.cat([texels, texels.mean(dim=0, keepdim=True)])  # the last is for the face -1: beside a chart
    for band in layout.bands():
        index = band.index.cpu()
        kept = (band.face.cpu() >= 0) | ~inside.view(-1)[index]
        index = index[kept]
        base.view(-1, 3)[index] = interpolate_at(values, band.corners, band.weights).cpu()[kept]
        weights.view(-1)[index] = (1 / texels[band.face]).cpu()[kept]
    return base, weights
