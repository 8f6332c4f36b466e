"""What workflows, menus and other languages rely on."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from comfy_pack import PREFIX, Pack
from golden import GOLDEN, HELP, LOCALES, TAIL, categories, contract, dump, head, page, texts

CHANGED = (
    "the nodes' schemas are not those of tests/nodes/schemas.json: workflows that users have saved may break. If that "
    "is meant, run `.venv/bin/python tests/nodes/golden.py`, read its diff and say so in CHANGELOG.md."
)


def by_full_id(pack: Pack) -> dict[str, Any]:
    return {PREFIX + name: node for name, node in pack.by_id.items()}


def test_schemas_are_the_golden(pack: Pack) -> None:
    current = json.loads(dump({name: contract(node) for name, node in by_full_id(pack).items()}))
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert list(current) == list(golden), CHANGED
    for name, schema in current.items():
        assert schema == golden[name], f"{name}: {CHANGED}"


def test_ids_are_unique_and_the_packs_own(pack: Pack) -> None:
    ids = [node.GET_SCHEMA().node_id for node in pack.nodes]
    assert len(ids) == len(set(ids)) == 25
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
    for node in pack.nodes:
        aliases = node.GET_SCHEMA().search_aliases
        assert len(aliases) == len(set(aliases)) > 3
        assert "hunyuan3d" in aliases


def test_no_model_on_a_socket(pack: Pack) -> None:
    types = {item.io_type for node in pack.nodes for item in node.GET_SCHEMA().outputs}
    assert types == {"HY3D_PRESET", "HY3D_VIEWS", "IMAGE", "MASK", "MESH", "STRING", "TRIMESH"}


def test_english_is_the_codes(pack: Pack) -> None:
    current = {name: texts(node) for name, node in by_full_id(pack).items()}
    written = json.loads((LOCALES / "en" / "nodeDefs.json").read_text(encoding="utf-8"))
    assert written == current, "locales/en is stale: run `.venv/bin/python tests/nodes/golden.py`"
    menu = json.loads((LOCALES / "en" / "main.json").read_text(encoding="utf-8"))
    assert menu == {"nodeCategories": categories(pack.nodes)}


def leaves(value: Any, path: str = "") -> dict[str, str]:
    """Every text by its path."""
    if isinstance(value, str):
        return {path: value}
    return {key: text for name, part in value.items() for key, text in leaves(part, f"{path}/{name}").items()}


@pytest.mark.parametrize("file", ["nodeDefs.json", "main.json"])
def test_korean_has_every_text_and_no_other(file: str) -> None:
    english, korean = (leaves(json.loads((LOCALES / name / file).read_text(encoding="utf-8"))) for name in ("en", "ko"))
    assert korean.keys() == english.keys()
    same = {"/nodeCategories/Hunyuan3D Low VRAM"}
    for path, text in korean.items():
        if path not in same:
            assert re.search("[가-힣]", text), f"ko, {path} is not Korean: {text}"


def test_korean_keeps_the_presets_values() -> None:
    english, korean = (
        json.loads((LOCALES / name / "nodeDefs.json").read_text(encoding="utf-8")) for name in ("en", "ko")
    )
    for name, node in english.items():
        if "\n" in node["description"]:
            assert node["description"].split("\n")[1:] == korean[name]["description"].split("\n")[1:], name


@pytest.mark.parametrize("language", ["en", "ko"])
def test_nothing_that_the_front_end_takes_for_a_placeholder(language: str) -> None:
    for file in ("nodeDefs.json", "main.json"):
        for path, text in leaves(json.loads((LOCALES / language / file).read_text(encoding="utf-8"))).items():
            assert not set("@{}|") & set(text), path


@pytest.mark.parametrize("language", ["en", "ko"])
def test_help(pack: Pack, language: str) -> None:
    """A page for each node, in the file that ComfyUI looks for; its head says what the locale says."""
    for name, node in by_full_id(pack).items():
        text = page(name, language).read_text(encoding="utf-8")
        assert text.startswith(head(node, language)), f"{name}: run `.venv/bin/python tests/nodes/golden.py`"
        advice = text.removeprefix(head(node, language)).strip().splitlines()
        assert advice[0] == TAIL[language] and len(advice) > 2, name
        for item in node.GET_SCHEMA().inputs:
            assert f"| `{item.id}` |" in text, name


def test_help_of_both_languages_has_one_shape(pack: Pack) -> None:
    for name in by_full_id(pack):
        pages = [page(name, language).read_text(encoding="utf-8").splitlines() for language in ("en", "ko")]
        counts = [[sum(line.startswith(mark) for line in lines) for mark in "#|-`"] for lines in pages]
        assert counts[0] == counts[1], name


def test_no_stale_help(pack: Pack) -> None:
    found = {path.relative_to(HELP) for path in HELP.rglob("*.md")}
    assert found == {page(name, language).relative_to(HELP) for name in by_full_id(pack) for language in TAIL}
