"""CONTRIBUTING.md and docs/architecture.md name files that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from test_architecture import FLOORS, GROUND

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("CONTRIBUTING.md", "docs/architecture.md")
RECIPES = (
    "A preset value", "A preset", "A camera set", "A shape variant", "A stage", "A node", "A second paint model",
    "A widget of a node", "A private name of ComfyUI", "A workflow", "A message of an error",
    "A line that a node shows while it runs", "A GLB material property", "A benchmark",
    "Memory of a component", "A download or a model file", "Redrawing pictures",
)  # fmt: skip
MADE_BY_MAKE = ("output/",)
"""In no checkout."""


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def paths(text: str) -> list[str]:
    """What stands in backticks and has a folder or an ending of a file, alone or in a command."""
    words = [word for code in re.findall(r"`([^`\n]+)`", text) for word in code.split()]
    known = r"[\w.<>-]+(/[\w.<>-]*)+|[\w<>-]+\.(py|md|toml|json|txt|jpg)"
    return [word for word in words if re.fullmatch(known, word) and not word.startswith((".venv/", *MADE_BY_MAKE))]


def found(path: str) -> bool:
    """Whether there is such a file or folder; a <placeholder> stands for any name."""
    pattern = re.sub(r"<[^>]+>", "*", path.rstrip("/"))
    return any(ROOT.glob(pattern))


@pytest.mark.parametrize("name", PAGES)
def test_every_path_that_is_named_is_there(name: str) -> None:
    named = paths(read(name))
    assert len(named) > 10
    missing = sorted({path for path in named if not found(path)})
    assert not missing, f"{name} names {missing}"


def test_a_path_that_is_not_there_is_seen() -> None:
    assert paths("`lowvram_core/presets.py`, `a/<b>/c.py`, `python x/y.py <folder>`, `Host.borrow`, a/b") == [
        "lowvram_core/presets.py", "a/<b>/c.py", "x/y.py",
    ]  # fmt: skip
    assert found("lowvram_core/stages/<stage>.py") and found("docs/ko/")
    assert not found("lowvram_core/stages/nothing.py") and not found("lowvram_core/stages/<stage>.txt")


def test_every_recipe_is_there() -> None:
    assert tuple(re.findall(r"^### (.*)$", read("CONTRIBUTING.md"), re.MULTILINE)) == RECIPES


@pytest.mark.parametrize("name", PAGES)
def test_every_name_in_capitals_is_one_of_the_code(name: str) -> None:
    """Such as `PHASES`, which a recipe tells to edit."""
    names = set(re.findall(r"`(_?[A-Z]{2,}[A-Z_]+)`", read(name))) - {"NOTICE"}
    sources = [
        path
        for folder in ("lowvram_core", "nodes", "tests", "benchmarks", "texts")
        for path in (ROOT / folder).rglob("*.py")
    ]
    code = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    missing = sorted(one for one in names if not re.search(rf"^{one}\b.*=", code, re.MULTILINE))
    assert not missing, f"{name} names {missing}"


def test_the_tree_has_every_folder_of_the_core() -> None:
    tree = read("docs/architecture.md").partition("## The tree")[2].partition("## ")[0]
    told = set(re.findall(r"^  (\w+)/ ", tree, re.MULTILINE))
    assert told == {path.parent.name for path in (ROOT / "lowvram_core").glob("*/__init__.py")}


def test_the_floors_are_those_of_the_import_rule() -> None:
    rule = read("docs/architecture.md").partition("## The import rule")[2]
    told = {int(level): parts for level, parts in re.findall(r"^(\d)  (.*)$", rule, re.MULTILINE)}
    assert len(told) == len(FLOORS)
    for level, parts in enumerate(FLOORS, 1):
        if parts != GROUND:
            names = re.split(r" {2,}", told[level])[0]
            assert set(names.split(", ")) == parts, told[level]
