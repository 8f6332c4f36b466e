"""The real front end in headless Chromium: bundled graphs, a replaced preset, a graph built by hand, Nodes 2.0."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("playwright", reason="playwright is not installed")
from browser import Editor
from bundled import hunyuan3d_8gb
from comfy_server import CHROMIUM, ROOT, Server
from graphs import TINY, to_prompt, workflow
from PIL import Image

pytestmark = [
    pytest.mark.skipif(not CHROMIUM, reason="no chromium on the path (CHROMIUM may name it)"),
    # Playwright leaves resources to the garbage collector when a test fails.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
SHOTS = ROOT / "output" / "screenshots"
PREFIX = "Hy3dLowVram_"
WORKFLOWS = sorted(path.stem for path in (ROOT / "workflows").glob("*.json"))


def viewer_colours(tab: Editor, path: Path) -> int:
    """Counts pixels with strong colours in SaveGLB's viewer. The demo's ring is orange, the viewer's own scene grey."""
    box: dict[str, Any] = tab.js(
        "() => { const boxes = [...document.querySelectorAll('canvas')].map((part) => part.getBoundingClientRect())"
        ".filter((part) => part.width < innerWidth * 0.7 && part.width > 100);"
        " const {x, y, width, height} = boxes[0]; return {x, y, width, height}; }"
    )
    with Image.open(path) as shot:
        part = np.asarray(
            shot.convert("RGB").crop((box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"]))
        ).astype(int)
    return int(((part.max(2) - part.min(2)) > 60).sum())


def test_bundled_workflow_opens_and_runs(tab: Editor, server: Server, info: dict[str, Any]) -> None:
    """No node is missing. The viewer shows the mesh. The table and the preset's values are there."""
    graph = workflow("hunyuan3d_8gb")
    tab.load(graph)
    assert tab.missing() == []
    sent = {key: part["inputs"] for key, part in tab.prompt().items()}
    ours = {key: part["inputs"] for key, part in to_prompt(graph, info).items()}
    for key, inputs in ours.items():
        assert inputs == {name: sent[key][name] for name in inputs}
    tab.run()
    tab.page.wait_for_timeout(8000)
    tab.show_all()
    tab.shot(SHOTS / "bundled.png")
    shown = tab.texts()
    assert "inpaint" in shown[PREFIX + "MemoryReport"]
    assert "texture_px: 1536" in shown[PREFIX + "Preset"]
    assert viewer_colours(tab, SHOTS / "bundled.png") > 500
    assert tab.errors == []


def test_preset_swapped_in_the_loaded_graph(tab: Editor) -> None:
    """Preset Custom instead of 8 GB Balanced."""
    tab.load(workflow("hunyuan3d_8gb"))
    tab.make_tiny()
    ran = tab.run()["executed"]
    assert tab.node_id(PREFIX + "InpaintTexture") in ran
    shown = tab.texts()
    assert all(
        shown[PREFIX + kind].endswith(" s")
        for kind in ("RemoveBackground", "GenerateShape", "CleanMesh", "Delight", "PaintViews", "BakeTexture")
    )
    tab.page.wait_for_timeout(4000)
    tab.show_all()
    tab.shot(SHOTS / "preset_swapped.png")
    assert viewer_colours(tab, SHOTS / "preset_swapped.png") > 500
    first = shown[PREFIX + "MemoryReport"].partition("\n")[2]  # below the badge
    assert "inpaint" in first
    tab.run()
    again = tab.texts()[PREFIX + "MemoryReport"].partition("\n")[2]
    assert again.startswith("This run: 0 s. Nothing ran again.") and again.endswith(first), again


def test_graph_built_node_by_node(tab: Editor) -> None:
    """Nodes are created, placed and linked as from the menu. Then the graph runs."""
    graph = hunyuan3d_8gb()
    preset = graph.parts["preset"]
    preset.kind, preset.values = PREFIX + "PresetCustom", dict(TINY)
    tab.build_graph(graph)
    tab.run()
    tab.page.wait_for_timeout(4000)
    tab.show_all()
    tab.shot(SHOTS / "built.png")
    assert viewer_colours(tab, SHOTS / "built.png") > 500


def add_from_search(tab: Editor, words: str, at: tuple[int, int]) -> None:
    """Double-clicks on the canvas, types the node's name, presses Enter, and clicks to place the node."""
    tab.page.mouse.dblclick(*at)
    tab.page.wait_for_timeout(1500)
    tab.page.keyboard.type(words, delay=30)
    tab.page.wait_for_timeout(2000)
    tab.shot(SHOTS / "search.png")
    tab.page.keyboard.press("Enter")
    tab.page.wait_for_timeout(1000)
    tab.page.mouse.click(*at)
    tab.page.wait_for_timeout(500)


def drag_link(tab: Editor, source: str, target: str, name: str) -> None:
    """Draws a link with the mouse, from a node's first output to another node's input."""
    start, end = tab.js(
        """([source, target, name]) => {
          const find = (kind) => app.graph.nodes.find((node) => node.type === "Hy3dLowVram_" + kind);
          const {scale, offset} = app.canvas.ds;
          const corner = app.canvas.canvas.getBoundingClientRect();
          const seen = ([x, y]) => [(x + offset[0]) * scale + corner.x, (y + offset[1]) * scale + corner.y];
          const slot = find(target).inputs.findIndex((input) => input.name === name);
          return [seen(find(source).getOutputPos(0)), seen(find(target).getInputPos(slot))];
        }""",
        [source, target, name],
    )
    tab.page.mouse.move(*start)
    tab.page.mouse.down()
    tab.page.mouse.move(*end, steps=12)
    tab.page.mouse.up()
    tab.page.wait_for_timeout(300)


def test_graph_from_the_search_linked_by_the_mouse(tab: Editor) -> None:
    """Nodes are found by name and linked by hand. After the run, Preset Auto shows the card and what it chose."""
    tab.js("() => { app.graph.clear(); app.canvas.ds.reset(); }")
    places = {"PresetAuto": (250, 600), "LoadMesh": (250, 250), "CleanMesh": (800, 250), "SaveMesh": (1300, 250)}
    for kind, at in places.items():
        add_from_search(tab, re.sub("(?<=[a-z])(?=[A-Z])", " ", kind), at)
    assert tab.js("() => app.graph.nodes.map((node) => node.type)") == [PREFIX + kind for kind in places]
    for source, target, name in (
        ("PresetAuto", "CleanMesh", "preset"), ("LoadMesh", "CleanMesh", "mesh"), ("CleanMesh", "SaveMesh", "mesh"),
    ):  # fmt: skip
        drag_link(tab, source, target, name)
    tab.shot(SHOTS / "search.png")
    assert tab.node_id(PREFIX + "SaveMesh") in tab.run()["executed"]
    tab.page.wait_for_timeout(1000)
    tab.shot(SHOTS / "search.png")
    chosen = tab.texts()[PREFIX + "PresetAuto"]
    assert (
        re.search(r"CPU: [\d.]+ GiB, [\d.]+ GiB free\nNo graphics card: .*\n8 GB Fast\n", chosen)
        and "octree: " in chosen
    ), chosen


WATCH_TEXT = """
(kind) => {
  window.shown = [];
  app.api.addEventListener("progress_text", () => {
    const node = app.graph.nodes.find(({type}) => type === kind);
    const text = node.widgets.find(({name}) => name === "$$node-text-preview")?.value;
    if (text) window.shown.push(text);
  });
}
"""
"""Keeps what the node showed after each event."""


def runs_in_korean(korean: Editor) -> None:
    """Runs Clean Mesh, whose texts are Korean while it runs and after it."""
    places = {"Preset8GBFast": {}, "LoadMesh": {"file": "mesh.glb"}, "CleanMesh": {"face_budget": 500}, "SaveMesh": {}}
    nodes = [
        {"key": kind, "type": PREFIX + kind, "pos": [400 * index, 200], "values": values}
        for index, (kind, values) in enumerate(places.items())
    ]
    links = [("Preset8GBFast", "preset", "CleanMesh", "preset"), ("LoadMesh", "mesh", "CleanMesh", "mesh"),
             ("CleanMesh", "mesh", "SaveMesh", "mesh")]  # fmt: skip
    korean.build(nodes, links, [])
    korean.js(WATCH_TEXT, PREFIX + "CleanMesh")
    korean.run()
    korean.page.wait_for_timeout(1000)
    *shown, last = korean.js("() => window.shown")
    assert shown and all(re.search("[가-힣]", text) for text in shown), shown
    assert re.match(r"[\d.]+초(: clean [\d.]+)?$", last), last


def test_korean(tab: Editor, server: Server) -> None:
    """Titles and our script's texts follow the language. The values of a preset are the same in every language."""
    server.post("/settings/Comfy.Locale", "ko")
    korean = Editor(tab.page.context.browser.new_page())
    try:
        korean.open(server.url)
        kinds = ["MemoryReport", "ModelCheck", "PresetAuto", "Preset2GB"]
        korean.build([{"key": kind, "type": PREFIX + kind, "pos": [0, 0], "values": {}} for kind in kinds], [], [])
        shown = korean.js(
            "() => app.graph.nodes.map((node) => { const {label, value} ="
            " node.widgets.find((known) => known.name === 'lowvram_text'); return [node.title, label, value]; })"
        )
        *words, values = [text for node in shown for text in node]
        assert all(re.search("[가-힣]", text) for text in words), words
        assert "octree: 384" in values
        runs_in_korean(korean)
        assert korean.errors == []
    finally:
        korean.page.close()
        server.post("/settings/Comfy.Locale", "en")


@pytest.mark.parametrize("name", WORKFLOWS)
def test_vue_nodes_have_room(tab: Editor, name: str) -> None:
    """In Nodes 2.0 no node overlaps another, even with the cost line on each of our nodes."""
    tab.js("async () => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', true)")
    try:
        tab.page.wait_for_timeout(2000)
        tab.load(workflow(name))
        tab.js(
            "(prefix) => app.graph.nodes.filter(({type}) => type.startsWith(prefix) && !type.includes('Preset'))"
            ".forEach((node) => node.onExecuted({hy3d_seconds: [1], hy3d_peak_bytes: []}))",
            PREFIX,
        )
        tab.show_all()
        tab.shot(SHOTS / f"vue_{name}.png")
        assert tab.overlaps() == []
    finally:
        tab.js("async () => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', false)")


def test_vue_nodes(tab: Editor) -> None:
    """In Nodes 2.0 the graph runs, and the page shows the costs and the table."""
    tab.js("async () => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', true)")
    try:
        tab.page.wait_for_timeout(2000)
        tab.load(workflow("hunyuan3d_8gb"))
        tab.make_tiny()
        tab.set_value(tab.node_id(PREFIX + "GenerateShape"), "seed", 1)
        tab.run()
        tab.page.wait_for_timeout(5000)
        tab.show_all()
        tab.shot(SHOTS / "vue_nodes.png")
        costs = tab.js(
            "() => app.graph.nodes.flatMap((node) => (node.widgets ?? [])"
            ".filter((part) => part.name === 'lowvram_cost').map((part) => [node.type, part.value]))"
        )
        assert dict(costs)[PREFIX + "GenerateShape"].endswith(" s")
        values = tab.js("() => [...document.querySelectorAll('input')].map((part) => part.value)")
        assert {cost for _, cost in costs} <= set(values)
        assert not any("lowvram_" in name for part in tab.prompt().values() for name in part["inputs"])
        areas = tab.js("() => [...document.querySelectorAll('textarea')].map((area) => area.value).join('\\n')")
        assert "inpaint" in areas
        assert tab.errors == []
    finally:
        tab.js("async () => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', false)")
