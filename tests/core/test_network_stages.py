"""Shape, delight and paint: bad input, cancels, and that every component is given back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from hosts import RecordingHost
from PIL import Image, ImageDraw

from lowvram_core.errors import BadCheckpoint, BadInput, Cancelled, LowVramError, MissingModel, NumericalFailure
from lowvram_core.files.kept import KeptTensor
from lowvram_core.files.store import ModelStore
from lowvram_core.networks.previews import preview
from lowvram_core.pictures.convert import cutout_from_rgba
from lowvram_core.presets import PRESETS
from lowvram_core.stages import delight as delight_module
from lowvram_core.stages import paint as paint_module
from lowvram_core.stages.delight import delight
from lowvram_core.stages.paint import paint_views
from lowvram_core.stages.shape import generate_shape
from lowvram_core.types import Cutout, Mesh

pytestmark = pytest.mark.usefixtures("small_views")
QUICK = PRESETS["8 GB Full"].with_(
    octree=16, points_per_chunk=1500, shape_steps=3, delight_steps=2, paint_steps=2, render_px=64, views="minimal"
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    return ModelStore([tiny.make_all(tmp_path_factory.mktemp("models"))], offline=True)


def disc() -> Cutout:
    image = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    ImageDraw.Draw(image).ellipse((8, 8, 50, 56), fill=(200, 60, 30, 255))
    return cutout_from_rgba(image)


def sheet() -> Mesh:
    corners = torch.tensor([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0.3]])
    return Mesh(corners, torch.tensor([[0, 1, 2], [0, 2, 3]]), (corners[:, :2] + 1) / 2)


Stage = Callable[[RecordingHost, ModelStore], object]
STAGES: dict[str, Stage] = {
    "shape": lambda host, store: generate_shape(disc(), QUICK, host, store),
    "delight": lambda host, store: delight(disc(), QUICK, host, store),
    "paint": lambda host, store: paint_views(sheet(), torch.rand(64, 64, 3), QUICK, host, store),
}


@pytest.mark.parametrize("name", STAGES)
def test_every_report_can_cancel_and_leaves_nothing(store: ModelStore, name: str) -> None:
    whole = RecordingHost()
    STAGES[name](whole, store)
    assert whole.most_out == 1, "one component at a time"
    for reports in range(len(whole.reports)):
        host = RecordingHost(cancel_after=reports)
        with pytest.raises(Cancelled):
            STAGES[name](host, store)
        assert host.out == [] and len(host.reports) == reports


def test_each_step_and_chunk_is_reported(store: ModelStore) -> None:
    host = RecordingHost()
    for stage in STAGES.values():
        stage(host, store)
    reached = {phase: [done for at, done, _ in host.reports if at == phase] for phase, _, _ in host.reports}
    assert reached["sample"] == [1, 2], "the third has no length"
    assert reached["decode"] == [1500, 3000, 4500, 17**3]
    assert reached["delight"] == [1, 2]
    assert reached["paint"] == [0, 1, 2]
    assert reached["normals"] == reached["positions"] == [1, 2, 3]


def test_each_step_that_makes_pictures_shows_them(store: ModelStore) -> None:
    """A small picture at every step, on the CPU. Several views are side by side."""
    for name, shape in (("delight", (16, 16, 3)), ("paint", (16, 3 * 16, 3))):
        host = RecordingHost()
        STAGES[name](host, store)
        assert [tuple(sketch.shape) for sketch in host.previews] == [shape] * 2
        for sketch in host.previews:
            assert sketch.dtype == torch.float32 and sketch.device.type == "cpu"
            assert sketch.min() >= 0 and sketch.max() <= 1 and sketch.std() > 0


def test_preview_of_latents() -> None:
    """Six views are in two rows, in reading order. Latents of 0 are grey, and NaN is black."""
    latents = torch.zeros(6, 4, 2, 2)
    latents[:, 0] = torch.arange(6.0)[:, None, None]
    latents[5, 0, 1, 1] = float("nan")
    sketch = preview(latents)
    assert sketch.shape == (4, 6, 3) and bool((sketch[:2, :2] == 0.5).all())
    red = (0.5 + 0.3444 / 2 * torch.arange(6.0)).clamp(0, 1).view(2, 3)
    assert torch.allclose(sketch[::2, ::2, 0], red) and bool((sketch[3, 5] == 0).all())
    assert preview(latents[:3]).shape == (2, 6, 3) and preview(latents[:1]).shape == (2, 2, 3)


def refused(host: RecordingHost, call: Callable[[], object], *words: str) -> None:
    """Asserts a clear error before anything is borrowed."""
    with pytest.raises(BadInput) as caught:
        call()
    text = str(caught.value)
    assert all(word in text for word in words), text
    assert "wanted" in text and host.borrowed == []


def empty() -> Cutout:
    return Cutout(torch.zeros(8, 8, 3), torch.zeros(8, 8))


def with_nan() -> Cutout:
    image = disc().image.clone()
    image[3, 3] = float("nan")
    return Cutout(image, disc().mask)


@pytest.mark.parametrize("make", [empty, with_nan])
def test_bad_cutouts_are_refused(store: ModelStore, make: Callable[[], Cutout]) -> None:
    host = RecordingHost()
    refused(host, lambda: generate_shape(make(), QUICK, host, store), "shape: ")
    refused(host, lambda: delight(make(), QUICK, host, store), "delight: ")
    refused(host, lambda: paint_views(sheet(), make(), QUICK, host, store), "paint: ")


def test_views_and_variant_must_agree(store: ModelStore) -> None:
    host = RecordingHost()
    both = {"front": disc(), "back": disc()}
    refused(host, lambda: generate_shape(both, QUICK, host, store), "2 views", "v2-0", "mv")
    mv = QUICK.with_(variant="mv")
    refused(host, lambda: generate_shape({"top": disc()}, mv, host, store), "top", "front")
    refused(host, lambda: generate_shape({}, mv, host, store), "none")


def test_bad_meshes_and_references_are_refused(store: ModelStore) -> None:
    host = RecordingHost()
    good = torch.rand(8, 8, 3)
    for mesh, word in (
        (sheet().with_(faces=torch.zeros(0, 3, dtype=torch.int64)), "empty"),
        (sheet().with_(faces=torch.tensor([[0, 1, 9]])), "9"),
        (sheet().with_(uvs=None), "UV"),
    ):
        refused(host, lambda mesh=mesh: paint_views(mesh, good, QUICK, host, store), "paint: ", word)
    for reference in (torch.rand(8, 8), torch.full((8, 8, 3), float("nan"))):
        refused(host, lambda r=reference: paint_views(sheet(), r, QUICK, host, store), "reference picture")


def test_missing_models_name_folder_and_address(tmp_path: Path) -> None:
    host, store = RecordingHost(), ModelStore([tmp_path], offline=True)
    for stage in STAGES.values():
        with pytest.raises(MissingModel) as caught:
            stage(host, store)
        assert str(tmp_path) in str(caught.value) and "https://" in str(caught.value)
    assert host.borrowed == []


def test_cutouts_can_be_painted_without_delight(store: ModelStore) -> None:
    assert paint_views(sheet(), disc(), QUICK, RecordingHost(), store).images.shape == (3, 128, 128, 3)


def test_nan_in_the_networks_is_named(tmp_path: Path) -> None:
    def spoil(name: str, value: float) -> ModelStore:
        from safetensors.torch import load_file, save_file

        folder = tmp_path / f"{name}{value}"
        file = tiny.make_shape(folder) / "model.fp16.safetensors"
        state = load_file(file)
        state[name] = torch.full_like(state[name], value)
        save_file(state, file)
        return ModelStore([folder], offline=True)

    for name, step in (("model.latent_in.bias", "sample"), ("vae.post_kl.bias", "decode")):
        host = RecordingHost()
        with pytest.raises(NumericalFailure, match=f"{step} gave NaN.*float32"):
            generate_shape(disc(), QUICK, host, spoil(name, float("nan")))
        assert host.out == []
    with pytest.raises(NumericalFailure, match="never crosses"):
        generate_shape(disc(), QUICK, RecordingHost(), spoil("vae.geo_decoder.output_proj.bias", 500.0))


def poisoned(model: Any, part: str) -> Any:
    """The opened model, where the first weight of one part is NaN."""
    component = getattr(model, part)

    def load() -> torch.nn.Module:
        module = component.load()
        next(module.parameters()).fill_(float("nan"))
        return module

    return dataclasses.replace(model, **{part: dataclasses.replace(component, load=load)})


@pytest.mark.parametrize(
    ("stage", "part", "step"),
    [
        ("delight", "text_encoder", "prompt"), ("delight", "vae", "encode"), ("delight", "unet", "denoise"),
        ("paint", "vae", "encode"), ("paint", "dual", "reference"), ("paint", "main", "denoise"),
    ],
)  # fmt: skip
def test_nan_in_delight_and_paint_is_named(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch, stage: str, part: str, step: str
) -> None:
    module, opener = (delight_module, "open_delight") if stage == "delight" else (paint_module, "open_paint")
    opened = getattr(module, opener)
    monkeypatch.setattr(module, opener, lambda folder, dtype: poisoned(opened(folder, dtype), part))
    monkeypatch.setattr(KeptTensor, "read", lambda kept: None)
    host = RecordingHost()
    with pytest.raises(NumericalFailure, match=f"^{stage}: {step} gave NaN.*float32.*precision"):
        STAGES[stage](host, store)
    assert host.out == []


@pytest.mark.parametrize("stage", ["delight", "paint"])
def test_nan_in_decoded_pictures_is_named(store: ModelStore, monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    module = delight_module if stage == "delight" else paint_module
    monkeypatch.setattr(module, "decode_pictures", lambda vae, latents: torch.full((3, 3, 8, 8), float("nan")))
    with pytest.raises(NumericalFailure, match=f"^{stage}: decode gave NaN"):
        STAGES[stage](RecordingHost(), store)


def test_an_object_too_thin_to_delight_is_refused(store: ModelStore) -> None:
    line = Cutout(torch.zeros(40, 1000, 3), torch.zeros(40, 1000))
    line.mask[20:22, 10:990] = 1.0
    host = RecordingHost()
    refused(host, lambda: delight(line, QUICK, host, store), "delight: ", "980x2 px", "thicker")


@pytest.mark.filterwarnings("error")
def test_colours_stay_where_there_is_nothing_to_measure_them_by() -> None:
    relit = np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)
    target = np.full((8, 8, 4), 255, np.uint8)
    target[..., 3] = 0
    target[3, 3] = (200, 50, 20, 255)
    matched = delight_module._match_colours(relit, target)
    assert np.abs(matched[3, 3].astype(int) - relit[3, 3]).max() <= 1 and (matched[0, 0] == 255).all()
    target[2:6, 2:6] = (200, 50, 20, 255)
    target[2, 2] = (100, 50, 20, 255)
    flat = np.full((8, 8, 3), 128, np.uint8)
    matched = delight_module._match_colours(flat, target)
    assert np.abs(matched[3, 3].astype(int) - 128).max() <= 1 and (matched[0, 0] == 255).all()


def test_a_shape_folder_of_another_variant_is_refused(tmp_path: Path) -> None:
    folder, other = tiny.make_shape(tmp_path / "a"), tiny.make_shape(tmp_path / "b", "v2-0-fast")
    (other / "config.yaml").replace(folder / "config.yaml")
    host = RecordingHost()
    with pytest.raises(BadCheckpoint, match=r"lacks guidance_in.*another variant"):
        generate_shape(disc(), QUICK, host, ModelStore([tmp_path / "a"], offline=True))
    assert host.borrowed == []


def test_errors_are_one_family() -> None:
    assert issubclass(BadInput, LowVramError) and issubclass(BadCheckpoint, BadInput)
