"""Raw surfaces become fit for unwrapping, and clean ones stay what they are."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest
import torch
import trimesh
from hosts import RecordingHost
from meshes import blob, cube, fin, join, small_preset, to_mesh, to_trimesh, torus

from lowvram_core.checks.meshes import check_mesh, edge_face_counts
from lowvram_core.errors import BadInput, Cancelled, NumericalFailure
from lowvram_core.geometry.decimate import decimate
from lowvram_core.geometry.repair import split_non_manifold
from lowvram_core.stages.clean import clean
from lowvram_core.types import Mesh

PRESET = small_preset()


def test_clean_mesh_is_left_alone() -> None:
    mesh, host = torus(), RecordingHost()
    result = clean(mesh, PRESET, host)
    assert torch.equal(result.vertices, mesh.vertices) and torch.equal(result.faces, mesh.faces)
    assert host.finished == ["clean"]


@pytest.mark.parametrize("longest_side", [0.001, 1.0, 100.0])
def test_a_mesh_is_centred_and_scaled(longest_side: float) -> None:
    """Without a change of its form; 0 changes nothing, as the test above shows."""
    mesh = torus()
    away = mesh.with_(vertices=mesh.vertices * torch.tensor([3.0, 1.0, 1.0]) + 5)
    result = clean(away, PRESET, RecordingHost(), longest_side=longest_side)
    low, high = result.vertices.amin(dim=0), result.vertices.amax(dim=0)
    assert torch.allclose(high, -low, atol=1e-4 * longest_side) and float((high - low).max()) == pytest.approx(
        longest_side, rel=1e-4
    )
    given = away.vertices.amax(dim=0) - away.vertices.amin(dim=0)
    assert torch.allclose((high - low) / longest_side, given / given.max(), atol=1e-4)


@pytest.mark.parametrize("budget", [4000, 1000, 300])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_torus_stays_a_torus(budget: int, scale: float) -> None:
    mesh = torus(120, 60, 0.1)
    mesh = mesh.with_(vertices=mesh.vertices * scale)
    result = clean(mesh, small_preset(face_budget=budget), RecordingHost())
    before, after = to_trimesh(mesh), to_trimesh(result)
    assert budget * 0.9 <= len(result.faces) <= budget
    assert after.is_watertight and after.is_winding_consistent and after.euler_number == 0
    assert after.volume == pytest.approx(before.volume, rel=0.03)
    check_mesh(result, "test", manifold=True)


def fans(radius: float, height: float, sections: int = 5000, *, closed: bool = True) -> Mesh:
    """A cylinder of thin triangles. fast_simplification refuses to merge them."""
    shape = trimesh.creation.cylinder(radius=radius, height=height, sections=sections)
    if not closed:
        shape.update_faces(np.abs(shape.face_normals[:, 2]) < 0.9)
        shape.remove_unreferenced_vertices()
    return to_mesh(shape)


def sheet(*, jagged: bool = False, wavy: bool = False) -> Mesh:
    """An open sheet of up to 20,000 faces; jagged: a disc cut out of it."""
    across = np.linspace(-1, 1, 101)
    x, y = (grid.ravel() for grid in np.meshgrid(across, across))
    corner = (np.arange(100)[:, None] * 101 + np.arange(100)).ravel()
    faces = np.concatenate([corner[:, None] + [0, 1, 102], corner[:, None] + [0, 102, 101]])
    z = 0.1 * np.sin(6 * x) * np.cos(5 * y) if wavy else np.zeros_like(x)
    shape = trimesh.Trimesh(np.stack([x, y, z], 1), faces, process=False)
    if jagged:
        shape.update_faces(np.hypot(*shape.triangles_center[:, :2].T) < 0.9)
        shape.remove_unreferenced_vertices()
    return to_mesh(shape)


HARD = {
    "cylinder": (fans(0.02, 2), 2000), "coin": (fans(1, 0.05), 2000), "tube": (fans(0.02, 2, closed=False), 2000),
    "ring": (fans(1, 0.05, closed=False), 500), "sheet": (sheet(), 100), "disc": (sheet(jagged=True), 200),
    "wavy sheet": (sheet(wavy=True), 500),
}  # fmt: skip


@pytest.mark.parametrize("name", HARD)
def test_the_budget_holds_and_the_outline_stays(name: str) -> None:
    pytest.importorskip("igl", reason="libigl has no wheel for this machine")
    mesh, budget = HARD[name]
    host = RecordingHost()
    result = clean(mesh, small_preset(face_budget=budget), host)
    before, after = to_trimesh(mesh), to_trimesh(result)
    assert budget * 0.9 <= len(result.faces) <= budget
    assert after.area == pytest.approx(before.area, rel=0.01)
    assert after.is_watertight == before.is_watertight and after.euler_number == before.euler_number
    np.testing.assert_allclose(after.bounds, before.bounds, atol=0.01)
    assert host.notes == []


def test_without_libigl_a_note_says_what_could_not_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "igl", None)
    host = RecordingHost()
    assert len(clean(fans(1, 0.05), small_preset(face_budget=2000), host).faces) == 20_000
    (note,) = host.notes
    assert note.startswith("clean: 20,000 faces are left; wanted at most 2,000.") and "pip install libigl" in note


def test_a_budget_far_too_small_for_the_shape_is_noted() -> None:
    host, rough = RecordingHost(), blob(4)
    rough = rough.with_(
        vertices=rough.vertices
        * (1 + 0.1 * torch.rand(len(rough.vertices), 1, generator=torch.Generator().manual_seed(0)))
    )
    assert len(clean(rough, small_preset(face_budget=100), host).faces) <= 100
    (note,) = host.notes
    assert re.match(r"clean: with (99|100) faces the area of the mesh changed by -\d+\.\d%\. Raise", note)


def test_under_the_budget_nothing_is_decimated() -> None:
    mesh = cube()
    vertices, faces = decimate(mesh.vertices, mesh.faces, 12)
    assert vertices is mesh.vertices and faces is mesh.faces


def moved(mesh: Mesh, size: float, place: float = 3) -> Mesh:
    return mesh.with_(vertices=mesh.vertices * size + place)


def test_floaters_go_and_parts_stay() -> None:
    body, part, floater = blob(4), moved(blob(2), 0.2), moved(blob(3), 0.05, -3)
    scene, host = join(floater, body, part), RecordingHost()
    kept = clean(scene, PRESET, host)
    assert len(kept.faces) == len(body.faces) + len(part.faces)
    assert len(kept.vertices) == len(body.vertices) + len(part.vertices)
    assert host.notes == ["clean: removed small loose parts: 1. To keep such parts, turn remove_floaters off."]
    everything = clean(scene, PRESET, RecordingHost(), remove_floaters=False)
    assert len(everything.faces) == len(scene.faces)


@pytest.mark.parametrize("size", [0.15, 0.3])
def test_a_part_is_judged_by_its_size_not_by_its_faces(size: float) -> None:
    """A box of 12 faces stays beside a ball of 5,120 and radius 0.3; a box of a hundredth of the ball does not."""
    ball, host = moved(to_mesh(trimesh.creation.icosphere(4, radius=0.3)), 1, 0), RecordingHost()
    kept = clean(join(ball, moved(cube(), size, 1)), PRESET, host)
    assert len(kept.faces) == 5120 + 12 and host.notes == []
    dust = moved(to_mesh(trimesh.creation.icosphere(4, radius=0.3)), 0.02, 1)
    assert len(clean(join(ball, dust), PRESET, host).faces) == 5120, "as many faces as the ball"


def test_a_thin_long_part_stays() -> None:
    body, aerial = blob(4), to_mesh(trimesh.creation.cylinder(radius=0.002, height=1.2, sections=6))
    assert len(clean(join(body, moved(aerial, 1, 2)), PRESET, RecordingHost()).faces) == len(body.faces) + len(
        aerial.faces
    )


def test_one_part_survives_however_small() -> None:
    assert len(clean(cube(), PRESET, RecordingHost()).faces) == 12


def test_loose_triangles_are_welded() -> None:
    mesh = torus()
    loose = Mesh(mesh.vertices[mesh.faces.flatten()], torch.arange(3 * len(mesh.faces)).view(-1, 3))
    result = clean(loose, PRESET, RecordingHost())
    assert len(result.vertices) == len(mesh.vertices)
    assert to_trimesh(result).is_watertight and to_trimesh(result).euler_number == 0


def test_degenerate_repeated_and_loose_things_go() -> None:
    mesh = cube()
    more = torch.tensor([[0, 0, 1], [2, 2, 2], mesh.faces[0].roll(1).tolist(), mesh.faces[1].flip(0).tolist()])
    messy = mesh.with_(
        vertices=torch.cat([mesh.vertices, torch.tensor([[9.0, 9, 9]])]), faces=torch.cat([more, mesh.faces])
    )
    result = clean(messy, PRESET, RecordingHost())
    assert len(result.faces) == 12 and len(result.vertices) == 8


def test_needles_go_at_a_border_and_stay_inside() -> None:
    points = torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [1, 1, 0], [1, -1, 0]])
    needle, above, left, right = [0, 1, 2], [0, 2, 3], [0, 4, 1], [1, 4, 2]
    inside = Mesh(points, torch.tensor([needle, above, left, right]))
    assert len(clean(inside, PRESET, RecordingHost()).faces) == 4
    border = Mesh(points, torch.tensor([needle, above]))
    assert clean(border, PRESET, RecordingHost()).faces.shape == (1, 3)


def test_inside_out_mesh_is_turned_and_cavities_stay() -> None:
    mesh = torus()
    turned = clean(mesh.with_(faces=mesh.faces.flip(1)), PRESET, RecordingHost())
    assert to_trimesh(turned).volume == pytest.approx(to_trimesh(mesh).volume, rel=1e-6) and turned.faces.shape[0] > 0
    hollow = join(blob(2), blob(2).with_(vertices=blob(2).vertices * 0.5, faces=blob(2).faces.flip(1)))
    assert torch.equal(clean(hollow, PRESET, RecordingHost()).faces, hollow.faces)
    sheet = Mesh(torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 1]]), torch.tensor([[2, 1, 0]]))
    assert clean(sheet, PRESET, RecordingHost()).faces.tolist() == [[0, 1, 2]], "it faces the front camera"


def test_fin_is_cut_off_the_cube() -> None:
    result = clean(fin(), PRESET, RecordingHost())
    check_mesh(result, "test", manifold=True)
    assert len(result.faces) == 13 and len(result.vertices) == 11


def test_cubes_that_share_an_edge_part_and_stay_closed() -> None:
    twin = join(cube(), cube().with_(vertices=cube().vertices + torch.tensor([1.0, 1.0, 0.0])))
    result = clean(twin, PRESET, RecordingHost())
    assert len(result.faces) == 24 and len(result.vertices) == 16
    assert all(part.is_watertight for part in to_trimesh(result).split())


def test_fans_that_cannot_be_told_apart_are_still_parted() -> None:
    """Three sheets between the same two edges' ends, joined elsewhere around both vertices."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        faces = torch.stack([torch.randperm(7, generator=generator)[:3] for _ in range(40)])
        vertices = torch.rand(7, 3, generator=generator)
        result_vertices, result_faces = split_non_manifold(vertices, faces)
        assert int(edge_face_counts(result_faces)[0].max()) <= 2
        assert torch.equal(result_vertices[result_faces], vertices[faces])


def test_broken_meshes_are_refused_before_the_step() -> None:
    host = RecordingHost()
    with pytest.raises(BadInput, match=r"^clean: "):
        clean(cube().with_(faces=cube().faces[:0]), PRESET, host)
    assert host.phases == []


def test_nothing_but_needles_is_a_failure() -> None:
    line = Mesh(torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]]), torch.tensor([[0, 1, 2], [0, 0, 1]]))
    with pytest.raises(NumericalFailure, match=r"^clean: every face is degenerate"):
        clean(line, PRESET, RecordingHost())


def test_cancel_gets_through() -> None:
    host = RecordingHost(cancel_after=1)
    with pytest.raises(Cancelled):
        clean(torus(), PRESET, host)
    assert host.finished == [] and host.current is None
