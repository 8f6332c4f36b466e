"""The figures of docs/ are those of benchmarks/results/unwrap.json, and a small case comes out the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hosts import RecordingHost
from meshes import blob, small_preset

from lowvram_core.geometry.unwrappers import LARGEST_FOR_XATLAS, PACKING_PX, unwrap_uvunwrap, unwrap_xatlas
from lowvram_core.presets import get
from lowvram_core.stages.unwrap import unwrap
from lowvram_core.types import Mesh

ROOT = Path(__file__).resolve().parents[2]
FOUND = json.loads((ROOT / "benchmarks" / "results" / "unwrap.json").read_text(encoding="utf-8"))


def cells(page: str) -> set[tuple[str, ...]]:
    lines = (ROOT / "docs" / page).read_text(encoding="utf-8").splitlines()
    return {tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines if line.startswith("|")}


def test_the_tables_are_the_benchmarks() -> None:
    for page, start in (("performance.md", 0), ("ko/performance.md", 2)):
        told = {row[start:] for row in cells(page)}
        for row in FOUND["rows"]:
            if row["texture_px"] == 2048:
                mixed = f"{100 * row['mixed_at_mip_3']:.1f} %" if row["mixed_at_mip_3"] else "0"
                figures = (
                    f"{row['cpu_s']}",
                    f"{row['charts']}",
                    f"{row['seams']}",
                    f"{100 * row['covered']:.0f} %",
                    mixed,
                )
                wanted = (row["mesh"], row["unwrapper"], *figures)[start:]
                assert wanted in told, wanted
    for row in FOUND["parts"]:
        figures = (f"{row['cpu_s']}", f"{row['slowest_s']}", f"{row['charts']:,}", f"{row['seams']}")
        assert (row["mesh"], str(row["parts"]), *figures) in cells("techniques.md")
    text = " ".join((ROOT / "docs" / "performance.md").read_text(encoding="utf-8").split())
    for row in FOUND["maps"]:
        assert f"{100 * row['normals_over_1']:.0f} %" in text and f"{row['normals_mean']:.1f}" in text
        assert row["positions_over_1"] == 0
    for row in FOUND["sizes"]:
        assert row["faces"] == LARGEST_FOR_XATLAS and f"{row['cpu_s']:.0f} s" in text


def test_charts_keep_apart_down_to_mip_level_3() -> None:
    import unwrap as bench

    assert all(
        row["mixed_at_mip_3"] == 0
        for row in FOUND["rows"]
        if row["texture_px"] >= PACKING_PX.get(row["unwrapper"], 9999)
    )
    mesh = blob(4)
    for name, cut in bench.UNWRAPPERS.items():
        result = cut(mesh)
        for size_px in (PACKING_PX[name], 2048):
            assert bench.use(result, size_px)[1] == 0
    assert bench.use(bench.by_default(mesh), 1024)[1] > 0, "as upstream packs them"


@pytest.mark.parametrize("there", [True, False])
def test_a_mesh_that_is_too_large_for_xatlas_says_so(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lowvram_core.stages.unwrap.LARGEST_FOR_XATLAS", 1000)
    if not there:
        monkeypatch.setattr("lowvram_core.stages.unwrap.is_there", lambda name: False)
    host, mesh = RecordingHost(), blob(3)
    result = unwrap(mesh, small_preset(unwrapper="xatlas"), host)
    (note,) = host.notes
    assert "1,280 faces" in note and "Run Clean Mesh with a face budget of at most 1,000" in note
    assert note.startswith("unwrap: uvunwrap cut the mesh" if there else "unwrap: xatlas takes minutes")
    assert same_uvs(result, (unwrap_uvunwrap if there else unwrap_xatlas)(mesh))
    small = RecordingHost()
    unwrap(blob(1), small_preset(unwrapper="xatlas"), small)
    assert small.notes == []
    assert get("8 GB Full").face_budget <= LARGEST_FOR_XATLAS


def same_uvs(one: Mesh, other: Mesh) -> bool:
    return one.uvs is not None and other.uvs is not None and one.uvs.equal(other.uvs)


def test_uvunwrap_tells_how_far_it_is() -> None:
    reports: list[tuple[int, int]] = []
    unwrap_uvunwrap(blob(6), lambda done, total: reports.append((done, total)))
    done = [one for one, _ in reports]
    assert done == sorted(done) and len(set(done)) > 2 and {total for _, total in reports} == {100}
