"""Shape models that ComfyUI and other packs keep as one file: found, checked, and the same to the bit."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from hub_server import Hub, serving
from safetensors.torch import load_file, save_file
from torch import Tensor

from lowvram_core.app.torch_host import TorchHost
from lowvram_core.errors import MissingModel
from lowvram_core.files.checkpoints import read_header
from lowvram_core.files.describe import describe
from lowvram_core.files.manifest import MODELS, Model
from lowvram_core.files.single_files import file_names, layout_of
from lowvram_core.files.store import ModelStore
from lowvram_core.presets import PRESETS
from lowvram_core.stages.shape import generate_shape
from lowvram_core.types import Cutout

CUTOUT = Cutout(torch.full((64, 64, 3), 0.6), torch.ones(64, 64))
PRESET = PRESETS["8 GB Full"].with_(octree=16, shape_steps=2)
CORES = "checkpoints/hunyuan3d-dit-v2_fp16.safetensors"
"""The name that ComfyUI's own workflows give to v2-0."""


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with a tiny v2-0 in upstream's layout."""
    root = tmp_path_factory.mktemp("published")
    tiny.make_shape(root, "v2-0")
    return root


@pytest.fixture(scope="module")
def manifest(published: Path) -> dict[str, Model]:
    """The manifest, with the layout of the tiny model."""
    layout = layout_of(read_header(published / "hunyuan3d-dit-v2-0" / "model.fp16.safetensors"))
    return {**MODELS, "shape/v2-0": replace(MODELS["shape/v2-0"], layout=layout)}


Repack = Callable[[dict[str, Tensor]], dict[str, Tensor]]


def as_core_saves(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names that ComfyUI gives to the DiT's norms when it saves a checkpoint."""
    renamed = {
        name.replace("_norm.scale", "_norm.weight") if name.startswith("model.") else name: value
        for name, value in state.items()
    }
    assert renamed.keys() != state.keys()
    return renamed


def put(published: Path, file: Path, change: Repack = dict) -> Path:
    """Writes the weights as one file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(change(load_file(published / "hunyuan3d-dit-v2-0" / "model.fp16.safetensors")), file)
    return file


def configured(published: Path, root: Path) -> Path:
    """Copies the configuration alone."""
    folder = root / "hunyuan3d_lowvram" / "hunyuan3d-dit-v2-0"
    folder.mkdir(parents=True)
    shutil.copy(published / "hunyuan3d-dit-v2-0" / "config.yaml", folder)
    return folder


def offline(root: Path, manifest: dict[str, Model]) -> ModelStore:
    return ModelStore([root / "hunyuan3d_lowvram", root], offline=True, models=manifest)


@pytest.mark.parametrize("change", [dict, as_core_saves], ids=["upstream's names", "core's names"])
def test_a_repackaged_model_gives_the_same_mesh_to_the_bit(
    tmp_path: Path, published: Path, manifest: dict[str, Model], change: Repack
) -> None:
    file = put(published, tmp_path / CORES, change)
    folder = configured(published, tmp_path)
    store = offline(tmp_path, manifest)
    found = store.place("shape/v2-0")
    assert (found.folder, found.weights) == (folder, file)
    host = TorchHost(torch.device("cpu"), torch.float32)
    own, repackaged = (
        generate_shape(CUTOUT, PRESET, host, of, seed=3) for of in (ModelStore([published], offline=True), store)
    )
    assert len(own.faces) > 0
    assert torch.equal(own.vertices, repackaged.vertices) and torch.equal(own.faces, repackaged.faces)


@pytest.mark.parametrize(
    "place",
    [CORES, "checkpoints/3d/hunyuan3d-dit-v2-0-fp16.safetensors",
     "diffusion_models/hy3dgen/Hunyuan3D-DiT-v2-0.safetensors", "hunyuan3d_lowvram/hunyuan3d-dit-v2.fp16.safetensors"],
)  # fmt: skip
def test_where_and_by_what_name(tmp_path: Path, published: Path, manifest: dict[str, Model], place: str) -> None:
    file = put(published, tmp_path / place)
    configured(published, tmp_path)
    assert offline(tmp_path, manifest).look("shape/v2-0").weights == file


def test_the_published_folder_comes_first(tmp_path: Path, published: Path, manifest: dict[str, Model]) -> None:
    put(published, tmp_path / CORES)
    folder = configured(published, tmp_path)
    shutil.copy(published / "hunyuan3d-dit-v2-0" / "model.fp16.safetensors", folder)
    assert offline(tmp_path, manifest).look("shape/v2-0").weights is None


def cut(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if name.startswith("model.")}


def wider(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**state, "model.latent_in.weight": torch.zeros(32, 9, dtype=torch.float16)}


def single(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.float() for name, value in state.items()}


@pytest.mark.parametrize(
    ("change", "why"),
    [(cut, r"has other tensors than the published file \(its parts: model\)"),
     (wider, r"has other tensors than the published file \(its parts: conditioner, model, vae\)"),
     (single, "is in F32, not in F16")],
)  # fmt: skip
def test_a_file_of_other_tensors_is_not_used_and_told(
    tmp_path: Path, published: Path, manifest: dict[str, Model], change: Repack, why: str
) -> None:
    file = put(published, tmp_path / CORES, change)
    configured(published, tmp_path)
    store = offline(tmp_path, manifest)
    with pytest.raises(MissingModel, match=rf"(?s)4\.93 GB.*not used: {file} {why}"):
        store.place("shape/v2-0")
    file.write_bytes(file.read_bytes()[:5000])
    assert store.look("shape/v2-0").refused == (f"{file} is truncated or not a safetensors file",)
    put(published, file)  # the same name, now the right content
    assert store.look("shape/v2-0").weights == file


def test_other_names_do_not_count(tmp_path: Path, published: Path, manifest: dict[str, Model]) -> None:
    """v2-0 and mv have the same layout, so only the name tells them apart."""
    for name in ("hunyuan3d-dit-v2-mv_fp16", "hunyuan3d-dit-v2-turbo_fp16", "model.fp16", "my_hunyuan3d-dit-v2"):
        put(published, tmp_path / "checkpoints" / f"{name}.safetensors")
    configured(published, tmp_path)
    assert offline(tmp_path, manifest).look("shape/v2-0").weights is None
    names = [name for model in MODELS.values() if model.layout for name in file_names(model)]
    assert len(names) == len(set(names)) and {"hunyuan3d-dit-v2", "hunyuan3d-dit-v2-turbo"} < set(names)


def test_only_the_configuration_is_fetched(tmp_path: Path, published: Path, manifest: dict[str, Model]) -> None:
    file = put(published, tmp_path / CORES)
    with pytest.raises(
        MissingModel, match=rf"(?s)0\.00 MB in all.*config\.yaml.*there already: the weights, in {file}"
    ):
        offline(tmp_path, manifest).require(["shape/v2-0"])
    config = (published / "hunyuan3d-dit-v2-0" / "config.yaml").read_bytes()
    with serving(Hub({"tencent/Hunyuan3D-2/hunyuan3d-dit-v2-0/config.yaml": config})) as hub:
        store = ModelStore([tmp_path / "hunyuan3d_lowvram", tmp_path], endpoint=hub.address, models=manifest)
        text = describe(PRESET, store)
        assert "small files: config.yaml" in text and "model.fp16.safetensors" not in text and not hub.seen
        store.require(["shape/v2-0"])
        found = store.place("shape/v2-0")
        assert len(hub.gets()) == 1
    assert found.weights == file and found.folder == tmp_path / "hunyuan3d_lowvram/Hunyuan3D-2/hunyuan3d-dit-v2-0"
    assert store.look("shape/v2-0") == found
    host = TorchHost(torch.device("cpu"), torch.float32)
    assert np.isfinite(generate_shape(CUTOUT, PRESET, host, store).vertices.numpy()).all()
