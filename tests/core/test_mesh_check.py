"""Meshes that cannot be used are refused with what was met, what is wanted and what to do."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from meshes import cube, fin, torus

from lowvram_core.checks.meshes import check_mesh, edge_face_counts
from lowvram_core.errors import BadInput
from lowvram_core.render.cameras import to_rig
from lowvram_core.types import Mesh

STYLE = re.compile(r"^paint: [^;]+; .*wanted.*\. .+\.$", re.DOTALL)


def _vertex(mesh: Mesh, value: float) -> Mesh:
    vertices = mesh.vertices.clone()
    vertices[3, 1] = value
    return mesh.with_(vertices=vertices)


def _face(mesh: Mesh, value: int) -> Mesh:
    faces = mesh.faces.clone()
    faces[2, 0] = value
    return mesh.with_(faces=faces)


BROKEN: dict[str, Callable[[Mesh], Mesh]] = {
    "no faces": lambda mesh: mesh.with_(faces=mesh.faces[:0]),
    "no vertices": lambda mesh: mesh.with_(vertices=mesh.vertices[:0]),
    "face too high": lambda mesh: _face(mesh, 8),
    "face negative": lambda mesh: _face(mesh, -1),
    "NaN": lambda mesh: _vertex(mesh, float("nan")),
    "infinite": lambda mesh: _vertex(mesh, float("inf")),
    "no size": lambda mesh: mesh.with_(vertices=torch.ones(8, 3)),
    "too large": lambda mesh: mesh.with_(vertices=mesh.vertices * 1e35),
    "too large to measure": lambda mesh: mesh.with_(vertices=mesh.vertices * 1e19),
    "too small to measure": lambda mesh: mesh.with_(vertices=mesh.vertices * 1e-20),
    "flat vertices": lambda mesh: mesh.with_(vertices=mesh.vertices.flatten()),
    "2D vertices": lambda mesh: mesh.with_(vertices=mesh.vertices[:, :2]),
    "whole number vertices": lambda mesh: mesh.with_(vertices=mesh.vertices.int()),
    "quads": lambda mesh: mesh.with_(faces=mesh.faces.view(-1, 4)),
    "float faces": lambda mesh: mesh.with_(faces=mesh.faces.float()),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_meshes_are_refused(kind: str) -> None:
    with pytest.raises(BadInput, match=STYLE):
        check_mesh(BROKEN[kind](cube()), "paint")


def test_sound_meshes_pass() -> None:
    check_mesh(cube(), "paint", manifold=True)
    check_mesh(torus().with_(uvs=torch.rand(len(torus().vertices), 2)), "paint", needs_uvs=True, manifold=True)
    check_mesh(cube().with_(faces=cube().faces.int()), "paint")


@pytest.mark.parametrize(
    "uvs",
    [
        None, torch.zeros(7, 2), torch.zeros(8, 3), torch.full((8, 2), torch.nan), torch.full((8, 2), 1.5),
        -torch.ones(8, 2),
    ],
    ids=["none", "too few", "three numbers", "NaN", "above 1", "below 0"],
)  # fmt: skip
def test_bad_uvs_are_refused_where_they_are_needed(uvs: torch.Tensor | None) -> None:
    mesh = cube().with_(uvs=uvs)
    check_mesh(mesh, "paint")
    with pytest.raises(BadInput, match=STYLE):
        check_mesh(mesh, "paint", needs_uvs=True)


def test_non_manifold_meshes_are_sent_to_clean() -> None:
    check_mesh(fin(), "paint")
    with pytest.raises(BadInput, match=r"^paint: 1 edges are shared by more than two faces; .* Run Clean first\.$"):
        check_mesh(fin(), "paint", manifold=True)


def test_edges_of_a_cube() -> None:
    faces = cube().faces
    counts, half_edge = edge_face_counts(faces)
    assert counts.tolist() == [2] * 18 and half_edge.shape == (36,)
    ends = torch.stack([faces, faces.roll(-1, dims=1)], dim=-1).view(-1, 2).sort(dim=1).values.tolist()
    edges: dict[int, set[tuple[int, ...]]] = {}
    for edge, pair in zip(half_edge.tolist(), ends, strict=True):
        edges.setdefault(edge, set()).add(tuple(pair))
    assert all(len(pairs) == 1 for pairs in edges.values()), "the half-edges of an edge have the same two ends"
    assert len(set.union(*edges.values())) == 18


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_narrow_face_indices_do_not_overflow(dtype: torch.dtype) -> None:
    edge = 12 if dtype == torch.uint8 else 170 if dtype == torch.int16 else 450
    row, column = torch.meshgrid(torch.arange(edge), torch.arange(edge), indexing="ij")
    corner = (row[:-1, :-1] * edge + column[:-1, :-1]).flatten()
    faces = torch.cat([torch.stack([corner, corner + 1, corner + edge], 1),
                       torch.stack([corner + 1, corner + edge + 1, corner + edge], 1)])  # fmt: skip
    shuffled = torch.randperm(edge**2, generator=torch.Generator().manual_seed(0))[faces]
    counts, half_edge = edge_face_counts(shuffled.to(dtype))
    wanted_counts, wanted_half_edge = edge_face_counts(shuffled)
    assert torch.equal(half_edge, wanted_half_edge) and torch.equal(counts, wanted_counts) and int(counts.max()) == 2


@pytest.mark.parametrize("scale", [1e-16, 1e17])
def test_what_passes_can_stand_on_the_rig(scale: float) -> None:
    mesh = cube().with_(vertices=cube().vertices * scale)
    check_mesh(mesh, "paint")
    assert float((to_rig(mesh.vertices) - to_rig(cube().vertices)).abs().max()) < 1e-5
