"""Runs web/lib/messages.js with a catalogue of web/messages, in node."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from typing import Any

import pytest
from python_source import ROOT

NODE = shutil.which("node")
PROGRAM = """
const [file, catalogue, texts, act] = process.argv.slice(1);
const source = require("fs").readFileSync(file);
import("data:text/javascript;base64," + source.toString("base64")).then((script) => {
  const translate = script.translator(JSON.parse(catalogue));
  process.stdout.write(JSON.stringify(JSON.parse(texts).map((text) => eval(act)(text, translate, script))));
});
"""


def each(texts: Sequence[str], catalogue: str, act: str) -> list[Any]:
    """What a function makes of each text. The test is skipped where node is not installed.

    Args:
        catalogue: the name of the file in web/messages.
        act: a JavaScript function of the text, `translate` and what the script exports.
    """
    if NODE is None:
        pytest.skip("node is not installed, which runs web/lib/messages.js")
    known = (ROOT / "web" / "messages" / catalogue).read_text(encoding="utf-8")
    command = [NODE, "-e", PROGRAM, str(ROOT / "web" / "lib" / "messages.js"), known, json.dumps(texts), act]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=60)
    assert done.returncode == 0, done.stderr
    found: list[Any] = json.loads(done.stdout)
    return found
