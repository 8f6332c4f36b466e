"""Meshes to files and back."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from hosts import RecordingHost
from meshes import cube, join, small_preset, torus
from PIL import Image, ImageFile

from lowvram_core.errors import BadInput
from lowvram_core.files import meshes
from lowvram_core.files.formats import OTHER_MESHES, READABLE_MESHES, WRITABLE_MESHES
from lowvram_core.files.load_meshes import load_mesh
from lowvram_core.files.meshes import save, save_mesh, sidecars
from lowvram_core.stages.unwrap import unwrap
from lowvram_core.types import Mesh

NAMES = ["mesh{}", "my mesh{}", "고양이 조각{}", "a/b c/mesh{}"]


@pytest.fixture(scope="module")
def textured() -> Mesh:
    """A torus with a 32 x 16 picture whose rows and columns can be told apart."""
    mesh = unwrap(torus(24, 12), small_preset(), RecordingHost())
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(16.0), indexing="ij")
    return mesh.with_(texture=torch.stack([rows * 8, columns * 16, rows * 0 + 7], dim=-1) / 255)


def glb_json(path: Path) -> tuple[dict[str, Any], bytes]:
    """The JSON of a GLB and its binary chunk."""
    content = path.read_bytes()
    magic, version, length = struct.unpack_from("<4sII", content)
    assert magic == b"glTF" and version == 2 and length == len(content)
    size, kind = struct.unpack_from("<I4s", content, 12)
    assert kind == b"JSON"
    return json.loads(content[20 : 20 + size]), content[28 + size :]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("extension", [".glb", ".gltf", ".obj"])
def test_textured_mesh_comes_back(textured: Mesh, tmp_path: Path, name: str, extension: str) -> None:
    path = save_mesh(textured, tmp_path / name.format(extension))
    back = load_mesh(path)
    assert torch.equal(back.faces, textured.faces)
    assert (back.vertices - textured.vertices).abs().max() < 1e-5
    assert back.uvs is not None and textured.uvs is not None and (back.uvs - textured.uvs).abs().max() < 1e-6
    assert back.texture is not None and textured.texture is not None
    assert back.texture.shape == (32, 16, 3) and (back.texture - textured.texture).abs().max() < 1e-6


@pytest.mark.parametrize("extension", WRITABLE_MESHES)
def test_plain_mesh_comes_back(tmp_path: Path, extension: str) -> None:
    mesh = torus(24, 12)
    back = load_mesh(save_mesh(mesh, str(tmp_path / f"m{extension}")))
    assert back.uvs is None and back.texture is None
    assert len(back.vertices) == len(mesh.vertices)
    assert (back.vertices[back.faces] - mesh.vertices[mesh.faces]).abs().max() < 1e-5


def test_glb_holds_picture_normals_and_a_matt_material(textured: Mesh, tmp_path: Path) -> None:
    document, binary = glb_json(save_mesh(textured, tmp_path / "m.glb"))
    (material,) = document["materials"]
    pbr = material["pbrMetallicRoughness"]
    assert pbr["metallicFactor"] == 0 and pbr["roughnessFactor"] == 1
    image = document["images"][document["textures"][pbr["baseColorTexture"]["index"]]["source"]]
    assert image["mimeType"] == "image/png" and "uri" not in image
    view = document["bufferViews"][image["bufferView"]]
    start = view.get("byteOffset", 0)
    picture = Image.open(BytesIO(binary[start : start + view["byteLength"]]))
    assert picture.format == "PNG" and textured.texture is not None
    assert np.array_equal(np.array(picture), (textured.texture * 255).round().byte().numpy())
    (primitive,) = document["meshes"][0]["primitives"]
    assert {"POSITION", "NORMAL", "TEXCOORD_0"} <= set(primitive["attributes"])
    uv = _accessor(document, binary, primitive["attributes"]["TEXCOORD_0"])
    assert textured.uvs is not None and np.abs(uv - textured.uvs.numpy()).max() < 1e-6


def _accessor(document: dict[str, Any], binary: bytes, index: int) -> np.ndarray:
    accessor = document["accessors"][index]
    view = document["bufferViews"][accessor["bufferView"]]
    start = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
    width = {"VEC2": 2, "VEC3": 3}[accessor["type"]]
    return np.frombuffer(binary, "<f4", accessor["count"] * width, start).reshape(-1, width)


def test_trimesh_reads_the_glb_as_it_is(textured: Mesh, tmp_path: Path) -> None:
    scene = trimesh.load_scene(save_mesh(textured, tmp_path / "m.glb"), process=False)
    (part,) = scene.dump()
    assert part.visual.material.metallicFactor == 0.0
    assert part.visual.material.baseColorTexture.size == (16, 32)
    assert part.visual.uv.shape == (len(textured.vertices), 2)
    lengths = np.linalg.norm(part.vertex_normals, axis=1)
    assert np.abs(lengths - 1).max() < 1e-5


def test_obj_names_files_that_are_there(textured: Mesh, tmp_path: Path) -> None:
    path = save_mesh(textured, tmp_path / "고양이 조각.obj")
    picture, material = sidecars(path)
    assert {file.name for file in tmp_path.iterdir()} == {path.name, picture.name, material.name}
    assert material.name.startswith("고양이_조각_") and " " not in picture.name + material.name
    assert f"mtllib {material.name}\n" in path.read_text(encoding="utf-8")
    assert f"map_Kd {picture.name}\n" in material.read_text(encoding="utf-8")


def test_obj_leaves_the_picture_that_it_was_made_from_alone(textured: Mesh, tmp_path: Path) -> None:
    (tmp_path / "chair.png").write_bytes(b"the user's")
    save_mesh(textured, tmp_path / "chair.obj")
    assert (tmp_path / "chair.png").read_bytes() == b"the user's"


def test_two_obj_never_share_their_files() -> None:
    names = [name for stem in ("a b", "a_b", "a  b") for name in sidecars(Path(f"{stem}.obj"))]
    assert len(set(names)) == 6
    assert sidecars(Path("a.glb")) == ()


def test_several_parts_become_one(tmp_path: Path) -> None:
    boxes = [trimesh.creation.box((1, 1, 1)), trimesh.creation.box((1, 1, 1))]
    scene = trimesh.Scene()
    for index, box in enumerate(boxes):
        scene.add_geometry(box, transform=trimesh.transformations.translation_matrix([3 * index, 0, 0]))
    scene.export(tmp_path / "two.glb")
    host = RecordingHost()
    back = load_mesh(tmp_path / "two.glb", host)
    assert len(back.faces) == 24 and len(back.vertices) == 16
    assert float(back.vertices[:, 0].max()) == pytest.approx(3.5)
    assert host.notes == [], "they had no UVs to lose"


def test_existing_file_is_replaced_and_nothing_else_left(textured: Mesh, tmp_path: Path) -> None:
    path = tmp_path / "m.glb"
    path.write_bytes(b"old")
    save_mesh(textured, path)
    assert [file.name for file in tmp_path.iterdir()] == ["m.glb"]
    assert path.read_bytes()[:4] == b"glTF"


def test_a_full_disk_leaves_the_old_file(textured: Mesh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.glb"
    path.write_bytes(b"old")

    def half(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(BadInput, match=r"^save: .*m\.glb cannot be written \(No space left on device\); wanted"):
        save_mesh(textured, path)
    assert [file.name for file in tmp_path.iterdir()] == ["m.glb"]
    assert path.read_bytes() == b"old"


def test_places_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BadInput, match=r"^save: .* cannot be written"):
        save_mesh(cube(), tmp_path / "file" / "m.glb")
    (tmp_path / "folder.glb").mkdir()
    with pytest.raises(BadInput, match=r"^save: .* cannot be written"):
        save_mesh(cube(), tmp_path / "folder.glb")
    assert {file.name for file in tmp_path.iterdir()} == {"file", "folder.glb"}


@pytest.mark.parametrize("name", ["m", "m.fbx", "m.glb.exe"])
def test_unknown_extensions_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput, match=r"^save: the file name ends in .*; wanted one of \.glb, \.obj, \.ply, \.stl"):
        save_mesh(cube(), tmp_path / name)
    (tmp_path / name).write_text("x")
    with pytest.raises(BadInput, match=r"^load: the file name ends in"):
        load_mesh(tmp_path / name)


@pytest.mark.parametrize("extension", [".glb", ".obj", ".ply", ".stl"])
def test_files_that_are_no_mesh_are_refused(tmp_path: Path, extension: str) -> None:
    with pytest.raises(BadInput, match=r"^load: there is no file"):
        load_mesh(tmp_path / f"none{extension}")
    for content in (b"", b"nonsense", b"\x00" * 100):
        (tmp_path / f"bad{extension}").write_bytes(content)
        with pytest.raises(BadInput, match=r"^load: "):
            load_mesh(tmp_path / f"bad{extension}")


def test_broken_meshes_are_not_written(tmp_path: Path) -> None:
    mesh = cube()
    with pytest.raises(BadInput, match=r"^save: the mesh has no UVs"):
        save_mesh(mesh.with_(texture=torch.rand(4, 4, 3)), tmp_path / "m.glb")
    with pytest.raises(BadInput, match=r"^save: "):
        save_mesh(mesh.with_(faces=mesh.faces + 5), tmp_path / "m.glb")
    assert list(tmp_path.iterdir()) == []


def test_save_is_a_phase(tmp_path: Path) -> None:
    host = RecordingHost()
    path = save(join(cube(), torus()), tmp_path / "m.glb", host)
    assert path == tmp_path / "m.glb" and path.is_file() and host.finished == ["save"]


def test_other_number_types_are_written_all_the_same(textured: Mesh, tmp_path: Path) -> None:
    assert textured.uvs is not None
    odd = textured.with_(
        vertices=textured.vertices.double().requires_grad_(), faces=textured.faces.int(), uvs=textured.uvs.double()
    )
    for extension in WRITABLE_MESHES:
        one, other = (
            save_mesh(mesh, tmp_path / place / f"m{extension}") for mesh, place in ((textured, "one"), (odd, "two"))
        )
        assert one.read_bytes() == other.read_bytes()


@cache
def png(width: int, height: int) -> bytes:
    """A black PNG with one bit a pixel: 13,000 x 13,000 are 20 KB."""
    pixels = zlib.compress(bytes((1 + (width + 7) // 8) * height), 9)
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)), (b"IDAT", pixels), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


SPECULAR = "KHR_materials_pbrSpecularGlossiness"
MATERIALS: dict[str, dict[str, Any]] = {
    "base colour": {"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}},
    "normals": {"normalTexture": {"index": 0}},
    "decoded by trimesh on loading": {"extensions": {SPECULAR: {"diffuseTexture": {"index": 0}}}},
}
FORMS = ["glb", "glb with a chunk of another kind", "gltf with data", "gltf with a buffer", "gltf with a file"]


def write_gltf(folder: Path, form: str, picture: bytes, material: dict[str, Any]) -> Path:
    """One triangle with a texture."""
    folder.mkdir(exist_ok=True)
    points = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], "<f4").tobytes()
    binary = points + np.array([[0, 0], [1, 0], [0, 1]], "<f4").tobytes() + picture
    binary += bytes(-len(binary) % 4)
    views = [{"buffer": 0, "byteOffset": start, "byteLength": size}
             for start, size in ((0, 36), (36, 24), (60, len(picture)))]  # fmt: skip
    document: dict[str, Any] = {
        "asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0, "TEXCOORD_0": 1}, "material": 0}]}],
        "materials": [material], "textures": [{"source": 0}], "bufferViews": views,
        "accessors": [{"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3"},
                      {"bufferView": 1, "componentType": 5126, "count": 3, "type": "VEC2"}],
        "images": [{"bufferView": 2, "mimeType": "image/png", "name": "skin"}],
        "buffers": [{"byteLength": len(binary)}],
    }  # fmt: skip
    if form.startswith("glb"):
        odd = form != "glb"
        document["buffers"] *= 1 + odd
        head = json.dumps(document).encode()
        head += b" " * (-len(head) % 4)
        chunks = (
            struct.pack("<I4s", len(head), b"JSON") + head + struct.pack("<I4s", 4, b"ODD\0") * odd + b"odd\0" * odd
        )
        chunks += struct.pack("<I4s", len(binary), b"BIN\0") + binary
        path = folder / "m.glb"
        path.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks)
        return path
    data = "data:application/octet-stream;base64,"
    document["buffers"][0]["uri"] = data + base64.b64encode(binary).decode()
    if form == "gltf with data":
        document["images"] = [{"uri": data + base64.b64encode(picture).decode(), "name": "skin"}]
    if form == "gltf with a file":
        document["images"] = [{"uri": "skin.png"}]
        (folder / "skin.png").write_bytes(picture)
    (folder / "m.gltf").write_text(json.dumps(document))
    return folder / "m.gltf"


@pytest.fixture
def no_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("pixels were decoded"))


@pytest.mark.parametrize(("width", "height"), [(20_000, 20), (13_000, 13_000), (20_000, 20_000)])
@pytest.mark.parametrize("material", MATERIALS.values(), ids=MATERIALS)
@pytest.mark.parametrize("form", FORMS)
def test_textures_obey_the_limits_of_pictures(
    tmp_path: Path, no_pixels: None, form: str, material: dict[str, Any], width: int, height: int
) -> None:
    path = write_gltf(tmp_path, form, png(width, height), material)
    assert path.stat().st_size < 300_000
    with pytest.raises(
        BadInput, match=rf"^picture: the texture skin(\.png)? of {path.name} is .*Scale it down and try"
    ):
        load_mesh(path)


@pytest.mark.parametrize("extension", [".obj", ".ply"])
@pytest.mark.parametrize("size", [(20_000, 20), (13_000, 13_000), (20_000, 20_000)])
def test_textures_beside_a_mesh_obey_the_limits(
    textured: Mesh, tmp_path: Path, no_pixels: None, extension: str, size: tuple[int, int]
) -> None:
    path = save_mesh(textured, tmp_path / "chair.obj")
    picture = sidecars(path)[0]
    if extension == ".ply":
        path = save_mesh(textured, tmp_path / "chair.ply")
        path.write_bytes(
            path.read_bytes().replace(b"\nelement", b"\ncomment TextureFile chair_texture.png\nelement", 1)
        )
    picture.write_bytes(png(*size))
    with pytest.raises(BadInput, match=rf"^picture: the texture chair_texture\.png of chair\{extension} is .*Scale it"):
        load_mesh(path)


@pytest.mark.parametrize("form", FORMS)
def test_small_textures_are_loaded(tmp_path: Path, form: str) -> None:
    """One pixel may colour a whole mesh."""
    mesh = load_mesh(write_gltf(tmp_path, form, png(1, 1), MATERIALS["base colour"]))
    assert mesh.texture is not None and mesh.texture.shape == (1, 1, 3) and mesh.uvs is not None


@pytest.mark.parametrize("form", FORMS)
def test_a_texture_that_is_no_picture_is_left_out(tmp_path: Path, form: str) -> None:
    mesh = load_mesh(write_gltf(tmp_path, form, b"no picture", MATERIALS["base colour"]))
    assert mesh.texture is None and mesh.uvs is not None


def test_a_truncated_texture_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"^load: m\.glb cannot be read \(.*\); wanted a \.glb mesh\. Export it again"):
        load_mesh(write_gltf(tmp_path, "glb", png(512, 512)[:70], MATERIALS["base colour"]))


@pytest.mark.parametrize("place", ["below", "beside", "above", "absolute", "server", "link"])
def test_only_files_in_the_meshs_folder_are_read(textured: Mesh, tmp_path: Path, place: str) -> None:
    folder = tmp_path / "meshes"
    path = save_mesh(textured, folder / "chair.obj")
    picture, material = sidecars(path)
    named = {"below": "maps/skin.png", "beside": "skin.png", "above": "../skin.png", "link": "skin.png",
             "absolute": str(tmp_path / "skin.png"), "server": "//server/share/skin.png"}[place]  # fmt: skip
    lies = {"below": folder / "maps" / "skin.png", "beside": folder / "skin.png"}.get(place, tmp_path / "skin.png")
    lies.parent.mkdir(exist_ok=True)
    picture.rename(lies)
    if place == "link":
        (folder / "skin.png").symlink_to(lies)
    material.write_text(material.read_text().replace(picture.name, named))
    assert (load_mesh(path).texture is not None) == (place in ("below", "beside"))


def test_formats_are_declared_once() -> None:
    assert tuple(meshes._WRITERS) == WRITABLE_MESHES
    assert set(WRITABLE_MESHES) <= set(READABLE_MESHES)
    assert not set(WRITABLE_MESHES) & set(OTHER_MESHES)


@pytest.mark.parametrize("form", ["glb", "gltf with a buffer"])
def test_a_buffer_that_is_not_there_does_not_end_the_check(tmp_path: Path, no_pixels: None, form: str) -> None:
    """trimesh may decode the picture before it asks for the second buffer."""
    path = write_gltf(tmp_path, form, png(13_000, 13_000), MATERIALS["decoded by trimesh on loading"])
    content = path.read_bytes()
    start, stop = (0, len(content)) if path.suffix == ".gltf" else (20, 20 + struct.unpack_from("<I", content, 12)[0])
    document = json.loads(content[start:stop])
    document["buffers"].append({"byteLength": 4, "uri": "missing.bin"})
    head = json.dumps(document).encode()
    if path.suffix == ".glb":
        head += b" " * (-len(head) % 4)
        rest = struct.pack("<I4s", len(head), b"JSON") + head + content[stop:]
        head = struct.pack("<4sII", b"glTF", 2, 12 + len(rest)) + rest
    path.write_bytes(head)
    with pytest.raises(BadInput, match=rf"^picture: the texture skin of {path.name} is .*Scale it down and try"):
        load_mesh(path)


@pytest.mark.parametrize("length", [8, 100, 2**31])
def test_a_glb_whose_header_has_another_length_is_refused(tmp_path: Path, no_pixels: None, length: int) -> None:
    path = write_gltf(tmp_path, "glb", png(13_000, 13_000), MATERIALS["base colour"])
    content = path.read_bytes()
    path.write_bytes(content[:8] + struct.pack("<I", length) + content[12:])
    with pytest.raises(BadInput, match=rf"^load: m\.glb has [\d,]+ bytes and its header says {length:,}; wanted"):
        load_mesh(path)
