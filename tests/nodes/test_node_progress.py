"""What a node shows of its run: bar, texts, pictures, the line at the end of a run."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from comfy_mesh import MeshData
from comfy_pack import PREFIX, Pack, module


@pytest.fixture
def running(comfy: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A prompt that runs without a server: what its nodes show is kept in `bars`, `texts` and `saved`."""
    kept = SimpleNamespace(
        now=SimpleNamespace(prompt_id="p", node_id=""), prompt={}, bars=[], texts=[], saved=[], summed=[]
    )
    records, host, progress = (module(f"nodes.{name}") for name in ("_records", "_host", "_progress"))
    monkeypatch.setattr(records, "executing", lambda: kept.now if kept.now.node_id else None)
    monkeypatch.setattr(records, "_runs", type(records._runs)())
    monkeypatch.setattr(host, "_running_prompt", lambda: kept.prompt)
    summary = progress.summary
    monkeypatch.setattr(progress, "summary", lambda found, made: (kept.summed.extend(found), summary(found, made))[1])
    timings = module("lowvram_core.files.timings").FileTimings(comfy / "timings.json")
    monkeypatch.setattr(progress, "timings", lambda: timings)
    monkeypatch.setattr(progress.Text, "show", lambda self, text, last=False: kept.texts.append(text) if text else None)
    monkeypatch.setattr(host.ComfyHost, "_show", lambda self, fraction, line, preview: (
        kept.bars.append(fraction), kept.texts.append(line)))  # fmt: skip
    monkeypatch.setattr(module("nodes._pictures"), "shown", lambda images: kept.saved.append(images) or {"images": [1]})
    return kept


def chain() -> dict[str, Any]:
    """Load Mesh, Clean Mesh, Unwrap UVs, Save Mesh."""
    return {
        "load": {"class_type": PREFIX + "LoadMesh", "inputs": {"file": "a.glb"}},
        "clean": {"class_type": PREFIX + "CleanMesh", "inputs": {"mesh": ["load", 0]}},
        "unwrap": {"class_type": PREFIX + "UnwrapUVs", "inputs": {"mesh": ["clean", 0]}},
        "save": {"class_type": PREFIX + "SaveMesh", "inputs": {"mesh": ["unwrap", 0]}},
    }


def test_a_bar_texts_a_picture_and_one_line_at_the_end(
    pack: Pack, running: SimpleNamespace, ball: MeshData, preset: Any, caplog: pytest.LogCaptureFixture, comfy: Path
) -> None:
    running.prompt = chain()
    with caplog.at_level(logging.INFO):
        running.now.node_id = "clean"
        output = pack.output("CleanMesh", mesh=ball, preset=preset)
        assert not [line for line in caplog.messages if " s: " in line], "Unwrap UVs follows"
        running.now.node_id = "unwrap"
        pack.output("UnwrapUVs", mesh=output.args[0], preset=preset)
    assert output.ui["images"] == [1] and [tuple(one.shape) for one in running.saved] == [
        (1, 256, 512, 3), (1, 384, 384, 3)
    ]  # fmt: skip
    assert "getting ready" in running.texts and "cleaning the mesh" in running.texts
    assert running.texts[-1].startswith(("0.", "1.", "2.")) and "unwrap" in running.texts[-1]
    assert running.bars[-1] == 1.0
    assert [line for line in caplog.messages if line.startswith("mesh with UVs in ")]
    assert {"clean", "unwrap"} <= {record.name for record in running.summed}, "of all nodes of the prompt"
    assert any("|clean" in name for name in json.loads((comfy / "timings.json").read_text()))


def test_nodes_without_work_show_no_text(pack: Pack, running: SimpleNamespace) -> None:
    running.prompt, running.now.node_id = {"p": {"class_type": PREFIX + "Preset8GBFast", "inputs": {}}}, "p"
    pack.output("Preset8GBFast")
    assert not any(running.texts)


@pytest.mark.parametrize(
    ("variable", "settings", "wanted"),
    [
        (None, None, True),
        (None, {"hunyuan3dlowvram.pictures": False}, False),
        (None, {"hunyuan3dlowvram.pictures": True}, True),
        ("1", {"hunyuan3dlowvram.pictures": False}, True),
        ("0", None, False),
        ("off", {"hunyuan3dlowvram.pictures": True}, False),
        (None, ["damaged"], True),
    ],
)
def test_pictures_of_meshes_can_be_switched_off(
    pack: Pack, comfy: Path, monkeypatch: pytest.MonkeyPatch, variable: str | None, settings: Any, wanted: bool
) -> None:
    import folder_paths

    pictures = module("nodes._pictures")
    monkeypatch.setattr(folder_paths, "get_user_directory", lambda: str(comfy / "user"), raising=False)
    monkeypatch.delenv(pictures.VARIABLE, raising=False)
    if variable is not None:
        monkeypatch.setenv(pictures.VARIABLE, variable)
    if settings is not None:
        (comfy / "user" / "default").mkdir(parents=True)
        (comfy / "user" / "default" / "comfy.settings.json").write_text(json.dumps(settings))
    assert pictures.wanted() is wanted


def test_a_picture_that_fails_costs_no_mesh(
    pack: Pack, running: SimpleNamespace, ball: MeshData, preset: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no picture")

    monkeypatch.setattr(module("lowvram_core.render.portraits"), "wireframe", fail)
    running.prompt, running.now.node_id = chain(), "clean"
    output = pack.output("CleanMesh", mesh=ball, preset=preset)
    assert "images" not in output.ui and len(output.args[0].faces[0])


def test_the_setting_is_the_one_that_the_front_end_has(pack: Pack) -> None:
    root = Path(__file__).resolve().parents[2]
    setting = module("nodes._pictures").SETTING
    assert f'id: "{setting}"' in (root / "web" / "pictures.js").read_text(encoding="utf-8")
    for language in ("en", "ko"):
        texts = json.loads((root / "locales" / language / "settings.json").read_text(encoding="utf-8"))
        assert set(texts[setting.replace(".", "_")]) == {"name", "tooltip"}


def test_a_turntable(pack: Pack, ball: MeshData) -> None:
    images = pack.run("Turntable", mesh=ball, frames=3, size=64, background="black")
    assert images.shape == (3, 64, 64, 3) and images.dtype == torch.float32
    assert images[0, 0, 0].max() == 0 and images[:, 32, 32].min() > 0.2


def test_a_turntable_that_fills_the_memory_is_refused(pack: Pack, ball: MeshData) -> None:
    with pytest.raises(
        module("lowvram_core.errors").BadInput, match=r"^turntable: 360 frames of 2048 px; wanted at most 64"
    ):
        pack.run("Turntable", mesh=ball, frames=360, size=2048)
