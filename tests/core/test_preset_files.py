"""Presets to JSON text and back, and what is wrong with a text."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lowvram_core.errors import BadInput
from lowvram_core.files.preset_files import EXAMPLE, from_json, read_preset, to_json
from lowvram_core.presets import PRESETS, VALUES, Preset


def any_preset(rng: np.random.Generator) -> Preset:
    """A fixed preset with some values replaced by any that may be."""
    preset = PRESETS[str(rng.choice(list(PRESETS)))]
    changes = {}
    for name in rng.choice(list(VALUES), rng.integers(0, 12), replace=False):
        value = VALUES[str(name)]
        if value.kind is str:
            changes[value.name] = str(rng.choice(value.choices))
        elif value.kind is bool:
            changes[value.name] = bool(rng.integers(2))
        else:
            changes[value.name] = value.kind(rng.uniform(value.low, value.high))
    changes["paint_variant"] = "standard"  # turbo refuses many steps
    return preset.with_(**changes)


def same_values(one: Preset, other: Preset) -> bool:
    return replace(one, name="") == replace(other, name="")


@pytest.mark.parametrize("name", list(PRESETS))
def test_a_fixed_preset_is_its_base(name: str) -> None:
    assert json.loads(to_json(PRESETS[name])) == {"base": name}
    assert from_json(to_json(PRESETS[name])) == PRESETS[name]


def test_any_preset_there_and_back() -> None:
    rng = np.random.default_rng(7)
    for _ in range(200):
        preset = any_preset(rng)
        text = to_json(preset)
        back = from_json(text)
        assert same_values(back, preset), text
        assert to_json(back) == text
        assert all(type(getattr(back, name)) is value.kind for name, value in VALUES.items())


def test_only_what_differs_is_written() -> None:
    """From the base that needs the fewest values, whatever the preset is called."""
    custom = PRESETS["8 GB Balanced"].with_(name="Custom", shape_steps=10)
    assert json.loads(to_json(custom)) == {"base": "8 GB Balanced", "shape_steps": 10}
    near_fast = PRESETS["8 GB Balanced"].with_(**{**PRESETS["8 GB Fast"].own_values(), "octree": 96})
    assert near_fast.name == "8 GB Balanced" and json.loads(to_json(near_fast)) == {"base": "8 GB Fast", "octree": 96}


def test_the_example() -> None:
    assert from_json(EXAMPLE) == PRESETS["8 GB Balanced"].with_(name="Custom", shape_steps=10)
    assert from_json('{"base": "8 gb balanced", "guidance": 4}').guidance == 4.0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no JSON: line 1, column 1, Expecting value; wanted an object. Write one such as {"),
        ('{"base": "2 GB",\n octree: 3}', "is no JSON: line 2, column 2, "),
        ("[1]", "is a list; wanted an object"),
        ("[" * 100_000, "cannot be read: "),
        ('{"base": "2 GB", "octree": ' + "1" * 5000 + "}", "cannot be read: "),
        ('{"octree": 128}', "names no base; wanted one of 2 GB, 4 GB"),
        ('{"base": 8}', "names no base"),
        ('{"base": "3 GB"}', "'3 GB' is not known; wanted one of 2 GB"),
        ('{"base": "2 GB", "shape_step": 5}', "'shape_step' in the JSON text is no value.*Write shape_steps if"),
        ('{"base": "2 GB", "zzz": 5}', "'zzz' in the JSON text is no value.*The names are variant, shape_steps, "),
        ('{"base": "2 GB", "name": "mine"}', "'name' in the JSON text is no value"),
        ('{"base": "2 GB", "octree": 128, "octree": 64}', "has 'octree' twice"),
        ('{"base": "2 GB", "octree": "128"}', "octree is '128'; wanted a whole number from 16 to 1024"),
        ('{"base": "2 GB", "octree": 128.5}', "octree is 128.5; wanted a whole number"),
        ('{"base": "2 GB", "octree": true}', "octree is True; wanted a whole number"),
        ('{"base": "2 GB", "octree": 8}', "octree is 8; wanted 16 to 1024"),
        ('{"base": "2 GB", "guidance": NaN}', "guidance is nan; wanted 0.0 to 50.0"),
        ('{"base": "2 GB", "prefetch": 1}', "prefetch is 1; wanted true or false"),
        ('{"base": "2 GB", "views": ["fast"]}', r"views is \['fast'\]; wanted one of standard, fast"),
        ('{"base": "8 GB Turbo", "paint_steps": 31}', "paint_steps is 31 with paint_variant turbo"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(text: str, said: str) -> None:
    with pytest.raises(BadInput, match=f"^preset: .*{said}"):
        from_json(text)


def test_a_file(tmp_path: Path) -> None:
    """Also one that Windows' editors begin with a mark."""
    path = tmp_path / "mine.json"
    path.write_text(EXAMPLE, encoding="utf-8-sig")
    assert read_preset(path) == from_json(EXAMPLE)
    path.write_text('{"base": "2 GB", "octree": 8}', encoding="utf-8")
    with pytest.raises(BadInput, match=rf"octree is 8; .* The file is {re.escape(str(path))}\."):
        read_preset(path)
    path.write_bytes(b"\xff\xfe\x00")
    for unreadable in (path, tmp_path / "none.json", tmp_path):
        with pytest.raises(BadInput, match=rf"preset: {re.escape(str(unreadable))} could not be read"):
            read_preset(unreadable)
