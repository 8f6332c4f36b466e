"""docs/techniques.md: every technique has a class, existing code and an existing test; every point has an answer."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from lowvram_core.presets import Preset

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "techniques.md").read_text(encoding="utf-8")

EXACT = ("residency", "eviction", "streaming", "prompt embedded once", "dual UNet", "on the host")
REPARTITIONED = ("guidance halves", "VAE slicing", "points per chunk")
POINTS = ("A1", "A2", "A3", "A4", "A5", "A6", "A7", "A8", "B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B9")


def table(header: str) -> list[list[str]]:
    lines = TEXT[TEXT.index(header) :].splitlines()[2:]
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


TECHNIQUES = table("| technique | class | code | test | measured |")
ASKED = table("| point | asked | answer |")


@pytest.mark.parametrize("row", TECHNIQUES, ids=lambda row: row[0])
def test_a_technique_has_its_class_code_and_test(row: list[str]) -> None:
    technique, kind, code, test, measured = row
    assert kind in {"exact", "re-partitioned", "improved", "lossy"}
    assert (ROOT / code).is_file()
    file, name = test.split("::")
    assert re.search(rf"^def {name}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
    assert technique and measured


@pytest.mark.parametrize(("kind", "words"), [("exact", EXACT), ("re-partitioned", REPARTITIONED)])
def test_the_classes_hold_what_they_must(kind: str, words: tuple[str, ...]) -> None:
    names = [row[0] for row in TECHNIQUES if row[1] == kind]
    for word in words:
        assert any(word in name for name in names), f"{word} is not among the {kind} techniques"


def test_every_asked_point_is_answered() -> None:
    points = " ".join(row[0] for row in ASKED)
    for point in POINTS:
        assert re.search(rf"\b{point}\b", points), point
    for _, _, answer in ASKED:
        assert answer
        for path in re.findall(r"\blowvram_core/[\w/]+\.py\b", answer):
            assert (ROOT / path).is_file(), path


def test_the_load_figures_are_the_benchmarks() -> None:
    import json

    found = json.loads((ROOT / "benchmarks" / "results" / "load.json").read_text())
    (row,) = (row for row in TECHNIQUES if row[0].startswith("weights memory-mapped"))
    for loader in ("ours", "upstream"):
        for figure in ("peak_rss_mib", "peak_anonymous_mib"):
            assert f"{found[loader][figure]:,.0f}" in row[4]


def test_the_figures_are_the_benchmarks() -> None:
    import json

    results = ROOT / "benchmarks" / "results"
    found = json.loads((results / "techniques.json").read_text())
    import techniques

    switches = {field.name for field in fields(Preset)}
    rows = {" ".join(line.split()) for line in TEXT.splitlines()}
    for row in found["rows"]:
        assert " ".join(techniques.line(row).split()) in rows, row
        assert row["switch"] in switches or row["why"]
        assert row["why"] or None not in (row["mib"], row["seconds"]), f"{row['technique']}: a reason is missing"
    assert {row["technique"] for row in found["rows"]} >= {technique.name for technique in techniques.TECHNIQUES}
    for row in found["lossy"]:
        assert f"{row['psnr_db']} dB" in TEXT, row
    assert f"{json.loads((results / 'ram.json').read_text())['peak_rss_mib']:,.0f} MiB" in TEXT
    assert json.loads((results / "ram.json").read_text())["peak_rss_mib"] < 6000
