"""Saves meshes to files and loads them."""

from __future__ import annotations

import hashlib
import logging
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
import trimesh
from PIL import Image
from torch import Tensor

from ..checks.meshes import check_mesh
from ..errors import BadInput
from ..geometry.weld import smooth_normals, weld
from ..host import Host
from ..types import Mesh
from .formats import READABLE_MESHES, WRITABLE_MESHES
from .gltf import write_glb, write_gltf
from .side_files import SideFiles, check_embedded_textures, check_textures, without_size_warnings
from .textures import PNG, Coding, Encoded, encode

log = logging.getLogger(__name__)


def save(mesh: Mesh, path: Path | str, host: Host, texture: Coding = PNG) -> Path:
    """Calls `save_mesh` as a phase of a run."""
    with host.phase("save"):
        host.progress(0, 1)
        result = save_mesh(mesh, path, texture)
        host.progress(1, 1)
    return result


def save_mesh(mesh: Mesh, path: Path | str, texture: Coding = PNG) -> Path:
    """Writes a mesh and returns its path; a file of that name is replaced.

    .glb and .gltf embed the texture, .obj has the files of `sidecars` beside it, .ply and .stl hold only the shape.
    Every file is written under another name first, so that it is complete or not there.

    Args:
        texture: how .glb and .gltf hold the texture. An .obj has a PNG.

    Raises:
        BadInput: the mesh is broken, the extension or the coding is unknown, or the file cannot be written.
    """
    path = Path(path)
    texture.check()
    check_mesh(mesh, "save", needs_uvs=mesh.texture is not None)
    writer = _WRITERS.get(path.suffix.lower())
    if writer is None:
        raise BadInput(
            f"save: the file name ends in {path.suffix!r}; wanted one of {', '.join(WRITABLE_MESHES)}. "
            "Choose one of these."
        )
    files = writer(_plain(mesh), path, texture)
    for file, content in files.items():
        _write(file, content)
    log.info("save: %s, %d faces, %.1f MB", path.name, len(mesh.faces), sum(map(len, files.values())) / 1e6)
    return path


def sidecars(path: Path) -> tuple[Path, ...]:
    """The files that a textured mesh of that name needs beside it: picture and material for an OBJ, else none.

    Their names differ from the name of the input picture: chair.png gives chair.obj and chair_texture.png.
    """
    if path.suffix.lower() != ".obj":
        return ()
    stem = "_".join(path.stem.split())
    if stem != path.stem:
        # Readers end a name in an OBJ at a space. The hash keeps the files of "a b" apart from those of "a_b".
        stem = f"{stem}_{hashlib.sha256(path.stem.encode(errors='surrogateescape')).hexdigest()[:8]}"
    return path.with_name(f"{stem}_texture.png"), path.with_name(f"{stem}_texture.mtl")


def load_mesh(path: Path | str, host: Host | None = None) -> Mesh:
    """Loads a mesh file as one mesh. A file of one part with UVs keeps them, its base colour texture and its normals.

    A mesh without UVs comes back with its vertices welded. The host gets a note where UVs are lost. Files that the mesh
    names, such as MTL and PNG, are read only from its folder and the folders below.

    Raises:
        BadInput: the file is not there, of an unknown format, holds no usable mesh, or has a texture over the limits
            of pictures.
    """
    path = Path(path)
    if path.suffix.lower() not in READABLE_MESHES:
        raise BadInput(
            f"load: the file name ends in {path.suffix!r}; wanted one of {', '.join(READABLE_MESHES)}. "
            "Convert the mesh."
        )
    if not path.is_file():
        raise BadInput(f"load: there is no file {path.name} in {path.parent}; wanted a mesh. Check the path.")
    parts = [part for part in _read_parts(path) if isinstance(part, trimesh.Trimesh)]
    if not parts:
        raise BadInput(f"load: {path.name} holds no triangles; wanted a mesh. Export it as triangles.")
    if host is not None and len(parts) > 1 and any(getattr(part.visual, "uv", None) is not None for part in parts):
        host.note(
            f"load: {path.name} has {len(parts)} parts, which were joined without their UVs and textures; only a file "
            "of one part keeps them. Join its parts under one texture in a 3D program, or have new UVs made."
        )
    mesh = from_trimesh(parts[0] if len(parts) == 1 else trimesh.util.concatenate([_bare(part) for part in parts]))
    if len(parts) == 1 and mesh.uvs is not None:
        mesh = mesh.with_(normals=parts[0].metadata.get(_NORMALS))
    check_mesh(mesh, "load")
    return mesh


def _read_parts(path: Path) -> list[trimesh.parent.Geometry]:
    side_files = SideFiles(path)
    check_embedded_textures(path, side_files)
    try:
        with without_size_warnings():
            scene = trimesh.load_scene(path, process=False, resolver=side_files)
    except Exception as error:  # each of trimesh's readers fails in its own ways on a damaged file
        raise side_files.refused or _unreadable(path, error) from error
    if side_files.refused is not None:
        raise side_files.refused
    for part in scene.geometry.values():
        check_textures(part, path)
    try:
        parts = list(scene.dump())  # this copies the textures, and so decodes them
    except Exception as error:
        raise _unreadable(path, error) from error
    for part in parts:
        part.metadata[_NORMALS] = _given_normals(scene, part)
    return parts


_NORMALS = "given normals"


def _given_normals(scene: trimesh.Scene, part: trimesh.parent.Geometry) -> Tensor | None:
    """[V,3] the unit normals in the file of a part of its scene; None if it has none, or unusable ones."""
    transform, name = scene.graph[part.metadata["node"]]
    given = getattr(scene.geometry[name], "_cache", {})
    if "vertex_normals" not in given:  # trimesh would compute them
        return None
    turned = np.asarray(given["vertex_normals"], dtype=np.float64) @ np.linalg.pinv(transform[:3, :3])
    normals = torch.nn.functional.normalize(torch.from_numpy(turned), dim=1).float()
    usable = len(normals) == len(part.vertices) and bool(torch.isfinite(normals).all())
    return normals if usable else None


def _unreadable(path: Path, error: Exception) -> BadInput:
    return BadInput(f"load: {path.name} cannot be read ({error}); wanted a {path.suffix} mesh. Export it again.")


def _bare(part: trimesh.Trimesh) -> trimesh.Trimesh:
    return trimesh.Trimesh(part.vertices, part.faces, process=False)


def from_trimesh(part: trimesh.Trimesh) -> Mesh:
    """Converts a trimesh to a Mesh with its UVs and texture. Without UVs, repeated vertices are welded."""
    vertices = torch.from_numpy(np.asarray(part.vertices, dtype=np.float32).copy())
    faces = torch.from_numpy(np.asarray(part.faces, dtype=np.int64).copy())
    uv = getattr(part.visual, "uv", None)
    if uv is None or len(uv) != len(vertices):
        # STL and the like repeat a vertex for each face.
        first, group = weld(vertices)
        return Mesh(vertices[first], group[faces]) if len(faces) else Mesh(vertices, faces)
    up = torch.from_numpy(np.asarray(uv, dtype=np.float32)[:, :2].copy())
    material = getattr(part.visual, "material", None)
    image = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    texture = None if image is None else torch.from_numpy(np.array(image.convert("RGB"))).float() / 255
    return Mesh(vertices, faces, uvs=torch.stack([up[:, 0], 1 - up[:, 1]], dim=1), texture=texture)


def _plain(mesh: Mesh) -> Mesh:
    """The mesh on the CPU, in float32 and int64, without gradients."""
    uvs, texture, normals = (
        None if part is None else part.detach().cpu().float() for part in (mesh.uvs, mesh.texture, mesh.normals)
    )
    return Mesh(mesh.vertices.detach().cpu().float(), mesh.faces.cpu().long(), uvs, texture, normals)


def to_trimesh(mesh: Mesh) -> trimesh.Trimesh:
    """Converts a Mesh to a trimesh with a matte material and normals, its own or smooth ones."""
    visual = None
    if mesh.uvs is not None:
        up = torch.stack([mesh.uvs[:, 0], 1 - mesh.uvs[:, 1]], dim=1).numpy()
        material = trimesh.visual.material.PBRMaterial(
            name="texture", baseColorTexture=_image(mesh.texture), metallicFactor=0.0, roughnessFactor=1.0
        )
        visual = trimesh.visual.TextureVisuals(uv=up, material=material)
    return trimesh.Trimesh(
        mesh.vertices.numpy(), mesh.faces.numpy(), vertex_normals=_normals(mesh).numpy(), visual=visual, process=False
    )


def _normals(mesh: Mesh) -> Tensor:
    """[V,3] the mesh's own normals, else normals that are smooth across UV seams."""
    return smooth_normals(mesh.vertices, mesh.faces) if mesh.normals is None else mesh.normals


def _image(texture: Tensor | None) -> Image.Image | None:
    if texture is None:
        return None
    image = Image.fromarray(texture.clamp(0, 1).mul(255).round().byte().numpy())
    image.format = "PNG"
    return image


def _glb(mesh: Mesh, path: Path, coding: Coding) -> dict[Path, bytes]:
    return {path: write_glb(mesh, _normals(mesh), path.stem, _encoded(mesh, coding))}


def _gltf(mesh: Mesh, path: Path, coding: Coding) -> dict[Path, bytes]:
    return {path: write_gltf(mesh, _normals(mesh), path.stem, _encoded(mesh, coding))}


def _encoded(mesh: Mesh, coding: Coding) -> Encoded | None:
    return None if mesh.texture is None else encode(mesh.texture, coding)


def _ply(mesh: Mesh, path: Path, _: Coding) -> dict[Path, bytes]:
    return {path: trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=False).export(file_type="ply")}


def _stl(mesh: Mesh, path: Path, _: Coding) -> dict[Path, bytes]:
    return {path: trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=False).export(file_type="stl")}


def _obj(mesh: Mesh, path: Path, _: Coding) -> dict[Path, bytes]:
    """Puts the OBJ last, so that it never names a file that is not there yet."""
    files: dict[Path, bytes] = {}
    lines = []
    if mesh.texture is not None:
        picture, material = sidecars(path)
        files[picture] = encode(mesh.texture).content
        files[material] = f"newmtl {material.stem}\nKd 1 1 1\nKs 0 0 0\nmap_Kd {picture.name}\n".encode()
        lines += [f"mtllib {material.name}", f"usemtl {material.stem}"]
    lines += [f"v {x:.7g} {y:.7g} {z:.7g}" for x, y, z in mesh.vertices.tolist()]
    lines += [f"vn {x:.5f} {y:.5f} {z:.5f}" for x, y, z in _normals(mesh).tolist()]
    if mesh.uvs is None:
        lines += [f"f {a}//{a} {b}//{b} {c}//{c}" for a, b, c in (mesh.faces + 1).tolist()]
    else:
        lines += [f"vt {u:.7g} {1 - v:.7g}" for u, v in mesh.uvs.tolist()]
        lines += [f"f {a}/{a}/{a} {b}/{b}/{b} {c}/{c}/{c}" for a, b, c in (mesh.faces + 1).tolist()]
    files[path] = ("\n".join(lines) + "\n").encode()
    return files


_WRITERS: Mapping[str, Callable[[Mesh, Path, Coding], dict[Path, bytes]]] = MappingProxyType(
    {".glb": _glb, ".obj": _obj, ".ply": _ply, ".stl": _stl, ".gltf": _gltf}
)


def _write(path: Path, content: bytes) -> None:
    """Writes a file completely or not at all."""
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        raise BadInput(
            f"save: {path} cannot be written ({error.strerror or error}); wanted a place with room and permission. "
            "Choose another folder."
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
