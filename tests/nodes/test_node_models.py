"""What a graph needs of models before its first stage, and what Model Check tells."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from comfy_pack import PREFIX, Pack, module

PRESET = ["preset", 0]


def stage(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": PREFIX + kind, "inputs": {"preset": PRESET, **inputs}}


def graph(**changes: Any) -> dict[str, Any]:
    """A whole graph; the output nodes are `save` and `dangling`'s is missing."""
    nodes = {
        "image": {"class_type": "LoadImage", "inputs": {"image": "a.png"}},
        "preset": {"class_type": PREFIX + "Preset8GBBalanced", "inputs": {}},
        "cut": stage("RemoveBackground", image=["image", 0], keep_background=False),
        "shape": stage("GenerateShape", image=["cut", 0], variant="from preset"),
        "clean": stage("CleanMesh", mesh=["shape", 0]),
        "delight": stage("Delight", image=["cut", 0]),
        "paint": stage("PaintViews", mesh=["clean", 0], image=["delight", 0]),
        "save": {"class_type": "SaveGLB", "inputs": {"mesh": ["paint", 2]}},
        "dangling": stage("GenerateShapeMultiView", front=["cut", 0]),
    }
    return nodes | changes


def wanted(prompt: dict[str, Any], *outputs: str, **rest: Any) -> tuple[list[str], list[str]]:
    models = module("nodes._models")
    settings = {"preset_of": module("nodes._prompts").known_preset, "has_run": lambda node_id: False, **rest}
    return models.wanted_models(prompt, outputs or ("save",), **settings)


def test_every_stage_that_leads_to_an_output(pack: Pack) -> None:
    whole = ["background/u2net", "shape/v2-0-turbo", "delight", "paint"]
    assert wanted(graph()) == (whole, [])
    assert wanted(graph(), "shape") == (whole[:2], [])
    assert wanted(graph(), "dangling")[0] == ["background/u2net", "shape/mv-turbo"]
    assert wanted(graph(), "image") == ([], [])
    assert wanted({}, "save") == ([], [])


@pytest.mark.parametrize(
    ("preset", "shape", "paint"),
    [
        ({"class_type": PREFIX + "Preset2GB", "inputs": {}}, "v2-0", ["paint"]),
        ({"class_type": PREFIX + "Preset8GBTurbo", "inputs": {}}, "v2-0-turbo", ["paint/v2-0-turbo", "paint_vae"]),
        ({"class_type": PREFIX + "PresetCustom", "inputs": {"variant": "mini-fast"}}, "mini-fast", ["paint"]),
        ({"class_type": PREFIX + "Preset", "inputs": {"preset": "8 GB Fast"}}, "mini-turbo", ["paint"]),
        ({"class_type": PREFIX + "Preset", "inputs": {"preset": ["image", 0]}}, None, []),
        ({"class_type": "SomeoneElses", "inputs": {}}, None, []),
        ({"class_type": PREFIX + "PresetCustom", "inputs": {"variant": ["image", 0]}}, None, []),
        ({"class_type": PREFIX + "PresetCustom", "inputs": {"octree": 7}}, None, []),
    ],
)  # fmt: skip
def test_presets_behind_a_link(pack: Pack, preset: dict[str, Any], shape: str | None, paint: list[str]) -> None:
    """What is not known before the run is left to the stage."""
    found = wanted(graph(preset=preset))[0]
    assert [name for name in found if name.startswith("shape")] == ([f"shape/{shape}"] if shape else [])
    assert [name for name in found if name.startswith("paint")] == paint


@pytest.mark.parametrize("node", [("PresetAuto", {}), ("Preset", {"preset": "Auto"})])
def test_the_cards_own_preset(pack: Pack, node: tuple[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module("nodes._host"), "card", lambda: ("a card", 8 * 2**30, 2**30))
    monkeypatch.setattr(module("nodes._host"), "on_cpu", lambda: False)
    prompt = graph(preset={"class_type": PREFIX + node[0], "inputs": node[1]})
    assert wanted(prompt)[0][1:] == ["shape/v2-0-turbo", "delight", "paint"]
    monkeypatch.setattr(module("nodes._host"), "card", lambda: ("a card", 2 * 2**30, 2**30))
    assert wanted(prompt)[0][1] == "shape/v2-0"


def test_presets_as_constants(pack: Pack) -> None:
    """Some of a preset's values, such as those that the stage reads, in place of the link."""
    prompt = graph(
        shape=stage("GenerateShape", preset={"variant": "mini-turbo", "shape_vae": "turbo"}),
        paint=stage("PaintViews", preset={"paint_variant": "turbo", "views": "fast"}, mesh=["shape", 0]),
    )
    assert wanted(prompt)[0] == ["shape/mini-turbo", "shape_vae/mini-turbo", "paint/v2-0-turbo", "paint_vae"]
    own = SimpleNamespace(preset=module("lowvram_core.presets").PRESETS["8 GB Fast"])
    assert wanted(graph(), preset_of=lambda prompt, value: own.preset)[0][1] == "shape/mini-turbo"


def test_choices_of_the_stages_own(pack: Pack) -> None:
    assert wanted(graph(shape=stage("GenerateShape", image=["cut", 0], variant="mini")))[0][1] == "shape/mini"
    prompt = graph(dangling=stage("GenerateShapeMultiView", front=["image", 0], variant="mv-fast"))
    assert wanted(prompt, "dangling")[0] == ["shape/mv-fast"]
    prompt = graph(shape=stage("GenerateShape", image=["cut", 0], variant=["image", 0]))
    assert "shape" not in "".join(wanted(prompt)[0]), "it comes from another node"
    assert "background/u2net" not in wanted(graph(cut=stage("RemoveBackground", keep_background=True)))[0]
    sure, maybe = wanted(graph(cut=stage("RemoveBackground", image=["image", 0], mask=["image", 1])))
    assert maybe == ["background/u2net"] and "background/u2net" not in sure


def test_what_has_run_is_not_needed_again(pack: Pack) -> None:
    assert wanted(graph(), has_run=lambda node_id: node_id in {"clean", "delight"})[0] == ["paint"]
    assert wanted(graph(), has_run=lambda node_id: node_id == "paint") == ([], [])


def check(prompt: dict[str, Any], *outputs: str) -> None:
    host = module("nodes._host")
    module("nodes._models").check_models(prompt, outputs or ("save",), host.model_store(host.ComfyHost()))


def test_one_list_of_all_that_is_missing(pack: Pack, comfy: Path) -> None:
    with pytest.raises(ValueError, match=r"^models: .* are missing, 11\.52 GB in all") as caught:
        check(graph())
    text = str(caught.value)
    for part in ("background/u2net: 0.18 GB", "shape/v2-0-turbo: 4.93 GB to download\n", "licence: Tencent",
                 "paint: 3.83 GB to download", "small files: model_index.json, scheduler/scheduler_config.json",
                 f"Downloads go to {comfy / 'models' / 'hunyuan3d_lowvram'}, where"):  # fmt: skip
        assert part in text, text
    masked = graph(cut=stage("RemoveBackground", image=["image", 0], mask=["image", 1]))
    with pytest.raises(ValueError, match=r"(?s)^models: shape/v2-0-turbo, delight, paint, background/u2net are"):
        check(masked)
    check(masked, "cut")


def test_what_is_there_is_enough(pack: Pack, installed: Path) -> None:
    """Another background model serves too."""
    with pytest.raises(ValueError, match=r"models: background/u2net is missing"):
        check(graph())
    (installed / "u2netp.onnx").write_bytes((Path(__file__).parents[2] / "demo/rembg/u2netp.onnx").read_bytes())
    try:
        check(graph())
    finally:
        (installed / "u2netp.onnx").unlink()
    with pytest.raises(ValueError, match=r"models: background/u2net, shape/mini are missing"):
        check(graph(shape=stage("GenerateShape", image=["cut", 0], variant="mini")))


def test_it_is_checked_once_for_each_prompt(pack: Pack, comfy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the first stage starts; a preset node before it is not stopped."""
    host, records, models = (module(f"nodes.{name}") for name in ("_host", "_records", "_models"))
    context = SimpleNamespace(prompt_id="one", node_id="preset")
    monkeypatch.setattr(models, "_checked", "")
    monkeypatch.setattr(records, "executing", lambda: context)
    monkeypatch.setattr(host, "_running_prompt", graph)
    monkeypatch.setattr(host, "_running_outputs", lambda: ["save"])
    host.ComfyHost()
    context.node_id = "clean"
    for _ in range(2):
        with pytest.raises(ValueError, match="are missing"):
            host.ComfyHost()
    monkeypatch.setattr(models, "_checked", "one")
    host.ComfyHost()
    context.prompt_id = "two"
    with pytest.raises(ValueError, match="are missing"):
        host.ComfyHost()


def test_model_check_tells_where_everything_is(pack: Pack, installed: Path, preset: Any) -> None:
    found = pack.output("ModelCheck", preset=preset)
    (text,) = found.args
    assert found.ui["text"] == [text]
    for part in ("Preset Custom needs 4 models, ~11.52 GB in all", "missing  background/u2net, 0.18 GB",
                 "there    shape/v2-0-turbo, 4.93 GB", str(installed / "hunyuan3d-dit-v2-0-turbo"),
                 "To download, 0.18 GB in all", "u2net.onnx  176.0 MB", "downloads are switched off", "Licences:",
                 "shape/v2-0-turbo: Tencent Hunyuan 3D 2.0", "background/u2net: Apache-2.0"):  # fmt: skip
        assert part in text, f"{part} is not in\n{text}"
    assert np.isnan(pack.by_id["ModelCheck"].fingerprint_inputs())


@pytest.mark.parametrize(
    "place", ["checkpoints/hunyuan3d-dit-v2-turbo_fp16", "diffusion_models/hy3dgen/hunyuan3d-dit-v2-0-turbo-fp16"]
)
def test_files_of_other_packs(pack: Pack, comfy: Path, models: Path, preset: Any, place: str) -> None:
    """In ComfyUI's own folders. A file of another layout than the published one, as this, is named and not used."""
    source = models / "hunyuan3d-dit-v2-0-turbo" / "model.fp16.safetensors"
    file = comfy / "models" / f"{place}.safetensors"
    file.parent.mkdir(parents=True)
    shutil.copy(source, file)
    (text,) = pack.output("ModelCheck", preset=preset).args
    assert f"not used: {file} has other tensors than the published file" in text
    host, manifest = module("nodes._host"), module("lowvram_core.files.manifest").MODELS
    store = host.model_store(host.ComfyHost())
    layout = module("lowvram_core.files.single_files").layout_of(
        module("lowvram_core.files.checkpoints").read_header(source)
    )
    store.models = {**manifest, "shape/v2-0-turbo": replace(manifest["shape/v2-0-turbo"], layout=layout)}
    found = store.look("shape/v2-0-turbo")
    assert found.weights == file and [wanted.path for wanted in found.missing] == ["config.yaml"]


def test_downloads_tell_a_line(pack: Pack, comfy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = module("nodes._host")
    told: list[str] = []
    monkeypatch.setattr(host.ComfyHost, "tell", lambda self, text: told.append(text), raising=False)
    host.model_store(host.ComfyHost()).tell("downloading")
    assert told == ["downloading"]
