"""Small cases of the committed results in benchmarks/results, measured again. For the device's memory: test_vram.py."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ram
import torch
import views
import vram

from lowvram_core.files.store import ModelStore
from lowvram_core.types import Camera

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def committed(name: str) -> Any:
    return json.loads((BENCHMARKS / "results" / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def full_size(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of the published sizes, which take no room on the disk."""
    root = tmp_path_factory.mktemp("full_size")
    vram.write_models(root, [ram.PRESET], sparse=True)
    return root


def test_the_view_sets_cover_and_bake_as_well_as_committed() -> None:
    """The standard set on the bumpy ball."""
    name, poses = "bumpy ball", views.CANDIDATES["6: standard"]
    scene = views.prepare(views.meshes()[name])
    coverage, psnr = views.measure(*scene, tuple(Camera(*pose, views._weight(pose, None)) for pose in poses))
    (row,) = (row for row in committed("views") if row["set"] == "6: standard")
    assert coverage == pytest.approx(row[name][0], abs=0.002) and psnr == pytest.approx(row[name][1], abs=0.05)


def test_the_loader_takes_as_little_ram_as_committed(full_size: Path) -> None:
    """The shape model at its full size, each byte read, in a process of its own."""
    command = [sys.executable, str(BENCHMARKS / "load.py"), "--loader", "ours"]
    done = subprocess.run(
        [*command, "--keep", str(full_size / "hunyuan3d-dit-v2-0")], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    found, expected = json.loads(done.stdout.strip().splitlines()[-1]), committed("load")["ours"]
    assert found["peak_rss_mib"] == pytest.approx(expected["peak_rss_mib"], rel=0.03)
    assert found["peak_anonymous_mib"] <= expected["peak_anonymous_mib"] + 30


def test_what_is_told_of_loading_is_what_was_measured(full_size: Path) -> None:
    """The medians stand in docs/performance.md. A later run of delight does not touch its text encoder."""
    found = committed("cold")
    text = (BENCHMARKS.parent / "docs" / "performance.md").read_text(encoding="utf-8")
    loading = text.partition("## Loading")[2].partition("\n## ")[0]
    for row in (*found["loading"].values(), found["paint"]["cold, pickle"], found["paint"]["cold, converted"]):
        assert f"{row['median_s']:.1f}" in loading, row
        assert sorted(row["rounds_s"])[len(row["rounds_s"]) // 2] == row["median_s"]
    command = [sys.executable, "-W", "ignore", str(BENCHMARKS / "cold.py"), "--case", "delight-after"]
    done = subprocess.run([*command, "--folder", str(full_size)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    first, *later = json.loads(done.stdout.strip().splitlines()[-1]).values()
    assert all(run["empty prompt"] < first["empty prompt"] / 5 for run in later), (first, later)
    for run in ("second run", "third run"):
        assert found["delight"]["after"][run]["sum"] < found["delight"]["before"][run]["sum"]


def test_the_weights_and_ram_at_float32_are_as_committed(full_size: Path) -> None:
    """Every component's weights; the RAM of loading the smallest one in a fresh process."""
    expected = committed("ram")["float32"]
    components = ram.components(ModelStore([full_size], offline=True), torch.float32)
    assert {one.label: round(one.weight_bytes / 2**20, 1) for one in components} == {
        label: row["weights_mib"] for label, row in expected.items()
    }
    index = next(index for index, one in enumerate(components) if one.label == "delight VAE")
    with multiprocessing.get_context("spawn").Pool(1) as fresh:
        label, row = fresh.apply(ram.at_float32, (str(full_size), index))
    assert row["peak_rss_mib"] == pytest.approx(expected[label]["peak_rss_mib"], rel=0.2)
