"""Faint alpha does not change how the object is framed, in any stage that frames it."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch
from hosts import RecordingHost
from PIL import Image, ImageDraw, ImageFilter

from lowvram_core.files.store import ModelStore
from lowvram_core.networks.hy3dgen import shapegen
from lowvram_core.pictures.convert import cutout_from_rgba
from lowvram_core.pictures.recentre import recentre, solid_box, within_solid
from lowvram_core.presets import PRESETS
from lowvram_core.stages.delight import delight, frame
from lowvram_core.stages.paint import _reference_picture
from lowvram_core.stages.shape import generate_shape
from lowvram_core.types import Cutout

QUICK = PRESETS["8 GB Full"].with_(octree=16, points_per_chunk=1500, shape_steps=2, delight_steps=1)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    return ModelStore([tiny.make_all(tmp_path_factory.mktemp("models"))], offline=True)


def capsule() -> Image.Image:
    """RGBA: every pixel is opaque or fully transparent."""
    picture = Image.new("RGBA", (160, 120), (0, 0, 0, 0))
    ImageDraw.Draw(picture).rounded_rectangle((60, 20, 99, 89), 19, fill=(200, 60, 30, 255))
    return picture


def with_dot(alpha: int = 1) -> Image.Image:
    picture = capsule()
    picture.putpixel((0, 0), (10, 200, 10, alpha))
    return picture


def with_halo() -> Image.Image:
    """The capsule in a glow that reaches far beyond it and stays below one half."""
    picture = capsule()
    glow = picture.getchannel("A").filter(ImageFilter.GaussianBlur(12)).point(lambda value: min(value // 2, 120))
    alpha = np.maximum(np.asarray(glow), np.asarray(picture.getchannel("A")))
    picture.putalpha(Image.fromarray(alpha))
    return picture


@pytest.mark.parametrize("alpha", [1, 60, 127])
def test_a_faint_pixel_in_a_corner_changes_no_stage(store: ModelStore, alpha: int) -> None:
    clean, dotted = cutout_from_rgba(capsule()), cutout_from_rgba(with_dot(alpha))

    def both(preset: str, one: Cutout | dict[str, Cutout], other: Cutout | dict[str, Cutout]) -> None:
        meshes = [
            generate_shape(given, QUICK.with_(variant=preset), RecordingHost(), store, seed=3) for given in (one, other)
        ]
        assert torch.equal(meshes[0].vertices, meshes[1].vertices) and torch.equal(meshes[0].faces, meshes[1].faces)

    both("v2-0", clean, dotted)
    both("mv-turbo", {"front": clean, "back": clean}, {"front": dotted, "back": dotted})
    assert torch.equal(delight(clean, QUICK, RecordingHost(), store), delight(dotted, QUICK, RecordingHost(), store))
    pictures = [np.asarray(_reference_picture(cutout, "paint")) for cutout in (clean, dotted)]
    assert np.array_equal(*pictures)


def test_an_opaque_pixel_in_a_corner_is_part_of_the_object() -> None:
    assert solid_box(with_dot(128)) == (0, 0, 100, 90)


def test_a_halo_frames_as_the_object_alone() -> None:
    plain, glowing = capsule(), with_halo()
    assert solid_box(glowing) == plain.getbbox() == (60, 20, 100, 90)
    assert glowing.getchannel("A").getbbox() != plain.getbbox()
    assert recentre(glowing).size == recentre(plain).size == (98, 98)
    processor = shapegen("preprocessors").ImageProcessorV2()
    masks = [np.asarray(processor(within_solid(one))["mask"])[0, 0] for one in (plain, glowing)]
    assert_same_place(masks)
    assert_same_place([np.asarray(frame(cutout_from_rgba(one)).getchannel("A")) - 127.5 for one in (plain, glowing)])


def assert_same_place(alphas: list[np.ndarray]) -> None:
    """The pixels that count agree, except for resampling at the edge of the object."""
    plain, other = (alpha > 0 for alpha in alphas)
    assert plain.sum() > 10_000 and (plain ^ other).sum() <= 0.03 * plain.sum()


def test_what_has_no_faint_pixel_outside_is_left_as_it_is() -> None:
    picture = capsule()
    assert within_solid(picture) is picture
    soft = capsule().filter(ImageFilter.GaussianBlur(1))
    inside = within_solid(soft)
    box = solid_box(soft)
    assert inside.crop(box).tobytes() == soft.crop(box).tobytes() and inside.getchannel("A").getbbox() == box


def test_smooth_edges_frame_as_the_shape_that_was_drawn() -> None:
    """Drawn 8 times larger at the edges 40.25, 31.5, 120.75 and 90.5, then scaled down."""
    large = Image.new("RGBA", (160 * 8, 120 * 8), (200, 60, 30, 0))
    large.paste((200, 60, 30, 255), (322, 252, 966, 724))
    assert solid_box(large.resize((160, 120), Image.Resampling.BOX)) == (40, 31, 121, 91)
