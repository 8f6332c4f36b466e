"""What stands by hand in README and docs/: figures, links, quoted messages, Korean in step with English.

`make texts` writes the tables, and tests/nodes checks them.
"""

from __future__ import annotations

import ast
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import measured_tables
import pytest
import readme_tables

from lowvram_core.files.manifest import MODELS
from lowvram_core.presets import PRESETS

ROOT = Path(__file__).resolve().parents[2]

REGIONS = {
    "README.md": ("European Union", "United Kingdom", "South Korea"),
    "README.ko.md": ("유럽 연합", "영국", "대한민국"),
}
OTHERS_OPTIONS = {"--no-deps", "--format", "--force-reinstall", "--reserve-vram", "--force-fp32", "--disable-api-nodes"}
"""pip's and ComfyUI's."""
TRANSLATED = {
    "README.md": "README.ko.md",
    **{f"docs/{name}.md": f"docs/ko/{name}.md"
       for name in ("nodes", "models", "command_line", "troubleshooting", "devices", "performance", "turbo_painting")},
}  # fmt: skip
"""Each page for users with its Korean one."""
PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "demo" / "README.md")
)


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def cells(line: str) -> tuple[str, ...]:
    return tuple(cell.strip().strip("`") for cell in line.strip().strip("|").split("|"))


def test_a_run_takes_less_than_a_quarter_of_upstreams_memory() -> None:
    for name, (*_, most, reserved, theirs, theirs_reserved) in readme_tables.memory_mib().items():
        assert most < theirs / 4 and reserved < theirs_reserved / 4, name


def computed_mib() -> dict[str, list[str]]:
    """The most, the most reserved, upstream's most and upstream's most reserved of each preset, as texts show them."""
    return {name: [f"{mib:,.0f}" for mib in figures[-4:]] for name, figures in readme_tables.memory_mib().items()}


def test_the_region_note_is_near_the_top() -> None:
    for name, regions in REGIONS.items():
        top = " ".join((ROOT / name).read_text(encoding="utf-8")[:1200].replace("\n>", "").split())
        assert all(region in top for region in regions), name
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    assert "Copyright (c) 2025\n    Tencent. All Rights Reserved." in notice and "Open RAIL++-M" in notice


MEASURED = json.loads((ROOT / "benchmarks" / "results" / "h200.json").read_text(encoding="utf-8"))
"""What was measured on a GPU."""
MEASURED_PAGES = ("README.md", "README.ko.md", "docs/performance.md", "docs/ko/performance.md")


def test_measured_figures_stand_beside_todays_computed_ones() -> None:
    computed = {name: figures[:2] for name, figures in computed_mib().items()}
    computed |= dict.fromkeys(("upstream", "원본"), computed_mib()["4 GB"][2:])
    measured = [
        tuple(f"{row[key]:,}" for key in ("allocated_mib", "reserved_mib", "device_mib")) for row in MEASURED["memory"]
    ]
    for name in MEASURED_PAGES:
        table = re.search(r"^\|[^\n]*\n\|[-|]*\n(\| 2 GB[^\n]* \| 1,905 \|\n(?:\|[^\n]*\n)+)", read(name), re.MULTILINE)
        assert table, name
        found = [cells(line) for line in table[1].splitlines()]
        for preset, _, most, _, reserved, _ in found:
            assert [most, reserved] == computed[re.split(r" \(|,", preset)[0]], f"{name}: {preset}"
        assert [(row[1], row[3], row[5]) for row in found] == measured, name


@pytest.mark.parametrize("name", MEASURED_PAGES)
def test_measured_figures_say_where_when_and_how_to_repeat_them(name: str) -> None:
    text = read(name)
    for told in (MEASURED["device"], MEASURED["date"], MEASURED["torch"]):
        assert told in text, told
    assert "make bench-vram DEVICE=cuda" in text and "make bench-speed DEVICE=cuda" in text
    if "performance" in name:
        assert MEASURED["diffusers"] in text and MEASURED["transformers"] in text


@pytest.mark.parametrize("language", ["en", "ko"])
def test_the_seconds_are_those_of_the_results(
    language: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """A table of this code's seconds says so where nothing is measured, and takes the totals where something is."""
    missing = measured_tables.WORDS[language]["none"]
    phases = {row[0]: row[1:] for row in measured_tables.seconds_rows(language)}
    assert phases["decode"][0] == "7.1" and phases["unwrap"] == ["3.4"] * 4 and len(phases) == 13
    whole = measured_tables.whole_rows(language)
    assert [row[3] for row in whole[1:]] == ["37", "45 to 46" if language == "en" else "45~46", "14.1"]
    assert whole[2][2] == whole[3][1] == missing
    monkeypatch.setattr(measured_tables, "SPEED", tmp_path / "speed-cuda.json")
    assert {cell for row in measured_tables.speed_rows(language)[1:] for cell in row[1:]} == {missing}
    row = {"setting": "full", "weights": "resident", "stage": "total", "ours_s": 10.04, "upstream_s": 20.0}
    rows = [{**row, "cache": "warm", "ratio": 0.502}, {**row, "cache": "cold", "ours_s": 99, "ratio": 9}]
    measured_tables.SPEED.write_text(json.dumps({"device": "a card", "rows": rows}), encoding="utf-8")
    _, first, *others = measured_tables.speed_rows(language)
    assert first[1:] == ["a card", "10.0", "20.0", "0.50"] and {tuple(row[1:]) for row in others} == {(missing,) * 4}


def test_the_first_screen_has_a_preset_and_its_memory_for_every_card() -> None:
    computed = {name: figures[0] for name, figures in computed_mib().items()}
    for name in REGIONS:
        text = read(name)
        first = text.partition("\n![")[0]
        found = [cells(line) for line in first.splitlines() if line.startswith("|")]
        told = {row[1]: row[2].split() for row in found if row[1] in PRESETS}
        assert list(told) == ["2 GB", "4 GB", "8 GB Balanced", "12 GB", "16 GB"], name
        for preset, (figure, *note) in told.items():
            if note:
                assert figure == computed[preset], f"{name}: {preset}"
            else:
                assert f"| {preset} | {figure} | {computed[preset]} |" in text, f"{name}: {preset}"
        language = "ko" if name.endswith(".ko.md") else "en"
        full, streamed, few = (row[3] for row in measured_tables.whole_rows(language)[1:])
        none = measured_tables.WORDS[language]["none"]
        assert [row[3] for row in found if row[1] in PRESETS] == [streamed, full, few, none, none], name


def test_the_options_exist() -> None:
    from lowvram_core.app.cli import build_parser

    known = set(build_parser()._option_string_actions)
    for name in (*TRANSLATED, *TRANSLATED.values()):
        # In a command of another program, such as the driver's, an option is that program's.
        used = set(re.findall(r"(?<![-\w])--[a-z][a-z0-9-]+", read(name))) - OTHERS_OPTIONS
        assert used <= known, f"{name}: {used - known}"
    told = set(re.findall(r"(?<![-\w])--[a-z][a-z0-9-]+", read("docs/command_line.md") + read("docs/models.md")))
    assert {option for option in known if option.startswith("--")} - told <= {"--help", "--out"}


def test_hy3dgen_is_installed_from_the_one_file_that_pins_it() -> None:
    for name in PAGES:
        assert "hy3dgen==" not in read(name), name
    for name in REGIONS:
        text = read(name).replace("\\", "/")
        files = re.findall(r"-r \S*custom_nodes/hunyuan3d-lowvram/([\w./-]+?)\.?[`\s]", text)
        assert sorted(set(files)) == ["lowvram_core/requirements-hy3dgen.txt", "requirements.txt"]
        assert files.count("lowvram_core/requirements-hy3dgen.txt") == 3, "Manager, by hand, portable"
        for file in files:
            assert (ROOT / file).is_file(), file
        for command in re.findall(r"[^\n`]*requirements-hy3dgen\.txt", text):
            assert "-m pip install --no-deps -r" in command


def shape_of(name: str) -> list[str]:
    """What a translation keeps: heading levels, rows and rules of tables, lists, fences, code, pictures."""
    kept, code = [], False
    for line in read(name).splitlines():
        if line.startswith("```"):
            code = not code
            kept.append(line)
        elif code or line.startswith("<!--"):
            kept.append(line)
        elif found := re.match(r"#+ |- |\d+\. ", line):
            kept.append(found[0])
        elif line.startswith("|"):
            kept.append(f"{line.count('|')} cells")
        elif line.startswith("!["):
            kept.append(line.partition("](")[2].removeprefix("../"))
    return kept


@pytest.mark.parametrize("name", TRANSLATED)
def test_korean_has_the_same_shape(name: str) -> None:
    assert shape_of(TRANSLATED[name]) == shape_of(name)


def test_every_page_for_users_is_translated() -> None:
    assert {path for path in PAGES if "ko" in Path(path).parts} == {*TRANSLATED.values()} - {"README.ko.md"}


@pytest.mark.parametrize(("name", "count"), [("README.md", 13), ("docs/models.md", 26)])
def test_korean_has_the_same_tables(name: str, count: int) -> None:
    """Rows of figures are the same, the preset's names too; texts are translated."""
    english, korean = (
        {cells(line) for line in read(page).splitlines() if line.startswith("|")} for page in (name, TRANSLATED[name])
    )
    names = {*PRESETS, *MODELS}
    figures = {row for row in english if row[0] in names and re.fullmatch(r"~?[\d.,]+|stream|free(, CFG.*)?", row[-1])}
    assert len(figures) >= count
    assert figures <= korean


def test_korean_says_the_same_figures() -> None:
    """Numbers of two digits and more, in text and tables alike."""
    for name, translation in TRANSLATED.items():
        english, korean = (
            sorted(re.findall(r"\d[\d,.]*\d", re.sub(r"\]\([^)]*\)", "", read(page)))) for page in (name, translation)
        )
        assert set(english) == set(korean), f"{name}: {set(english) ^ set(korean)}"


def anchors(name: str) -> set[str]:
    """The addresses of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", read(name), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", PAGES)
def test_what_is_linked_is_there(name: str) -> None:
    for target, anchor in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", read(name)):
        page = os.path.normpath(Path(name).parent / target) if target else name
        assert (ROOT / page).exists(), f"{name} points to {target}"
        assert not anchor or anchor in anchors(page), f"{name} points to {target}#{anchor}"


@pytest.mark.parametrize(("name", "language"), [("docs/nodes.md", "en"), ("docs/ko/nodes.md", "ko")])
def test_every_node_has_its_section_with_a_picture(name: str, language: str) -> None:
    sections = read(name).split("\n### ")[1:]
    assert len(sections) == 22
    for section in sections:
        assert "pictures/nodes/" in section, f"{name}: {section.splitlines()[0]}"
    headings = {title.strip() for section in sections for title in section.splitlines()[0].split(", ")}
    defs = json.loads(read(f"locales/{language}/nodeDefs.json"))
    assert headings == {node["display_name"] for node in defs.values()}


def messages() -> Iterator[str]:
    """Every text of the code, with `...` for what is filled in."""
    for path in (*(ROOT / "lowvram_core").rglob("*.py"), *(ROOT / "nodes").rglob("*.py"), ROOT / "__init__.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else "..." for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


@pytest.mark.parametrize("name", ["README.md", "docs/troubleshooting.md"])
def test_quoted_messages_are_the_codes(name: str) -> None:
    """What the first column of a table by message has in backticks, `...` standing for anything."""
    lines = [line for line in read(name).partition("Every error reads")[2].splitlines() if line.startswith("|")]
    quoted = [text for line in lines for text in re.findall("`([^`]*)`", line.split("|")[1])]
    quoted = [text for text in quoted if "..." in text]
    known = list(messages())
    for text in quoted:
        pattern = re.compile(".*".join(map(re.escape, text.split("..."))), re.DOTALL)
        assert any(pattern.search(message) for message in known), f"{name}: no message reads {text!r}"
    assert len(quoted) >= 4


def left_out() -> list[str]:
    """The files and folders that the published pack lacks."""
    lines = (ROOT / ".comfyignore").read_text(encoding="utf-8").splitlines()
    return [line.rstrip("/") for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize("name", [name for name in PAGES if not name.startswith("demo")])
def test_what_is_linked_is_published(name: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)", read(name)):
        place = Path(os.path.normpath(Path(name).parent / target))
        missing = [part for part in left_out() if place.is_relative_to(part)]
        assert not missing, f"{name} points to {target}, which .comfyignore leaves out"


def test_no_published_script_needs_what_is_left_out() -> None:
    """docs/draw_nodes.py imports from tests/ and demo/."""
    for path in (ROOT / "docs").rglob("*.py"):
        assert str(path.relative_to(ROOT)) in left_out()
