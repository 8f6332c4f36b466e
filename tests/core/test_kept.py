"""The kept embedding of delight's empty prompt: equal to the computed one, recomputed when anything differs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
import torch
from hosts import RecordingHost
from PIL import Image
from safetensors.torch import load_file, save_file

from lowvram_core.app.torch_host import TorchHost
from lowvram_core.files import kept
from lowvram_core.files.kept import KeptTensor
from lowvram_core.files.store import ModelStore
from lowvram_core.networks.delight import open_delight
from lowvram_core.pictures.convert import cutout_from_rgba
from lowvram_core.presets import PRESETS
from lowvram_core.stages.delight import delight

PRESET = PRESETS["8 GB Full"].with_(delight_steps=1)
CUTOUT = cutout_from_rgba(Image.new("RGBA", (64, 64), (200, 60, 30, 255)))
CPU = torch.device("cpu")


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_views: None) -> Path:
    """The delight folder, alone in a models folder. The user's home is an empty folder."""
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    monkeypatch.setattr(kept, "_in_memory", {})
    return tiny.make_delight(tmp_path / "models")


def prompt_of(folder: Path, dtype: torch.dtype = torch.float32) -> KeptTensor:
    return open_delight(folder, dtype).kept_prompt(CPU)


def borrowed(folder: Path, dtype: torch.dtype = torch.float32) -> list[str]:
    """The parts that a run borrows."""
    host = RecordingHost(dtype=dtype)
    delight(CUTOUT, PRESET, host, ModelStore([folder.parent], offline=True))
    return [Path(key.partition(":torch")[0]).parent.name for key in host.borrowed]


FIRST, LATER = ["text_encoder", "vae", "unet", "vae"], ["vae", "unet", "vae"]


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("empty_prompt.*"))


def test_the_second_run_does_not_load_the_text_encoder(model: Path) -> None:
    store = ModelStore([model.parent], offline=True)
    first, second = (delight(CUTOUT, PRESET, TorchHost(CPU), store) for _ in range(2))
    assert torch.equal(first, second)
    (file,) = files(model)
    computed = open_delight(model, torch.float32).text_encoder.load()()
    assert torch.equal(load_file(file)["empty_prompt"], computed)
    read = prompt_of(model).read()
    assert read is not None and torch.equal(read, computed) and read.dtype == computed.dtype
    assert borrowed(model) == LATER


def test_another_precision_has_its_own(model: Path) -> None:
    assert borrowed(model) == FIRST and borrowed(model, torch.float64) == FIRST
    assert borrowed(model) == LATER and borrowed(model, torch.float64) == LATER
    assert len(files(model)) == 2


def change_weights(model: Path) -> None:
    """Other numbers in a file of the same size, with the same time of modification."""
    file = model / "text_encoder" / "model.safetensors"
    state, times = load_file(file), file.stat()
    save_file({name: value + 1 for name, value in state.items()}, file, metadata={"format": "pt"})
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert file.stat().st_size == times.st_size


def change_tokenizer(model: Path) -> None:
    file = model / "tokenizer" / "vocab.json"
    words = json.loads(file.read_text())
    words["a"], words["b"] = words["b"], words["a"]
    file.write_text(json.dumps(words))


def change_configuration(model: Path) -> None:
    file = model / "text_encoder" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "hidden_act": "relu"}))


def truncate(model: Path) -> None:
    (file,) = files(model)
    file.write_bytes(file.read_bytes()[:-7])


def flip_a_bit(model: Path) -> None:
    (file,) = files(model)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def write_nonsense(model: Path) -> None:
    (file,) = files(model)
    file.write_bytes(b"nonsense")


def empty(model: Path) -> None:
    (file,) = files(model)
    file.write_bytes(b"")


def another_tensor(model: Path) -> None:
    (file,) = files(model)
    save_file({"empty_prompt": torch.zeros(1, 77, 32)}, file)


@pytest.mark.parametrize(
    "change",
    [change_weights, change_tokenizer, change_configuration, truncate, flip_a_bit, write_nonsense, empty,
     another_tensor],
)  # fmt: skip
def test_what_is_stale_or_damaged_is_computed_again(model: Path, change: Callable[[Path], None]) -> None:
    borrowed(model)
    change(model)
    assert borrowed(model) == FIRST
    read = prompt_of(model).read()
    assert read is not None and torch.equal(read, open_delight(model, torch.float32).text_encoder.load()())
    assert borrowed(model) == LATER


def test_a_copy_of_the_model_is_hashed_once(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[Path] = []
    sha256 = kept._sha256
    monkeypatch.setattr(kept, "_sha256", lambda file: (hashed.append(file), sha256(file))[1])
    borrowed(model)
    assert len(hashed) == 1
    os.utime(model / "text_encoder" / "model.safetensors")
    assert borrowed(model) == LATER and len(hashed) == 2
    assert borrowed(model) == LATER and len(hashed) == 2


def refuse(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> None:
    """Lets nothing be written to these folders; works for root, too."""
    import safetensors.torch

    save = safetensors.torch.save_file

    def guarded(tensors: object, file: Path, **named: object) -> None:
        if any(Path(file).is_relative_to(folder) for folder in folders):
            raise PermissionError(f"{file} cannot be written")
        save(tensors, file, **named)

    monkeypatch.setattr(safetensors.torch, "save_file", guarded)


def test_a_model_folder_that_cannot_be_written(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, model)
    assert borrowed(model) == FIRST and borrowed(model) == LATER
    assert files(model) == [] and len(files(tmp_path / "home" / ".cache" / "hunyuan3d-lowvram")) == 1


def test_no_folder_that_can_be_written(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, tmp_path)
    assert borrowed(model) == FIRST and borrowed(model) == LATER
    change_weights(model)
    assert borrowed(model) == FIRST
    assert not [path for path in tmp_path.rglob("*empty_prompt*") if path.is_file()]


def test_nothing_partial_is_left(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error while the file is written leaves the old one."""
    borrowed(model)
    (file,) = files(model)
    before = file.read_bytes()
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    prompt_of(model).write(torch.zeros(1, 77, 32))
    assert file.read_bytes() == before
    assert [path.name for path in model.iterdir() if path.name.endswith(".part")] == []


def test_a_tensor_that_is_not_contiguous_is_not_kept(model: Path) -> None:
    prompt_of(model).write(torch.zeros(77, 32).T)
    assert files(model) == [] and prompt_of(model).read() is None
