"""Unwrapping beside delight: errors and cancels of both sides are raised, no thread is left, seconds count once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import meshes
import pytest
import tiny
import torch

from lowvram_core.app import pipeline
from lowvram_core.app.beside import beside
from lowvram_core.app.torch_host import TorchHost
from lowvram_core.errors import BadInput, Cancelled
from lowvram_core.files.store import ModelStore
from lowvram_core.host import Host
from lowvram_core.presets import PRESETS, Preset
from lowvram_core.report import PhaseRecord, format_table, merge
from lowvram_core.types import Cutout, Mesh

PRESET = PRESETS["8 GB Full"].with_(
    delight_steps=1, paint_steps=1, render_px=64, texture_px=64, views="minimal", unwrapper="uvunwrap"
)


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    yield
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("hunyuan3d")]


def working(host: Host, seconds: float = 0.3) -> str:
    """Asks for a cancel every 10 ms."""
    with host.phase("unwrap"):
        for _ in range(int(seconds * 100)):
            host.progress(0, 1)
            time.sleep(0.01)
    return "done"


def test_the_result_and_what_it_added() -> None:
    host = TorchHost(torch.device("cpu"))
    with beside(working, host) as work:
        with host.phase("delight"):
            time.sleep(0.1)
        assert work.result() == "done"
    delight, unwrap = host.records
    assert (delight.name, unwrap.name, delight.hidden_seconds) == ("delight", "unwrap", 0.0)
    assert unwrap.seconds >= 0.3 and unwrap.hidden_seconds == pytest.approx(0.1, abs=0.05)


def test_work_that_ended_before_it_was_asked_for_added_nothing() -> None:
    host = TorchHost(torch.device("cpu"))
    with beside(lambda own: working(own, 0.05), host) as work:
        time.sleep(0.3)
        work.result()
    assert host.records[0].added_seconds == pytest.approx(0.0, abs=0.01)


def test_the_table_counts_overlapping_seconds_once() -> None:
    records = [PhaseRecord("delight", 2.0, None, None, None, 1),
               PhaseRecord("unwrap", 1.5, None, None, None, 1, hidden_seconds=1.0),
               PhaseRecord("unwrap", 0.5, None, None, None, 1, hidden_seconds=0.5)]  # fmt: skip
    assert [(row.name, row.seconds, row.hidden_seconds) for row in merge(records)] == [
        ("unwrap", 2.0, 1.5), ("delight", 2.0, 0.0),
    ]  # fmt: skip
    _, unwrap, delight, total = format_table(records).splitlines()
    assert unwrap.split()[:3] == ["unwrap", "2.00", "20.0%"] and unwrap.endswith("  1.50 s beside others")
    assert delight.split()[:3] == ["delight", "2.00", "80.0%"] and "beside" not in delight
    assert total.split()[:3] == ["total", "2.50", "100.0%"]


@pytest.mark.parametrize("error", [ZeroDivisionError(), Cancelled("x"), KeyboardInterrupt()], ids=repr)
def test_an_error_of_the_main_thread_ends_the_work(error: BaseException) -> None:
    start = time.perf_counter()
    with pytest.raises(type(error)), beside(lambda own: working(own, 30), TorchHost(torch.device("cpu"))):
        raise error
    assert time.perf_counter() - start < 5


def test_an_error_of_the_work_is_raised() -> None:
    def fail(host: Host) -> None:
        raise BadInput("unwrap: met; wanted. Do.")

    with pytest.raises(BadInput, match="unwrap: met"), beside(fail, TorchHost(torch.device("cpu"))) as work:
        work.result()


def test_a_cancel_while_waiting_ends_both() -> None:
    asked = []
    host = TorchHost(torch.device("cpu"), is_cancelled=lambda: len(asked) > 2 or bool(asked.append(1)))
    start = time.perf_counter()
    with pytest.raises(Cancelled), beside(lambda own: working(own, 30), host) as work:
        work.result()
    assert time.perf_counter() - start < 5 and host.records == []


def disc() -> Cutout:
    y, x = torch.meshgrid(torch.arange(96), torch.arange(96), indexing="ij")
    return Cutout(torch.full((96, 96, 3), 0.6), ((x - 48) ** 2 + (y - 48) ** 2 < 30**2).float())


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    root = tmp_path_factory.mktemp("models")
    tiny.make_delight(root)
    tiny.make_paint(root)
    return ModelStore([root], offline=True)


def textured(
    store: ModelStore, device: torch.device, monkeypatch: pytest.MonkeyPatch, preset: Preset = PRESET
) -> tuple[Any, list[str], Any]:
    """The result of a run, the threads that unwrapped, and the host."""
    threads: list[str] = []
    unwrap = pipeline.unwrap

    def noted(*given: Any, **named: Any) -> Mesh:
        threads.append(threading.current_thread().name)
        return unwrap(*given, **named)

    monkeypatch.setattr(pipeline, "unwrap", noted)
    host = TorchHost(device, torch.float32)
    return pipeline.texture(meshes.blob(2), disc(), preset, host, store), threads, host


@contextmanager
def at_once(work: Callable[[Any], Any], host: Any) -> Iterator[Any]:
    """As `beside`, in the main thread."""
    yield SimpleNamespace(result=partial(work, host))


@pytest.mark.parametrize("unwrapper", ["uvunwrap", "xatlas"])
def test_a_gpu_unwraps_beside_delight_with_the_same_result(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch, unwrapper: str
) -> None:
    from counted import counted

    preset = PRESET.with_(unwrapper=unwrapper)
    _, threads, _ = textured(store, torch.device("cpu"), monkeypatch, preset)
    assert threads == [threading.main_thread().name]
    with counted() as device:
        result, threads, host = textured(store, device, monkeypatch, preset)
        assert threads[0].startswith("hunyuan3d-beside")
        monkeypatch.setattr(pipeline, "beside", at_once)
        plain, threads, _ = textured(store, device, monkeypatch, preset)
        assert threads == [threading.main_thread().name]
        for one, other in ((result.mesh.uvs, plain.mesh.uvs), (result.delit, plain.delit),
                           (result.mesh.texture, plain.mesh.texture)):  # fmt: skip
            assert torch.equal(one.cpu(), other.cpu())
        (unwrap,) = (record for record in host.records if record.name == "unwrap")
        assert 0 < unwrap.hidden_seconds <= unwrap.seconds
        del result, plain, one, other


def test_a_mesh_that_cannot_be_unwrapped_is_refused(store: ModelStore, tmp_path: Path) -> None:
    from counted import counted

    torn = meshes.blob(1)
    torn = torn.with_(faces=torn.faces[:1].repeat(3, 1))
    with counted() as device, pytest.raises(BadInput, match=r"^unwrap: "):
        pipeline.texture(torn, disc(), PRESET, TorchHost(device, torch.float32), store)


def test_notes_of_the_work_reach_the_host() -> None:
    host = TorchHost(torch.device("cpu"), torch.float32)
    with beside(lambda own: own.note("unwrap: a note"), host) as work:
        work.result()
    assert host.notes == ["unwrap: a note"]
