"""The textures inside a mesh file and the files that it names, checked before a pixel is decoded."""

from __future__ import annotations

import base64
import binascii
import json
import struct
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from PIL import Image, UnidentifiedImageError
from trimesh.resolvers import Resolver

from ..checks.pictures import SHORTER, check_size
from ..errors import BadInput

_BINARY_CHUNK = 0x004E4942
"""The kind of a GLB's chunks that hold binary data."""


class SideFiles(Resolver):
    """Gives trimesh the files that a mesh names, such as MTL and PNG: only out of the mesh's folder and those below.

    trimesh goes on without a texture that it cannot get, so what was refused is kept in `refused` as an error to raise.
    """

    def __init__(self, mesh: Path) -> None:
        self._mesh = mesh
        self._folder = mesh.parent.resolve()
        self.refused: BadInput | None = None
        self.instead: dict[str, bytes] = {}
        """Contents that stand for files of these names."""

    def get(self, name: str) -> bytes:
        """The content of a file; a picture's size is checked first.

        Raises:
            FileNotFoundError: there is no such file in the folder.
            BadInput: it is a picture over the limits.
        """
        if name in self.instead:
            return self.instead[name]
        given = name.strip().strip("\"'").replace("\\", "/")
        plain = unquote(given)
        last = Path(plain).name
        for candidate in (name.strip(), given, plain, plain.lstrip("/"), last, *self._in_subfolders(last)):
            # By name first: resolving a name such as //server/share would already ask that server.
            if Path(candidate).anchor or ".." in Path(candidate).parts:
                continue
            path = (self._folder / candidate).resolve()
            if path.is_relative_to(self._folder) and path.is_file():
                content = path.read_bytes()
                self.check_texture(content, candidate)
                return content
        raise FileNotFoundError(name)

    def _in_subfolders(self, name: str) -> Iterator[str]:
        """The files of that name in the folders of the mesh's folder, such as textures/skin.png."""
        for folder in sorted(self._folder.iterdir()) if name else ():
            if folder.is_dir() and not folder.is_symlink() and (folder / name).is_file():
                yield f"{folder.name}/{name}"

    def keys(self) -> list[str]:
        """The files of the folder by name."""
        return [path.name for path in self._folder.iterdir() if path.is_file()]

    def write(self, name: str, data: bytes) -> None:
        """Not supported: nothing is written where a mesh is read."""
        raise NotImplementedError(name)

    def namespaced(self, namespace: str) -> SideFiles:
        """Not supported: no format that is read here has files with names of their own."""
        raise NotImplementedError(namespace)

    def check_texture(self, content: bytes, name: str) -> None:
        """Raises BadInput, and keeps it, where a content is a picture over the limits; no pixel is decoded."""
        try:
            _check_picture(content, f"the texture {name} of {self._mesh.name}")
        except BadInput as error:
            self.refused = self.refused or error
            raise


def _check_picture(content: bytes, name: str) -> None:
    try:
        with without_size_warnings(), Image.open(BytesIO(content)) as opened:
            size = opened.size
    except Image.DecompressionBombError as error:
        raise BadInput(f"picture: {name} is far too large ({error}). {SHORTER}") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
        return  # no picture, or one that trimesh cannot read either
    check_size(size, name, smallest_px=1)


@contextmanager
def without_size_warnings() -> Iterator[None]:
    """Silences Pillow's warning of pictures that are large, but within the limits of check_size."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def check_textures(part: Any, mesh: Path) -> None:
    """Raises BadInput where a texture that trimesh has opened, but not yet decoded, is over the limits."""
    material = getattr(part.visual, "material", None)
    for kind in _TEXTURES:
        image = getattr(material, kind, None)
        if image is not None:
            check_size(image.size, f"the {kind} of {mesh.name}", smallest_px=1)


_TEXTURES = ("image", "baseColorTexture", "metallicRoughnessTexture", "normalTexture", "occlusionTexture",
             "emissiveTexture")  # fmt: skip


def read_gltf(mesh: Path, side_files: SideFiles) -> tuple[dict[str, Any], list[bytes]]:
    """The JSON of a GLB or glTF file, and the contents of its buffers.

    Raises:
        BadInput: the file is damaged, a buffer is not there, or a picture is over the limits. trimesh decodes some
            pictures while it loads a mesh, so they are looked for in the file itself.
    """
    try:
        document, chunks = _document(mesh)
        buffers = [_buffer_bytes(buffer, chunks, side_files) for buffer in document.get("buffers", ())]
        for index, image in enumerate(document.get("images", ())):
            with suppress(*_DAMAGED):  # trimesh leaves such a picture out
                side_files.check_texture(_image_bytes(image, document, buffers), str(image.get("name", index)))
        used = {view["buffer"] for view in document.get("bufferViews", ())}
        for index, (content, buffer) in enumerate(zip(buffers, document.get("buffers", ()), strict=True)):
            if index in used and len(content) < buffer["byteLength"]:
                where = str(buffer.get("uri", "its binary part"))[:80]
                raise BadInput(
                    f"load: {mesh.name} needs {buffer['byteLength']:,} bytes of {where}, and {len(content):,} are "
                    "there; wanted a whole file with all files that it names beside it. Copy them all, or export a GLB."
                )
    except _DAMAGED as error:
        raise BadInput(
            f"load: {mesh.name} cannot be read ({type(error).__name__}: {error}); wanted glTF 2.0. Export it again."
        ) from error
    return document, buffers


_DAMAGED = (OSError, LookupError, TypeError, AttributeError, struct.error)


def _document(mesh: Path) -> tuple[dict[str, Any], Iterator[bytes]]:
    """A file's JSON, and a GLB's binary chunks."""
    content = mesh.read_bytes()
    if mesh.suffix.lower() == ".gltf":
        return _parsed(content), iter(())
    whole, size = struct.unpack_from("<II", content, 8)
    if whole != len(content):
        raise BadInput(
            f"load: {mesh.name} has {len(content):,} bytes and its header says {whole:,}; wanted a whole GLB. "
            "Export it again, or copy it again."
        )
    return _parsed(content[20 : 20 + size]), _binary_chunks(content, 20 + size)


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        return dict(json.loads(content.decode("utf-8", errors="replace")))
    except ValueError as error:
        raise LookupError("no JSON") from error


def _binary_chunks(content: bytes, start: int) -> Iterator[bytes]:
    while start + 8 <= len(content):
        size, kind = struct.unpack_from("<II", content, start)
        if kind == _BINARY_CHUNK:
            yield content[start + 8 : start + 8 + size]
        start += 8 + size


def _buffer_bytes(buffer: Mapping[str, Any], chunks: Iterator[bytes], side_files: SideFiles) -> bytes:
    """A buffer's content; empty if it cannot be read, so that the pictures in other buffers are still checked."""
    try:
        return _uri_bytes(buffer["uri"], side_files) if "uri" in buffer else next(chunks, b"")
    except _DAMAGED:
        return b""


def _image_bytes(image: Mapping[str, Any], document: Mapping[str, Any], buffers: list[bytes]) -> bytes:
    if "bufferView" not in image:
        return _uri_bytes(image["uri"], None)
    view = document["bufferViews"][image["bufferView"]]
    start = view.get("byteOffset", 0)
    return buffers[view["buffer"]][start : start + view["byteLength"]]


def _uri_bytes(uri: str, side_files: SideFiles | None) -> bytes:
    """What a data URI holds, or the file of that name; pictures in files of their own are checked by SideFiles."""
    _, marked, payload = uri.partition("base64,")
    if marked:
        try:
            return base64.b64decode(payload)
        except binascii.Error as error:
            raise LookupError("no base64") from error
    return side_files.get(uri) if side_files is not None else b""
