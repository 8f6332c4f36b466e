"""Views onto the texture. Agreement with upstream is in test_texture_exact.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hosts import RecordingHost
from meshes import blob, cube, group, picture_views, small_preset, texel_truth
from PIL import Image

from lowvram_core.errors import BadInput, Cancelled
from lowvram_core.presets import VIEW_SETS
from lowvram_core.render.project import splat
from lowvram_core.render.seen import picture_px
from lowvram_core.stages import bake as module
from lowvram_core.stages.bake import bake, resize
from lowvram_core.stages.unwrap import unwrap
from lowvram_core.types import Camera, Mesh, Views

PRESET = small_preset()
UPSTREAM = small_preset(bake="upstream")
STANDARD = VIEW_SETS["standard"]


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    """A bumpy ball with UVs."""
    return unwrap(blob(3), PRESET, RecordingHost())


def _plain(cameras: tuple[Camera, ...], *colours: tuple[float, float, float]) -> Views:
    pictures = [torch.tensor(colour, dtype=torch.float32).expand(64, 64, 3) for colour in colours]
    return Views(torch.stack(pictures), cameras)


@pytest.mark.parametrize("texture_px", [64, 256])
@pytest.mark.parametrize("views", ["standard", "fast", "minimal"])
def test_seen_texels_have_the_solids_colour(mesh: Mesh, views: str, texture_px: int) -> None:
    cameras = VIEW_SETS[views]
    host = RecordingHost()
    preset = small_preset(texture_px=texture_px, views=views)
    atlas = bake(mesh, picture_views(mesh, cameras, 256), preset, host)
    truth, inside = texel_truth(mesh, texture_px)
    right = atlas.seen & inside
    assert atlas.texture.shape == (texture_px, texture_px, 3) and atlas.seen.dtype == torch.bool
    assert right.sum() > 0.6 * inside.sum()
    assert (atlas.texture - truth)[right].abs().quantile(0.99) < 0.05
    assert not atlas.texture[~atlas.seen].any()
    assert host.finished == ["bake"]
    assert [done for step, done, _ in host.reports if step == "bake"] == list(range(len(cameras) + 1))


def test_hidden_surface_stays_unseen() -> None:
    mesh = unwrap(group(), PRESET, RecordingHost())
    atlas = bake(mesh, picture_views(mesh, STANDARD, 256), PRESET, RecordingHost())
    truth, inside = texel_truth(mesh, 256)
    assert 0.05 < (inside & ~atlas.seen).sum() / inside.sum() < 0.6
    assert ((atlas.texture - truth)[atlas.seen & inside].abs().amax(dim=1) > 0.2).float().mean() < 0.001


def test_weights_of_cameras_count(mesh: Mesh) -> None:
    """Where two views meet, a tenth of the second's weight makes the first's share count ten times as much."""

    def shares(weight: float) -> tuple[torch.Tensor, torch.Tensor]:
        views = _plain((Camera(0, 0), Camera(90, 0, weight)), (1, 0, 0), (0, 0, 1))
        red, _, blue = bake(mesh, views, PRESET, RecordingHost()).texture.double().unbind(dim=-1)
        return red, blue

    (red, blue), (red_tenth, blue_tenth) = shares(1.0), shares(0.1)
    both = (red > 0.01) & (blue > 0.01)
    assert both.sum() > 500
    assert torch.allclose((red + blue)[both], torch.ones(int(both.sum()), dtype=torch.float64), atol=1e-6)
    assert torch.allclose((red_tenth / blue_tenth)[both], 10 * (red / blue)[both], rtol=1e-3)


def test_view_of_painted_surface_is_left_out(mesh: Mesh) -> None:
    front = Camera(0, 0)
    one = bake(mesh, _plain((front,), (1, 0, 0)), UPSTREAM, RecordingHost())
    two = bake(mesh, _plain((front, front), (1, 0, 0), (0, 0, 1)), UPSTREAM, RecordingHost())
    assert torch.equal(one.texture, two.texture) and torch.equal(one.seen, two.seen)


def test_one_views_maps_live_at_a_time(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every view is added before the next one is projected, as upstream's bake does not."""
    order = []
    project_view, add = module.project_view, module._add
    monkeypatch.setattr(module, "project_view", lambda *args: order.append("project") or project_view(*args))
    monkeypatch.setattr(module, "_add", lambda *args: order.append("add") or add(*args))
    bake(mesh, _plain(STANDARD, *[(0.5, 0.5, 0.5)] * 6), UPSTREAM, RecordingHost())
    assert order == ["project", "add"] * 6


def test_a_view_keeps_the_pixels_that_the_texture_can_show() -> None:
    """Smaller ones are enlarged by 2 at most. Upstream's way only uses render_px."""
    assert [picture_px(px, 1024, 2048) for px in (256, 512, 1024, 1500, 2048, 4096)] == [
        512, 1024, 1024, 1500, 2048, 2048,
    ]  # fmt: skip
    assert [picture_px(px, 1024, 0) for px in (256, 512, 2048)] == [512, 1024, 1024]
    assert [picture_px(px, 2048, 512) for px in (512, 4096)] == [1024, 2048]


@pytest.mark.parametrize("way", ["texel", "upstream"])
def test_pixels_of_large_views_that_are_lost_are_noted(mesh: Mesh, way: str) -> None:
    preset = small_preset(bake=way, render_px=64, texture_px=128)
    for px, lost in ((512, False), (600, True)):
        host = RecordingHost()
        bake(mesh, Views(torch.rand(6, px, px, 3), STANDARD), preset, host)
        assert len(host.notes) == lost, host.notes
    most, choose = ("128 px", "texture_px.") if way == "texel" else ("64 px", "render_px, or bake texel.")
    assert host.notes[0].startswith(f"bake: the views are 600 px and are scaled down to {most}, since")
    assert host.notes[0].endswith(f"choose a larger {choose}")


def test_large_views_need_more_memory() -> None:
    preset = small_preset(render_px=512, texture_px=2048)
    card = RecordingHost(device=torch.device("meta"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "geometry_device", lambda device: device)
        (small,), (large,) = (module._needs(card, preset, px) for px in (512, 2048))
    assert large.resident_bytes - small.resident_bytes == 56 * 2048**2
    assert large.lowered_by - small.lowered_by == {"texture_px"}


def test_resize_is_pillows() -> None:
    image = torch.rand(24, 24, 3, generator=torch.Generator().manual_seed(0))
    whole = (image * 255).round().byte().numpy()
    assert np.array_equal(resize(image, 64).numpy(), np.array(Image.fromarray(whole).resize((64, 64))))
    assert np.array_equal(resize(image, 24).numpy(), whole)


def test_splat_is_a_weighted_mean() -> None:
    uvs = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.5, 0.0], [0.125, 1.0], [0.0, 1.0]])
    values = torch.tensor([[1.0], [2.0], [3.0], [4.0], [8.0]])
    total = torch.zeros(5, 5, 2)
    splat(total, uvs, values)
    result = total[..., 0] / total[..., 1].clamp(min=1e-9)
    wanted = torch.zeros(5, 5)
    wanted[0, 0], wanted[4, 4], wanted[0, 2], wanted[4, 1] = 1, 2, 3, 4
    wanted[4, 0] = (0.5 * 4 + 8) / 1.5
    assert torch.allclose(result, wanted)


def _bad(kind: str, mesh: Mesh) -> tuple[Mesh, Views]:
    views = _plain((Camera(0, 0),), (0.5, 0.5, 0.5))
    images = views.images
    return {
        "no UVs": (cube(), views),
        "too few cameras": (mesh, Views(images, ())),
        "not square": (mesh, Views(images[:, :32], views.cameras)),
        "RGBA": (mesh, Views(torch.ones(1, 8, 8, 4), views.cameras)),
        "one picture": (mesh, Views(images[0], views.cameras)),
        "none": (mesh, Views(images[:0], ())),
        "NaN": (mesh, Views(images * torch.nan, views.cameras)),
        "bytes": (mesh, Views((images * 255).byte(), views.cameras)),
    }[kind]


@pytest.mark.parametrize(
    "kind", ["no UVs", "too few cameras", "not square", "RGBA", "one picture", "none", "NaN", "bytes"]
)
def test_bad_input_is_refused_before_a_step(kind: str, mesh: Mesh) -> None:
    host = RecordingHost()
    with pytest.raises(BadInput, match=r"^bake: .*; .*wanted .*\. .+\.$|^bake: the mesh has no UVs; "):
        bake(*_bad(kind, mesh), PRESET, host)
    assert host.phases == []


@pytest.mark.parametrize("after", [0, 2])
def test_cancel_gets_through(mesh: Mesh, after: int) -> None:
    host = RecordingHost(cancel_after=after)
    with pytest.raises(Cancelled):
        bake(mesh, _plain(STANDARD, *[(0.5, 0.5, 0.5)] * 6), PRESET, host)
    assert "bake" not in host.finished


def test_view_that_sees_nothing_changes_nothing(mesh: Mesh) -> None:
    """Seen edge-on, a flat sheet gives a view no pixel to take."""
    square = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    sheet = Mesh(square, torch.tensor([[0, 1, 2], [0, 2, 3]]), uvs=square[:, :2] * 0.8 + 0.1)
    atlas = bake(sheet, _plain((Camera(90, 0),), (1, 0, 0)), PRESET, RecordingHost())
    assert not atlas.seen.any() and not atlas.texture.any()
    front = bake(sheet, _plain((Camera(90, 0), Camera(0, 0)), (1, 0, 0), (0, 1, 0)), PRESET, RecordingHost())
    assert front.seen.any()
    assert torch.allclose(front.texture[front.seen], torch.tensor([0.0, 1, 0]).expand(int(front.seen.sum()), 3))
