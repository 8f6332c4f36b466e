"""The golden of the nodes' schemas, the locales and the help pages, from the schemas and locales/ko.toml."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from lowvram_core import presets

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "nodes" / "schemas.json"
LOCALES = ROOT / "locales"
HELP = ROOT / "web" / "docs"
PREFIX = "Hy3dLowVram_"
LANGUAGES = ("en", "ko")
TAIL = {"en": "## What to change", "ko": "## 무엇을 바꿀까"}
"""The heading under which a help page is written by hand."""
TABLES = {"en": ("Inputs", "input", "Outputs", "output"), "ko": ("입력", "입력", "출력", "출력")}
FIELDS = ("default", "min", "max", "step", "options", "control_after_generate")
KOREAN = LOCALES / "ko.toml"
SCRIPT_WORDS = "hunyuan3dlowvram"
"""The part of main.json that web/lib/words.js reads."""
WORKFLOWS = LOCALES / "workflows.toml"
CHANGED = (
    "The nodes' schemas change: saved workflows may break. Read the diff of tests/nodes/schemas.json, and say in "
    "CHANGELOG.md what users have to know."
)

Texts = dict[str, Any]


class MissingText(Exception):
    """A text that locales/ko.toml or presets.toml lacks."""


def dump(value: Any) -> str:
    """JSON as the files hold it."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def contract(node: Any) -> Texts:
    """What saved workflows rely on: ids, types, order, defaults and ranges of a node, without its texts."""
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


def _input(item: Any) -> Texts:
    fields = {name: getattr(item, name, None) for name in FIELDS}
    known = {name: value for name, value in fields.items() if value is not None}
    return {"id": item.id, "type": item.get_io_type(), "optional": item.optional, **known}


def english(node: Any) -> Texts:
    """A node's texts in the shape of nodeDefs.json, from its schema."""
    schema = node.GET_SCHEMA()
    inputs = {item.id: {"name": item.display_name or label(item.id), "tooltip": item.tooltip} for item in schema.inputs}
    outputs = {}
    for index, item in enumerate(schema.outputs):
        outputs[str(index)] = {"name": item.display_name, **({"tooltip": item.tooltip} if item.tooltip else {})}
    return _node(schema.display_name, schema.description, inputs, outputs)


def _node(title: str, description: str, inputs: Texts, outputs: Texts) -> Texts:
    rest = {name: value for name, value in (("inputs", inputs), ("outputs", outputs)) if value}
    return {"display_name": title, "description": description, **rest}


def label(input_id: str) -> str:
    """What ComfyUI calls an input that has no name of its own."""
    return input_id.replace("_", " ")


class Korean:
    """The Korean texts of the nodes; `used` has every entry of locales/ko.toml that was read."""

    def __init__(self) -> None:
        self.all: Texts = tomllib.loads(KOREAN.read_text(encoding="utf-8"))
        self.used: set[tuple[str, ...]] = set()

    def _read(self, *path: str) -> Any:
        found = self.all
        for part in path:
            if part not in found:
                raise MissingText(f"locales/ko.toml has no {'.'.join(path)}. Write it, then run `make texts`.")
            found = found[part]
        self.used.add(path)
        return found

    def _own(self, verb: str, kind: str, item_id: str) -> str:
        """A name or tooltip: the node's own, else the one that all nodes share."""
        mine = item_id in self.all.get(verb, {}).get(kind, {})
        text: str = self._read(verb, kind, item_id) if mine else self._shared(verb, kind, item_id)
        return text

    def _shared(self, verb: str, kind: str, item_id: str) -> str:
        if item_id not in self.all[kind]:
            raise MissingText(
                f"locales/ko.toml has no {kind}.{item_id} for [{verb}], nor for all nodes. Write it, then run "
                "`make texts`."
            )
        text: str = self._read(kind, item_id)
        return text

    def node(self, node: Any) -> Texts:
        """A node's texts in the shape of nodeDefs.json."""
        schema = node.GET_SCHEMA()
        verb = schema.node_id.removeprefix(PREFIX)
        title, description = self._head(verb, schema.description)
        inputs = {
            item.id: self._value(item.id) if verb == "PresetCustom" else self._item(verb, item)
            for item in schema.inputs
        }
        outputs = {str(index): self._item(verb, item) for index, item in enumerate(schema.outputs)}
        return _node(title, description, inputs, outputs)

    def _head(self, verb: str, description: str) -> tuple[str, str]:
        fixed = {f"Preset{name.replace(' ', '')}": name for name in presets.PRESETS}
        if verb not in fixed:
            return self._read(verb, "title"), self._read(verb, "description")
        own = _preset_text("presets", fixed[verb])
        described = "\n".join([own["summary"]["ko"], *description.split("\n")[1:]])
        return self._read("FixedPreset", "title").format(name=own["name"]["ko"]), described

    def _item(self, verb: str, item: Any) -> Texts:
        found = {"name": self._own(verb, "names", item.id)}
        return {**found, "tooltip": self._own(verb, "tooltips", item.id)} if item.tooltip else found

    def _value(self, name: str) -> Texts:
        own = _preset_text("values", name)
        return {"name": own["label"]["ko"], "tooltip": own["cost"]["ko"]}

    def menu(self, nodes: list[Any]) -> Texts:
        """Each part of the menu's path."""
        return {
            part: part if index == 0 else self._read("menu", part)
            for node in nodes
            for index, part in enumerate(node.GET_SCHEMA().category.split("/"))
        }


def _preset_text(kind: str, name: str) -> Texts:
    """The texts of a preset or a value.

    Raises:
        MissingText: presets.toml lacks one, in either language.
    """
    own: Texts = presets.texts()[kind].get(name, {})
    wanted = {"presets": ("name.ko", "summary.en", "summary.ko"), "values": ("label.ko", "cost.en", "cost.ko")}[kind]
    for text in wanted:
        part, language = text.split(".")
        if not own.get(part, {}).get(language):
            raise MissingText(
                f'lowvram_core/presets.toml has no {text} for [{kind}."{name}"]. Write it, then run `make texts`.'
            )
    return own


def script_words(language: str) -> Texts:
    """What our scripts show beside the nodes' texts (web/lib/words.js): the titles of groups, and notes."""
    found = presets.texts()
    return {
        "groups": {name: own["title"][language] for name, own in found["groups"].items()},
        "notes": {name: own["text"][language] for name, own in found["notes"].items()},
    }


def page(node_id: str, language: str) -> Path:
    """Where ComfyUI's front end looks for a node's help: a page of the language, else the English one."""
    return HELP / f"{node_id}.md" if language == "en" else HELP / node_id / f"{language}.md"


def help_page(node: Any, own: Texts, language: str) -> str:
    """A node's help page: its head is made of the node's texts, its end is kept as it was written by hand."""
    file = page(node.GET_SCHEMA().node_id, language)
    before = file.read_text(encoding="utf-8") if file.exists() else ""
    return head(node, own, language) + TAIL[language] + (before.partition(TAIL[language])[2] or "\n")


def head(node: Any, own: Texts, language: str) -> str:
    """A help page down to the heading of its hand-written end."""
    schema = node.GET_SCHEMA()
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


def _table(column: str, own: Texts, names: dict[str, str]) -> str:
    """A row for each name, explained by the text that its key has."""
    rows = [f"| {column} | |", "|---|---|"]
    for key, name in names.items():
        words = own[key]
        called = "" if words["name"] in (name, label(name)) else f"**{words['name']}**"
        told = words.get("tooltip", "")
        rows.append(f"| `{name}` | {': '.join(part for part in (called, told) if part)} |".replace("|  |", "| |"))
    return "\n".join(rows)


def workflow_texts(language: str) -> Texts:
    """Titles and notes of the bundled workflows, by key. web/workflows.js reads them."""
    kinds: Texts = tomllib.loads(WORKFLOWS.read_text(encoding="utf-8"))
    return {f"{kind}_{key}": own[language].strip() for kind, texts in kinds.items() for key, own in texts.items()}


def files(nodes: list[Any]) -> dict[Path, str]:
    """Every file that is made of the nodes' schemas, and what belongs into it."""
    ids = [node.GET_SCHEMA().node_id for node in nodes]
    korean = Korean()
    defs = {
        "en": {key: english(node) for key, node in zip(ids, nodes, strict=True)},
        "ko": {key: korean.node(node) for key, node in zip(ids, nodes, strict=True)},
    }
    menus = {"en": {part: part for part in korean.menu(nodes)}, "ko": korean.menu(nodes)}
    found = {GOLDEN: dump({key: contract(node) for key, node in zip(ids, nodes, strict=True)})}
    for language in LANGUAGES:
        found[LOCALES / language / "nodeDefs.json"] = dump(defs[language])
        found[LOCALES / language / "main.json"] = dump(
            {
                "nodeCategories": menus[language],
                SCRIPT_WORDS: script_words(language),
                "hunyuan3dLowVramWorkflows": workflow_texts(language),
            }
        )
        for key, node in zip(ids, nodes, strict=True):
            found[page(key, language)] = help_page(node, defs[language][key], language)
    return found
