"""A stage reads no value of a preset but those that are listed for it; so caches may ignore the others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hosts import RecordingHost
from meshes import blob, small_preset
from PIL import Image, ImageDraw
from watched import watch

from lowvram_core.errors import BadInput
from lowvram_core.files.store import ModelStore
from lowvram_core.presets import PRESETS, VALUES, get
from lowvram_core.stage_values import STAGE_VALUES, preset_of_values, read_values
from lowvram_core.stages.background import remove_background
from lowvram_core.stages.clean import clean
from lowvram_core.stages.unwrap import unwrap

DEMO = Path(__file__).resolve().parents[2] / "demo"


def test_every_value_is_read_by_a_stage() -> None:
    assert frozenset().union(*STAGE_VALUES.values()) == set(VALUES)


@pytest.mark.parametrize("stage", STAGE_VALUES)
def test_the_values_of_a_stage_survive(stage: str) -> None:
    for preset in PRESETS.values():
        values = read_values(preset, [stage])
        assert values.keys() == STAGE_VALUES[stage]
        assert read_values(preset_of_values(values), [stage]) == values


def test_other_values_leave_them() -> None:
    """What the user changes most: the width of the texture is for the bake alone."""
    preset = get("8 GB Full")
    wider = replace(preset, texture_px=4096)
    assert [stage for stage in STAGE_VALUES if read_values(preset, [stage]) != read_values(wider, [stage])] == ["bake"]


@pytest.mark.parametrize("values", [{"octre": 128}, {"octree": 5000}, {"decode": "quickly"}])
def test_values_that_no_preset_has_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(BadInput, match=r"preset: .*wanted"):
        preset_of_values(values)


@pytest.mark.parametrize("unwrapper", ["xatlas", "uvunwrap"])
def test_clean_and_unwrap_read_only_their_values(unwrapper: str) -> None:
    """Of the other stages, test_full_device.py tests it."""
    preset = watch(small_preset(unwrapper=unwrapper))
    mesh = clean(blob(3), preset, RecordingHost())
    assert preset.read == STAGE_VALUES["clean"]
    preset.read.clear()
    unwrap(mesh, preset, RecordingHost())
    assert preset.read == STAGE_VALUES["unwrap"]


def test_background_reads_only_its_values() -> None:
    picture = Image.new("RGB", (96, 96), (250, 250, 250))
    ImageDraw.Draw(picture).ellipse((20, 16, 76, 84), fill=(180, 60, 40))
    preset = watch(small_preset(background_model="u2netp"))
    remove_background(picture, preset, RecordingHost(), ModelStore([DEMO], offline=True))
    assert preset.read == STAGE_VALUES["background"]
