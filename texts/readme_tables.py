"""The tables that stand in README.md, README.ko.md and docs/*.md between a pair of comments:

    <!-- made by make texts: NAME -->
    <!-- end of NAME -->

NAME is a key of TABLES. README.ko.md and the files in docs/ko/ get the Korean table.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import decode_tables
import measured_tables

from lowvram_core.files.manifest import MODELS, gigabytes, needed
from lowvram_core.presets import PRESETS, VALUES, Value, cost, texts
from lowvram_core.stage_values import STAGE_VALUES

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "vram-meta.json"
BLOCK = re.compile(r"(<!-- made by make texts: ([\w-]+) -->\n).*?(<!-- end of \2 -->)", re.DOTALL)
HEADS = {
    "downloads": {"en": ["preset", "download and disk, GB"], "ko": ["프리셋", "내려받기와 디스크, GB"]},
    "models": {"en": ["model", "folder", "GB"], "ko": ["모델", "폴더", "GB"]},
    "memory": {
        "en": ["preset", "shape", "delight", "paint", "bake", "most", "reserved", "upstream's most", "reserved"],
        "ko": ["프리셋", "형상", "조명 제거", "채색", "굽기", "최대", "예약", "원본의 최대", "예약"],
    },
    "stage-values": {
        "en": ["node", "runs again if one of these changes"],
        "ko": ["노드", "다음 값이 바뀌면 다시 실행됩니다"],
    },
    "preset-options": {
        "en": ["option", "default", "range or choices", "what it does and costs"],
        "ko": ["옵션", "기본값", "범위 또는 선택지", "하는 일과 드는 비용"],
    },
}
WORDS = {
    "en": {"preset": "preset", True: "on", False: "off", None: "the preset's", "to": " to "},
    "ko": {"preset": "프리셋", True: "켬", False: "끔", None: "프리셋 값", "to": "~"},
}

STAGE_NODES = {
    "background": {"en": "Remove Background", "ko": "배경 제거"},
    "shape": {"en": "Generate Shape", "ko": "형상 생성"},
    "clean": {"en": "Clean Mesh", "ko": "메시 정리"},
    "unwrap": {"en": "Unwrap UVs", "ko": "UV 펼치기"},
    "delight": {"en": "Delight", "ko": "조명 제거"},
    "paint": {"en": "Paint Views", "ko": "시점 채색"},
    "bake": {"en": "Bake Texture", "ko": "텍스처 굽기"},
}
"""The node of each stage."""

Row = Sequence[str]


def table(head: Row, rows: Iterable[Row]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, *rows]).replace("\n", f"\n|{'---|' * len(head)}\n", 1)


def preset_table(language: str) -> str:
    """The values in which the presets differ."""
    columns = [name for name in VALUES if len({getattr(preset, name) for preset in PRESETS.values()}) > 1]
    head = [WORDS[language]["preset"], *(_label(name, language) for name in columns)]
    rows = [
        [preset.name, *(_shown(getattr(preset, name), language) for name in columns)] for preset in PRESETS.values()
    ]
    return table(head, rows)


def _label(name: str, language: str) -> str:
    label: str = name.replace("_", " ") if language == "en" else texts()["values"][name]["label"][language]
    return label


def _shown(value: Any, language: str) -> str:
    if isinstance(value, bool) or value is None:
        return str(WORDS[language][value])
    return str(value) if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else str(value)


def downloads(language: str) -> str:
    """What a whole run with each preset downloads."""
    return table(
        HEADS["downloads"][language], ([preset.name, gigabytes(needed(preset))] for preset in PRESETS.values())
    )


def models(language: str) -> str:
    """Every model, its folder and its size."""
    rows = [
        [f"`{model.id}`", f"`{model.repo}/{model.folder}`" if model.repo else f"`{model.folder}`", gigabytes([model])]
        for model in MODELS.values()
    ]
    return table(HEADS["models"][language], rows)


def memory(language: str) -> str:
    """The most memory that each preset takes, beside upstream's."""
    rows = [[name, *(f"{mib:,.0f}" for mib in figures)] for name, figures in memory_mib().items()]
    return table(HEADS["memory"][language], rows)


def memory_mib() -> dict[str, list[float]]:
    """MiB of each preset as benchmarks/vram.py left them: shape, delight, paint with its maps, bake with inpaint, the
    most, the most reserved, upstream's most, the most that upstream's reserves."""
    found = json.loads(RESULTS.read_text(encoding="utf-8"))["rows"]
    rows = {}
    for name in PRESETS:
        own = {row["stage"]: row for row in found if row["preset"] == name}
        groups = (("shape",), ("delight",), ("maps", "paint"), ("bake", "inpaint"))
        stages = [max(own[stage]["ours_mib"] for stage in group) for group in groups]
        most = [
            max(row[key] for row in own.values() if row[key] is not None)
            for key in ("ours_reserved_mib", "upstream_mib", "upstream_reserved_mib")
        ]
        rows[name] = [*stages, max(stages), *most]
    return rows


def peaks_mib() -> dict[str, float]:
    """The most MiB of tensors that each preset has on the device at once."""
    return {name: figures[4] for name, figures in memory_mib().items()}


def preset_options(language: str) -> str:
    """Every value of a preset: its command-line option, its default, its range and what it costs."""
    rows = [
        [_option(value), _default(value, language), _range(value, language), cost(value.name, language)]
        for value in VALUES.values()
    ]
    return table(HEADS["preset-options"][language], rows)


def stage_values(language: str) -> str:
    """The values of a preset that each stage reads."""
    rows = [[STAGE_NODES[stage][language], ", ".join(f"`{name}`" for name in VALUES if name in names)]
            for stage, names in STAGE_VALUES.items()]  # fmt: skip
    return table(HEADS["stage-values"][language], rows)


def _option(value: Value) -> str:
    if value.kind is bool:
        return f"`{value.option}`, `{value.option.replace('--', '--no-', 1)}`"
    return f"`{value.option} {'NAME' if value.kind is str else 'N'}`"


def _default(value: Value, language: str) -> str:
    shown = _shown(value.default, language)
    return f"`{shown}`" if isinstance(value.default, str) else shown


def _range(value: Value, language: str) -> str:
    if value.kind is bool:
        return f"{WORDS[language][True]}, {WORDS[language][False]}"
    if value.kind is str:
        return ", ".join(f"`{name}`" for name in value.choices)
    return f"{value.low:,g}{WORDS[language]['to']}{_number(value.high)}"


def _number(value: float) -> str:
    return f"{int(value):,}" if value == int(value) else f"{value:,g}"


def _of_rows(rows: Callable[[str], list[list[str]]]) -> Callable[[str], str]:
    def made(language: str) -> str:
        head, *body = rows(language)
        return table(head, body)

    return made


TABLES: dict[str, Callable[[str], str]] = {
    "presets": preset_table,
    "downloads": downloads,
    "models": models,
    "memory": memory,
    "preset-options": preset_options,
    "stage-values": stage_values,
    "measured-memory": _of_rows(lambda language: measured_tables.memory_rows(language, memory_mib())),
    "seconds": _of_rows(measured_tables.seconds_rows),
    "whole": _of_rows(measured_tables.whole_rows),
    "speed": _of_rows(measured_tables.speed_rows),
    "decode": _of_rows(decode_tables.compared_rows),
    "decode-large": _of_rows(decode_tables.large_rows),
}


def filled(text: str, language: str) -> str:
    """The text with every block made anew.

    Raises:
        ValueError: a block has a name that is not in TABLES.
    """

    def block(found: re.Match[str]) -> str:
        if found[2] not in TABLES:
            raise ValueError(f"there is no table {found[2]!r} for a README; wanted one of {', '.join(TABLES)}")
        return f"{found[1]}\n{TABLES[found[2]](language)}\n\n{found[3]}"

    return BLOCK.sub(block, text)


def files() -> dict[Path, str]:
    """Every README and page of docs/ that has a block, and what belongs into it."""
    pages = [*ROOT.glob("README*.md"), *(ROOT / "docs").rglob("*.md")]
    found = {page: page.read_text(encoding="utf-8") for page in pages}
    return {
        page: filled(text, "ko" if page.name.endswith(".ko.md") or page.parent.name == "ko" else "en")
        for page, text in found.items()
        if BLOCK.search(text)
    }
