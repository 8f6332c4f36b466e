"""Meshes of other programs: read right, or refused or named in a note."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from hosts import RecordingHost
from meshes import cube
from PIL import Image
from torch import Tensor

from lowvram_core.errors import BadInput
from lowvram_core.files.load_meshes import from_trimesh, load_mesh
from lowvram_core.files.meshes import save_mesh
from lowvram_core.files.names import pasted
from lowvram_core.files.plain_obj import triangulated
from lowvram_core.pictures.transfer import linear, srgb
from lowvram_core.render.preview import render_textured
from lowvram_core.types import Camera, Mesh

POINTS = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], np.float32)
FACES = np.array([[0, 1, 2], [0, 2, 3]], np.uint16)
UVS = np.array([[0, 1], [1, 1], [1, 0], [0, 0]], np.float32)
TYPES = {"i1": 5120, "u1": 5121, "i2": 5122, "u2": 5123, "u4": 5125, "f4": 5126}


def picture(*colours: tuple[int, int, int], edge: int = 8, mode: str = "RGB") -> bytes:
    """A PNG with one column for each colour."""
    columns = np.array(colours, np.uint8)[None].repeat(edge, axis=0).repeat(edge, axis=1)
    stream = BytesIO()
    Image.fromarray(columns).convert(mode).save(stream, "PNG")
    return stream.getvalue()


RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


class Gltf:
    """Builds a .gltf with the square of POINTS."""

    def __init__(self) -> None:
        self.binary = b""
        self.document: dict[str, Any] = {
            "asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0}],
            "meshes": [{"primitives": []}], "accessors": [], "bufferViews": [],
        }  # fmt: skip

    def view(self, content: bytes, **more: Any) -> int:
        self.document["bufferViews"].append(
            {"buffer": 0, "byteOffset": len(self.binary), "byteLength": len(content), **more}
        )
        self.binary += content + bytes(-len(content) % 4)
        return len(self.document["bufferViews"]) - 1

    def values(self, values: np.ndarray, *, normalized: bool = False, **more: Any) -> int:
        kind = "SCALAR" if values.ndim == 1 else f"VEC{values.shape[1]}"
        accessor = {"componentType": TYPES[values.dtype.str[1:]], "count": len(values), "type": kind}
        accessor |= {"normalized": True} if normalized else {}
        self.document["accessors"].append({"bufferView": self.view(values.tobytes()), **accessor, **more})
        return len(self.document["accessors"]) - 1

    def part(self, material: dict[str, Any] | None = None, mode: int = 4, **attributes: np.ndarray | int) -> Gltf:
        """Adds a primitive: the square with these attributes."""
        given = {"POSITION": POINTS, **attributes}
        primitive: dict[str, Any] = {
            "attributes": {k: v if isinstance(v, int) else self.values(v) for k, v in given.items()},
            "mode": mode,
        }
        if mode == 4:
            primitive["indices"] = self.values(FACES.reshape(-1))
        if material is not None:
            self.document.setdefault("materials", []).append(material)
            primitive["material"] = len(self.document["materials"]) - 1
        self.document["meshes"][0]["primitives"].append(primitive)
        return self

    def texture(self, content: bytes) -> int:
        images = self.document.setdefault("images", [])
        images.append({"bufferView": self.view(content), "mimeType": "image/png"})
        self.document.setdefault("textures", []).append({"source": len(images) - 1})
        return len(images) - 1

    def write(self, path: Path) -> Path:
        data = "data:application/octet-stream;base64," + base64.b64encode(self.binary).decode()
        self.document["buffers"] = [{"byteLength": len(self.binary), "uri": data}]
        path.write_text(json.dumps(self.document))
        return path


def base(texture: int, **more: Any) -> dict[str, Any]:
    return {"pbrMetallicRoughness": {"baseColorTexture": {"index": texture, **more}}}


def shown(mesh: Mesh, corner: int, toward: float = 0.1) -> Tensor:
    """[3] the colour that a viewer shows near the corner of the mesh's face 0: the nearest texel."""
    assert mesh.uvs is not None and mesh.texture is not None
    uvs = mesh.uvs[mesh.faces[0]]
    u, v = uvs[corner] * (1 - toward) + uvs.mean(dim=0) * toward
    height, width = mesh.texture.shape[:2]
    return mesh.texture[min(int(v % 1 * height), height - 1), min(int(u % 1 * width), width - 1)]


def said(host: RecordingHost) -> str:
    return "\n".join(host.notes)


@pytest.mark.parametrize("kind", ["u1", "u2"])
def test_quantised_uvs_and_positions(tmp_path: Path, kind: str) -> None:
    most = np.iinfo(kind).max
    made = Gltf()
    made.part(
        base(made.texture(picture(RED, GREEN))),
        TEXCOORD_0=made.values((UVS * most).astype(kind), normalized=True),
        POSITION=made.values((POINTS * most).astype(kind), normalized=True),
    )
    mesh = load_mesh(made.write(tmp_path / "m.gltf"))
    assert torch.allclose(mesh.vertices, torch.from_numpy(POINTS)) and mesh.uvs is not None
    assert torch.allclose(mesh.uvs, torch.from_numpy(UVS))


def test_quantised_positions_that_are_no_fractions_keep_their_numbers(tmp_path: Path) -> None:
    made = Gltf()
    made.part(POSITION=made.values((POINTS * 100).astype("i2")))
    made.document["nodes"][0]["scale"] = [0.01, 0.01, 0.01]
    assert torch.allclose(load_mesh(made.write(tmp_path / "m.gltf")).vertices, torch.from_numpy(POINTS), atol=1e-6)


def test_sparse_positions(tmp_path: Path) -> None:
    made = Gltf()
    places, moved = made.view(np.array([2], "<u2").tobytes()), made.view(np.array([[5, 6, 7]], "<f4").tobytes())
    position = made.values(POINTS)
    made.document["accessors"][position]["sparse"] = {
        "count": 1, "indices": {"bufferView": places, "componentType": 5123}, "values": {"bufferView": moved}
    }  # fmt: skip
    vertices = load_mesh(made.part(POSITION=position).write(tmp_path / "m.gltf")).vertices
    assert vertices[2].tolist() == [5, 6, 7] and vertices[1].tolist() == [1, 0, 0]


def test_the_set_of_uvs_that_the_texture_names(tmp_path: Path) -> None:
    made = Gltf()
    made.part(base(made.texture(picture(RED)), texCoord=1), TEXCOORD_0=UVS * 0, TEXCOORD_1=UVS)
    mesh = load_mesh(made.write(tmp_path / "m.gltf"))
    assert mesh.uvs is not None and torch.allclose(mesh.uvs, torch.from_numpy(UVS))


@pytest.mark.parametrize(
    ("transform", "corner"),
    [
        ({"offset": [0.25, 0.5]}, [0.25, 0.5]),
        ({"offset": [0.0, 1.0], "rotation": math.pi / 2}, [0.0, 1.0]),
        ({"scale": [0.5, 0.25], "offset": [0.5, 0.0]}, [0.5, 0.0]),
    ],
)
def test_transforms_of_textures(tmp_path: Path, transform: dict[str, Any], corner: list[float]) -> None:
    """The corners of the picture, at UV (0,0), (1,0) and (0,1), go where the sample viewer of Khronos puts them."""
    made = Gltf()
    texture = base(made.texture(picture(RED)), extensions={"KHR_texture_transform": transform})
    made.document["extensionsRequired"] = ["KHR_texture_transform"]
    mesh = load_mesh(made.part(texture, TEXCOORD_0=UVS).write(tmp_path / "m.gltf"))
    assert mesh.uvs is not None
    turn = transform.get("rotation", 0.0)
    wide, high = transform.get("scale", (1.0, 1.0))
    right = [corner[0] + wide * math.cos(turn), corner[1] - wide * math.sin(turn)]
    down = [corner[0] + high * math.sin(turn), corner[1] + high * math.cos(turn)]
    for vertex, wanted in ((3, corner), (2, right), (0, down)):
        assert mesh.uvs[vertex].tolist() == pytest.approx(wanted, abs=1e-6)


def test_a_factor_over_a_texture_is_linear(tmp_path: Path) -> None:
    made = Gltf()
    material = base(made.texture(picture((200, 100, 50))))
    material["pbrMetallicRoughness"]["baseColorFactor"] = [0.5, 1.0, 0.01, 1.0]
    mesh = load_mesh(made.part(material, TEXCOORD_0=UVS).write(tmp_path / "m.gltf"))
    wanted = srgb(linear(torch.tensor([200, 100, 50]) / 255) * torch.tensor([0.5, 1.0, 0.01]))
    assert torch.allclose(shown(mesh, 0), wanted, atol=1e-4)


def test_unlit_and_emissive_materials_show_their_colour(tmp_path: Path) -> None:
    unlit = Gltf()
    material = base(unlit.texture(picture(GREEN))) | {"extensions": {"KHR_materials_unlit": {}}}
    unlit.document["extensionsRequired"] = ["KHR_materials_unlit"]
    mesh = load_mesh(unlit.part(material, TEXCOORD_0=UVS).write(tmp_path / "unlit.gltf"))
    assert shown(mesh, 0).tolist() == [0, 1, 0]
    shines, host = Gltf(), RecordingHost()
    material = {
        "emissiveTexture": {"index": shines.texture(picture(BLUE))}, "emissiveFactor": [1, 1, 1],
        "pbrMetallicRoughness": {"baseColorFactor": [0, 0, 0, 1]},
    }  # fmt: skip
    mesh = load_mesh(shines.part(material, TEXCOORD_0=UVS).write(tmp_path / "shines.gltf"), host)
    assert shown(mesh, 0).tolist() == [0, 0, 1] and "emission was taken as its colour" in said(host)


def test_parts_with_textures_share_one(tmp_path: Path) -> None:
    """A textured part, one whose picture repeats three times, and one of a plain colour."""
    made, host = Gltf(), RecordingHost()
    made.part(base(made.texture(picture(RED, GREEN))), TEXCOORD_0=UVS)
    made.part(base(made.texture(picture(BLUE, RED))), TEXCOORD_0=UVS * np.array([[3, 1]], np.float32))
    made.part({"pbrMetallicRoughness": {"baseColorFactor": [0, 0, 0.5, 1]}}, POSITION=POINTS + 5)
    mesh = load_mesh(made.write(tmp_path / "m.gltf"), host)
    assert mesh.texture is not None and mesh.uvs is not None and len(mesh.faces) == 6
    assert float(mesh.uvs.min()) >= 0 and float(mesh.uvs.max()) <= 1 and host.notes == []
    texture = mesh.texture

    def at(face: int, weights: Sequence[float]) -> list[float]:
        u, v = torch.tensor(weights) @ mesh.uvs[mesh.faces[face]]  # type: ignore[index]
        return texture[int(v * texture.shape[0]), int(u * texture.shape[1])].tolist()

    # Face 0 of a square has the corners (0,0), (1,0) and (1,1): the second column is at its right.
    assert at(0, (0.8, 0.1, 0.1)) == RED_SHOWN and at(0, (0.1, 0.8, 0.1)) == GREEN_SHOWN
    along = [at(2, (1 - x, x - 0.01, 0.01)) for x in (0.1, 0.25, 0.4, 0.6, 0.75, 0.9)]
    assert along == [BLUE_SHOWN, RED_SHOWN] * 3
    assert at(4, (0.4, 0.3, 0.3)) == pytest.approx([0, 0, float(srgb(torch.tensor(0.5)))], abs=1e-4)


RED_SHOWN, GREEN_SHOWN, BLUE_SHOWN = ([float(value == shown) for value in range(3)] for shown in range(3))


def test_parts_with_the_same_picture_keep_it(tmp_path: Path) -> None:
    made = Gltf()
    texture = made.texture(picture(RED, GREEN))
    made.part(base(texture), TEXCOORD_0=UVS).part(base(texture), TEXCOORD_0=UVS, POSITION=POINTS + 1)
    mesh = load_mesh(made.write(tmp_path / "m.gltf"))
    assert mesh.texture is not None and mesh.texture.shape == (8, 16, 3)
    assert mesh.uvs is not None and torch.equal(mesh.uvs, torch.from_numpy(np.concatenate([UVS, UVS])))


@pytest.mark.parametrize("ending", [".glb", ".gltf", ".obj", ".ply"])
def test_vertex_colours_survive(tmp_path: Path, ending: str) -> None:
    made = Gltf()
    colours = np.array([[0, 0, 0], [1, 0, 0], [0, 0.5, 0], [0.01, 0.02, 1]], np.float32)
    mesh = load_mesh(made.part(COLOR_0=colours).write(tmp_path / "m.gltf"))
    assert mesh.colors is not None and mesh.texture is None
    assert torch.allclose(mesh.colors, srgb(torch.from_numpy(colours)), atol=1e-5)
    back = load_mesh(save_mesh(mesh, tmp_path / f"n{ending}"))
    assert back.colors is not None and torch.allclose(back.colors, mesh.colors, atol=0.51 / 255)


def test_colours_of_materials_become_the_parts_colours(tmp_path: Path) -> None:
    made = Gltf()
    for factor in ([1, 0, 0, 1], [0, 0, 0.2, 1]):
        made.part({"pbrMetallicRoughness": {"baseColorFactor": factor}}, POSITION=POINTS + factor[2])
    mesh = load_mesh(made.write(tmp_path / "m.gltf"))
    assert mesh.colors is not None and len(mesh.vertices) == 8
    assert mesh.colors[0].tolist() == pytest.approx([1, 0, 0], abs=1e-6)
    assert mesh.colors[-1].tolist() == pytest.approx([0, 0, float(srgb(torch.tensor(0.2)))], abs=1e-5)


def test_a_fan_becomes_triangles_and_lines_are_named(tmp_path: Path) -> None:
    made, host = Gltf(), RecordingHost()
    mesh = load_mesh(made.part(mode=6).part(mode=1).write(tmp_path / "m.gltf"), host)
    assert mesh.faces.tolist() == [[0, 1, 2], [0, 2, 3]] and "points and lines were left out" in said(host)


@pytest.mark.parametrize(
    ("extension", "says"),
    [
        ("EXT_meshopt_compression", "compressed with meshopt"),
        ("KHR_texture_basisu", "compressed with Basis Universal"),
        ("VENDOR_secret", "requires the glTF extension VENDOR_secret"),
    ],
)
def test_what_a_file_requires_and_we_lack_is_refused(tmp_path: Path, extension: str, says: str) -> None:
    made = Gltf().part()
    made.document["extensionsRequired"] = [extension]
    with pytest.raises(BadInput, match=f"^load: m.gltf .*{says}.*wanted .* Export it without"):
        load_mesh(made.write(tmp_path / "m.gltf"))


def test_draco(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draco = pytest.importorskip("DracoPy")
    sphere = trimesh.creation.icosphere(2)
    content = draco.encode(sphere.vertices, sphere.faces, preserve_order=True, create_metadata=False)
    made = Gltf()
    size = {"count": len(sphere.vertices), "type": "VEC3", "componentType": 5126}
    made.document["accessors"] = [size, {"count": 3 * len(sphere.faces), "type": "SCALAR", "componentType": 5125}]
    ids = {attribute["attribute_type"]: attribute["unique_id"] for attribute in draco.decode(content).attributes}
    made.document["meshes"][0]["primitives"] = [{
        "attributes": {"POSITION": 0}, "indices": 1,
        "extensions": {"KHR_draco_mesh_compression": {
            "bufferView": made.view(content), "attributes": {"POSITION": min(ids.values())}}},
    }]  # fmt: skip
    made.document["extensionsRequired"] = ["KHR_draco_mesh_compression"]
    path = made.write(tmp_path / "m.gltf")
    mesh = load_mesh(path)
    assert len(mesh.faces) == len(sphere.faces) and np.abs(mesh.vertices.numpy() - sphere.vertices).max() < 2e-3
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"compressed with Draco; wanted a plain file.*pip install DracoPy"):
        load_mesh(path)


def test_a_gltf_whose_buffer_has_spaces_in_its_name(tmp_path: Path) -> None:
    made = Gltf().part()
    path = made.write(tmp_path / "m.gltf")
    (tmp_path / "my mesh.bin").write_bytes(made.binary)
    document = made.document | {"buffers": [{"byteLength": len(made.binary), "uri": "my%20mesh.bin"}]}
    path.write_text(json.dumps(document))
    assert len(load_mesh(path).faces) == 2
    (tmp_path / "my mesh.bin").unlink()
    with pytest.raises(BadInput, match=r"^load: m\.gltf needs .* bytes of my%20mesh\.bin, and 0 are there; wanted"):
        load_mesh(path)


@pytest.mark.parametrize(
    "damage",
    [
        {"accessors": [{"count": 2**40, "type": "VEC3", "componentType": 5126, "sparse": {}}]},
        {"accessors": [{"bufferView": 77, "count": 3, "type": "VEC3", "componentType": 5126}]},
        {"meshes": [{"primitives": [{"attributes": []}]}]},
        {"meshes": 3},
        {"materials": ["no"]},
        {"bufferViews": [{}]},
    ],
)
def test_damaged_documents_are_refused(tmp_path: Path, damage: dict[str, Any]) -> None:
    made = Gltf().part({}, TEXCOORD_0=UVS)
    made.document |= damage
    with pytest.raises(BadInput, match=r"^load: m\.gltf (cannot be read|holds no)"):
        load_mesh(made.write(tmp_path / "m.gltf"))


@pytest.mark.parametrize("mode", ["L", "I;16", "P", "LA"])
def test_textures_of_other_kinds(tmp_path: Path, mode: str) -> None:
    stream = BytesIO()
    grey = Image.fromarray(np.full((4, 4), 100 * 257, np.uint16)) if mode == "I;16" else Image.new("L", (4, 4), 100)
    (grey if mode == "I;16" else grey.convert(mode)).save(stream, "PNG")
    made = Gltf()
    mesh = load_mesh(made.part(base(made.texture(stream.getvalue())), TEXCOORD_0=UVS).write(tmp_path / "m.gltf"))
    assert shown(mesh, 0).mul(255).tolist() == pytest.approx([100] * 3, abs=1.01)


def test_uvs_in_another_tile_come_back_and_repeats_stay(tmp_path: Path) -> None:
    """UDIM tiles of one texture look the same in 0..1. A texture that repeats is saved so that it repeats."""
    for move, scale in (((3, -2), 1), ((0, 0), 4)):
        made = Gltf()
        made.part(base(made.texture(picture(RED, GREEN))), TEXCOORD_0=(UVS * scale + move).astype(np.float32))
        mesh = load_mesh(made.write(tmp_path / "m.gltf"))
        assert mesh.uvs is not None and torch.allclose(mesh.uvs, torch.from_numpy(UVS * scale), atol=1e-6)
        path = save_mesh(mesh, tmp_path / "n.gltf")
        assert json.loads(path.read_text())["samplers"][0]["wrapS"] == (33071 if scale == 1 else 10497)
        again = load_mesh(path)
        assert again.uvs is not None and torch.allclose(again.uvs, mesh.uvs, atol=1e-6)


# --- OBJ ---

SQUARE = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\n"


def obj(folder: Path, text: str, material: str | None = None) -> Path:
    path = folder / "m.obj"
    if material is not None:
        (folder / "m.mtl").write_text(material)
        text = f"mtllib m.mtl\n{text}"
    path.write_text(text)
    return path


def test_negative_numbers_count_back_from_where_they_stand(tmp_path: Path) -> None:
    text = "".join(f"o part{z}\nv 0 0 {z}\nv 1 0 {z}\nv 0 1 {z}\nf -3 -2 -1\n" for z in range(3))
    mesh = load_mesh(obj(tmp_path, text))
    assert sorted(mesh.vertices[mesh.faces][:, :, 2].mean(dim=1).tolist()) == [0, 1, 2]


def area(mesh: Mesh) -> float:
    a, b, c = mesh.vertices[mesh.faces].unbind(dim=1)
    return float(torch.cross(b - a, c - a, dim=1).norm(dim=1).sum() / 2)


@pytest.mark.parametrize("first", range(5))
@pytest.mark.parametrize("turned", [False, True])
def test_hollow_polygons_are_cut_inside(tmp_path: Path, first: int, turned: bool) -> None:
    corners = [(0, 0), (2, 0), (2, 2), (1, 0.5), (0, 2)]
    ring = (corners[first:] + corners[:first])[:: -1 if turned else 1]
    text = "".join(f"v {x} 0.25 {y}\n" for x, y in ring) + "f 1 2 3 4 5\n"
    mesh = load_mesh(obj(tmp_path, text))
    assert len(mesh.faces) == 3 and area(mesh) == pytest.approx(2.5, abs=1e-6)
    a, b, c = mesh.vertices[mesh.faces].unbind(dim=1)
    ups = torch.cross(b - a, c - a, dim=1)[:, 1]
    assert bool((ups > 0).all() if turned else (ups < 0).all())  # all in the direction of the polygon


def test_a_star_is_cut_inside() -> None:
    angles = np.arange(20) * math.pi / 10
    star = (
        np.stack([np.cos(angles), np.sin(angles), np.zeros(20)], axis=1) * np.where(np.arange(20) % 2, 0.3, 1)[:, None]
    )
    triangles = star[np.array(triangulated(star))]
    areas = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])[:, 2] / 2
    assert (
        len(triangles) == 18 and (areas > 0).all() and areas.sum() == pytest.approx(10 * 0.3 * math.sin(math.pi / 10))
    )


def test_broken_polygons_still_end() -> None:
    assert len(triangulated(np.zeros((6, 3)))) == 4


def test_uvs_without_a_material_give_no_texture(tmp_path: Path) -> None:
    mesh = load_mesh(obj(tmp_path, SQUARE + "f 1/1 2/2 3/3 4/4\n"))
    assert mesh.texture is None and mesh.colors is None and mesh.uvs is not None


@pytest.mark.parametrize(
    "line",
    [
        "map_Kd my skin.png", "map_Kd -s 1 1 1 my skin.png", "map_Kd -o 0 0 0 -clamp on my skin.png",
        "map_Kd C:\\models\\my skin.png", "map_Kd maps\\my skin.png", 'map_Kd "my skin.png"', "map_kd my skin.png",
        "map_Kd -bm 1.0 my skin.png # the skin", "\tmap_Kd my skin.png", "map_Kd ./my skin.png",
    ],
)  # fmt: skip
@pytest.mark.parametrize("folder", ["", "maps"])
def test_pictures_of_materials_are_found(tmp_path: Path, line: str, folder: str) -> None:
    (tmp_path / folder).mkdir(exist_ok=True)
    (tmp_path / folder / "my skin.png").write_bytes(picture(GREEN))
    text = SQUARE + "usemtl my material\nf 1/1 2/2 3/3 4/4\n"
    mesh = load_mesh(obj(tmp_path, text, f"newmtl my material\nKd 1 1 1\n{line}\n"))
    assert mesh.texture is not None and shown(mesh, 0).tolist() == [0, 1, 0]


def test_what_an_obj_names_and_lacks_is_named(tmp_path: Path) -> None:
    host = RecordingHost()
    text = SQUARE + "usemtl a\nf 1/1 2/2 3/3\nusemtl b\nf 1/1 3/3 4/4\n"
    mesh = load_mesh(obj(tmp_path, text, "newmtl a\nKd 1 0 0\nmap_Kd gone.png\n"), host)
    assert "names the texture gone.png, which is not in its folder" in said(host)
    assert mesh.colors is not None and sorted(map(tuple, mesh.colors.tolist()))[0] == (1, 0, 0)
    host = RecordingHost()
    load_mesh(obj(tmp_path, f"mtllib none.mtl\n{text}"), host)
    assert "names the material file none.mtl, which is not beside it" in said(host)
    host = RecordingHost()
    load_mesh(obj(tmp_path, text, "newmtl a\nKd 1 0 0\n"), host)
    assert "names the material b, which is not there" in said(host)


def test_colours_of_an_obj_stay_beside_its_uvs(tmp_path: Path) -> None:
    mesh = load_mesh(obj(tmp_path, "v 0 0 0 1 0 0\nv 1 0 0 0 1 0\nv 0 1 0 0 0 1\nvt 0 0\nf 1/1 2/1 3/1\n"))
    assert mesh.colors is not None and mesh.colors.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


def test_objects_of_one_material_keep_their_uvs(tmp_path: Path) -> None:
    (tmp_path / "skin.png").write_bytes(picture(RED, GREEN))
    text = SQUARE + "o a\nusemtl skin\nf 1/1 2/2 3/3\no b\nusemtl skin\nf 1/1 3/3 4/4\n"
    mesh = load_mesh(obj(tmp_path, text, "newmtl skin\nmap_Kd skin.png\n"))
    assert len(mesh.faces) == 2 and mesh.texture is not None and mesh.texture.shape == (8, 16, 3)


@pytest.mark.parametrize("face", ["f 1 2 9", "f 1 2 -9", "f 1 2 x", "f 0 1 2", "v a b c", "v 1"])
def test_broken_lines_are_refused(tmp_path: Path, face: str) -> None:
    with pytest.raises(BadInput, match=r"^load: m\.obj cannot be read .*; wanted an OBJ"):
        load_mesh(obj(tmp_path, SQUARE + face + "\n"))


# --- trimesh ---


def test_scenes_of_trimesh_are_joined_at_their_places() -> None:
    scene = trimesh.Scene()
    for x in (0, 5):
        scene.add_geometry(trimesh.creation.box(), transform=trimesh.transformations.translation_matrix([x, 0, 0]))
    mesh = from_trimesh(scene)
    assert len(mesh.vertices) == 16 and float(mesh.vertices[:, 0].max()) == 5.5


def test_colours_of_trimesh_are_kept() -> None:
    box = trimesh.creation.box()
    box.visual.vertex_colors = [255, 0, 0, 255]
    assert from_trimesh(box).colors[0].tolist() == [1, 0, 0]  # type: ignore[index]


@pytest.mark.parametrize(
    ("thing", "says"),
    [
        (None, "nothing is connected"),
        (trimesh.PointCloud([[0, 0, 0]]), "a PointCloud came; .* make a mesh of it first"),
        (trimesh.Scene(), "it holds no triangles"),
        (trimesh.Trimesh(), "it holds no triangles"),
        ("mesh", "a str came"),
    ],
)
def test_other_things_of_trimesh_are_refused(thing: Any, says: str) -> None:
    with pytest.raises(BadInput, match=f"^trimesh: .*{says}"):
        from_trimesh(thing)


def test_colours_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"^save: the colours are not finite, or not one for each vertex"):
        save_mesh(cube().with_(colors=torch.ones(2, 3)), tmp_path / "m.glb")


def test_transfer_goes_there_and_back() -> None:
    values = torch.linspace(0, 1, 256)
    assert torch.allclose(srgb(linear(values)), values, atol=1e-6)
    assert float(linear(torch.tensor(0.5))) == pytest.approx(0.21404, abs=1e-5)


def test_colours_show_in_the_picture_of_a_mesh() -> None:
    box = cube()
    red = box.with_(colors=torch.tensor([1.0, 0.0, 0.0]).expand(len(box.vertices), 3))
    middle = render_textured(red, Camera(30, 20), 64)[32, 32]
    assert float(middle[0]) > 0.5 and middle[1:].tolist() == [0, 0]


# --- names ---


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ('"C:\\my folder\\a.glb"', "C:\\my folder\\a.glb"), ("'고양이 조각.obj' ", "고양이 조각.obj"),
        ("a.glb", "a.glb"), ('"', '"'), ("", ""), ('5" box.obj', '5" box.obj'),
    ],
)  # fmt: skip
def test_quotes_around_a_pasted_path_are_taken_off(given: str, name: str) -> None:
    assert pasted(given) == name


@pytest.mark.parametrize("name", ["고양이 조각.glb", "a b  c.glb", "x" * 200 + ".glb"])
def test_names_of_all_kinds_are_read(tmp_path: Path, name: str) -> None:
    assert len(load_mesh(save_mesh(cube(), tmp_path / name)).faces) == 12


def test_a_name_that_no_system_has_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"^load: there is no file x"):
        load_mesh(tmp_path / f"{'x' * 5000}.glb")
