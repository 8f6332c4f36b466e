"""A MESH that holds several meshes: each node takes them one by one, and gives a batch again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from comfy_mesh import MeshData
from comfy_pack import Pack, module
from torch import Tensor


@pytest.fixture
def two(pack: Pack) -> MeshData:
    """A ball of 320 faces, and one of 80 faces and twice the size, padded as ComfyUI pads them."""
    import meshes

    large, small = meshes.blob(2), meshes.blob(1)
    return batch([(large.vertices, large.faces), (2 * small.vertices, small.faces)])


def batch(parts: list[tuple[Tensor, Tensor]]) -> MeshData:
    """What ComfyUI's pack_variable_mesh_batch makes."""
    vertices = torch.zeros(len(parts), max(len(part) for part, _ in parts), 3)
    faces = torch.zeros(len(parts), max(len(part) for _, part in parts), 3, dtype=torch.int64)
    for index, (points, triangles) in enumerate(parts):
        vertices[index, : len(points)], faces[index, : len(triangles)] = points, triangles
    counts = [torch.tensor([len(part[kind]) for part in parts]) for kind in (0, 1)]
    return MeshData(vertices, faces, vertex_counts=counts[0], face_counts=counts[1])


def single(mesh: MeshData, index: int) -> MeshData:
    """One item of a batch, without padding."""
    points, triangles = (int(part[index]) for part in (mesh.vertex_counts, mesh.face_counts))
    own = {
        name: None if part is None else part[index : index + 1, :points]
        for name, part in (("uvs", mesh.uvs), ("normals", mesh.normals), ("vertex_colors", mesh.vertex_colors))
    }
    texture = None if mesh.texture is None else mesh.texture[index : index + 1]
    return MeshData(
        mesh.vertices[index : index + 1, :points], mesh.faces[index : index + 1, :triangles], texture=texture, **own
    )


def assert_same(mesh: MeshData, other: MeshData) -> None:
    for name in ("vertices", "faces", "uvs", "texture", "vertex_colors", "normals"):
        one, two = getattr(mesh, name), getattr(other, name)
        assert (one is None) == (two is None), name
        assert one is None or torch.equal(one, two), name


def test_a_batch_of_meshes_gives_what_its_meshes_give_alone(pack: Pack, preset: Any, two: MeshData) -> None:
    """Of different sizes, also after the node."""
    cleaned = pack.run("CleanMesh", mesh=two, preset=preset)
    assert cleaned.face_counts[0] > cleaned.face_counts[1] == 80
    unwrapped = pack.run("UnwrapUVs", mesh=cleaned, preset=preset)
    assert unwrapped.uvs.shape[:2] == unwrapped.vertices.shape[:2]
    for index in range(2):
        alone = pack.run("CleanMesh", mesh=single(two, index), preset=preset)
        assert alone.vertex_counts is None
        assert_same(single(cleaned, index), alone)
        assert_same(single(unwrapped, index), pack.run("UnwrapUVs", mesh=alone, preset=preset))


def test_the_texture_nodes_take_a_batch(pack: Pack, installed: Path, preset: Any, picture: Tensor, two: Any) -> None:
    """Each mesh with its own picture. Its views, its texture and its mask are those that it gets alone."""
    pictures = torch.cat([picture, picture.flip(3)])
    views, cameras, meshes = pack.run("PaintViews", mesh=two, image=pictures, preset=preset)
    assert views.shape == (6, 128, 128, 3) and cameras == (preset.cameras, preset.cameras)
    baked, seen = pack.run("BakeTexture", mesh=meshes, images=views, views=cameras, preset=preset)
    assert baked.texture.shape == (2, 128, 128, 3) and seen.shape == (2, 128, 128)
    filled = pack.run("InpaintTexture", mesh=baked, seen=seen)
    for index in range(2):
        own, rig, mesh = pack.run(
            "PaintViews", mesh=single(two, index), image=pictures[index : index + 1], preset=preset
        )
        assert torch.equal(views[3 * index : 3 * index + 3], own) and rig == preset.cameras
        alone, mask = pack.run("BakeTexture", mesh=mesh, images=own, views=rig, preset=preset)
        assert_same(single(baked, index), alone)
        assert torch.equal(seen[index : index + 1], mask)
        assert_same(single(filled, index), pack.run("InpaintTexture", mesh=alone, seen=mask))


def test_one_picture_serves_all_meshes(pack: Pack, preset: Any, picture: Tensor, two: Any, monkeypatch: Any) -> None:
    given, types = [], module("lowvram_core.types")

    def paint(mesh: Any, references: Any, *rest: Any, **named: Any) -> Any:
        given.append(references)
        return types.Views(torch.zeros(len(preset.cameras), 8, 8, 3), preset.cameras)

    monkeypatch.setattr(module("lowvram_core.stages.paint"), "paint_views", paint)
    sides = torch.cat([picture, picture.flip(2)])
    pack.run("PaintViews", mesh=two, image=picture, left=sides, preset=preset)
    for index in range(2):
        front, left = given[index]
        assert torch.equal(front, picture[0]) and torch.equal(left, sides[index])
    monkeypatch.setattr(module("lowvram_core.stages.unwrap"), "unwrap", lambda *given, **named: pytest.fail("unwrap"))
    with pytest.raises(ValueError, match=r"paint: image has 3 items for 2 meshes; wanted one for all, or one each"):
        pack.run("PaintViews", mesh=two, image=picture.repeat(3, 1, 1, 1), preset=preset)


def test_bake_and_inpaint_want_what_belongs_to_the_meshes(pack: Pack, preset: Any, two: Any) -> None:
    cameras = preset.cameras
    for rigs, count in ((cameras, 3), ((cameras, cameras), 5), ((cameras,), 3)):
        with pytest.raises(ValueError, match=r"bake: . pictures and the cameras of . meshes came for 2; wanted"):
            pack.run("BakeTexture", mesh=two, images=torch.rand(count, 8, 8, 3), views=rigs, preset=preset)
    two.texture, two.uvs = torch.rand(2, 8, 8, 3), two.vertices[..., :2].clamp(0, 1)
    with pytest.raises(ValueError, match=r"inpaint: 1 masks for 2 textures; wanted one each"):
        pack.run("InpaintTexture", mesh=two, seen=torch.ones(1, 8, 8))


def test_files_and_trimeshes_of_a_batch(pack: Pack, comfy: Path, two: MeshData) -> None:
    output = pack.output("SaveMesh", mesh=two, filename_prefix="3d/two", format="ply")
    (paths,) = output.args
    assert [Path(path).name for path in paths] == ["two_00001_.ply", "two_00002_.ply"]
    assert [item["filename"] for item in output.ui["3d"]] == [Path(path).name for path in paths]
    others = pack.run("MeshToTrimesh", mesh=two)
    for index, (path, other) in enumerate(zip(paths, others, strict=True)):
        saved = trimesh.load(path, process=False)
        assert len(saved.faces) == len(other.faces) == int(two.face_counts[index])
        assert len(other.vertices) == int(two.vertex_counts[index])
        assert np.allclose(other.vertices, single(two, index).vertices[0])


def test_another_pack_may_change_its_trimesh_in_place(pack: Pack, two: MeshData) -> None:
    """ComfyUI keeps our mesh in its cache, and gives it to other nodes too."""
    before = two.vertices.clone(), two.faces.clone()
    for other in pack.run("MeshToTrimesh", mesh=two):
        other.vertices[:] = 7
        other.faces[:] = 0
    assert torch.equal(two.vertices, before[0]) and torch.equal(two.faces, before[1])


def test_colours_and_normals_of_a_batch_are_kept(pack: Pack, two: MeshData) -> None:
    two.vertex_colors = torch.rand(2, two.vertices.shape[1], 4)
    two.normals = torch.nn.functional.normalize(torch.rand(2, two.vertices.shape[1], 3), dim=2)
    convert = module("nodes._convert")
    back = convert.meshes_to_comfy(convert.meshes_from_comfy(two, "test", None))
    for index in range(2):
        given, got = single(two, index), single(back, index)
        assert torch.equal(got.normals, given.normals)
        assert torch.allclose(got.vertex_colors, given.vertex_colors[..., :3], atol=1e-5)


def test_textures_of_a_batch_that_differ_in_size_are_scaled_up(pack: Pack, two: MeshData) -> None:
    """The ladder may bake one of them at fewer pixels."""
    convert, types = module("nodes._convert"), module("lowvram_core.types")
    flat = types.Mesh(two.vertices[0], two.faces[0], two.vertices[0, :, :2], torch.full((4, 4, 3), 0.25))
    fine = flat.with_(texture=torch.rand(8, 8, 3))
    mesh = convert.meshes_to_comfy([flat, fine])
    assert torch.equal(mesh.texture[0], torch.full((8, 8, 3), 0.25)) and torch.equal(mesh.texture[1], fine.texture)
    assert convert.meshes_to_comfy([flat, fine.with_(texture=None)]).texture is None
    masks = convert.to_masks([torch.eye(4) > 0, torch.ones(8, 8, dtype=torch.bool)])
    assert torch.equal(masks[0], torch.kron(torch.eye(4), torch.ones(2, 2)))


def test_an_error_says_which_mesh_it_is(pack: Pack, preset: Any, two: MeshData) -> None:
    two.face_counts[1] = 0
    with pytest.raises(ValueError, match=r"^clean: the mesh is empty; .* It is mesh 2 of a batch of 2\.$"):
        pack.run("CleanMesh", mesh=two, preset=preset)
    with pytest.raises(ValueError, match=r"^clean: an empty batch of meshes came; wanted one mesh or more"):
        pack.run("CleanMesh", mesh=MeshData(two.vertices[:0], two.faces[:0]), preset=preset)
    two.texture, two.uvs = torch.rand(1, 8, 8, 3), two.vertices[..., :2]
    with pytest.raises(ValueError, match=r"^clean: 2 meshes have texture for 1; wanted one each"):
        pack.run("CleanMesh", mesh=two, preset=preset)


def test_lists_and_meshes_without_a_batch_dimension(pack: Pack, preset: Any, two: MeshData) -> None:
    """ComfyUI's own nodes take both."""
    listed = MeshData([single(two, index).vertices[0] for index in range(2)], [two.faces[0], two.faces[1, :80]])
    assert pack.run("CleanMesh", mesh=listed, preset=preset).vertices.shape[0] == 2
    plain = MeshData(two.vertices[0], two.faces[0])
    assert_same(
        pack.run("CleanMesh", mesh=plain, preset=preset), pack.run("CleanMesh", mesh=single(two, 0), preset=preset)
    )


def test_a_texture_without_uvs_is_left_out_with_a_note(
    pack: Pack, ball: MeshData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The core's Decimate removes UVs and keeps the texture."""
    notes: list[str] = []
    monkeypatch.setattr(module("nodes._host").ComfyHost, "note", lambda self, text: notes.append(text))
    ball.texture = torch.rand(1, 8, 8, 3)
    (path,) = pack.run("SaveMesh", mesh=ball, format="glb")
    assert trimesh.load(path, force="mesh").faces.shape == (320, 3)
    (note,) = notes
    assert note.startswith("save: the mesh has a texture but no UVs, so the texture is left out.")
