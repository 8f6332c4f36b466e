"""Holes in the texture. The comparison with upstream is in test_texture_exact.py."""

from __future__ import annotations

import pytest
import torch
from hosts import RecordingHost
from meshes import blob, cube, join, picture_views, small_preset, texel_places, torus

from lowvram_core.checks.meshes import unique_edges
from lowvram_core.errors import BadInput, Cancelled
from lowvram_core.render.fill import Patch, vertex_colours
from lowvram_core.render.surface_graph import _System
from lowvram_core.stages.bake import bake
from lowvram_core.stages.inpaint import inpaint
from lowvram_core.stages.unwrap import unwrap
from lowvram_core.types import Atlas, Camera, Mesh

PRESET = small_preset(texture_px=128)
SIZE = 128


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    """A torus with UVs."""
    return unwrap(torus(32, 16), PRESET, RecordingHost())


@pytest.fixture(scope="module")
def atlas(mesh: Mesh) -> Atlas:
    """Seen from the front alone."""
    return bake(mesh, picture_views(mesh, (Camera(0, 0),), 128), PRESET, RecordingHost())


def test_everything_is_filled_and_what_was_seen_is_kept(mesh: Mesh, atlas: Atlas) -> None:
    host = RecordingHost()
    result = inpaint(mesh, atlas, host)
    assert result.texture is not None and result.texture.dtype == torch.float32
    assert result.vertices is mesh.vertices and result.uvs is mesh.uvs
    assert torch.equal(result.texture[atlas.seen], atlas.texture[atlas.seen])
    # The solid's colours are 0.1 to 0.9: no black gap is left, and none bleeds into a chart.
    assert float(result.texture.min()) >= 0.05 and float(result.texture.max()) <= 0.95
    assert host.finished == ["inpaint"] and host.reports[0][1:] == (0, 4) and len(host.reports) > 3


def test_one_colour_spreads_everywhere(mesh: Mesh, atlas: Atlas) -> None:
    colour = torch.tensor([0.2, 0.4, 0.8])
    one = Atlas(torch.where(atlas.seen.unsqueeze(-1), colour, torch.zeros(3)), atlas.seen)
    texture = inpaint(mesh, one, RecordingHost()).texture
    assert texture is not None and (texture - colour).abs().max() <= 1.5 / 255


def test_colour_crosses_the_seams(mesh: Mesh) -> None:
    """Half the torus is red, half blue: holes take the colour of their own half, whichever chart they are in."""
    side, inside = texel_places(mesh, SIZE)  # the rig's x is the mesh's, mirrored, and smaller
    red = side[..., 0] > 0
    colours = torch.where(red.unsqueeze(-1), torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 0, 1]))
    seen = inside & (torch.rand(SIZE, SIZE, generator=torch.Generator().manual_seed(0)) < 0.08)
    texture = inpaint(mesh, Atlas(colours * seen.unsqueeze(-1), seen), RecordingHost()).texture
    assert texture is not None
    far = inside & (side[..., 0].abs() > 0.16)
    assert ((texture[..., 0] > 0.5) == red)[far].float().mean() > 0.98


def test_fully_seen_is_unchanged(mesh: Mesh) -> None:
    full = Atlas(torch.rand(SIZE, SIZE, 3), torch.ones(SIZE, SIZE, dtype=torch.bool))
    result = inpaint(mesh, full, RecordingHost())
    assert result.texture is full.texture


def _patch(mesh: Mesh, uvs: torch.Tensor) -> Patch:
    return Patch(mesh.vertices, uvs, mesh.faces, torch.ones(len(mesh.faces), dtype=torch.bool))


def test_a_part_without_colour_takes_that_of_the_nearest_part() -> None:
    """A part that nobody saw has no neighbour to take colour from."""
    parts = [blob(1).with_(vertices=blob(1).vertices + shift) for shift in (0, 5, 20)]
    mesh = unwrap(join(*parts), PRESET, RecordingHost())
    assert mesh.uvs is not None
    x = mesh.vertices[:, 0]
    texture, seen = torch.zeros(SIZE, SIZE, 3), torch.zeros(SIZE, SIZE, dtype=torch.bool)
    columns, rows = (mesh.uvs * (SIZE - 1)).round().long().unbind(dim=1)
    for part, colour in ((x < 2.5, (1.0, 0, 0)), (x > 12, (0, 0, 1.0))):
        seen[rows[part], columns[part]] = True
        texture[rows[part], columns[part]] = torch.tensor(colour)
    unseen = (x > 2.5) & (x < 12)
    seen[rows[unseen], columns[unseen]] = False
    colours = vertex_colours(_patch(mesh, mesh.uvs), texture, seen, torch.device("cpu"))
    assert torch.allclose(colours[unseen], torch.tensor([1.0, 0, 0]).expand(int(unseen.sum()), 3), atol=1e-5)


def test_spreading_is_linear_on_a_strip() -> None:
    """Between two known ends the colours run straight from one to the other."""
    count = 8
    x = torch.arange(count, dtype=torch.float32)
    low, high = torch.stack([x, x * 0, x * 0], 1), torch.stack([x, x * 0 + 1, x * 0], 1)
    lower = [[i, i + 1, count + i + 1] for i in range(count - 1)]
    upper = [[i, count + i + 1, count + i] for i in range(count - 1)]
    strip = Mesh(torch.cat([low, high]), torch.tensor(lower + upper))
    ends = (torch.arange(2 * count) % count == 0) | (torch.arange(2 * count) % count == count - 1)
    truth = (strip.vertices[:, :1] / (count - 1)).expand(-1, 3)
    texture, seen = torch.zeros(2 * count, 2 * count, 3), torch.zeros(2 * count, 2 * count, dtype=torch.bool)
    texture[0], seen[0] = truth, ends  # each vertex has its own texel
    uvs = torch.stack([torch.arange(2 * count) / (2 * count - 1), torch.zeros(2 * count)], dim=1)
    colours = vertex_colours(_patch(strip, uvs), texture, seen, torch.device("cpu"))
    assert (colours - truth).abs().max() < 0.05
    assert torch.equal(colours[ends], truth[ends])


@pytest.mark.parametrize("kind", ["unseen", "NaN", "not square", "mask of another size", "mask of numbers", "RGBA"])
def test_bad_atlas_is_refused_before_the_step(kind: str, mesh: Mesh, atlas: Atlas) -> None:
    texture, seen = atlas.texture, atlas.seen
    bad = {
        "unseen": Atlas(texture, torch.zeros_like(seen)),
        "NaN": Atlas(texture * torch.nan, seen),
        "not square": Atlas(texture[:64], seen[:64]),
        "mask of another size": Atlas(texture, seen[:64, :64]),
        "mask of numbers": Atlas(texture, seen.float()),
        "RGBA": Atlas(torch.ones(8, 8, 4), torch.ones(8, 8, dtype=torch.bool)),
    }[kind]
    host = RecordingHost()
    with pytest.raises(BadInput, match=r"^inpaint: .*; wanted .*\. .+\.$"):
        inpaint(mesh, bad, host)
    with pytest.raises(BadInput, match=r"^inpaint: the mesh has no UVs"):
        inpaint(cube(), atlas, host)
    assert host.phases == []


@pytest.mark.parametrize("after", [0, 1, 4])
def test_cancel_gets_through(mesh: Mesh, atlas: Atlas, after: int) -> None:
    host = RecordingHost(cancel_after=after)
    with pytest.raises(Cancelled):
        inpaint(mesh, atlas, host)
    assert host.finished == [] and len(host.reports) == after


def test_other_number_types_give_the_same_texture(mesh: Mesh, atlas: Atlas) -> None:
    """float64 with gradients, int32: meshes from elsewhere."""
    assert mesh.uvs is not None
    odd = Mesh(mesh.vertices.double().requires_grad_(), mesh.faces.int(), uvs=mesh.uvs.double())
    views = picture_views(mesh, (Camera(0, 0),), 128)
    again = bake(odd, views, PRESET, RecordingHost())
    assert torch.equal(again.texture, atlas.texture)
    one, other = inpaint(mesh, atlas, RecordingHost()).texture, inpaint(odd, again, RecordingHost()).texture
    assert one is not None and other is not None and torch.equal(one, other)


def test_the_sparse_matrix_is_the_same_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU's matrix and the sums that a device computes."""
    mesh = blob(3)
    edges = unique_edges(mesh.faces)[0]
    weights = torch.rand(len(edges), generator=torch.Generator().manual_seed(0)) + 0.1
    free = torch.arange(len(mesh.vertices)) % 5 != 0
    system = _System(edges, weights, free)
    start = torch.where(free.unsqueeze(1), 0.0, mesh.vertices)
    with_matrix, applied = system.solve(start), system._apply(start)
    monkeypatch.setattr(system, "matrix", None)
    assert torch.allclose(applied, system._apply(start), atol=1e-4) and applied[free].abs().max() > 0.1
    assert torch.allclose(with_matrix, system.solve(start), atol=1e-3)
    assert torch.equal(with_matrix[~free], start[~free])
