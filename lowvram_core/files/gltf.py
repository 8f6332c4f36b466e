"""Writes a mesh as glTF 2.0, in one file: .glb, or .gltf with everything inside.

trimesh reads our files, but does not write them: it encodes textures itself, so their quality could not be chosen.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..pictures.transfer import linear
from ..types import Mesh
from .textures import Encoded

_FLOAT, _UINT32 = 5126, 5125
_VERTICES, _INDICES = 34962, 34963
_LINEAR, _LINEAR_MIPMAP_LINEAR, _CLAMP, _REPEAT = 9729, 9987, 33071, 10497
_WEBP = "EXT_texture_webp"
_UP = torch.tensor([0.0, 1.0, 0.0])
"""Normal of a vertex that no face with an area uses: glTF wants unit vectors."""


def write_glb(mesh: Mesh, normals: Tensor, name: str, texture: Encoded | None) -> bytes:
    """The content of a .glb file; see `_document`."""
    return packed(*_document(mesh, normals, name, texture))


def packed(document: Mapping[str, Any], binary: bytes) -> bytes:
    """A .glb file of a document and its binary part, whose length is a multiple of 4."""
    head = json.dumps(document, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 4)
    chunks = struct.pack("<I4s", len(head), b"JSON") + head + struct.pack("<I4s", len(binary), b"BIN\0") + binary
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def write_gltf(mesh: Mesh, normals: Tensor, name: str, texture: Encoded | None) -> bytes:
    """The content of a .gltf file that needs no other file; see `_document`."""
    document, binary = _document(mesh, normals, name, texture)
    document["buffers"][0]["uri"] = "data:application/octet-stream;base64," + base64.b64encode(binary).decode()
    return json.dumps(document, separators=(",", ":")).encode()


def _document(mesh: Mesh, normals: Tensor, name: str, texture: Encoded | None) -> tuple[dict[str, Any], bytes]:
    """The JSON and its binary buffer.

    Args:
        mesh: on the CPU, float32 and int64.
        normals: [V,3] unit normals, or zero.
        name: of the node, the mesh, the material and the picture.
        texture: the base colour, if the mesh has UVs.
    """
    buffer = _Buffer()
    given = torch.where((normals == 0).all(dim=1, keepdim=True), _UP, normals)
    attributes = {"POSITION": buffer.vectors(mesh.vertices, limits=True), "NORMAL": buffer.vectors(given)}
    if mesh.uvs is not None:
        attributes["TEXCOORD_0"] = buffer.vectors(mesh.uvs)
    if mesh.colors is not None:
        attributes["COLOR_0"] = buffer.vectors(linear(mesh.colors.clamp(0, 1)))
    primitive: dict[str, Any] = {"attributes": attributes, "indices": buffer.indices(mesh.faces)}
    document: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": "Hunyuan3D Low VRAM"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": name}],
        "meshes": [{"name": name, "primitives": [primitive]}],
    }
    if mesh.uvs is not None:
        primitive["material"] = 0
        tiles = bool(mesh.uvs.min() < -1e-4) or bool(mesh.uvs.max() > 1.0001)
        document |= _material(name, texture, buffer, tiles=tiles)
    return document | buffer.described(), buffer.content()


def _material(name: str, texture: Encoded | None, buffer: _Buffer, *, tiles: bool) -> dict[str, Any]:
    """A matte material, and its texture, which repeats if UVs lie outside of 0..1."""
    matte: dict[str, Any] = {"metallicFactor": 0.0, "roughnessFactor": 1.0}
    found: dict[str, Any] = {"materials": [{"name": name, "pbrMetallicRoughness": matte}]}
    if texture is None:
        return found
    matte["baseColorTexture"] = {"index": 0}
    wrap = _REPEAT if tiles else _CLAMP
    found["samplers"] = [{"magFilter": _LINEAR, "minFilter": _LINEAR_MIPMAP_LINEAR, "wrapS": wrap, "wrapT": wrap}]
    found["images"] = [{"bufferView": buffer.view(texture.content), "mimeType": texture.mime, "name": name}]
    found["textures"] = [{"sampler": 0, "source": 0}]
    if texture.mime == "image/webp":  # glTF itself knows PNG and JPEG
        found["textures"] = [{"sampler": 0, "extensions": {_WEBP: {"source": 0}}}]
        found["extensionsUsed"] = found["extensionsRequired"] = [_WEBP]
    return found


class _Buffer:
    """The binary data of a document, and its descriptions."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._views: list[dict[str, Any]] = []
        self._accessors: list[dict[str, Any]] = []

    def vectors(self, values: Tensor, *, limits: bool = False) -> int:
        """Adds [V,2] or [V,3] floats. Returns the number of their accessor."""
        array = values.numpy().astype("<f4")
        accessor = {"componentType": _FLOAT, "count": len(array), "type": f"VEC{array.shape[1]}"}
        if limits:
            accessor |= {"min": array.min(axis=0).tolist(), "max": array.max(axis=0).tolist()}
        return self._accessor(array, _VERTICES, accessor)

    def indices(self, faces: Tensor) -> int:
        """Adds faces [F,3]. Returns the number of their accessor."""
        array = faces.numpy().astype("<u4").reshape(-1)
        return self._accessor(array, _INDICES, {"componentType": _UINT32, "count": len(array), "type": "SCALAR"})

    def view(self, content: bytes, **more: Any) -> int:
        """Adds bytes. Returns the number of their buffer view."""
        start = sum(map(len, self._parts))
        self._views.append({"buffer": 0, "byteOffset": start, "byteLength": len(content), **more})
        self._parts.append(content + bytes(-len(content) % 4))
        return len(self._views) - 1

    def _accessor(self, array: np.ndarray, target: int, accessor: dict[str, Any]) -> int:
        self._accessors.append({"bufferView": self.view(array.tobytes(), target=target), **accessor})
        return len(self._accessors) - 1

    def content(self) -> bytes:
        """All bytes."""
        return b"".join(self._parts)

    def described(self) -> dict[str, Any]:
        """The entries of the document that describe the buffer."""
        length = sum(map(len, self._parts))
        return {"accessors": self._accessors, "bufferViews": self._views, "buffers": [{"byteLength": length}]}
