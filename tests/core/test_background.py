"""The background stage: the original u2netp weights on real photographs, and known problems of rembg."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hosts import RecordingHost
from PIL import Image, ImageDraw

from lowvram_core.errors import BadCheckpoint, BadInput, Cancelled, MissingDependency, MissingModel
from lowvram_core.files.manifest import Model, ModelFile
from lowvram_core.files.pictures import load_picture
from lowvram_core.files.store import ModelStore
from lowvram_core.pictures.recentre import solid_box
from lowvram_core.presets import get
from lowvram_core.stages import background
from lowvram_core.stages.background import remove_background

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = ROOT / "demo"
OUTLINES = json.loads((ROOT / "tests" / "data" / "photo_masks.json").read_text(encoding="utf-8"))
PRESET = get("8 GB Fast").with_(background_model="u2netp")
STORE = ModelStore([WEIGHTS], offline=True)

needs_weights = pytest.mark.skipif(
    not (WEIGHTS / "rembg" / "u2netp.onnx").is_file(), reason="u2netp.onnx was not fetched: make weights"
)


def photograph(name: str) -> Path:
    import skimage

    return Path(skimage.__file__).parent / "data" / name


def drawn_mask(name: str, size: tuple[int, int]) -> np.ndarray:
    """[H,W] bool, filled from hand-drawn outlines."""
    mask = Image.new("1", size)
    draw = ImageDraw.Draw(mask)
    for fill, key in ((1, "object"), (0, "holes")):
        for outline in OUTLINES[name][key]:
            draw.polygon(outline, fill=fill)
    return np.asarray(mask)


def red_square(mode: str = "RGB") -> Image.Image:
    picture = Image.new("RGB", (128, 96), "white")
    picture.paste((200, 20, 20), (40, 24, 88, 72))
    return picture.convert(mode)


@needs_weights
@pytest.mark.parametrize(("name", "wanted"), [("coffee.png", 0.95), ("astronaut.png", 0.90), ("camera.png", 0.90)])
def test_the_object_of_a_photograph_is_found(name: str, wanted: float) -> None:
    picture = load_picture(photograph(name))
    host = RecordingHost()
    cutout = remove_background(picture, PRESET, host, STORE)
    assert cutout.mask.shape == (picture.height, picture.width)
    assert cutout.image.shape == (picture.height, picture.width, 3)
    found, drawn = cutout.mask.numpy() >= 0.5, drawn_mask(name, picture.size)
    overlap = (found & drawn).sum() / (found | drawn).sum()
    logging.getLogger(__name__).info("%s: IoU %.3f", name, overlap)
    assert overlap >= wanted
    assert host.phases == host.finished == ["background"]


@needs_weights
def test_it_is_the_same_as_upstreams_own_call(monkeypatch: pytest.MonkeyPatch) -> None:
    rembg = background.import_rembg()
    monkeypatch.setenv("U2NET_HOME", str(WEIGHTS / "rembg"))
    picture = load_picture(photograph("coffee.png"))
    theirs = rembg.remove(picture, session=rembg.new_session("u2netp"), bgcolor=[255, 255, 255, 0])
    ours = background._cut_out(picture, "u2netp", STORE)
    assert np.array_equal(np.asarray(theirs), np.asarray(ours))


@needs_weights
def test_a_large_photograph_is_scaled_first() -> None:
    picture = load_picture(photograph("coffee.png")).resize((1800, 1200))
    cutout = remove_background(picture, PRESET.with_(picture_px=300), RecordingHost(), STORE)
    assert cutout.mask.shape == (200, 300)


def without_an_object(kind: str) -> Image.Image:
    rows, columns = np.mgrid[-1:1:256j, -1:1:256j]
    drawn = {
        "paper": 230 + np.random.default_rng(0).integers(0, 20, (256, 256, 3)),
        "gradient": np.repeat((columns * 127 + 128)[..., None], 3, 2),
        "vignette": np.repeat((255 - 80 * (rows**2 + columns**2))[..., None], 3, 2),
    }
    if kind in drawn:
        return Image.fromarray(drawn[kind].astype(np.uint8))
    return load_picture(photograph(kind)) if "." in kind else Image.new("RGB", (512, 512), kind)


@needs_weights
@pytest.mark.parametrize("kind", ["white", "black", "grey", "#f0e8d8", "paper", "gradient", "vignette", "grass.png"])
def test_nothing_found_is_bad_input(kind: str) -> None:
    """On blank black and on the vignette, more than 1 % of the stretched mask looks like an object."""
    with pytest.raises(BadInput, match=r"^background: no object found .* Use another background model"):
        remove_background(without_an_object(kind), PRESET, RecordingHost(), STORE)


@needs_weights
@pytest.mark.parametrize("radius", [4, 8, 24, 100])
def test_small_objects_are_found(radius: int) -> None:
    picture = Image.new("RGB", (512, 512), "white")
    ImageDraw.Draw(picture).circle((256, 256), radius, fill=(180, 40, 30))
    host = RecordingHost()
    found = float((remove_background(picture, PRESET, host, STORE).mask >= 0.5).sum())
    assert found == pytest.approx(np.pi * radius**2, rel=0.4)
    assert host.notes == []


def test_a_mask_of_almost_nothing_is_no_object(monkeypatch: pytest.MonkeyPatch) -> None:
    """13 of 262,144 pixels were an object once, on blank white."""

    def cut_out(picture: Image.Image, model: str, store: object) -> Image.Image:
        alpha = Image.new("L", picture.size, 0)
        alpha.paste(255, (0, 0, 13, 2))
        picture.putalpha(alpha)
        return picture

    monkeypatch.setattr(background, "_cut_out", cut_out)
    with pytest.raises(BadInput, match="no object found"):
        remove_background(Image.new("RGB", (512, 512), "white"), PRESET, RecordingHost(), STORE)


@needs_weights
def test_only_the_cpu_is_used_and_nothing_is_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    import pooch

    monkeypatch.setattr(pooch, "retrieve", lambda *args, **kwargs: pytest.fail("rembg downloads"))
    rembg = background.import_rembg()
    session = background._session(rembg, "u2netp", WEIGHTS / "rembg" / "u2netp.onnx")
    assert session.inner_session.get_providers() == ["CPUExecutionProvider"]


def test_real_transparency_is_kept_as_it_is(tmp_path: Path) -> None:
    picture = red_square("RGBA")
    alpha = Image.new("L", picture.size, 0)
    alpha.paste(255, (40, 24, 88, 72))
    picture.putalpha(alpha)
    cutout = remove_background(picture, PRESET, RecordingHost(), ModelStore([tmp_path], offline=True))
    assert torch.equal(cutout.mask, torch.from_numpy(np.asarray(alpha) / 255).float())


def rounded_card(radius: int, size: int = 512) -> Image.Image:
    """RGBA: a photograph that fills the frame, with rounded corners."""
    picture = Image.effect_noise((size, size), 80).convert("RGB")
    mask = Image.new("L", picture.size, 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, size - 1, size - 1), radius, fill=255)
    picture.putalpha(mask)
    return picture


@pytest.mark.parametrize(("radius", "picture_px"), [(3, 1024), (8, 1024), (60, 1024), (8, 128)])
def test_a_rounded_card_keeps_its_own_alpha(tmp_path: Path, radius: int, picture_px: int) -> None:
    """Far less than 1 % of it is transparent."""
    card = rounded_card(radius)
    host, store = RecordingHost(), ModelStore([tmp_path], offline=True)
    cutout = remove_background(card, PRESET.with_(picture_px=picture_px), host, store)
    if picture_px == 1024:
        assert torch.equal(cutout.mask, torch.from_numpy(np.asarray(card.getchannel("A")) / 255).float())
    assert float((cutout.mask >= 0.5).float().mean()) > 0.98
    (note,) = host.notes
    assert note.startswith("background: the object touches the picture's border (left, right, top, bottom)")


@pytest.mark.parametrize("alpha", [255, 254, 128])
def test_alpha_that_is_not_used_is_no_cutout(tmp_path: Path, alpha: int) -> None:
    """Then the background is removed, for which this store has no model. One clear pixel does not count either."""
    picture = red_square("RGBA")
    picture.putalpha(alpha)
    picture.putpixel((3, 3), (0, 0, 0, 0))
    with pytest.raises(MissingModel):
        remove_background(picture, PRESET, RecordingHost(), ModelStore([tmp_path], offline=True))


@pytest.mark.parametrize(
    ("box", "sides"),
    [((10, 10, 60, 60), ""), ((0, 10, 60, 60), "left"), ((10, 0, 128, 60), "right, top"), ((9, 40, 99, 96), "bottom")],
)
def test_an_object_at_the_border_gets_a_note(tmp_path: Path, box: tuple[int, int, int, int], sides: str) -> None:
    picture, host = Image.new("RGBA", (128, 96), (0, 0, 0, 0)), RecordingHost()
    picture.paste((200, 20, 20, 255), box)
    picture.putpixel((127, 95), (0, 0, 0, 100))
    remove_background(picture, PRESET, host, ModelStore([tmp_path], offline=True))
    assert [note.partition("(")[2].partition(")")[0] for note in host.notes] == ([sides] if sides else [])


def soft_disc(behind: tuple[int, int, int]) -> tuple[Image.Image, np.ndarray, np.ndarray]:
    """RGB, a blurred disc over a colour; its alpha [H,W] and its own colours [H,W,3], 0..1."""
    rows, columns = np.mgrid[-1:1:256j, -1:1:256j]
    alpha = np.clip((0.6 - np.hypot(rows, columns)) / 0.08 + 0.5, 0, 1)
    own = np.stack([0.5 + 0.2 * columns, 0.3 + 0.1 * rows, np.full_like(rows, 0.15)], -1)
    mixed = own * alpha[..., None] + np.array(behind) / 255 * (1 - alpha[..., None])
    return Image.fromarray((mixed * 255).round().astype(np.uint8)), alpha, own


@pytest.mark.parametrize("behind", [(20, 180, 50), (255, 255, 255), (0, 0, 0)])
@pytest.mark.parametrize(("edge_colours", "low", "high"), [("estimated", 0, 0.015), ("upstream", 0.08, 1)])
def test_soft_edges_lose_the_old_background(
    monkeypatch: pytest.MonkeyPatch, behind: tuple[int, int, int], edge_colours: str, low: float, high: float
) -> None:
    """The mean error of the soft pixels' colours."""
    rembg = background.import_rembg()
    picture, alpha, own = soft_disc(behind)
    mask = Image.fromarray((alpha * 255).round().astype(np.uint8))
    monkeypatch.setattr(background, "_cut_out", lambda given, *rest: rembg.bg.naive_cutout(given, mask))
    cutout = remove_background(picture, PRESET.with_(edge_colours=edge_colours), RecordingHost(), STORE)
    soft, whole = (alpha > 0.02) & (alpha < 0.98), alpha == 1
    assert low <= np.abs(cutout.image.numpy()[soft] - own[soft]).mean() <= high
    assert torch.equal(cutout.mask, torch.from_numpy(np.asarray(mask) / 255).float())
    assert np.array_equal(cutout.image.numpy()[whole], (np.asarray(picture) / 255).astype(np.float32)[whole])


def test_kept_background_is_all_object(tmp_path: Path) -> None:
    store = ModelStore([tmp_path], offline=True)
    cutout = remove_background(red_square(), PRESET, RecordingHost(), store, keep_background=True)
    assert cutout.mask.min() == 1
    assert torch.equal(cutout.image, torch.from_numpy(np.asarray(red_square()) / 255).float())


@pytest.mark.parametrize("keep", [False, True])
def test_fully_transparent_is_bad_input(tmp_path: Path, keep: bool) -> None:
    picture = Image.new("RGBA", (64, 64), (200, 0, 0, 0))
    store = ModelStore([tmp_path], offline=True)
    with pytest.raises(BadInput, match="fully transparent"):
        remove_background(picture, PRESET, RecordingHost(), store, keep_background=keep)


def test_too_small_is_bad_input_before_any_model(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="1x1 px"):
        remove_background(Image.new("RGB", (1, 1)), PRESET, RecordingHost(), ModelStore([tmp_path], offline=True))


@pytest.mark.parametrize("after", [0, 1])
def test_a_cancel_before_and_after(after: int) -> None:
    host = RecordingHost(cancel_after=after)
    with pytest.raises(Cancelled):
        remove_background(red_square(), PRESET, host, STORE, keep_background=True)
    assert host.current is None
    assert host.finished == []


def test_missing_weights_name_folder_file_and_address(tmp_path: Path) -> None:
    store = ModelStore([tmp_path], offline=True)
    with pytest.raises(MissingModel) as caught:
        remove_background(red_square(), get("8 GB Fast").with_(background_model="isnet-general-use"),
                          RecordingHost(), store)  # fmt: skip
    for part in (str(tmp_path / "rembg"), "isnet-general-use.onnx", "178.6 MB", "https://github.com/danielgatis/rembg"):
        assert part in str(caught.value)


def test_damaged_weights_are_a_bad_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "rembg").mkdir()
    (tmp_path / "rembg" / "u2netp.onnx").write_bytes(b"not a network")
    file = ModelFile("u2netp.onnx", 13, url="http://127.0.0.1:1/u2netp.onnx")
    models = {"background/u2netp": Model("background/u2netp", "", "rembg", "none", (file,))}
    with pytest.raises(BadCheckpoint, match=r"u2netp\.onnx cannot be loaded"):
        remove_background(red_square(), PRESET, RecordingHost(), ModelStore([tmp_path], offline=True, models=models))


@pytest.mark.parametrize("package", ["onnxruntime", "rembg"])
def test_a_missing_package_is_our_error_not_the_end_of_the_process(package: str, tmp_path: Path) -> None:
    program = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from lowvram_core.errors import MissingDependency\n"
        "from lowvram_core.stages.background import import_rembg\n"
        "try:\n    import_rembg()\n"
        "except MissingDependency as error:\n    sys.stdout.write(f'caught: {error}')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    # rembg itself prints before it ends the process
    message = done.stdout[done.stdout.index("caught: ") :]
    command = {"rembg": "rembg onnxruntime"}.get(package, package)
    assert f"{package!r}" in message and f"python -m pip install {command}." in message
    assert issubclass(MissingDependency, ImportError)


THREADS = """
import sys
sys.path.append("tests/core")
import torch
torch.set_num_threads(3)
torch.get_num_threads()  # torch takes the number at its first use
from test_background import PRESET, STORE, RecordingHost, background, red_square, remove_background
seen, session = [], background._session
background._session = lambda *given: seen.append(torch.get_num_threads()) or session(*given)
remove_background(red_square(), PRESET, RecordingHost(), STORE)
sys.stdout.write(f"{'numba' in sys.modules} {seen} {torch.get_num_threads()}")
"""


@needs_weights
def test_torch_keeps_its_number_of_threads() -> None:
    """rembg's import sets it to numba's number. Later stages waited for threads without a core; see also `_session`."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", THREADS], cwd=ROOT, capture_output=True, text=True, timeout=120,
        env={**os.environ, "NUMBA_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.stdout.endswith("True [3] 3"), done.stdout + done.stderr


@needs_weights
@pytest.mark.parametrize("name", ["coffee.png", "camera.png"])
def test_alpha_that_counts_frames_the_drawn_object(name: str) -> None:
    """At an alpha of 1 of 255, the box of camera.png is 107 px too wide."""
    picture = load_picture(photograph(name))
    found = background._cut_out(picture, "u2netp", STORE)
    left, top, right, bottom = Image.fromarray(drawn_mask(name, picture.size)).getbbox() or ()
    wanted = np.array([left, top, right, bottom])
    assert np.abs(np.array(solid_box(found)) - wanted).max() <= 2
    assert np.abs(np.array(found.getchannel("A").getbbox()) - wanted).max() > 20
