"""Runs what `make bench-speed` runs, with tiny models: on the device that counts bytes, which stands for a GPU."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import page_cache
import pytest
import speed
import torch
import upstream as upstream_on_cpu
import upstream_job
import upstream_run
from counted import counted, ledger
from solid import REACH, SolidHost, solid_field, solid_logits
from upstream_run import Upstream, a_picture

from lowvram_core.files.store import ModelStore
from lowvram_core.networks import hy3dgen
from lowvram_core.pictures.convert import cutout_from_rgba
from lowvram_core.presets import PRESETS
from lowvram_core.stages import delight, paint, shape

GIB = 2**30
PRESET = PRESETS["8 GB Full"].with_(
    octree=32, points_per_chunk=8000, shape_steps=3, delight_steps=1, paint_steps=1, render_px=64, texture_px=64,
    views="minimal", face_budget=500, precision="float32",
)  # fmt: skip
RENDERED = {"maps", "bake", "inpaint"}
"""The stages that need upstream's compiled code."""


@pytest.fixture(scope="module", autouse=True)
def small_pictures() -> Iterator[None]:
    """The networks of both sides paint 128 px instead of 512: a sixteenth of the work."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (upstream_run, delight, paint):
            patch.setattr(module, "VIEW_PX", 128)
        yield


@pytest.fixture(scope="module")
def written(models: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The file after one setting, warm, resident and streamed. The cold runs cannot be measured there."""
    path = tmp_path_factory.mktemp("results") / "speed.json"
    with pytest.MonkeyPatch.context() as patch, counted() as device:
        patch.setattr(page_cache, "drop", lambda folder: "a RAM disk")
        presets = {"full": PRESET}
        results = speed.Results(path, speed.about(device, presets, "tiny", None))
        speed.Bench(device, models, presets, results).measure()
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def of(written: dict[str, Any], weights: str) -> dict[str, dict[str, Any]]:
    """The rows of the warm runs by stage."""
    rows = [row for row in written["rows"] if row["weights"] == weights and row["cache"] == "warm"]
    return {row["stage"]: row for row in rows}


@pytest.mark.parametrize("weights", speed.WEIGHTS)
def test_the_whole_job_of_both_sides_is_measured(written: dict[str, Any], weights: str) -> None:
    assert list(written["rows"][0]) == [
        "setting", "cache", "weights", "stage", "counted", "ours_s", "upstream_s", "ratio"
    ]  # fmt: skip
    rows = of(written, weights)
    assert list(rows) == [*speed.STAGES, "total"]
    left_out = {row["stage"] for row in written["left_out"]}
    assert left_out == {stage for stage, row in rows.items() if not row["counted"]}
    for stage in ("condition", "sample", "decode", "delight", "unwrap", "paint", "total"):
        row = rows[stage]
        assert row["ours_s"] > 0 < row["upstream_s"] and row["ratio"] > 0, stage
    assert rows["load"]["ours_s"] is None and rows["load"]["upstream_s"] > 0
    for stage in left_out:
        assert rows[stage]["ours_s"] > 0 and rows[stage]["upstream_s"] is None, stage
    for side in ("ours_s", "upstream_s"):
        counted = [row[side] or 0 for stage, row in rows.items() if row["counted"] and stage != "total"]
        assert rows["total"][side] == pytest.approx(sum(counted), abs=0.01)


def test_the_file_says_where_and_with_what(written: dict[str, Any]) -> None:
    assert written["device"] == "counted" and written["torch"] == torch.__version__
    assert written["presets"]["full"]["octree"] == PRESET.octree
    for row in written["left_out"]:
        assert row["why"]
    assert set(written["notes"]) >= {"load", "total", "streamed", "surface"}
    cold = [(row["side"], row.get("weights")) for row in written["errors"] if row["cache"] == "cold"]
    assert cold == [("upstream", None), ("ours", "resident"), ("ours", "streamed")]
    assert all("not measured: a RAM disk" in row["error"] for row in written["errors"])
    assert len(written["errors"]) == 3, written["errors"]


def test_both_sides_make_the_mesh_of_the_solid(models: Path) -> None:
    store, device = ModelStore([models], offline=True), torch.device("cpu")
    host = SolidHost(device, torch.float32)
    mesh = shape.generate_shape(cutout_from_rgba(a_picture()), PRESET, host, store)
    folders = [store.folder(name) for name in ("shape/v2-0", "delight", "paint")]
    theirs = Upstream(*folders, device, torch.float32)
    with solid_field(theirs.shape.vae.geo_decoder):
        other = theirs.make_shape(a_picture(), PRESET.shape_steps, PRESET.octree, PRESET.guidance, 8000)
    assert torch.equal(mesh.vertices, torch.from_numpy(other.vertices).float())
    assert torch.equal(mesh.faces, torch.from_numpy(other.faces))
    assert other.is_watertight and other.euler_number == 0 and other.body_count == 1
    with pytest.raises(AssertionError):  # without the hook, the random field has another surface
        bare = theirs.make_shape(a_picture(), PRESET.shape_steps, PRESET.octree, PRESET.guidance, 8000)
        assert bare is not None and len(bare.vertices) == len(other.vertices)


def test_the_solids_logits_are_steep_and_positive_inside() -> None:
    points = torch.tensor([[0.0, 0.0, 0.0], [-0.6, 0.0, 0.0], [0.6, 0.3, 0.0], [-0.6, 0.2 - REACH / 2, 0.0]])
    assert solid_logits(points).tolist() == pytest.approx([-1.0, 1.0, 1.0, 0.5], abs=1e-4)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Stand-ins for upstream's compiled packages and for pymeshlab; yields the face budgets that are asked for."""
    raster = ModuleType("custom_rasterizer")
    raster.rasterize, raster.interpolate = upstream_on_cpu._rasterize, upstream_on_cpu._interpolate  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "custom_rasterizer", raster)
    monkeypatch.setitem(sys.modules, "pymeshlab", ModuleType("pymeshlab"))
    mesh_processor = upstream_job.importlib.import_module("hy3dgen.texgen.differentiable_renderer.mesh_processor")
    monkeypatch.setattr(upstream_job, "_compiled_inpaint", lambda: mesh_processor)
    cleaners = hy3dgen.shapegen("postprocessors")
    asked: list[int] = []

    def reduce(self: Any, mesh: Any, max_facenum: int) -> Any:
        asked.append(max_facenum)
        return mesh

    for name, replacement in (
        ("FloaterRemover", lambda self, mesh: mesh), ("DegenerateFaceRemover", lambda self, mesh: mesh),
        ("FaceReducer", reduce),
    ):  # fmt: skip
        monkeypatch.setattr(getattr(cleaners, name), "__call__", replacement)
    yield asked


def test_upstreams_compiled_stages_run_where_they_are(models: Path, compiled: list[int]) -> None:
    """With the rasteriser of this pack as upstream's."""
    assert upstream_job.missing_stages() == {}
    store = ModelStore([models], offline=True)
    seconds = upstream_job.run_upstream(
        a_picture(), PRESET.with_(octree=16), store, torch.device("cpu"), torch.float32
    )  # fmt: skip
    assert set(seconds) == set(speed.STAGES) - {"rest"} and all(value > 0 for value in seconds.values())
    assert compiled == [PRESET.face_budget]


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymeshlab", None)
    monkeypatch.setitem(sys.modules, "custom_rasterizer", None)
    missing = upstream_job.missing_stages()
    assert set(missing) == {"clean", *RENDERED}
    assert "pymeshlab" in missing["clean"] and "custom_rasterizer" in missing["inpaint"]
    monkeypatch.setitem(sys.modules, "custom_rasterizer", ModuleType("custom_rasterizer"))
    monkeypatch.setattr(upstream_job, "_compiled_inpaint", lambda: None)
    assert set(upstream_job.missing_stages()) == {"clean", "inpaint"}


def test_a_stage_that_is_left_out_counts_in_neither_total() -> None:
    ours = dict.fromkeys(set(speed.STAGES) - {"load"}, 1.0)
    theirs = dict.fromkeys(set(speed.STAGES) - {"maps", "rest"}, 2.0)
    rows = {row["stage"]: row for row in speed.rows_of(ours, theirs, {"maps": "why"})}
    assert rows["maps"] == {"stage": "maps", "counted": False, "ours_s": 1.0, "upstream_s": None, "ratio": None}
    assert rows["total"]["ours_s"] == len(ours) - 1 and rows["total"]["upstream_s"] == 2 * len(theirs)
    assert rows["total"]["ratio"] == round(rows["total"]["ours_s"] / rows["total"]["upstream_s"], 3)
    alone = {row["stage"]: row for row in speed.rows_of(ours, None, {})}
    assert alone["total"]["ours_s"] == len(ours)
    assert {row["upstream_s"] for row in alone.values()} == {row["ratio"] for row in alone.values()} == {None}


def test_an_error_ends_only_its_own_combination(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise torch.OutOfMemoryError("the device is full\nsecond line")

    monkeypatch.setattr(speed, "run_upstream", fail)
    monkeypatch.setattr(page_cache, "drop", lambda folder: None)

    def ours(self: speed.Bench, preset: Any) -> dict[str, float]:
        return fail() if preset.residency == "stream" else {"decode": 2.0}

    monkeypatch.setattr(speed.Bench, "_ours", ours)
    presets = {"full": PRESET, "balanced": PRESET}
    results = speed.Results(tmp_path / "speed.json", {"device": "a"})
    speed.Bench(torch.device("cpu"), tmp_path, presets, results).measure()
    written = json.loads((tmp_path / "speed.json").read_text(encoding="utf-8"))
    totals = [(row["setting"], row["cache"], row["weights"], row["ours_s"], row["upstream_s"])
              for row in written["rows"] if row["stage"] == "total"]  # fmt: skip
    assert totals == [(setting, cache, "resident", 2.0, None) for setting in presets for cache in speed.CACHES]
    assert [(row["setting"], row["side"], row.get("weights")) for row in written["errors"]] == [
        (setting, side, weights) for setting in presets for side, weights in (("upstream", None), ("ours", "streamed"))
    ]
    assert {row["error"] for row in written["errors"]} == {"OutOfMemoryError: the device is full"}


def test_what_our_host_says_is_kept(models: Path, tmp_path: Path) -> None:
    """Half of a device of 4 GiB is too small for chunks of 100,000 points."""
    with counted() as device, ledger.set(cap=4 * GIB):
        bench = speed.Bench(device, models, {}, speed.Results(tmp_path / "speed.json", {}))
        speed.limit_memory(device, 2.0)
        assert ledger.share == 0.5
        try:
            seconds = bench._ours(PRESET.with_(points_per_chunk=100_000))
        finally:
            ledger.share = 1.0
    assert "points per chunk" in bench.said[0] and seconds["decode"] > 0


def test_results_are_kept_for_the_same_machine_and_settings_alone(tmp_path: Path) -> None:
    path, key = tmp_path / "deep" / "speed.json", {"setting": "full", "cache": "warm", "weights": "resident"}
    first = speed.Results(path, {"device": "a"})
    first.fail(key, "ours", "broken")
    first.put({**key, "cache": "cold"}, [{"stage": "total", "ours_s": 1.0}], ["streamed"])
    second = speed.Results(path, {"device": "a"})
    second.put(key, [{"stage": "total", "ours_s": 2.0}], [])
    found = json.loads(path.read_text(encoding="utf-8"))
    assert [(row["cache"], row["ours_s"]) for row in found["rows"]] == [("cold", 1.0), ("warm", 2.0)]
    assert [row["cache"] for row in found["fallbacks"]] == ["cold"]
    assert found["errors"] == [], "a combination that succeeds has no error any more"
    assert speed.Results(path, {"device": "b"}).rows == []


def test_files_leave_the_page_cache_or_the_reason_is_said(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "weights"
    path.parent.mkdir()
    path.write_bytes(bytes(1 << 20))
    assert page_cache.cached_share([path]) == 1.0
    reason, share = page_cache.drop(tmp_path), page_cache.cached_share([path])
    assert share is not None and (reason is None) == (share <= page_cache.STAYS)
    assert reason is None or f"{share:.0%} of the files" in reason


def test_the_command_measures_what_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    benches: list[speed.Bench] = []
    monkeypatch.setattr(speed.Bench, "measure", lambda bench: benches.append(bench))
    out = str(tmp_path / "speed.json")
    speed.main(["--settings", "full", "--full-preset", "8 GB Full", "--cache", "warm", "--out", out])
    (bench,) = benches
    assert bench.caches == ("warm",) and bench.weights == speed.WEIGHTS and bench.models == speed.DEMO
    assert list(bench.presets) == ["full"] and bench.presets["full"].name == "8 GB Full"
    assert bench.presets["full"] == speed.small(PRESETS["8 GB Full"]) and str(bench.results.path) == out
    assert bench.results.about["models"] == "demo networks"
