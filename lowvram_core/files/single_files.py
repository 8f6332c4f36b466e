"""Shape models that other programs keep as one file: ComfyUI's checkpoints, and files of other packs.

ComfyUI's own Hunyuan3D-2 nodes load one file from models/checkpoints. Its tensors have upstream's names: `model.`,
`vae.` and `conditioner.`, as in the published model.fp16.safetensors. A checkpoint that ComfyUI has saved itself names
the scales of the transformer's norms `weight`. Such a file replaces the published one if its names, shapes and
precision are the same.

The tensors do not tell the variants apart: v2-0 and mv have the same layout. So the file's name chooses the variant.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from ..errors import BadCheckpoint
from .checkpoints import Shape, read_layout
from .manifest import Model

PRECISION = "F16"
"""The precision of the published weights, by its name in safetensors files."""

_PLACES = ("*.safetensors", "*/*.safetensors", "checkpoints/*/*.safetensors", "diffusion_models/*/*.safetensors")
"""Where the files lie in a models folder, or in a folder of models folders such as ComfyUI's `models`."""

_NORM = re.compile(r"((?:query|key)_norm)\.weight$")

Item = TypeVar("Item")


@dataclass(frozen=True)
class SingleFile:
    """What was found for a model."""

    path: Path | None = None
    """The file that is used; None if there is none."""
    refused: tuple[str, ...] = ()
    """For each file that has the right name but is not used: its path, and why."""


def find_single_file(model: Model, roots: Iterable[Path]) -> SingleFile:
    """Looks for one file with the model's weights. A file counts only if names, shapes and precision are the published.

    Args:
        roots: models folders, best first.
    """
    refused: list[str] = []
    for path in _named(model, roots):
        state = path.stat()
        problem = _problem(path, model.layout, state.st_size, state.st_mtime_ns)
        if not problem:
            return SingleFile(path, tuple(refused))
        refused.append(f"{path} {problem}")
    return SingleFile(None, tuple(refused))


def _named(model: Model, roots: Iterable[Path]) -> Iterator[Path]:
    """The files with the model's name, without those of a name that is the same on another way."""
    names, seen = file_names(model), set()
    for root in roots:
        for place in _PLACES:
            for path in sorted(root.glob(place)):
                if re.sub("[-_.]fp16$", "", path.stem.lower()) in names and path.is_file() and path not in seen:
                    seen.add(path)
                    yield path


def file_names(model: Model) -> tuple[str, ...]:
    """The names of such a file, without `_fp16` and the ending: hunyuan3d-dit-v2-0 is hunyuan3d-dit-v2 in ComfyUI."""
    return tuple(dict.fromkeys((model.folder, model.folder.replace("-v2-0", "-v2"))))


@lru_cache(maxsize=64)
def _problem(path: Path, layout: str, size: int, mtime_ns: int) -> str:
    """Why the file cannot be used; empty if it can.

    Args:
        size, mtime_ns: of the file, so that another file of that name is read again.
    """
    try:
        found = read_layout(path)
    except BadCheckpoint:
        return "is truncated or not a safetensors file"
    precisions = sorted({precision for _, precision in found.values()})
    if precisions != [PRECISION]:
        return f"is in {', '.join(precisions) or 'no precision'}, not in {PRECISION}"
    if layout_of({name: shape for name, (shape, _) in found.items()}) != layout:
        parts = sorted({name.partition(".")[0] for name in found})
        return f"has other tensors than the published file (its parts: {', '.join(parts[:5])})"
    return ""


def layout_of(entries: Mapping[str, Shape]) -> str:
    """The SHA-256 of the names and shapes of a file's tensors under upstream's names."""
    lines = (f"{name} {shape}" for name, shape in sorted(upstream_names(entries).items()))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def upstream_names(state: Mapping[str, Item]) -> dict[str, Item]:
    """Tensors of a shape model, or their shapes, under upstream's names: a norm's scale is not called weight."""
    return {_NORM.sub(r"\1.scale", name): item for name, item in state.items()}
