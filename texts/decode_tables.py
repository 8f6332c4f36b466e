"""The tables of benchmarks/results/decode.json, for docs/performance.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DECODE = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "decode.json"
WORDS: Mapping[str, Mapping[str, str]] = {
    "en": {
        "octree": "octree", "logits": "logits", "fields": "fields", "share": "points asked, %", "same": "same mesh",
        "lost": "parts lost", "kept": "of these, Clean Mesh would keep", "slow": "slow", "steep": "steep",
        "queries": "points asked", "seconds": "seconds", "ram": "RAM, MiB", "faces": "faces", "to": " to ",
    },
    "ko": {
        "octree": "octree", "logits": "로짓", "fields": "필드", "share": "계산한 점, %", "same": "같은 메시",
        "lost": "잃은 조각", "kept": "그 가운데 메시 정리가 남겼을 것", "slow": "완만", "steep": "가파름",
        "queries": "계산한 점", "seconds": "초", "ram": "RAM, MiB", "faces": "면", "to": "~",
    },
}  # fmt: skip


def _sparse() -> list[dict[str, Any]]:
    rows = json.loads(DECODE.read_text(encoding="utf-8"))["rows"]
    return [row for row in rows if row["mode"] == "sparse"]


def compared_rows(language: str) -> list[list[str]]:
    """The head, then for each octree and kind of logits how the sparse decoder compares with the dense one."""
    words = WORDS[language]
    table = [[words[name] for name in ("octree", "logits", "fields", "share", "same", "lost", "kept")]]
    compared = [row for row in _sparse() if row["identical"] is not None]
    for octree, kind in sorted({(row["octree"], row["logits"]) for row in compared}):
        rows = [row for row in compared if (row["octree"], row["logits"]) == (octree, kind)]
        shares = [100 * row["share"] for row in rows]
        counted = [sum(row[name] for row in rows) for name in ("identical", "lost_parts", "lost_kept_by_clean")]
        table.append([str(octree), words[kind], str(len(rows)), f"{min(shares):.1f}{words['to']}{max(shares):.1f}",
                      *map(str, counted)])  # fmt: skip
    return table


def large_rows(language: str) -> list[list[str]]:
    """The head, then what a steep sphere costs the sparse decoder on the CPU, by octree."""
    words = WORDS[language]
    table = [[words[name] for name in ("octree", "queries", "share", "seconds", "ram", "faces")]]
    for row in sorted(_sparse(), key=lambda row: int(row["octree"])):
        if row["shape"] == "sphere" and row["logits"] == "steep":
            table.append([str(row["octree"]), f"{row['queries']:,}", f"{100 * row['share']:.1f}", str(row["seconds"]),
                          f"{row['ram_mib']:,}", f"{row['faces']:,}"])  # fmt: skip
    return table
