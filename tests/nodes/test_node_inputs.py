"""Masks, batches and seeds as ComfyUI really hands them over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from comfy_mesh import MeshData
from comfy_pack import Pack, module
from PIL import Image
from torch import Tensor


def load_image(path: Path) -> tuple[Tensor, Tensor]:
    """What the core node Load Image gives for a file of the input folder."""
    from nodes import LoadImage

    return LoadImage().load_image(path.name)


@pytest.fixture
def cut(pack: Pack, preset: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Remove Background, with a network that would mark the left half."""
    background = module("lowvram_core.stages.background")

    def left_half(picture: Image.Image, model: str, store: object) -> Image.Image:
        array = np.dstack([np.asarray(picture), np.zeros(picture.size[::-1], np.uint8)])
        array[:, : picture.width // 2, 3] = 255
        return Image.fromarray(array)

    monkeypatch.setattr(background, "_cut_out", left_half)
    return lambda image, **rest: pack.run("RemoveBackground", image=image, preset=preset, **rest)


def is_left_half(mask: Tensor) -> bool:
    half = mask.shape[2] // 2
    return bool((mask[..., :half] == 1).all() and (mask[..., half:] == 0).all())


def test_64_zeros_are_no_mask(cut: Any, picture: Tensor) -> None:
    for invert in (True, False):
        _, masks = cut(picture, mask=torch.zeros(1, 64, 64), invert_mask=invert)
        assert is_left_half(masks[0])


def test_invert_mask(cut: Any, picture: Tensor, disc: Tensor) -> None:
    _, (inverted,) = cut(picture, mask=1 - disc)
    _, (plain,) = cut(picture, mask=disc, invert_mask=False)
    assert torch.equal(inverted, disc) and torch.equal(plain, disc)


@pytest.mark.parametrize("left_out", [0, 8])
def test_a_mask_over_next_to_the_whole_picture_is_used(cut: Any, picture: Tensor, left_out: int) -> None:
    """Under 1 % of 96 x 80 left out, or nothing: it is the user's mask all the same, and nothing is cut out."""
    nearly = torch.ones(1, 96, 80)
    nearly[0, 0, :left_out] = 0
    _, (mask,) = cut(picture, mask=nearly, invert_mask=False)
    assert torch.equal(mask, nearly)


def test_the_alpha_of_an_opaque_file_is_no_mask(cut: Any, picture: Tensor, disc: Tensor) -> None:
    """Alone, where it is next to 1, and in a batch with a cutout."""
    faint = torch.zeros(1, 96, 80)
    faint[0, 5, 5] = 1 / 255
    _, (mask,) = cut(picture, mask=faint)
    assert is_left_half(mask)
    _, masks = cut(torch.cat([picture, picture]), mask=torch.cat([1 - disc, torch.zeros(1, 96, 80)]))
    assert torch.equal(masks[0], disc) and is_left_half(masks[1])


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch, pack: Pack) -> list[str]:
    """The host's notes of the test."""
    found: list[str] = []
    monkeypatch.setattr(module("nodes._host").ComfyHost, "note", lambda self, text: found.append(text))
    return found


def test_a_fully_transparent_file_is_refused(cut: Any, comfy: Path, pack: Pack) -> None:
    """Load Image gives it a mask of ones; Load Pictures has nothing else to give."""
    Image.new("RGBA", (80, 96), (200, 60, 40, 0)).save(comfy / "input" / "clear.png")
    image, mask = load_image(comfy / "input" / "clear.png")
    assert mask.shape == (1, 96, 80) and bool((mask == 1).all())
    wanted = r"^background: the mask is 1 everywhere and invert_mask is on, .* If the picture is fully transparent, use"
    with pytest.raises(ValueError, match=wanted):
        cut(image, mask=mask)
    with pytest.raises(ValueError, match=r"^picture: clear\.png is fully transparent; wanted something to see"):
        pack.run("LoadPictures", folder="")
    with pytest.raises(ValueError, match="is fully transparent; wanted something to see"):
        cut(torch.cat([image, torch.zeros(1, 96, 80, 1)], dim=3))


@pytest.mark.parametrize("size", [(96, 80), (64, 64)])
def test_ones_are_refused_with_invert_on(cut: Any, picture: Tensor, disc: Tensor, size: tuple[int, int]) -> None:
    """Of any size, and also as one of a batch. With invert off they are the user's mask: the whole picture."""
    ones = torch.ones(1, *size)
    with pytest.raises(ValueError, match=r"If the mask is 1 = object, switch invert_mask off\."):
        cut(picture, mask=ones)
    (_, (mask,)) = cut(picture, mask=ones, invert_mask=False)
    assert mask.shape == (1, 96, 80) and bool((mask == 1).all())
    if size == (96, 80):
        with pytest.raises(ValueError, match=r"^background, picture 2: the mask is 1 everywhere"):
            cut(picture.repeat(2, 1, 1, 1), mask=torch.cat([1 - disc, ones]))


def test_a_mask_that_looks_inverted_is_noted(cut: Any, picture: Tensor, disc: Tensor, notes: list[str]) -> None:
    """Remove Background goes on, and names the switch. A mask with room around its object is no matter."""
    (_, (mask,)) = cut(picture, mask=disc)
    assert torch.equal(mask, 1 - disc)
    (note,) = notes
    assert note.startswith("background: the object touches the picture's border all round, so the mask looks inverted")
    assert "switch invert_mask of Remove Background" in note
    cut(picture, mask=disc, invert_mask=False)
    cut(picture, mask=torch.ones(1, 96, 80), invert_mask=False)
    assert "looks inverted" not in notes[-1] and len(notes) == 2, "the whole picture only touches its border"


def test_every_node_with_a_mask_notes_one_that_looks_inverted(
    pack: Pack, preset: Any, picture: Tensor, disc: Tensor, ball: MeshData, notes: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Load Image's mask, without Remove Background between."""
    types, stages = module("lowvram_core.types"), "lowvram_core.stages"
    mesh = types.Mesh(ball.vertices[0], ball.faces[0])
    views = types.Views(torch.zeros(len(preset.cameras), 8, 8, 3), preset.cameras)
    monkeypatch.setattr(module(f"{stages}.shape"), "generate_shape", lambda *given, **named: mesh)
    monkeypatch.setattr(module(f"{stages}.delight"), "delight_all", lambda *given, **named: torch.zeros(1, 8, 8, 3))
    monkeypatch.setattr(module(f"{stages}.paint"), "paint_views", lambda *given, **named: views)
    for wrong, said in ((1 - disc, True), (disc, False), (torch.ones(1, 96, 80), False)):
        pack.run("GenerateShape", image=picture, mask=wrong, preset=preset)
        pack.run("GenerateShapeMultiView", back=picture, back_mask=wrong, preset=preset)
        pack.run("Delight", image=picture, mask=wrong, preset=preset)
        pack.run("PaintViews", image=picture, mask=wrong, mesh=ball, preset=preset)
        begins = [note.split(":")[0] for note in notes]
        assert begins == (["shape", "shape, back", "delight", "paint"] if said else [])
        assert all("looks inverted; wanted 1 = object. Connect" in note for note in notes)
        notes.clear()


def test_a_picture_with_four_channels_keeps_its_clear_corners(cut: Any, picture: Tensor) -> None:
    """4 of 7,680 pixels are clear; opaque alpha, and alpha next to 1, is no cutout."""
    alpha = torch.ones(1, 96, 80, 1)
    _, (mask,) = cut(torch.cat([picture, alpha * 254 / 255], dim=3))
    assert is_left_half(mask)
    alpha[:, ::95, ::79] = 0
    _, (mask,) = cut(torch.cat([picture, alpha], dim=3))
    assert torch.equal(mask, alpha[..., 0])


def test_mask_of_another_size_is_scaled(cut: Any, picture: Tensor, disc: Tensor) -> None:
    small = disc[:, ::2, ::2]
    _, (mask,) = cut(picture, mask=small, invert_mask=False)
    assert mask.shape == disc.shape and (mask - disc).abs().mean() < 0.05


def test_image_with_alpha(cut: Any, picture: Tensor, disc: Tensor) -> None:
    images, (mask,) = cut(torch.cat([picture, disc[..., None]], dim=3))
    assert torch.equal(mask, disc) and images[0].shape == (1, 96, 80, 3)


def test_keep_background(cut: Any, picture: Tensor) -> None:
    images, (mask,) = cut(picture, keep_background=True)
    assert bool((mask == 1).all()) and (images[0] - picture).abs().max() <= 0.5 / 255 + 1e-6


def test_half_precision_pictures_are_cast(cut: Any, picture: Tensor) -> None:
    images, (mask,) = cut(picture.half())
    assert images[0].dtype == mask.dtype == torch.float32


def test_another_background_model_is_noted(
    pack: Pack, preset: Any, picture: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the preset's own cannot be had, Memory Report says which one was used."""
    background, host = module("lowvram_core.stages.background"), module("nodes._host").ComfyHost
    missing, noted = module("lowvram_core.errors").MissingModel, []

    def cut_out(picture: Image.Image, model: str, store: object) -> Image.Image:
        if model != "u2netp":
            raise missing(f"models: background/{model} is in no models folder")
        return Image.fromarray(np.full((*picture.size[::-1], 4), 255, np.uint8))

    monkeypatch.setattr(background, "_cut_out", cut_out)
    store = module("lowvram_core.files.store").ModelStore
    monkeypatch.setattr(store, "is_present", lambda self, name: name == "background/u2netp")
    monkeypatch.setattr(host, "note", lambda self, text: noted.append(text))
    pack.run("RemoveBackground", image=picture, preset=preset)
    note, border = noted
    assert "touches the picture's border" in border
    assert note.startswith("background: u2netp is used, since u2net, which the preset wants, cannot be had")
    monkeypatch.setattr(store, "is_present", lambda self, name: False)
    with pytest.raises(missing):
        pack.run("RemoveBackground", image=picture, preset=preset)


def test_load_image_jpg(cut: Any, comfy: Path, picture: Tensor) -> None:
    path = comfy / "input" / "a.jpg"
    Image.fromarray((picture[0] * 255).byte().numpy()).save(path)
    image, mask = load_image(path)
    assert not mask.any()
    assert is_left_half(cut(image, mask=mask)[1][0])


@pytest.mark.parametrize("kind", ["rgba", "palette"])
def test_load_image_with_transparency(cut: Any, comfy: Path, picture: Tensor, disc: Tensor, kind: str) -> None:
    path = comfy / "input" / "a.png"
    rgba = Image.fromarray((torch.cat([picture, disc[..., None]], dim=3)[0] * 255).byte().numpy())
    if kind == "palette":
        rgba = rgba.quantize(16, method=Image.Quantize.FASTOCTREE)
        assert rgba.mode == "P"
    rgba.save(path)
    image, mask = load_image(path)
    _, (found,) = cut(image, mask=mask)
    assert torch.equal(found, disc)


def test_a_batch_leaves_as_a_list(cut: Any, picture: Tensor, disc: Tensor) -> None:
    batch = torch.cat([picture, picture.flip(2)])
    images, masks = cut(batch, mask=disc, invert_mask=False)
    assert len(images) == len(masks) == 2 and all(image.shape == (1, 96, 80, 3) for image in images)
    shifted = disc.roll(5, dims=2)
    _, own = cut(batch, mask=torch.cat([disc, shifted]), invert_mask=False)
    assert torch.equal(own[0], disc) and torch.equal(own[1], shifted)
    with pytest.raises(ValueError, match="background: 3 masks for 2 pictures; wanted one each, or one for all"):
        cut(batch, mask=disc.repeat(3, 1, 1), invert_mask=False)


def test_a_batch_is_refused_with_advice(pack: Pack, preset: Any, picture: Tensor, installed: Path) -> None:
    with pytest.raises(ValueError, match=r"2 pictures in one batch; wanted one at a time\. Remove Background splits"):
        pack.run("GenerateShape", image=picture.repeat(2, 1, 1, 1), preset=preset)


def test_two_masks_for_one_picture_are_refused(pack: Pack, preset: Any, picture: Tensor, disc: Tensor) -> None:
    with pytest.raises(ValueError, match="delight: 2 masks for one picture"):
        pack.run("Delight", image=picture, mask=disc.repeat(2, 1, 1), preset=preset)
    with pytest.raises(ValueError, match="delight: 3 masks for 2 pictures; wanted one each"):
        pack.run("Delight", image=picture.repeat(2, 1, 1, 1), mask=disc.repeat(3, 1, 1), preset=preset)


def further(picture: Tensor, disc: Tensor) -> dict[str, Tensor]:
    """Pictures for the sockets left and right, of other sizes; only the left one has a mask."""
    return {"left": picture[:, ::2], "left_mask": disc[:, ::2], "right": picture[:, :, ::2]}


def test_delight_takes_a_batch_and_further_pictures(
    pack: Pack, preset: Any, picture: Tensor, disc: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with its own mask; all leave as one batch."""
    given: list[Any] = []

    def delight_all(cutouts: Any, *rest: Any, **named: Any) -> Tensor:
        given.extend(cutouts)
        return torch.zeros(len(cutouts), 8, 8, 3)

    monkeypatch.setattr(module("lowvram_core.stages.delight"), "delight_all", delight_all)
    batch, masks = torch.cat([picture, picture.flip(2)]), torch.cat([disc, torch.zeros_like(disc)])
    image = pack.run("Delight", image=batch, mask=masks, preset=preset, **further(picture, disc))
    assert image.shape == (4, 8, 8, 3)
    assert torch.equal(given[1].image, batch[1]) and torch.equal(given[2].image, picture[0, ::2])
    assert torch.equal(given[0].mask, disc[0]) and torch.equal(given[2].mask, disc[0, ::2])
    assert bool(given[1].mask.all()) and bool(given[3].mask.all()), "zeros are no mask, as nothing is"


def test_paint_takes_a_batch_and_further_pictures(
    pack: Pack, preset: Any, picture: Tensor, disc: Tensor, ball: MeshData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In their order. Those with a mask are cut out. A sixth one is refused before anything runs."""
    given, types = [], module("lowvram_core.types")

    def paint(mesh: Any, references: Any, *rest: Any, **named: Any) -> Any:
        given.extend(references)
        return types.Views(torch.zeros(3, 8, 8, 3), preset.cameras)

    monkeypatch.setattr(module("lowvram_core.stages.paint"), "paint_views", paint)
    batch = torch.cat([picture, picture.flip(2)])
    pack.run("PaintViews", mesh=ball, image=batch, preset=preset, **further(picture, disc))
    first, second, left, right = given
    assert torch.equal(first, picture[0]) and torch.equal(second, batch[1]) and torch.equal(right, picture[0, :, ::2])
    assert torch.equal(left.image, picture[0, ::2]) and torch.equal(left.mask, disc[0, ::2])
    monkeypatch.setattr(module("lowvram_core.stages.unwrap"), "unwrap", lambda *given, **named: pytest.fail("unwrap"))
    with pytest.raises(ValueError, match=r"paint: 6 pictures of the object; wanted 1 to 5\. Choose"):
        pack.run("PaintViews", mesh=ball, image=picture.repeat(4, 1, 1, 1), preset=preset, **further(picture, disc))


def test_inpaint_wants_a_texture(pack: Pack, ball: MeshData) -> None:
    with pytest.raises(ValueError, match=r"inpaint: the mesh has no texture; .*Bake Texture"):
        pack.run("InpaintTexture", mesh=ball, seen=torch.ones(1, 8, 8))


def test_inpaint_wants_one_mask(pack: Pack, ball: MeshData) -> None:
    ball.texture = torch.rand(1, 8, 8, 3)
    with pytest.raises(ValueError, match="inpaint: 2 masks for one texture; wanted one"):
        pack.run("InpaintTexture", mesh=ball, seen=torch.ones(2, 8, 8))


def test_bake_wants_as_many_pictures_as_views(pack: Pack, preset: Any, ball: MeshData) -> None:
    cameras = module("lowvram_core.presets").VIEW_SETS["fast"]
    with pytest.raises(ValueError):
        pack.run("BakeTexture", mesh=ball, images=torch.rand(3, 64, 64, 3), views=cameras, preset=preset)


@pytest.mark.parametrize("seed", [7, 2**32, 2**32 + 7, 2**64 - 1])
def test_a_seed_reaches_the_stage_as_it_is(
    pack: Pack, preset: Any, picture: Tensor, ball: MeshData, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """torch takes every seed that ComfyUI has; seeds that differ stay different."""
    given: list[int] = []

    def remember(result: Any) -> Any:
        def stage(*rest: Any, seed: int, **named: Any) -> Any:
            given.append(seed)
            return result

        return stage

    types, cameras = module("lowvram_core.types"), preset.cameras
    mesh = types.Mesh(torch.zeros(3, 3), torch.zeros(1, 3, dtype=torch.int64))
    stages = "lowvram_core.stages"
    monkeypatch.setattr(module(f"{stages}.shape"), "generate_shape", remember(mesh))
    monkeypatch.setattr(module(f"{stages}.delight"), "delight_all", remember(torch.zeros(1, 8, 8, 3)))
    painted = types.Views(torch.zeros(len(cameras), 8, 8, 3), cameras)
    monkeypatch.setattr(module(f"{stages}.paint"), "paint_views", remember(painted))
    pack.run("GenerateShape", image=picture, preset=preset, seed=seed)
    pack.run("GenerateShapeMultiView", front=picture, preset=preset, seed=seed)
    pack.run("Delight", image=picture, preset=preset, seed=seed)
    pack.run("PaintViews", mesh=ball, image=picture, preset=preset, seed=seed)
    assert given == [seed] * 4
    torch.Generator().manual_seed(seed)


def test_widgets_win_over_the_preset(preset: Any) -> None:
    overridden = module("nodes._schema").overridden
    assert overridden(preset, variant="from preset", shape_steps=0) is preset
    assert overridden(preset, variant="mini", shape_steps=9).variant == "mini"
    with pytest.raises(ValueError, match="preset: octree is 5000; wanted 16 to 1024"):
        overridden(preset, octree=5000)


@pytest.mark.parametrize(
    ("own", "set_to", "used"),
    [
        ("v2-0", "from preset", "mv"), ("mini-fast", "from preset", "mv-fast"), ("mini", "from preset", "mv"),
        ("v2-0-turbo", "from preset", "mv-turbo"), ("mv-fast", "from preset", "mv-fast"), ("mv", "from preset", "mv"),
        ("v2-0-turbo", "mv", "mv"),
    ],
)  # fmt: skip
def test_several_pictures_take_the_presets_model(
    pack: Pack, preset: Any, picture: Tensor, monkeypatch: pytest.MonkeyPatch, own: str, set_to: str, used: str
) -> None:
    given = []

    def generate(pictures: Any, chosen: Any, *rest: Any, **named: Any) -> Any:
        given.append(chosen)
        return module("lowvram_core.types").Mesh(torch.zeros(3, 3), torch.zeros(1, 3, dtype=torch.int64))

    monkeypatch.setattr(module("lowvram_core.stages.shape"), "generate_shape", generate)
    pack.run("GenerateShapeMultiView", preset=preset.with_(variant=own), front=picture, variant=set_to)
    assert given[0].variant == used and given[0].shape_steps == preset.shape_steps
