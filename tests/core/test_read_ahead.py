"""Files are read ahead in the order of the plan, within the RAM limit; no thread and no open file is left."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import tiny
import torch
from safetensors.torch import load_file

from lowvram_core.app.torch_host import TorchHost
from lowvram_core.errors import Cancelled
from lowvram_core.files.checkpoints import file_parts
from lowvram_core.host import Component, FilePart
from lowvram_core.lending import read_ahead
from lowvram_core.lending.read_ahead import CHUNK_BYTES, ReadAhead
from lowvram_core.networks.paint import open_paint
from lowvram_core.networks.shape import open_shape

CPU = torch.device("cpu")


def component(path: Path, key: str, nbytes: int = 1000) -> Component:
    if not path.exists():
        path.write_bytes(bytes(nbytes))
    return Component(key, key, 4, lambda: torch.nn.Linear(1, 1), files=(FilePart(path, 0, nbytes),))


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were read, in order."""
    names: list[str] = []
    plain = ReadAhead._read_part

    def noted(self: ReadAhead, part: FilePart, buffer: memoryview) -> None:
        plain(self, part, buffer)
        names.append(part.path.name)

    monkeypatch.setattr(ReadAhead, "_read_part", noted)
    return names


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No thread and no open file of a test's is left."""
    before = {file.path for file in psutil.Process().open_files()}
    yield
    assert not [thread for thread in threading.enumerate() if "read-ahead" in thread.name]
    assert {file.path for file in psutil.Process().open_files()} <= before


def settle() -> None:
    """Waits until the thread has ended by itself."""
    for thread in threading.enumerate():
        if "read-ahead" in thread.name:
            thread.join(10)


def ram(monkeypatch: pytest.MonkeyPatch, available: int) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=available))


def test_the_parts_hold_the_bytes_of_the_tensors(tmp_path: Path) -> None:
    """Of every tensor, and of none of another part of the model."""
    file = tiny.make_shape(tmp_path) / "model.fp16.safetensors"
    state, content = load_file(file), file.read_bytes()
    model = open_shape(file.parent, torch.float16)
    for prefix, one in (("conditioner.", model.conditioner), ("model.", model.dit), ("vae.", model.vae)):
        read = b"".join(content[part.start : part.start + part.nbytes] for part in one.files)
        wanted = {name: value for name, value in state.items() if name.startswith(prefix)}
        assert len(read) == sum(value.nbytes for value in wanted.values())
        assert all(value.numpy().tobytes() in read for value in wanted.values())
    (whole,) = file_parts(file)
    assert whole.start + whole.nbytes == len(content)


def test_a_pickle_is_one_part(tmp_path: Path) -> None:
    model = open_paint(tiny.make_paint(tmp_path), torch.float16)
    (part,) = model.main.files
    assert part.path.suffix == ".bin" and (part.start, part.nbytes) == (0, part.path.stat().st_size)
    assert model.dual.files == model.main.files


def test_the_next_components_are_read_in_order(tmp_path: Path, read: list[str]) -> None:
    plan = [component(tmp_path / name, name) for name in "abc"]
    host = TorchHost(CPU)
    with host.reading_ahead(plan):
        assert read == []
        with host.borrow(plan[0]):
            settle()
            assert read == ["a", "b", "c"]
        with host.borrow(plan[1]), host.borrow(plan[2]):
            settle()
    assert read == ["a", "b", "c"]


def test_the_ram_limit(tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The component that runs counts, and those before it do not."""
    plan = [component(tmp_path / name, name) for name in "abcd"]
    ram(monkeypatch, int(2000 / read_ahead.RAM_SHARE))
    host = TorchHost(CPU)
    with host.reading_ahead(plan):
        for borrowed, expected in (("a", "ab"), ("b", "abc"), ("c", "abcd")):
            with host.borrow(plan["abcd".index(borrowed)]):
                settle()
                assert "".join(read) == expected
    ram(monkeypatch, int(1999 / read_ahead.RAM_SHARE))
    read.clear()
    with host.reading_ahead(plan), host.borrow(plan[0]):
        settle()
        assert read == ["a"]


def test_a_component_that_comes_twice_counts_once(
    tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    vae, unet = (component(tmp_path / name, name) for name in ("vae", "unet"))
    ram(monkeypatch, int(2000 / read_ahead.RAM_SHARE))
    host = TorchHost(CPU)
    with host.reading_ahead([vae, unet, vae]), host.borrow(vae):
        settle()
    assert read == ["vae", "unet", "vae"]


def test_what_the_plan_does_not_name_starts_nothing(tmp_path: Path, read: list[str]) -> None:
    plan = [component(tmp_path / name, name) for name in "ab"]
    host = TorchHost(CPU)
    with host.reading_ahead(plan), host.borrow(component(tmp_path / "x", "x")):
        settle()
    with host.borrow(plan[0]):
        settle()
    assert read == []


def test_the_outer_plan_goes_on(tmp_path: Path, read: list[str]) -> None:
    plan = [component(tmp_path / name, name) for name in "abc"]
    host = TorchHost(CPU)
    with host.reading_ahead(plan):
        with host.reading_ahead(plan[1:2]), host.borrow(plan[1]):
            settle()
        assert read == ["b", "c"]


@pytest.mark.parametrize("error", [ZeroDivisionError(), Cancelled("x"), KeyboardInterrupt()], ids=repr)
def test_an_error_ends_the_thread_within_a_chunk(
    tmp_path: Path, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The autouse fixture checks that neither a thread nor an open file is left."""
    chunks = 0

    def slowly(*_: object) -> bool:
        nonlocal chunks
        chunks += 1
        time.sleep(0.05)
        return True

    monkeypatch.setattr(read_ahead, "_is_cached", slowly)
    plan = [component(tmp_path / name, name, 100 * CHUNK_BYTES) for name in "ab"]
    host = TorchHost(CPU)
    with pytest.raises(type(error)), host.reading_ahead(plan), host.borrow(plan[0]):
        time.sleep(0.02)
        raise error
    assert 1 <= chunks <= 3 and host._reader is None


def test_a_file_that_is_gone_is_left_to_the_load(tmp_path: Path, read: list[str]) -> None:
    plan = [component(tmp_path / name, name) for name in "abc"]
    (tmp_path / "b").unlink()
    host = TorchHost(CPU)
    with host.reading_ahead(plan), host.borrow(plan[0]):
        settle()
    assert read == ["a"]


def test_pages_are_in_ram_afterwards(tmp_path: Path) -> None:
    """A file that the system has dropped from RAM."""
    file = tmp_path / "cold"
    file.write_bytes(os.urandom(5 * CHUNK_BYTES + 123))
    cached = dropped(file)
    if all(cached):
        pytest.skip("this system does not drop a file's pages, or does not tell")
    host, plan = TorchHost(CPU), [component(tmp_path / "a", "a"), component(file, "cold", file.stat().st_size)]
    with host.reading_ahead(plan), host.borrow(plan[0]):
        settle()
    assert all(in_ram(file))


def dropped(file: Path) -> list[bool]:
    """Drops a file's pages from RAM. Returns for each of its chunks whether it is still there."""
    if sys.platform != "linux":
        return [True]
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return in_ram(file)


def in_ram(file: Path) -> list[bool]:
    size = file.stat().st_size
    with file.open("rb", buffering=0) as opened:
        return [read_ahead._is_cached(opened, start, min(CHUNK_BYTES, size - start))
                for start in range(0, size, CHUNK_BYTES)]  # fmt: skip


def test_a_system_that_does_not_tell_reads_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Windows and macOS."""
    monkeypatch.delattr(os, "RWF_NOWAIT", raising=False)
    file = tmp_path / "a"
    file.write_bytes(os.urandom(2 * CHUNK_BYTES + 5))
    part, buffer = FilePart(file, 3, 2 * CHUNK_BYTES), bytearray(CHUNK_BYTES)
    ReadAhead([])._read_part(part, memoryview(buffer))
    assert buffer == file.read_bytes()[3 + CHUNK_BYTES : 3 + 2 * CHUNK_BYTES]
