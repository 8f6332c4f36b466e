"""The pipeline refuses bad input before the first download and before the first model."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import tiny
from hosts import RecordingHost
from PIL import Image, ImageDraw

from lowvram_core.app.pipeline import find_models, run
from lowvram_core.checks.packages import check_packages
from lowvram_core.errors import BadCheckpoint, BadInput, Cancelled, MissingDependency, MissingModel
from lowvram_core.files.folders import Found
from lowvram_core.files.store import ModelStore
from lowvram_core.presets import PRESETS

PRESET = PRESETS["8 GB Full"].with_(
    octree=16, shape_steps=1, delight_steps=1, paint_steps=1, render_px=64, texture_px=64, views="minimal"
)


def picture(box: tuple[int, int, int, int] = (8, 8, 50, 56), size: tuple[int, int] = (64, 64)) -> Image.Image:
    image = Image.new("RGBA", size, (0, 0, 0, 0))
    ImageDraw.Draw(image).rectangle(box, fill=(200, 60, 30, 255))
    return image


class NoStore(ModelStore):
    """Fails the test when a model is asked for."""

    def __init__(self) -> None:
        super().__init__([])

    def is_present(self, model_id: str) -> bool:
        """Must not be called."""
        raise AssertionError(model_id)


@pytest.mark.parametrize(
    ("pictures", "words"),
    [
        ({"front": picture(), "left": picture()}, "2 views for variant v2-0"),
        ({"top": picture()}, "views .'top'."),
        (Image.new("RGBA", (64, 64), (9, 9, 9, 0)), "the front picture is fully transparent"),
        (Image.new("RGB", (64, 4)), "the front picture is 64x4"),
    ],
)
def test_pictures_are_refused_before_models_are_looked_up(pictures: object, words: str) -> None:
    host = RecordingHost()
    with pytest.raises(BadInput, match=words):
        run(pictures, PRESET, host, NoStore())  # type: ignore[arg-type]
    assert host.phases == []


def test_a_missing_package_is_named_before_models_are_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cv2", "hy3dgen", "xatlas"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependency) as caught:
        run(picture(), PRESET, RecordingHost(), NoStore())
    text = str(caught.value)
    assert "the Python packages 'hy3dgen', 'cv2', 'xatlas' could not be imported" in text
    assert "pip install opencv-python-headless xatlas and then python -m pip install --no-deps hy3dgen" in text


def test_only_what_the_run_imports_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("rembg", "uvunwrap"):
        monkeypatch.setitem(sys.modules, name, None)
    check_packages(PRESET, background=False)
    with pytest.raises(MissingDependency, match="rembg"):
        check_packages(PRESET)
    with pytest.raises(MissingDependency, match="uvunwrap"):
        check_packages(PRESET.with_(unwrapper="uvunwrap"), background=False)
    for name in ("skimage", "fast_simplification"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"pip install .*scikit-image fast-simplification"):
        check_packages(PRESET, background=False)


def test_an_object_too_thin_to_delight_costs_no_shape(tmp_path: Path) -> None:
    host = RecordingHost()
    store = ModelStore([tiny.make_all(tmp_path)], offline=True)
    with pytest.raises(BadInput, match=r"delight: the object is 981x2 px"):
        run(picture((10, 20, 990, 21), (1000, 40)), PRESET, host, store)
    assert host.borrowed == []


def of_another_model(root: Path, part: str) -> None:
    """Changes a number in a part's configuration, so that the weights no longer fit."""
    path = next(root.glob(f"{part}/config.*"))
    if path.suffix == ".yaml":
        path.write_text(path.read_text().replace("hidden_size: 32", "hidden_size: 64"))
    else:
        config = json.loads(path.read_text())
        path.write_text(json.dumps({**config, "layers_per_block": config["layers_per_block"] + 1}))


@pytest.mark.parametrize(
    "part",
    ["hunyuan3d-dit-v2-0", "hunyuan3d-delight-v2-0/unet", "hunyuan3d-delight-v2-0/vae", "hunyuan3d-paint-v2-0/unet",
     "hunyuan3d-paint-v2-0/vae"],
)  # fmt: skip
def test_every_checkpoint_is_opened_before_the_first_stage(tmp_path: Path, part: str) -> None:
    host = RecordingHost()
    store = ModelStore([tiny.make_all(tmp_path)], offline=True)
    of_another_model(tmp_path, part)
    with pytest.raises(BadCheckpoint, match="wanted the"):
        run(picture(), PRESET, host, store)
    assert host.phases == [] and host.borrowed == []


class Fetching(ModelStore):
    """Has no model until one is asked for. Then it reports a download."""

    def __init__(self, roots: list[Path], *, offline: bool) -> None:
        super().__init__(roots, offline=offline)
        self.fetched: set[str] = set()

    def is_present(self, model_id: str) -> bool:
        """False: nothing is present."""
        return False

    def place(self, model_id: str, progress: object = None, tell: object = None) -> Found:
        """Reports progress twice and a line once, then returns the place."""
        if model_id not in self.fetched:
            assert callable(progress) and callable(tell)
            tell(f"downloading {model_id}")
            progress(1, 2)
            progress(2, 2)
            self.fetched.add(model_id)
        return super().place(model_id)


def test_a_download_is_a_phase_with_a_name(tmp_path: Path) -> None:
    store = Fetching([tiny.make_all(tmp_path)], offline=True)
    host = RecordingHost()
    order = find_models(PRESET, host, store, background=False)
    assert [component.label for component in order] == [
        "image encoder (DINOv2)", "shape DiT", "shape VAE", "delight VAE", "delight UNet", "delight VAE",
        "paint VAE", "paint dual UNet", "paint UNet", "paint VAE",
    ]  # fmt: skip
    assert host.finished == ["download"] * 3
    assert host.reports[:2] == [("download", 1, 2), ("download", 2, 2)]
    assert host.told == ["downloading shape/v2-0", "downloading delight", "downloading paint"]
    store.fetched.clear()
    with pytest.raises(Cancelled):
        find_models(PRESET, RecordingHost(cancel_after=1), store, background=False)


def test_all_missing_models_are_told_before_the_first_stage(tmp_path: Path) -> None:
    """In one list, also the paint model, which the run would need last."""
    tiny.make_shape(tmp_path)
    host = RecordingHost()
    with pytest.raises(MissingModel) as caught:
        run(picture(), PRESET, host, ModelStore([tmp_path], offline=True))
    text = str(caught.value)
    assert text.startswith(
        "models: delight, paint are missing, 6.41 GB in all, and cannot be downloaded (downloads are"
    )
    assert "unet/diffusion_pytorch_model.safetensors  3,662.6 MB" in text and "shape/v2-0" not in text
    assert text.count("licence: Tencent Hunyuan 3D 2.0 Community License") == 2
    assert host.phases == [] and host.borrowed == []
