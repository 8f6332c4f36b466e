"""Small pictures of meshes: four sides, wireframe, UV layout, turntable."""

from __future__ import annotations

import pytest
import torch
from meshes import blob, cube, torus
from torch import Tensor

from lowvram_core.render.portraits import CAMERAS, layout, look, wireframe
from lowvram_core.render.preview import TURNTABLE_ELEVATION_DEG, halved, render_textured, turntable
from lowvram_core.types import Camera, Mesh


def object_of(picture: Tensor) -> Tensor:
    """[H,W] bool: where the picture is not white."""
    return (picture < 1).any(dim=-1)


def test_four_sides_show_what_the_sides_show() -> None:
    """A ball whose colours name the sides: +Z is the front, -X the right."""
    mesh = blob(3, 0.0)
    x, z = mesh.vertices[:, 0], mesh.vertices[:, 2]
    mesh = mesh.with_(colors=torch.stack([(x > 0.0).float(), (z > 0.0).float(), torch.full_like(x, 0.2)], dim=1))
    picture = look(mesh, 64)
    assert picture.shape == (128, 128, 3) and bool(object_of(picture).any())
    for (row, column), side in zip(((0, 0), (0, 1), (1, 0), (1, 1)), ("front", "right", "left", "back"), strict=True):
        tile = picture[row * 64 : row * 64 + 64, column * 64 : column * 64 + 64]
        alone = render_textured(mesh, CAMERAS[side], 64)
        assert torch.equal(object_of(tile), object_of(alone))
        assert (tile - alone).abs().mean() < 0.02, "only the shading differs: by face, not smooth"
    front, right = picture[32, 32], picture[32, 96]
    assert front[1] > 0.4 and (right[0] > 0.4) == (picture[96, 32][0] < 0.4), "left and right differ"


def test_the_wireframe_shows_edges() -> None:
    picture = wireframe(cube(), 128)
    assert picture.shape == (128, 256, 3)
    whole, detail = picture[:, :128], picture[:, 128:]
    greys = whole[object_of(whole)][:, 0]
    assert 0.02 < float((greys < 0.3).float().mean()) < 0.4, "dark lines on lighter faces"
    assert float(object_of(detail).float().mean()) > float(object_of(whole).float().mean()), "the detail is enlarged"


def test_edges_of_tiny_faces_do_not_hide_the_shape() -> None:
    whole = wireframe(torus(200, 100), 128)[:, :128]
    greys = whole[object_of(whole)][:, 0]
    assert greys.mean() > 0.35 and greys.std() > 0.03


def test_a_mesh_that_no_pixel_shows_is_white() -> None:
    flat = Mesh(torch.zeros(3, 3), torch.tensor([[0, 1, 2]]))
    assert bool((wireframe(flat, 32) == 1).all()) and bool((look(flat, 32) == 1).all())


def test_the_layout_shows_the_charts() -> None:
    """Two charts of one direction each: one in the upper left quarter, one in the lower right. v runs down."""
    corners = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    vertices = torch.cat([corners, corners[:, [2, 1, 0]]])
    quarter = corners[:, :2] * 0.4 + 0.05
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    mesh = Mesh(vertices, torch.cat([faces, faces + 4]), torch.cat([quarter, quarter + 0.5]))
    picture = layout(mesh, 64)
    covered = object_of(picture)
    assert picture.shape == (64, 64, 3) and float(covered.float().mean()) == pytest.approx(0.32, abs=0.04)
    assert covered[16, 16] and covered[48, 48] and not covered[16, 48] and not covered[48, 16]
    assert (picture[16, 16] - picture[48, 48]).abs().max() > 0.2, "their directions differ"
    assert bool((layout(cube(), 32) == 1).all()), "a mesh without UVs"


def test_the_turntable_goes_round_once() -> None:
    mesh = blob(3, 0.3)
    frames = list(turntable(mesh, 4, 48, background=0.5))
    assert [tuple(frame.shape) for frame in frames] == [(48, 48, 3)] * 4
    assert bool((frames[0][0, 0] == 0.5).all())
    for frame, azimuth in zip(turntable(mesh, 4, 48), (0, 90, 180, 270), strict=True):
        alone = halved(render_textured(mesh, Camera(azimuth, TURNTABLE_ELEVATION_DEG), 96))
        assert (frame - alone).abs().mean() < 1e-3, "as the camera that goes round"
