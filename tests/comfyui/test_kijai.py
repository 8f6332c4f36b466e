"""Our nodes beside those of kijai's ComfyUI-Hunyuan3DWrapper, in the real front end: TRIMESH and MESH both ways.

KIJAI_PATH is the folder of its checkout. ComfyUI's Python needs what its import needs: pymeshlab and pygltflib, too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh

pytest.importorskip("playwright", reason="playwright is not installed")
from browser import editor
from comfy_server import CHROMIUM, ROOT, Server, running
from graph_file import PREFIX
from graphs import TINY
from results import textured

KIJAI = os.environ.get("KIJAI_PATH", "")
pytestmark = [
    pytest.mark.skipif(not KIJAI, reason="KIJAI_PATH is not set: it names a checkout of ComfyUI-Hunyuan3DWrapper"),
    pytest.mark.skipif(not CHROMIUM, reason="no chromium on the path (CHROMIUM may name it)"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
SHOTS = ROOT / "output" / "screenshots"
OURS: dict[str, tuple[str, dict[str, Any]]] = {
    "preset": ("PresetCustom", TINY),
    "mesh": ("TrimeshToMesh", {}),
    "clean": ("CleanMesh", {}),
    "unwrap": ("UnwrapUVs", {}),
    "cut": ("RemoveBackground", {}),
    "delight": ("Delight", {}),
    "paint": ("PaintViews", {}),
    "bake": ("BakeTexture", {}),
    "inpaint": ("InpaintTexture", {}),
    "back": ("MeshToTrimesh", {}),
    "clean_theirs": ("CleanMesh", {}),
    "save": ("SaveMesh", {"filename_prefix": "3d/of_their_mesh"}),
}
THEIRS: dict[str, tuple[str, dict[str, Any]]] = {
    "load": ("Hy3DLoadMesh", {"glb_path": "mesh.glb"}),
    "info": ("Hy3DMeshInfo", {}),
    "export": ("Hy3DExportMesh", {"filename_prefix": "3d/textured", "file_format": "glb"}),
    "to_mesh": ("TrimeshToMESH", {}),
    "to_trimesh": ("MESHToTrimesh", {}),
    "export_plain": ("Hy3DExportMesh", {"filename_prefix": "3d/plain", "file_format": "glb"}),
}
LINKS = [
    ("load.trimesh", "mesh.trimesh"), ("mesh.mesh", "clean.mesh"), ("clean.mesh", "unwrap.mesh"),
    ("image.IMAGE", "cut.image"), ("cut.image", "delight.image"), ("cut.object mask", "delight.mask"),
    ("unwrap.mesh", "paint.mesh"), ("delight.image", "paint.image"), ("paint.mesh", "bake.mesh"),
    ("paint.images", "bake.images"), ("paint.views", "bake.views"), ("bake.mesh", "inpaint.mesh"),
    ("bake.seen", "inpaint.seen"), ("inpaint.mesh", "back.mesh"), ("back.trimesh", "info.trimesh"),
    ("info.trimesh", "export.trimesh"),
    ("load.trimesh", "to_mesh.trimesh"), ("to_mesh.MESH", "clean_theirs.mesh"), ("clean_theirs.mesh", "save.mesh"),
    ("clean.mesh", "to_trimesh.mesh"), ("to_trimesh.TRIMESH", "export_plain.trimesh"),
    *(("preset.preset", f"{key}.preset") for key in (
        "cut", "clean", "unwrap", "delight", "paint", "bake", "clean_theirs")),
]  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with both packs."""
    base = tmp_path_factory.mktemp("kijai") / "base"
    with running(base, Path(os.environ["COMFYUI_PATH"]), others=[Path(KIJAI).resolve()]) as started:
        yield started


def nodes() -> list[dict[str, Any]]:
    """All nodes, in rows of six."""
    kinds = {key: (PREFIX + kind, values) for key, (kind, values) in OURS.items()} | THEIRS
    kinds["image"] = ("LoadImage", {"image": "example.png"})
    return [
        {"key": key, "type": kind, "pos": [330 * (index % 6), 620 * (index // 6)], "values": values}
        for index, (key, (kind, values)) in enumerate(kinds.items())
    ]


def test_their_meshes_and_ours(server: Server) -> None:
    """Theirs is textured by us and exported by them. Their MESH, and ours in their hands, keep their shapes."""
    with editor(server) as tab:
        tab.build(nodes(), [[*source.split("."), *target.split(".")] for source, target in LINKS], [])
        tab.run()
        tab.page.wait_for_timeout(3000)
        tab.show_all()
        tab.shot(SHOTS / "kijai.png")
        assert tab.errors == []
    given = trimesh.load(server.input / "mesh.glb", force="mesh").extents
    for name in ("textured", "plain", "of_their_mesh"):
        (path,) = (server.output / "3d").glob(f"{name}_*.glb")
        mesh = textured(path) if name == "textured" else trimesh.load(path, force="mesh")
        assert np.allclose(mesh.extents / mesh.extents.max(), given / given.max(), atol=0.05), name
        assert 500 < len(mesh.faces) <= TINY["face_budget"], name
