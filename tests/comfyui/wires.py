"""Where the front end draws the wires of a workflow file, and the nodes that they cross.

The curves are those of the classic canvas: a cubic Bezier from slot to slot, or from reroute to reroute.
"""

from __future__ import annotations

import math
from typing import Any

from graph_file import SINK, SLOT_PX, SOURCE, TITLE_PX, Json, Point

MOST_PULL = 80
"""The longest control line at a reroute."""
SAMPLES = 60
Curve = tuple[Point, Point, Point, Point]


def crossings(graph: Json) -> list[str]:
    """Wires that run over a node other than their own two: 'type.output > type.input over type'."""
    found = []
    boxes = {node["id"]: node_box(node) for node in graph["nodes"]}
    kinds = {node["id"]: f"{node['type']} {node['id']}" for node in graph["nodes"]} | {SOURCE: "in", SINK: "out"}
    for link in links(graph):
        ends = (link["origin_id"], link["target_id"])
        points = [point for curve in curves(graph, link) for point in sampled(curve)]
        for node_id, box in boxes.items():
            over = [point for point in points if inside(point, box)]
            if over and (node_id not in ends or deep(over, box)):
                found.append(f"{kinds[ends[0]]} > {kinds[ends[1]]} over {kinds[node_id]} at {over[0]}")
    return found


def deep(points: list[Point], box: list[float]) -> bool:
    """Whether a wire runs far into its own node: slots lie 10 px inside."""
    left, _, right, _ = box
    return any(left + 14 < x < right - 14 for x, _ in points)


def inside(point: Point, box: list[float]) -> bool:
    """Whether the point is in the box of left, top, right, bottom."""
    return box[0] < point[0] < box[2] and box[1] < point[1] < box[3]


def node_box(node: Json) -> list[float]:
    """Left, top, right and bottom of a node, with its title."""
    (x, y), (width, height) = node["pos"], node["size"]
    return [x, y - TITLE_PX, x + width, y + height]


def links(graph: Json) -> list[Json]:
    """The links of a workflow or a subgraph, with the reroute before their target."""
    if not graph["links"] or isinstance(graph["links"][0], dict):
        return list(graph["links"])
    fields = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    ties = {tie["id"]: tie["parentId"] for tie in graph["extra"].get("linkExtensions", [])}
    made = [dict(zip(fields, link, strict=True)) for link in graph["links"]]
    return [{**link, "parentId": ties[link["id"]]} if link["id"] in ties else link for link in made]


def reroutes(graph: Json) -> dict[int, Json]:
    """The reroutes by id."""
    known = graph["reroutes"] if "reroutes" in graph else graph["extra"].get("reroutes", [])
    return {item["id"]: item for item in known}


def chain(graph: Json, link: Json) -> list[Json]:
    """The reroutes of a link, from its origin on."""
    known, found = reroutes(graph), []
    parent: Any = link.get("parentId")
    while parent is not None:
        found.append(known[parent])
        parent = known[parent].get("parentId")
    return found[::-1]


def slot_pos(graph: Json, link: Json, side: str) -> Point:
    """Where the front end draws the link's end. `side` is origin or target."""
    node_id, slot = link[f"{side}_id"], link[f"{side}_slot"]
    if node_id in (SOURCE, SINK):
        x, y, width, _ = graph["inputNode" if node_id == SOURCE else "outputNode"]["bounding"]
        return (x + width - 10 if node_id == SOURCE else x + 10), y + SLOT_PX * (slot + 1.5)
    node = next(node for node in graph["nodes"] if node["id"] == node_id)
    (x, y), (width, _) = node["pos"], node["size"]
    if side == "origin":
        return x + width - 9, y + (slot + 0.7) * SLOT_PX
    own = node["inputs"][slot]
    if "widget" in own:
        return x + 10, y + widget_y(node, slot)
    return x + 10, y + (sum("widget" not in known for known in node["inputs"][:slot]) + 0.7) * SLOT_PX


def widget_y(node: Json, slot: int) -> float:
    """The middle of a widget's row, below the slots."""
    rows = max(sum("widget" not in known for known in node["inputs"]), len(node["outputs"]))
    above = sum("widget" in known for known in node["inputs"][:slot])
    return rows * SLOT_PX + 24 * (above + 0.5) + 4


def curves(graph: Json, link: Json) -> list[Curve]:
    """The pieces of a link."""
    start, end = slot_pos(graph, link, "origin"), slot_pos(graph, link, "target")
    passed = chain(graph, link)
    if not passed:
        pull = max(30.0, math.dist(start, end) / 4)
        return [(start, (start[0] + pull, start[1]), (end[0] - pull, end[1]), end)]
    found: list[Curve] = []
    before, control = start, (start[0] + math.dist(start, passed[0]["pos"]) / 4, start[1])
    for index, item in enumerate(passed):
        pos: Point = (item["pos"][0], item["pos"][1])
        angle = bend(graph, item, before)
        pull = min(MOST_PULL, math.dist(before, pos) / 4)
        found.append((before, control, moved(pos, angle, -pull), pos))
        after = passed[index + 1]["pos"] if index + 1 < len(passed) else end
        control = moved(pos, angle, min(MOST_PULL, math.dist(pos, after) / 4))
        before = pos
    pull = math.dist(before, end) / 4
    return [*found, (before, control, (end[0] - pull, end[1]), end)]


def bend(graph: Json, item: Json, before: Point) -> float:
    """The direction in which wires pass a reroute: halfway between the way in and the mean way out."""
    pos = item["pos"]
    ways = []
    for link in links(graph):
        passed = chain(graph, link)
        numbers = [known["id"] for known in passed]
        if item["id"] in numbers:
            index = numbers.index(item["id"])
            after = passed[index + 1]["pos"] if index + 1 < len(passed) else slot_pos(graph, link, "target")
            ways.append(math.atan2(after[1] - pos[1], after[0] - pos[0]))
    inward = math.atan2(pos[1] - before[1], pos[0] - before[0])
    half = (inward - sum(ways) / len(ways)) / 2
    if abs(half) > math.pi / 2:
        half += math.pi
    return inward - half


def moved(pos: Point, angle: float, way: float) -> Point:
    """A point at a distance in a direction."""
    return pos[0] + way * math.cos(angle), pos[1] + way * math.sin(angle)


def sampled(curve: Curve) -> list[Point]:
    """Points along a cubic Bezier curve."""
    found = []
    for index in range(SAMPLES + 1):
        t = index / SAMPLES
        weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3)
        x, y = (sum(w * point[axis] for w, point in zip(weights, curve, strict=True)) for axis in (0, 1))
        found.append((x, y))
    return found
