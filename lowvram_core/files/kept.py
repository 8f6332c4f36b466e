"""A small tensor that was computed from a model's weights, kept on the disk so that the weights need not be loaded.

The file names the SHA-256 of the weights. It also names their size and times, so that the weights are hashed again only
if one of these differs.
"""

from __future__ import annotations

import hashlib
import logging
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

log = logging.getLogger(__name__)

_in_memory: dict[str, Tensor] = {}
"""By file name and the state of the weights, for machines where no folder can be written."""


@dataclass(frozen=True)
class KeptTensor:
    """One tensor, and everything that it depends on."""

    name: str
    """First part of the file's name."""
    weights: Path
    """The file that the tensor is computed from. The kept file lies in `folder`, or else in the user's cache."""
    folder: Path
    """The model's folder."""
    recipe: Mapping[str, str]
    """What else the bits depend on, such as precision, device and versions. Another recipe gives another file."""

    def read(self) -> Tensor | None:
        """The tensor on the CPU. None if there is no file, or if a file is damaged or of other weights."""
        for file in self._files():
            tensor = self._checked(file)
            if tensor is not None:
                return tensor
        kept = _in_memory.get(self._memory_key())
        return None if kept is None else kept.clone()

    def write(self, tensor: Tensor) -> None:
        """Keeps the tensor beside the model, else in the user's cache folder, else in memory.

        Strides choose kernels, and a file has none. So a tensor that is not contiguous is not kept.
        """
        own = tensor.detach().cpu()
        if not own.is_contiguous():
            return
        digest = _sha256(self.weights)
        for file in self._files():
            if self._written(file, own, digest):
                return
        _in_memory[self._memory_key()] = own.clone()

    def _files(self) -> Iterator[Path]:
        """The places of the file, best first."""
        yield self.folder / f"{self.name}.{_digest(self.recipe)}.safetensors"
        # in the cache, the folder tells two copies of the model apart
        here = {**self.recipe, "folder": str(self.folder.resolve())}
        yield Path.home() / ".cache" / "hunyuan3d-lowvram" / f"{self.name}.{_digest(here)}.safetensors"

    def _memory_key(self) -> str:
        return f"{self.weights.resolve()} {_digest(self.recipe)} {_state(self.weights)}"

    def _checked(self, file: Path) -> Tensor | None:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(file, framework="pt", device="cpu") as opened:
                told = opened.metadata() or {}
                tensor: Tensor = opened.get_tensor(self.name).clone()  # the file can then be replaced on Windows
        except (OSError, SafetensorError):
            return None
        if told.get("content") != _content(tensor):
            log.info("models: %s is damaged; it is computed again", file)
            return None
        if told.get("state") == _state(self.weights):
            return tensor
        digest = _sha256(self.weights)
        if told.get("weights") != digest:
            return None
        self._written(file, tensor, digest)  # the same weights with other times, such as a copy
        return tensor

    def _written(self, file: Path, tensor: Tensor, digest: str) -> bool:
        """Writes the file, complete or not at all. Returns whether it could be written."""
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        told = {"weights": digest, "state": _state(self.weights), "content": _content(tensor), **self.recipe}
        part = file.with_name(f".{file.name}.{uuid.uuid4().hex}.part")  # two processes never write one file
        try:
            if file.parent != self.folder:
                file.parent.mkdir(parents=True, exist_ok=True)
            save_file({self.name: tensor}, part, metadata=told)
            part.replace(file)
        except (OSError, SafetensorError):
            return False
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)
        return True


def _digest(recipe: Mapping[str, str]) -> str:
    text = "\n".join(f"{name}={value}" for name, value in sorted(recipe.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _content(tensor: Tensor) -> str:
    """Names a tensor's shape, precision and bytes."""
    numbers = hashlib.sha256(tensor.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()
    return f"{tuple(tensor.shape)} {tensor.dtype} {numbers}"


def _state(file: Path) -> str:
    """The file's size and times. The time of change is in it, since a copy can keep the time of modification."""
    found = file.stat()
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def hash_of_files(files: list[Path]) -> str:
    """One SHA-256 of the names and contents of small files, in order. Files that are not there are left out."""
    digest = hashlib.sha256()
    for file in files:
        if file.is_file():
            digest.update(f"{file.name}\0{file.stat().st_size}\0".encode() + file.read_bytes())
    return digest.hexdigest()
