"""Peaks at the published sizes on a device that counts bytes. The same stage functions run as in the nodes."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import readme_tables
import techniques
import torch
import vram
from scales import CountingScale, SizingHost

from lowvram_core.files.store import ModelStore
from lowvram_core.fitting.budget import MARGIN_BYTES, Need
from lowvram_core.lending import streaming
from lowvram_core.lending.prefetch import Load
from lowvram_core.networks.delight import open_delight
from lowvram_core.networks.paint import open_paint
from lowvram_core.presets import PRESETS, Preset
from lowvram_core.stages import delight, paint, shape

MIB = 2**20
BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
PEAKS_MIB = readme_tables.peaks_mib()
"""As benchmarks/vram.py left them, and as the README states them."""
ALLOCATORS_BYTES = 412 * MIB
"""What torch may keep beyond the planned bytes, with the gaps around the workspaces of cuDNN. The hosts leave 400 MiB
or more free, and torch returns what it keeps before it reports a full device."""
Found = tuple[SizingHost, dict[str, Need]]
"""The host after the stages with networks, and what the budget planned for each component."""
Run = Callable[[Preset], Found]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    """Checkpoints of the published sizes that take no disk space."""
    root = tmp_path_factory.mktemp("full_size")
    vram.write_models(root, list(PRESETS.values()), sparse=True)
    return ModelStore([root], offline=True)


@pytest.fixture(scope="module")
def run(store: ModelStore) -> Run:
    """Runs a preset once; tests that ask for the same values share the run, whatever the preset's name."""
    once = cache(lambda preset: run_once(preset, store))
    return lambda preset: once(preset.with_(name="shared"))


def run_once(preset: Preset, store: ModelStore) -> Found:
    needs: dict[str, Need] = {}
    original = shape.fitted

    def spied(stage: str, preset: Preset, host: Any, of: Any, body: Any) -> Any:
        needs.update({need.key: need for need in of(preset)})
        return original(stage, preset, host, of, body)

    scale = CountingScale()
    with pytest.MonkeyPatch.context() as patch, scale.weighing():
        for module in (shape, delight, paint):
            patch.setattr(module, "fitted", spied)
        host = scale.host(residency=preset.residency)
        vram.run_ours(preset, store, host, geometry=False)
    return host, needs


def committed(name: str) -> Any:
    """A result that benchmarks/ wrote."""
    return json.loads((BENCHMARKS / "results" / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", list(PRESETS))
def test_a_presets_stated_peak(name: str, run: Run) -> None:
    """Never more, and within 3 MiB; the budget agrees with every component, or leaves room where weights stream."""
    host, needs = run(vram.few(PRESETS[name]))
    peak = max(record.peak_bytes or 0 for record in host.records) / MIB
    assert abs(peak - PEAKS_MIB[name]) <= 3, f"{name}: {peak:.1f} MiB"
    assert host.notes == [] and len(host.peaks) == 9
    reserved = max(peaks["reserved"] for peaks in host.beside.values())
    assert peak < reserved <= (1024 if host.residency == "stream" else 1.15 * peak), f"{name}: {reserved:.0f} reserved"
    for key, measured in host.peaks.items():
        need = needs[key]
        planned = need.streamed_bytes if host.residency == "stream" else need.resident_bytes
        assert host.reserved_peaks[key] <= planned + ALLOCATORS_BYTES, need.label
        if host.residency == "stream":
            assert 0.5 * measured < need.streamed_bytes and measured <= need.streamed_bytes, need.label
        else:
            planned = need.resident_bytes - MARGIN_BYTES
            if need.label == "shape VAE":  # decodes larger chunks in memory that the DiT needs anyway
                most = max(other.resident_bytes for other in needs.values() if other.label == "shape DiT")
                assert planned < 1.01 * measured <= most, f"{planned / MIB:.0f} {measured / MIB:.0f}"
                continue
            assert abs(planned - measured) <= 0.01 * measured, f"{need.label}: {planned / MIB:.0f} {measured / MIB:.0f}"


@pytest.mark.parametrize("name", list(PRESETS))
def test_the_committed_peaks_are_those_of_the_code(name: str, run: Run) -> None:
    """The rows that benchmarks/vram.py wrote: they agree within 0.3 %, reserved within 3 %."""
    rows = {row["stage"]: row for row in committed("vram-meta")["rows"] if row["preset"] == name}
    measured = vram.by_stage(run(vram.few(PRESETS[name]))[0])
    for stage in ("shape", "delight", "paint"):
        assert measured[stage]["mib"] == pytest.approx(rows[stage]["ours_mib"], rel=0.003), stage
        assert measured[stage]["reserved_mib"] == pytest.approx(rows[stage]["ours_reserved_mib"], rel=0.03), stage


def test_a_unet_streams_in_few_copies(store: ModelStore) -> None:
    """45 a pass; one for each layer and transformer block would be 97 and 99."""
    unets = [open_delight(store.folder("delight"), torch.float16).unet]
    paint_model = open_paint(store.folder("paint"), torch.float16)
    for unet in (*unets, paint_model.dual, paint_model.main):
        parts = [Load(tables) for _, tables, _ in streaming._parts(unet.load(), unet.blocks, unet.stays)]
        largest = max(load.nbytes for load in parts)
        assert largest <= 94 * MIB and largest == pytest.approx(unet.largest_layer_bytes, rel=0.01)
        copied = [load for load in parts if load.nbytes > streaming.STAYING_SHARE * largest]
        assert len(copied) == 45, unet.label
        assert sum(load.nbytes for load in parts if load not in copied) <= 5 * MIB, "what stays on the device"


def test_the_committed_peaks_of_upstream_are_those_of_its_code(store: ModelStore) -> None:
    """Of the preset that takes the fewest passes."""
    name, scale = "8 GB Fast", CountingScale()
    with scale.weighing():
        measured = vram.theirs(vram.few(PRESETS[name]), store, scale)
    rows = {row["stage"]: row for row in committed("vram-meta")["rows"] if row["preset"] == name}
    for stage in ("shape", "delight", "paint"):
        assert measured[stage]["mib"] == pytest.approx(rows[stage]["upstream_mib"], rel=0.003), stage


def test_the_committed_figures_of_techniques_are_those_of_the_code(run: Run) -> None:
    """Those of the runs that other tests make, too: the base with each technique on, streamed, and sliced attention."""
    rows = {row["technique"]: row["mib"] for row in committed("techniques")["rows"]}
    compared = 0
    for technique in techniques.TECHNIQUES:
        for changes, is_on in ((technique.off, False), (technique.on, True)):
            if changes not in ({}, techniques.STREAM, {"attention": "sliced"}) or not technique.component:
                continue
            host, _ = run(vram.few(techniques.BASE.with_(**changes)))
            found = techniques.mib_of(technique, host)
            assert found == pytest.approx(rows[technique.name][is_on], rel=0.003), technique
            compared += 1
    assert compared >= 20


def test_the_budget_knows_what_sliced_attention_takes(run: Run) -> None:
    """Never less than it is, and at most 3 % more."""
    host, needs = run(vram.few(PRESETS["4 GB"]).with_(attention="sliced"))
    assert host.notes == [] and max(host.peaks.values()) > 6 * 1024 * MIB
    for key, measured in host.peaks.items():
        planned = needs[key].resident_bytes - MARGIN_BYTES
        if needs[key].label == "shape VAE":  # decodes larger chunks in memory that the DiT needs anyway
            continue
        assert 0.99 * measured <= planned <= 1.03 * measured, f"{needs[key].label}: {planned / MIB:.0f}"


def test_the_budget_knows_what_the_long_ways_take(run: Run) -> None:
    """Logits on the device, and both UNets of the paint model at once."""
    preset = vram.few(PRESETS["4 GB"]).with_(logits_on_host=False, octree=128, points_per_chunk=500_000)
    preset = preset.with_(decode="dense")
    host, needs = run(preset.with_(reference_once=False))
    assert host.notes == []
    for label in ("shape VAE", "paint UNet"):
        (key,) = (key for key, need in needs.items() if need.label == label)
        planned = needs[key].resident_bytes - MARGIN_BYTES
        assert abs(planned - host.peaks[key]) <= 0.02 * planned, label
    assert planned > 3.5 * 1024 * MIB, "both"


def painted(store: ModelStore, preset: Preset, references: int) -> Found:
    """A run of paint alone, with so many reference pictures."""
    needs: dict[str, Need] = {}
    original = paint.fitted

    def spied(stage: str, preset: Preset, host: Any, of: Any, body: Any) -> Any:
        needs.update({need.key: need for need in of(preset)})
        return original(stage, preset, host, of, body)

    scale, chosen = CountingScale(), vram.few(preset)
    with pytest.MonkeyPatch.context() as patch, scale.weighing():
        patch.setattr(paint, "fitted", spied)
        host, pictures = scale.host(residency=preset.residency), [torch.rand(512, 512, 3)] * references
        paint.paint_views(vram.a_mesh(), pictures, chosen, host, store)
        host.release()
    return host, needs


def test_what_further_reference_pictures_take(run: Run, store: ModelStore) -> None:
    """Four instead of one, with six views: 111 MiB of the paint UNet, 66 MiB of the dual UNet, nothing of the VAE."""
    one, _ = run(vram.few(PRESETS["4 GB"]))
    four, needs = painted(store, PRESETS["4 GB"], 4)
    added = {needs[key].label: (peak - one.peaks[key]) / MIB for key, peak in four.peaks.items()}
    assert added["paint UNet"] == pytest.approx(111.2, abs=0.5)
    assert added["paint dual UNet"] == pytest.approx(66.2, abs=0.5) and added["paint VAE"] == 0


@pytest.mark.parametrize(
    ("references", "changes"),
    [
        (4, {}), (5, {"cfg_together": True}), (4, {"view_by_view": True, "attention": "sliced"}),
        (4, {"skip_unguided_reference": False}), (5, {"vae_slicing": False, "vae_tiling": False, "views": "minimal"}),
    ],
)  # fmt: skip
def test_the_budget_counts_reference_pictures(store: ModelStore, references: int, changes: dict[str, Any]) -> None:
    """Within 1 % of what each network takes, or a little more where attention is sliced."""
    host, needs = painted(store, PRESETS["4 GB"].with_(**changes), references)
    assert host.notes == []
    for key, measured in host.peaks.items():
        planned = needs[key].resident_bytes - MARGIN_BYTES
        most = 1.01 if changes.get("attention") != "sliced" else 1.03
        assert 0.99 * measured <= planned <= most * measured, f"{needs[key].label}: {planned / MIB:.0f}"


def test_the_budget_counts_reference_pictures_of_both_unets_at_once(store: ModelStore) -> None:
    host, needs = painted(store, PRESETS["4 GB"].with_(reference_once=False), 4)
    (key,) = (key for key, need in needs.items() if need.label == "paint UNet")
    planned = needs[key].resident_bytes - MARGIN_BYTES
    assert abs(planned - host.peaks[key]) <= 0.02 * planned


@pytest.mark.parametrize("name", ["2 GB", "8 GB Fast"])
def test_more_passes_change_no_peak(name: str, run: Run) -> None:
    preset = vram.few(PRESETS[name])
    few, _ = run(preset)
    more, _ = run(preset.with_(shape_steps=6, octree=40, delight_steps=4, paint_steps=4))
    for key, peak in few.peaks.items():
        assert abs(more.peaks[key] - peak) <= 0.003 * peak, key
        assert more.reserved_peaks[key] <= 1.03 * few.reserved_peaks[key], key


def test_the_stated_peaks_keep_their_promises() -> None:
    """Full upstream quality takes at most 2.5 GiB, and streamed at most 0.75 GiB and a third of the resident peak."""
    assert PEAKS_MIB["4 GB"] <= 2.5 * 1024 and PEAKS_MIB["2 GB"] <= 0.75 * 1024
    assert PEAKS_MIB["2 GB"] <= PEAKS_MIB["4 GB"] / 3
    order = ["2 GB", "8 GB Fast", "8 GB Balanced", "8 GB Quality", "4 GB", "8 GB Full"]
    peaks = [PEAKS_MIB[name] for name in order]
    assert peaks == sorted(peaks) and PEAKS_MIB["12 GB"] <= PEAKS_MIB["16 GB"]
    assert PEAKS_MIB["4 GB"] <= PEAKS_MIB["8 GB Turbo"] <= 1.01 * PEAKS_MIB["4 GB"], "the masks"
