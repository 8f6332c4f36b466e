"""A graph by keys, and the workflow file that ComfyUI's front end would write for it.

The file has format 0.4, and its subgraphs have format 1.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PREFIX = "Hy3dLowVram_"
CORE = {
    "LoadImage", "PrimitiveStringMultiline", "SaveGLB", "ImageOnlyCheckpointLoader", "ModelSamplingAuraFlow",
    "CLIPVisionEncode", "Hunyuan3Dv2Conditioning", "EmptyLatentHunyuan3Dv2", "KSampler", "VAEDecodeHunyuan3D",
    "VoxelToMesh", "RemeshMesh", "FillHoles", "DecimateMesh", "RenderMesh", "MeshToFile3D", "PreviewImage",
    "UpscaleModelLoader", "ImageUpscaleWithModel",
}  # fmt: skip
"""ComfyUI's own nodes that the workflows use. Every other node is one of ours."""
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COLOR"}
DYNAMIC = "COMFY_DYNAMICCOMBO_V3"
SOURCE, SINK = -10, -20
"""Ids of the two ends of a subgraph."""
TITLE_PX, SLOT_PX, WIDGET_PX, END_WIDTH_PX = 30, 20, 24, 130
NAMESPACE = uuid.UUID("8e5c6f0a-3c1b-5d5e-9b0e-6a1f4c6f7d20")
"""The ids of all graphs are made of it."""
Point = tuple[float, float]
Json = dict[str, Any]


@dataclass
class Part:
    """A node of the graph. A height of 0 is the lowest that holds its slots and widgets."""

    key: str
    kind: str
    pos: Point
    size: Point
    title: str
    values: Json
    models: list[Json]
    inside: Graph | None = None


@dataclass
class Wire:
    """A link from an output to an input, both by name, through reroutes."""

    source: tuple[str, str]
    target: tuple[str, str]
    via: tuple[Point, ...] = ()


@dataclass
class Graph:
    """A graph to write: nodes with keys, wires between `key.output` and `key.input`, groups.

    Args:
        name: a workflow's file name, or a subgraph's title. Its id is made of it, so it stays.
        inputs: a subgraph's inputs: name and type. A wire from `in.name` starts there.
        outputs: a subgraph's outputs. A wire to `out.name` ends there.
        ends: where the boxes of the subgraph's inputs and outputs are.
    """

    name: str
    inputs: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    ends: tuple[Point, Point] = ((0, 0), (0, 0))
    description: str = ""
    words: tuple[str, ...] = ()
    parts: dict[str, Part] = field(default_factory=dict)
    wires: list[Wire] = field(default_factory=list)
    groups: list[Json] = field(default_factory=list)

    def node(
        self, key: str, kind: str, pos: Point, width: float, height: float = 0, title: str = "",
        models: Sequence[Json] = (), **values: Any,
    ) -> None:  # fmt: skip
        """Adds a node. `models` are files that the front end offers to download where they are missing."""
        known = kind if kind in CORE else PREFIX + kind
        self.parts[key] = Part(key, known, pos, (width, height), title, values, list(models))

    def subgraph(self, key: str, inside: Graph, pos: Point, width: float, **values: Any) -> None:
        """Adds a node that holds another graph."""
        self.parts[key] = Part(key, inside.id, pos, (width, 0), inside.name, values, [], inside)

    def link(self, *arrows: str, via: Sequence[Point] = ()) -> None:
        """Adds wires, each written `from.output > to.input`, all through the same reroutes."""
        for arrow in arrows:
            source, target = ((key, name) for key, _, name in (end.partition(".") for end in arrow.split(" > ")))
            self.wires.append(Wire(source, target, tuple(via)))

    def bus(self, source: str, points: Sequence[tuple[Point, str]]) -> None:
        """Links one output to many inputs through a chain of reroutes. An empty target only bends the chain."""
        for index, (_, target) in enumerate(points):
            if target:
                self.link(f"{source} > {target}", via=[point for point, _ in points[: index + 1]])

    def group(self, title: str, color: str, bounds: Sequence[float]) -> None:
        """Adds a titled box: x, y, width, height."""
        self.groups.append({"title": title, "color": color, "bounding": list(bounds)})

    @property
    def id(self) -> str:
        """The UUID of a graph of this name."""
        return str(uuid.uuid5(NAMESPACE, self.name))


@dataclass
class Writer:
    """Writes graphs. `info` is the server's object_info."""

    info: Json

    def workflow(self, graph: Graph) -> Json:
        """The workflow file of a graph, with the definitions of its subgraphs."""
        made = Body(self, graph, 0)
        inner, taken = [], len(made.nodes)
        for part in graph.parts.values():
            if part.inside is not None:
                inner.append(self.definition(part.inside, taken))
                taken += len(part.inside.parts)
        extra: Json = {"ds": {"scale": 0.6, "offset": [120, 220]}}
        if made.reroutes:
            ties = [{"id": link["id"], "parentId": link["parentId"]} for link in made.links if "parentId" in link]
            extra |= {"reroutes": made.reroutes, "linkExtensions": ties}
        fields = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
        return {
            "id": graph.id, "revision": 0, "last_node_id": taken, "last_link_id": len(made.links),
            "nodes": made.nodes, "links": [[link[name] for name in fields] for link in made.links],
            "groups": made.groups(), "definitions": {"subgraphs": inner},
            "config": {}, "extra": extra, "version": 0.4,
        }  # fmt: skip

    def blueprint(self, graph: Graph) -> Json:
        """The file of a blueprint: one node that holds the graph."""
        outer = Graph(f"blueprint {graph.name}")
        outer.subgraph("only", graph, (0, 0), 340)
        made = self.workflow(outer)
        words = {"BlueprintSearchAliases": list(graph.words)} if graph.words else {}
        made["extra"] = {"BlueprintDescription": graph.description, **words}
        return made

    def definition(self, graph: Graph, taken: int) -> Json:
        """A graph as the definition of a subgraph. Its nodes' ids follow those that are taken."""
        made = Body(self, graph, taken)
        state = {
            "lastGroupId": len(graph.groups), "lastNodeId": taken + len(made.nodes), "lastLinkId": len(made.links),
            "lastRerouteId": len(made.reroutes),
        }  # fmt: skip
        return {
            "id": graph.id, "version": 1, "state": state, "revision": 0, "config": {}, "name": graph.name,
            "inputNode": {"id": SOURCE, "bounding": _end_box(graph.ends[0], graph.inputs)},
            "outputNode": {"id": SINK, "bounding": _end_box(graph.ends[1], graph.outputs)},
            "inputs": made.ends(graph.inputs, "origin", SOURCE), "outputs": made.ends(graph.outputs, "target", SINK),
            "widgets": [], "nodes": made.nodes, "groups": made.groups(), "links": made.links,
            "reroutes": made.reroutes, "extra": {}, "category": "Hunyuan3D Low VRAM",
            "description": graph.description,
        }  # fmt: skip

    def slots(self, part: Part) -> tuple[list[Json], list[Json], list[Any]]:
        """The node's inputs and outputs without links, and its widgets' values."""
        if part.inside is not None:
            return self._outside(part.inside, part.values)
        info = self.info[part.kind]
        inputs: list[Json] = []
        values: list[Any] = []
        for section in ("required", "optional"):
            for name, spec in info["input"].get(section, {}).items():
                self._add(part.values, name, spec, section == "optional", inputs, values)
        inputs.sort(key=lambda slot: "widget" in slot)  # as the front end orders them
        unknown = set(part.values) - {slot["name"] for slot in inputs}
        assert not unknown, f"{part.kind} has no widget {unknown}"
        outputs = [
            {"name": name, "type": kind, "links": []}
            for name, kind in zip(info["output_name"], info["output"], strict=True)
        ]
        return inputs, outputs, values

    def _add(
        self, given: Json, name: str, spec: list[Any], optional: bool, inputs: list[Json], values: list[Any]
    ) -> None:
        """Adds an input, and the values of its widgets in the front end's order."""
        kind, options = ("COMBO" if isinstance(spec[0], list) else spec[0]), (spec[1] if len(spec) > 1 else {})
        slot: Json = {"name": name, "type": kind, "link": None}
        inputs.append(slot)
        if kind not in WIDGETS | {DYNAMIC} or options.get("forceInput"):
            slot |= {"shape": 7} if optional else {}
            return
        slot["widget"] = {"name": name}
        value = given.get(name, _default(spec, options))
        values.append(value)
        if options.get("control_after_generate"):
            values.append("fixed")
        if options.get("image_upload"):
            values.append("image")
        for choice in options.get("options", []) if kind == DYNAMIC else []:
            if choice["key"] == value:
                for inner, part in choice["inputs"].get("required", {}).items():
                    self._add(given, f"{name}.{inner}", part, False, inputs, values)

    def _outside(self, inside: Graph, given: Json) -> tuple[list[Json], list[Json], list[Any]]:
        """The slots of a subgraph's node. An input of a widget's type is a widget."""
        inputs: list[Json] = []
        values: list[Any] = []
        for name, kind in inside.inputs.items():
            slot: Json = {"name": name, "type": kind, "link": None}
            if kind in WIDGETS:
                slot["widget"] = {"name": name}
                target = next(wire.target for wire in inside.wires if wire.source == ("in", name))
                values.append(given.get(name, self._inner_value(inside.parts[target[0]], target[1])))
            inputs.append(slot)
        outputs: list[Json] = [{"name": name, "type": kind, "links": []} for name, kind in inside.outputs.items()]
        return inputs, outputs, values

    def _inner_value(self, part: Part, name: str) -> Any:
        spec = next(spec[name] for spec in self.info[part.kind]["input"].values() if name in spec)
        return part.values.get(name, _default(spec, spec[1]))


def _default(spec: list[Any], options: Json) -> Any:
    if "default" in options:
        return options["default"]
    first = ((spec[0] if isinstance(spec[0], list) else options.get("options")) or [""])[0]
    return first["key"] if isinstance(first, dict) else first


def _end_box(pos: Point, slots: Json) -> list[float]:
    return [*pos, END_WIDTH_PX, SLOT_PX * (len(slots) + 2)]


class Body:
    """The nodes, links and reroutes of one graph, with numbers for keys."""

    def __init__(self, writer: Writer, graph: Graph, taken: int) -> None:
        self.graph = graph
        self.ids = {key: index for index, key in enumerate(graph.parts, taken + 1)}
        self.nodes = [self._node(writer, part) for part in graph.parts.values()]
        self.reroutes: list[Json] = []
        self.links = [self._link(index, wire) for index, wire in enumerate(graph.wires, 1)]
        for index, node in enumerate(sorted(self.nodes, key=lambda node: self._depth(node["id"]))):
            node["order"] = index

    def _node(self, writer: Writer, part: Part) -> Json:
        inputs, outputs, values = writer.slots(part)
        pack = "comfy-core" if part.kind in CORE else "hunyuan3d-lowvram"
        named = {} if part.inside else {"Node name for S&R": part.kind, "cnr_id": pack}
        return {
            "id": self.ids[part.key], "type": part.kind, "pos": list(part.pos),
            "size": [part.size[0], part.size[1] or lowest(inputs, outputs, values)],
            "flags": {}, "order": 0, "mode": 0,
            "inputs": inputs, "outputs": outputs, **({"title": part.title} if part.title else {}),
            "properties": {**named, **({"models": part.models} if part.models else {})}, "widgets_values": values,
        }  # fmt: skip

    def _link(self, number: int, wire: Wire) -> Json:
        origin, origin_slot = self._end(wire.source, "outputs", SOURCE)
        target, target_slot = self._end(wire.target, "inputs", SINK)
        link: Json = {
            "id": number, "origin_id": origin, "origin_slot": origin_slot,
            "target_id": target, "target_slot": target_slot, "type": self._type(wire),
        }  # fmt: skip
        if origin != SOURCE:
            self._numbered(origin)["outputs"][origin_slot]["links"].append(number)
        if target != SINK:
            self._numbered(target)["inputs"][target_slot]["link"] = number
        parent = None
        for point in wire.via:
            parent = self._reroute(point, parent, wire.source)
            self.reroutes[parent - 1]["linkIds"].append(number)
        return link if parent is None else {**link, "parentId": parent}

    def _numbered(self, node_id: int) -> Json:
        return self.nodes[node_id - self.nodes[0]["id"]]

    def _end(self, end: tuple[str, str], kind: str, outer: int) -> tuple[int, int]:
        key, name = end
        if key in ("in", "out"):
            names = list(self.graph.inputs if outer == SOURCE else self.graph.outputs)
            return outer, names.index(name)
        names = [slot["name"] for slot in self._numbered(self.ids[key])[kind]]
        return self.ids[key], names.index(name)

    def _type(self, wire: Wire) -> str:
        if wire.source[0] == "in":
            return self.graph.inputs[wire.source[1]]
        node, slot = self._end(wire.source, "outputs", SOURCE)
        kind: str = self._numbered(node)["outputs"][slot]["type"]
        return kind

    def _reroute(self, point: Point, parent: int | None, source: tuple[str, str]) -> int:
        """The number of the reroute of this source at this point. Wires of one source share it."""
        for known in self.reroutes:
            if (known["pos"], known.get("parentId"), known["source"]) == (list(point), parent, source):
                return int(known["id"])
        tie = {} if parent is None else {"parentId": parent}
        self.reroutes.append({"id": len(self.reroutes) + 1, **tie, "pos": list(point), "linkIds": [], "source": source})
        return len(self.reroutes)

    def _depth(self, node_id: int) -> int:
        before = [link["origin_id"] for link in self.links if link["target_id"] == node_id]
        return 1 + max((self._depth(origin) for origin in before if origin != SOURCE), default=0)

    def ends(self, names: Json, end: str, outer: int) -> list[Json]:
        """The slots of the subgraph's box of inputs or outputs."""
        return [
            {
                "id": str(uuid.uuid5(uuid.UUID(self.graph.id), f"{end} {name}")), "name": name, "type": kind,
                "linkIds": [
                    link["id"] for link in self.links if (link[f"{end}_id"], link[f"{end}_slot"]) == (outer, index)
                ],
            }
            for index, (name, kind) in enumerate(names.items())
        ]  # fmt: skip

    def groups(self) -> list[Json]:
        """The groups, numbered."""
        return [
            {"id": index, **group, "font_size": 24, "flags": {}} for index, group in enumerate(self.graph.groups, 1)
        ]


def lowest(inputs: list[Json], outputs: list[Json], values: list[Any]) -> float:
    """The height of a node in the classic canvas, from its slots and the widgets that are not lists of text."""
    rows = max(sum("widget" not in slot for slot in inputs), len(outputs))
    return rows * SLOT_PX + (len(values) * WIDGET_PX + 8 if values else 0) + 6


def save(path: Path, made: Json) -> None:
    """Writes the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text_of(made), encoding="utf-8")


def text_of(made: Json) -> str:
    """The file's text."""
    return json.dumps(_public(made), indent=1, ensure_ascii=False) + "\n"


def _public(value: Any) -> Any:
    """Leaves out what only this module reads: the source of a reroute."""
    if isinstance(value, dict):
        return {key: _public(part) for key, part in value.items() if not (key == "source" and "linkIds" in value)}
    return [_public(part) for part in value] if isinstance(value, list) else value
