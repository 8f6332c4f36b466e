"""Rewrites a glTF document so that trimesh reads it right.

trimesh 5.2 reads whole numbers that stand for fractions as whole numbers, fills sparse accessors with zeros, always
takes the first set of UVs, and knows no transform of a texture. Here each primitive gets plain float attributes, and
all buffers become one. What cannot be kept is named in notes.

Source: glTF 2.0; KHR_mesh_quantization; KHR_texture_transform with the direction of rotation of Khronos' sample viewer
and three.js.
"""

from __future__ import annotations

import copy
import importlib.util
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import BadInput
from .gltf import packed

COLOR = "_LOWVRAM_COLOR"
"""The attribute [V,3] that holds the linear colour of an untextured primitive: its vertex colours times its material's
colour. On a textured primitive, it is the factor of the texture, the same at each vertex."""

_DTYPES = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
_LINES, _FAN = (0, 1, 2, 3), 6
_FLOAT, _UINT32 = 5126, 5125
_LARGEST_COUNT = 2**27
"""Of an accessor without data, which costs nothing in the file."""

_DRACO, _TRANSFORM = "KHR_draco_mesh_compression", "KHR_texture_transform"
_SPECULAR = "KHR_materials_pbrSpecularGlossiness"
_REFUSED = {
    "EXT_meshopt_compression": "its mesh is compressed with meshopt",
    "KHR_meshopt_compression": "its mesh is compressed with meshopt",
    "KHR_texture_basisu": "its textures are compressed with Basis Universal (KTX2)",
    "EXT_mesh_gpu_instancing": "it holds instances for the GPU",
}
_UNDERSTOOD = (_DRACO, _TRANSFORM, "KHR_mesh_quantization", "EXT_texture_webp", "KHR_lights_punctual")

Document = dict[str, Any]


def plain_gltf(document: Mapping[str, Any], buffers: Sequence[bytes], name: str) -> tuple[bytes, list[str]]:
    """A GLB of the same scene that trimesh reads right, and notes about what is lost.

    Args:
        document: the file's JSON.
        buffers: the contents of its buffers.
        name: of the file, for messages.

    Raises:
        BadInput: an extension that the file requires is not understood, or the file is damaged.
    """
    _check_extensions(document, name)
    try:
        plain = _Plain(document, buffers, name)
        plain.rewrite()
        return plain.glb(), plain.notes
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, struct.error) as error:
        raise BadInput(
            f"load: {name} cannot be read ({type(error).__name__}: {error}); wanted glTF 2.0. Export it again."
        ) from error


def _check_extensions(document: Mapping[str, Any], name: str) -> None:
    """Raises BadInput where the file requires what is not understood."""
    required = document.get("extensionsRequired") or ()
    for extension in required if isinstance(required, (list, tuple)) else ():
        if extension in _REFUSED:
            raise BadInput(
                f"load: {name} cannot be read, because {_REFUSED[extension]}; wanted a plain file. "
                "Export it without compression."
            )
        if extension not in _UNDERSTOOD and not str(extension).startswith("KHR_materials_"):
            raise BadInput(
                f"load: {name} requires the glTF extension {str(extension)[:80]}, which is not understood; wanted "
                f"none, or one of {', '.join(_UNDERSTOOD)}. Export it without."
            )


class _Plain:
    def __init__(self, document: Mapping[str, Any], buffers: Sequence[bytes], name: str) -> None:
        self.document: Document = copy.deepcopy(dict(document))
        self.notes: list[str] = []
        self._name = name
        self._binary: list[bytes] = []
        self._length = 0
        starts = [self._append(content) for content in buffers]
        self._views: list[Document] = self.document.setdefault("bufferViews", [])
        self._accessors: list[Document] = self.document.setdefault("accessors", [])
        self._contents = [_view_of(buffers, view) for view in self._views]
        for view in self._views:
            view["byteOffset"] = view.get("byteOffset", 0) + starts[view["buffer"]]
            view["buffer"] = 0

    def rewrite(self) -> None:
        """Rewrites every primitive."""
        for mesh in self.document.get("meshes", ()):
            for primitive in mesh["primitives"]:
                self._primitive(primitive)
            if any(primitive.get("mode", 4) in _LINES for primitive in mesh["primitives"]):
                self._note("its points and lines were left out")
            mesh["primitives"] = [part for part in mesh["primitives"] if part.get("mode", 4) not in _LINES]
        self.document["meshes"] = self.document.get("meshes", [])
        if self.document.get("skins") or self.document.get("animations"):
            self._note("its bones and animations were left out; the mesh has the pose that it is stored in")
        for extension in ("EXT_mesh_gpu_instancing", "KHR_texture_basisu"):
            if extension in (self.document.get("extensionsUsed") or ()):
                self._note(f"{extension} is not understood, so what it holds was left out")

    def glb(self) -> bytes:
        """The document as a GLB."""
        self.document["buffers"] = [{"byteLength": self._length}]
        for key in ("extensionsRequired", "animations", "skins"):
            self.document.pop(key, None)
        return packed(self.document, b"".join(self._binary))

    def _primitive(self, primitive: Document) -> None:
        attributes = primitive["attributes"]
        if _DRACO in (primitive.get("extensions") or {}):
            self._decode_draco(primitive)
        for key in ("POSITION", "NORMAL"):
            if key in attributes and not self._is_plain(attributes[key]):
                attributes[key] = self._add(self.read(attributes[key])[:, :3])
        if primitive.get("mode", 4) == _FAN:
            self._fan(primitive)
        elif "indices" in primitive and "sparse" in self._accessors[primitive["indices"]]:
            primitive["indices"] = self._add(self.read(primitive["indices"]).astype("<u4"))
        if primitive.get("mode", 4) not in _LINES:
            self._material(primitive)

    def _is_plain(self, index: int) -> bool:
        accessor = self._accessors[index]
        return accessor["componentType"] == _FLOAT and "sparse" not in accessor

    def _fan(self, primitive: Document) -> None:
        """Makes triangles of a fan."""
        corners = (
            self.read(primitive["indices"])[:, 0].astype(np.int64)
            if "indices" in primitive
            else np.arange(self._accessors[primitive["attributes"]["POSITION"]]["count"])
        )
        rest = len(corners) - 2
        faces = np.stack([np.repeat(corners[:1], rest), corners[1:-1], corners[2:]], axis=1)
        primitive["indices"] = self._add(faces.reshape(-1, 1).astype("<u4"))
        primitive["mode"] = 4

    def _material(self, primitive: Document) -> None:
        """Gives the primitive the UVs of its colour texture as TEXCOORD_0, and its colour as COLOR."""
        attributes = primitive["attributes"]
        materials = self.document.setdefault("materials", [])
        if "material" not in primitive and "TEXCOORD_0" in attributes:
            materials.append({})  # without a material, trimesh leaves out the UVs
            primitive["material"] = len(materials) - 1
        texture, factor = _colour_of(materials[primitive["material"]] if "material" in primitive else {}, self._note)
        colours = attributes.pop("COLOR_0", None)
        if texture is not None:
            self._uvs(attributes, texture)
            if colours is not None and float(self.read(colours)[:, :3].min()) < 0.999:
                self._note("its vertex colours were left out, because a texture lies over them")
            colours = None
        count = self._accessors[attributes["POSITION"]]["count"]
        if colours is not None:
            attributes[COLOR] = self._add(self.read(colours)[:, :3] * factor)
        elif factor != (1.0, 1.0, 1.0):
            attributes[COLOR] = self._add(np.tile(np.array(factor, np.float32), (count, 1)))

    def _uvs(self, attributes: Document, texture: Mapping[str, Any]) -> None:
        """Makes the UVs of a texture the first set, with its transform."""
        transform = (texture.get("extensions") or {}).get(_TRANSFORM) or {}
        wanted = f"TEXCOORD_{transform.get('texCoord', texture.get('texCoord', 0))}"
        if wanted not in attributes:
            self._note(f"a texture wants the UVs {wanted}, which are not there")
            attributes.pop("TEXCOORD_0", None)
            return
        if wanted == "TEXCOORD_0" and not transform and self._is_plain(attributes[wanted]):
            return
        u, v = self.read(attributes[wanted]).astype(np.float64)[:, :2].T * np.array(
            transform.get("scale", (1.0, 1.0)), np.float64
        ).reshape(2, 1)
        turn, (right, down) = float(transform.get("rotation", 0.0)), transform.get("offset", (0.0, 0.0))
        cos, sin = math.cos(turn), math.sin(turn)
        moved = np.stack([cos * u + sin * v + right, cos * v - sin * u + down], axis=1)
        attributes["TEXCOORD_0"] = self._add(moved)

    def read(self, index: int) -> np.ndarray:
        """[count,width] the values of an accessor: floats, or whole numbers where they stand for themselves."""
        accessor = self._accessors[index]
        count, width = int(accessor["count"]), _WIDTHS[accessor["type"]]
        dtype = np.dtype(_DTYPES[accessor["componentType"]])
        if not 0 <= count <= _LARGEST_COUNT:
            raise ValueError(f"an accessor of {count:,} values")
        if "bufferView" in accessor:
            values = self._from_view(accessor["bufferView"], accessor.get("byteOffset", 0), dtype, count, width)
        else:
            values = np.zeros((count, width), dtype)
        if "sparse" in accessor:
            values = self._with_sparse(values, accessor["sparse"])
        if accessor.get("normalized") and dtype.kind in "iu":
            return np.maximum(values.astype(np.float32) / np.iinfo(dtype).max, -1.0)
        return values

    def _with_sparse(self, values: np.ndarray, sparse: Mapping[str, Any]) -> np.ndarray:
        count, places, new = int(sparse["count"]), sparse["indices"], sparse["values"]
        where = self._from_view(
            places["bufferView"], places.get("byteOffset", 0), np.dtype(_DTYPES[places["componentType"]]), count, 1
        )
        values = values.copy()
        values[where[:, 0]] = self._from_view(
            new["bufferView"], new.get("byteOffset", 0), values.dtype, count, values.shape[1]
        )
        return values

    def _from_view(self, index: int, start: int, dtype: np.dtype, count: int, width: int) -> np.ndarray:
        """[count,width] numbers of a buffer view."""
        stride = self._views[index].get("byteStride") or width * dtype.itemsize
        content = self._contents[index]
        if count and (start < 0 or start + (count - 1) * stride + width * dtype.itemsize > len(content)):
            raise ValueError(f"a buffer view of {len(content):,} bytes for {count:,} values")
        return np.ndarray((count, width), dtype, content, start, (stride, dtype.itemsize)).copy()

    def _add(self, values: np.ndarray) -> int:
        """Appends floats, or whole numbers of 32 bits. Returns the number of their accessor."""
        whole = values.dtype.kind == "u"
        array = np.ascontiguousarray(values, "<u4" if whole else "<f4")
        start = self._append(array.tobytes())
        self._views.append({"buffer": 0, "byteOffset": start, "byteLength": array.nbytes})
        self._contents.append(array.tobytes())
        kind = "SCALAR" if array.shape[1] == 1 else f"VEC{array.shape[1]}"
        self._accessors.append(
            {"bufferView": len(self._views) - 1, "componentType": _UINT32 if whole else _FLOAT, "count": len(array),
             "type": kind}
        )  # fmt: skip
        return len(self._accessors) - 1

    def _append(self, content: bytes) -> int:
        """Adds bytes to the buffer. Returns where they start."""
        start = self._length
        self._binary.append(content + bytes(-len(content) % 8))
        self._length += len(self._binary[-1])
        return start

    def _decode_draco(self, primitive: Document) -> None:
        if importlib.util.find_spec("DracoPy") is None:
            raise BadInput(
                f"load: {self._name} cannot be read, because its mesh is compressed with Draco; wanted a plain file, "
                "or the package DracoPy. Export it without compression, or run: pip install DracoPy"
            )
        import DracoPy

        packed = primitive["extensions"].pop(_DRACO)
        try:
            decoded = DracoPy.decode(self._contents[packed["bufferView"]])
        except Exception as error:  # of its own kinds
            raise ValueError(f"Draco: {error}") from error
        found = {entry["unique_id"]: entry["data"] for entry in decoded.attributes}
        for key, number in packed["attributes"].items():
            values = np.asarray(found[number]).reshape(len(decoded.points), -1)
            accessor = self._accessors[primitive["attributes"][key]]
            if accessor.get("normalized") and values.dtype.kind in "iu":
                values = np.maximum(values / np.iinfo(values.dtype).max, -1.0)
            primitive["attributes"][key] = self._add(values.astype(np.float32))
        primitive["indices"] = self._add(np.asarray(decoded.faces).reshape(-1, 1).astype(np.uint32))
        primitive["mode"] = 4

    def _note(self, text: str) -> None:
        note = f"load: {self._name}: {text}."
        if note not in self.notes:
            self.notes.append(note)


def _view_of(buffers: Sequence[bytes], view: Mapping[str, Any]) -> bytes:
    start = view.get("byteOffset", 0)
    return buffers[view["buffer"]][start : start + view["byteLength"]]


def _colour_of(
    material: Document, note: Callable[[str], None]
) -> tuple[Mapping[str, Any] | None, tuple[float, float, float]]:
    """The description of a material's colour texture, and its linear colour factor.

    A material that only shines shows its emission: it becomes the base colour.
    """
    specular = (material.get("extensions") or {}).get(_SPECULAR)
    if specular is not None:
        return specular.get("diffuseTexture"), _factor(specular.get("diffuseFactor"))
    base = material.get("pbrMetallicRoughness") or {}
    texture, factor = base.get("baseColorTexture"), _factor(base.get("baseColorFactor"))
    emission = _factor(material.get("emissiveFactor", (0.0, 0.0, 0.0)))
    shines = "emissiveTexture" in material or max(emission) > 0
    if texture is None and shines and (max(factor) < 0.01 or "emissiveTexture" in material):
        note("its emission was taken as its colour, because the material has no other")
        texture, factor = material.get("emissiveTexture"), emission
        base = {**base, "baseColorFactor": [*factor, 1.0]}
        material["pbrMetallicRoughness"] = base | ({} if texture is None else {"baseColorTexture": texture})
    return texture, factor


def _factor(values: Sequence[float] | None) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in (values or (1.0, 1.0, 1.0))[:3])
    return red, green, blue
