"""The options of Preset Custom that change how something is computed: effect and refusal."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from hosts import RecordingHost
from test_exact_networks import EXACT, flat_picture, picture

from lowvram_core.errors import BadInput, MissingDependency
from lowvram_core.files.store import ModelStore
from lowvram_core.lending.halves import in_halves
from lowvram_core.networks.attention import choose_attention, set_attention
from lowvram_core.networks.diffusers_folders import load_vae
from lowvram_core.networks.paint import open_paint
from lowvram_core.networks.shape import open_shape
from lowvram_core.networks.vae import set_slicing
from lowvram_core.pictures.convert import cutout_from_rgba, image_from_pil
from lowvram_core.presets import Preset
from lowvram_core.stages import delight, paint, shape
from lowvram_core.types import Mesh

pytestmark = pytest.mark.usefixtures("small_views")
SMALL = EXACT.with_(delight_steps=2, paint_steps=2, shape_steps=4, octree=16, render_px=64, views="minimal")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    import meshes

    blob = meshes.blob(2)
    return blob.with_(uvs=(blob.vertices[:, :2] * 0.4 + 0.5).clamp(0, 1))


def painted(mesh: Mesh, preset: Preset, store: ModelStore) -> torch.Tensor:
    return paint.paint_views(mesh, image_from_pil(flat_picture()), preset, RecordingHost(), store).images


def test_auto_is_fused_where_there_is_a_fused_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_attention("auto", CPU, torch.float32) == "fused"
    monkeypatch.setattr("lowvram_core.networks.attention.has_fused_kernel", lambda *given: False)
    assert choose_attention("auto", CPU, torch.float32) == "sliced"
    assert choose_attention("fused", CPU, torch.float32) == "fused", "a choice is a choice"


@pytest.mark.parametrize("count", [6, 7])
def test_the_kernels_are_asked_for_on_every_torch(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """SDPAParams has one argument more since torch 2.5."""

    def make(*given: Any) -> tuple[Any, ...]:
        if len(given) != count:
            raise TypeError("incompatible constructor arguments")
        return given

    zeros = torch.zeros
    monkeypatch.setattr(torch, "zeros", lambda *shape, device, dtype: zeros(*shape, dtype=dtype))
    monkeypatch.setattr(torch.backends.cuda, "SDPAParams", make)
    for kernels in ("flash", "efficient", "neither"):
        monkeypatch.setattr(torch.backends.cuda, "can_use_flash_attention", lambda params, k=kernels: k == "flash")
        monkeypatch.setattr(
            torch.backends.cuda, "can_use_efficient_attention", lambda params, k=kernels: k == "efficient"
        )
        wanted = "sliced" if kernels == "neither" else "fused"
        assert choose_attention("auto", torch.device("cuda"), torch.float16) == wanted


@pytest.mark.parametrize("shortcut", ["skip_last_step", "keys_once", "logits_on_host"])
def test_the_shape_is_the_same_without_a_shortcut(store: ModelStore, shortcut: str) -> None:
    cutout, chosen = cutout_from_rgba(picture()), SMALL.with_(octree=24, points_per_chunk=2000)
    host, other = RecordingHost(), RecordingHost()
    short = shape.generate_shape(cutout, chosen, host, store)
    long = shape.generate_shape(cutout, chosen.with_(**{shortcut: False}), other, store)
    more = other.reports.count(("sample", 4, 4)) - host.reports.count(("sample", 4, 4))
    assert more == (shortcut == "skip_last_step"), "passes of the network"
    assert torch.equal(short.vertices, long.vertices) and torch.equal(short.faces, long.faces)


@pytest.mark.parametrize("together", [True, False])
def test_the_views_are_the_same_when_the_reference_is_read_at_every_step(
    mesh: Mesh, store: ModelStore, together: bool
) -> None:
    chosen, host = SMALL.with_(cfg_together=together), RecordingHost()
    anew = chosen.with_(reference_once=False)
    images = paint.paint_views(mesh, image_from_pil(flat_picture()), anew, host, store).images
    assert torch.equal(images, painted(mesh, chosen, store))
    assert host.most_out == 2 and not host.out, "both UNets were there"


def test_the_unguided_half_does_not_need_the_reference(mesh: Mesh, store: ModelStore) -> None:
    chosen = SMALL.with_(cfg_together=False)
    whole = painted(mesh, chosen.with_(skip_unguided_reference=False), store)
    assert float((painted(mesh, chosen, store) - whole).abs().max()) < 1.5 / 255


def test_xformers_is_refused_before_anything_is_lent(mesh: Mesh, store: ModelStore) -> None:
    host, chosen = RecordingHost(), SMALL.with_(attention="xformers")
    for call in (
        lambda: delight.delight(cutout_from_rgba(picture()), chosen, host, store),
        lambda: paint.paint_views(mesh, image_from_pil(flat_picture()), chosen, host, store),
    ):
        with pytest.raises(BadInput, match=r"attention: xformers on cpu; wanted an NVIDIA card"):
            call()
    assert host.borrowed == []
    with pytest.raises(MissingDependency, match="'xformers' could not be imported"):
        choose_attention("xformers", torch.device("cuda"), torch.float16)


def test_sliced_attention_is_the_same_within_a_kernels_rounding(models: Path) -> None:
    from lowvram_core.networks.delight import open_delight

    unet = open_delight(models / "hunyuan3d-delight-v2-0", torch.float32).unet.load()
    torch.manual_seed(0)
    given = torch.randn(1, 8, 32, 32), torch.tensor(5)
    text = torch.randn(1, 77, 32)
    with torch.inference_mode():
        results = []
        for chosen in ("fused", "sliced", "fused"):
            set_attention(unet, chosen)
            results.append(unet(*given, encoder_hidden_states=text, return_dict=False)[0])
    assert torch.equal(results[0], results[2]), "back as it was"
    assert float((results[1] - results[0]).abs().max() / results[0].abs().max()) <= 1e-5


def test_one_view_at_a_time_paints_each_as_if_alone(
    mesh: Mesh, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The views do not attend to each other: one pass for each view."""
    seen: list[int] = []
    original = paint._Halves._pass

    def spied(self: Any, latents: Any, timestep: Any, views: slice, half: slice) -> Any:
        seen.append(views.stop - views.start)
        return original(self, latents, timestep, views, half)

    monkeypatch.setattr(paint._Halves, "_pass", spied)
    apart = painted(mesh, SMALL.with_(view_by_view=True), store)
    assert set(seen) == {1} and len(seen) == 2 * 3
    together = painted(mesh, SMALL, store)
    assert apart.shape == together.shape and not torch.equal(apart, together)


@pytest.mark.parametrize("guidance", [0.0, 1.0, 3.5])
def test_paint_guidance_is_how_far_the_views_follow_the_picture(
    mesh: Mesh, store: ModelStore, monkeypatch: pytest.MonkeyPatch, guidance: float
) -> None:
    """One step with these halves: 0 is the half without the picture, 1 the half with it, and more goes beyond."""
    halves = torch.zeros(3, 4, 16, 16), torch.ones(3, 4, 16, 16)
    steps: list[torch.Tensor] = []
    original = paint.next_latents

    def spied(scheduler: Any, noise: torch.Tensor, *rest: Any) -> Any:
        steps.append(noise)
        return original(scheduler, noise, *rest)

    monkeypatch.setattr(paint._Halves, "run", lambda *given, **named: halves)
    monkeypatch.setattr(paint, "next_latents", spied)
    painted(mesh, SMALL.with_(paint_guidance=guidance), store)
    assert steps and all(torch.equal(noise, torch.full_like(noise, guidance)) for noise in steps)


def test_tiles_of_512_leave_pictures_whole_and_smaller_ones_do_not(models: Path) -> None:
    vae: Any = load_vae(models / "hunyuan3d-paint-v2-0" / "vae", torch.float32)
    torch.manual_seed(0)
    latents = torch.randn(1, 4, 64, 64)
    with torch.inference_mode():
        decoded = []
        for preset in (SMALL.with_(vae_tiling=False), SMALL.with_(vae_tiling=True),
                       SMALL.with_(vae_tiling=True, vae_tile_px=256)):  # fmt: skip
            set_slicing(vae, preset)
            decoded.append(vae.decode(latents).sample)
    assert torch.equal(decoded[0], decoded[1]) and not torch.equal(decoded[0], decoded[2])
    assert decoded[2].shape == decoded[0].shape


@pytest.mark.parametrize("value", [64, 513])
def test_tiles_have_a_range(value: int) -> None:
    with pytest.raises(BadInput, match="vae_tile_px"):
        SMALL.with_(vae_tile_px=value)


def made(store: ModelStore, preset: Preset, host: RecordingHost) -> torch.Tensor:
    return shape.generate_shape(cutout_from_rgba(picture()), preset, host, store, seed=3).vertices


def test_compiled_is_the_same_network(store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network is traced but runs on torch's own kernels, so that the test needs no compiler."""
    compiled, compile_it = [], torch.compile
    monkeypatch.setattr(torch, "compile", lambda dit: compiled.append(dit) or compile_it(dit, backend="eager"))
    host = RecordingHost()
    assert torch.equal(made(store, SMALL.with_(compile_shape=True), host), made(store, SMALL, RecordingHost()))
    assert len(compiled) == 1 and host.notes == []


def test_without_a_compiler_it_runs_as_it_is_and_says_so(store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_compiler(dit: Any) -> Any:
        def fail(*args: Any, **kwargs: Any) -> Any:
            raise torch._dynamo.exc.TorchDynamoException("no compiler\nat length")

        return fail

    monkeypatch.setattr(torch, "compile", no_compiler)
    host = RecordingHost()
    assert torch.equal(made(store, SMALL.with_(compile_shape=True), host), made(store, SMALL, RecordingHost()))
    assert host.notes == ["shape: not compiled (no compiler)"]


class Block(torch.nn.Module):
    """Remembers the first dimensions of what it was called with."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.met = torch.nn.Linear(3, 3), []

    def forward(self, x: Any, table: Any, *, words: Any = None) -> Any:
        """[N,3], and a dict of tensors with as many rows as there are words."""
        self.met.append((len(x), len(table), None if words is None else len(words["t"])))
        return self.linear(x) + table.sum(), None if words is None else words["t"] * 2


def network() -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(Block(), torch.nn.Identity())


def test_blocks_see_one_half_at_a_time_and_are_themselves_again() -> None:
    net, table = network(), torch.ones(3)
    x, words = torch.randn(6, 3), {"t": torch.randn(2, 4), "kept": torch.ones(3)}
    plain = net[0](x, table, words=words)
    with in_halves(net, r"\d", ("x", "words.t", "text")):
        halves = net[0](x, table, words=words)
        assert net[0].met[1:] == [(3, 3, 1), (3, 3, 1)]
    for one, other in zip(plain, halves, strict=True):
        assert torch.allclose(one, other, atol=1e-6)
    net[0](x, table, words=words)
    assert net[0].met[-1] == (6, 3, 2)


@pytest.mark.parametrize("as_keyword", [False, True])
def test_a_tensor_that_is_no_batch_stays_whole(as_keyword: bool) -> None:
    """A table of positions with an even number of rows."""
    net, x, table = network(), torch.randn(2, 3), torch.randn(4, 3)
    words = {"t": torch.ones(2)}
    plain = net[0](x, table, words=words)[0]
    with in_halves(net, "0", ("x", "words")):
        halves = (net[0](x=x, table=table, words=words) if as_keyword else net[0](x, table, words=words))[0]
    assert net[0].met[1:] == [(1, 4, 1)] * 2
    assert torch.allclose(plain, halves, atol=1e-6)


@pytest.mark.parametrize(("rows", "names"), [(3, ("x",)), (2, ("y",)), (2, ())])
def test_a_batch_without_two_halves_or_without_a_name_is_an_error(rows: int, names: tuple[str, ...]) -> None:
    net = network()
    with in_halves(net, "0", names), pytest.raises(ValueError, match=r"halves: .*; wanted "):
        net[0](torch.randn(rows, 3), torch.ones(3))


@pytest.mark.parametrize(("part", "folder"), [("dit", tiny.VARIANTS["v2-0"]), ("main", "hunyuan3d-paint-v2-0")])
def test_the_blocks_take_the_arguments_that_are_named(models: Path, part: str, folder: str) -> None:
    """All names are met, and every block has one of them."""
    opened: Any = (open_shape if part == "dit" else open_paint)(models / folder, torch.float32)
    component = getattr(opened, part)
    blocks = [block for name, block in component.load().named_modules() if re.fullmatch(component.blocks, name)]
    taken = [set(inspect.signature(block.forward).parameters) for block in blocks]
    named = {name.partition(".")[0] for name in component.batched}
    assert blocks and named <= set.union(*taken) and all(arguments & named for arguments in taken)
