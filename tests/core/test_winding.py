"""Faces are wound so that a texture shows: per part, whatever the mesh looked like."""

from __future__ import annotations

import pytest
import torch
from hosts import RecordingHost
from meshes import blob, cube, group, join, picture_views, small_preset, texel_truth, torus
from torch import Tensor

from lowvram_core.geometry.winding import agreeing, turned
from lowvram_core.presets import VIEW_SETS
from lowvram_core.render.facing import face_outwards
from lowvram_core.stages.bake import bake
from lowvram_core.stages.clean import clean
from lowvram_core.stages.inpaint import inpaint
from lowvram_core.stages.unwrap import unwrap
from lowvram_core.types import Mesh


def bowl() -> Mesh:
    """A ball without its top: open, and thin as paper."""
    ball = blob(4, 0.0)
    return ball.with_(faces=ball.faces[ball.vertices[ball.faces].mean(dim=1)[:, 1] < 0.2])


def two_balls() -> Mesh:
    return join(blob(3), blob(3).with_(vertices=blob(3).vertices + torch.tensor([2.5, 0.0, 0.0])))


def inside_out(mesh: Mesh, which: Tensor | None = None) -> Mesh:
    """The mesh with these faces reversed, or with all of them."""
    which = torch.ones(len(mesh.faces), dtype=torch.bool) if which is None else which
    return mesh.with_(faces=turned(mesh.faces, which))


def upper_half(mesh: Mesh) -> Tensor:
    return torch.arange(len(mesh.faces)) >= len(mesh.faces) // 2


def same_way(one: Mesh, other: Mesh) -> bool:
    normals = [torch.cross(b - a, c - a, dim=1) for a, b, c in (m.vertices[m.faces].unbind(1) for m in (one, other))]
    return bool(((normals[0] * normals[1]).sum(dim=1) > 0).all())


SHAPES = {"closed": blob(3), "ring": torus(), "bowl": bowl(), "parts": group(), "two": two_balls()}


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("name", SHAPES)
def test_flipped_faces_are_turned_back(name: str, share: float) -> None:
    mesh = SHAPES[name]
    which = torch.rand(len(mesh.faces), generator=torch.Generator().manual_seed(3)) < share
    assert same_way(face_outwards(inside_out(mesh, which)), mesh)


@pytest.mark.parametrize("name", SHAPES)
def test_what_is_right_is_returned_as_it_is(name: str) -> None:
    assert face_outwards(SHAPES[name]) is SHAPES[name]


def test_one_of_two_parts_is_turned() -> None:
    mesh = two_balls()
    assert same_way(face_outwards(inside_out(mesh, upper_half(mesh))), mesh)


def test_cavities_stay_cavities() -> None:
    inner = blob(2).with_(vertices=blob(2).vertices * 0.5)
    hollow = join(blob(2), inside_out(inner))
    assert face_outwards(hollow) is hollow
    assert same_way(face_outwards(inside_out(hollow)), hollow)
    beside = join(blob(2), inside_out(inner.with_(vertices=inner.vertices + torch.tensor([0.9, 0.0, 0.0]))))
    result = face_outwards(beside)
    assert same_way(result, join(blob(2), inner.with_(vertices=inner.vertices + torch.tensor([0.9, 0.0, 0.0])))), (
        "a part that only dips into another one is no cavity"
    )


def test_seams_do_not_part_a_mesh() -> None:
    """After unwrapping, neighbours across a seam share no vertex."""
    mesh = unwrap(blob(3), small_preset(unwrapper="uvunwrap"), RecordingHost())
    which = torch.arange(len(mesh.faces)) % 3 == 0
    result = face_outwards(inside_out(mesh, which))
    assert same_way(result, mesh) and result.uvs is mesh.uvs


def test_a_one_sided_strip_stays_as_it_is() -> None:
    count = 24
    turn = torch.arange(count) * (2 * torch.pi / count)
    rims = [
        torch.stack([(1 + s * torch.cos(turn / 2)) * torch.cos(turn), s * torch.sin(turn / 2),
                     (1 + s * torch.cos(turn / 2)) * torch.sin(turn)], dim=1)
        for s in (-0.3, 0.3)
    ]  # fmt: skip
    faces = []
    for i in range(count):
        a, b, c, d = 2 * i, 2 * i + 1, 2 * i + 2, 2 * i + 3
        if i == count - 1:
            c, d = 1, 0
        faces += [[a, b, c], [c, b, d]]
    strip = Mesh(torch.stack(rims, dim=1).view(-1, 3), torch.tensor(faces))
    found, patches = agreeing(strip.vertices, strip.faces)
    assert torch.equal(found, strip.faces) and patches.closed.tolist() == [False]


def test_a_card_faces_the_front_camera() -> None:
    card = Mesh(torch.tensor([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]), torch.tensor([[0, 1, 2], [0, 2, 3]]))
    assert face_outwards(card) is card
    assert same_way(face_outwards(inside_out(card)), card)


def test_faces_without_area_do_no_harm() -> None:
    mesh = cube()
    messy = mesh.with_(faces=torch.cat([torch.tensor([[0, 0, 0], [1, 1, 2]]), mesh.faces.flip(1)]))
    assert same_way(Mesh(mesh.vertices, face_outwards(messy).faces[2:]), mesh)
    needles = Mesh(torch.rand(3, 3), torch.tensor([[0, 0, 1]]))
    assert face_outwards(needles) is needles


def textured(mesh: Mesh, *, own_uvs: bool) -> tuple[Mesh, Mesh]:
    """The mesh after unwrap, bake and inpaint, and the unwrapped mesh with its faces as they should be."""
    preset, host = small_preset(unwrapper="uvunwrap", texture_px=256, render_px=256), RecordingHost()
    if own_uvs:
        right = unwrap(mesh, preset, host)
        broken = inside_out(right, upper_half(right))
    else:
        broken = right = unwrap(inside_out(mesh, upper_half(mesh)), preset, host)
    atlas = bake(broken, picture_views(right, VIEW_SETS["standard"], 256), preset, host)
    return inpaint(broken, atlas, host), right


@pytest.mark.parametrize("own_uvs", [False, True], ids=["unwrapped here", "with its own UVs"])
@pytest.mark.parametrize("name", ["two", "bowl"])
def test_a_mesh_that_is_partly_inside_out_gets_its_colours_without_clean(name: str, own_uvs: bool) -> None:
    result, right = textured(SHAPES[name], own_uvs=own_uvs)
    truth, inside = texel_truth(right, 256)
    assert result.texture is not None
    off = (result.texture - truth).abs().amax(dim=-1)[inside]
    assert float((off > 0.3).float().mean()) < 0.03


def test_an_inverted_bowl_no_longer_goes_round_in_circles() -> None:
    preset, host = small_preset(unwrapper="uvunwrap"), RecordingHost()
    cleaned = clean(inside_out(bowl()), preset, host)
    assert same_way(cleaned, clean(bowl(), preset, host))
    mesh = unwrap(inside_out(bowl()), preset, host)
    assert float(bake(mesh, picture_views(mesh, VIEW_SETS["standard"], 256), preset, host).seen.float().mean()) > 0.2
