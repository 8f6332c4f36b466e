"""Graphs in the format of ComfyUI's API: from workflow files, and small ones for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from comfy_server import ROOT
from graph_file import DYNAMIC, PREFIX, SINK, SOURCE, WIDGETS

Prompt = dict[str, dict[str, Any]]
TINY = {
    "shape_steps": 5, "octree": 32, "delight_steps": 2, "paint_steps": 2, "views": "minimal", "render_px": 256,
    "texture_px": 256, "face_budget": 1200, "background_model": "u2netp", "picture_px": 512,
}  # fmt: skip
STAGES = ("cut", "shape", "clean", "unwrap", "delight", "paint", "bake", "inpaint", "report", "save")


def workflow(name: str) -> dict[str, Any]:
    """A bundled workflow, as it is shipped."""
    graph: dict[str, Any] = json.loads((ROOT / "workflows" / f"{name}.json").read_text())
    return graph


def to_prompt(graph: dict[str, Any], info: dict[str, Any]) -> Prompt:
    """Converts a workflow file to the API's format, as the front end does. Subgraphs are replaced by their nodes.

    Args:
        graph: its nodes list their widget values in the order of the inputs.
        info: the server's object_info.
    """
    inner = {part["id"]: part for part in graph["definitions"]["subgraphs"]}
    outer = [node for node in graph["nodes"] if node["type"] in inner]
    source = {link[0]: (str(link[1]), link[2]) for link in graph["links"]}
    leaving = {
        (str(node["id"]), link["target_slot"]): [f"{node['id']}:{link['origin_id']}", link["origin_slot"]]
        for node in outer
        for link in inner[node["type"]]["links"]
        if link["target_id"] == SINK
    }
    prompt: Prompt = {}
    for node in graph["nodes"]:
        links = {slot["name"]: source[slot["link"]] for slot in node["inputs"] if slot.get("link") is not None}
        given: dict[str, Any] = {name: leaving.get(end, list(end)) for name, end in links.items()}
        if node["type"] in inner:
            prompt |= _inside(node, inner[node["type"]], given, info)
        else:
            inputs = _widget_values(node, info[node["type"]]) | given
            prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return prompt


def _inside(outer: dict[str, Any], inner: dict[str, Any], given: dict[str, Any], info: dict[str, Any]) -> Prompt:
    """The nodes of a subgraph. `given` are the sources of the outer node's inputs."""
    widgets = [slot["name"] for slot in outer["inputs"] if "widget" in slot]
    given = dict(zip(widgets, outer["widgets_values"], strict=True)) | given
    names = [slot["name"] for slot in inner["inputs"]]
    links = {link["id"]: link for link in inner["links"]}
    prompt: Prompt = {}
    for node in inner["nodes"]:
        inputs = _widget_values(node, info[node["type"]])
        for slot in node["inputs"]:
            link = links.get(slot["link"])
            if link is None:
                continue
            if link["origin_id"] != SOURCE:
                inputs[slot["name"]] = [f"{outer['id']}:{link['origin_id']}", link["origin_slot"]]
            elif names[link["origin_slot"]] in given:
                inputs[slot["name"]] = given[names[link["origin_slot"]]]
        prompt[f"{outer['id']}:{node['id']}"] = {"class_type": node["type"], "inputs": inputs}
    return prompt


def _widget_values(node: dict[str, Any], info: dict[str, Any]) -> dict[str, Any]:
    """The node's widget values by name. A seed's control and an upload button also have a value in the list.

    A workflow of an older version has no values for the newest widgets, which keep their defaults.
    """
    row = iter(node.get("widgets_values") or [])
    values: dict[str, Any] = {}
    for name, (kind, *rest) in _inputs(info).items():
        options = rest[0] if rest else {}
        if isinstance(kind, list) or kind in {*WIDGETS, DYNAMIC}:
            try:
                values[name] = next(row)
            except StopIteration:
                break
            if options.get("control_after_generate"):
                next(row)
        for choice in options["options"] if kind == DYNAMIC else []:
            if choice["key"] == values[name]:
                values |= {f"{name}.{inner}": next(row) for inner in choice["inputs"].get("required", {})}
    return values


def _inputs(info: dict[str, Any]) -> dict[str, Any]:
    return {**info["input"].get("required", {}), **info["input"].get("optional", {})}


def node(info: dict[str, Any], kind: str, **inputs: Any) -> dict[str, Any]:
    """One node of a prompt. Widgets that are not given keep their defaults."""
    values: dict[str, Any] = {}
    for name, (declared, *rest) in info[kind]["input"].get("required", {}).items():
        options = rest[0] if rest else {}
        if declared == "COMFY_DYNAMICCOMBO_V3":
            choice = options["options"][0]
            values[name] = choice["key"]
            nested = choice["inputs"].get("required", {})
            values |= {f"{name}.{inner}": part[1]["default"] for inner, part in nested.items()}
        elif "default" in options:
            values[name] = options["default"]
        elif declared == "COMBO":
            values[name] = options["options"][0]
    return {"class_type": kind, "inputs": values | inputs}


def ours(info: dict[str, Any], kind: str, **inputs: Any) -> dict[str, Any]:
    """One of the pack's nodes."""
    return node(info, PREFIX + kind, **inputs)


def tiny_preset(info: dict[str, Any], **values: Any) -> dict[str, Any]:
    """Preset Custom with the smallest values that still give a mesh."""
    return ours(info, "PresetCustom", **{**TINY, **values})


def picture_to_mesh(info: dict[str, Any], picture: str, preset: dict[str, Any] | None = None) -> Prompt:
    """The whole graph. The ids are STAGES, `image` and `preset`."""
    p = ["preset", 0]
    return {
        "image": node(info, "LoadImage", image=picture),
        "preset": preset or tiny_preset(info),
        "cut": ours(info, "RemoveBackground", image=["image", 0], mask=["image", 1], preset=p),
        "shape": ours(info, "GenerateShape", image=["cut", 0], mask=["cut", 1], preset=p),
        "clean": ours(info, "CleanMesh", mesh=["shape", 0], preset=p),
        "unwrap": ours(info, "UnwrapUVs", mesh=["clean", 0], preset=p),
        "delight": ours(info, "Delight", image=["cut", 0], mask=["cut", 1], preset=p),
        **texture(info, ["unwrap", 0], ["delight", 0]),
    }


def texture(info: dict[str, Any], mesh: list[Any], image: list[Any]) -> Prompt:
    """The nodes from Paint Views to the saved GLB."""
    p = ["preset", 0]
    return {
        "paint": ours(info, "PaintViews", mesh=mesh, image=image, preset=p),
        "bake": ours(info, "BakeTexture", mesh=["paint", 2], images=["paint", 0], views=["paint", 1], preset=p),
        "inpaint": ours(info, "InpaintTexture", mesh=["bake", 0], seen=["bake", 1]),
        "report": ours(info, "MemoryReport", mesh=["inpaint", 0]),
        "save": node(info, "SaveGLB", mesh=["inpaint", 0], filename_prefix="3d/test"),
    }


def saved(output: Path, ui: dict[str, Any]) -> list[Path]:
    """The files that SaveGLB reported."""
    return [output / item["subfolder"] / item["filename"] for item in ui["3d"]]
