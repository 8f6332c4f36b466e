"""The plan for a stage, without a device: what fits, and the order of the fallbacks."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import pytest
import torch
from hosts import RecordingHost

from lowvram_core.errors import OutOfMemory
from lowvram_core.fitting import ladder
from lowvram_core.fitting.budget import MARGIN_BYTES, MIB, Need, Needs, plain_need, tiled_mib
from lowvram_core.fitting.fallbacks import advice, attempts, fit
from lowvram_core.fitting.ladder import fitted
from lowvram_core.presets import PRESETS, Preset

FULL = PRESETS["8 GB Full"]
LOSSY = FULL.with_(allow_lossy=True)
SMALL = Need("small", "small network", 100 * MIB, 5 * MIB, 20 * MIB)
GUIDED, LARGE = "guidance halves one after the other", "large network streamed"


def lowered(need: Need, *values: str) -> Need:
    """The need, with the names of the preset values that lower it."""
    return replace(need, lowered_by=frozenset(values))


def needs(preset: Preset) -> list[Need]:
    """A small network, and a large one whose activations halve without CFG together."""
    activations = 400 * MIB if preset.cfg_together else 200 * MIB
    return [SMALL, lowered(Need("large", "large network", 2000 * MIB, 50 * MIB, activations), "cfg_together")]


def shape_needs(preset: Preset) -> list[Need]:
    """Those, and a decoder whose activations are those of a chunk of points."""
    decoder = Need("decoder", "decoder", 50 * MIB, 5 * MIB, preset.points_per_chunk // 100 * MIB)
    return [*needs(preset), lowered(decoder, "points_per_chunk", "octree", "variant")]


def distilled_needs(preset: Preset) -> list[Need]:
    """Those of a network that has learned guidance: it has no halves."""
    return shape_needs(preset.with_(cfg_together=False))


def delight_needs(preset: Preset) -> list[Need]:
    """The small network as a VAE whose tiles can be smaller."""
    return [lowered(SMALL, "vae_tile_px")]


def paint_needs(preset: Preset) -> list[Need]:
    """A renderer, the two networks, and a VAE that takes all pictures at once or each by itself."""
    vae = Need("vae", "VAE", 50 * MIB, 5 * MIB, 80 * MIB if preset.vae_slicing else 180 * MIB)
    _, large = needs(preset)
    return [
        plain_need("renderer", MIB, {"render_px"}), SMALL, lowered(vae, "vae_slicing", "vae_tile_px", "views"),
        lowered(large, "cfg_together", "views", "view_by_view"),
    ]  # fmt: skip


def bake_needs(preset: Preset) -> list[Need]:
    """No network."""
    return [plain_need("bake", preset.render_px**2, {"render_px", "texture_px"})]


def inpaint_needs(preset: Preset) -> list[Need]:
    """No network, and nothing that a fallback changes."""
    return [plain_need("raster", MIB, {"texture_px"})]


@dataclass
class Device(RecordingHost):
    """A host whose device has so many bytes free."""

    free: int = 0
    streamed: list[frozenset[str]] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)

    def make_room(self, wanted_bytes: int) -> int | None:
        self.asked.append(wanted_bytes)
        return self.free

    @contextmanager
    def streaming(self, keys: object, *, ahead: bool = True) -> Iterator[None]:
        self.streamed.append(frozenset(keys))  # type: ignore[call-overload]
        yield


def planned(free_mib: int, preset: Preset = FULL) -> tuple[Device, Preset]:
    """The host after a stage on a device with so much free, and the settings that it ran at."""
    host, ran = Device(free=free_mib * MIB), []
    fitted("paint", preset, host, needs, ran.append)
    return host, ran[0]


def test_a_need_is_its_weights_its_activations_and_a_margin() -> None:
    assert SMALL.resident_bytes == 120 * MIB + MARGIN_BYTES
    assert SMALL.streamed_bytes == 30 * MIB + MARGIN_BYTES
    assert plain_need("bake", 7).streamed_bytes == plain_need("bake", 7).resident_bytes == 7 + MARGIN_BYTES


@pytest.mark.parametrize(("tile_px", "mib"), [(512, 487.9), (448, 375.4), (384, 277.9), (256, 129.2), (128, 40.2)])
def test_smaller_tiles_are_planned_with_less(tile_px: int, mib: float) -> None:
    """What six views take beside the weights, computed for the published sizes; else it were no use to advise it."""
    preset = FULL.with_(vae_tile_px=tile_px)
    assert abs(tiled_mib(486.0, preset) - mib) <= 7
    assert tiled_mib(486.0, preset.with_(vae_tiling=False)) == 486.0


@pytest.mark.parametrize(
    ("free_mib", "together", "streamed", "changes"),
    [
        (2560, True, set(), []),
        (2559, False, set(), ["guidance halves one after the other"]),
        (2360, False, set(), ["guidance halves one after the other"]),
        (2359, True, {"large"}, ["weights streamed"]),
        (660, True, {"large"}, ["weights streamed"]),
        (659, False, {"large"}, ["guidance halves one after the other", "weights streamed"]),
        (460, False, {"large"}, ["guidance halves one after the other", "weights streamed"]),
    ],
)
def test_what_costs_nothing_comes_first(free_mib: int, together: bool, streamed: set[str], changes: list[str]) -> None:
    """Exact to the MiB. The order is: whole, then guidance halves, then streaming of what does not fit.

    A fallback that a later one has made unnecessary is undone.
    """
    host, ran = planned(free_mib)
    assert (ran.cfg_together, set(host.streamed[0])) == (together, streamed)
    assert host.notes == ([f"paint: little memory: {', '.join(changes)}"] if changes else [])
    assert ran.views == FULL.views and ran.render_px == FULL.render_px
    assert host.asked[0] == 2560 * MIB, "other models are moved away for the settings as asked"


@pytest.mark.parametrize("preset", [FULL, LOSSY])
def test_what_fits_in_no_way_is_refused_before_it_is_tried(preset: Preset) -> None:
    host = Device(free=400 * MIB)
    with pytest.raises(OutOfMemory) as caught:
        fitted("paint", preset, host, paint_needs, lambda preset: pytest.fail("nothing may be loaded"))
    text = str(caught.value)
    assert text.startswith("paint: 0.39 GiB of the device are free, and the large network takes at least 0.40 GiB;")
    assert "In this order: 1. close other programs" in text and ("allow lossy" in text) == (not preset.allow_lossy)


@pytest.mark.parametrize(
    ("needs", "has_weights", "lossy"),
    [
        (shape_needs, True, ["allow lossy", "mini variant"]),
        (delight_needs, True, ["vae_tile_px"]),
        (paint_needs, True, ["allow lossy", "fewer views", "vae_tile_px", "view_by_view", "render at 1024 px"]),
        (bake_needs, False, ["allow lossy", "render at 1024 px", "texture at 1024 px"]),
        (inpaint_needs, False, ["texture at 1024 px"]),
    ],
)
def test_advice_follows_the_needs_and_what_costs_no_quality_comes_first(
    needs: Needs, has_weights: bool, lossy: list[str]
) -> None:
    """Streaming is mentioned only where there are weights, and as already done."""
    text = advice(FULL, needs(FULL))
    first, *rest = re.findall(r"\d\. ([^;.]+)", text)
    assert first.startswith("close other programs") and len(rest) == len(lossy)
    assert all(words in entry for words, entry in zip(lossy, rest, strict=True)), rest
    assert ("streamed already, as Preset 2 GB does" in text) == has_weights
    fast = PRESETS["8 GB Fast"].with_(vae_tile_px=256, view_by_view=True)
    assert "2." not in advice(fast, needs(fast))


def test_a_streaming_preset_streams_everything() -> None:
    host, ran = planned(4000, PRESETS["2 GB"])
    assert set(host.streamed[0]) == {"small", "large"} and host.notes == [] and ran is PRESETS["2 GB"]
    assert host.asked == [460 * MIB], "no more of other models is moved away than streaming takes"


@pytest.mark.parametrize(
    ("needs", "words"), [(delight_needs, "tiles"), (paint_needs, "tiles"), (paint_needs, "itself")]
)
def test_what_is_done_already_is_not_advised(needs: Needs, words: str) -> None:
    for preset, is_left in ((FULL, True), (FULL.with_(vae_tile_px=320), True),
                            (FULL.with_(vae_tile_px=256, view_by_view=True), False)):  # fmt: skip
        assert (words in advice(preset, needs(preset))) == is_left


STREAMED = ["weights streamed", "one layer's weights at a time"]


def fallbacks(preset: Preset, needs: Needs) -> list[str]:
    return [attempt.changes[-1] for attempt in attempts(preset, needs) if attempt.changes]


def test_the_order_of_the_fallbacks() -> None:
    assert fallbacks(LOSSY, shape_needs) == [GUIDED, "2,000 points per chunk", *STREAMED, "octree 128"]
    assert fallbacks(LOSSY.with_(vae_slicing=False), paint_needs) == [
        GUIDED, "VAE picture by picture", *STREAMED, "1024 px renders", "views fast", "views minimal",
    ]  # fmt: skip
    assert fallbacks(LOSSY, delight_needs) == STREAMED and fallbacks(LOSSY, bake_needs) == ["1024 px renders"]
    assert fallbacks(LOSSY, inpaint_needs) == []


def test_an_exact_fallback_that_saves_nothing_is_left_out() -> None:
    """A network that has learned guidance has no halves, and one picture cannot be sliced. Lossy fallbacks stay."""
    assert fallbacks(LOSSY, distilled_needs) == ["2,000 points per chunk", *STREAMED, "octree 128"]
    one_by_one = LOSSY.with_(cfg_together=False, vae_slicing=False)
    assert fallbacks(one_by_one, paint_needs)[0] == "VAE picture by picture"
    assert fallbacks(FULL, lambda preset: [lowered(SMALL, "cfg_together")]) == STREAMED
    assert fallbacks(LOSSY.with_(vae_slicing=False), lambda preset: [lowered(SMALL, "vae_slicing")]) == STREAMED
    assert fallbacks(PRESETS["2 GB"], delight_needs) == STREAMED[1:]


def test_a_value_that_no_need_names_is_left_alone() -> None:
    """Even if it would change what is needed."""

    def unnamed(preset: Preset) -> list[Need]:
        return [lowered(need) for need in paint_needs(preset)]

    assert fallbacks(LOSSY.with_(vae_slicing=False), unnamed) == STREAMED
    assert "2." not in advice(FULL, unnamed(FULL))


def test_quality_is_given_up_only_where_the_preset_allows_it() -> None:
    assert fallbacks(FULL, bake_needs) == [] and "octree 128" not in fallbacks(FULL, shape_needs)
    fewer = [attempt for attempt in attempts(LOSSY, paint_needs)][-1].preset
    assert (fewer.views, fewer.render_px, fewer.cfg_together) == ("minimal", 1024, False)


def test_prefetch_is_given_up_before_any_quality() -> None:
    host, ran = planned(430, LOSSY)
    assert not ran.prefetch and ran.views == LOSSY.views and set(host.streamed[0]) == {"large"}
    assert host.notes == [f"paint: little memory: {GUIDED}, {', '.join(STREAMED)}"]


def test_a_fallback_that_proves_unnecessary_is_undone() -> None:
    """With fewer points the decoder needs less, but it fits without them once the transformer streams."""

    def two_networks(preset: Preset) -> list[Need]:
        decoder = Need("decoder", "decoder", 100 * MIB, 5 * MIB, preset.points_per_chunk // 10 * MIB)
        return [Need("dit", "DiT", 2000 * MIB, 50 * MIB, 100 * MIB), lowered(decoder, "points_per_chunk")]

    host, ran = Device(free=1500 * MIB), []
    fitted("shape", FULL, host, two_networks, ran.append)
    assert host.notes == ["shape: little memory: weights streamed"]
    assert ran[0].points_per_chunk == 8000 and host.streamed == [{"dit"}]


def gridded_needs(preset: Preset) -> list[Need]:
    """A decoder that gathers a grid in RAM: 1 GiB for all points, a quarter of it near the surface."""
    whole = 1024 * MIB * preset.octree**3 // 384**3
    decoder = Need("decoder", "decoder", 50 * MIB, 5 * MIB, 10 * MIB, whole // (1 if preset.decode == "dense" else 4))
    return [lowered(decoder, "octree", "decode")]


@pytest.mark.parametrize("free", [9000 * MIB, None], ids=["GPU", "CPU"])
@pytest.mark.parametrize(
    ("free_ram", "decode", "octree", "said"),
    [(1100, "dense", 384, ""), (900, "sparse", 384, "decoded sparsely"),
     (200, "dense", 128, "octree 128")],
)  # fmt: skip
def test_the_ram_is_planned_too(
    free_ram: int, decode: str, octree: int, said: str, free: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ladder, "free_ram_bytes", lambda: free_ram * MIB)
    host, ran = Device(free=free), []
    fitted("shape", LOSSY.with_(decode="dense", cfg_together=False), host, gridded_needs, ran.append)
    assert (ran[0].decode, ran[0].octree) == (decode, octree)
    assert host.notes == ([f"shape: little memory: {said}"] if said else [])


def test_too_little_ram_is_refused_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ladder, "free_ram_bytes", lambda: 100 * MIB)
    with pytest.raises(OutOfMemory, match=r"0\.10 GiB of the RAM .* decoder takes 0\.25 GiB .* smaller octree"):
        fitted("shape", FULL.with_(decode="dense"), Device(free=9000 * MIB), gridded_needs, pytest.fail)


class Fails:
    """A stage that finds the device full so many times."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.ran: list[Preset] = []

    def __call__(self, preset: Preset) -> str:
        self.ran.append(preset)
        if len(self.ran) <= self.times:
            raise OutOfMemory(f"paint: full, attempt {len(self.ran)}.")
        return "done"


def test_a_device_that_is_full_all_the_same_costs_one_fallback_and_another_run() -> None:
    host, stage = Device(free=9000 * MIB), Fails(2)
    assert fitted("paint", FULL, host, needs, stage) == "done"
    assert [preset.cfg_together for preset in stage.ran] == [True, False, False]
    assert [set(keys) for keys in host.streamed] == [set(), set(), {"small", "large"}]
    assert host.asked[1:] == [2360 * MIB, 460 * MIB], "room for the next run is made before it"


def test_what_streamed_in_part_streams_as_a_whole_next() -> None:
    host, stage = Device(free=1000 * MIB), Fails(1)
    assert fitted("paint", FULL, host, needs, stage) == "done"
    assert [set(keys) for keys in host.streamed] == [{"large"}, {"small", "large"}]


def test_after_the_last_fallback_the_user_gets_advice() -> None:
    host, stage = Device(free=9000 * MIB), Fails(99)
    with pytest.raises(OutOfMemory, match=r"paint: full, attempt 4\. In this order: 1\. close") as caught:
        fitted("paint", FULL, host, needs, stage)
    assert caught.value.__context__ is None and caught.value.__cause__ is None, "no error that holds tensors"


def test_a_device_that_does_not_tell_what_is_free_is_tried() -> None:
    stage, host = Fails(1), RecordingHost(device=torch.device("cpu"))
    assert fitted("paint", FULL, host, needs, stage) == "done"
    assert [preset.cfg_together for preset in stage.ran] == [True, False]


def test_a_device_that_is_full_outside_of_a_phase_costs_a_fallback_too() -> None:
    """There torch's error has not been turned into ours yet."""
    ran: list[Preset] = []

    def stage(preset: Preset) -> str:
        ran.append(preset)
        if preset.cfg_together:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB. GPU 0 has a total capacity of")
        return "done"

    host = Device(free=9000 * MIB)
    assert fitted("paint", FULL, host, needs, stage) == "done"
    assert [preset.cfg_together for preset in ran] == [True, False]
    assert host.notes == [f"paint: little memory: {GUIDED}"]
    with pytest.raises(OutOfMemory) as caught:
        fitted("bake", FULL, host, bake_needs, stage)
    assert str(caught.value).startswith("bake: cpu is full (CUDA out of memory); wanted free memory. In this")


def test_identical_settings_are_not_run_again() -> None:
    host, stage = Device(free=9000 * MIB), Fails(99)
    with pytest.raises(OutOfMemory):
        fitted("shape", PRESETS["16 GB"], host, distilled_needs, stage)
    settings = [(preset.points_per_chunk, preset.octree, preset.prefetch) for preset in stage.ran]
    ran = list(zip(settings, host.streamed, strict=True))
    assert len(ran) == len(set(ran)) == 5 and not any("guidance" in note for note in host.notes)


@pytest.mark.parametrize(
    ("free_mib", "line"),
    [
        (8192, "paint: 2.50 GiB for the large network, 8.00 GiB free"),
        (2400, f"paint: 2.30 GiB for the large network, 2.34 GiB free; {GUIDED}"),
        (1024, f"paint: 0.64 GiB for the large network, 1.00 GiB free; {LARGE}"),
        (512, f"paint: 0.45 GiB for the large network, 0.50 GiB free; {LARGE}, {GUIDED}"),
    ],
)
def test_the_plan_is_one_line_of_the_log(free_mib: int, line: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="lowvram_core"):
        planned(free_mib)
    assert caplog.messages == [line]


def test_the_plan_says_what_streams_by_choice(caplog: pytest.LogCaptureFixture) -> None:
    """Not the renderer of the maps, which has no weights."""
    with caplog.at_level(logging.INFO, logger="lowvram_core"):
        host = Device(free=4096 * MIB)
        fitted("paint", PRESETS["2 GB"], host, lambda preset: [plain_need("renderer", MIB), *needs(preset)], repr)
    streamed = "small network streamed, large network streamed"
    assert caplog.messages == [f"paint: 0.45 GiB for the large network, 4.00 GiB free; {streamed}"]


def test_the_plan_says_where_a_device_does_not_tell_what_is_free(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="lowvram_core"):
        fitted("paint", FULL, RecordingHost(), needs, repr)
        fitted("inpaint", FULL, RecordingHost(), lambda preset: [], repr)
    assert caplog.messages == [
        "paint: 2.50 GiB for the large network, the device does not tell what is free",
        "inpaint: nothing, the device does not tell what is free",
    ]


def test_fit_streams_what_must_and_leaves_the_rest() -> None:
    streaming = next(attempt for attempt in attempts(FULL, needs) if attempt.streamed)
    assert fit(streaming, needs, 9000 * MIB).streamed == frozenset()  # type: ignore[union-attr]
    assert fit(streaming, needs, 500 * MIB).streamed == {"large"}  # type: ignore[union-attr]
    assert fit(streaming, needs, 100 * MIB) is None
