"""The bundled workflows and blueprints in a real ComfyUI, over its API."""

from __future__ import annotations

from typing import Any

import pytest
from comfy_server import ROOT, Server
from graphs import PREFIX, to_prompt, workflow
from neighbours import WORKFLOWS
from write_workflows import wanted

Info = dict[str, Any]


def test_files_are_what_would_be_written(info: Info) -> None:
    """Run `python tests/comfyui/write_workflows.py <ComfyUI's folder>` if this fails."""
    files = wanted(info)
    assert [path.name for path, text in files.items() if path.read_text(encoding="utf-8") != text] == []
    folders = {path.parent for path in files}
    assert {path for folder in folders for path in folder.glob("*.json")} == set(files)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_core_and_ours_only(name: str, info: Info) -> None:
    """No node of another pack is needed. Seeds are fixed, so that queueing again reuses what was made."""
    graph = workflow(name)
    prompt = to_prompt(graph, info)
    kinds = {part["class_type"] for part in prompt.values()}
    core = {kind for kind in kinds if info[kind]["python_module"].split(".")[0] in {"nodes", "comfy_extras"}}
    assert {kind for kind in kinds if kind.startswith(PREFIX)} == kinds - core
    assert "SaveGLB" in core
    for part in [graph, *graph["definitions"]["subgraphs"]]:
        assert not any("randomize" in (node["widgets_values"] or []) for node in part["nodes"])


@pytest.mark.parametrize("name", WORKFLOWS)
def test_links_have_one_type(name: str, info: Info) -> None:
    """Every link goes from an output to an input of a type that fits it, and every required input has a value."""
    prompt = to_prompt(workflow(name), info)
    for part in prompt.values():
        known = info[part["class_type"]]["input"]
        given = {**known.get("required", {}), **known.get("optional", {})}
        assert set(known.get("required", {})) <= set(part["inputs"]), part
        for slot, value in part["inputs"].items():
            if isinstance(value, list):
                kind = info[prompt[value[0]]["class_type"]]["output"][value[1]]
                assert kind in given[slot][0].split(","), (part["class_type"], slot, kind)


def test_comfyui_offers_them(server: Server) -> None:
    """The template browser lists the workflows, and the search lists the blueprints."""
    assert set(server.get("/api/workflow_templates")["hunyuan3d-lowvram"]) == set(WORKFLOWS)
    found = [part for part in server.get("/global_subgraphs").values() if "lowvram" in part["info"]["node_pack"]]
    assert {part["name"] for part in found} == {path.stem for path in (ROOT / "subgraphs").glob("*.json")}
    assert len(found) == 4
