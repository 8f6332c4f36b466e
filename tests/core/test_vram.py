"""Peaks at the published sizes on a device that counts bytes. The same stage functions run as in the nodes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
for folder in (ROOT / "benchmarks", ROOT / "texts"):
    if str(folder) not in sys.path:
        sys.path.append(str(folder))

import readme_tables  # noqa: E402  (needs the path above)
import vram  # noqa: E402  (needs the path above)
from scales import CountingScale, SizingHost  # noqa: E402

from lowvram_core.files.store import ModelStore  # noqa: E402
from lowvram_core.fitting.budget import MARGIN_BYTES, Need  # noqa: E402
from lowvram_core.presets import PRESETS, Preset  # noqa: E402
from lowvram_core.stages import delight, paint, shape  # noqa: E402

MIB = 2**20
PEAKS_MIB = readme_tables.peaks_mib()
"""As benchmarks/vram.py left them, and as the README states them."""
ALLOCATORS_BYTES = 256 * MIB
"""What the allocator may reserve beyond the plan. It is part of the hosts' reserve (400 MiB or more). A driver that
moves memory to RAM instead of failing would move these bytes."""


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    """Checkpoints of the published sizes that take no disk space."""
    root = tmp_path_factory.mktemp("full_size")
    vram.write_models(root, list(PRESETS.values()), sparse=True)
    return ModelStore([root], offline=True)


def run(preset: Preset, store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> tuple[SizingHost, dict[str, Need]]:
    """Runs the stages with networks. Returns the host, and the budget's need of each component by key."""
    needs: dict[str, Need] = {}
    original = shape.fitted

    def spied(stage: str, preset: Preset, host: Any, of: Any, body: Any) -> Any:
        needs.update({need.key: need for need in of(preset)})
        return original(stage, preset, host, of, body)

    for module in (shape, delight, paint):
        monkeypatch.setattr(module, "fitted", spied)
    scale = CountingScale()
    with scale.weighing():
        host = scale.host(residency=preset.residency)
        vram.run_ours(preset, store, host, geometry=False)
    return host, needs


@pytest.mark.parametrize("name", list(PRESETS))
def test_a_presets_stated_peak(name: str, store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within 3 MiB of the stated peak.

    The budget matches the peak of every component. If weights stream, it may be higher.
    """
    host, needs = run(vram.few(PRESETS[name]), store, monkeypatch)
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
            assert abs(planned - measured) <= 0.01 * measured, f"{need.label}: {planned / MIB:.0f} {measured / MIB:.0f}"


def test_the_budget_knows_what_sliced_attention_takes(store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan is at most 1 % lower and at most 3 % higher than the measured peak."""
    host, needs = run(vram.few(PRESETS["4 GB"]).with_(attention="sliced"), store, monkeypatch)
    assert host.notes == [] and max(host.peaks.values()) > 6 * 1024 * MIB
    for key, measured in host.peaks.items():
        planned = needs[key].resident_bytes - MARGIN_BYTES
        assert 0.99 * measured <= planned <= 1.03 * measured, f"{needs[key].label}: {planned / MIB:.0f}"


def test_the_budget_knows_what_the_long_ways_take(store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits stay on the device, and both UNets of the paint model are there at once."""
    preset = vram.few(PRESETS["4 GB"]).with_(logits_on_host=False, octree=128, points_per_chunk=500_000)
    host, needs = run(preset.with_(reference_once=False), store, monkeypatch)
    assert host.notes == []
    for label in ("shape VAE", "paint UNet"):
        (key,) = (key for key, need in needs.items() if need.label == label)
        planned = needs[key].resident_bytes - MARGIN_BYTES
        assert abs(planned - host.peaks[key]) <= 0.02 * planned, label
    assert planned > 3.5 * 1024 * MIB, "both"


@pytest.mark.parametrize("name", ["2 GB", "8 GB Fast"])
def test_more_passes_change_no_peak(name: str, store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    preset = vram.few(PRESETS[name])
    few, _ = run(preset, store, monkeypatch)
    more, _ = run(preset.with_(shape_steps=6, octree=40, delight_steps=4, paint_steps=4), store, monkeypatch)
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
