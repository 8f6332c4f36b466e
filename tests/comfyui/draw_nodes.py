"""Takes pictures of nodes for the README: `python draw_nodes.py <ComfyUI's folder> [graph ...]`, about five minutes.

The nodes are the presets, Preset and Preset Auto after a run, Preset Custom, the JSON nodes, Model Check, and Memory
Report after a run of the bundled graph on the demo checkpoints. docs/draw_nodes.py draws the other nodes.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from browser import Editor, editor
from bundled import hunyuan3d_8gb
from comfy_server import ROOT, running
from graph_file import Graph
from PIL import Image

OUT = ROOT / "docs" / "pictures" / "nodes"
MOST_BYTES = 60_000
WIDEST = 900
PRESETS = ("2GB", "4GB", "8GBFast", "8GBBalanced", "8GBQuality", "8GBFull", "12GB", "16GB", "8GBTurbo")
IN_A_ROW = 5
LEFT, TOP, RIM, BADGE = 120, 160, 14, 40
"""The nodes' place in the window, and the margin around them. It is larger above, where the badges are."""

FOCUS = """
([keys, left, top]) => {
  const nodes = keys.map((key) => app.graph.getNodeById(key));
  const title = LiteGraph.NODE_TITLE_HEIGHT;
  const boxes = nodes.map(({pos, size}) => [pos[0], pos[1] - title, size[0], size[1] + title]);
  const [x, y] = [0, 1].map((axis) => Math.min(...boxes.map((box) => box[axis])));
  const [right, bottom] = [0, 1].map((axis) => Math.max(...boxes.map((box) => box[axis] + box[axis + 2])));
  app.canvas.ds.scale = 1;
  app.canvas.ds.offset[0] = left - x;
  app.canvas.ds.offset[1] = top - y;
  app.canvas.setDirty(true, true);
  return [right - x, bottom - y];
}
"""

AS_LOW_AS_TEXT = """
([ids, inARow]) => {
  const nodes = ids.map((id) => app.graph.getNodeById(id));
  nodes.forEach((node) => node.setSize([230, 72 + 11 * node.widgets[0].value.split("\\n").length]));
  const row = 70 + Math.max(...nodes.slice(0, inARow).map((node) => node.size[1]));
  nodes.forEach((node, index) => { node.pos = [node.pos[0], row * Math.floor(index / inARow)]; });
}
"""

ELSEWHERE = """
([id, demo]) => {
  const [widget] = app.graph.getNodeById(id).widgets;
  widget.value = widget.value.replaceAll(demo, "/ComfyUI/models/hunyuan3d_lowvram");
}
"""
"""Replaces the demo's folder by that of a usual ComfyUI."""


def crop(tab: Editor, ids: Sequence[str], path: Path) -> None:
    """Writes a picture of these nodes, at full size or at most WIDEST wide."""
    tab.js(FOCUS, [list(ids), LEFT, TOP])
    tab.page.wait_for_timeout(4000)  # nodes that come into view grow to the size of their pictures
    width, height = tab.js(FOCUS, [list(ids), LEFT, TOP])
    tab.page.wait_for_timeout(1000)
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        tab.shot(shot)
        with Image.open(shot) as window:
            box = LEFT - RIM, TOP - BADGE, LEFT + round(width) + RIM, TOP + round(height) + RIM
            picture = window.convert("RGB").crop(box)
    picture.thumbnail((WIDEST, picture.height), Image.Resampling.LANCZOS)
    path.parent.mkdir(parents=True, exist_ok=True)
    for quality in (85, 75, 65, 55, 45):
        picture.save(path, quality=quality, optimize=True)
        if path.stat().st_size <= MOST_BYTES:
            return


def presets(tab: Editor) -> dict[str, list[str]]:
    """All fixed presets in two rows, each only as high as its text."""
    graph = Graph("shown")
    for index, name in enumerate(PRESETS):
        graph.node(name, f"Preset{name}", (250 * (index % IN_A_ROW), 0), 230, 270)
    ids = list(tab.build_graph(graph).values())
    tab.js(AS_LOW_AS_TEXT, [ids, IN_A_ROW])
    tab.page.wait_for_timeout(1000)
    return {"presets": ids}


def auto_and_custom(tab: Editor) -> dict[str, list[str]]:
    """Preset Auto after it has chosen, and Preset Custom with its defaults."""
    graph = Graph("shown")
    graph.node("auto", "PresetAuto", (0, 0), 340, 340)
    graph.node("custom", "PresetCustom", (0, 1000), 340, 540)
    graph.node("mesh", "LoadMesh", (800, 0), 320, 60, file="mesh.glb")
    graph.node("clean", "CleanMesh", (800, 200), 320, 110)
    graph.node("save", "SaveGLB", (800, 400), 320, 300)
    graph.link("auto.preset > clean.preset", "mesh.mesh > clean.mesh", "clean.mesh > save.mesh")
    ids = tab.build_graph(graph)
    tab.run()
    return {"preset_auto": [ids["auto"]], "preset_custom": [ids["custom"]]}


def chosen_and_json(tab: Editor) -> dict[str, list[str]]:
    """Preset with a chosen preset and after a run with Auto, and a preset from a text and back to it."""
    graph = Graph("shown")
    graph.node("turbo", "Preset", (0, 0), 300, 250, preset="8 GB Turbo")
    graph.node("auto", "Preset", (330, 0), 300, 250, preset="Auto")
    graph.node("from", "PresetFromJson", (0, 1000), 360, 140)
    graph.node("to", "PresetToJson", (400, 1000), 300, 140)
    graph.link("from.preset > to.preset")
    ids = tab.build_graph(graph)
    tab.run()
    return {"preset": [ids["turbo"], ids["auto"]], "preset_json": [ids["from"], ids["to"]]}


def memory_report(tab: Editor) -> dict[str, list[str]]:
    """Memory Report after a run of the whole graph, beside the node that gives it the mesh."""
    graph = hunyuan3d_8gb()
    places = {"inpaint": (0, 2000), "report": (340, 2000)}
    for key, pos in places.items():
        graph.parts[key].pos = pos
    graph.groups.clear()
    ids = tab.build_graph(graph)
    tab.run()
    return {"memory_report": [ids[key] for key in places]}


def model_check(tab: Editor) -> dict[str, list[str]]:
    """Model Check after a run, beside its preset."""
    graph = Graph("shown")
    graph.node("preset", "Preset8GBBalanced", (0, 3000), 230, 270)
    graph.node("check", "ModelCheck", (290, 3000), 680, 290)
    graph.link("preset.preset > check.preset")
    ids = tab.build_graph(graph)
    tab.run()
    tab.js(ELSEWHERE, [ids["check"], str(ROOT / "demo")])
    return {"model_check": [ids["preset"], ids["check"]]}


GRAPHS: dict[str, Callable[[Editor], dict[str, list[str]]]] = {
    "presets": presets,
    "auto_and_custom": auto_and_custom,
    "chosen_and_json": chosen_and_json,
    "memory_report": memory_report,
    "model_check": model_check,
}
"""Functions that return the nodes to show, by the picture's name."""


def main() -> None:
    """Draws the named graphs, or all."""
    with (
        tempfile.TemporaryDirectory() as folder,
        running(Path(folder) / "comfy", Path(sys.argv[1])) as server,
        editor(server, 1800, 1300) as tab,
    ):
        for name in sys.argv[2:] or GRAPHS:
            for slug, ids in GRAPHS[name](tab).items():
                crop(tab, ids, OUT / f"{slug}.jpg")


if __name__ == "__main__":
    main()
