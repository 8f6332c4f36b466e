"""The translated messages that the front end shows, from locales/ko_messages.toml."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from error_messages import Messages
from python_source import ROOT

KOREAN = ROOT / "locales" / "ko_messages.toml"
WEB = ROOT / "web"
LOCALIZED = re.compile(r'localized\(\s*("(?:[^"\\]|\\.)*")')
HOLE = re.compile(r"\{\d+\}")
KINDS = ("messages", "parts")


class BadTexts(Exception):
    """Messages without a translation, or translations without a message."""


def wanted(messages: Messages | None = None) -> dict[str, set[str]]:
    """The English templates by kind, from the source of the pack and of its scripts."""
    known = messages or Messages()
    return {"messages": known.whole, "parts": known.parts | said_by_scripts()}


def said_by_scripts() -> set[str]:
    """The texts of the scripts in web/: what stands in localized("...")."""
    sources = [path.read_text(encoding="utf-8") for path in sorted(WEB.rglob("*.js"))]
    return {json.loads(text) for source in sources for text in LOCALIZED.findall(source)}


def translations(path: Path = KOREAN) -> dict[str, dict[str, str]]:
    """The translation of each template by kind."""
    read = tomllib.loads(path.read_text(encoding="utf-8"))
    return {kind: {entry["en"]: entry["ko"] for entry in read[kind]} for kind in KINDS}


def problems(english: dict[str, set[str]], korean: dict[str, dict[str, str]]) -> list[str]:
    """What is missing, stale, or has other holes than the English text; each problem as text to paste or to search."""
    found = []
    for kind in KINDS:
        found += [_entry(kind, text) for text in sorted(english[kind] - korean[kind].keys())]
        found += [f"stale, under [[{kind}]]: {text}" for text in sorted(korean[kind].keys() - english[kind])]
        found += [f"other holes than the English text, under [[{kind}]]: {text}" for text in other_holes(korean[kind])]
    return found


def other_holes(korean: Mapping[str, str]) -> list[str]:
    """The English texts whose translations do not have the same holes."""
    return [text for text, other in korean.items() if sorted(HOLE.findall(text)) != sorted(HOLE.findall(other))]


def _entry(kind: str, text: str) -> str:
    return f'[[{kind}]]\nen = {json.dumps(text, ensure_ascii=False)}\nko = ""\n'


def files() -> dict[Path, str]:
    """The file that the front end reads, and what belongs into it.

    Raises:
        BadTexts: locales/ko_messages.toml does not fit the source.
    """
    korean = translations()
    pairs = [pair for kind in KINDS for pair in korean[kind].items()]
    return catalogue(KOREAN, problems(wanted(), korean), "ko.json", pairs)


def catalogue(source: Path, found: Sequence[str], name: str, pairs: Iterable[tuple[str, str]]) -> dict[Path, str]:
    """A file of translated templates for the front end, and what belongs into it.

    Args:
        source: the hand-written file.
        found: the problems of it.
        name: the file's name in web/messages.
        pairs: each English template with its translation.

    Raises:
        BadTexts: there are problems.
    """
    if found:
        raise BadTexts(f"locales/{source.name} does not fit the source:\n" + "\n".join(found))
    rows = [json.dumps(pair, ensure_ascii=False) for pair in sorted(pairs, key=_most_literal)]
    return {WEB / "messages" / name: "[\n" + ",\n".join(rows) + "\n]\n"}


def _most_literal(pair: tuple[str, str]) -> tuple[int, str]:
    """The order in which templates are tried: the one with the most text of its own first."""
    return -len(HOLE.sub("", pair[0])), pair[0]
