"""What each text is about: help rows, computed figures, what the front end says."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from comfy_pack import Pack
from message_texts import said_by_scripts
from node_texts import HELP, LOCALES, page


def locale(language: str) -> dict[str, Any]:
    """What a language calls the nodes."""
    found: dict[str, Any] = json.loads((LOCALES / language / "nodeDefs.json").read_text(encoding="utf-8"))
    return found


def rows_of(text: str, part: int) -> dict[str, str]:
    """What a table of a help page says, by name: 0 the inputs, -1 the outputs."""
    table = [section for section in text.split("\n## ") if "\n|---|---|\n" in section][part]
    return dict(re.findall(r"^\| `([\w ]+)` \| ?(.*) \|$", table, re.MULTILINE))


@pytest.mark.parametrize("language", ["en", "ko"])
def test_help_explains_each_row_by_its_own_text(pack: Pack, language: str) -> None:
    for node in pack.nodes:
        schema = node.GET_SCHEMA()
        own, text = locale(language)[schema.node_id], page(schema.node_id, language).read_text(encoding="utf-8")
        if schema.inputs:
            rows = rows_of(text, 0)
            assert list(rows) == [item.id for item in schema.inputs], schema.node_id
            for name, told in rows.items():
                assert told.endswith(own["inputs"][name]["tooltip"]), f"{schema.node_id}, {name}: {told}"
        rows = rows_of(text, -1)
        assert list(rows) == [item.display_name for item in schema.outputs], schema.node_id
        for index, told in enumerate(rows.values()):
            assert told.endswith(own["outputs"][str(index)].get("tooltip", "")), f"{schema.node_id}, {index}: {told}"


@pytest.mark.parametrize("language", ["en", "ko"])
def test_computed_figures_stand_elsewhere(language: str) -> None:
    """In docs/ and the READMEs, where they are made or checked."""
    pages = HELP.glob("*.md") if language == "en" else HELP.rglob("ko.md")
    for file in (*pages, LOCALES / language / "nodeDefs.json"):
        found = re.findall(r"[\d.,]+ (?:MiB|MB)\b|\(computed\)|계산값", file.read_text(encoding="utf-8"))
        assert not found, f"{file.name}: {found}"


def test_the_front_end_brings_no_words_of_its_own() -> None:
    """What our scripts show comes from the nodes' texts, which the locales translate; units need no translation.

    The English texts of a setting stand in its script. ComfyUI shows those of locales/*/settings.json in their place.
    Texts in localized("...") are translated, too (texts/message_texts.py). The browser's console stays English.
    """
    settings = json.loads((LOCALES / "en" / "settings.json").read_text(encoding="utf-8"))
    known = {text for setting in settings.values() for text in setting.values()} | said_by_scripts()
    for script in HELP.parent.rglob("*.js"):
        code = re.sub(r"//[^\n]*|/\*.*?\*/", "", script.read_text(encoding="utf-8"), flags=re.DOTALL)
        shown = re.sub(r"console\.\w+\([^\n]*", "", code)
        sentences = [text for text in re.findall(r'"([^"\n]*)"', shown) if re.search(r"[a-z]{3} [a-z]", text)]
        assert set(sentences) <= known, (script.name, sentences)
