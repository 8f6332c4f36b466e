"""What workflows, menus and other languages rely on."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import make_texts
import node_texts
import pytest
import readme_tables
from comfy_pack import PREFIX, ROOT, Pack, module
from node_texts import GOLDEN, HELP, LOCALES, TAIL, page


def by_full_id(pack: Pack) -> dict[str, Any]:
    return {PREFIX + name: node for name, node in pack.by_id.items()}


def test_what_is_generated_is_fresh(pack: Pack) -> None:
    stale = make_texts.stale(pack.nodes)
    said = f" {node_texts.CHANGED}" if GOLDEN in stale else ""
    assert not stale, f"run `make texts`: stale are {[str(path.relative_to(ROOT)) for path in stale]}.{said}"


def test_what_is_stale_is_found(pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Help pages that are missing, and a widget with another default."""
    with monkeypatch.context() as patch:
        patch.setattr(node_texts, "HELP", tmp_path)
        pages = make_texts.stale(pack.nodes)
    assert len(pages) == 2 * len(pack.nodes) and all(path.is_relative_to(tmp_path) for path in pages)
    presets = module("nodes.presets")
    monkeypatch.setattr(presets, "BASE", presets.PRESETS["8 GB Full"])
    assert GOLDEN in make_texts.stale(pack.nodes)


@pytest.mark.parametrize("name", list(readme_tables.TABLES))
@pytest.mark.parametrize("language", ["en", "ko"])
def test_a_table_between_its_comments(name: str, language: str) -> None:
    """A stale table is replaced, what stands around it stays; every row has as many cells as the head."""
    marks = f"<!-- made by make texts: {name} -->\n", f"<!-- end of {name} -->"
    text = readme_tables.filled(f"before\n{marks[0]}| stale |\n{marks[1]}\nafter", language)
    assert text.startswith(f"before\n{marks[0]}\n| ") and text.endswith(f" |\n\n{marks[1]}\nafter")
    assert "stale" not in text and readme_tables.filled(text, language) == text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({row.count("|") for row in rows}) == 1 and set(rows[1]) == {"|", "-"}
    assert bool(re.search("[가-힣]", rows[0])) == (language == "ko")
    counts = {"models": len(readme_tables.MODELS), "preset-options": len(readme_tables.VALUES), "measured-memory": 5,
              "seconds": 12, "whole": 3, "speed": 4, "decode": 8, "decode-large": 5, "stage-values": 7}  # fmt: skip
    assert len(rows) == 2 + counts.get(name, len(readme_tables.PRESETS))


def test_an_unknown_table_is_an_error() -> None:
    with pytest.raises(ValueError, match="no table 'prices' for a README; wanted one of presets, downloads"):
        readme_tables.filled("<!-- made by make texts: prices -->\n<!-- end of prices -->", "en")


def test_ids_are_unique_and_the_packs_own(pack: Pack) -> None:
    ids = [node.GET_SCHEMA().node_id for node in pack.nodes]
    assert len(ids) == len(set(ids)) == 31
    for name in ids:
        assert re.fullmatch(r"Hy3dLowVram_[A-Z][A-Za-z0-9]+", name)


def test_an_input_and_an_output_have_different_ids(pack: Pack) -> None:
    for node in pack.nodes:
        schema = node.GET_SCHEMA()
        assert not {item.id for item in schema.inputs} & {item.id for item in schema.outputs}, schema.node_id


def test_every_input_has_a_tooltip(pack: Pack) -> None:
    for node in pack.nodes:
        schema = node.GET_SCHEMA()
        assert len(schema.description) > 20
        for item in schema.inputs:
            assert item.tooltip and item.tooltip.endswith((".", ":")), f"{schema.node_id}, {item.id}"


def test_found_in_english_and_korean(pack: Pack) -> None:
    """Each node has Korean search words of its own in locales/ko.toml; the fixed presets share theirs."""
    korean = node_texts.Korean().all
    for name, node in pack.by_id.items():
        aliases = node.GET_SCHEMA().search_aliases
        assert len(aliases) == len(set(aliases)) > 3
        assert "hunyuan3d" in aliases
        own = "FixedPreset" if node in module("nodes.presets").FIXED_PRESETS else name
        words = korean.get(own, {}).get("words", [])
        assert words and set(words) <= set(aliases), f"locales/ko.toml has no words for {own}"
        assert all(re.search("[가-힣]", word) for word in words), own


def test_no_model_on_a_socket(pack: Pack) -> None:
    types = {item.io_type for node in pack.nodes for item in node.GET_SCHEMA().outputs}
    assert types == {"HY3D_PRESET", "HY3D_VIEWS", "IMAGE", "MASK", "MESH", "STRING", "TRIMESH"}


def leaves(value: Any, path: str = "") -> dict[str, str]:
    """Every text by its path."""
    if isinstance(value, str):
        return {path: value}
    return {key: text for name, part in value.items() for key, text in leaves(part, f"{path}/{name}").items()}


@pytest.mark.parametrize("file", ["nodeDefs.json", "main.json"])
def test_korean_is_korean(file: str) -> None:
    korean = leaves(json.loads((LOCALES / "ko" / file).read_text(encoding="utf-8")))
    assert korean
    for path, text in korean.items():
        if path != "/nodeCategories/Hunyuan3D Low VRAM":
            assert re.search("[가-힣]", text), f"ko, {path} is not Korean: {text}"


def test_a_missing_korean_text_is_named(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    korean, delight = node_texts.Korean(), pack.by_id["Delight"]
    del korean.all["Delight"]["tooltips"]["image"]
    with pytest.raises(node_texts.MissingText, match=r"no tooltips\.image for \[Delight\], nor for all nodes"):
        korean.node(delight)
    del korean.all["Delight"]["title"]
    with pytest.raises(node_texts.MissingText, match=r"locales/ko\.toml has no Delight\.title\. Write it, then run"):
        korean.node(delight)
    texts = node_texts.presets.texts()
    without = {**texts, "values": {**texts["values"], "octree": {**texts["values"]["octree"], "label": {}}}}
    monkeypatch.setattr(node_texts.presets, "texts", lambda: without)
    with pytest.raises(node_texts.MissingText, match=r'presets\.toml has no label\.ko for \[values\."octree"\]'):
        korean.node(pack.by_id["PresetCustom"])


def test_no_korean_text_is_left_over(pack: Pack) -> None:
    """Every entry of locales/ko.toml is one of a node's."""
    korean = node_texts.Korean()
    for node in pack.nodes:
        korean.node(node)
    korean.menu(pack.nodes)
    every = {tuple(path.strip("/").split("/")) for path in leaves_of(korean.all)}
    assert every - {path for path in every if path[-1] == "words"} == korean.used


def leaves_of(value: Any, path: str = "") -> list[str]:
    """The path of every text, and of every list of texts."""
    if not isinstance(value, dict):
        return [path]
    return [leaf for name, part in value.items() for leaf in leaves_of(part, f"{path}/{name}")]


@pytest.mark.parametrize("language", ["en", "ko"])
def test_nothing_that_the_front_end_takes_for_a_placeholder(language: str) -> None:
    for file in ("nodeDefs.json", "main.json"):
        for path, text in leaves(json.loads((LOCALES / language / file).read_text(encoding="utf-8"))).items():
            assert not set("@{}|") & set(text), path


@pytest.mark.parametrize("language", ["en", "ko"])
def test_help_ends_with_advice(pack: Pack, language: str) -> None:
    """What is written by hand: at least two lines, in the page's language."""
    for name in by_full_id(pack):
        advice = page(name, language).read_text(encoding="utf-8").partition(TAIL[language])[2].strip()
        assert len(advice.splitlines()) >= 2, f"{name}, {language}: write its advice under {TAIL[language]!r}"
        assert bool(re.search("[가-힣]", advice)) == (language == "ko"), name


def test_help_of_both_languages_has_one_shape(pack: Pack) -> None:
    for name in by_full_id(pack):
        pages = [page(name, language).read_text(encoding="utf-8").splitlines() for language in ("en", "ko")]
        counts = [[sum(line.startswith(mark) for line in lines) for mark in "#|-`"] for lines in pages]
        assert counts[0] == counts[1], name


def test_no_stale_help(pack: Pack) -> None:
    found = {path.relative_to(HELP) for path in HELP.rglob("*.md")}
    assert found == {page(name, language).relative_to(HELP) for name in by_full_id(pack) for language in TAIL}
