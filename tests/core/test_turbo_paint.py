"""The turbo paint model: masks, passes and results against an independent implementation of what is known of it."""

from __future__ import annotations

import gc
import sys
import threading
from pathlib import Path
from typing import Any

import meshes
import numpy as np
import pytest
import tiny
import torch
import turbo_reference
from diffusers.models.attention_processor import AttnProcessor2_0, SlicedAttnProcessor
from hosts import RecordingHost
from PIL import Image, ImageDraw
from resident import resident_mib
from safetensors.torch import save_file
from torch import Tensor

from lowvram_core.app.torch_host import TorchHost
from lowvram_core.errors import BadCheckpoint, BadInput
from lowvram_core.files.convert import convert_pickles
from lowvram_core.files.manifest import MODELS, needed
from lowvram_core.files.store import ModelStore
from lowvram_core.networks.attention import set_attention
from lowvram_core.networks.position_masks import (
    GRIDS,
    MaskedAttention,
    mask_bytes,
    masked_views,
    position_masks,
    window_means,
)
from lowvram_core.networks.turbo_paint import find_turbo_weights, open_turbo_paint
from lowvram_core.presets import PRESETS, Residency
from lowvram_core.stages import paint
from lowvram_core.types import Mesh

TURBO = PRESETS["8 GB Turbo"].with_(views="minimal", render_px=512, vae_slicing=False, vae_tiling=False)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The standard and the turbo paint model. The turbo one has attention at 32, 16 and 8."""
    root = tmp_path_factory.mktemp("models")
    tiny.make_paint(root)
    tiny.make_turbo_paint(root, **tiny.NO_FINEST_LEVEL)
    return root


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    ring = meshes.torus()
    return ring.with_(uvs=(ring.vertices[:, :2] * 0.4 + 0.5).clamp(0, 1))


@pytest.fixture(scope="module")
def maps(mesh: Mesh) -> tuple[Tensor, Tensor]:
    return paint._geometry(mesh, TURBO.cameras, 512, RecordingHost())


def flat_picture() -> Image.Image:
    flat = Image.new("RGB", (300, 300), (255, 255, 255))
    ImageDraw.Draw(flat).ellipse((40, 40, 260, 260), fill=(200, 80, 20))
    return flat


def as_tensor(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(picture, np.float32) / 255)


@pytest.mark.parametrize("in_place", [True, False])
def test_masks_are_those_that_git_describes(maps: tuple[Tensor, Tensor], in_place: bool) -> None:
    """Bit for bit, with upstream's background in the coarse grids and without; both differ."""
    theirs = turbo_reference.masks_of(maps[1], in_place=in_place)
    ours = position_masks(window_means(maps[1], background_counts=in_place), CPU)
    assert list(ours) == list(theirs) == [3 * grid**2 for grid in GRIDS]
    for tokens, mask in ours.items():
        assert mask.shape == (1, 1, tokens, tokens) and torch.equal(mask[0], theirs[tokens])
        assert bool(mask[0, 0].diagonal().all()), "no row is empty"
        assert 0.05 < float(mask.float().mean()) < 0.7
    other = turbo_reference.masks_of(maps[1], in_place=not in_place)
    assert [torch.equal(theirs[tokens], other[tokens]) for tokens in theirs] == [True, False, False]


def test_the_maps_stay_as_they_are(maps: tuple[Tensor, Tensor]) -> None:
    halves = maps[1].half()
    before = halves.clone()
    window_means(halves)
    assert torch.equal(halves, before)


def test_the_budget_counts_the_masks_bytes(maps: tuple[Tensor, Tensor]) -> None:
    masks = position_masks(window_means(maps[1]), CPU)
    assert mask_bytes(3) == sum(mask.nbytes for mask in masks.values())
    assert mask_bytes(1) == 0 and mask_bytes(6) / 2**20 == pytest.approx(38.4, abs=0.05)


def run_unet(unet: Any, references: Any, positions: Tensor) -> Tensor:
    torch.manual_seed(1)
    count = len(positions)
    latents, conditions = torch.randn(1, count, 4, 32, 32), torch.randn(1, count, 8, 32, 32)
    result: Tensor = unet(
        latents, torch.tensor(494), encoder_hidden_states=unet.unet.learned_text_clip_gen,
        normal_imgs=conditions[:, :, :4], position_imgs=conditions[:, :, 4:],
        camera_info_gen=torch.tensor([[12, 15, 18][:count]]), **references,
    )[0]  # fmt: skip
    return result


@pytest.mark.parametrize("in_place", [True, False])
def test_one_mask_for_all_heads_gives_stock_attentions_bits(
    models: Path, tmp_path: Path, maps: tuple[Tensor, Tensor], in_place: bool
) -> None:
    """At the levels 32, 16 and 8, in one call and in rows; without masks the result is another one."""
    folder = tiny.make_turbo_paint(tmp_path, **tiny.FOUR_LEVELS)
    theirs = turbo_reference.masked_unet(folder, turbo_reference.masks_of(maps[1], in_place=in_place))
    model = open_turbo_paint(folder, models / "hunyuan3d-paint-v2-0", torch.float32)
    torch.manual_seed(0)
    reference = torch.randn(1, 4, 32, 32)
    with torch.inference_mode():
        wanted = run_unet(theirs, {"ref_latents": reference[None], "camera_info_ref": torch.tensor([[0]])}, maps[1])
        unet, references = model.main.load(), {"condition_embed_dict": model.dual.load()(reference)}
        means = window_means(maps[1], background_counts=in_place)
        for given, rows in ((means, False), (means, True), ({}, False)) if in_place else ((means, False),):
            with masked_views(unet, given, CPU, in_rows=rows):
                found = run_unet(unet, references, maps[1])
            assert torch.equal(found, wanted) == bool(given), "without masks the result is another one"


def test_rows_of_queries_are_exact() -> None:
    """The kernel for the CPU computes each row alone, in the same order."""
    from diffusers.models.attention_processor import Attention

    torch.manual_seed(0)
    attn, tokens = Attention(16, heads=2, dim_head=8), torch.randn(1, 1280, 16)
    mask = torch.rand(1, 1, 1280, 1280) < 0.3
    mask |= torch.eye(1280, dtype=torch.bool)
    with torch.inference_mode():
        whole, rows = (MaskedAttention({1280: mask}, None, size)(attn, tokens) for size in (None, 512))
        assert torch.equal(rows, whole)
        assert not torch.equal(whole, AttnProcessor2_0()(attn, tokens))


def test_only_masked_layers_and_only_within() -> None:
    """Finer levels and every other layer keep the processors that were chosen."""
    unet = open_turbo_paint_of_one_level()
    set_attention(unet, "sliced")
    chosen = {name: part.processor for name, part in unet.named_modules() if hasattr(part, "set_processor")}
    between = {name for name in chosen if name.endswith("attn_multiview")}
    assert len(between) == 4 and len(chosen) > 4
    means = {8: torch.zeros(2 * 64, 3, dtype=torch.float16)}
    with pytest.raises(RuntimeError, match="by the test"), masked_views(unet, means, CPU, in_rows=True):
        for name, part in unet.named_modules():
            if name in between:
                assert isinstance(part.processor, MaskedAttention) and part.processor.rows == 512
                assert part.processor.plain is chosen[name]
            elif name in chosen:
                assert part.processor is chosen[name]
        raise RuntimeError("by the test")
    assert all(unet.get_submodule(name).processor is processor for name, processor in chosen.items())
    assert isinstance(next(iter(chosen.values())), SlicedAttnProcessor)


def open_turbo_paint_of_one_level() -> Any:
    from diffusers import UNet2DConditionModel

    from lowvram_core.networks import hy3dgen

    unet = hy3dgen.paint_unet()(UNet2DConditionModel(**tiny.unet_config(4, 1024)))
    del unet.unet_dual
    return unet


def test_turbo_is_what_git_describes(models: Path, store: ModelStore, mesh: Mesh, maps: tuple[Tensor, Tensor]) -> None:
    """Ten steps, bit for bit."""
    folder, vae_folder = models / "hunyuan3d-paint-v2-0-turbo", models / "hunyuan3d-paint-v2-0"
    classes = [paint.camera_class(camera) for camera in TURBO.cameras]
    theirs = turbo_reference.paint_views(folder, vae_folder, flat_picture(), *maps, classes)
    wanted = np.stack([np.asarray(picture) for picture in theirs])
    ours = paint.paint_views(mesh, as_tensor(flat_picture()), TURBO, TorchHost(CPU), store).images
    np.testing.assert_array_equal((ours.numpy() * 255).round().astype(np.uint8), wanted)


def test_streaming_and_masks(store: ModelStore, mesh: Mesh, monkeypatch: pytest.MonkeyPatch, small_views: None) -> None:
    """Streaming changes no bit. Without masks the views are others."""
    preset = TURBO.with_(paint_steps=2)

    def painted(residency: Residency) -> Tensor:
        host = TorchHost(CPU, residency=residency)
        return paint.paint_views(mesh, as_tensor(flat_picture()), preset, host, store).images

    resident = painted("free")
    assert torch.equal(painted("stream"), resident)
    monkeypatch.setattr(paint, "window_means", lambda maps: {})
    assert not torch.equal(painted("free"), resident)


def test_steps_and_previews(store: ModelStore, mesh: Mesh) -> None:
    """paint_steps chooses among LCM's steps; each step shows what it would end with; one component at a time."""
    host = RecordingHost()
    views = paint.paint_views(mesh, torch.rand(64, 64, 3), TURBO.with_(paint_steps=2), host, store)
    assert views.images.shape == (3, 512, 512, 3) and float(views.images.std()) > 0.01
    assert [done for phase, done, _ in host.reports if phase == "paint"] == [0, 1, 2] and host.most_out == 1
    first, last = host.previews
    assert first.shape == last.shape == (64, 3 * 64, 3) and not torch.equal(first, last)


@pytest.mark.parametrize(
    ("steps", "wanted"), [(10, turbo_reference.TIMESTEPS), (5, [989, 791, 593, 395, 197]), (4, [989, 758, 494, 263])]
)
def test_the_timesteps(models: Path, steps: int, wanted: list[int]) -> None:
    model = open_turbo_paint(models / "hunyuan3d-paint-v2-0-turbo", models / "hunyuan3d-paint-v2-0", torch.float32)
    scheduler = model.make_scheduler()
    scheduler.set_timesteps(steps, **model.timestep_settings)
    assert scheduler.timesteps.tolist() == wanted
    assert scheduler.config.prediction_type == "v_prediction", "of the folder"


def test_guidance_has_no_effect(store: ModelStore, mesh: Mesh, small_views: None) -> None:
    """Nor have the values that choose how its halves run."""
    preset = TURBO.with_(paint_steps=1)
    changes = ({}, {"cfg_together": True}, {"paint_guidance": 7.0}, {"skip_unguided_reference": False})
    first, *others = (
        paint.paint_views(mesh, torch.ones(8, 8, 3) * 0.4, preset.with_(**change), RecordingHost(), store).images
        for change in changes
    )
    assert all(torch.equal(first, other) for other in others)


def test_the_reference_read_at_every_step_is_the_same(store: ModelStore, mesh: Mesh, small_views: None) -> None:
    preset = TURBO.with_(paint_steps=2)
    once, always = (
        paint.paint_views(mesh, torch.ones(8, 8, 3) * 0.4, preset.with_(reference_once=is_on), RecordingHost(), store)
        for is_on in (True, False)
    )
    assert torch.equal(once.images, always.images)


def test_views_that_are_painted_alone_need_no_masks(
    store: ModelStore, mesh: Mesh, monkeypatch: pytest.MonkeyPatch, small_views: None
) -> None:
    """A single view has no attention between views, so none are made. Sliced attention computes masks in rows."""
    asked: list[tuple[list[int], bool]] = []

    def spied(unet: Any, means: Any, device: torch.device, *, in_rows: bool) -> Any:
        asked.append((list(means), in_rows))
        return masked_views(unet, means, device, in_rows=in_rows)

    monkeypatch.setattr(paint, "masked_views", spied)
    alone, together, sliced = (
        paint.paint_views(mesh, torch.ones(8, 8, 3) * 0.4, TURBO.with_(paint_steps=1, **change), RecordingHost(), store)
        for change in ({"view_by_view": True}, {}, {"attention": "sliced"})
    )
    assert asked == [([], False), (list(GRIDS), False), (list(GRIDS), True)]
    assert not torch.equal(alone.images, together.images)
    assert torch.allclose(sliced.images, together.images, atol=1.5 / 255)


def test_more_steps_than_lcm_has_are_refused_at_once() -> None:
    with pytest.raises(BadInput, match="paint_steps is 31 with paint_variant turbo; wanted at most 30"):
        TURBO.with_(paint_steps=31)
    assert PRESETS["8 GB Full"].with_(paint_variant="turbo").paint_steps == 30


def test_what_turbo_downloads() -> None:
    """The .bin, and of the standard paint model only the VAE."""
    assert [model.id for model in needed(TURBO)][-3:] == ["delight", "paint/v2-0-turbo", "paint_vae"]
    turbo, vae, whole = (MODELS[name] for name in ("paint/v2-0-turbo", "paint_vae", "paint"))
    assert vae.folder == whole.folder and set(vae.files) < set(whole.files)
    assert [file.path for file in vae.files] == ["vae/config.json", "vae/diffusion_pytorch_model.safetensors"]
    weights = turbo.files[-1]
    assert weights.path == "unet/diffusion_pytorch_model.bin" and weights.sha256.startswith("24e7f1ae")
    assert weights.instead == ("unet/diffusion_pytorch_model.fp16.safetensors",)


def test_the_vae_of_an_installed_paint_model_is_found(tmp_path: Path) -> None:
    """Also in another models folder than the turbo model's."""
    tiny.make_paint(tmp_path / "a")
    tiny.make_turbo_paint(tmp_path / "b")
    store = ModelStore([tmp_path / "a", tmp_path / "b"], offline=True)
    model = paint.preset_paint(TURBO, RecordingHost(), store)
    assert str(tmp_path / "a") in model.vae.key and str(tmp_path / "b") in model.main.key
    assert not model.guided and model.masked


def older_network(folder: Path, name: str) -> Path:
    """The safetensors file that was published beside the .bin: the same names, and those of an IP adapter."""
    state = torch.load(folder / "unet" / "diffusion_pytorch_model.bin")
    extra = {f"{key.removesuffix('to_k.weight')}to_k_ip.weight": value
             for key, value in state.items() if key.endswith("attn2.to_k.weight")}  # fmt: skip
    extra["image_proj_model.norm.weight"] = torch.ones(8)
    file = folder / "unet" / name
    save_file({name: value.half().contiguous() for name, value in (state | extra).items()}, file)
    return file


def test_the_older_network_is_refused(tmp_path: Path) -> None:
    folder = tiny.make_turbo_paint(tmp_path)
    pickle = folder / "unet" / "diffusion_pytorch_model.bin"
    for name in ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors"):
        older_network(folder, name)
    assert find_turbo_weights(folder / "unet") == pickle
    pickle.unlink()
    with pytest.raises(BadCheckpoint, match=r"older turbo network with an IP adapter.*diffusion_pytorch_model\.bin"):
        open_turbo_paint(folder, folder, torch.float32)


def test_the_converted_file_is_found_first_and_gives_the_same(tmp_path: Path) -> None:
    folder, paint_folder = tiny.make_turbo_paint(tmp_path), tiny.make_paint(tmp_path)
    older_network(folder, "diffusion_pytorch_model.safetensors")
    before = open_turbo_paint(folder, paint_folder, torch.float16)
    (written,) = convert_pickles([folder], half=True)
    after = open_turbo_paint(folder, paint_folder, torch.float16)
    assert find_turbo_weights(folder / "unet") == written and before.main.key != after.main.key
    for part in ("dual", "main"):
        old, new = (getattr(model, part).load().state_dict() for model in (before, after))
        assert old.keys() == new.keys() and all(torch.equal(value, new[name]) for name, value in old.items())
    (folder / "unet" / "diffusion_pytorch_model.bin").unlink()
    assert ModelStore([tmp_path], offline=True).folder("paint/v2-0-turbo") == folder, "the .bin may go"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
def test_the_pickle_at_float16_takes_the_ram_of_half_of_it(tmp_path: Path) -> None:
    """What is read of the float32 file leaves RAM again, so that a network takes what it takes at float16."""
    folder = tiny.make_turbo_paint(tmp_path, block_out_channels=[64, 256, 512], attention_head_dim=[2, 2, 4])
    model = open_turbo_paint(folder, tiny.make_paint(tmp_path), torch.float16)
    gc.collect()
    before, peak, done = resident_mib("VmRSS"), 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.001):
            peak = max(peak, resident_mib("VmRSS"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    module = model.main.load()
    done.set()
    watcher.join()
    size = model.main.weight_bytes / 2**20
    assert size > 80 and {value.dtype for value in module.parameters()} == {torch.float16}
    assert peak - before < 1.3 * size, "float32 would be twice the size, and both together three times"
