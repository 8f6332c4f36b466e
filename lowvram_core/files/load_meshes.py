"""Loads meshes from files, and takes those of trimesh."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh
from PIL import Image
from torch import Tensor

from ..checks.meshes import check_mesh
from ..errors import BadInput
from ..host import Host
from ..pictures.convert import image_from_pil
from ..pictures.transfer import linear, srgb
from ..types import Mesh
from .formats import READABLE_MESHES
from .names import is_file
from .parts import Part, joined
from .pictures import to_eight_bit
from .plain_gltf import COLOR, plain_gltf
from .plain_obj import plain_obj
from .side_files import SideFiles, check_textures, read_gltf, without_size_warnings


def load_mesh(path: Path | str, host: Host | None = None) -> Mesh:
    """Loads a mesh file as one mesh, with its UVs, its base colour texture or vertex colours, and its normals.

    Parts with textures get one texture together. Vertices of a mesh without UVs are welded. The host gets a note of
    what is lost. Files that the mesh names, such as MTL and PNG, are read only from its folder and the folders below.

    Raises:
        BadInput: the file is not there, of an unknown format, holds no usable mesh, is compressed in a way that cannot
            be read, or has a texture over the limits of pictures.
    """
    path = Path(path)
    if path.suffix.lower() not in READABLE_MESHES:
        raise BadInput(
            f"load: the file name ends in {path.suffix!r}; wanted one of {', '.join(READABLE_MESHES)}. "
            "Convert the mesh."
        )
    if not is_file(path):
        raise BadInput(f"load: there is no file {path.name} in {path.parent}; wanted a mesh. Check the path.")
    notes: list[str] = []
    mesh = _mesh_of(_read_scene(path, notes), path, notes)
    check_mesh(mesh, "load")
    if host is not None:
        for note in notes:
            host.note(note)
    return mesh


def from_trimesh(thing: Any, host: Host | None = None) -> Mesh:
    """Converts a Trimesh or a Scene to one Mesh, with UVs, texture or vertex colours.

    A scene's parts get their places in it. The host gets a note of what is lost.

    Raises:
        BadInput: it is nothing of trimesh, or holds no triangles.
    """
    if not isinstance(thing, (trimesh.Trimesh, trimesh.Scene)):
        met = "nothing is connected" if thing is None else f"a {type(thing).__name__} came"
        advice = "A point cloud has no surface: make a mesh of it first." if "Cloud" in met else "Connect a mesh."
        raise BadInput(f"trimesh: {met}; wanted a trimesh.Trimesh or trimesh.Scene. {advice}")
    notes: list[str] = []
    scene = trimesh.Scene(thing) if isinstance(thing, trimesh.Trimesh) else thing
    parts = [part for part in scene.dump() if isinstance(part, trimesh.Trimesh)]
    if not any(len(part.faces) for part in parts):
        raise BadInput("trimesh: it holds no triangles; wanted a mesh. Connect another one.")
    mesh = joined([_part(part, None) for part in parts], lambda text: notes.append(f"trimesh: {text}."))
    if host is not None:
        for note in notes:
            host.note(note)
    return mesh


def _mesh_of(scene: trimesh.Scene, path: Path, notes: list[str]) -> Mesh:
    for part in scene.geometry.values():
        check_textures(part, path)
    try:
        found = [
            _part(part, _given_normals(scene, part))
            for part in scene.dump()  # this copies the textures, and so decodes them
            if isinstance(part, trimesh.Trimesh) and len(part.faces)
        ]
    except BadInput:
        raise
    except Exception as error:  # Pillow and trimesh fail in their own ways on a damaged file
        raise _unreadable(path, error) from error
    if not found:
        raise BadInput(f"load: {path.name} holds no triangles; wanted a mesh. Export it as triangles.")
    return joined(found, lambda text: notes.append(f"load: {path.name}: {text}."))


def _read_scene(path: Path, notes: list[str]) -> trimesh.Scene:
    side_files = SideFiles(path)
    kind = path.suffix.lower()[1:]
    try:
        with without_size_warnings():
            scene = trimesh.load_scene(
                _content(path, kind, side_files, notes), process=False, resolver=side_files,
                file_type="glb" if kind == "gltf" else kind,
            )  # fmt: skip
    except BadInput:
        raise
    except Exception as error:  # each of trimesh's readers fails in its own ways on a damaged file
        raise side_files.refused or _unreadable(path, error) from error
    if side_files.refused is not None:
        raise side_files.refused
    return scene


def _content(path: Path, kind: str, side_files: SideFiles, notes: list[str]) -> BytesIO:
    """The file's content, rewritten where trimesh would read it wrongly."""
    if kind in ("glb", "gltf"):
        content, said = plain_gltf(*read_gltf(path, side_files), path.name)
        notes += said
        return BytesIO(content)
    if kind == "obj":
        plain = plain_obj(path.read_bytes(), path.name, side_files.get)
        side_files.instead |= plain.files
        notes += plain.notes
        return BytesIO(plain.content)
    return BytesIO(path.read_bytes())


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


def _part(mesh: trimesh.Trimesh, normals: Tensor | None) -> Part:
    """One part, with the colours of its material."""
    vertices = torch.from_numpy(np.asarray(mesh.vertices, dtype=np.float32).copy())
    faces = torch.from_numpy(np.asarray(mesh.faces, dtype=np.int64).copy())
    if len(faces) and not 0 <= int(faces.min()) <= int(faces.max()) < len(vertices):
        raise BadInput(
            f"load: a face names vertices {int(faces.min())} to {int(faces.max())} of {len(vertices)}; wanted a whole "
            "mesh. Export it again."
        )
    uv = getattr(mesh.visual, "uv", None)
    usable = uv is not None and len(uv) == len(vertices)
    uvs = None if not usable else torch.from_numpy(np.asarray(uv, dtype=np.float32)[:, :2].copy())
    if uvs is not None:
        uvs = torch.stack([uvs[:, 0], 1 - uvs[:, 1]], dim=1)
    material = getattr(mesh.visual, "material", None)
    picture = _picture(material) if usable else None
    colors = _colors(mesh, material)
    if picture is None:
        return Part(vertices, faces, normals, uvs, None, colors)
    texture = image_from_pil(to_eight_bit(picture, "a texture"))
    factor = _factor(mesh, material)
    return Part(vertices, faces, normals, uvs, texture if factor is None else srgb(linear(texture) * factor))


def _picture(material: Any) -> Image.Image | None:
    image = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    if not isinstance(image, Image.Image):
        return None
    return None if _is_invented(material, image) else image


def _is_invented(material: Any, image: Image.Image) -> bool:
    """Whether trimesh made the picture up for UVs without a material: four pixels of one grey."""
    if not isinstance(material, trimesh.visual.material.SimpleMaterial) or image.size != (2, 2):
        return False
    return "file_path" not in image.info and len(np.unique(np.asarray(image.convert("RGB")).reshape(4, 3), axis=0)) == 1


def _factor(mesh: trimesh.Trimesh, material: Any) -> Tensor | None:
    """[3] what a texture's linear colours are multiplied with."""
    if COLOR in mesh.vertex_attributes:
        return torch.from_numpy(np.asarray(mesh.vertex_attributes[COLOR][0], dtype=np.float32).copy())
    given = getattr(material, "baseColorFactor", None)
    factor = None if given is None else torch.from_numpy(np.asarray(given)[:3].astype(np.float32)) / 255
    return None if factor is None or bool((factor == 1).all()) else factor


def _colors(mesh: trimesh.Trimesh, material: Any) -> Tensor | None:
    """[V,3] sRGB; None if the mesh has no colours of its own."""
    if COLOR in mesh.vertex_attributes:
        return srgb(torch.from_numpy(np.asarray(mesh.vertex_attributes[COLOR], dtype=np.float32).copy()).clamp(0, 1))
    if material is not None:
        return _plain_color(material, len(mesh.vertices))
    if getattr(mesh.visual, "kind", None) not in ("vertex", "face"):
        return None
    return torch.from_numpy(np.asarray(mesh.visual.vertex_colors)[:, :3].astype(np.float32)) / 255


def _plain_color(material: Any, count: int) -> Tensor | None:
    """[count,3] the colour of a material without a texture; None if it is the default."""
    if isinstance(material, trimesh.visual.material.PBRMaterial):
        factor = _factor(trimesh.Trimesh(), material)
        return None if factor is None else srgb(factor).expand(count, 3)
    given = np.asarray(getattr(material, "diffuse", None))
    if given.shape != (4,) or _is_default(material):
        return None
    return torch.from_numpy(given[:3].astype(np.float32)).div(255).expand(count, 3)


def _is_default(material: Any) -> bool:
    return bool((np.asarray(material.diffuse) == trimesh.visual.color.DEFAULT_COLOR).all())
