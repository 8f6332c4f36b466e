"""The tables of what was measured on a GPU, for the READMEs and docs/performance.md.

benchmarks/results/h200.json was written down by hand. benchmarks/results/speed-cuda.json is what
`make bench-speed DEVICE=cuda` writes; until it is there, its table says "not measured".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
H200 = ROOT / "benchmarks" / "results" / "h200.json"
SPEED = ROOT / "benchmarks" / "results" / "speed-cuda.json"
SETTINGS = ("full", "balanced")
WEIGHTS = ("resident", "streamed")
SIDES = ("upstream", "alone", "comfyui", "comfyui_streamed")
WORDS: Mapping[str, Mapping[str, str]] = {
    "en": {
        "preset": "preset", "phase": "phase", "run": "run", "card": "card", "ratio": "ratio", "whole": "whole run",
        "allocated": "most, measured", "allocated computed": "most, computed", "reserved": "reserved, measured",
        "reserved computed": "reserved, computed", "device": "whole device, measured",
        "upstream": "upstream", "alone": "ours alone", "comfyui": "ours in ComfyUI",
        "comfyui_streamed": "ours in ComfyUI, streamed (2 GB)", "upstream row": "upstream, full quality",
        "full": "full quality", "balanced": "few steps (8 GB Balanced)", "resident": "", "streamed": ", streamed",
        "none": "not measured", "to": " to ", "about": "about {}", "in phases": "in the phases",
        "ours s": "ours, s", "upstream s": "upstream, s",
    },
    "ko": {
        "preset": "프리셋", "phase": "구간", "run": "실행", "card": "카드", "ratio": "비율", "whole": "전체",
        "allocated": "최대, 측정", "allocated computed": "최대, 계산", "reserved": "예약, 측정",
        "reserved computed": "예약, 계산", "device": "카드 전체, 측정",
        "upstream": "원본", "alone": "이 팩만", "comfyui": "ComfyUI에서",
        "comfyui_streamed": "ComfyUI에서 스트리밍(2 GB)", "upstream row": "원본, 최고 품질",
        "full": "최고 품질", "balanced": "적은 스텝(8 GB Balanced)", "resident": "", "streamed": ", 스트리밍",
        "none": "측정하지 않음", "to": "~", "about": "약 {}", "in phases": "각 구간에 포함",
        "ours s": "이 팩, 초", "upstream s": "원본, 초",
    },
}  # fmt: skip

Rows = list[list[str]]


def read(path: Path) -> Any:
    """The content of a results file."""
    return json.loads(path.read_text(encoding="utf-8"))


def memory_rows(language: str, computed: Mapping[str, list[float]]) -> Rows:
    """The head, then a row for each preset that was measured, and upstream's.

    Args:
        computed: for each preset, MiB as `readme_tables.memory_mib` gives them.
    """
    words = WORDS[language]
    columns = ("preset", "allocated", "allocated computed", "reserved", "reserved computed", "device")
    rows = [[words[name] for name in columns]]
    for row in read(H200)["memory"]:
        is_upstream = row["preset"] == "upstream"
        most, reserved = computed["4 GB"][-2:] if is_upstream else computed[row["preset"]][-4:-2]
        figures = row["allocated_mib"], most, row["reserved_mib"], reserved, row["device_mib"]
        name = words["upstream row"] if is_upstream else row["preset"]
        rows.append([name, *(f"{figure:,.0f}" for figure in figures)])
    return rows


def seconds_rows(language: str) -> Rows:
    """The head, then a row for each phase of a run at full quality, then the whole run."""
    words = WORDS[language]
    rows = [[words[name] for name in ("phase", *SIDES)]]
    for row in read(H200)["seconds"]:
        missing = words["in phases" if row["phase"] == "load" else "none"]
        cells = [_seconds(row, side, language, missing) for side in SIDES]
        rows.append([words.get(row["phase"], row["phase"]), *cells])
    return rows


def whole_rows(language: str) -> Rows:
    """The head, then a row for the whole run at full quality, at full quality streamed, and with few steps."""
    words, found = WORDS[language], read(H200)
    whole = next(row for row in found["seconds"] if row["phase"] == "whole")
    streamed = {**whole, "alone": None, "comfyui": whole["comfyui_streamed"]}
    named = {"full": whole, "full streamed": streamed, "balanced": found["balanced"]}
    rows = [[words[name] for name in ("run", *SIDES[:3])]]
    for name, row in named.items():
        setting, _, weights = name.partition(" ")
        cells = [_seconds(row, side, language, words["none"]) for side in SIDES[:3]]
        rows.append([words[setting] + words[weights or "resident"], *cells])
    return rows


def _seconds(row: Mapping[str, Any], side: str, language: str, missing: str) -> str:
    value, words = row[side], WORDS[language]
    if value is None:
        return missing
    shown = words["to"].join(str(bound) for bound in (value if isinstance(value, list) else [value]))
    return words["about"].format(shown) if side in row.get("about", ()) else shown


def speed_rows(language: str) -> Rows:
    """The head, then the whole run of each setting, resident and streamed, with a warm page cache."""
    words = WORDS[language]
    found: dict[str, Any] = read(SPEED) if SPEED.exists() else {"rows": []}
    totals = {
        (row["setting"], row["weights"]): row
        for row in found["rows"]
        if row["stage"] == "total" and row["cache"] == "warm"
    }
    rows = [[words[name] for name in ("run", "card", "ours s", "upstream s", "ratio")]]
    for setting in SETTINGS:
        for weights in WEIGHTS:
            name = words[setting] + words[weights]
            total = totals.get((setting, weights), {})
            figures = [total.get("ours_s"), total.get("upstream_s"), total.get("ratio")]
            shown = [words["none"] if figure is None else f"{figure:.{digits}f}"
                     for figure, digits in zip(figures, (1, 1, 2), strict=True)]  # fmt: skip
            rows.append([name, found["device"] if total else words["none"], *shown])
    return rows
