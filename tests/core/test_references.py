"""Several reference pictures: as upstream's UNet reads them, as one picture where they are copies, in every mode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from hosts import RecordingHost
from PIL import Image, ImageDraw
from test_exact_networks import EXACT, assert_close, picture
from torch import Tensor

from lowvram_core.app import pipeline
from lowvram_core.app.sheet import draw_strip
from lowvram_core.app.torch_host import TorchHost
from lowvram_core.errors import BadInput
from lowvram_core.files.store import ModelStore
from lowvram_core.networks import hy3dgen
from lowvram_core.networks.diffusers_folders import read_json
from lowvram_core.networks.paint import open_paint, read_references
from lowvram_core.pictures.convert import cutout_from_rgba, image_from_pil
from lowvram_core.presets import Preset
from lowvram_core.stages import delight, paint
from lowvram_core.types import Cutout, Mesh

pytestmark = pytest.mark.usefixtures("small_views")
SMALL = EXACT.with_(views="minimal", paint_steps=2, delight_steps=2, render_px=64, octree=16, texture_px=64)
PAINT = "hunyuan3d-paint-v2-0"


def sheet() -> Mesh:
    corners = torch.tensor([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0.3]])
    return Mesh(corners, torch.tensor([[0, 1, 2], [0, 2, 3]]), (corners[:, :2] + 1) / 2)


def disc(colour: tuple[int, int, int], size_px: int = 300) -> Image.Image:
    flat = Image.new("RGB", (size_px, size_px), (255, 255, 255))
    ImageDraw.Draw(flat).ellipse((40, 40, size_px - 40, size_px - 60), fill=colour)
    return flat


DISCS = [disc((200, 80, 20)), disc((20, 80, 200), 400), disc((20, 200, 80), 260)]


def painted(pictures: list[Image.Image], preset: Preset, store: ModelStore, host: Any = None) -> Tensor:
    given = [image_from_pil(one) for one in pictures]
    return paint.paint_views(sheet(), given, preset, host or RecordingHost(), store).images


def same_pictures(images: Tensor, others: Tensor) -> bool:
    """Whether no value differs by more than one step of 8 bits."""
    return float((images - others).abs().max()) < 1.5 / 255


@pytest.mark.parametrize("count", [2, 3])
def test_several_references_are_painted_as_upstreams_unet_does(models: Path, store: ModelStore, count: int) -> None:
    """Its own pipeline with all pictures in one batch, with its noise: the same views, up to the batch's rounding."""
    preset = SMALL.with_(cfg_together=True, paint_steps=4)
    maps = paint._geometry(sheet(), preset.cameras, preset.render_px, RecordingHost())
    classes = [paint.camera_class(camera) for camera in preset.cameras]
    theirs = reference.paint_views(models / PAINT, DISCS[:count], *maps, classes, preset.paint_steps)
    ours = painted(DISCS[:count], preset, store)
    assert same_pictures(ours, torch.stack([image_from_pil(view) for view in theirs]))
    assert not same_pictures(ours, painted(DISCS[:1], preset, store))


def test_the_unet_gets_the_noise_prediction_of_upstreams(models: Path) -> None:
    """Upstream's UNet, fed with three references, against the dual UNet once for each and the main UNet."""
    folder = models / PAINT / "unet"
    config = {key: value for key, value in read_json(folder / "config.json").items() if not key.startswith("_")}
    theirs = hy3dgen.paint_unet()(UNet2DConditionModel(**config)).eval()
    theirs.load_state_dict(torch.load(folder / "diffusion_pytorch_model.bin", weights_only=True))
    model, every = open_paint(models / PAINT, torch.float32), slice(0, 3)
    torch.manual_seed(0)
    references, conditions, latents = torch.randn(3, 4, 64, 64), torch.randn(3, 8, 64, 64), torch.randn(3, 4, 64, 64)
    text, classes = torch.randn(2, 77, 1024), torch.tensor([[12, 15, 18]])
    both = torch.stack([torch.zeros_like(references), references])
    with torch.inference_mode():
        expected = theirs(
            torch.stack([latents] * 2), torch.tensor(500), encoder_hidden_states=text,
            normal_imgs=torch.stack([conditions[:, :4]] * 2), position_imgs=torch.stack([conditions[:, 4:]] * 2),
            camera_info_gen=torch.cat([classes] * 2), camera_info_ref=torch.zeros(2, 1, dtype=torch.long),
            ref_latents=both, ref_scale=torch.tensor([0.0, 1.0]),
        )[0].chunk(2)  # fmt: skip
        halves = paint._Halves(model.main.load(), conditions, text, classes, True)
        dual = model.dual.load()
        for batches, together in ((both.unbind(1), True), (references.split(1), False), (both.unbind(1), False)):
            halves.references = read_references(dual, batches)
            found = halves.run(latents, torch.tensor(500), every, together=together)
            for mine, other in zip(found, expected, strict=True):
                assert_close(mine, other)


def test_the_tokens_of_the_pictures_follow_each_other(models: Path) -> None:
    dual = open_paint(models / PAINT, torch.float32).dual.load()
    torch.manual_seed(0)
    batches = torch.randn(3, 1, 4, 64, 64).unbind(0)
    with torch.inference_mode():
        alone = [dual(batch) for batch in batches]
        read = read_references(dual, batches)
    assert set(read) == set(alone[0])
    for layer, tokens in read.items():
        assert torch.equal(tokens, torch.cat([one[layer] for one in alone], dim=1))


def test_one_picture_in_a_list_is_one_picture(store: ModelStore) -> None:
    alone = paint.paint_views(sheet(), image_from_pil(DISCS[0]), SMALL, RecordingHost(), store).images
    assert torch.equal(painted(DISCS[:1], SMALL, store), alone)


@pytest.mark.parametrize("together", [True, False])
def test_copies_of_one_picture_are_that_picture(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch, together: bool
) -> None:
    """Attention to copies is attention to one. Without the VAE's noise, which differs for each copy."""
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda found, generator=None: found.mode())
    preset = SMALL.with_(cfg_together=together)
    assert same_pictures(painted(DISCS[:1] * 4, preset, store), painted(DISCS[:1], preset, store))


def test_every_mode_takes_several(store: ModelStore) -> None:
    """Halves of guidance apart, with or without the unguided reference, streamed, read at every step, tiled."""
    separate = SMALL.with_(cfg_together=False)
    expected = painted(DISCS, SMALL.with_(cfg_together=True), store)
    cpu = torch.device("cpu")
    for preset, host in (
        (separate, RecordingHost()),
        (separate.with_(skip_unguided_reference=False), RecordingHost()),
        (separate.with_(attention="sliced"), RecordingHost()),
        (separate.with_(vae_slicing=True), RecordingHost()),
        (separate, TorchHost(cpu, residency="stream")),
        (separate.with_(skip_unguided_reference=False), TorchHost(cpu, residency="stream")),
        (SMALL.with_(cfg_together=True), TorchHost(cpu, residency="stream")),
    ):
        assert same_pictures(painted(DISCS, preset, store, host), expected), preset
    anew = separate.with_(reference_once=False)
    assert torch.equal(painted(DISCS, anew, store), painted(DISCS, separate, store))
    apart = [painted(DISCS[:count], separate.with_(view_by_view=True), store) for count in (1, 3)]
    assert not same_pictures(*apart) and not same_pictures(apart[1], expected)


def test_too_many_and_bad_pictures_are_refused(store: ModelStore) -> None:
    host, good = RecordingHost(), image_from_pil(DISCS[0])
    empty = Cutout(torch.zeros(8, 8, 3), torch.zeros(8, 8))
    for given, words in (
        ([], "paint: 0 pictures of the object; wanted 1 to 5"),
        ([good] * 6, "paint: 6 pictures of the object; wanted 1 to 5"),
        ([good, torch.rand(8, 8)], "paint, picture 2: a reference picture of shape"),
        ([good, empty], "paint, picture 2: the cutout is fully transparent"),
    ):
        with pytest.raises(BadInput, match=words):
            paint.paint_views(sheet(), given, SMALL, host, store)
    with pytest.raises(BadInput, match="delight, picture 2: the cutout is fully transparent"):
        delight.delight_all([cutout_from_rgba(picture()), empty], SMALL, host, store)
    assert host.borrowed == []


def test_each_picture_is_delit_as_if_alone_and_the_networks_are_borrowed_once(store: ModelStore) -> None:
    cutouts = [cutout_from_rgba(picture(colour)) for colour in ((200, 60, 30), (20, 90, 200), (30, 200, 90))]
    one, host = RecordingHost(), RecordingHost()
    alone = torch.stack([delight.delight(cutout, SMALL, RecordingHost(), store) for cutout in cutouts[:2]])
    delight.delight(cutouts[2], SMALL, one, store)
    assert torch.equal(delight.delight_all(cutouts, SMALL, host, store)[:2], alone)
    assert host.borrowed == one.borrowed and not torch.equal(alone[0], alone[1])
    assert [(done, total) for phase, done, total in host.reports if phase == "delight"] == [
        (done, 6) for done in range(1, 7)
    ]


def test_the_pipeline_paints_with_all_pictures(store: ModelStore) -> None:
    """They are checked first, cut out and delit. The sheet shows each."""
    run, host = pipeline.run, RecordingHost()
    with pytest.raises(BadInput, match="paint: 6 pictures of the object"):
        run(picture(), SMALL, host, store, references=[picture()] * 5)
    with pytest.raises(BadInput, match="reference picture 2 is fully transparent"):
        run(picture(), SMALL, host, store, references=[picture(), Image.new("RGBA", (64, 64))])
    assert host.phases == []
    result = run(picture(), SMALL, host, store, references=[picture((20, 80, 200)), picture((20, 200, 80), 20)])
    plain = run(picture(), SMALL, RecordingHost(), store)
    assert result.delit.shape == (3, 128, 128, 3) and torch.equal(result.delit[:1], plain.delit)
    assert torch.equal(result.mesh.vertices, plain.mesh.vertices)
    assert not torch.equal(result.views.images, plain.views.images)
    strips = [np.asarray(draw_strip("x", picture(), made)).shape[1] for made in (result, plain)]
    assert strips[0] - strips[1] == 2 * 256
