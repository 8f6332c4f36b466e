"""A device that is full in any phase of any stage: the stage finishes or says so, and leaves nothing there."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import meshes
import pytest
import tiny
import torch
from counted import counted, ledger
from watched import watch

from lowvram_core.app.torch_host import TorchHost
from lowvram_core.errors import Cancelled, OutOfMemory
from lowvram_core.files.store import ModelStore
from lowvram_core.fitting.budget import MARGIN_BYTES, Needs
from lowvram_core.fitting.fallbacks import FALLBACKS, attempts
from lowvram_core.networks.delight import open_delight
from lowvram_core.networks.paint import open_paint
from lowvram_core.networks.shape import open_shape
from lowvram_core.networks.turbo_paint import open_turbo_paint
from lowvram_core.presets import PRESETS, VIEW_SETS, Residency
from lowvram_core.render import project, rasterize
from lowvram_core.stage_values import STAGE_VALUES
from lowvram_core.stages import bake, delight, inpaint, paint, shape
from lowvram_core.types import Atlas, Cutout, Mesh, Views

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
PRESET = PRESETS["8 GB Full"].with_(
    octree=16, points_per_chunk=3000, shape_steps=3, delight_steps=1, paint_steps=1, render_px=64, texture_px=64,
    views="minimal",
)  # fmt: skip
Stage = Callable[[TorchHost, ModelStore], Any]


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """The networks paint 128 px instead of 512: the same operators and allocations, a sixteenth of the work."""
    for stage in (delight, paint):
        monkeypatch.setattr(stage, "VIEW_PX", 128)


@pytest.fixture(autouse=True)
def device() -> Iterator[torch.device]:
    """The counting device, empty before and after."""
    with counted() as found:
        gc.collect()
        assert ledger.current == 0
        yield found
        gc.collect()
        assert ledger.current == 0


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    return ModelStore([tiny.make_all(tmp_path_factory.mktemp("models"))], offline=True)


def disc() -> Cutout:
    y, x = torch.meshgrid(torch.arange(96), torch.arange(96), indexing="ij")
    return Cutout(torch.full((96, 96, 3), 0.6), ((x - 48) ** 2 + (y - 48) ** 2 < 30**2).float())


def ball() -> Any:
    mesh = meshes.blob(2)
    return mesh.with_(uvs=(mesh.vertices[:, :2] * 0.4 + 0.5).clamp(0, 1))


def views() -> Views:
    return Views(torch.full((3, 64, 64, 3), 0.4), VIEW_SETS["minimal"])


def seen_in_part() -> Atlas:
    seen = torch.zeros(64, 64, dtype=torch.bool)
    seen[:, :32] = True
    return Atlas(torch.full((64, 64, 3), 0.5), seen)


def delit(host: TorchHost, store: ModelStore) -> torch.Tensor:
    """With the text encoder, as in a first run."""
    for kept in store.folder("delight").glob("empty_prompt.*"):
        kept.unlink()
    return delight.delight(disc(), PRESET, host, store)


STAGES: dict[str, Stage] = {
    "shape": lambda host, store: shape.generate_shape(disc(), PRESET, host, store),
    "delight": delit,
    "paint": lambda host, store: paint.paint_views(ball(), disc(), PRESET, host, store),
    "bake": lambda host, store: bake.bake(ball(), views(), PRESET, host),
    "inpaint": lambda host, store: inpaint.inpaint(ball(), seen_in_part(), host),
}
PHASES = {
    "shape": {"condition", "sample", "decode"}, "delight": {"delight"}, "bake": {"bake"}, "inpaint": {"inpaint"},
    "paint": {"normals", "positions", "paint"},
}  # fmt: skip
"""The phases of each stage that allocate memory on the device."""


class Phases(TorchHost):
    """Records which allocations belong to which phase."""

    spans: list[tuple[str, int, int]]

    def phase(self, name: str) -> Any:
        outer = super().phase(name)
        spans = self.__dict__.setdefault("spans", [])

        class Spanned:
            def __enter__(self) -> None:
                self.start = ledger.allocations
                outer.__enter__()

            def __exit__(self, *error: Any) -> Any:
                spans.append((name, self.start, ledger.allocations))
                return outer.__exit__(*error)

        return Spanned()


def allocations(stage: str, device: torch.device, store: ModelStore, residency: Residency) -> list[int]:
    """The numbers of some allocations of a run.

    They are the first, middle and last one of each phase; with streaming only the middle one. The first and last one
    of the run are added, and the first and last one outside of any phase.
    """
    host = Phases(device, torch.float32, residency)
    before = ledger.allocations
    STAGES[stage](host, store)
    spans = {name: (start - before, stop - before) for name, start, stop in reversed(host.spans) if stop > start}
    assert spans.keys() == PHASES[stage]
    middles = {(start + stop) // 2 + 1 for start, stop in spans.values()}
    ends = {index for start, stop in spans.values() for index in (start + 1, stop)}
    total = ledger.allocations - before
    inside = {index for _, start, stop in host.spans for index in range(start - before + 1, stop - before + 1)}
    beside = [index for index in range(1, total + 1) if index not in inside]
    chosen = middles if residency == "stream" else middles | ends
    return sorted(chosen | {1, total, *beside[:1], *beside[-1:]})


@pytest.mark.parametrize("residency", ["free", "stream"])
@pytest.mark.parametrize("stage", list(STAGES))
def test_full_once(stage: str, residency: Residency, device: torch.device, store: ModelStore) -> None:
    """One allocation fails: the stage finishes with a fallback, or its error gives advice."""
    finished = 0
    for number in allocations(stage, device, store, residency):
        host = TorchHost(device, torch.float32, residency)
        with ledger.set(fail_after=number):
            try:
                STAGES[stage](host, store)
                finished += 1
                assert host.notes and host.notes[0].startswith(f"{stage}: little memory: ")
            except OutOfMemory as error:
                text = str(error)
                assert text.split(":")[0] and "wanted free memory." in text, text
                assert "In this order: 1. close" in text
        gc.collect()
        assert ledger.current == 0, f"allocation {number}"
    assert finished or stage in ("bake", "inpaint"), "no quality is given up by this preset"


def test_turbo_painting_full_once(device: torch.device, store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The masks lie on the device while the main UNet runs."""
    preset = PRESET.with_(paint_variant="turbo")
    monkeypatch.setitem(STAGES, "paint", lambda host, store: paint.paint_views(ball(), disc(), preset, host, store))
    test_full_once("paint", "free", device, store)


@pytest.mark.parametrize("stage", list(STAGES))
def test_full_for_good(stage: str, device: torch.device, store: ModelStore) -> None:
    """A device that is too small although the plan fits: one clear error, and nothing stays there."""

    class Wrong(TorchHost):
        def make_room(self, wanted_bytes: int) -> int | None:
            return None

    host = Wrong(device, torch.float32)
    with ledger.set(cap=20_000), pytest.raises(OutOfMemory, match="counted:0 is full") as caught:
        STAGES[stage](host, store)
    assert "wanted free memory" in str(caught.value)


@pytest.mark.parametrize("stage", list(STAGES))
def test_too_small_is_refused_before_anything_is_loaded(stage: str, device: torch.device, store: ModelStore) -> None:
    host = TorchHost(device, torch.float32)
    before = ledger.allocations
    with ledger.set(cap=100 * 2**20), pytest.raises(OutOfMemory, match=r"0\.10 GiB of the device are free"):
        STAGES[stage](host, store)
    assert ledger.allocations == before


def test_a_turbo_shape_has_no_halves_to_part(device: torch.device, store: ModelStore) -> None:
    """It has learned guidance, so the first fallback is one that helps."""
    host = TorchHost(device, torch.float32)
    with ledger.set(fail_after=100):
        shape.generate_shape(disc(), PRESET.with_(variant="v2-0-turbo"), host, store)
    assert host.notes == ["shape: little memory: 2,000 points per chunk"]


def test_a_whole_texture_needs_nothing(device: torch.device) -> None:
    host, atlas = TorchHost(device, torch.float32), Atlas(torch.rand(64, 64, 3), torch.ones(64, 64, dtype=torch.bool))
    with ledger.set(cap=0):
        assert inpaint.inpaint(ball(), atlas, host).texture is atlas.texture


def test_smaller_tiles_lower_what_is_planned_for_the_views(device: torch.device, store: ModelStore) -> None:
    model, host = open_paint(store.folder("paint"), torch.float32), TorchHost(device, torch.float32)
    whole, tiled = (
        {need.key: need.resident_bytes for need in paint._needs(model, host, PRESET.with_(vae_tile_px=tile_px))}
        for tile_px in (512, 256)
    )
    assert {key for key in whole if tiled[key] < whole[key]} == {model.vae.key}


LOWER: dict[str, Any] = {
    "cfg_together": False, "points_per_chunk": 1000, "octree": 16, "logits_on_host": True, "vae_slicing": True,
    "vae_tile_px": 128, "views": "minimal", "view_by_view": True, "render_px": 64, "texture_px": 64,
    "decode": "sparse",
}  # fmt: skip
"""The lowest value of everything that a need can name, except the variant, which changes the model."""
HIGH = PRESETS["8 GB Full"].with_(allow_lossy=True, logits_on_host=False, vae_slicing=False, decode="dense")


def needs_of(store: ModelStore) -> dict[str, Needs]:
    host, full = TorchHost(torch.device("cpu"), torch.float32), seen_in_part()
    models = {
        "shape": open_shape(store.folder("shape/v2-0"), torch.float32),
        "delight": open_delight(store.folder("delight"), torch.float32),
        "paint": open_paint(store.folder("paint"), torch.float32),
        "turbo paint": open_turbo_paint(store.folder("paint/v2-0-turbo"), store.folder("paint_vae"), torch.float32),
    }
    return {
        **{name: partial(module._needs, models[name], host)
           for name, module in (("shape", shape), ("delight", delight), ("paint", paint), ("turbo paint", paint))},
        "bake": partial(bake._needs, host), "inpaint": partial(inpaint._needs, ball(), full, host),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("stage", "fallbacks"),
    [
        ("shape", [0, 1, 3, 4, 5, 6]), ("delight", [3, 4]), ("paint", [0, 2, 3, 4, 7, 8, 9]), ("bake", [7]),
        ("inpaint", []), ("turbo paint", [2, 3, 4, 7, 8, 9]),
    ],
)  # fmt: skip
def test_the_fallbacks_of_each_stage(stage: str, fallbacks: list[int], store: ModelStore) -> None:
    found = [attempt.changes[-1] for attempt in attempts(HIGH, needs_of(store)[stage]) if attempt.changes]
    assert found == [FALLBACKS[index].text for index in fallbacks]


@pytest.mark.parametrize("stage", [*STAGES, "turbo paint"])
def test_a_need_names_what_lowers_it_and_nothing_else(stage: str, store: ModelStore) -> None:
    """The size of a texture is an exception: inpaint gets the texture as it is."""
    needs = needs_of(store)[stage]
    for value, low in LOWER.items():
        for before, after in zip(needs(HIGH), needs(HIGH.with_(**{value: low})), strict=True):
            named = value in before.lowered_by and (stage, value) != ("inpaint", "texture_px")
            assert (after.activation_bytes < before.activation_bytes) == named, (before.label, value)
            assert before.lowered_by <= {*LOWER, "variant"}


def sheet(cells: int) -> Mesh:
    """A square whose texture has no gaps."""
    y, x = torch.meshgrid(*[torch.linspace(0, 1, cells + 1)] * 2, indexing="ij")
    uvs = torch.stack([x, y], dim=2).view(-1, 2)
    corner = torch.arange(cells * (cells + 1)).view(cells, cells + 1)[:, :-1].reshape(-1, 1)
    one, other = torch.tensor([0, 1, cells + 2]), torch.tensor([0, cells + 2, cells + 1])
    return Mesh(torch.cat([uvs, uvs[:, :1] * 0], dim=1), torch.cat([corner + one, corner + other]), uvs=uvs)


@pytest.mark.parametrize(("size_px", "cells"), [(1024, 20), (1024, 300), (2048, 20)])
def test_the_budget_knows_what_filling_a_texture_takes(size_px: int, cells: int, device: torch.device) -> None:
    """Never less than it takes, and at most a fifth or 16 MiB more, for any size of texture and number of faces."""
    mesh = sheet(cells)
    seen = torch.zeros(size_px, size_px, dtype=torch.bool)
    seen[:, ::2] = True
    atlas, host = Atlas(torch.full((size_px, size_px, 3), 0.5), seen), TorchHost(device, torch.float32)
    with ledger.set():
        inpaint.inpaint(mesh, atlas, host)
        peak = ledger.peak
    (need,) = inpaint._needs(mesh, atlas, host, PRESET)
    over = need.resident_bytes - MARGIN_BYTES - peak
    assert 0 <= over <= max(0.2 * peak, 16 * 2**20), f"{peak / 2**20:.1f} MiB, {over / 2**20:.1f} more planned"


@pytest.mark.parametrize(("texture_px", "render_px"), [(512, 64), (64, 512), (384, 384)])
def test_the_budget_knows_what_baking_takes(
    texture_px: int, render_px: int, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With small chunks, so that texels and pixels count; the mesh is small and fills the pictures."""
    for module in (rasterize, project):
        monkeypatch.setattr(module, "PIXELS_PER_CHUNK", 1 << 12)
    monkeypatch.setattr(rasterize, "_ROWS_PER_CHUNK", 1 << 12)
    monkeypatch.setattr(bake, "CHUNK_BYTES", 2**20)
    preset = PRESET.with_(texture_px=texture_px, render_px=render_px, bake="upstream")
    host = TorchHost(device, torch.float32)
    with ledger.set():
        bake.bake(ball(), views(), preset, host)
        peak = ledger.peak
    (need,) = bake._needs(host, preset)
    over = need.resident_bytes - MARGIN_BYTES - peak
    assert 0 <= over <= 0.3 * peak, f"{peak / 2**20:.1f} MiB, {over / 2**20:.1f} more planned"


@pytest.mark.parametrize(("texture_px", "render_px", "most_mib"), [(2048, 64, 200), (64, 2048, 120), (1024, 1024, 70)])
def test_the_budget_knows_what_baking_texels_takes(
    texture_px: int, render_px: int, most_mib: int, device: torch.device
) -> None:
    """The sum of both never takes more than is planned, however large the texture is."""
    preset, host = PRESET.with_(texture_px=texture_px, render_px=render_px), TorchHost(device, torch.float32)
    with ledger.set():
        bake.bake(ball(), views(), preset, host)
        peak = ledger.peak
    (need,) = bake._needs(host, preset)
    assert peak <= need.resident_bytes - MARGIN_BYTES <= most_mib * 2**20, f"{peak / 2**20:.1f} MiB"


@pytest.mark.parametrize("stage", list(STAGES))
@pytest.mark.parametrize("how", ["error", "cancel"])
def test_errors_and_cancels_leave_nothing(stage: str, how: str, device: torch.device, store: ModelStore) -> None:
    """At the first report of each stage, with the traceback still alive."""

    class Breaks(TorchHost):
        def progress(self, done: int, total: int, preview: Any = None) -> None:
            raise Cancelled("by the test") if how == "cancel" else RuntimeError("by the test")

    with pytest.raises(Cancelled if how == "cancel" else RuntimeError, match="by the test"):
        STAGES[stage](Breaks(device, torch.float32), store)


def test_whole_runs_leave_nothing() -> None:
    """One run in each residency, beside the hundred of benchmarks/leaks.py, which also watches RAM."""
    import leaks

    found = json.loads((BENCHMARKS / "results" / "leaks.json").read_text())
    assert leaks.measure(3)["bytes_left_on_the_device"] == found["bytes_left_on_the_device"] == 0
    assert found["runs"] >= 100 and found["rss_slope_percent_per_100_runs"] < 1


@pytest.mark.parametrize(
    ("stage", "changes"),
    [*((stage, {}) for stage in STAGES), ("paint", {"paint_variant": "turbo"}), ("bake", {"bake": "upstream"})],
)
def test_a_stage_reads_only_its_values(
    stage: str, changes: dict[str, str], device: torch.device, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With room for all, and on a full device, where every fallback is tried and advice is given."""

    class Wrong(TorchHost):
        def make_room(self, wanted_bytes: int) -> int | None:
            return None

    preset = PRESET.with_(**changes)
    for allow_lossy in (False, True):
        watched = watch(preset.with_(allow_lossy=allow_lossy))
        monkeypatch.setitem(globals(), "PRESET", watched)
        STAGES[stage](TorchHost(device, torch.float32), store)
        with ledger.set(cap=20_000), pytest.raises(OutOfMemory):
            STAGES[stage](Wrong(device, torch.float32), store)
    assert watched.read <= STAGE_VALUES.get(stage, frozenset())
