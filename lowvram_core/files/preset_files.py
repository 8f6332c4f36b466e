"""Presets as JSON text, so that people can share settings.

    {"base": "8 GB Balanced", "shape_steps": 10, "texture_px": 2048}

`base` names one of PRESETS. The other names are values that differ from it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ..errors import BadInput
from ..presets import PRESETS, VALUES, Preset, get

BASE = "base"
EXAMPLE = '{"base": "8 GB Balanced", "shape_steps": 10}'


def to_json(preset: Preset) -> str:
    """Returns the shortest JSON text: the fixed preset from which the fewest values differ, and these values."""
    changes = {name: _differences(preset, base) for name, base in PRESETS.items()}
    base = min(changes, key=lambda name: len(changes[name]))
    return json.dumps({BASE: base, **changes[base]}, indent=2)


def _differences(preset: Preset, base: Preset) -> dict[str, Any]:
    every = {name: getattr(preset, name) for name in VALUES}
    return {name: value for name, value in every.items() if value != getattr(base, name)}


def from_json(text: str) -> Preset:
    """Returns the preset that the text describes. It is called Custom if a value differs from its base.

    Raises:
        BadInput: the text is no JSON object, it names no base or an unknown one, or a name or a value is unknown.
    """
    given = _parsed(text)
    if not isinstance(given.get(BASE), str):
        raise BadInput(
            f"preset: the JSON text names no base; wanted one of {', '.join(PRESETS)}. Write it, as {EXAMPLE}."
        )
    base = get(given.pop(BASE))
    for name, value in given.items():
        if name not in VALUES:
            raise BadInput(
                f"preset: {name!r} in the JSON text is no value of a preset; wanted {BASE} or the name of a value. "
                f"{_advice(name)}"
            )
        VALUES[name].check(value)
    changes = {name: VALUES[name].kind(value) for name, value in given.items()}
    changed = base.with_(**changes)
    return changed if changed == base else changed.with_(name="Custom")


def _advice(name: str) -> str:
    near = get_close_matches(name, VALUES, n=1)
    return f"Write {near[0]} if you mean that." if near else f"The names are {', '.join(VALUES)}."


def _parsed(text: str) -> dict[str, Any]:
    try:
        given = json.loads(text, object_pairs_hook=_once)
    except BadInput:
        raise
    except json.JSONDecodeError as error:
        raise _no_object(f"is no JSON: line {error.lineno}, column {error.colno}, {error.msg}") from error
    except (ValueError, RecursionError) as error:  # a number with thousands of digits; brackets thousands deep
        raise _no_object(f"cannot be read: {error}") from error
    if not isinstance(given, dict):
        raise _no_object(f"is a {type(given).__name__}")
    return given


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise BadInput(f"preset: the JSON text has {name!r} twice; wanted each name once. Remove one of them.")
        found[name] = value
    return found


def _no_object(what: str) -> BadInput:
    return BadInput(f"preset: the JSON text {what}; wanted an object. Write one such as {EXAMPLE}.")


def read_preset(path: Path) -> Preset:
    """Returns the preset that a JSON file describes.

    Raises:
        BadInput: the file cannot be read, or `from_json` refuses its text; the message names the file.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(
            f"preset: {path} could not be read ({error}); wanted a JSON file in UTF-8. Name another file."
        ) from error
    try:
        return from_json(text)
    except BadInput as error:
        raise BadInput(f"{error} The file is {path}.") from error
