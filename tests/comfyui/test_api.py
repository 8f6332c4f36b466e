"""The nodes in a real ComfyUI, over its HTTP API and websocket."""

from __future__ import annotations

import json
import re
import shutil
import struct
import sys
import time
from inspect import signature
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import trimesh
from comfy_server import CHROMIUM, ROOT, Run, Server
from graphs import PREFIX, TINY, Prompt, node, ours, picture_to_mesh, saved, texture, tiny_preset, to_prompt, workflow
from PIL import Image
from results import textured

sys.path.append(str(ROOT / "tests" / "nodes"))
from comfy_mesh import MeshData

Info = dict[str, Any]
QUICK_S = 15
"""An interrupt must end a run within this time: one step of the slowest stage on a busy computer."""


def loaded(server: Server, info: Info) -> str:
    """Asks ComfyUI how many models it holds."""
    text: str = server.run({"probe": node(info, "Hy3dTest_Loaded", salt=time.time_ns() % 2**31)}).ui("probe")["text"][0]
    return text


def test_every_node_is_there(info: Info) -> None:
    found = {name for name in info if name.startswith(PREFIX)}
    assert len(found) == 31
    assert all(info[name]["python_module"] == "custom_nodes.hunyuan3d-lowvram" for name in found)


def test_runs_reports_caches_and_repeats(server: Server, info: Info) -> None:
    """Progress and badges appear. A second run comes from the cache. A new paint seed runs only what follows it."""
    # Long enough on a fast computer: to be in the summary of the run, and for a bar that is sent more than twice.
    prompt = picture_to_mesh(info, "ring.jpg", tiny_preset(info, octree=96, decode="dense", unwrapper="xatlas"))
    run = server.run(prompt)
    textured(*saved(server.output, run.ui("save")))
    assert {data["node"] for data in run.of("executed")} >= set(prompt) - {"image", "preset"}
    bars = run.bars()
    for stage in ("cut", "shape", "clean", "unwrap", "delight", "paint", "bake", "inpaint"):
        assert bars[stage] == sorted(bars[stage]) and bars[stage][-1] == 1.0, f"the bar of {stage} only grows"
        assert len(set(bars[stage])) > 2, f"the bar of {stage} moves"
        pictures = run.ui(stage).get("images", [])
        assert bool(pictures) != (stage in ("delight", "paint")), "those two show their results as the last preview"
        assert all((server.base / "temp" / item["subfolder"] / item["filename"]).is_file() for item in pictures), stage
    assert len(run.ui("shape")["images"]) == 1
    told = [text for stage in ("shape", "delight", "paint") for text in run.texts(stage)]
    assert any(re.match(r"loading .* MB", text) for text in told) and any(text.startswith("step ") for text in told)
    assert re.search(r"^[\d.]+ s: .*paint [\d.]+", run.texts("paint")[-1])
    assert re.search(r"textured mesh in [\d.]+ s: .*decode", server.log()), "one line at the end of the run"
    previews = [(data["node"], Image.open(BytesIO(data["picture"])).size) for data in run.of("preview")]
    assert previews == [("delight", (512, 512))] * 3 + [("paint", (512, 171))] * 3, "one for each step, and the result"
    for stage in ("cut", "shape", "clean", "unwrap", "delight", "paint", "bake", "inpaint"):
        assert run.ui(stage)["hy3d_seconds"][0] > 0
    report = run.ui("report")["text"][0]
    assert "decode" in report and "inpaint" in report and "cached" not in report
    files = set(server.output.rglob("*"))
    again = server.run(prompt)
    assert again.cached() >= set(prompt) - {"preset"}, "nothing runs again"
    assert again.ui("report")["text"] == [report], "of the run that made the mesh"
    assert set(server.output.rglob("*")) == files, "no file is written again"
    prompt["paint"]["inputs"]["seed"] = 2**63 + 5
    other = server.run(prompt)
    assert {"cut", "shape", "clean", "unwrap", "delight"} <= other.cached()
    assert not {"paint", "bake", "inpaint"} & other.cached()
    lines = other.ui("report")["text"][0].splitlines()
    marked = {line.split()[0]: line.endswith("cached") for line in lines}
    assert marked["decode"] and not marked["paint"]
    this, every = (float(line[12:].split()[0]) for line in lines if line.startswith(("this run", "with cached")))
    assert this < every
    renamed = server.run(other_ids(prompt))
    assert "tab:inpaint" in renamed.cached()
    assert loaded(server, info) == "0"


AFTER = {"texture_px": "bake", "merge": "bake", "face_budget": "clean", "delight_steps": "delight", "views": "paint"}
"""The first stage that reads each value."""
FOLLOWING = {
    "bake": {"bake", "inpaint"},
    "clean": {"clean", "unwrap", "paint", "bake", "inpaint"},
    "delight": {"delight", "paint", "bake", "inpaint"},
    "paint": {"paint", "bake", "inpaint"},
}


def test_a_change_of_the_preset_runs_only_what_reads_it(server: Server, info: Info) -> None:
    """Each value, changed alone; then another preset node with the same values; then values that only others read."""
    prompt = picture_to_mesh(info, "capsule.png")
    server.run(prompt)
    for name, value in (
        ("texture_px", 512), ("merge", "matched"), ("face_budget", 1000), ("delight_steps", 1), ("views", "fast"),
    ):  # fmt: skip
        prompt["preset"]["inputs"][name] = value
        run = server.run(prompt)
        ran = set(prompt) - run.cached()
        assert ran - {"preset", "report", "save"} == FOLLOWING[AFTER[name]], name
    prompt["preset"]["inputs"] |= {"residency": "stream", "texture_px": 256}
    other = server.run(prompt)
    assert {"cut", "clean", "unwrap"} - other.cached() <= {"clean", "unwrap"}, "Clean follows a shape that ran again"
    assert "cut" in other.cached() and "shape" not in other.cached()


def test_a_graph_of_an_earlier_release_saves_once(server: Server, info: Info) -> None:
    """Memory Report stood between the last stage and Save 3D Model, and ran every time."""
    prompt = picture_to_mesh(info, "capsule.png")
    prompt["save"]["inputs"]["mesh"] = ["report", 0]
    first = server.run(prompt)
    files = set(server.output.rglob("*"))
    second = server.run(prompt)
    assert second.ui("save")["3d"] == first.ui("save")["3d"] and set(server.output.rglob("*")) == files


def test_a_preset_as_a_constant(server: Server, info: Info) -> None:
    """In a prompt of the API, a preset's name or values may stand in place of a preset node."""
    prompt = {
        "mesh": ours(info, "LoadMesh", file="mesh.glb"),
        "clean": ours(info, "CleanMesh", mesh=["mesh", 0], preset="8 GB Fast"),
        "less": ours(info, "CleanMesh", mesh=["mesh", 0], preset={"face_budget": 500}),
        "save": node(info, "SaveGLB", mesh=["clean", 0]),
        "save2": node(info, "SaveGLB", mesh=["less", 0]),
    }
    run = server.run(prompt)
    many, few = (trimesh.load(*saved(server.output, run.ui(name)), force="mesh") for name in ("save", "save2"))
    assert len(few.faces) <= 500 < len(many.faces)


def other_ids(prompt: Prompt) -> Prompt:
    """The same graph with other ids, as another browser tab would number it."""
    return {
        f"tab:{key}": {
            **part,
            "inputs": {
                name: [f"tab:{value[0]}", value[1]] if isinstance(value, list) else value
                for name, value in part["inputs"].items()
            },
        }
        for key, part in prompt.items()
    }


def test_another_preset_node(server: Server, info: Info) -> None:
    """Preset 8 GB Fast replaces Preset Custom. Nothing else changes."""
    prompt = picture_to_mesh(info, "capsule.png")
    prompt["preset"] = ours(info, "Preset8GBFast")
    fast = server.run(prompt)
    assert textured(*saved(server.output, fast.ui("save"))).visual.material.baseColorTexture.size == (1024, 1024)


def interrupted(server: Server, prompt: Prompt, at: str, text: str = "step ") -> tuple[Run, float]:
    """Interrupts a run when that node first shows such a text. Returns the run, and the seconds until it ended."""
    asked: list[float] = []

    def stop(kind: str, data: dict[str, Any]) -> None:
        shown = kind == "text" and data["node"] == at and data["text"].startswith(text)
        if shown and not asked:
            server.post("/interrupt")
            asked.append(time.monotonic())

    run = server.run(prompt, on_event=stop, expect="execution_interrupted")
    return run, time.monotonic() - asked[0]


def one_stage(info: Info, stage: str, steps: int) -> Prompt:
    """The shortest graph that runs one of the three networks."""
    p = ["preset", 0]
    graph = {
        "preset": tiny_preset(info, variant="v2-0"),
        "image": node(info, "LoadImage", image="capsule.png"),
        "mesh": ours(info, "LoadMesh", file="mesh.glb"),
    }
    if stage == "shape":
        graph["shape"] = ours(info, "GenerateShape", image=["image", 0], preset=p, steps=steps)
        return {**graph, "save": node(info, "SaveGLB", mesh=["shape", 0])}
    if stage == "delight":
        graph["delight"] = ours(info, "Delight", image=["image", 0], preset=p, steps=steps)
        return {**graph, "save": node(info, "SaveImage", images=["delight", 0])}
    graph["paint"] = ours(info, "PaintViews", mesh=["mesh", 0], image=["image", 0], preset=p, steps=steps)
    return {**graph, "save": node(info, "SaveImage", images=["paint", 0])}


@pytest.mark.parametrize("stage", ["shape", "delight", "paint"])
def test_interrupt(server: Server, info: Info, stage: str) -> None:
    """The run ends in the middle of sampling, nothing stays loaded, and the next run works."""
    run, seconds = interrupted(server, one_stage(info, stage, 190), stage)
    assert seconds < QUICK_S
    assert run.of("execution_interrupted")[0]["node_id"] == stage
    assert loaded(server, info) == "0"
    assert server.is_idle()
    server.run(one_stage(info, stage, 6 if stage == "shape" else 2))


def object_mask(server: Server, info: Info, picture: str) -> np.ndarray:
    """[H,W] in 0..1: the object that Remove Background finds in a picture of the input folder."""
    prompt = {
        "preset": tiny_preset(info),
        "image": node(info, "LoadImage", image=picture),
        "cut": ours(info, "RemoveBackground", image=["image", 0], mask=["image", 1], preset=["preset", 0]),
    }
    return mask_of(server, info, prompt)


def mask_of(server: Server, info: Info, prompt: Prompt) -> np.ndarray:
    """[H,W] in 0..1: the object's mask from the prompt's node `cut`."""
    prompt |= {
        "picture": node(info, "MaskToImage", mask=["cut", 1]),
        "save": node(info, "SaveImage", images=["picture", 0], filename_prefix="mask"),
    }
    item = server.run(prompt).ui("save")["images"][0]
    with Image.open(server.output / item["subfolder"] / item["filename"]) as mask:
        return np.asarray(mask.convert("L"), dtype=np.float32) / 255


def overlap(found: np.ndarray, true: np.ndarray) -> float:
    """Intersection over union."""
    return float(((found > 0.5) & (true > 0.5)).sum() / ((found > 0.5) | (true > 0.5)).sum())


def test_masks_of_every_kind_of_file(server: Server, info: Info) -> None:
    """JPG: the object is found. RGBA and palette: the object is the file's alpha, not its inverse."""
    with Image.open(server.input / "capsule.png") as picture:
        rgba = picture.convert("RGBA")
    alpha = np.asarray(rgba)[..., 3] / 255.0
    clear = Image.new("RGB", rgba.size, (255, 255, 255))
    clear.paste(rgba, mask=rgba.split()[3])
    palette = clear.quantize(255)
    pixels = np.array(palette)
    pixels[alpha < 0.5] = 255
    indexed = Image.fromarray(pixels)
    indexed.putpalette(palette.getpalette() or [])
    indexed.save(server.input / "palette.png", transparency=255)
    clear.convert("RGB").save(server.input / "opaque.jpg", quality=92)
    clear.quantize(128).save(server.input / "palette_opaque.png")
    assert overlap(object_mask(server, info, "capsule.png"), alpha) > 0.98
    assert overlap(object_mask(server, info, "palette.png"), alpha) > 0.95
    assert overlap(object_mask(server, info, "opaque.jpg"), alpha) > 0.9
    assert overlap(object_mask(server, info, "palette_opaque.png"), alpha) > 0.9


def test_mask_of_the_cores_remove_background(server: Server, info: Info) -> None:
    """The core's mask (1 = foreground) works in Generate Shape, and with invert_mask off in our Remove Background."""
    prompt: Prompt = {
        "preset": tiny_preset(info),
        "image": node(info, "LoadImage", image="ring.jpg"),
        "model": node(info, "Hy3dTest_Foreground"),
        "core": node(info, "RemoveBackground", bg_removal_model=["model", 0], image=["image", 0]),
    }
    cut = {"image": ["image", 0], "mask": ["core", 0], "preset": ["preset", 0]}
    prompt["cut"] = ours(info, "RemoveBackground", **cut, invert_mask=False)
    found = mask_of(server, info, dict(prompt))
    half = found.shape[1] // 2
    assert found[:, : half - 8].min() > 0.9 and found[:, half + 8 :].max() < 0.1
    prompt["cut"] = ours(info, "GenerateShape", **cut)
    prompt["save"] = node(info, "SaveGLB", mesh=["cut", 0], filename_prefix="3d/core_mask")
    (path,) = saved(server.output, server.run(prompt).ui("save"))
    assert len(trimesh.load(path, force="mesh").faces) > 100


def test_two_pictures_of_a_folder(server: Server, info: Info) -> None:
    """The graph runs once for each picture. None is lost."""
    folder = server.input / "two"
    folder.mkdir()
    for name in ("ring.jpg", "capsule.png"):
        shutil.copy(server.input / name, folder)
    prompt = picture_to_mesh(info, "ring.jpg")
    prompt["image"] = ours(info, "LoadPictures", folder="two")
    prompt["cut"]["inputs"]["mask"] = ["image", 1]
    before = set((server.output / "3d").glob("*.glb"))
    run = server.run(prompt)
    assert len(run.ui("shape")["hy3d_seconds"]) == 2 and len(run.ui("report")["text"]) == 1
    made = sorted(set((server.output / "3d").glob("*.glb")) - before)
    assert len(made) == 2
    capsule, ring = (textured(path) for path in made)
    assert not np.allclose(capsule.extents, ring.extents, atol=0.05)


def test_core_makes_a_mesh_and_we_texture_it(server: Server, info: Info) -> None:
    """VoxelToMesh, RemeshMesh, DecimateMesh and UnwrapMesh of the core, then our texture stages, then SaveGLB."""
    prompt = {
        "preset": tiny_preset(info),
        "image": node(info, "LoadImage", image="capsule.png"),
        "voxel": node(info, "Hy3dTest_Ball"),
        "mesh": node(info, "VoxelToMesh", voxel=["voxel", 0]),
        "remesh": node(info, "RemeshMesh", mesh=["mesh", 0], resolution=32),
        "decimate": node(info, "DecimateMesh", mesh=["remesh", 0], target_face_count=800),
        "unwrap": node(info, "UnwrapMesh", mesh=["decimate", 0], resolution=256),
        **texture(info, ["unwrap", 0], ["image", 0]),
    }
    mesh = textured(*saved(server.output, server.run(prompt).ui("save")))
    assert 100 < len(mesh.faces) <= 2000


def test_mesh_is_what_the_tests_without_comfyui_take_it_for(server: Server, info: Info) -> None:
    """The stand-in for Types.MESH in tests/nodes has the same arguments in the same order, with the same defaults."""
    real = server.run({"probe": node(info, "Hy3dTest_MeshFields")}).ui("probe")["text"]
    assert [f"{part.name} {part.default}" for part in signature(MeshData).parameters.values()] == real


def test_core_takes_our_mesh(server: Server, info: Info) -> None:
    """Our mesh goes through the core's decimation, then through the core's GLB writer and our Save Mesh."""
    prompt = picture_to_mesh(info, "ring.jpg")
    for stage in ("unwrap", "delight", "paint", "bake", "inpaint", "report", "save"):
        del prompt[stage]
    prompt |= {
        "decimate": node(info, "DecimateMesh", mesh=["clean", 0], target_face_count=500),
        "glb": node(info, "MeshToFile3D", mesh=["decimate", 0]),
        "save": node(info, "SaveGLB", mesh=["glb", 0], filename_prefix="3d/core"),
        "ply": ours(info, "SaveMesh", mesh=["decimate", 0], filename_prefix="3d/own", format="ply"),
    }
    run = server.run(prompt)
    (path,) = saved(server.output, run.ui("save"))
    (own,) = saved(server.output, run.ui("ply"))
    assert 100 < len(trimesh.load(path, force="mesh").faces) <= 520
    assert own.suffix == ".ply" and len(trimesh.load(own, force="mesh").faces) == len(
        trimesh.load(path, force="mesh").faces
    )


def shrunk(prompt: Prompt, info: Info) -> Prompt:
    """Replaces the prompt's preset node by a tiny one."""
    for part in prompt.values():
        if part["class_type"].startswith(PREFIX + "Preset"):
            part.update(tiny_preset(info))
    return prompt


def test_texture_own_mesh_workflow(server: Server, info: Info) -> None:
    """The file's shape stays the same and gets a texture."""
    prompt = shrunk(to_prompt(workflow("texture_own_mesh"), info), info)
    save = next(key for key, part in prompt.items() if part["class_type"] == "SaveGLB")
    mesh = textured(*saved(server.output, server.run(prompt).ui(save)))
    given = trimesh.load(server.input / "mesh.glb", force="mesh")
    assert np.allclose(sorted(mesh.extents / mesh.scale), sorted(given.extents / given.scale), atol=0.02)


def test_four_views_workflow(server: Server, info: Info) -> None:
    """Shape and colours from four pictures: all are delit, and the texture is another one than that of the front."""
    prompt = shrunk(to_prompt(workflow("four_views_to_mesh"), info), info)
    kinds = {part["class_type"]: key for key, part in prompt.items()}
    delight, save = kinds[PREFIX + "Delight"], kinds["SaveGLB"]
    front = Image.open(server.input / "capsule.png").convert("RGBA")
    for index, part in enumerate(part for part in prompt.values() if part["class_type"] == "LoadImage"):
        red, green, blue, alpha = front.split()
        turned = [(red, green, blue), (blue, red, green), (green, blue, red), (blue, green, red)][index]
        Image.merge("RGBA", (*turned, alpha)).save(server.input / f"side_{index}.png")
        part["inputs"]["image"] = f"side_{index}.png"
    four = server.run(prompt)
    steps = [text for text in four.texts(delight) if text.startswith("step ")]
    assert steps and all(f"of {4 * TINY['delight_steps']}" in text for text in steps)
    for side in ("left", "back", "right"):
        del prompt[delight]["inputs"][side]
    one = server.run(prompt)
    assert kinds[PREFIX + "GenerateShapeMultiView"] in one.cached()
    textures = [textured(*saved(server.output, run.ui(save))).visual.material.baseColorTexture for run in (four, one)]
    both = [np.asarray(texture.convert("RGB")).astype(int) for texture in textures]
    assert np.abs(both[0] - both[1]).mean() > 1


def test_turbo_painting(server: Server, info: Info) -> None:
    """The turbo paint model paints the demo's capsule in its colour, without guidance."""
    prompt = shrunk(to_prompt(workflow("texture_own_mesh"), info), info)
    for part in prompt.values():
        if part["class_type"] == PREFIX + "PresetCustom":
            part["inputs"] |= {"paint_variant": "turbo", "paint_steps": 10}
        elif part["class_type"] == "LoadImage":
            part["inputs"]["image"] = "capsule.png"
    kinds = {part["class_type"]: key for key, part in prompt.items()}
    turbo = server.run(prompt)
    assert any(" of 10" in text for text in turbo.texts(kinds[PREFIX + "PaintViews"]))
    texture = textured(*saved(server.output, turbo.ui(kinds["SaveGLB"]))).visual.material.baseColorTexture
    texture.convert("RGB").save(server.output / "turbo.png")
    shown = np.asarray(texture.convert("RGB")).reshape(-1, 3).mean(axis=0)
    picture = np.asarray(Image.open(server.input / "capsule.png").convert("RGBA")).reshape(-1, 4)
    assert np.abs(shown - picture[picture[:, 3] > 128, :3].mean(axis=0)).max() < 60
    assert loaded(server, info) == "0"


def test_a_fault_names_its_cure(server: Server, info: Info) -> None:
    """A missing file ends the run with a message that names it. The server keeps running."""
    prompt: Prompt = {
        "mesh": ours(info, "LoadMesh", file="none.glb"),
        "save": node(info, "SaveGLB", mesh=["mesh", 0]),
    }
    message = server.run(prompt, expect="execution_error").of("execution_error")[0]["exception_message"]
    assert "none.glb" in message
    assert loaded(server, info) == "0"


def test_missing_models_are_told_before_the_first_stage(server: Server, info: Info) -> None:
    """A graph whose paint model is missing stops before the background is removed. Model Check says the same."""
    folder = server.base / "models" / "hunyuan3d_lowvram" / "hunyuan3d-paint-v2-0-turbo"
    away = folder.with_name("away")
    prompt = picture_to_mesh(info, "ring.jpg", tiny_preset(info, variant="v2-0", paint_variant="turbo", octree=16))
    prompt["check"] = ours(info, "ModelCheck", preset=["preset", 0])
    folder.rename(away)
    try:
        told = server.run({key: prompt[key] for key in ("preset", "check")}).ui("check")["text"][0]
        run = server.run(prompt, expect="execution_error")
    finally:
        away.rename(folder)
    assert not {data["node"] for data in run.of("executed")} & {"cut", "shape", "clean", "delight", "paint"}
    (error,) = run.of("execution_error")
    assert error["node_id"] == "cut", "the first stage"
    message = error["exception_message"]
    assert message.startswith("models: paint/v2-0-turbo is missing, 7.33 GB in all, and cannot be downloaded"), message
    for text in (message, told):
        assert "unet/diffusion_pytorch_model.bin  7,325.4 MB" in text and "GB are free" in text
        assert "CreativeML Open RAIL++-M" in text
    assert "missing  paint/v2-0-turbo, ~7.33 GB" in told and "there    shape/v2-0" in told and str(ROOT) in told
    assert server.is_idle() and loaded(server, info) == "0"
    textured(*saved(server.output, server.run(prompt).ui("save")))


@pytest.mark.skipif(bool(CHROMIUM), reason="test_browser.py runs it, in the front end")
def test_bundled_workflow(server: Server, info: Info) -> None:
    """The shipped 8 GB graph, unchanged, on the demo's models. The GLB contains the graph that made it."""
    prompt = to_prompt(workflow("hunyuan3d_8gb"), info)
    save = next(key for key, part in prompt.items() if part["class_type"] == "SaveGLB")
    (path,) = saved(server.output, server.run(prompt).ui(save))
    mesh = textured(path)
    assert mesh.visual.material.baseColorTexture.size == (1536, 1536)
    data = path.read_bytes()
    header = json.loads(data[20 : 20 + struct.unpack("<I", data[12:16])[0]])
    assert PREFIX in json.dumps(header["asset"].get("extras", header))
