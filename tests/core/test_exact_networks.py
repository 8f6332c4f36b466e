"""Our stages against upstream's own pipelines on tiny random models in float32.

"Exact" techniques of docs/techniques.md must be equal in every bit. "Re-partitioned" ones may differ by 1e-5 of the
largest value in each call.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
import tiny
import torch
import yaml
from hosts import RecordingHost
from PIL import Image, ImageDraw
from safetensors.torch import load_file

from lowvram_core.app.torch_host import TorchHost
from lowvram_core.errors import BadCheckpoint
from lowvram_core.files.store import ModelStore
from lowvram_core.geometry.fields import Asking
from lowvram_core.geometry.surface import dense_logits
from lowvram_core.networks.diffusers_folders import load_vae
from lowvram_core.networks.paint import open_paint
from lowvram_core.networks.shape import open_shape, shape_field, with_other_vae
from lowvram_core.networks.vae import set_slicing
from lowvram_core.pictures.convert import cutout_from_rgba
from lowvram_core.pictures.recentre import recentre
from lowvram_core.presets import PRESETS, Preset, Residency
from lowvram_core.stages import delight, paint, shape
from lowvram_core.types import Mesh

EXACT = PRESETS["8 GB Full"].with_(
    octree=24, points_per_chunk=4000, shape_steps=6, delight_steps=50, paint_steps=4, render_px=512,
    vae_slicing=False, vae_tiling=False,
)  # fmt: skip
TOLERANCE = 1e-5
CPU = torch.device("cpu")


@pytest.fixture(params=["free", "stream", "keep"])
def host(request: pytest.FixtureRequest) -> TorchHost:
    """The stand-alone host in each residency. None may change a bit."""
    return TorchHost(CPU, residency=request.param)


def picture(colour: tuple[int, int, int] = (200, 60, 30), shift: int = 0) -> Image.Image:
    image = Image.new("RGBA", (160, 120), (0, 0, 0, 0))
    ImageDraw.Draw(image).ellipse((20 + shift, 10, 100 + shift, 100), fill=(*colour, 255))
    ImageDraw.Draw(image).rectangle((50 + shift, 40, 120 + shift, 60), fill=(30, 90, 200, 180))
    return image


def assert_close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    worst = float((ours - theirs).abs().max() / theirs.abs().max())
    assert worst <= TOLERANCE, f"{worst:.2e} of the largest value"


@functools.cache
def their_shape(folder: Path) -> Any:
    return reference.shape_pipeline(folder)(
        picture(), num_inference_steps=6, octree_resolution=24, num_chunks=4000, enable_pbar=False,
        generator=torch.Generator().manual_seed(7),
    )[0]  # fmt: skip


@pytest.mark.parametrize("variant", ["v2-0", "v2-0-fast", "v2-0-turbo"])
def test_shape_is_upstreams(models: Path, store: ModelStore, host: TorchHost, variant: str) -> None:
    theirs = their_shape(models / tiny.VARIANTS[variant])
    ours = shape.generate_shape(cutout_from_rgba(picture()), EXACT.with_(variant=variant), host, store, seed=7)
    assert len(ours.faces) > 100
    np.testing.assert_array_equal(ours.vertices.numpy(), theirs.vertices.astype(np.float32))
    np.testing.assert_array_equal(ours.faces.numpy(), theirs.faces)


def their_whole_shape(pipeline: Any, octree: int) -> Any:
    return pipeline(
        picture(), num_inference_steps=6, octree_resolution=octree, num_chunks=8000, enable_pbar=False,
        generator=torch.Generator().manual_seed(7),
    )[0]  # fmt: skip


@pytest.mark.parametrize("decode", ["sparse", "dense"])
def test_every_decoder_gives_upstreams_mesh(models: Path, store: ModelStore, decode: str) -> None:
    theirs = their_whole_shape(reference.shape_pipeline(models / tiny.VARIANTS["v2-0"]), 96)
    preset = EXACT.with_(octree=96, points_per_chunk=8000, decode=decode)
    ours = shape.generate_shape(cutout_from_rgba(picture()), preset, RecordingHost(), store, seed=7)
    assert len(ours.faces) > 1000
    np.testing.assert_array_equal(ours.vertices.numpy(), theirs.vertices.astype(np.float32))
    np.testing.assert_array_equal(ours.faces.numpy(), theirs.faces)


@pytest.mark.parametrize("residency", ["free", "stream"])
def test_the_turbo_vae_gives_upstreams_mesh(models: Path, tmp_path: Path, residency: Residency) -> None:
    folder = tiny.make_turbo_vae(tmp_path)
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    pipeline = reference.shape_pipeline(models / tiny.VARIANTS["v2-0"])
    own = pipeline.vae
    pipeline.vae = type(own)(**config["params"]).eval()
    pipeline.vae.load_state_dict(load_file(folder / "model.fp16.safetensors"))
    theirs = their_whole_shape(pipeline, 24)
    preset = EXACT.with_(points_per_chunk=8000, shape_vae="turbo")
    host = TorchHost(CPU, residency=residency)
    ours = shape.generate_shape(cutout_from_rgba(picture()), preset, host, ModelStore([models, tmp_path], offline=True),
                                seed=7)  # fmt: skip
    assert len(ours.faces) > 100
    np.testing.assert_array_equal(ours.vertices.numpy(), theirs.vertices.astype(np.float32))
    np.testing.assert_array_equal(ours.faces.numpy(), theirs.faces)
    pipeline.vae = own
    assert not np.array_equal(their_whole_shape(pipeline, 24).vertices, theirs.vertices)


def test_a_vae_of_another_model_is_refused(models: Path, tmp_path: Path) -> None:
    folder = tiny.make_turbo_vae(tmp_path)
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    config["params"]["num_latents"] = 7
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    model = open_shape(models / tiny.VARIANTS["v2-0"], torch.float32)
    with pytest.raises(BadCheckpoint, match=r"latents of shape \(7, 8\), and the model makes \(12, 8\)"):
        with_other_vae(model, folder, torch.float32)


@pytest.mark.parametrize("variant", ["mv", "mv-turbo"])
@pytest.mark.parametrize("names", [("front",), ("right", "front", "back"), ("front", "left", "back", "right")])
def test_multiview_shape_is_upstreams(models: Path, store: ModelStore, variant: str, names: tuple[str, ...]) -> None:
    pictures = {name: picture(shift=5 * index) for index, name in enumerate(names)}
    pipeline = reference.shape_pipeline(models / tiny.VARIANTS[variant])
    theirs = pipeline(pictures, num_inference_steps=4, output_type="latent", enable_pbar=False,
                      generator=torch.Generator().manual_seed(7))  # fmt: skip
    cutouts = {name: cutout_from_rgba(image) for name, image in pictures.items()}
    assert torch.equal(_latents(models, cutouts, variant, 4), theirs)


def _latents(models: Path, cutouts: dict, variant: str, steps: int) -> torch.Tensor:
    host, preset = RecordingHost(), EXACT.with_(variant=variant, shape_steps=steps)
    model = open_shape(models / tiny.VARIANTS[variant], torch.float32)
    with torch.inference_mode():
        condition = shape._condition(cutouts, model, host, unconditional=shape._uses_cfg(model, preset))
        return shape._sample(condition, model, preset, host, 7)


def test_delight_is_upstreams(models: Path, store: ModelStore) -> None:
    theirs = np.asarray(reference.delight_model(models / "hunyuan3d-delight-v2-0")(recentre(picture())))
    ours = delight.delight(cutout_from_rgba(picture()), EXACT, TorchHost(CPU), store)
    assert theirs.std() > 5
    np.testing.assert_array_equal((ours.numpy() * 255).round().astype(np.uint8), theirs)


@pytest.mark.parametrize("residency", ["stream", "keep"])
def test_no_residency_changes_a_bit(store: ModelStore, mesh: Mesh, residency: Residency, small_views: None) -> None:
    """Of the pictures of delight and paint. Those of residency free are upstream's, by the tests beside this one."""
    preset = EXACT.with_(delight_steps=2, paint_steps=2, views="minimal")
    found = []
    for host in (TorchHost(CPU, residency="free"), TorchHost(CPU, residency=residency)):
        lit = delight.delight(cutout_from_rgba(picture()), preset, host, store)
        found.append((lit, paint.paint_views(mesh, lit, preset, host, store).images))
    (lit, views), (lit_too, views_too) = found
    assert torch.equal(lit, lit_too) and torch.equal(views, views_too)


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    import trimesh

    ball = trimesh.creation.icosphere(subdivisions=2)
    uvs = np.stack([np.arctan2(ball.vertices[:, 0], ball.vertices[:, 2]) / 6.3 + 0.5, ball.vertices[:, 1] / 2 + 0.5], 1)
    return Mesh(
        torch.from_numpy(ball.vertices.astype(np.float32)), torch.from_numpy(ball.faces.astype(np.int64)),
        torch.from_numpy(uvs.astype(np.float32)),
    )  # fmt: skip


def flat_picture() -> Image.Image:
    flat = Image.new("RGB", (300, 300), (255, 255, 255))
    ImageDraw.Draw(flat).ellipse((40, 40, 260, 260), fill=(200, 80, 20))
    return flat


@pytest.fixture(scope="module", params=["standard", "minimal"])
def painted(request: pytest.FixtureRequest, models: Path, mesh: Mesh) -> tuple[Preset, list[Image.Image]]:
    """A preset with one of the view sets, and what upstream paints with it."""
    preset = EXACT.with_(views=request.param)
    normals, positions = paint._geometry(mesh, preset.cameras, preset.render_px, RecordingHost())
    classes = [paint.camera_class(camera) for camera in preset.cameras]
    folder = models / "hunyuan3d-paint-v2-0"
    return preset, reference.paint_views(folder, [flat_picture()], normals, positions, classes, preset.paint_steps)


def test_paint_is_upstreams(store: ModelStore, mesh: Mesh, painted: tuple[Preset, list[Image.Image]]) -> None:
    preset, theirs = painted
    reference_picture = torch.from_numpy(np.asarray(flat_picture(), np.float32) / 255)
    ours = paint.paint_views(mesh, reference_picture, preset, TorchHost(CPU), store)
    for image, expected in zip(ours.images, theirs, strict=True):
        np.testing.assert_array_equal((image.numpy() * 255).round().astype(np.uint8), np.asarray(expected))


def test_same_seed_same_result_other_seed_another(store: ModelStore, mesh: Mesh, small_views: None) -> None:
    cutout = cutout_from_rgba(picture())
    preset = EXACT.with_(delight_steps=2, paint_steps=2, views="minimal")
    shapes = [shape.generate_shape(cutout, preset, RecordingHost(), store, seed=seed).vertices for seed in (1, 1, 2)]
    assert torch.equal(shapes[0], shapes[1])
    assert shapes[0].shape != shapes[2].shape or not torch.equal(shapes[0], shapes[2])
    delit = [delight.delight(cutout, preset, RecordingHost(), store, seed=seed) for seed in (1, 1, 2)]
    assert torch.equal(delit[0], delit[1]) and not torch.equal(delit[0], delit[2])
    views = [paint.paint_views(mesh, delit[0], preset, RecordingHost(), store, seed=s).images for s in (1, 1, 2)]
    assert torch.equal(views[0], views[1]) and not torch.equal(views[0], views[2])


def test_global_random_state_is_left_alone(store: ModelStore, mesh: Mesh, small_views: None) -> None:
    preset = EXACT.with_(delight_steps=1, paint_steps=1, views="minimal", shape_steps=2)
    before = torch.random.get_rng_state()
    cutout = cutout_from_rgba(picture())
    shape.generate_shape(cutout, preset, RecordingHost(), store)
    paint.paint_views(mesh, delight.delight(cutout, preset, RecordingHost(), store), preset, RecordingHost(), store)
    assert torch.equal(before, torch.random.get_rng_state())


def test_shape_guidance_in_halves(models: Path) -> None:
    model = open_shape(models / tiny.VARIANTS["v2-0"], torch.float32)
    dit = model.dit.load()
    torch.manual_seed(0)
    latents, time = torch.randn(1, *model.latent_shape), torch.full((1,), 0.4)
    condition = {"main": torch.cat([torch.randn(1, 17, 32), torch.zeros(1, 17, 32)])}
    with torch.inference_mode():
        together = shape._guided_velocity(dit, latents, time, condition, 5.0, together=True)
        halves = shape._guided_velocity(dit, latents, time, condition, 5.0, together=False)
    assert_close(halves, together)


@pytest.mark.parametrize("variant", ["v2-0", "v2-0-fast", "v2-0-turbo"])
def test_streamed_with_halves_inside_the_blocks(models: Path, variant: str) -> None:
    """Weights are copied once for both halves. A model without halves runs as it is."""
    found = []
    for residency in ("free", "stream"):
        host = TorchHost(CPU, residency=residency)  # type: ignore[arg-type]
        preset = EXACT.with_(variant=variant, cfg_together=residency == "free")
        model = open_shape(models / tiny.VARIANTS[variant], torch.float32)
        with torch.inference_mode():
            views = {"front": cutout_from_rgba(picture())}
            condition = shape._condition(views, model, host, unconditional=shape._uses_cfg(model, preset))
            found.append(shape._sample(condition, model, preset, host, 7))
    assert_close(found[1], found[0])


def test_paint_streamed_with_halves_inside_the_blocks(store: ModelStore, mesh: Mesh, small_views: None) -> None:
    """The views attend to each other within their half of guidance only."""
    preset = EXACT.with_(views="minimal", paint_steps=2)
    reference_picture = torch.from_numpy(np.asarray(flat_picture(), np.float32) / 255)
    whole, halves = (
        paint.paint_views(mesh, reference_picture, preset.with_(cfg_together=together), host, store).images
        for together, host in (
            (True, TorchHost(CPU)), (False, TorchHost(CPU, residency="stream")),
        )
    )  # fmt: skip
    assert float((halves - whole).abs().max()) <= 1.5 / 255


def test_paint_guidance_in_halves(models: Path) -> None:
    model = open_paint(models / "hunyuan3d-paint-v2-0", torch.float32)
    torch.manual_seed(0)
    with torch.inference_mode():
        references = model.dual.load()(torch.randn(2, 4, 64, 64))
        halves = paint._Halves(
            model.main.load(), torch.randn(3, 8, 64, 64), torch.randn(2, 77, 1024), torch.tensor([[12, 15, 18]]), True
        )
        halves.references = references
        latents = torch.randn(3, 4, 64, 64)
        every = slice(0, 3)
        for one, other in zip(halves.run(latents, torch.tensor(500), every, together=True),
                              halves.run(latents, torch.tensor(500), every, together=False), strict=True):  # fmt: skip
            assert_close(other, one)


def test_vae_slicing(models: Path) -> None:
    vae = load_vae(models / "hunyuan3d-paint-v2-0" / "vae", torch.float32)
    edge = torch.linspace(-1, 1, 512)
    ramps = [torch.stack([edge[None] * edge[:, None], (edge * k).sin().expand(512, 512)]) for k in (1, 2, 3)]
    pictures = torch.stack([torch.cat([ramp, ramp[:1].mT]) for ramp in ramps])
    with torch.inference_mode():
        set_slicing(vae, EXACT)
        latents = vae.encode(pictures).latent_dist.mode()
        decoded = vae.decode(latents).sample
        set_slicing(vae, PRESETS["4 GB"])
        assert_close(vae.encode(pictures).latent_dist.mode(), latents)
        assert_close(vae.decode(latents).sample, decoded)


def test_decode_in_other_chunks(models: Path) -> None:
    model = open_shape(models / tiny.VARIANTS["v2-0"], torch.float32)
    torch.manual_seed(0)
    latents = torch.randn(1, *model.latent_shape)
    host = RecordingHost()
    with host.borrow(model.vae) as vae, shape_field(vae, latents, keys_once=True) as field:
        whole, parts = (
            dense_logits(field, EXACT.octree, Asking(host.device, host.device, n, torch.float32, host.progress))
            for n in (20_000, 999)
        )
    assert_close(parts, whole)
