"""Load Mesh's upload button in the real front end, on the classic canvas and in Nodes 2.0."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trimesh

pytest.importorskip("playwright", reason="playwright is not installed")
from browser import Editor
from comfy_server import CHROMIUM, ROOT, Server
from PIL import Image

pytestmark = [
    pytest.mark.skipif(not CHROMIUM, reason="no chromium on the path (CHROMIUM may name it)"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
SHOTS = ROOT / "output" / "screenshots"
PREFIX = "Hy3dLowVram_"


@pytest.fixture
def mesh_files(tmp_path: Path) -> tuple[Path, list[Path]]:
    """A PLY, and an OBJ with its material and picture."""
    ball = trimesh.creation.icosphere(subdivisions=1)
    plain = tmp_path / "ball.ply"
    ball.export(plain)
    material = trimesh.visual.material.SimpleMaterial(image=Image.new("RGB", (8, 8), "red"))
    ball.visual = trimesh.visual.TextureVisuals(uv=ball.vertices[:, :2] / 4 + 0.5, material=material)
    ball.export(tmp_path / "chair.obj")
    return plain, sorted(path for path in tmp_path.iterdir() if path != plain)


def built(tab: Editor) -> None:
    """Load Mesh and Save Mesh, linked."""
    nodes: list[dict[str, Any]] = [
        {"key": "load", "type": PREFIX + "LoadMesh", "pos": [300, 250], "values": {}},
        {"key": "save", "type": PREFIX + "SaveMesh", "pos": [900, 250], "values": {"filename_prefix": "3d/uploaded"}},
    ]
    tab.js("() => app.canvas.ds.reset()")
    tab.build(nodes, [("load", "mesh", "save", "mesh")], [])


def chosen(tab: Editor) -> str:
    value: str = next(
        part["inputs"]["from_list"] for part in tab.prompt().values() if part["class_type"] == PREFIX + "LoadMesh"
    )
    return value


def test_upload_on_the_classic_canvas(tab: Editor, server: Server, mesh_files: tuple[Path, list[Path]]) -> None:
    """A file alone goes to input/3d; one with others gets a folder, so that its texture is found."""
    built(tab)
    assert chosen(tab) == "none"
    plain, several = mesh_files
    for files in ([plain], several):
        with tab.page.expect_file_chooser() as chooser:
            tab.page.mouse.click(*tab.button(PREFIX + "LoadMesh"))
        chooser.value.set_files(files)
        tab.page.wait_for_timeout(1500)
        tab.shot(SHOTS / "upload_classic.png")
        path = chosen(tab)
        assert (server.input / path).is_file(), path
        tab.run()
    assert path.startswith("3d/chair_") and path.endswith("/chair.obj") and len(several) == 3
    newest = max((server.output / "3d").glob("uploaded_*.glb"), key=lambda file: file.stat().st_mtime_ns)
    assert trimesh.load(newest, force="mesh").visual.material.baseColorTexture is not None
    assert tab.errors == []


def test_upload_in_vue_nodes(tab: Editor, server: Server, mesh_files: tuple[Path, list[Path]]) -> None:
    """In Korean the button is Korean; a file that is no mesh is refused with a message."""
    tab.js("async () => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', true)")
    server.post("/settings/Comfy.Locale", "ko")
    try:
        tab.page.reload()
        tab.wait()
        built(tab)
        button = tab.page.get_by_role("button", name="메시 파일 올리기")
        with tab.page.expect_file_chooser() as chooser:
            button.click()
        chooser.value.set_files(mesh_files[0])
        tab.page.wait_for_timeout(1500)
        assert chosen(tab) == "3d/ball.ply" and tab.page.get_by_text("3d/ball.ply").count() > 0
        with tab.page.expect_file_chooser() as chooser:
            button.click()
        chooser.value.set_files([path for path in mesh_files[1] if path.suffix != ".obj"])
        tab.page.get_by_text("메시를 올리지 못했습니다").wait_for(timeout=5000)
        tab.shot(SHOTS / "upload_vue.png")
        assert chosen(tab) == "3d/ball.ply" and tab.errors == []
        tab.run()
    finally:
        server.post("/settings/Comfy.Locale", "en")
        tab.js("async () => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', false)")
        tab.page.reload()
        tab.wait()


def test_a_workflow_from_before_the_list_opens(tab: Editor) -> None:
    """Its one value is the path; the list stands at none."""
    built(tab)
    graph = tab.js("() => app.graph.serialize()")
    (load,) = (part for part in graph["nodes"] if part["type"] == PREFIX + "LoadMesh")
    assert load["widgets_values"][:2] == ["mesh.glb", "none"]
    load["widgets_values"] = ["3d/old.glb"]
    load["inputs"] = []
    tab.load(graph)
    (inputs,) = (part["inputs"] for part in tab.prompt().values() if part["class_type"] == PREFIX + "LoadMesh")
    assert inputs == {"file": "3d/old.glb", "from_list": "none"}
    assert tab.errors == []
