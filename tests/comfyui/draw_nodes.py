"""Takes pictures of nodes for the README: `python draw_nodes.py <ComfyUI's folder> [graph ...]`, about five minutes.

The nodes are the presets, Preset Auto after a run, Preset Custom, Model Check, and Memory Report after a run of the
bundled graph on the demo checkpoints. docs/draw_nodes.py draws the other nodes.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from browser import Editor, editor
from draw_workflows import Graph, picture_to_mesh
from PIL import Image
from server import ROOT, running

OUT = ROOT / "docs" / "pictures" / "nodes"
MOST_BYTES = 60_000
WIDEST = 900
PRESETS = ("2GB", "4GB", "8GBFast", "8GBBalanced", "8GBQuality", "8GBFull", "12GB", "16GB", "8GBTurbo")
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
(ids) => ids.forEach((id, index) => {
  const node = app.graph.getNodeById(id);
  const height = 72 + 11 * node.widgets[0].value.split("\\n").length;
  node.setSize([230, height]);
  node.pos = [node.pos[0], index < 4 ? 0 : height + 70];
})
"""

ELSEWHERE = """
([id, demo]) => {
  const [widget] = app.graph.getNodeById(id).widgets;
  widget.value = widget.value.replaceAll(demo, "/ComfyUI/models/hunyuan3d_lowvram");
}
"""
"""Replaces the demo's folder by that of a usual ComfyUI."""


def build(tab: Editor, graph: Graph) -> dict[str, str]:
    """Builds the graph in the editor. Returns the nodes' ids by key."""
    return tab.build(graph.nodes, graph.links, graph.groups)


def crop(tab: Editor, ids: Sequence[str], path: Path) -> None:
    """Writes a picture of these nodes, at full size or at most WIDEST wide."""
    width, height = tab.js(FOCUS, [list(ids), LEFT, TOP])
    tab.page.wait_for_timeout(2000)
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
    graph = Graph("")
    for index, name in enumerate(PRESETS):
        graph.node(name, f"Preset{name}", (250 * (index % 4), 0), (230, 270))
    ids = list(build(tab, graph).values())
    tab.js(AS_LOW_AS_TEXT, ids)
    tab.page.wait_for_timeout(1000)
    return {"presets": ids}


def auto_and_custom(tab: Editor) -> dict[str, list[str]]:
    """Preset Auto after it has chosen, and Preset Custom with its defaults."""
    graph = Graph("")
    graph.node("auto", "PresetAuto", (0, 0), (340, 340))
    graph.node("custom", "PresetCustom", (0, 1000), (340, 420))
    graph.node("mesh", "LoadMesh", (800, 0), (320, 60), file="mesh.glb")
    graph.node("clean", "CleanMesh", (800, 200), (320, 110))
    graph.node("save", "SaveGLB", (800, 400), (320, 300))
    graph.link("auto.preset > clean.preset", "mesh.mesh > clean.mesh", "clean.mesh > save.mesh")
    ids = build(tab, graph)
    tab.run()
    return {"preset_auto": [ids["auto"]], "preset_custom": [ids["custom"]]}


def memory_report(tab: Editor) -> dict[str, list[str]]:
    """Memory Report after a run of the whole graph, beside the node that gives it the mesh."""
    graph = picture_to_mesh("", "Preset8GBBalanced")
    places = {"inpaint": (0, 2000), "report": (340, 2000)}
    for node in graph.nodes:
        node["pos"] = places.get(node["key"], node["pos"])
    graph.groups.clear()
    ids = build(tab, graph)
    tab.run()
    return {"memory_report": [ids[key] for key in places]}


def model_check(tab: Editor) -> dict[str, list[str]]:
    """Model Check after a run, beside its preset."""
    graph = Graph("")
    graph.node("preset", "Preset8GBBalanced", (0, 3000), (230, 270))
    graph.node("check", "ModelCheck", (290, 3000), (680, 290))
    graph.link("preset.preset > check.preset")
    ids = build(tab, graph)
    tab.run()
    tab.js(ELSEWHERE, [ids["check"], str(ROOT / "demo")])
    return {"model_check": [ids["preset"], ids["check"]]}


GRAPHS: dict[str, Callable[[Editor], dict[str, list[str]]]] = {
    "presets": presets,
    "auto_and_custom": auto_and_custom,
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
