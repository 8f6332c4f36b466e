"""Every node executed, as ComfyUI would, and what goes wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from comfy_mesh import MeshData
from comfy_pack import Pack, module
from PIL import Image
from torch import Tensor

GIB = 1024**3
BIG_SEED = 2**64 - 1


def save_picture(image: Tensor, path: Path, alpha: Tensor | None = None) -> None:
    array = (image[0] * 255).round().byte().numpy()
    if alpha is not None:
        array = np.concatenate([array, (alpha[0, ..., None] * 255).byte().numpy()], axis=2)
    Image.fromarray(array).save(path)


@pytest.mark.parametrize(
    "name", ["2 GB", "4 GB", "8 GB Fast", "8 GB Balanced", "8 GB Quality", "8 GB Full", "12 GB", "16 GB", "8 GB Turbo"]
)
def test_fixed_presets(pack: Pack, name: str) -> None:
    preset = pack.run("Preset" + name.replace(" ", ""))
    assert preset == module("lowvram_core.presets").PRESETS[name]
    _, *lines = pack.by_id["Preset" + name.replace(" ", "")].GET_SCHEMA().description.split("\n")
    assert lines == [f"{key}: {value}" for key, value in preset.own_values().items()]
    assert f"texture_px: {preset.texture_px}" in lines and "vae_slicing: True" not in lines
    assert ("cfg_together: True" in lines) == preset.cfg_together, "what differs from the default, and nothing else"


@pytest.mark.parametrize(
    ("total", "name"),
    [
        (2.0, "2 GB"), (3.9, "4 GB"), (5.9, "8 GB Balanced"), (8.0, "8 GB Balanced"), (9.4, "8 GB Balanced"),
        (9.6, "12 GB"), (9.99, "12 GB"), (12.0, "12 GB"), (15.4, "12 GB"),
        (15.6, "16 GB"), (15.99, "16 GB"), (24.0, "16 GB"),
    ],
)  # fmt: skip
def test_auto_preset(pack: Pack, monkeypatch: pytest.MonkeyPatch, total: float, name: str) -> None:
    monkeypatch.setattr(module("nodes._host"), "card", lambda: ("A card", int(total * GIB), 2 * GIB))
    monkeypatch.setattr(module("nodes._host"), "on_cpu", lambda: False)
    for output in (pack.output("PresetAuto"), pack.output("Preset", preset="Auto")):
        assert output[0].name == name
        shown = output.ui["text"][0]
        assert shown.startswith(f"A card: {total:.1f} GiB, 2.0 GiB free\n{name}\n")


def test_auto_preset_without_a_card(pack: Pack) -> None:
    """This machine's RAM does not count: it takes the preset with the least work."""
    presets = module("lowvram_core.presets").PRESETS
    for output in (pack.output("PresetAuto"), pack.output("Preset")):
        assert output[0].name == "8 GB Fast"
        card, note, name, *values = output.ui["text"][0].split("\n")
        assert card.startswith("CPU: ") and note == "No graphics card: the preset with the least work."
        assert name == "8 GB Fast" and "octree: 128" in values
    least = presets["8 GB Fast"]
    for value in ("shape_steps", "octree", "delight_steps", "paint_steps", "render_px", "texture_px"):
        assert getattr(least, value) == min(getattr(preset, value) for preset in presets.values()), value
    assert len(least.cameras) == min(len(preset.cameras) for preset in presets.values())


def test_preset_has_every_fixed_preset(pack: Pack) -> None:
    presets = module("lowvram_core.presets").PRESETS
    (choice,) = pack.by_id["Preset"].GET_SCHEMA().inputs
    assert choice.options == ["Auto", *presets]
    for name, preset in presets.items():
        output = pack.output("Preset", preset=name)
        assert output[0] == pack.run("Preset" + name.replace(" ", "")) == preset
        assert "text" not in output.ui, "the values are on the node before it runs"


def test_settings_of_preset_nodes_need_no_run(pack: Pack) -> None:
    """Each preset node's `settings` gives what it hands on."""
    for name, node in pack.by_id.items():
        if name.startswith("Preset") and name != "PresetToJson":
            given = {item.id: item.default for item in node.GET_SCHEMA().inputs}
            assert node.settings(**given) == pack.run(name, **given), name


def test_custom_preset(pack: Pack) -> None:
    base = module("lowvram_core.presets").PRESETS["8 GB Balanced"]
    assert pack.run("PresetCustom") == base.with_(name="Custom")
    assert pack.run("PresetCustom", octree=192, guidance=3.0).octree == 192


def test_preset_to_json_and_back(pack: Pack) -> None:
    custom = pack.run("PresetCustom", shape_steps=10)
    output = pack.output("PresetToJson", preset=custom)
    assert output[0] == output.ui["text"][0] == '{\n  "base": "8 GB Balanced",\n  "shape_steps": 10\n}'
    assert pack.run("PresetFromJson", text=output[0]) == custom == pack.run("PresetFromJson")
    with pytest.raises(ValueError, match="preset: 'shape_step' in the JSON text is no value"):
        pack.run("PresetFromJson", text='{"base": "2 GB", "shape_step": 10}')


def test_preset_custom_has_every_value_and_takes_workflows_from_before_some_came(pack: Pack) -> None:
    """Widgets stand in workflows by position, and prompts leave out what was not there yet."""
    node, values = pack.by_id["PresetCustom"], module("lowvram_core.presets").VALUES
    inputs = node.GET_SCHEMA().inputs
    assert [item.id for item in inputs] == list(values)
    assert [item.optional for item in inputs] == [False] * 23 + [True] * (len(values) - 23)
    assert inputs[22].id == "allow_lossy"
    before = {item.id: item.default for item in inputs[:23] if item.default is not None}
    assert node.execute(**before).args[0] == pack.run("PresetCustom")
    assert not pack.run("PresetCustom", prefetch=False, precision="float32").prefetch


def test_widgets_have_the_ranges_of_the_core(pack: Pack) -> None:
    """What a widget allows the core takes, and the other way round; the front end snaps to multiples of the step."""
    base = module("lowvram_core.presets").PRESETS["8 GB Balanced"]
    for item in pack.by_id["PresetCustom"].GET_SCHEMA().inputs:
        value = module("lowvram_core.presets").VALUES[item.id]
        if value.kind in (int, float):
            assert (item.min, item.max) == (value.low, value.high)
            for end in (item.min, item.max):
                base.with_(**{item.id: end})
                with pytest.raises(ValueError, match=f"preset: {item.id} is"):
                    base.with_(**{item.id: end + (item.step if end == item.max else -item.step)})
            steps = (item.default - item.min % item.step) / item.step
            assert steps == pytest.approx(round(steps)), f"{item.id} would snap to another default"
        elif value.kind is str:
            assert item.options == list(value.choices)


def test_the_whole_graph(pack: Pack, installed: Path, preset: Any, picture: Tensor, disc: Tensor) -> None:
    """Picture, mask, shape, clean, unwrap, delight, paint, bake, inpaint, save: each node's output into the next."""
    images, masks = pack.run("RemoveBackground", image=picture, mask=disc, invert_mask=False, preset=preset)
    image, mask = images[0], masks[0]
    assert image.shape == (1, 96, 80, 3) and mask.shape == (1, 96, 80)
    mesh = pack.run("GenerateShape", image=image, mask=mask, preset=preset, seed=BIG_SEED)
    assert isinstance(mesh, MeshData) and mesh.vertices.shape[0] == 1 and mesh.uvs is None
    again = pack.run("GenerateShape", image=image, mask=mask, preset=preset, seed=BIG_SEED)
    assert torch.equal(mesh.vertices, again.vertices)
    mesh = pack.run("CleanMesh", mesh=mesh, preset=preset)
    assert mesh.faces.shape[1] <= 200
    mesh = pack.run("UnwrapUVs", mesh=mesh, preset=preset)
    assert mesh.uvs is not None and mesh.uvs.shape[1] == mesh.vertices.shape[1]
    lit = pack.run("Delight", image=image, mask=mask, preset=preset, seed=BIG_SEED)
    assert lit.shape == (1, 128, 128, 3) and lit.dtype == torch.float32
    views, cameras, mesh = pack.run("PaintViews", mesh=mesh, image=lit, preset=preset, seed=BIG_SEED)
    assert views.shape == (3, 128, 128, 3) and len(cameras) == 3
    baked, seen = pack.run("BakeTexture", mesh=mesh, images=views, views=cameras, preset=preset)
    assert baked.texture.shape == (1, 128, 128, 3) and seen.shape == (1, 128, 128)
    assert 0 < seen.mean() < 1
    whole = pack.run("InpaintTexture", mesh=baked, seen=seen)
    kept = seen[0] == 1
    assert (whole.texture[0][kept] - baked.texture[0][kept]).abs().max() <= 1 / 255
    (path,) = pack.run("SaveMesh", mesh=whole, filename_prefix="3d/graph", format="glb")
    assert Path(path).name == "graph_00001_.glb" and Path(path).stat().st_size > 1000


def test_four_pictures(pack: Pack, installed: Path, preset: Any, picture: Tensor, disc: Tensor) -> None:
    views = {"front": picture, "front_mask": disc, "back": picture.flip(2), "back_mask": disc.flip(2)}
    mesh = pack.run("GenerateShapeMultiView", preset=preset, **views)
    assert mesh.faces.shape[1] > 4
    views["image"], views["mask"] = views.pop("front"), views.pop("front_mask")
    delit = pack.run("Delight", preset=preset, **views)
    assert delit.shape == (2, 128, 128, 3)
    rest = {"mesh": pack.run("CleanMesh", mesh=mesh, preset=preset), "preset": preset}
    both, one = (pack.run("PaintViews", image=image, **rest)[0] for image in (delit, delit[:1]))
    assert both.shape == one.shape == (3, 128, 128, 3) and not torch.equal(both, one)
    with pytest.raises(ValueError, match=r"shape: no picture is connected; .* Connect front"):
        pack.run("GenerateShapeMultiView", preset=preset)


def test_paint_unwraps_what_is_not(
    pack: Pack, preset: Any, picture: Tensor, ball: MeshData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """UVs first, since the paint model sees the seams; UVs that are there stay."""
    views, given = module("lowvram_core.types").Views, []

    def paint(mesh: Any, references: Any, *rest: Any, **named: Any) -> Any:
        given.append((mesh, *references))
        return views(torch.zeros(3, 8, 8, 3), preset.cameras)

    monkeypatch.setattr(module("lowvram_core.stages.paint"), "paint_views", paint)
    mesh = pack.run("PaintViews", mesh=ball, image=picture, preset=preset, mask=torch.zeros(1, 64, 64))[2]
    again = pack.run("PaintViews", mesh=mesh, image=picture, preset=preset, mask=torch.ones(1, 96, 80))[2]
    assert torch.equal(mesh.uvs, again.uvs) and torch.equal(given[0][0].uvs, mesh.uvs[0])
    assert given[0][1].shape == (96, 80, 3) and given[1][1].mask.shape == (96, 80)
    pack.run("PaintViews", mesh=mesh, image=torch.cat([picture, picture[..., :1]], dim=3), preset=preset)
    assert torch.equal(given[2][1].mask, picture[0, ..., 0])  # a fourth channel is the object


@pytest.mark.parametrize("format", ["glb", "obj", "ply", "stl"])
def test_save_and_load(pack: Pack, comfy: Path, ball: MeshData, format: str) -> None:
    output = pack.output("SaveMesh", mesh=ball, filename_prefix="3d/ball", format=format)
    assert output.ui["3d"] == [{"filename": f"ball_00001_.{format}", "subfolder": "3d", "type": "output"}]
    (path,) = output[0]
    assert Path(path).is_relative_to(comfy / "output")
    Path(path).rename(comfy / "input" / f"ball.{format}")
    loaded = pack.run("LoadMesh", file=f"ball.{format}")
    assert loaded.faces.shape == ball.faces.shape
    centre = [mesh.vertices[0][mesh.faces[0]].mean(dim=(0, 1)) for mesh in (loaded, ball)]
    assert torch.allclose(centre[0], centre[1], atol=1e-5)


def test_saving_never_overwrites(pack: Pack, ball: MeshData) -> None:
    names = [Path(pack.run("SaveMesh", mesh=ball, filename_prefix="a/b", format="ply")[0]).name for _ in range(3)]
    assert names == ["b_00001_.ply", "b_00002_.ply", "b_00003_.ply"]


@pytest.mark.parametrize("prefix", ["../out", "/tmp/out", "3d/../../out"])
def test_saving_stays_in_the_output_folder(pack: Pack, comfy: Path, ball: MeshData, prefix: str) -> None:
    with pytest.raises(ValueError, match=r"(?s)save: the prefix .* inside ComfyUI's output folder"):
        pack.run("SaveMesh", mesh=ball, filename_prefix=prefix)
    assert not list((comfy / "output").iterdir())


def test_a_texture_comes_back(pack: Pack, comfy: Path, ball: MeshData, preset: Any) -> None:
    mesh = pack.run("UnwrapUVs", mesh=ball, preset=preset)
    mesh.texture = torch.rand(1, 32, 32, 3)
    path = Path(pack.run("SaveMesh", mesh=mesh, filename_prefix="t", format="glb")[0])
    path.rename(comfy / "input" / "t.glb")
    loaded = pack.run("LoadMesh", file="t.glb")
    assert (loaded.texture - mesh.texture).abs().max() <= 0.5 / 255 + 1e-6
    assert torch.allclose(loaded.uvs, mesh.uvs, atol=1e-6)


def test_trimesh_there_and_back(pack: Pack, ball: MeshData, preset: Any) -> None:
    mesh = pack.run("UnwrapUVs", mesh=ball, preset=preset)
    mesh.texture = torch.rand(1, 16, 16, 3)
    (other,) = pack.run("MeshToTrimesh", mesh=mesh)
    assert isinstance(other, trimesh.Trimesh) and len(other.faces) == mesh.faces.shape[1]
    back = pack.run("TrimeshToMesh", trimesh=other)
    assert torch.equal(back.faces, mesh.faces) and torch.allclose(back.uvs, mesh.uvs)
    assert (back.texture - mesh.texture).abs().max() <= 0.5 / 255 + 1e-6


def test_vertex_colours_are_linear_in_comfyui(pack: Pack, comfy: Path, ball: MeshData) -> None:
    """ComfyUI's own nodes take them as linear; the same colours come back from a file."""
    ball.vertex_colors = torch.rand(1, ball.vertices.shape[1], 3)
    (other,) = pack.run("MeshToTrimesh", mesh=ball)
    shown = other.visual.vertex_colors[:, 0] / 255
    assert np.abs(shown - ball.vertex_colors[0, :, 0].numpy() ** (1 / 2.2)).max() < 0.04
    path = Path(pack.run("SaveMesh", mesh=ball, filename_prefix="c", format="glb")[0])
    path.rename(comfy / "input" / "c.glb")
    back = pack.run("LoadMesh", file='"c.glb"')
    assert torch.allclose(back.vertex_colors, ball.vertex_colors, atol=1e-5)


def test_scenes_of_trimesh_are_joined(pack: Pack, ball: MeshData) -> None:
    (one,) = pack.run("MeshToTrimesh", mesh=ball)
    assert pack.run("TrimeshToMesh", trimesh=trimesh.Scene([one, one])).faces.shape[1] == 2 * ball.faces.shape[1]
    for thing, says in ((None, "nothing is connected"), (trimesh.PointCloud([[0, 0, 0]]), "a PointCloud came")):
        with pytest.raises(ValueError, match=rf"(?s)trimesh: {says}; wanted"):
            pack.run("TrimeshToMesh", trimesh=thing)


def test_padded_mesh_is_cut_to_its_counts(pack: Pack, ball: MeshData) -> None:
    padded = MeshData(
        torch.cat([ball.vertices, torch.zeros(1, 7, 3)], dim=1), torch.cat([ball.faces, ball.faces[:, :5] * 0], dim=1),
        vertex_counts=torch.tensor([ball.vertices.shape[1]]), face_counts=torch.tensor([ball.faces.shape[1]]),
    )  # fmt: skip
    (other,) = pack.run("MeshToTrimesh", mesh=padded)
    assert len(other.faces) == ball.faces.shape[1] and len(other.vertices) == ball.vertices.shape[1]


def test_pictures_from_a_folder(pack: Pack, comfy: Path, picture: Tensor, disc: Tensor) -> None:
    folder = comfy / "input" / "set"
    folder.mkdir()
    save_picture(picture, folder / "b.jpg")
    save_picture(picture, folder / "a.png", disc)
    images, masks, names = pack.run("LoadPictures", folder="set")
    assert names == ["a", "b"] and [image.shape for image in images] == [(1, 96, 80, 3)] * 2
    assert torch.equal(masks[0], 1 - disc) and not masks[1].any(), "as Load Image"
    assert pack.run("LoadPictures", folder="set", limit=1)[2] == ["a"]
    node = pack.by_id["LoadPictures"]
    before = node.fingerprint_inputs(folder="set", limit=0)
    save_picture(picture, folder / "c.png")
    assert node.fingerprint_inputs(folder="set", limit=0) != before
    with pytest.raises(ValueError, match="is not there; wanted a picture file or a folder"):
        pack.run("LoadPictures", folder="none")
