"""The translated texts that nodes show while they run, from locales/ko_progress.toml. The command line shows them, too,
and a few more, in English.

A line is a list of pieces with a comma between them: `step 12 of 50, about 40 s left`. The front end translates each
piece (web/progress.js). Their English templates are read out of the source: the plans of the stages, the names of the
networks, and the f-strings of the functions that make the lines. Phases keep their names, as in Memory Report.
"""

from __future__ import annotations

import ast
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

from error_messages import numbered
from message_texts import catalogue, other_holes
from python_source import ROOT, Function, Module, read_all

from lowvram_core import plans
from lowvram_core.presets import PRESETS

KOREAN = ROOT / "locales" / "ko_progress.toml"
MAKERS = {
    "lowvram_core.progress": ("line", "short_time"),
    "lowvram_core.lending.shown": ("_plan_download", "_streaming_line"),
    "lowvram_core.files.download_line": ("_line",),
}
"""The functions that make lines, by module."""
UNITS = {"GB", "MB", "MB/s", "GiB"}
LAST = "{0} s: {1}"
"""The line after a run, which `summary` in lowvram_core/report.py puts together."""
TELLERS = {"tell", "_tell"}
"""What is called with a line."""


def wanted() -> set[str]:
    """The English templates of all pieces."""
    lines = [*_planned(), *_written(read_all()), LAST]
    pieces = {renumbered(piece) for line in lines for piece in line.split(", ")}
    return {piece for piece in pieces if set(re.findall("[A-Za-z/]+", piece)) - UNITS} | _names()


def _names() -> set[str]:
    """The networks, with their size."""
    return {f"{name} {{0}}" for name in plans.LOAD_S}


def _planned() -> Iterator[str]:
    """What the parts of the plans show."""
    for preset in PRESETS.values():
        yield from (part.doing for part in plans.run_parts(preset, turntable_frames=1))


def _written(modules: Mapping[str, Module]) -> Iterator[str]:
    """The texts in the source of the makers, and in what the tellers are called with."""
    for name, functions in MAKERS.items():
        for function in functions:
            yield from _texts(_without_docstring(modules[name].functions[function]))
    for module in modules.values():
        for call, _ in module.calls:
            if isinstance(call.func, ast.Attribute) and call.func.attr in TELLERS and call.args:
                yield from _texts(call.args[0])


def _without_docstring(function: Function) -> ast.Module:
    return ast.Module([statement for statement in function.body if not _is_docstring(statement)], [])


def _is_docstring(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _texts(node: ast.AST) -> Iterator[str]:
    """The texts in an expression or statement. What an f-string fills in is a hole, and is read too."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
        for part in node.values:
            if isinstance(part, ast.FormattedValue):
                yield from _texts(part.value)
    else:
        for child in ast.iter_child_nodes(node):
            yield from _texts(child)


def renumbered(text: str) -> str:
    """The text with its holes as {0}, {1} and so on. Holes with only a space between them are one."""
    pieces = re.split(r"\{\w*\}(?: \{\w*\})*", text)
    return numbered(tuple(part for piece in pieces for part in (piece, None))[:-1])


def translations() -> dict[str, str]:
    """The translation of each template."""
    read: dict[str, str] = tomllib.loads(KOREAN.read_text(encoding="utf-8"))
    return read


def problems(english: set[str], korean: Mapping[str, str]) -> list[str]:
    """What is missing, stale, or has other holes than the English text."""
    missing = [f'{json.dumps(text)} = ""' for text in sorted(english - korean.keys())]
    stale = [f"stale: {text}" for text in sorted(korean.keys() - english)]
    return [*missing, *stale, *(f"other holes than the English text: {text}" for text in other_holes(korean))]


def files() -> dict[Path, str]:
    """The file that the front end reads, and what belongs into it.

    Raises:
        BadTexts: locales/ko_progress.toml does not fit the source.
    """
    korean = translations()
    return catalogue(KOREAN, problems(wanted(), korean), "ko_progress.json", korean.items())
