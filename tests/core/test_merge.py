"""Views that disagree: merged by upstream's weights, and with matched gains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import merge
import pytest
import torch
from hosts import RecordingHost
from meshes import blob, small_preset

from lowvram_core.presets import VIEW_SETS
from lowvram_core.render import compiled
from lowvram_core.render.matching import gains
from lowvram_core.render.scene import Scene
from lowvram_core.render.texels import Texels, surface_points
from lowvram_core.stages.bake import bake
from lowvram_core.stages.unwrap import unwrap
from lowvram_core.types import Mesh, Views

CAMERAS = VIEW_SETS["standard"]
PRESET = small_preset(merge="matched")
DRAWN_PX = 1024
"""The true views are drawn at half the benchmark's size: a quarter of the work."""
ROWS = json.loads(
    (Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "merge.json").read_text(encoding="utf-8")
)


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    """A bumpy ball with UVs."""
    return unwrap(blob(4), PRESET, RecordingHost())


@pytest.fixture(scope="module")
def texels(mesh: Mesh) -> Texels:
    return surface_points(Scene(mesh), PRESET.texture_px)


@pytest.fixture(scope="module")
def views(mesh: Mesh) -> Views:
    """The true views."""
    return merge.paint(merge.Solid(mesh, merge.coarse), mesh, CAMERAS, drawn_px=DRAWN_PX)


def test_gains_of_views_are_found(mesh: Mesh, texels: Texels, views: Views) -> None:
    """For each channel; all up to one common factor, which no view tells."""
    given = 0.9 + 0.2 * torch.rand(6, 3, generator=torch.Generator().manual_seed(1))
    found = gains(Scene(mesh), views.images * given.view(6, 1, 1, 3), CAMERAS, texels)
    product = found * given
    assert (product / product.mean(dim=0)).sub(1).abs().max() <= 0.01
    assert found.log().abs().max() > 0.03


def test_views_that_agree_keep_their_colours(mesh: Mesh, texels: Texels, views: Views) -> None:
    assert gains(Scene(mesh), views.images, CAMERAS, texels).sub(1).abs().max() <= 0.005
    one, other = (bake(mesh, views, PRESET.with_(merge=rule), RecordingHost()) for rule in ("weights", "matched"))
    assert torch.equal(one.seen, other.seen)
    assert (one.texture - other.texture).abs().mean() <= 0.5 / 255


def test_a_gain_is_limited_and_a_single_view_has_none(mesh: Mesh, texels: Texels, views: Views) -> None:
    factors = torch.tensor([1, 0.3, 1, 1, 1, 1]).view(6, 1, 1, 1)
    found = gains(Scene(mesh), views.images * factors, CAMERAS, texels)
    assert found.max() == pytest.approx(1.25) and found.min() >= 0.8
    assert torch.allclose(gains(Scene(mesh), views.images[:1], CAMERAS[:1], texels), torch.ones(1, 3))


def test_black_views_have_no_gain(mesh: Mesh, texels: Texels) -> None:
    assert torch.allclose(gains(Scene(mesh), torch.zeros(6, 64, 64, 3), CAMERAS, texels), torch.ones(6, 3))


def test_the_best_view_counts_nearly_alone(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer texels are mixed, with machine code and without."""
    images = torch.full((6, 64, 64, 3), 0.25)
    images[0] = 0.3  # a gain would hide the difference, so the views' shares are read from their own channels
    images[0, ..., 0], images[1, ..., 1] = 0.9, 0.9
    mixed = {}
    monkeypatch.setattr("lowvram_core.stages.bake.gains", lambda *_: torch.ones(6, 3))
    for rule in ("weights", "matched", "matched in torch"):
        if rule == "matched in torch":
            monkeypatch.setattr(compiled, "_kernel", lambda function: None)
        atlas = bake(mesh, Views(images, CAMERAS), PRESET.with_(merge=rule.split()[0]), RecordingHost())
        red = atlas.texture[..., 0]
        mixed[rule] = int(((red > 0.3) & (red < 0.85)).sum())
    assert mixed["weights"] > 2 * mixed["matched"] > 100
    assert mixed["matched in torch"] == pytest.approx(mixed["matched"], rel=0.01)


def test_matched_is_clearer_and_has_smaller_seams() -> None:
    """The torus at 256 px, and all meshes as measured."""
    rows, _ = merge.compare("torus", 256, DRAWN_PX)
    by_rule = {row["merge"]: row for row in rows}
    assert by_rule["matched"]["psnr"] >= by_rule["weights"]["psnr"] + 3, rows
    assert by_rule["matched"]["seams"] < by_rule["weights"]["seams"]


@pytest.mark.parametrize("name", merge.MESHES)
def test_the_measured_merges(name: str) -> None:
    by_rule: dict[str, dict[str, Any]] = {row["merge"]: row for row in ROWS if row["mesh"] == name}
    weights, matched = by_rule["weights"], by_rule["matched"]
    assert matched["psnr"] >= weights["psnr"] + 1 and matched["contrast"] >= weights["contrast"]
    assert matched["coverage"] == weights["coverage"] and matched["psnr_agree"] > 60


@pytest.mark.parametrize("page", ["docs/performance.md", "docs/ko/performance.md"])
def test_what_is_told_of_merging_is_what_was_measured(page: str) -> None:
    text = (Path(__file__).resolve().parents[2] / page).read_text(encoding="utf-8")
    for row in ROWS:
        figures = f"{row['psnr']:.1f} dB | {100 * row['contrast']:.0f} % | {row['seams']:.1f}"
        assert f"| {row['mesh']} | {row['merge']} | {figures} |" in text, row
