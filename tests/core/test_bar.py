"""The bar of a run: it only grows, and it is full at the end of every stage."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from meshes import blob, picture_views
from PIL import Image, ImageDraw

from lowvram_core.app.torch_host import TorchHost
from lowvram_core.errors import Cancelled
from lowvram_core.files.store import ModelStore
from lowvram_core.files.timings import MOST_NAMES, FileTimings
from lowvram_core.pictures.convert import cutout_from_rgba
from lowvram_core.plans import (
    bake_parts,
    clean_parts,
    delight_parts,
    inpaint_parts,
    paint_parts,
    run_parts,
    shape_parts,
    unwrap_parts,
)  # fmt: skip
from lowvram_core.presets import PRESETS
from lowvram_core.progress import Bar, Part, loading, short_time
from lowvram_core.report import PhaseRecord, summary
from lowvram_core.stages.bake import bake
from lowvram_core.stages.clean import clean
from lowvram_core.stages.delight import delight_all
from lowvram_core.stages.inpaint import inpaint
from lowvram_core.stages.paint import paint_views
from lowvram_core.stages.shape import generate_shape
from lowvram_core.stages.unwrap import unwrap
from lowvram_core.types import Atlas, Cutout, Mesh

CPU = torch.device("cpu")
PRESET = PRESETS["8 GB Full"].with_(
    octree=16, points_per_chunk=1500, shape_steps=3, delight_steps=2, paint_steps=2, render_px=64, texture_px=64,
    views="minimal", unwrapper="uvunwrap", face_budget=500,
)  # fmt: skip


class Clock:
    """A clock that the test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Known(dict[str, float]):
    """Timings in memory."""

    def find(self, key: str) -> float | None:
        return self.get(key)

    def learn(self, key: str, seconds: float) -> None:
        self[key] = seconds


def bar_of(*parts: Part, timings: Known | None = None) -> tuple[Bar, Clock]:
    clock = Clock()
    return Bar(parts, timings, "card", clock), clock


def test_parts_have_their_planned_shares() -> None:
    bar, _ = bar_of(Part("one", 1.0), Part("two", 3.0))
    bar.enter("one")
    bar.at(1, 2)
    assert bar.fraction == pytest.approx(0.125)
    bar.leave("one")
    assert bar.fraction == pytest.approx(0.25)
    bar.enter("two")
    bar.at(2, 3)
    assert bar.fraction == pytest.approx(0.75)
    bar.leave("two")
    assert bar.fraction == pytest.approx(1.0)


def test_a_skipped_part_leaves_its_share_to_the_others() -> None:
    bar, _ = bar_of(Part("one", 1.0), Part("two", 1.0), Part("three", 1.0), Part("four", 1.0))
    bar.enter("one")
    bar.leave("one")
    bar.enter("three")
    bar.at(1, 2)
    assert bar.fraction == pytest.approx(0.25 + 0.75 / 4)


def test_a_stage_that_runs_again_does_not_move_the_bar_back() -> None:
    bar, _ = bar_of(Part("one", 1.0), Part("two", 1.0))
    bar.enter("one")
    bar.leave("one")
    bar.enter("two")
    bar.at(1, 2)
    bar.leave("two", finished=False)  # the device was full
    assert bar.fraction == pytest.approx(0.75)
    seen = [bar.fraction]
    for key in ("one", "two"):
        bar.enter(key)
        for done in range(5):
            bar.at(done, 4)
            seen.append(bar.fraction)
        bar.leave(key)
    assert seen == sorted(seen) and bar.fraction == pytest.approx(1.0)


def test_reports_outside_the_plan_do_not_move_the_bar() -> None:
    bar, _ = bar_of(Part("one", 1.0), Part("two", 1.0))
    bar.enter("something else")
    bar.at(9, 10)
    assert bar.fraction == 0.0
    bar.leave("something else")
    bar.enter("one")
    assert bar.fraction == 0.0


def test_without_a_plan_the_first_part_is_the_bar() -> None:
    bar, _ = bar_of()
    bar.enter("load")
    bar.at(1, 4)
    assert bar.fraction == pytest.approx(0.25)


def test_a_silent_part_follows_the_clock_and_never_arrives() -> None:
    bar, clock = bar_of(Part("load", 10.0, silent=True))
    bar.enter("load")
    seen = []
    for _ in range(60):
        clock.now += 1.0
        seen.append(bar.fraction)
    assert seen[4] == pytest.approx(0.5), "half of the planned seconds"
    assert seen == sorted(seen) and 0.9 < seen[-1] < 1.0


def test_a_download_gets_a_place_on_the_bar() -> None:
    bar, _ = bar_of(Part("one", 5.0), Part("two", 5.0))
    bar.add(Part("download", 30.0, doing="downloading {percent} %"))
    bar.at(1, 2)
    assert bar.fraction == pytest.approx(0.375) and bar.line() == "downloading 50 %"
    bar.leave("download")
    bar.enter("one")
    bar.at(1, 1)
    assert bar.fraction == pytest.approx(0.875)


def test_two_downloads_get_two_places() -> None:
    bar, _ = bar_of(Part("one", 5.0))
    seen = []
    for _ in range(2):
        bar.add(Part("download", 5.0))
        for done in range(5):
            bar.at(done, 4)
            seen.append(bar.fraction)
        bar.leave("download")
    assert seen == sorted(seen) and len(set(seen)) == 9 and bar.fraction == pytest.approx(0.75)


def test_a_phase_of_downloads_moves_the_bar() -> None:
    seen: list[tuple[float, str]] = []
    host = TorchHost(CPU, on_bar=lambda fraction, line: seen.append((fraction, line)))
    host.expect([Part("clean", 1.0)])
    with host.phase("download"):
        for done in range(5):
            host.progress(done * 10**8, 4 * 10**8)
    with host.phase("clean"):
        host.progress(1, 1)
    fractions = [fraction for fraction, _ in seen]
    assert fractions == sorted(fractions) and fractions[-1] == pytest.approx(1.0)
    assert "downloading 100 %" in [line for _, line in seen]


def test_the_line_tells_the_step_and_what_is_left() -> None:
    known = Known({"card|load UNet": 6.0, "card|UNet": 1.0, "card|decode": 5.0})
    bar, clock = bar_of(
        Part(loading("UNet"), 1.0, silent=True), Part("UNet", 1.0, 10, doing="step {done} of {total}"),
        Part("decode", 1.0), timings=known,
    )  # fmt: skip
    bar.enter(loading("UNet"))
    bar.tell("loading UNet 3.0 GB")
    assert bar.line() == "loading UNet 3.0 GB, about 21 s left"
    clock.now += 6.0
    bar.leave(loading("UNet"))
    bar.enter("UNet")
    bar.also = "weights stream: 1.8 GiB free"
    clock.now += 8.0
    bar.at(4, 10)  # 2 s a step: slower than known
    assert bar.line() == "step 4 of 10, weights stream: 1.8 GiB free, about 17 s left"
    clock.now += 12.0
    bar.leave("UNet")
    assert known["card|UNet"] == pytest.approx(2.0), "learnt: 20 s for 10 steps"
    bar.finish()
    assert bar.fraction == 1.0 and bar.line() == ""


def test_nothing_is_said_about_the_time_left_before_everything_was_timed_once() -> None:
    bar, _ = bar_of(Part("one", 1.0), Part("two", 1.0), timings=Known({"card|one": 3.0}))
    bar.enter("one")
    assert bar.left_s() is None


def test_seconds_of_other_settings_are_better_than_none() -> None:
    known = Known({"card|two|fast": 7.0, "card|two": 9.0})
    bar, _ = bar_of(Part("two", 1.0, detail="fast"), Part("two", 1.0, detail="slow"), timings=known)
    assert bar.left_s() == pytest.approx(16.0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (7.4, "7 s"),
        (59.6, "1 min"),
        (200, "3 min 20 s"),
        (1500, "25 min"),
        (3599, "59 min"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
    ],
)
def test_times_read_well(seconds: float, text: str) -> None:
    assert short_time(seconds) == text


def test_timings_are_kept_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "timings.json"
    first = FileTimings(path)
    first.learn("a", 4.0)
    first.save()
    other = FileTimings(path)
    other.learn("a", 2.0)
    other.learn("b", float("nan"))
    other.save()
    assert FileTimings(path).find("a") == pytest.approx(3.0) and FileTimings(path).find("b") is None
    assert [file.name for file in path.parent.iterdir()] == ["timings.json"]


def test_the_file_stays_small_and_keeps_the_newest(tmp_path: Path) -> None:
    timings = FileTimings(tmp_path / "timings.json")
    for number in range(MOST_NAMES + 50):
        timings.learn(str(number), 1.0)
    timings.save()
    stored = json.loads((tmp_path / "timings.json").read_text())
    assert len(stored) == MOST_NAMES and str(MOST_NAMES + 49) in stored and "0" not in stored


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"\xff\xfe", b'{"a": "x", "b": true, "c": -1, "d": 1e999}'])
def test_a_damaged_file_is_no_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "timings.json"
    path.write_bytes(content)
    timings = FileTimings(path)
    assert all(timings.find(name) is None for name in "abcd")
    timings.learn("a", 1.0)
    timings.save()
    assert FileTimings(path).find("a") == 1.0


def test_a_place_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    timings = FileTimings(tmp_path / "file" / "timings.json")
    timings.learn("a", 1.0)
    timings.save()
    assert timings.find("a") == 1.0


def disc() -> Cutout:
    image = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    ImageDraw.Draw(image).ellipse((8, 8, 50, 56), fill=(200, 60, 30, 255))
    return cutout_from_rgba(image)


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    return unwrap(blob(2), PRESET, TorchHost(CPU))


def half_seen() -> Atlas:
    seen = torch.zeros(64, 64, dtype=torch.bool)
    seen[:, :32] = True
    return Atlas(torch.full((64, 64, 3), 0.5), seen)


Run = Callable[[TorchHost, ModelStore, Mesh], object]
CASES: dict[str, tuple[list[Part], Run, set[str]]] = {
    "shape": (
        shape_parts(PRESET), lambda host, store, mesh: generate_shape(disc(), PRESET, host, store),
        {"loading shape DiT", "looking at the picture", "step 2 of 2", "decoding 100 %"},
    ),
    "clean": (clean_parts(320), lambda host, store, mesh: clean(mesh, PRESET, host), {"cleaning the mesh"}),
    "unwrap": (unwrap_parts(320, PRESET), lambda host, store, mesh: unwrap(mesh, PRESET, host), {"unwrapping 100 %"}),
    "delight": (
        delight_parts(2, PRESET), lambda host, store, mesh: delight_all([disc()] * 2, PRESET, host, store),
        {"encoding the picture", "step 4 of 4", "decoding the picture"},
    ),
    "paint": (
        paint_parts(PRESET), lambda host, store, mesh: paint_views(mesh, torch.rand(64, 64, 3), PRESET, host, store),
        {"rendering the maps", "loading paint UNet", "step 2 of 2", "decoding the views"},
    ),
    "bake": (
        bake_parts(3, PRESET),
        lambda host, store, mesh: bake(mesh, picture_views(mesh, PRESET.cameras, 64), PRESET, host),
        {"3 of 3 views baked"},
    ),
    "inpaint": (
        inpaint_parts(64), lambda host, store, mesh: inpaint(mesh, half_seen(), host), {"filling the texture"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("stage", CASES)
def test_the_bar_of_each_stage_grows_until_it_is_full(stage: str, store: ModelStore, mesh: Mesh) -> None:
    plan, run, told = CASES[stage]
    seen: list[tuple[float, str]] = []
    host = TorchHost(CPU, on_bar=lambda fraction, line: seen.append((fraction, line)))
    host.timings = Known()
    host.expect(plan)
    run(host, store, mesh)
    fractions = [fraction for fraction, _ in seen]
    assert fractions == sorted(fractions), "it never falls"
    assert fractions[0] < 0.05 and fractions[-1] == pytest.approx(1.0), "no part of the plan is missed"
    lines = {re.sub(r" \d+ MB$", "", line.split(", about")[0]) for _, line in seen}
    assert told <= lines
    known = {name.split("|")[2] for name in host.timings}
    assert known == {part.key for part in plan}, "every part was timed, so the next run tells what is left"


def test_the_second_run_knows_the_time_left(store: ModelStore, mesh: Mesh) -> None:
    host = TorchHost(CPU)
    host.timings = Known()
    took = []
    for _ in range(2):
        host.expect(shape_parts(PRESET))
        assert host._bar is not None
        before, start = host._bar.left_s(), time.perf_counter()
        generate_shape(disc(), PRESET, host, store)
        took.append(time.perf_counter() - start)
    assert before is not None and 0 < before <= took[0], "what the first run took, without what lies between its parts"


def test_a_cancel_leaves_no_thread(store: ModelStore, mesh: Mesh) -> None:
    host = TorchHost(CPU, on_bar=lambda fraction, line: None, is_cancelled=lambda: True)
    host.expect(clean_parts(320))
    with pytest.raises(Cancelled):
        clean(mesh, PRESET, host)
    assert not [thread for thread in threading.enumerate() if thread.name == "hunyuan3d-progress"]


def test_the_plan_of_a_whole_run_has_every_stage() -> None:
    keys = {part.key for part in run_parts(PRESET)}
    assert {
        "background",
        "shape DiT",
        "clean",
        "unwrap",
        "delight UNet",
        "paint UNet",
        "bake",
        "inpaint",
        "save",
    } <= keys
    assert all(part.seconds > 0 and part.units > 0 for part in run_parts(PRESET))


def test_the_summary_names_what_took_long() -> None:
    records = [PhaseRecord(name, seconds, None, None, None, 0) for name, seconds in
               (("sample", 120.2), ("decode", 0.01), ("paint", 60.0))]  # fmt: skip
    records.append(PhaseRecord("clean", 9.0, None, None, None, 0, cached=True))
    assert summary(records, "textured mesh") == "textured mesh in 180 s: sample 120, paint 60.0"
    assert summary(records[1:2]) == "0.0 s"
