"""Saves meshes to files."""

from __future__ import annotations

import hashlib
import logging
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

import torch
import trimesh
from PIL import Image
from torch import Tensor

from ..checks.meshes import check_mesh
from ..errors import BadInput
from ..geometry.weld import smooth_normals
from ..host import Host
from ..pictures.convert import pil_from_image, to_bytes
from ..types import Mesh
from .formats import WRITABLE_MESHES
from .gltf import write_glb, write_gltf
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

    .glb and .gltf embed the texture, .obj has the files of `sidecars` beside it, .ply and .stl hold none. Colours of
    vertices go into all but .stl, if there is no texture.
    Every file is written under another name first, so that it is complete or not there.

    Args:
        texture: how .glb and .gltf hold the texture. An .obj has a PNG.

    Raises:
        BadInput: the mesh is broken, the extension or the coding is unknown, or the file cannot be written.
    """
    path = Path(path)
    texture.check()
    check_mesh(mesh, "save", needs_uvs=mesh.texture is not None, tiles=True)
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


def _plain(mesh: Mesh) -> Mesh:
    """The mesh on the CPU, in float32 and int64, without gradients."""
    uvs, texture, normals, colors = (
        None if part is None else part.detach().cpu().float()
        for part in (mesh.uvs, mesh.texture, mesh.normals, mesh.colors)
    )
    vertices = mesh.vertices.detach().cpu().float()
    return Mesh(vertices, mesh.faces.cpu().long(), uvs, texture, normals, colors if texture is None else None)


def to_trimesh(mesh: Mesh) -> trimesh.Trimesh:
    """Converts a Mesh to a trimesh with a matte material and normals, its own or smooth ones.

    It shares no memory with the mesh, since nodes of other packs change a trimesh in place.

    Raises:
        BadInput: the mesh is broken.
    """
    check_mesh(mesh, "trimesh", needs_uvs=mesh.uvs is not None, tiles=True)
    visual = None
    if mesh.colors is not None and mesh.texture is None:
        visual = trimesh.visual.ColorVisuals(vertex_colors=to_bytes(mesh.colors))
    elif mesh.uvs is not None:
        up = torch.stack([mesh.uvs[:, 0], 1 - mesh.uvs[:, 1]], dim=1).numpy()
        material = trimesh.visual.material.PBRMaterial(
            name="texture", baseColorTexture=_image(mesh.texture), metallicFactor=0.0, roughnessFactor=1.0
        )
        visual = trimesh.visual.TextureVisuals(uv=up, material=material)
    vertices, faces, normals = (part.numpy().copy() for part in (mesh.vertices, mesh.faces, _normals(mesh)))
    return trimesh.Trimesh(vertices, faces, vertex_normals=normals, visual=visual, process=False)


def _normals(mesh: Mesh) -> Tensor:
    """[V,3] the mesh's own normals, else normals that are smooth across UV seams."""
    return smooth_normals(mesh.vertices, mesh.faces) if mesh.normals is None else mesh.normals


def _image(texture: Tensor | None) -> Image.Image | None:
    if texture is None:
        return None
    image = pil_from_image(texture)
    image.format = "PNG"
    return image


def _glb(mesh: Mesh, path: Path, coding: Coding) -> dict[Path, bytes]:
    return {path: write_glb(mesh, _normals(mesh), path.stem, _encoded(mesh, coding))}


def _gltf(mesh: Mesh, path: Path, coding: Coding) -> dict[Path, bytes]:
    return {path: write_gltf(mesh, _normals(mesh), path.stem, _encoded(mesh, coding))}


def _encoded(mesh: Mesh, coding: Coding) -> Encoded | None:
    return None if mesh.texture is None else encode(mesh.texture, coding)


def _ply(mesh: Mesh, path: Path, _: Coding) -> dict[Path, bytes]:
    colors = None if mesh.colors is None else to_bytes(mesh.colors)
    whole = trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), vertex_colors=colors, process=False)
    return {path: whole.export(file_type="ply")}


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
    if mesh.colors is None:
        lines += [f"v {x:.7g} {y:.7g} {z:.7g}" for x, y, z in mesh.vertices.tolist()]
    else:
        points = torch.cat([mesh.vertices, mesh.colors], dim=1).tolist()
        lines += [f"v {x:.7g} {y:.7g} {z:.7g} {r:.5g} {g:.5g} {b:.5g}" for x, y, z, r, g, b in points]
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
    except (OSError, ValueError) as error:  # ValueError: a character that no path has
        why = getattr(error, "strerror", None) or error
        raise BadInput(
            f"save: {path} cannot be written ({why}); wanted a place with room and permission. Choose another folder."
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
