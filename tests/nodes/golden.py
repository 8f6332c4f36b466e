"""Writes what the tests hold the schemas to: tests/nodes/schemas.json, locales/en/ and the heads of the help pages.

    .venv/bin/python tests/nodes/golden.py

schemas.json is what saved workflows rely on: ids, types, order, defaults and ranges. locales/en has the texts; those
of locales/ko are written by hand. A help page's head is made of its language's locale, its end ("What to change") is
written by hand and kept.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "nodes" / "schemas.json"
LOCALES = ROOT / "locales"
HELP = LOCALES.parent / "web" / "docs"
TAIL = {"en": "## What to change", "ko": "## 무엇을 바꿀까"}
TABLES = {"en": ("Inputs", "input", "Outputs", "output"), "ko": ("입력", "입력", "출력", "출력")}
FIELDS = ("default", "min", "max", "step", "options", "control_after_generate")


def contract(node: Any) -> dict[str, Any]:
    """A node's schema without its texts."""
    schema = node.GET_SCHEMA()
    return {
        "category": schema.category,
        "output_node": schema.is_output_node,
        "hidden": [item.name for item in schema.hidden],
        "inputs": [_input(item) for item in schema.inputs],
        "outputs": [
            {"id": item.id, "type": item.get_io_type() if hasattr(item, "get_io_type") else item.io_type,
             "name": item.display_name, "list": item.is_output_list}
            for item in schema.outputs
        ],
    }  # fmt: skip


def _input(item: Any) -> dict[str, Any]:
    fields = {name: getattr(item, name, None) for name in FIELDS}
    known = {name: value for name, value in fields.items() if value is not None}
    return {"id": item.id, "type": item.get_io_type(), "optional": item.optional, **known}


def texts(node: Any) -> dict[str, Any]:
    """A node's texts, in the shape of nodeDefs.json."""
    schema = node.GET_SCHEMA()
    inputs = {item.id: {"name": item.display_name or label(item.id), "tooltip": item.tooltip} for item in schema.inputs}
    outputs = {}
    for index, item in enumerate(schema.outputs):
        outputs[str(index)] = {"name": item.display_name, **({"tooltip": item.tooltip} if item.tooltip else {})}
    rest = {name: value for name, value in (("inputs", inputs), ("outputs", outputs)) if value}
    return {"display_name": schema.display_name, "description": schema.description, **rest}


def label(input_id: str) -> str:
    """How an input is called on the node."""
    return input_id.replace("_", " ")


def locale(language: str) -> dict[str, Any]:
    """What a language calls the nodes."""
    found: dict[str, Any] = json.loads((LOCALES / language / "nodeDefs.json").read_text(encoding="utf-8"))
    return found


def page(node_id: str, language: str) -> Path:
    """Where ComfyUI's front end looks for a node's help: a page of the language, else the English one."""
    return HELP / f"{node_id}.md" if language == "en" else HELP / node_id / f"{language}.md"


def head(node: Any, language: str) -> str:
    """A help page down to its end that is written by hand."""
    schema = node.GET_SCHEMA()
    own = locale(language)[schema.node_id]
    described, *values = own["description"].split("\n")
    parts = [f"# {own['display_name']}", described]
    if values:
        parts.append("\n".join(["```", *values, "```"]))
    inputs, input_column, outputs, output_column = TABLES[language]
    if schema.inputs:
        parts += [f"## {inputs}", _table(input_column, own["inputs"], {item.id: item.id for item in schema.inputs})]
    names = {str(index): item.display_name for index, item in enumerate(schema.outputs)}
    parts += [f"## {outputs}", _table(output_column, own["outputs"], names)]
    return "\n\n".join(parts) + "\n\n"


def _table(column: str, own: dict[str, Any], names: dict[str, str]) -> str:
    """A row for each name, explained by the text that its key has in the locale."""
    rows = [f"| {column} | |", "|---|---|"]
    for key, name in names.items():
        words = own[key]
        called = "" if words["name"] in (name, name.replace("_", " ")) else f"**{words['name']}**"
        told = words.get("tooltip", "")
        rows.append(f"| `{name}` | {': '.join(part for part in (called, told) if part)} |".replace("|  |", "| |"))
    return "\n".join(rows)


def dump(value: Any) -> str:
    """JSON as it lies in the files."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def categories(nodes: list[Any]) -> dict[str, str]:
    """Each part of the menu's path."""
    return {part: part for node in nodes for part in node.GET_SCHEMA().category.split("/")}


def main() -> None:
    """Writes the files."""
    sys.path[:0] = [str(ROOT / "tests"), str(Path(__file__).parent)]
    from comfy_pack import Pack

    nodes = Pack().nodes
    ids = [node.GET_SCHEMA().node_id for node in nodes]
    GOLDEN.write_text(dump({key: contract(node) for key, node in zip(ids, nodes, strict=True)}), encoding="utf-8")
    english = LOCALES / "en"
    english.mkdir(parents=True, exist_ok=True)
    found = {key: texts(node) for key, node in zip(ids, nodes, strict=True)}
    (english / "nodeDefs.json").write_text(dump(found), encoding="utf-8")
    (english / "main.json").write_text(dump({"nodeCategories": categories(nodes)}), encoding="utf-8")
    for language, mark in TAIL.items():
        for key, node in zip(ids, nodes, strict=True):
            file = page(key, language)
            tail = file.read_text(encoding="utf-8").partition(mark)[2]
            file.write_text(head(node, language) + mark + tail, encoding="utf-8")


if __name__ == "__main__":
    main()
