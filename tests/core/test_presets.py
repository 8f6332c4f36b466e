"""The preset table, held literally, and what a changed value is checked for."""

from __future__ import annotations

import dataclasses

import pytest

from lowvram_core.errors import BadInput
from lowvram_core.files.manifest import BACKGROUND_MODELS, MODELS
from lowvram_core.presets import CHOICES, PRESETS, VIEW_SETS, Preset, get

TABLE = """
| 2 GB          | v2-0       | 50 | 384 | 5 | 50 | 30 | standard | 2048 | 2048 | stream |
| 4 GB          | v2-0       | 50 | 384 | 5 | 50 | 30 | standard | 2048 | 2048 | free |
| 8 GB Fast     | mini-turbo |  3 | 128 | 5 |  5 |  5 | minimal  | 1024 | 1024 | free |
| 8 GB Balanced | v2-0-turbo |  4 | 128 | 5 |  5 |  5 | fast     | 1536 | 1536 | free |
| 8 GB Quality  | v2-0-turbo |  5 | 192 | 5 |  6 |  6 | fast     | 1536 | 1536 | free |
| 8 GB Full     | v2-0       | 50 | 384 | 5 | 50 | 30 | standard | 2048 | 2048 | free, CFG together |
| 12 GB         | v2-0-turbo |  5 | 192 | 5 |  6 |  6 | fast     | 2048 | 2048 | free, CFG together, 20k-point chunks |
| 16 GB         | v2-0-turbo |  5 | 192 | 5 |  6 |  6 | standard | 2048 | 2048 | free, CFG together, 20k-point chunks |
"""


def row(preset: Preset) -> list[str]:
    residency = [preset.residency]
    residency += ["CFG together"] * preset.cfg_together
    residency += ["20k-point chunks"] * (preset.points_per_chunk == 20_000)
    numbers = (
        preset.shape_steps, preset.octree, f"{preset.guidance:g}", preset.delight_steps, preset.paint_steps,
        preset.views, preset.render_px, preset.texture_px, ", ".join(residency),
    )  # fmt: skip
    return [preset.name, preset.variant, *map(str, numbers)]


def test_the_table_is_the_one_that_was_agreed() -> None:
    wanted = [[cell.strip() for cell in line.strip("| ").split("|")] for line in TABLE.strip().splitlines()]
    assert [row(preset) for preset in PRESETS.values()] == wanted


def test_what_all_presets_share() -> None:
    for preset in PRESETS.values():
        preset.check()
        assert preset.vae_slicing and preset.vae_tiling
        assert preset.points_per_chunk in {8000, 20_000}
        assert (preset.background_model, preset.picture_px) == ("u2net", 1024)
        assert (preset.face_budget, preset.unwrapper) == (40_000, "xatlas")


def test_the_table_is_read_only() -> None:
    with pytest.raises(TypeError):
        PRESETS["2 GB"] = PRESETS["4 GB"]  # type: ignore[index]
    with pytest.raises(dataclasses.FrozenInstanceError):
        PRESETS["2 GB"].octree = 64  # type: ignore[misc]


def test_view_sets() -> None:
    poses = {
        name: [(camera.azimuth_deg, camera.elevation_deg) for camera in views] for name, views in VIEW_SETS.items()
    }
    assert poses == {
        "standard": [(0, 0), (90, 0), (180, 0), (270, 0), (0, 90), (180, -90)],
        "fast": [(0, 0), (90, 0), (180, 0), (270, 0)],
        "minimal": [(0, 0), (120, 0), (240, 0)],
        "fast-tilted": [(0, 0), (90, 20), (180, 0), (270, -20)],
        "minimal-tilted": [(0, 0), (120, 20), (240, -20)],
    }
    assert [camera.weight for camera in VIEW_SETS["standard"]] == [1, 0.1, 0.5, 0.1, 0.05, 0.05]
    assert PRESETS["8 GB Fast"].cameras == VIEW_SETS["minimal"]


@pytest.mark.parametrize("name", ["8 GB Fast", "8 gb fast", " 8 GB FAST "])
def test_names_in_any_case(name: str) -> None:
    assert get(name) is PRESETS["8 GB Fast"]


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(BadInput, match="wanted one of 2 GB, 4 GB, 8 GB Fast"):
        get("3 GB")


def test_a_changed_value_is_a_new_preset() -> None:
    changed = PRESETS["2 GB"].with_(octree=256, residency="keep")
    assert (changed.octree, changed.residency) == (256, "keep")
    assert PRESETS["2 GB"].octree == 384


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("variant", "v3"), ("views", "all"), ("residency", "gone"), ("unwrapper", "blender"),
        ("background_model", "u3net"), ("shape_steps", 0), ("shape_steps", 201),
        ("octree", 8), ("guidance", -1), ("guidance", float("nan")), ("delight_steps", 0), ("paint_steps", 0),
        ("render_px", 32), ("texture_px", 9000), ("points_per_chunk", 1), ("picture_px", 10), ("face_budget", 3),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_bad_input(field: str, value: object) -> None:
    with pytest.raises(BadInput, match=f"preset: {field} is"):
        PRESETS["2 GB"].with_(**{field: value})


def test_there_is_a_model_for_every_choice() -> None:
    assert set(CHOICES["background_model"]) == set(BACKGROUND_MODELS)
    assert {f"shape/{variant}" for variant in CHOICES["variant"]} <= set(MODELS)
    for preset in PRESETS.values():
        assert all(getattr(preset, field) in allowed for field, allowed in CHOICES.items())
