"""The nodes beside ComfyUI's own mesh, 3D file and upscale nodes, and beside TRIMESH sockets, in a real ComfyUI."""

from __future__ import annotations

import shutil
import urllib.request
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from comfy_server import Server
from graphs import Prompt, node, ours, saved, tiny_preset
from PIL import Image
from test_api import textured

Info = dict[str, Any]
P = ["preset", 0]
FIGURE = np.array([[-0.3, -0.8, -0.3], [0.6, 0.8, 0.7]])
"""The box of the larger shape of Hy3dTest_Hunyuan: up is +Y, the nose points to +Z, the arm to +X."""
VOXEL = 2.02 / 24


def in_order(paths: list[Path]) -> list[trimesh.Trimesh]:
    """The meshes of the saved files, by their numbers."""
    return [trimesh.load(path, force="mesh", process=False) for path in sorted(paths)]


@pytest.mark.parametrize("algorithm", ["surface net", "basic"])
def test_the_cores_shapes_face_as_ours(server: Server, info: Info, algorithm: str) -> None:
    """A batch of two from Voxel to Mesh, cleaned: closed, upright, and with the front at +Z."""
    prompt = {
        "preset": tiny_preset(info),
        "voxel": node(info, "Hy3dTest_Hunyuan"),
        "mesh": node(info, "VoxelToMesh", voxel=["voxel", 0], algorithm=algorithm, threshold=0.0),
        "clean": ours(info, "CleanMesh", mesh=["mesh", 0], preset=P),
        "save": node(info, "SaveGLB", mesh=["clean", 0], filename_prefix="3d/faces"),
    }
    large, small = in_order(saved(server.output, server.run(prompt).ui("save")))
    for mesh, scale in ((large, 1.0), (small, 0.7)):
        welded = trimesh.Trimesh(mesh.vertices, mesh.faces)
        assert np.abs(welded.bounds - scale * FIGURE).max() < 1.6 * VOXEL, welded.bounds
        assert welded.volume > 0.2 * scale**3, "its faces point outwards"


def test_a_batch_from_the_core_is_textured_and_enlarged(server: Server, info: Info) -> None:
    """Two meshes through the core's Fill Holes and Decimate, all our nodes, and an upscaler before the bake."""
    prompt: Prompt = {
        "preset": tiny_preset(info, paint_steps=1, unwrapper="uvunwrap", texture_px=512),
        "image": node(info, "LoadImage", image="capsule.png"),
        "voxel": node(info, "Hy3dTest_Hunyuan"),
        "mesh": node(info, "VoxelToMesh", voxel=["voxel", 0], threshold=0.0),
        "filled": node(info, "FillHoles", mesh=["mesh", 0]),
        "decimate": node(info, "DecimateMesh", mesh=["filled", 0], target_face_count=600),
        "clean": ours(info, "CleanMesh", mesh=["decimate", 0], preset=P),
        "unwrap": ours(info, "UnwrapUVs", mesh=["clean", 0], preset=P),
        "paint": ours(info, "PaintViews", mesh=["unwrap", 0], image=["image", 0], preset=P),
        "model": node(info, "Hy3dTest_Upscaler"),
        "large": node(info, "ImageUpscaleWithModel", upscale_model=["model", 0], image=["paint", 0]),
        "views": node(info, "SaveImage", images=["large", 0], filename_prefix="views"),
        "bake": ours(info, "BakeTexture", mesh=["paint", 2], images=["large", 0], views=["paint", 1], preset=P),
        "inpaint": ours(info, "InpaintTexture", mesh=["bake", 0], seen=["bake", 1]),
        "info": node(info, "GetMeshInfo", mesh=["inpaint", 0]),
        "shown": node(info, "PreviewAny", source=["info", 1]),
        "save": node(info, "SaveGLB", mesh=["info", 0], filename_prefix="3d/batch"),
        "own": ours(info, "SaveMesh", mesh=["inpaint", 0], filename_prefix="3d/own_batch"),
        "tri": ours(info, "MeshToTrimesh", mesh=["inpaint", 0]),
        "other": node(info, "Hy3dTest_Trimesh", trimesh=["tri", 0]),
        "back": ours(info, "TrimeshToMesh", trimesh=["other", 0]),
        "doubled": node(info, "SaveGLB", mesh=["back", 0], filename_prefix="3d/doubled"),
    }
    run = server.run(prompt)
    assert len(run.ui("views")["images"]) == 6, "three views of each mesh"
    with Image.open(server.output / run.ui("views")["images"][0]["filename"]) as view:
        assert view.size == (1024, 1024)
    files = [sorted(saved(server.output, run.ui(name))) for name in ("save", "own")]
    doubled = sorted((server.output / "3d").glob("doubled_*.glb"))
    assert [len(paths) for paths in (*files, doubled)] == [2, 2, 2]
    for core, own, twice in zip(*files, doubled, strict=True):
        mesh, again, double = textured(core), textured(own), textured(twice)
        assert 100 < len(mesh.faces) == len(again.faces) == len(double.faces) <= 1200
        assert np.allclose(again.bounds, mesh.bounds) and np.allclose(double.bounds, 2 * mesh.bounds, atol=1e-5)
        assert mesh.visual.material.baseColorTexture.size == (512, 512)
    large, small = in_order(files[0])
    assert small.extents[1] == pytest.approx(0.7 * large.extents[1], rel=0.1)
    server.post("/free", {"unload_models": True})
    assert server.is_idle()


def write_textured(path: Path) -> None:
    """A box with UVs and a texture of many colours."""
    box = trimesh.creation.box((1, 2, 1))
    flat = trimesh.Trimesh(box.triangles.reshape(-1, 3), np.arange(36).reshape(-1, 3), process=False)
    uv = np.random.default_rng(0).random((36, 2))
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 255, (32, 32, 3), dtype=np.uint8))
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=picture)
    flat.visual = trimesh.visual.TextureVisuals(uv=uv, material=material)
    path.parent.mkdir(exist_ok=True)
    flat.export(path)


def test_the_core_takes_our_textured_mesh(server: Server, info: Info) -> None:
    """Render Mesh, Create 3D File, Load 3D (Advanced), Decimate and Remesh; files go back into Load Mesh.

    Remesh cuts off what lies outside of -0.5 to 0.5, so Clean Mesh scales the capsule before, which is 2 long.
    """
    write_textured(server.input / "3d" / "box.glb")
    write_textured(server.input / "3d" / "other" / "disk.glb")
    load = {"class_type": "Load3DAdvanced", "inputs": {"model_file": "3d/other/disk.glb", "viewport_state": {},
                                                       "width": 64, "height": 64}}  # fmt: skip
    prompt: Prompt = {
        "mesh": ours(info, "LoadMesh", file="none.glb", from_list="3d/box.glb"),
        "render": node(info, "RenderMesh", mesh=["mesh", 0], mode="texture", width=64, height=64),
        "picture": node(info, "SaveImage", images=["render", 0], filename_prefix="rendered"),
        "file": node(info, "MeshToFile3D", mesh=["mesh", 0]),
        "again": ours(info, "LoadMesh", model_file=["file", 0]),
        "save": node(info, "SaveGLB", mesh=["again", 0], filename_prefix="3d/memory"),
        "load": load,
        "disk": ours(info, "LoadMesh", model_file=["load", 0]),
        "disk_save": node(info, "SaveGLB", mesh=["disk", 0], filename_prefix="3d/disk"),
        "fewer": node(info, "DecimateMesh", mesh=["mesh", 0], target_face_count=8),
        "plain": ours(info, "SaveMesh", mesh=["fewer", 0], filename_prefix="3d/plain"),
        "report": ours(info, "MemoryReport", mesh=["fewer", 0]),
        "preset": tiny_preset(info),
        "capsule": ours(info, "LoadMesh", file="mesh.glb"),
        "unit": ours(info, "CleanMesh", mesh=["capsule", 0], preset=P, longest_side=1.0),
        "remesh": node(info, "RemeshMesh", mesh=["unit", 0], resolution=32),
        "clean": ours(info, "CleanMesh", mesh=["remesh", 0], preset=P),
        "round": ours(info, "SaveMesh", mesh=["clean", 0], filename_prefix="3d/round", format="stl"),
    }
    run = server.run(prompt)
    item = run.ui("picture")["images"][0]
    with Image.open(server.output / item["filename"]) as rendered:
        assert len(np.unique(np.asarray(rendered).reshape(-1, 3), axis=0)) > 50
    for name in ("save", "disk_save"):
        (path,) = saved(server.output, run.ui(name))
        assert np.allclose(sorted(textured(path).extents), [1, 1, 2])
    (path,) = saved(server.output, run.ui("plain"))
    assert getattr(trimesh.load(path, force="mesh").visual, "uv", None) is None
    (path,) = saved(server.output, run.ui("round"))
    assert np.allclose(trimesh.load(path, force="mesh").extents, [0.5, 0.5, 1], atol=0.08)
    assert "save: the mesh has a texture but no UVs, so the texture is left out" in server.log()


def upload(server: Server, name: str, content: bytes) -> None:
    """Posts a file as the upload button does."""
    line = uuid.uuid4().hex
    parts = [("image", f'; filename="{name}"', content), ("subfolder", "", b"3d"), ("type", "", b"input")]
    body = b"".join(
        f'--{line}\r\nContent-Disposition: form-data; name="{key}"{rest}\r\n\r\n'.encode() + value + b"\r\n"
        for key, rest, value in parts
    )
    request = urllib.request.Request(
        f"{server.url}/upload/image", body + f"--{line}--\r\n".encode(),
        {"Content-Type": f"multipart/form-data; boundary={line}"},
    )  # fmt: skip
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.status == 200


def test_load_mesh_by_list_and_by_path(server: Server, info: Info) -> None:
    """What was uploaded is in the list. A prompt from before the list was there runs, also with a full path."""

    def options() -> list[str]:
        shown = server.get("/object_info/Hy3dLowVram_LoadMesh")["Hy3dLowVram_LoadMesh"]["input"]
        assert list(shown["required"]) == ["file"]
        found: list[str] = shown["optional"]["from_list"][1]["options"]
        return found

    assert "3d/새 것.ply" not in options() and {"none", "mesh.glb"} <= set(options())
    ball = trimesh.creation.icosphere(subdivisions=1)
    upload(server, "새 것.ply", ball.export(file_type="ply"))
    assert "3d/새 것.ply" in options()
    prompt: Prompt = {
        "listed": ours(info, "LoadMesh", from_list="3d/새 것.ply"),
        "old": {"class_type": "Hy3dLowVram_LoadMesh", "inputs": {"file": "mesh.glb"}},
        "full": {"class_type": "Hy3dLowVram_LoadMesh", "inputs": {"file": str(server.input / "3d" / "새 것.ply")}},
    }
    for name in list(prompt):
        prompt[f"save_{name}"] = ours(info, "SaveMesh", mesh=[name, 0], filename_prefix=f"3d/{name}", format="ply")
    run = server.run(prompt)
    faces = {
        name: len(trimesh.load(saved(server.output, run.ui(f"save_{name}"))[0]).faces)
        for name in ("listed", "old", "full")
    }
    assert faces["listed"] == faces["full"] == len(ball.faces) != faces["old"]
    prompt = {name: prompt[name] for name in ("listed", "save_listed")}
    prompt["listed"]["inputs"]["from_list"] = "3d/gone.ply"
    with pytest.raises(AssertionError, match="Value not in list"):
        server.run(prompt)


def test_transparent_pictures(server: Server, info: Info) -> None:
    """One alone ends the run with what to do; in a folder it is skipped."""
    folder = server.input / "some bad"
    folder.mkdir()
    Image.new("RGBA", (64, 64), (200, 60, 40, 0)).save(server.input / "clear.png")
    shutil.copy(server.input / "clear.png", folder / "a.png")
    shutil.copy(server.input / "capsule.png", folder / "b.png")
    (folder / "c.png").write_bytes(b"damaged")
    prompt: Prompt = {
        "preset": tiny_preset(info),
        "image": node(info, "LoadImage", image="clear.png"),
        "cut": ours(info, "RemoveBackground", image=["image", 0], mask=["image", 1], preset=P),
        "save": node(info, "SaveImage", images=["cut", 0], filename_prefix="cut"),
    }
    (error,) = server.run(prompt, expect="execution_error").of("execution_error")
    assert error["node_id"] == "cut" and "switch invert_mask off" in error["exception_message"]
    prompt["image"] = ours(info, "LoadPictures", folder="some bad")
    run = server.run(prompt)
    assert len(run.ui("save")["images"]) == 1
    assert "a.png is fully transparent" in server.log() and "c.png is not a picture" in server.log()
