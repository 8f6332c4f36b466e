"""The bundled workflows and blueprints in the real front end: as files, inside, in Korean, and run with neighbours."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh

pytest.importorskip("playwright", reason="playwright is not installed")
import wires
from browser import Editor
from comfy_server import CHROMIUM, ROOT, Server
from graph_file import PREFIX
from graphs import to_prompt, workflow
from neighbours import WORKFLOWS
from results import textured
from test_browser import add_from_search

pytestmark = [
    pytest.mark.skipif(not CHROMIUM, reason="no chromium on the path (CHROMIUM may name it)"),
    # Playwright leaves resources to the garbage collector when a test fails.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
SHOTS = ROOT / "output" / "screenshots"
HANGUL = re.compile("[가-힣]")
HARMLESS = ("THREE.Clock", "ERR_NAME_NOT_RESOLVED", "GPU stall", "WebGL")
"""Warnings of the front end itself, and of its look-up of the sizes of models on the internet."""

FEED = """
([kind, target, input]) => {
  const made = LiteGraph.createNode(kind);
  app.graph.add(made);
  const node = app.graph.nodes.find((known) => known.type === target);
  made.connect(0, node, node.inputs.findIndex((slot) => slot.name === input));
}
"""


def same_places(tab: Editor, graph: dict[str, Any]) -> None:
    """Nodes have the sizes of the file, and wires end where test_workflow_files.py computes it."""
    live = {number: (size, outputs, inputs) for number, size, outputs, inputs in tab.sizes()}
    for node in graph["nodes"]:
        assert live[node["id"]][0] == pytest.approx(node["size"], abs=1), node["type"]
    for link in wires.links(graph):
        for side, places in (("origin", 1), ("target", 2)):
            number, slot = link[f"{side}_id"], link[f"{side}_slot"]
            is_widget = number > 0 and side == "target" and link["origin_id"] == wires.SOURCE and link["type"] == "INT"
            if number > 0 and not is_widget:  # a widget's place is known only after it is drawn
                assert live[number][places][slot] == pytest.approx(wires.slot_pos(graph, link, side), abs=3), link


@pytest.mark.parametrize("name", WORKFLOWS)
def test_opens_as_it_is_written(tab: Editor, info: dict[str, Any], name: str) -> None:
    """No node is missing, nothing is reported, nothing is moved, and the prompt is what the file says."""
    tab.warnings.clear()
    graph = workflow(name)
    tab.load(graph)
    assert tab.missing() == [] and tab.errors == []
    same_places(tab, graph)
    tab.show_all()
    tab.shot(SHOTS / f"{name}.png")
    for inner in graph["definitions"]["subgraphs"]:
        tab.open_subgraph(inner["id"])
        same_places(tab, inner)
        tab.show_all()
        tab.shot(SHOTS / f"{name}_inside.png")
        tab.js("() => app.canvas.setGraph(app.graph)")
    assert [text for text in tab.warnings if not any(word in text for word in HARMLESS)] == []
    sent = {key: part["inputs"] for key, part in tab.prompt().items()}
    ours = {key: part["inputs"] for key, part in to_prompt(graph, info).items()}
    assert set(sent) == set(ours)
    for key, inputs in ours.items():
        assert inputs == {slot: sent[key].get(slot) for slot in inputs}


def meshes(server: Server) -> set[Path]:
    """The GLB files of all runs."""
    return set((server.output / "3d").glob("*.glb"))


def ran(
    tab: Editor, server: Server, name: str, feeds: list[tuple[str, str, str]], values: dict[str, Any]
) -> list[Path]:
    """Runs a workflow with tiny values. `feeds` are test nodes: kind, then the kind and input that they link to."""
    before = meshes(server)
    tab.load(workflow(name))
    tab.make_tiny()
    for feed in feeds:
        tab.js(FEED, list(feed))
    for key, value in values.items():
        kind, _, widget = key.partition(".")
        tab.set_value(tab.node_id(kind), widget, value)
    tab.run()
    tab.page.wait_for_timeout(3000)
    tab.show_all()
    tab.shot(SHOTS / f"{name}_run.png")
    return sorted(meshes(server) - before)


VOXELS = [("Hy3dTest_Ball", "VoxelToMesh", "voxel")]
TRIMESH = [
    (PREFIX + "TrimeshToMesh", PREFIX + "UnwrapUVs", "mesh"),
    ("Hy3dTest_TrimeshBox", PREFIX + "TrimeshToMesh", "trimesh"),
]
SMALL = {
    "RemeshMesh.resolution": 48, "DecimateMesh.target_face_count": 800,
    "RenderMesh.width": 96, "RenderMesh.height": 96,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "feeds", "values", "count"),
    [
        ("picture_to_mesh", [], {}, 1),
        ("with_core_shape_2_0", VOXELS, {}, 1),
        ("with_core_shape_2_1", VOXELS, {"VoxelToMesh.threshold": 0.5}, 1),
        ("with_upscaled_views", [], {}, 1),
        ("with_folder_of_pictures", [], {}, 2),
        ("texture_own_mesh", TRIMESH, {}, 1),
    ],
)
def test_runs_with_neighbours(
    tab: Editor, server: Server, name: str, feeds: list[Any], values: dict[str, Any], count: int
) -> None:
    """Each ends in a textured GLB. Core's checkpoints are not here: a ball of voxels stands for what they make."""
    found = ran(tab, server, name, feeds, values)
    assert len(found) == count and tab.errors == []
    for path in found:
        textured(path)


def test_core_tools_keep_the_shape(tab: Editor, server: Server) -> None:
    """Remesh Mesh works in a cube with sides of 1. Clean Mesh scales the mesh for it, so nothing is cut off.

    The result is one closed surface, so that no colours are spent on an inner one.
    """
    (path,) = ran(tab, server, "with_core_mesh_tools", [], SMALL)
    given = trimesh.load(server.input / "mesh.glb", force="mesh")
    found = textured(path)
    assert np.allclose(sorted(found.extents / found.extents.max()), [0.5, 0.5, 1.0], atol=0.06)
    solid = trimesh.Trimesh(found.vertices, found.faces)  # without the seams of the UVs
    assert solid.is_watertight and len(solid.split()) == 1
    assert abs(solid.volume / solid.extents.prod() / (given.volume / given.extents.prod()) - 1) < 0.05


def test_a_blueprint_comes_from_the_search(tab: Editor) -> None:
    """The search finds a blueprint by its title and adds it as one node."""
    tab.js("() => { app.graph.clear(); app.canvas.ds.reset(); }")
    add_from_search(tab, "Picture to Textured Mesh", (600, 400))
    tab.shot(SHOTS / "blueprint.png")
    found = tab.js("() => app.graph.nodes.map((node) => [node.title, node.subgraph?.nodes.length ?? 0])")
    assert found == [["Picture to Textured Mesh", 9]]


def shown_texts(tab: Editor) -> list[str]:
    """Titles of groups, subgraphs and named nodes, and the note."""
    found: list[str] = tab.js(
        "() => { const all = (graph) => [...graph.groups.map((group) => group.title), ...graph.nodes.flatMap((node) =>"
        " node.subgraph ? [node.title, ...all(node.subgraph)] : node.type.startsWith('PrimitiveString')"
        " ? [node.title, node.widgets[0].value] : [])]; return all(app.graph); }"
    )
    return found


def test_korean(tab: Editor, server: Server) -> None:
    """Groups, subgraphs and notes are Korean. A title that the user changed stays."""
    server.post("/settings/Comfy.Locale", "ko")
    korean = Editor(tab.page.context.browser.new_page())
    try:
        korean.open(server.url)
        graph = workflow("picture_to_mesh")
        korean.load(graph)
        korean.show_all()
        korean.shot(SHOTS / "korean.png")
        texts = shown_texts(korean)
        assert len(texts) == 6 and all(HANGUL.search(text) for text in texts), texts
        graph["groups"][0]["title"] = "My settings"
        korean.load(graph)
        assert "My settings" in shown_texts(korean) and korean.errors == []
    finally:
        korean.page.close()
        server.post("/settings/Comfy.Locale", "en")


def test_english_again(tab: Editor) -> None:
    """English users see the file's own texts."""
    tab.load(workflow("picture_to_mesh"))
    assert not any(HANGUL.search(text) for text in shown_texts(tab))


def test_template_browser(tab: Editor) -> None:
    """The pack's own list has a card with a picture for each workflow."""
    tab.show_templates([*WORKFLOWS])
    tab.shot(SHOTS / "templates.png")
    tab.page.keyboard.press("Escape")
