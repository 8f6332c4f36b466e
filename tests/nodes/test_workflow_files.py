"""The bundled workflows and blueprints as files: ids, texts, languages, and wires that cross no node."""

from __future__ import annotations

import json
import re
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
from comfy_pack import ROOT
from PIL import Image

sys.path.append(str(ROOT / "tests" / "comfyui"))
import bundled
import wires
from neighbours import WORKFLOWS

FILES = sorted([*(ROOT / "workflows").glob("*.json"), *(ROOT / "subgraphs").glob("*.json")])
MOST_AT_THE_TOP = 6
HANGUL = re.compile("[가-힣]")


def read(path: Path) -> dict[str, Any]:
    """The file's graph."""
    graph: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return graph


def graphs(path: Path) -> list[dict[str, Any]]:
    """The file's graph and its subgraphs."""
    graph = read(path)
    return [graph, *graph["definitions"]["subgraphs"]]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_wire_crosses_a_node(path: Path) -> None:
    for graph in graphs(path):
        assert wires.crossings(graph) == []


def test_a_crossing_is_found() -> None:
    """A node that is moved onto a wire is named."""
    graph = read(ROOT / "workflows" / "picture_to_mesh.json")
    image, inner = (next(node for node in graph["nodes"] if node["id"] == number) for number in (3, 4))
    note = next(node for node in graph["nodes"] if node["id"] == 1)
    x = (image["pos"][0] + image["size"][0] + inner["pos"][0]) / 2
    note |= {"pos": [x - 20, 0], "size": [40, 60]}
    assert any("PrimitiveStringMultiline" in crossing for crossing in wires.crossings(graph))


def test_ids_differ() -> None:
    """No two files, and no two subgraphs of one file, have one id. The same subgraph has the same id everywhere."""
    outer = [read(path)["id"] for path in FILES]
    assert len(set(outer)) == len(FILES)
    names = {(part["id"], part["name"]) for path in FILES for part in graphs(path)[1:]}
    assert len({key for key, _ in names}) == len({name for _, name in names}) == len(names)
    for key in [*outer, *(key for key, _ in names)]:
        assert uuid.UUID(key).int != 0


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_nodes_have_ids_of_their_own(path: Path) -> None:
    """The front end renumbers a subgraph's node whose id is taken."""
    ids = [node["id"] for graph in graphs(path) for node in graph["nodes"]]
    assert len(set(ids)) == len(ids)


def test_the_simple_path_is_short() -> None:
    graph = read(ROOT / "workflows" / "picture_to_mesh.json")
    kinds = {node["type"] for node in graph["nodes"]}
    assert len(graph["nodes"]) <= MOST_AT_THE_TOP
    assert kinds >= {"LoadImage", "Hy3dLowVram_Preset", "SaveGLB", graph["definitions"]["subgraphs"][0]["id"]}


def test_preset_wires_are_bundled() -> None:
    """The preset's wires leave through one reroute and run in one line for each row."""
    graph = read(ROOT / "workflows" / "hunyuan3d_8gb.json")
    starts = [wires.chain(graph, link) for link in wires.links(graph) if link["type"] == "HY3D_PRESET"]
    assert len(starts) == 7 and len({chain[0]["id"] for chain in starts}) == 1
    assert {chain[-1]["pos"][1] for chain in starts} == {bundled.LINE, bundled.GUTTER}


def texts_of(path: Path) -> set[str]:
    """Titles of groups and named nodes, names of subgraphs, and notes."""
    found = set()
    for graph in graphs(path):
        found |= {group["title"] for group in graph["groups"]} | ({graph["name"]} if "name" in graph else set())
        for node in graph["nodes"]:
            found |= {node["title"]} if "title" in node else set()
            found |= set(node["widgets_values"]) if node["type"] == "PrimitiveStringMultiline" else set()
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_text_has_a_korean_one(path: Path) -> None:
    english, korean = (
        json.loads((ROOT / "locales" / language / "main.json").read_text(encoding="utf-8"))["hunyuan3dLowVramWorkflows"]
        for language in ("en", "ko")
    )
    keys = {text: key for key, text in english.items()}
    for text in texts_of(path):
        assert HANGUL.search(korean[keys[text]]), text


def test_no_text_is_left_over() -> None:
    used = {text for path in FILES for text in texts_of(path)}
    every = {own["en"].strip() for texts in bundled.TEXTS.values() for own in texts.values()}
    assert every == used


def test_notes_name_what_is_there() -> None:
    """The notes say Load Image: no such node has a title without these words."""
    for path in (ROOT / "workflows").glob("*.json"):
        for node in read(path)["nodes"]:
            if node["type"] == "LoadImage":
                assert node.get("title", "Load Image").startswith("Load Image")


def test_every_workflow_has_a_picture() -> None:
    """The template browser shows the picture of the same name in a square of about 400 px."""
    pictures = {path.stem for path in (ROOT / "workflows").glob("*.jpg")}
    assert pictures == {path.stem for path in (ROOT / "workflows").glob("*.json")} == set(WORKFLOWS)
    for name in pictures:
        path = ROOT / "workflows" / f"{name}.jpg"
        with Image.open(path) as picture:
            assert picture.size == (480, 480)
        assert path.stat().st_size < 60_000
