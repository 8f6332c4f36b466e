"""A running ComfyUI has every name that nodes/_comfy.py uses, and takes the same arguments."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import pytest
from comfy_server import ROOT, Server
from graphs import node

sys.path.append(str(ROOT / "tests" / "nodes"))
from comfy_names import NAMES


@pytest.fixture(scope="module")
def changed(server: Server, info: dict[str, Any]) -> dict[str, str]:
    """What changed, by name. A node looks while it runs, so that there is a prompt and a running node."""
    probe = node(info, "Hy3dTest_Names", salt=time.time_ns() % 2**31)
    found: dict[str, str] = json.loads(server.run({"probe": probe}).ui("probe")["text"][0])
    return found


@pytest.mark.parametrize("name", [name.where for name in NAMES])
def test_it_is_as_the_pack_uses_it(name: str, changed: dict[str, str]) -> None:
    assert not changed[name], changed[name]


def test_a_node_knows_its_prompt(changed: dict[str, str]) -> None:
    """The names lead to the running prompt and to the node in it."""
    assert changed["prompt"] == "Hy3dTest_Names"
