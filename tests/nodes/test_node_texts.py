"""What each text is about: help rows, the order of the locales, the words that Korean users search for."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from comfy_pack import Pack
from golden import HELP, LOCALES, locale, page


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


def keys(value: Any) -> Any:
    """The keys in their order, without the texts."""
    return [(name, keys(part)) for name, part in value.items()] if isinstance(value, dict) else None


@pytest.mark.parametrize("file", ["nodeDefs.json", "main.json"])
def test_korean_is_in_the_order_of_english(file: str) -> None:
    english, korean = (json.loads((LOCALES / name / file).read_text(encoding="utf-8")) for name in ("en", "ko"))
    assert keys(korean) == keys(english)


def test_korean_words_find_every_node(pack: Pack) -> None:
    for node in pack.nodes:
        schema = node.GET_SCHEMA()
        assert any(re.search("[가-힣]", word) for word in schema.search_aliases), schema.node_id


def test_the_front_end_brings_no_words_of_its_own() -> None:
    """What lowvram.js shows comes from the nodes' texts, which the locales translate; units need no translation."""
    code = re.sub(r"//[^\n]*|/\*.*?\*/", "", (HELP.parent / "lowvram.js").read_text(encoding="utf-8"), flags=re.DOTALL)
    sentences = [text for text in re.findall(r'"([^"\n]*)"', code) if re.search(r"[a-z] [a-z]", text)]
    assert not sentences, sentences
