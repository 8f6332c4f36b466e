"""Makes a raw surface fit for unwrapping: floaters off, few faces, manifold."""

from __future__ import annotations

import logging

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from ..checks.meshes import check_mesh, edge_face_counts
from ..errors import MissingDependency, NumericalFailure
from ..geometry.weld import weld
from ..host import Host
from ..presets import Preset
from ..types import Mesh

log = logging.getLogger(__name__)

FLOATER_SHARE = 0.005
"""Parts with fewer faces than this share of the largest part's are floaters; upstream's FloaterRemover."""
_GENTLE, _FIRM = 5.0, 7.0
"""fast_simplification's aggressiveness: the gentle one keeps the shape better, the firm one always arrives."""


def clean(mesh: Mesh, preset: Preset, host: Host, *, remove_floaters: bool = True) -> Mesh:
    """A welded, manifold mesh of at most `preset.face_budget` faces; UVs and texture are dropped.

    A clean closed mesh stays closed and keeps its genus. One that is inside out is turned: no view could paint it.

    Args:
        remove_floaters: also drops parts with under FLOATER_SHARE of the largest part's faces.

    Raises:
        BadInput: the mesh is empty or broken.
        NumericalFailure: nothing but degenerate faces.
    """
    check_mesh(mesh, "clean")
    with host.phase("clean"):
        vertices, faces = mesh.vertices.detach().cpu().float(), mesh.faces.cpu().long()
        host.progress(0, 4)
        vertices, faces = weld_mesh(vertices, faces)
        if remove_floaters:
            vertices, faces = _compact(vertices, drop_floaters(vertices, faces))
        host.progress(1, 4)
        faces = face_outwards(vertices, faces)
        vertices, faces = decimate(vertices, faces, preset.face_budget)
        host.progress(2, 4)
        vertices, faces = weld_mesh(vertices, faces)
        host.progress(3, 4)
        vertices, faces = split_non_manifold(vertices, faces)
        host.progress(4, 4)
    log.info("clean: %d -> %d faces, %d vertices", len(mesh.faces), len(faces), len(vertices))
    return Mesh(vertices, faces)


def weld_mesh(vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """[W,3], [G,3]: one vertex a position, no degenerate or repeated faces, no loose vertices.

    Raises:
        NumericalFailure: no face is left.
    """
    first, group = weld(vertices)
    vertices, faces = vertices[first], group[faces]
    a, b, c = faces.unbind(dim=1)
    faces = faces[(a != b) & (b != c) & (c != a)]
    faces = _drop_repeated(faces)
    faces = _drop_slivers(vertices, faces)
    if not len(faces):
        raise NumericalFailure("clean: every face is degenerate; wanted a surface. Check the step that made the mesh.")
    return _compact(vertices, faces)


def drop_floaters(vertices: Tensor, faces: Tensor) -> Tensor:
    """[G,3] faces of the parts that are not small; parts are joined where they share a vertex."""
    pairs = faces[:, [0, 1, 1, 2]].reshape(-1, 2)
    part = _components(pairs, len(vertices))[faces[:, 0]]
    sizes = torch.bincount(part)
    return faces[(sizes >= FLOATER_SHARE * sizes.max())[part]]


def face_outwards(vertices: Tensor, faces: Tensor) -> Tensor:
    """[F,3] faces, all turned round if the mesh is closed and holds a negative volume; cavities stay cavities."""
    if bool((edge_face_counts(faces)[1] == 1).any()):
        return faces
    points = vertices.double() - vertices.double().mean(dim=0)
    a, b, c = points[faces].unbind(dim=1)
    volume = (a * torch.cross(b, c, dim=1)).sum()
    return faces.flip(1) if float(volume) < 0 else faces


def decimate(vertices: Tensor, faces: Tensor, budget: int) -> tuple[Tensor, Tensor]:
    """[W,3], [G,3] of at most `budget` faces by quadric edge collapse; unchanged where it has no more already.

    Raises:
        MissingDependency: fast_simplification is not installed.
    """
    if len(faces) <= budget:
        return vertices, faces
    try:
        from fast_simplification import simplify
    except ImportError as error:
        raise MissingDependency(
            "clean: the package fast-simplification is not installed; it is wanted to lower the number of faces. "
            "Install it (pip install fast-simplification)."
        ) from error
    low, high = vertices.amin(dim=0), vertices.amax(dim=0)
    # Its error threshold is absolute, so the mesh is brought to a common size.
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


def split_non_manifold(vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """[W,3], [F,3] with vertices doubled so that no edge is shared by more than two faces.

    Faces stay joined across edges that two faces share; at each vertex every fan of faces so joined gets a copy.
    A mesh without such edges is handed back as it is.
    """
    _, counts, half_edge = edge_face_counts(faces)
    if int(counts.max()) <= 2:
        return vertices, faces
    order = torch.argsort(half_edge, stable=True)
    manifold = (counts[half_edge[order]] == 2).nonzero().squeeze(1)
    first, second = order[manifold[0::2]], order[manifold[1::2]]
    corner = _fans(faces, first, second)
    vertices, faces = vertices[_one_of_each(corner, faces.flatten())], corner.view(-1, 3)
    return _detach_stubborn(vertices, faces)


def _fans(faces: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """[3F] the fan of each corner, joining faces across pairs of half-edges ([N], [N]) that are one edge."""
    start, stop = faces.flatten(), faces.roll(-1, dims=1).flatten()
    following = torch.arange(3 * len(faces)).view(-1, 3).roll(-1, dims=1).flatten()
    same_way = start[first] == start[second]
    at_start = torch.where(same_way, second, following[second])
    at_stop = torch.where(same_way, following[second], second)
    assert bool((start[at_start] == start[first]).all()) and bool((start[at_stop] == stop[first]).all())
    pairs = torch.cat([torch.stack([first, at_start], 1), torch.stack([following[first], at_stop], 1)])
    return _components(pairs, 3 * len(faces))


def _detach_stubborn(vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """Gives the third and further faces of an edge vertices of their own, where fans alone did not part them."""
    _, counts, half_edge = edge_face_counts(faces)
    order = torch.argsort(half_edge, stable=True)
    starts = counts.cumsum(0) - counts
    nth = torch.empty_like(order)
    nth[order] = torch.arange(len(order)) - starts[half_edge[order]]
    apart = (nth.view(-1, 3) >= 2).any(dim=1)
    if not bool(apart.any()):
        return vertices, faces
    faces = faces.clone()
    added = vertices[faces[apart].flatten()]
    faces[apart] = torch.arange(len(vertices), len(vertices) + len(added)).view(-1, 3)
    return _compact(torch.cat([vertices, added]), faces)


def _drop_repeated(faces: Tensor) -> Tensor:
    """[G,3] faces without those that name the same three vertices as an earlier one, in any order."""
    ordered = faces.sort(dim=1).values.numpy()
    order = np.lexsort(ordered.T[::-1])
    repeated = np.zeros(len(faces), dtype=bool)
    repeated[order[1:]] = (ordered[order[1:]] == ordered[order[:-1]]).all(axis=1)
    return faces[torch.from_numpy(~repeated)]


def _drop_slivers(vertices: Tensor, faces: Tensor) -> Tensor:
    """[G,3] faces without those of no area at a border; inside a surface they hold it together."""
    if not len(faces):
        return faces
    a, b, c = vertices[faces].double().unbind(dim=1)
    flat = (torch.cross(b - a, c - a, dim=1) == 0).all(dim=1)
    if not bool(flat.any()):
        return faces
    _, counts, half_edge = edge_face_counts(faces)
    border = (counts[half_edge].view(-1, 3) == 1).any(dim=1)
    return faces[~(flat & border)]


def _compact(vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """The vertices that faces use, in their order, and the faces renumbered."""
    used = torch.zeros(len(vertices), dtype=torch.bool)
    used[faces.flatten()] = True
    number = used.cumsum(0) - 1
    return vertices[used], number[faces]


def _components(pairs: Tensor, count: int) -> Tensor:
    """[count] the connected component of each node, joined by [N,2] pairs."""
    rows, columns = pairs.numpy().T
    graph = coo_matrix((np.ones(len(pairs), dtype=np.int8), (rows, columns)), shape=(count, count))
    return torch.from_numpy(connected_components(graph, directed=False)[1].astype(np.int64))


def _one_of_each(group: Tensor, values: Tensor) -> Tensor:
    """[G] the value of one member of each group; members of a group agree."""
    result = torch.empty(int(group.max()) + 1, dtype=values.dtype)
    result[group] = values
    return result
