"""Weights into modules: built empty, filled from memory-mapped files, one copy and no more.

No code from a checkpoint's folder is run, and pickles are read as weights only.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import re
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn

from ..errors import BadCheckpoint

StateDict = dict[str, Tensor]


class Entry(NamedTuple):
    """One tensor as a checkpoint's header lists it."""

    shape: tuple[int, ...]
    bytes: int


def build_empty(make: Callable[[], nn.Module]) -> nn.Module:
    """The module with its parameters on the meta device (no memory) and real buffers; draws no random numbers."""
    with torch.random.fork_rng(devices=[]), init_empty_weights(include_buffers=False):
        return make()


def read_header(path: Path) -> dict[str, Entry]:
    """Names, shapes and sizes of a safetensors file, without its data.

    Raises:
        BadCheckpoint: the file is not one, or is shorter than its header says.
    """
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > path.stat().st_size:
                raise ValueError("header longer than the file")
            header: dict[str, Any] = json.loads(file.read(length))
    except (OSError, struct.error, ValueError) as error:
        raise BadCheckpoint(
            f"models: {path} cannot be read ({error}); wanted a whole safetensors file. "
            "Delete it and download it again."
        ) from error
    header.pop("__metadata__", None)
    end = 8 + length + max((item["data_offsets"][1] for item in header.values()), default=0)
    if path.stat().st_size < end:
        raise BadCheckpoint(
            f"models: {path} has {path.stat().st_size} bytes; its header speaks of {end}. "
            "The download was cut off: delete the file and download it again."
        )
    spans = {name: item["data_offsets"] for name, item in header.items()}
    return {name: Entry(tuple(header[name]["shape"]), span[1] - span[0]) for name, span in spans.items()}


def read_safetensors(path: Path, prefix: str = "") -> StateDict:
    """The tensors whose names start with `prefix`, without it; memory-mapped, so nothing is read yet."""
    from safetensors import safe_open

    read_header(path)
    with safe_open(path, framework="pt", device="cpu") as file:
        return {name[len(prefix) :]: file.get_tensor(name) for name in file.keys() if name.startswith(prefix)}  # noqa: SIM118


def read_pickle(path: Path) -> StateDict:
    """The tensors of a PyTorch .bin, memory-mapped; only weights are unpickled.

    Raises:
        BadCheckpoint: the file is truncated, or holds anything but tensors.
    """
    try:
        state = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except Exception as error:
        raise BadCheckpoint(
            f"models: {path} cannot be read as weights ({error}); wanted a whole PyTorch file of tensors. "
            "Delete it and download it again."
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise BadCheckpoint(
            f"models: {path} holds something else than tensors; wanted a state dict. Download it again."
        )
    return dict(state)


def fill(module: nn.Module, state: StateDict, dtype: torch.dtype, source: Path) -> nn.Module:
    """Gives an empty module its weights, in evaluation mode and at `dtype`.

    Memory: weights already at `dtype` stay memory-mapped, no copy is made; others are copied tensor by tensor, and on
    Linux the pages read for it leave RAM at once. Elsewhere they stay until the system wants them.

    Raises:
        BadCheckpoint: names or shapes are not the module's.
    """
    check_layout(module, {name: Entry(tuple(value.shape), value.nbytes) for name, value in state.items()}, source)
    module.load_state_dict(_at(dtype, state, source), assign=True)
    return module.requires_grad_(False).eval().to(dtype)


def _at(dtype: torch.dtype, state: StateDict, source: Path) -> StateDict:
    others = {name for name, value in state.items() if value.is_floating_point() and value.dtype != dtype}
    spans = _spans_of(source) if others else []
    converted: StateDict = {}
    for name, value in state.items():
        converted[name] = value.to(dtype) if name in others else value
        if name in others:
            _give_back(value, spans)
    return converted


def _spans_of(file: Path) -> list[range]:
    """The addresses that a file is mapped to; none where the system does not list them, as Windows."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return []
    spans = []
    for line in maps.read_text(encoding="utf-8", errors="surrogateescape").split("\n"):
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5] == str(file.resolve()):
            first, _, end = fields[0].partition("-")
            spans.append(range(int(first, 16), int(end, 16)))
    return spans


def _give_back(tensor: Tensor, spans: list[range]) -> None:
    """Takes a tensor's pages out of RAM; they come from the file again when asked for.

    Of memory that is no file's this would lose what is there, so the tensor must lie in one of the file's spans.
    """
    first, end = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
    if tensor.nbytes and any(first in span and end - 1 in span for span in spans):
        first -= first % mmap.PAGESIZE
        libc = ctypes.CDLL(None)
        libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(end - first), mmap.MADV_DONTNEED)


def check_layout(module: nn.Module, entries: Mapping[str, Entry], source: Path) -> None:
    """Raises BadCheckpoint where a checkpoint's names or shapes are not the module's."""
    wanted = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    missing = sorted(wanted.keys() - entries.keys())
    unknown = sorted(entries.keys() - wanted.keys())
    misshapen = [
        f"{name} {entries[name].shape} instead of {shape}"
        for name, shape in wanted.items()
        if name in entries and entries[name].shape != shape
    ]
    for kind, names in (("lacks", missing), ("has the unknown", unknown), ("has", misshapen)):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise BadCheckpoint(
                f"models: {source} {kind} {', '.join(names[:3])}{more}; wanted the layout that its configuration "
                "describes. The files are of another variant, or mixed: download this folder again."
            )


def bytes_at(entries: Mapping[str, Entry], dtype: torch.dtype) -> int:
    """Bytes of a checkpoint's tensors once they are at `dtype`."""
    return sum(_numel(entry.shape) for entry in entries.values()) * dtype.itemsize


def largest_layer_bytes(entries: Mapping[str, Entry], dtype: torch.dtype, blocks: str = "") -> int:
    """The most bytes that the tensors of one layer have, or of one block.

    Args:
        blocks: pattern of the names of modules that count as a whole.
    """
    sizes: dict[str, int] = {}
    for name, entry in entries.items():
        found = re.match(f"({blocks})\\.", name) if blocks else None
        unit = found[1] if found else name.rpartition(".")[0]
        sizes[unit] = sizes.get(unit, 0) + _numel(entry.shape) * dtype.itemsize
    return max(sizes.values(), default=0)


def _numel(shape: tuple[int, ...]) -> int:
    count = 1
    for edge in shape:
        count *= edge
    return count
