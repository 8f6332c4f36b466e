"""Pickled weights, written once more as safetensors."""

from __future__ import annotations

import shutil
import sys
import threading
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from lowvram_core.app.cli import main
from lowvram_core.errors import BadCheckpoint, BadInput
from lowvram_core.files.checkpoints import read_pickle
from lowvram_core.files.convert import convert_pickle, convert_pickles, safetensors_path
from lowvram_core.networks.diffusers_folders import find_weights
from lowvram_core.networks.paint import open_paint


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return torch.equal(*(value.contiguous().reshape(-1).view(torch.uint8) for value in (one, other)))


def test_names_types_and_bits_are_kept(tmp_path: Path) -> None:
    odd = torch.tensor([float("nan"), -0.0, float("inf"), 1e-42])
    shared = torch.arange(12.0)
    state = {
        "a.half": torch.randn(3, 5).half(), "bfloat": torch.randn(4).bfloat16(), "float": odd, "double": odd.double(),
        "whole": torch.arange(7), "bool": torch.tensor([True, False]), "nothing": torch.zeros(0, 3), "모델": odd.half(),
        "one": torch.tensor(3, dtype=torch.uint8), "turned": torch.randn(4, 6).t(),
        "whole storage": shared, "part of it": shared[2:5],
    }  # fmt: skip
    pickle = tmp_path / "내 모델" / "diffusion_pytorch_model.bin"
    pickle.parent.mkdir()
    torch.save(state, pickle)
    written = convert_pickle(pickle)
    assert written == pickle.with_suffix(".safetensors")
    back = load_file(written)
    assert back.keys() == state.keys()
    for name, value in state.items():
        assert same_bits(back[name], value), name
    assert sorted(file.name for file in pickle.parent.iterdir()) == [pickle.name, written.name]


def test_the_paint_model_opens_the_converted_file(tmp_path: Path) -> None:
    folder = tiny.make_paint(tmp_path)
    pickle = folder / "unet" / "diffusion_pytorch_model.bin"
    before = open_paint(folder, torch.float16).main.load().state_dict()
    tensors = read_pickle(pickle)
    assert main(["--convert-pickles", str(tmp_path)]) == 0
    written = find_weights(folder / "unet")
    assert written.name == "diffusion_pytorch_model.safetensors"
    back = load_file(written)
    assert back.keys() == tensors.keys() and all(same_bits(back[name], tensors[name]) for name in tensors)
    pickle.unlink()
    after = open_paint(folder, torch.float16).main
    assert str(written) in after.key
    assert all(torch.equal(value, before[name]) for name, value in after.load().state_dict().items())


def test_transformers_finds_its_file_under_its_own_name(tmp_path: Path) -> None:
    assert safetensors_path(Path("a/pytorch_model.bin")) == Path("a/model.safetensors")
    pickle = tmp_path / "pytorch_model.bin"
    torch.save({"a": torch.ones(2)}, pickle)
    assert list(convert_pickles([pickle])) == [tmp_path / "model.safetensors"]
    assert find_weights(tmp_path) == tmp_path / "model.safetensors"
    assert list(convert_pickles([tmp_path])) == [], "once is enough"


def test_half_precision_has_a_name_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The published turbo paint folder has a safetensors file of another network beside the float32 pickle."""
    folder = tiny.make_turbo_paint(tmp_path) / "unet"
    pickle = folder / "diffusion_pytorch_model.bin"
    tensors = {**torch.load(pickle), "whole": torch.arange(3)}
    torch.save(tensors, pickle)
    save_file({"another network": torch.ones(2)}, folder / "diffusion_pytorch_model.safetensors")
    assert main(["--convert-pickles", str(tmp_path)]) == 2
    assert "holds another network than diffusion_pytorch_model.bin; wanted" in capsys.readouterr().err
    assert main(["--convert-pickles", str(tmp_path), "--half"]) == 0
    written = folder / "diffusion_pytorch_model.fp16.safetensors"
    assert capsys.readouterr().out == f"written: {written}\n"
    back = load_file(written)
    assert back.keys() == tensors.keys() and back["whole"].dtype == torch.int64
    assert all(torch.equal(back[name], value.half()) for name, value in tensors.items() if name != "whole")
    assert list(convert_pickles([tmp_path], half=True)) == [], "once is enough"
    assert safetensors_path(folder / "a.fp16.bin", half=True) == folder / "a.fp16.safetensors"


def test_what_cannot_be_converted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--convert-pickles", str(tmp_path)]) == 2
    assert "no pickled weights in" in capsys.readouterr().err
    with pytest.raises(BadInput, match="is not there"):
        list(convert_pickles([tmp_path / "none.bin"]))
    pickle = tmp_path / "diffusion_pytorch_model.bin"
    torch.save({"a": 3}, pickle)
    with pytest.raises(BadCheckpoint, match="something else than tensors"):
        convert_pickle(pickle)
    torch.save({"a": torch.ones(1000)}, pickle)
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch, pytest.raises(BadInput, match="GB free; wanted"):
        patch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
        convert_pickle(pickle)

    def full(state: object, path: Path, metadata: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(BadInput, match="cannot be written"):
        patch.setattr("safetensors.torch.save_file", full)
        convert_pickle(pickle)
    monkeypatch.setattr(torch, "__version__", "2.9.1")
    with pytest.raises(BadCheckpoint, match=r"wanted torch 2\.10"):
        convert_pickle(pickle)
    assert [file.name for file in tmp_path.iterdir()] == [pickle.name]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
def test_at_most_one_copy_is_in_ram(tmp_path: Path) -> None:
    """Besides the pages of the mapped pickle, which the system can drop: none with safetensors 0.8, one before."""
    pickle = tmp_path / "diffusion_pytorch_model.bin"
    torch.save({str(index): torch.ones(1024, 1024).half() for index in range(48)}, pickle)
    before, peak, done = _anonymous_mib(), 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, _anonymous_mib())

    watcher = threading.Thread(target=watch)
    watcher.start()
    convert_pickle(pickle)
    done.set()
    watcher.join()
    assert peak - before < 1.2 * 96


def _anonymous_mib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("RssAnon:"))) / 1024
