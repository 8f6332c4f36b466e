"""glTF that Khronos' validator accepts, the texture's codings, and normals."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from hosts import RecordingHost
from meshes import cube, small_preset, torus
from PIL import Image

from lowvram_core.errors import BadInput
from lowvram_core.files.formats import TEXTURE_FORMATS
from lowvram_core.files.load_meshes import load_mesh
from lowvram_core.files.meshes import save_mesh, sidecars
from lowvram_core.files.textures import Coding
from lowvram_core.geometry.weld import smooth_normals
from lowvram_core.stages.unwrap import unwrap
from lowvram_core.types import Mesh


@pytest.fixture(scope="module")
def textured() -> Mesh:
    """A torus with a small picture."""
    mesh = unwrap(torus(24, 12), small_preset(unwrapper="uvunwrap"), RecordingHost())
    return mesh.with_(texture=torch.rand(32, 16, 3, generator=torch.Generator().manual_seed(0)))


def glb_json(path: Path) -> tuple[dict[str, Any], bytes]:
    """The JSON of a GLB and its binary chunk."""
    content = path.read_bytes()
    size = struct.unpack_from("<I", content, 12)[0]
    return json.loads(content[20 : 20 + size]), content[28 + size :]


def node_folder() -> str:
    """The folder of node_modules that has Khronos' validator: GLTF_VALIDATOR names it. Empty if there is none."""
    folder = os.environ.get("GLTF_VALIDATOR", "")
    return folder if (Path(folder) / "node_modules" / "gltf-validator").is_dir() and folder else ""


VALIDATE = """
const validator = require(process.argv[1] + "/node_modules/gltf-validator"), fs = require("fs");
validator.validateBytes(new Uint8Array(fs.readFileSync(process.argv[2])))
  .then((report) => console.log(JSON.stringify(report)));
"""


def shapes(textured: Mesh) -> dict[str, Mesh]:
    loose = Mesh(torch.cat([cube().vertices, torch.ones(1, 3)]), torch.cat([cube().faces, torch.tensor([[0, 0, 1]])]))
    return {"textured": textured, "without a texture": textured.with_(texture=None), "plain": torus(), "loose": loose}


@pytest.mark.skipif(
    shutil.which("node") is None or not node_folder(),
    reason="needs node, and GLTF_VALIDATOR: a folder in which `npm install gltf-validator` was run",
)
@pytest.mark.parametrize("coding", TEXTURE_FORMATS)
@pytest.mark.parametrize("extension", [".glb", ".gltf"])
def test_khronos_validator_has_nothing_to_say(textured: Mesh, tmp_path: Path, extension: str, coding: str) -> None:
    for name, mesh in shapes(textured).items():
        path = save_mesh(mesh, tmp_path / f"{name} 고양이{extension}", Coding(coding))
        run = subprocess.run(
            ["node", "-e", VALIDATE, node_folder(), str(path)], capture_output=True, text=True, check=True, timeout=60
        )
        report = json.loads(run.stdout)
        said = {issue["code"] for issue in report["issues"]["messages"]}
        allowed = {"loose": {"ACCESSOR_INDEX_TRIANGLE_DEGENERATE"}, "without a texture": {"UNUSED_OBJECT"}}
        assert said <= allowed.get(name, set()), report["issues"]
        assert report["issues"]["numErrors"] == report["issues"]["numWarnings"] == 0
        assert report["info"]["totalTriangleCount"] == len(mesh.faces)
        assert bool(report["info"]["hasTextures"]) == (mesh.texture is not None)


@pytest.mark.parametrize("extension", [".glb", ".gltf"])
def test_textures_may_be_smaller(textured: Mesh, tmp_path: Path, extension: str) -> None:
    rows, columns = torch.meshgrid(torch.arange(256.0), torch.arange(256.0), indexing="ij")
    noise = torch.rand(256, 256, 3, generator=torch.Generator().manual_seed(0)) * 0.05
    picture = 0.4 + 0.3 * torch.stack([(rows / 20).sin(), (columns / 30).cos(), (rows / 40).cos()], dim=-1) + noise
    mesh, sizes = textured.with_(texture=picture.clamp(0, 1)), {}
    for coding in (Coding(), Coding("jpeg"), Coding("webp"), Coding("jpeg", 40), Coding("webp", 40)):
        path = save_mesh(mesh, tmp_path / f"m{extension}", coding)
        sizes[coding] = path.stat().st_size
        back = load_mesh(path).texture
        assert back is not None and mesh.texture is not None
        off = (back - mesh.texture).abs()
        assert float(off.mean()) < (0.003 if coding.format == "png" else 0.03)
    assert sizes[Coding("jpeg", 40)] < sizes[Coding("jpeg")] < sizes[Coding()]
    assert sizes[Coding("webp", 40)] < sizes[Coding("webp")] < sizes[Coding()]


def test_the_embedded_picture_is_of_the_chosen_kind(textured: Mesh, tmp_path: Path) -> None:
    for coding in TEXTURE_FORMATS:
        document, binary = glb_json(save_mesh(textured, tmp_path / "chair 7.glb", Coding(coding)))
        (image,), (texture,), (material,) = document["images"], document["textures"], document["materials"]
        view = document["bufferViews"][image["bufferView"]]
        picture = Image.open(BytesIO(binary[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]))
        assert picture.format == coding.upper() and image["mimeType"] == f"image/{coding}"
        assert material["name"] == document["meshes"][0]["name"] == image["name"] == "chair 7"
        needs = ["EXT_texture_webp"] if coding == "webp" else []
        assert document.get("extensionsRequired", []) == document.get("extensionsUsed", []) == needs
        assert ("source" in texture) == (not needs)
        assert coding != "png" or picture.info["srgb"] == 0


@pytest.mark.parametrize("coding", [Coding("gif"), Coding("jpeg", 0), Coding("png", 101)])
def test_unknown_codings_are_refused(textured: Mesh, tmp_path: Path, coding: Coding) -> None:
    with pytest.raises(BadInput, match=r"^save: the texture's (format|quality) is .*; wanted "):
        save_mesh(textured, tmp_path / "m.glb", coding)
    assert list(tmp_path.iterdir()) == []


def test_obj_has_normals(textured: Mesh, tmp_path: Path) -> None:
    for mesh in (textured, torus()):
        lines = save_mesh(mesh, tmp_path / "a b.obj").read_text().splitlines()
        normals = torch.tensor([[float(x) for x in line.split()[1:]] for line in lines if line.startswith("vn ")])
        assert (normals - smooth_normals(mesh.vertices, mesh.faces)).abs().max() < 1e-4
        corners = [line.split()[1:] for line in lines if line.startswith("f ")]
        assert len(corners) == len(mesh.faces)
        a = int(mesh.faces[0, 0]) + 1
        assert corners[0][0] == (f"{a}/{a}/{a}" if mesh.uvs is not None else f"{a}//{a}")
    material = sidecars(tmp_path / "a b.obj")[1]
    save_mesh(textured, tmp_path / "a b.obj")
    assert f"newmtl {material.stem}\n" in material.read_text()
    assert f"usemtl {material.stem}\n" in (tmp_path / "a b.obj").read_text()


@pytest.mark.parametrize("extension", [".glb", ".gltf", ".obj"])
def test_normals_of_a_file_are_kept(textured: Mesh, tmp_path: Path, extension: str) -> None:
    """A flat shaded mesh stays flat shaded, also if its file turns and stretches it."""
    a, b, c = textured.vertices[textured.faces].unbind(dim=1)
    corners = textured.faces.flatten()
    flat = torch.nn.functional.normalize(torch.cross(b - a, c - a, dim=1), dim=1).repeat_interleave(3, dim=0)
    assert textured.uvs is not None
    mesh = Mesh(
        textured.vertices[corners],
        torch.arange(len(corners)).view(-1, 3),
        textured.uvs[corners],
        textured.texture,
        flat,
    )
    back = load_mesh(save_mesh(mesh, tmp_path / f"m{extension}"))
    assert back.normals is not None and (back.normals - flat).abs().max() < 1e-4
    kept = unwrap(back, small_preset(), RecordingHost(), keep_uvs=True)
    assert kept.normals is not None
    again = load_mesh(save_mesh(kept, tmp_path / f"n{extension}"))
    assert again.normals is not None and (again.normals - flat).abs().max() < 1e-4
    if extension == ".gltf":
        document = json.loads((tmp_path / "m.gltf").read_text())
        document["nodes"][0]["matrix"] = [0, 0, 2, 0, 0, 1, 0, 0, -1, 0, 0, 0, 5, 6, 7, 1]
        (tmp_path / "m.gltf").write_text(json.dumps(document))
        moved = load_mesh(tmp_path / "m.gltf")
        a, b, c = moved.vertices[moved.faces].unbind(dim=1)
        true = torch.nn.functional.normalize(torch.cross(b - a, c - a, dim=1), dim=1).repeat_interleave(3, dim=0)
        assert moved.normals is not None and (moved.normals - true).abs().max() < 1e-3


def test_unwrapping_takes_normals_along_and_broken_ones_are_refused() -> None:
    mesh = cube().with_(normals=torch.nn.functional.normalize(cube().vertices, dim=1))
    cut = unwrap(mesh, small_preset(unwrapper="uvunwrap"), RecordingHost())
    assert cut.normals is not None and torch.equal(cut.normals, torch.nn.functional.normalize(cut.vertices, dim=1))
    with pytest.raises(BadInput, match=r"^unwrap: the normals are not finite, or not one for each vertex; wanted"):
        unwrap(mesh.with_(normals=torch.zeros(3, 3)), small_preset(), RecordingHost())
