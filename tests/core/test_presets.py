"""The preset table, held literally, and what a changed value is checked for."""

from __future__ import annotations

import dataclasses
from typing import get_args

import pytest

from lowvram_core.errors import BadInput
from lowvram_core.files.manifest import MODELS
from lowvram_core.presets import PRESETS, VALUES, VIEW_SETS, Group, Preset, cost, get, texts

TABLE = """
| 2 GB          | v2-0       | 50 | 384 | 5 | 50 | 30 | standard | 2048 | 2048 | stream |
| 4 GB          | v2-0       | 50 | 384 | 5 | 50 | 30 | standard | 2048 | 2048 | free |
| 8 GB Fast     | mini-turbo |  3 | 128 | 5 |  5 |  5 | minimal  | 1024 | 1024 | free |
| 8 GB Balanced | v2-0-turbo |  4 | 128 | 5 |  5 |  5 | fast     | 1536 | 1536 | free |
| 8 GB Quality  | v2-0-turbo |  5 | 192 | 5 |  6 |  6 | fast     | 1536 | 1536 | free |
| 8 GB Full     | v2-0       | 50 | 384 | 5 | 50 | 30 | standard | 2048 | 2048 | free, CFG together |
| 12 GB         | v2-0-turbo |  5 | 192 | 5 |  6 |  6 | fast     | 2048 | 2048 | free, CFG together, 20k-point chunks |
| 16 GB         | v2-0-turbo |  5 | 192 | 5 |  6 |  6 | standard | 2048 | 2048 | free, CFG together, 20k-point chunks |
| 8 GB Turbo    | v2-0-turbo |  5 | 192 | 5 |  6 | 10 | standard | 1536 | 1536 | free |
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
        assert preset.face_budget == 40_000


def test_only_full_quality_waits_for_xatlas() -> None:
    full = {"2 GB", "4 GB", "8 GB Full"}
    assert {name for name, preset in PRESETS.items() if preset.unwrapper == "xatlas"} == full
    assert {preset.unwrapper for name, preset in PRESETS.items() if name not in full} == {"uvunwrap"}


def test_only_one_preset_paints_with_the_experimental_model() -> None:
    assert [name for name, preset in PRESETS.items() if preset.paint_variant != "standard"] == ["8 GB Turbo"]
    assert list(PRESETS)[-1] == "8 GB Turbo", "saved workflows hold the nodes that were there before"


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
        ("render_px", 32), ("texture_px", 9000), ("points_per_chunk", 999), ("picture_px", 10), ("face_budget", 99),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_bad_input(field: str, value: object) -> None:
    with pytest.raises(BadInput, match=f"preset: {field} is"):
        PRESETS["2 GB"].with_(**{field: value})


def test_the_manifest_has_the_names_of_the_choices() -> None:
    names = {
        kind: {id.partition("/")[2] for id in MODELS if id.startswith(f"{kind}/")} for kind in ("background", "shape")
    }
    assert names == {"background": set(VALUES["background_model"].choices), "shape": set(VALUES["variant"].choices)}


def test_every_value_is_declared() -> None:
    """A number has a range that holds its default, a name its choices; what came later stands last."""
    assert list(VALUES) == [declared.name for declared in dataclasses.fields(Preset)][1:]
    for value in VALUES.values():
        if value.kind in (int, float):
            assert value.low < value.high and value.step > 0, value.name
        assert bool(value.choices) == (value.kind is str), value.name
        for preset in PRESETS.values():
            assert type(getattr(preset, value.name)) is value.kind, value.name
        if value.default is not None:
            value.check(value.default)
    later = [value.later for value in VALUES.values()]
    assert later == sorted(later) and later.index(True) == 23, "a new value is declared last, and later"
    assert all(value.default is not None for value in VALUES.values() if value.group == "advanced")


def test_every_preset_and_value_has_its_texts() -> None:
    """In both languages, in the order of the declarations, and none is left over."""
    kinds = {"presets": (PRESETS, {"name": {"ko"}, "summary": {"en", "ko"}}),
             "groups": (get_args(Group), {"title": {"en", "ko"}}),
             "notes": (["no_card", "cached", "upload", "upload_failed", "upload_none"], {"text": {"en", "ko"}}),
             "values": (VALUES, {"label": {"ko"}, "cost": {"en", "ko"}})}  # fmt: skip
    assert texts().keys() == kinds.keys()
    for kind, (declared, wanted) in kinds.items():
        assert list(texts()[kind]) == list(declared), "lowvram_core/presets.toml"
        for name, found in texts()[kind].items():
            assert {part: set(languages) for part, languages in found.items()} == wanted, f"presets.toml, {name}"
            assert all(text.strip() for languages in found.values() for text in languages.values()), name
    assert cost("octree").startswith("Cells along") and cost("octree", "ko") != cost("octree")


def test_a_presets_own_values() -> None:
    """Those that every preset states, and those that differ from the default."""
    stated = [name for name, value in VALUES.items() if value.default is None]
    assert stated[0] == "variant" and stated[-1] == "residency"
    assert list(PRESETS["8 GB Balanced"].own_values()) == [*stated, "unwrapper"]
    assert list(PRESETS["8 GB Full"].own_values()) == [*stated, "cfg_together", "allow_lossy"]
    assert PRESETS["12 GB"].with_(prefetch=False).own_values() == {
        **{name: getattr(PRESETS["12 GB"], name) for name in stated},
        "cfg_together": True, "points_per_chunk": 20_000, "unwrapper": "uvunwrap", "prefetch": False,
    }  # fmt: skip
