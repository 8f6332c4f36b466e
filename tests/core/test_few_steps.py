"""The table of painting in few steps: it is of today's code, and the pages show it."""

from __future__ import annotations

import json
from pathlib import Path

import few_steps
import pytest

ROOT = Path(__file__).resolve().parents[2]
ROWS = json.loads(few_steps.RESULT.read_text(encoding="utf-8"))["rows"]


def test_each_path_keeps_the_colour_at_any_number_of_steps() -> None:
    counts = [*few_steps.STEPS, 30]
    assert [(row["paint_variant"], row["steps"]) for row in ROWS] == [
        (variant, count) for variant in ("standard", "turbo") for count in counts
    ]
    assert all(row["from_30_steps"] == 0 for row in ROWS if row["steps"] == 30)


def test_the_committed_errors_are_those_of_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of turbo at four steps on the capsule; the committed row is the mean of two solids."""
    monkeypatch.setattr(few_steps, "PAINT_VARIANTS", ("turbo",))
    monkeypatch.setattr(few_steps, "TURBO_PAINT_STEPS", 10)
    four, ten = few_steps.measure(["capsule"], [4])
    committed = {row["steps"]: row for row in ROWS if row["paint_variant"] == "turbo"}
    assert four["steps"] == 4 and ten["from_30_steps"] == 0
    for row in (four, ten):
        assert row["from_the_colour"] == pytest.approx(committed[row["steps"]]["from_the_colour"], abs=10)
    assert four["from_30_steps"] == pytest.approx(committed[4]["from_30_steps"], abs=1)


@pytest.mark.parametrize("page", ["docs/turbo_painting.md", "docs/ko/turbo_painting.md"])
def test_the_pages_show_the_committed_rows(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for row in ROWS:
        figures = f"| {row['steps']} | {row['from_30_steps']:.2f} | {row['from_the_colour']:.1f} |"
        assert f"| {row['paint_variant']} {figures}" in text, page
