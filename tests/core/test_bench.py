"""Runs what `make bench-vram DEVICE=cuda` runs on a GPU, but on the device that counts bytes and with tiny models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import scales
import tiny
import torch
import vram
from counted import counted, ledger
from scales import GpuScale, SizingHost

from lowvram_core.app import torch_host
from lowvram_core.files.store import ModelStore
from lowvram_core.fitting import budget
from lowvram_core.presets import PRESETS

MIB = 2**20
PRESET = PRESETS["8 GB Full"].with_(
    octree=16, points_per_chunk=3000, shape_steps=3, delight_steps=1, paint_steps=1, render_px=64, texture_px=64,
    views="minimal",
)  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    return ModelStore([tiny.make_all(tmp_path_factory.mktemp("models"))], offline=True)


class Scale(GpuScale):
    """The scale of a GPU. Tensors of networks have no values, because half precision is slow on a CPU."""

    def host(self, **settings: object) -> SizingHost:
        return SizingHost(self.device, torch.float16, scale=self, **settings)  # type: ignore[arg-type]


@pytest.fixture
def scale() -> Iterator[GpuScale]:
    with weighing_scale() as found:
        yield found


@contextmanager
def weighing_scale() -> Iterator[GpuScale]:
    with pytest.MonkeyPatch.context() as patch, counted() as device, ledger.set(cap=2**40, limit=8):
        patch.setattr(scales, "WITHOUT_VALUES", 8)
        yield Scale(device)
    assert ledger.share == 1.0


@pytest.fixture(scope="module")
def rows(store: ModelStore) -> dict[str, vram.Row]:
    """The benchmark's rows by stage: resident beside upstream."""
    with weighing_scale() as scale:
        return {row["stage"]: row for row in vram.rows_of(PRESET, store, scale, {})}


def test_a_row_has_every_peak_and_the_seconds_of_both(rows: dict[str, vram.Row]) -> None:
    assert list(rows) == [*vram.STAGES, "load"]
    for stage in ("shape", "delight", "paint"):
        row = rows[stage]
        assert 0 < row["ours_mib"] < row["upstream_mib"], row
        assert row["ours_reserved_mib"] >= row["ours_mib"] and row["ours_device_mib"] >= row["ours_mib"]
        assert row["upstream_device_mib"] >= row["upstream_mib"] and row["seconds"] > 0 < row["upstream_seconds"]
    assert rows["bake"]["upstream_mib"] is None and rows["load"]["upstream_seconds"] > 0


def test_streamed_takes_less_than_resident_and_that_less_than_upstream(
    rows: dict[str, vram.Row], scale: GpuScale, store: ModelStore
) -> None:
    """That the results are equal: tests/core/test_residency.py and test_exact_networks.py."""
    with scale.weighing():
        streamed = vram.ours(PRESET.with_(residency="stream"), store, scale)
    for stage in ("shape", "delight", "paint"):
        assert 0 < streamed[stage]["mib"] < rows[stage]["ours_mib"] < rows[stage]["upstream_mib"], stage


def test_under_a_cap_it_finishes_or_is_refused(
    scale: GpuScale, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    roomy = vram.finishes(PRESET, store, scale, 4)
    assert roomy["finishes"] and roomy["notes"] == [] and roomy["mib"] > 0
    stages = roomy["stages"]
    assert list(stages) == list(vram.STAGES)
    for key in ("mib", "reserved_mib", "device_mib"):
        assert roomy[key] == max(costs[key] for costs in stages.values()) > 0
    assert all(costs["seconds"] > 0 for costs in stages.values())
    assert roomy["seconds"] == pytest.approx(sum(costs["seconds"] for costs in stages.values()), rel=0.02)
    monkeypatch.setattr(budget, "MARGIN_BYTES", 8 * 1024 * MIB)
    refused = vram.finishes(PRESET, store, scale, 4)
    assert not refused["finishes"] and "4.00 GiB of the device are free" in refused["notes"][0]
    assert refused["stages"] == {} and refused["seconds"] == 0.0
    assert ledger.current == 0


def test_what_is_computed_has_no_seconds_and_no_device_peak(store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scales, "WITHOUT_VALUES", 8)
    row = vram.finishes(PRESET, store, scales.CountingScale(), 4)
    assert row["finishes"] and list(row["stages"]) == ["shape", "delight", "maps", "paint"]
    for costs in (row, *row["stages"].values()):
        assert costs["seconds"] is None and costs["device_mib"] is None and 0 < costs["mib"] <= costs["reserved_mib"]


def test_results_grow_and_are_replaced_on_the_same_device_alone(tmp_path: Path) -> None:
    path, here = tmp_path / "results" / "vram.json", {"device": "a"}
    first = vram.Results(path, here)
    first.put("rows", [{"preset": "16 GB", "stage": "shape", "ours_mib": 1.0}], "preset", "stage")
    first.put("rows", [{"preset": "2 GB", "stage": "shape", "ours_mib": 2.0}], "preset", "stage")
    vram.Results(path, here).put("rows", [{"preset": "16 GB", "stage": "shape", "ours_mib": 3.0}], "preset", "stage")
    found = json.loads(path.read_text())["rows"]
    assert [(row["preset"], row["ours_mib"]) for row in found] == [("2 GB", 2.0), ("16 GB", 3.0)]
    noted = vram.Results(path, here, {"cap": "counts all"}).all
    assert noted["cap"] == "counts all" and noted["rows"] == found, "a note takes nothing away"
    vram.Results(path, {"device": "b"}).put("caps", [{"preset": "2 GB", "cap_gib": 8}], "preset", "cap_gib")
    assert json.loads(path.read_text())["rows"] == []


@pytest.mark.parametrize("device", ["meta", "cuda"])
def test_the_notes_say_what_is_missing(device: str) -> None:
    assert "rasteriser" in vram._UPSTREAM and "maps, bake and inpaint" in vram._UPSTREAM
    for word in ("context", *map(str, torch_host._RESERVED_MIB.values())):
        assert word in vram._CAPS[device]
    assert ("neither" in vram._CAPS[device]) == (device == "meta")
