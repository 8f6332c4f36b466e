"""The sparse decoder finds the mesh that the dense one finds, from a few of the points."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache

import fields
import pytest
import torch
import trimesh
from torch import Tensor

from lowvram_core.errors import NumericalFailure
from lowvram_core.geometry import sparse
from lowvram_core.geometry.bricks import Bricks, pooled, spread
from lowvram_core.geometry.fields import Asking, Field
from lowvram_core.geometry.marching import extract, extract_from_bricks
from lowvram_core.geometry.repair import drop_floaters
from lowvram_core.geometry.sparse import lattice_edge, sparse_logits
from lowvram_core.geometry.surface import dense_logits, surface
from lowvram_core.types import Mesh

CPU = torch.device("cpu")


def asking(points_per_chunk: int = 5000, progress: Callable[[int, int], None] = lambda done, total: None) -> Asking:
    return Asking(CPU, CPU, points_per_chunk, torch.float32, progress)


def counting(field: Field) -> tuple[Field, list[int]]:
    """The field, and a list that gets the number of points of every call."""
    calls: list[int] = []

    def counted(points: Tensor) -> Tensor:
        calls.append(len(points))
        return field(points)

    return counted, calls


def assert_same(mesh: Mesh, other: Mesh) -> None:
    assert torch.equal(mesh.faces, other.faces) and torch.equal(mesh.vertices, other.vertices)


def both(field: Field, octree: int, edge: int) -> tuple[sparse.Sparse, Mesh, Mesh]:
    """What the search found, its mesh, and the mesh of all points."""
    found = sparse_logits(field, octree, edge, asking())
    return found, extract_from_bricks(found.bricks), extract(dense_logits(field, octree, asking()), octree)


@cache
def distances(name: str) -> Tensor:
    """Those of all points of the grid. Both kinds of logits are made of them."""
    return dense_logits(fields.ANALYTIC[name], 128, asking())


@pytest.mark.parametrize("rise", [fields.SLOW, fields.STEEP], ids=["slow", "steep"])
@pytest.mark.parametrize("name", fields.ANALYTIC)
def test_the_mesh_is_that_of_all_points(name: str, rise: float) -> None:
    field = fields.logits(fields.ANALYTIC[name], rise)
    mesh = surface(field, 128, asking(), edge=lattice_edge(128, "sparse"))
    dense = extract((distances(name) / rise).clamp(-1, 1), 128)
    if (name, rise) != ("dust", fields.STEEP):
        return assert_same(mesh, dense)
    # Steep logits say nothing of grains between the lattice's points. Those that are lost, Clean Mesh would drop.
    assert 0 < len(dense.faces) - len(mesh.faces) < 200
    kept, kept_dense = (drop_floaters(one.vertices, one.faces) for one in (mesh, dense))
    assert torch.equal(kept[0], kept_dense[0]) and torch.equal(kept[1], kept_dense[1])
    return None


def test_few_points_are_asked() -> None:
    shares = {}
    for octree in (128, 192):
        field, calls = counting(fields.logits(fields.ANALYTIC["sphere"], fields.STEEP))
        found = sparse_logits(field, octree, lattice_edge(octree, "sparse"), asking())
        assert found.asked <= sum(calls) < found.asked + 4 * 5000
        shares[octree] = found.share
    assert shares[128] < 0.2 and shares[192] < 0.08


@pytest.mark.parametrize(("rise", "kind"), [(fields.SLOW, "slow"), (fields.STEEP, "steep")])
def test_the_log_says_which_field_and_how_much(rise: float, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        found = sparse_logits(fields.logits(fields.ANALYTIC["chair"], rise), 96, 4, asking())
    assert found.kind == kind and (found.missable < 0.1) == (kind == "slow")
    assert f"asked {100 * found.share:.1f} % of {97**3} points; {kind} field" in caplog.text


def test_a_ball_between_the_lattices_points_is_not_seen_but_a_finer_lattice_sees_it() -> None:
    """The known limit of a steep field."""
    step = 2.02 / 64

    def field(points: Tensor) -> Tensor:
        body = 0.5 - points.norm(dim=1)
        ball = 0.04 - (points - (points.new_tensor([21.0, 13, 9]) * step - 1.01 + 1.5 * step)).norm(dim=1)
        return (torch.maximum(body, ball) / fields.STEEP).clamp(-1, 1)

    meshes = {}
    for edge in (4, 2):
        found = sparse_logits(field, 64, edge, asking())
        meshes[edge] = extract_from_bricks(found.bricks)
        assert 0 < found.missable < 0.87 * edge
    dense = extract(dense_logits(field, 64, asking()), 64)
    parts = trimesh.Trimesh(dense.vertices.numpy(), dense.faces.numpy()).body_count
    assert parts == 2 and len(meshes[4].faces) < len(dense.faces)
    assert_same(meshes[2], dense)
    # The whole way notices that the ball may be more than a floater of so small a mesh, and looks more closely.
    assert_same(surface(field, 64, asking(), edge=4), dense)


def test_noise_ends_in_asking_every_point() -> None:
    noise = torch.randn(49, 49, 49, generator=torch.Generator().manual_seed(0))

    def field(points: Tensor) -> Tensor:
        return noise[tuple(((points + 1.01) / 2.02 * 48).round().long().T)]

    found, mesh, dense = both(field, 48, 2)
    assert found.share == 1.0 and found.asked == 49**3
    assert_same(mesh, dense)


def test_a_field_without_a_surface_is_an_error() -> None:
    field, calls = counting(lambda points: points.new_full((len(points),), -1.0))
    with pytest.raises(NumericalFailure, match="never crosses"):
        surface(field, 96, asking(), edge=4)
    assert sum(calls) > 97**3  # a lattice cannot know, so all points were asked in the end


def test_nan_is_an_error() -> None:
    with pytest.raises(NumericalFailure, match="NaN or infinity"):
        surface(lambda points: points[:, 0] / 0 * 0, 96, asking(), edge=4)


@pytest.mark.parametrize(
    ("octree", "mode", "edge"),
    [(384, "sparse", 4), (192, "sparse", 4), (128, "sparse", 2), (384, "sparse-fine", 2), (384, "dense", 1),
     (16, "sparse", 1), (48, "sparse", 2), (193, "sparse", 1), (194, "sparse", 2)],
)  # fmt: skip
def test_lattice_edge(octree: int, mode: str, edge: int) -> None:
    assert lattice_edge(octree, mode) == edge


def test_progress_only_grows_and_an_error_in_it_stops_the_work() -> None:
    seen: list[tuple[int, int]] = []
    field = fields.logits(fields.ANALYTIC["gyroid"], fields.STEEP)
    sparse_logits(field, 96, 4, asking(1000, lambda done, total: seen.append((done, total))))
    assert seen == sorted(seen) and {total for _, total in seen} == {1000} and seen[-1][0] <= 1000
    counted, calls = counting(field)

    def cancel(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sparse_logits(counted, 96, 4, asking(1000, cancel))
    assert len(calls) <= 2  # on a GPU a second chunk is queued while the first one computes


def test_a_short_chunk_is_filled_up() -> None:
    """A network rounds differently for another number of points."""
    field, calls = counting(fields.logits(fields.ANALYTIC["slit"], fields.STEEP))
    sparse_logits(field, 64, 2, asking(3000))
    assert set(calls) == {3000}


def test_pooled_and_spread() -> None:
    points = torch.zeros(3, 3, 3, dtype=torch.bool)
    points[1, 1, 1] = True
    assert pooled(points, torch.logical_or).all() and not pooled(points, torch.logical_and).any()
    cells = torch.zeros(2, 2, 2, dtype=torch.bool)
    cells[0, 1, 0] = True
    corners = spread(cells)
    assert corners.shape == (3, 3, 3) and corners.sum() == 8 and corners[:2, 1:, :2].all()


def test_patches_and_planes_are_the_values_that_were_put() -> None:
    torch.manual_seed(0)
    grid = torch.randn(13, 13, 13)
    bricks = Bricks(grid[::4, ::4, ::4].clone(), 4)
    points = torch.tensor([[5, 6, 7], [8, 8, 8], [12, 0, 3], [4, 4, 5]])
    bricks.want(points)
    assert bricks.wanted() == 3  # (8, 8, 8) is of the lattice
    for addresses in bricks.each_wanted():
        at = bricks.points_at(addresses)
        bricks.put(addresses, grid[tuple(at.T)])
    assert bricks.wanted() == 0
    assert torch.equal(bricks.at(points), grid[tuple(points.T)])
    corner = bricks.cell_bricks()
    for brick, patch in zip(bricks.corners(corner).tolist(), bricks.patches(corner), strict=True):
        part = grid[tuple(slice(one, one + 5) for one in brick)]
        known = ~patch.isnan()
        assert known[::4, ::4, ::4].all() and torch.equal(patch[known], part[known])
    planes = bricks.planes(4, 8)
    assert planes.shape == (5, 13, 13)
    assert torch.equal(planes[~planes.isnan()], grid[4:9][~planes.isnan()]) and planes[1, 6, 7] == grid[5, 6, 7]
    bricks.want_all()
    for addresses in bricks.each_wanted():
        bricks.put(addresses, grid[tuple(bricks.points_at(addresses).T)])
    assert torch.equal(bricks.planes(0, 12), grid)
