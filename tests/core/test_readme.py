"""The README's tables are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from test_presets import TABLE

from lowvram_core.manifest import MODELS, Model, download_bytes
from lowvram_core.presets import PRESETS

ROOT = Path(__file__).resolve().parents[2]


def cells(line: str) -> tuple[str, ...]:
    return tuple(cell.strip().strip("`") for cell in line.strip().strip("|").split("|"))


@pytest.fixture(scope="module")
def rows() -> set[tuple[str, ...]]:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    return {cells(line) for line in lines if line.startswith("|")}


def gigabytes(size: int, models: list[Model]) -> str:
    computed = any(file.known == "computed" for model in models for file in model.files)
    return f"{'~' if computed else ''}{size / 1e9:.{3 if size < 1e8 else 2}f}"


def test_the_presets(rows: set[tuple[str, ...]]) -> None:
    assert {cells(line) for line in TABLE.strip().splitlines()} <= rows


def test_the_sizes(rows: set[tuple[str, ...]]) -> None:
    for model in MODELS.values():
        folder = f"{model.repo}/{model.folder}" if model.repo else model.folder
        assert (model.id, folder, gigabytes(model.bytes, [model])) in rows
    for preset in PRESETS.values():
        assert (preset.name, f"~{download_bytes(preset) / 1e9:.2f}") in rows


def test_the_region_note_is_near_the_top() -> None:
    top = (ROOT / "README.md").read_text(encoding="utf-8")[:1200]
    assert all(region in top for region in ("European Union", "United Kingdom", "South\n> Korea"))
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    assert "Copyright (c) 2025\n    Tencent. All Rights Reserved." in notice and "Open RAIL++-M" in notice


def test_the_options_exist() -> None:
    from lowvram_core.cli import build_parser

    known = set(build_parser()._option_string_actions)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    used = set(re.findall(r"(?<![-\w])--[a-z][a-z-]+", text)) - {"--no-deps"}
    assert used and used <= known
