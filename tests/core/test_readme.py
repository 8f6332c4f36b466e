"""What stands in the READMEs by hand; `make texts` writes their tables, and tests/nodes checks them."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "texts"))

import readme_tables  # noqa: E402  (needs the path above)

REGIONS = {
    "README.md": ("European Union", "United Kingdom", "South Korea"),
    "README.ko.md": ("유럽 연합", "영국", "대한민국"),
}
OTHERS_OPTIONS = {"--no-deps", "--format", "--force-reinstall", "--reserve-vram", "--force-fp32", "--disable-api-nodes"}
"""pip's and ComfyUI's."""


def test_a_run_takes_less_than_a_quarter_of_upstreams_memory() -> None:
    """The table's figures, of which the README says so."""
    for name, (*_, most, reserved, theirs, theirs_reserved) in readme_tables.memory_mib().items():
        assert most < theirs / 4 and reserved < theirs_reserved / 4, name


def test_the_region_note_is_near_the_top() -> None:
    for name, regions in REGIONS.items():
        top = " ".join((ROOT / name).read_text(encoding="utf-8")[:1200].replace("\n>", "").split())
        assert all(region in top for region in regions), name
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    assert "Copyright (c) 2025\n    Tencent. All Rights Reserved." in notice and "Open RAIL++-M" in notice


def test_the_options_exist() -> None:
    from lowvram_core.app.cli import build_parser

    known = set(build_parser()._option_string_actions)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    used = set(re.findall(r"(?<![-\w])--[a-z][a-z0-9-]+", text)) - OTHERS_OPTIONS
    assert used and used <= known


def shape_of(name: str) -> list[str]:
    """What a translation keeps: heading levels, rows and rules of tables, lists, fences, code, pictures."""
    kept, code = [], False
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            code = not code
            kept.append(line)
        elif code:
            kept.append(line)
        elif found := re.match(r"#+ |- |\d+\. ", line):
            kept.append(found[0])
        elif line.startswith("|"):
            kept.append(f"{line.count('|')} cells")
        elif line.startswith("!["):
            kept.append(line.partition("](")[2])
    return kept


def test_korean_has_the_same_shape() -> None:
    assert shape_of("README.ko.md") == shape_of("README.md")


def test_what_is_linked_is_there() -> None:
    for name in REGIONS:
        text = (ROOT / name).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            assert (ROOT / target).exists(), f"{name} points to {target}"


def test_every_node_has_a_picture() -> None:
    """In its section, under the node's menu name."""
    for name in REGIONS:
        text = (ROOT / name).read_text(encoding="utf-8")
        nodes = text.partition("## Nodes\n" if name == "README.md" else "## 노드\n")[2].partition("\n## ")[0]
        sections = nodes.split("\n### ")[1:]
        assert len(sections) == 18
        for section in sections:
            assert "](docs/pictures/nodes/" in section, f"{name}: {section.splitlines()[0]}"


def left_out() -> list[str]:
    """The files and folders that the published pack lacks."""
    lines = (ROOT / ".comfyignore").read_text(encoding="utf-8").splitlines()
    return [line.rstrip("/") for line in lines if line and not line.startswith("#")]


def test_what_is_linked_is_published() -> None:
    for name in (*REGIONS, "CONTRIBUTING.md", "docs/techniques.md"):
        folder = Path(name).parent
        for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / name).read_text(encoding="utf-8")):
            place = folder / target
            missing = [part for part in left_out() if place.is_relative_to(part)]
            assert not missing, f"{name} points to {target}, which .comfyignore leaves out"


def test_no_published_script_needs_what_is_left_out() -> None:
    """docs/draw_nodes.py imports from tests/ and demo/."""
    for path in (ROOT / "docs").rglob("*.py"):
        assert str(path.relative_to(ROOT)) in left_out()


def test_every_node_has_its_section() -> None:
    for name, language in (("README.md", "en"), ("README.ko.md", "ko")):
        lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        headings = " / ".join(line for line in lines if line.startswith("### "))
        defs = json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))
        missing = [node["display_name"] for node in defs.values() if node["display_name"] not in headings]
        assert not missing, f"{name} has no section of {missing}"
