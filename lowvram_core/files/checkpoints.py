"""Reads weights from memory-mapped files into modules that were built empty, so that there is at most one copy.

No code from a checkpoint's folder is run. Pickles are read as weights only.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.torch_version import TorchVersion

from ..errors import BadCheckpoint
from ..host import FilePart
from .mapped import file_spans, give_back

StateDict = dict[str, Tensor]
Shape = tuple[int, ...]

SAFE_PICKLES = "2.10"
"""The first torch that reads pickles safely: in older ones a crafted file corrupts memory, and can so run code, even
with `weights_only=True`. Source: CVE-2026-24747 and CVE-2025-32434."""


def build_empty(make: Callable[[], nn.Module]) -> nn.Module:
    """Builds the module with parameters on the meta device (no memory) and real buffers; draws no random numbers."""
    with torch.random.fork_rng(devices=[]), init_empty_weights(include_buffers=False), _NoDraws():
        return make()


_FILLING = ("normal_", "uniform_", "kaiming_uniform_")
"""Functions that fill a tensor at random: those of tensors, and those of torch.nn.init that modes see. The others of
torch.nn.init call these."""
_DRAWING = ("rand", "randn")


class _NoDraws(TorchFunctionMode):
    """Within it nothing is drawn at random. Tensors on the meta device are not filled, and new tensors hold zeros.

    Filling the meta device changes nothing, but torch takes 1 ms for each call: 0.3 s for the image encoder.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Calls the function, unless it would draw."""
        name, named = getattr(func, "__name__", ""), kwargs or {}
        if name in _DRAWING:
            return torch.zeros(*args, **{key: value for key, value in named.items() if key != "generator"})
        if name in _FILLING:
            filled = args[0] if args else named.get("tensor")  # torch.nn.init passes it by name
            if isinstance(filled, Tensor) and filled.is_meta:
                return filled
        return func(*args, **named)


def read_header(path: Path) -> dict[str, Shape]:
    """Names and shapes of the tensors in a safetensors file, without its data.

    Raises:
        BadCheckpoint: the file is damaged, or shorter than its header says.
    """
    with _opened(path) as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def read_layout(path: Path) -> dict[str, tuple[Shape, str]]:
    """Names, shapes and precisions (`F16`, `F32`, ...) of the tensors in a safetensors file, without its data.

    Raises:
        BadCheckpoint: the file is damaged, or shorter than its header says.
    """
    with _opened(path) as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        return {name: (tuple(part.get_shape()), str(part.get_dtype())) for name, part in slices.items()}


def read_safetensors(path: Path, prefix: str = "") -> StateDict:
    """The tensors whose names start with `prefix`, without it; memory-mapped, so nothing is read yet.

    Raises:
        BadCheckpoint: the file is damaged, or shorter than its header says.
    """
    with _opened(path) as file:
        return {name[len(prefix) :]: file.get_tensor(name) for name in file.keys() if name.startswith(prefix)}  # noqa: SIM118


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            yield file
    except (OSError, SafetensorError) as error:
        raise BadCheckpoint(
            f"models: {path} cannot be read ({error}); wanted a whole safetensors file. "
            "Delete it and download it again."
        ) from error


def check_pickles_are_safe(path: Path) -> None:
    """Raises BadCheckpoint where the installed torch cannot read pickles safely; to be called before one is opened."""
    if TorchVersion(torch.__version__) < SAFE_PICKLES:
        raise BadCheckpoint(
            f"models: {path} is a pickle and torch is {torch.__version__}; wanted torch {SAFE_PICKLES} or newer, since "
            "a pickle can run code in older ones. Update torch. Or move the .bin away and run again, so that the "
            ".safetensors file is downloaded. (Turbo painting has none.) Or copy the .bin to a machine with a newer "
            "torch, and run there: "
            "python -m lowvram_core --convert-pickles FILE"
        )


def read_pickle(path: Path) -> StateDict:
    """The tensors of a PyTorch .bin, memory-mapped; only weights are unpickled.

    Raises:
        BadCheckpoint: the file is truncated, or holds anything but tensors, or torch is older than SAFE_PICKLES.
    """
    check_pickles_are_safe(path)
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


def read_weights(path: Path) -> StateDict:
    """The tensors of a .safetensors file or a .bin, memory-mapped.

    Raises:
        BadCheckpoint: as `read_safetensors` and `read_pickle`.
    """
    return read_safetensors(path) if path.suffix == ".safetensors" else read_pickle(path)


def read_shapes(path: Path) -> dict[str, Shape]:
    """Names and shapes of the tensors in a .safetensors file or a .bin.

    Raises:
        BadCheckpoint: as `read_header` and `read_pickle`.
    """
    if path.suffix == ".safetensors":
        return read_header(path)
    return {name: tuple(value.shape) for name, value in read_pickle(path).items()}


def file_parts(path: Path, wanted: Callable[[str], bool] = lambda name: True) -> tuple[FilePart, ...]:
    """The ranges of bytes that hold the wanted tensors of a .safetensors file, joined where they touch.

    Of a .bin it is the whole file.

    Args:
        path: a file whose header was checked, see `read_shapes`.
        wanted: takes a tensor's name.
    """
    if path.suffix != ".safetensors":
        return (FilePart(path, 0, path.stat().st_size),)
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    spans = sorted(entry["data_offsets"] for name, entry in header.items() if name != "__metadata__" and wanted(name))
    joined: list[list[int]] = []
    for start, end in spans:
        if joined and start <= joined[-1][1]:
            joined[-1][1] = max(joined[-1][1], end)
        else:
            joined.append([start, end])
    return tuple(FilePart(path, 8 + length + start, end - start) for start, end in joined)


def fill(module: nn.Module, state: StateDict, dtype: torch.dtype, source: Path) -> nn.Module:
    """Gives an empty module its weights; returns it in evaluation mode and at `dtype`.

    Memory: weights that are at `dtype` already stay memory-mapped and are not copied. Others are copied tensor by
    tensor. On Linux the pages that were read for a copy leave RAM at once; elsewhere they stay until the system needs
    the room.

    Raises:
        BadCheckpoint: the names or shapes differ from the module's.
    """
    check_layout(module, {name: tuple(value.shape) for name, value in state.items()}, source)
    module.load_state_dict(at_dtype(dtype, state, source), assign=True)
    module.requires_grad_(False).eval()
    return nn.Module.to(module, dtype)  # not the own `to` of diffusers, which warns


def at_dtype(dtype: torch.dtype, state: StateDict, source: Path) -> StateDict:
    """The tensors of a memory-mapped file, the floating-point ones at `dtype`; see `fill`."""
    others = {name for name, value in state.items() if value.is_floating_point() and value.dtype != dtype}
    spans = file_spans(source) if others else []
    converted: StateDict = {}
    for name, value in state.items():
        converted[name] = value.to(dtype) if name in others else value
        if name in others:
            give_back(value, spans)
    return converted


def check_layout(module: nn.Module, entries: Mapping[str, Shape], source: Path) -> None:
    """Raises BadCheckpoint where a checkpoint's names or shapes differ from the module's."""
    check_names(layout(module), entries, source)


def layout(module: nn.Module) -> Mapping[str, Shape]:
    """The names and shapes of a module's weights. It cannot be changed, so that callers may cache it."""
    return MappingProxyType({name: tuple(value.shape) for name, value in module.state_dict().items()})


def check_names(wanted: Mapping[str, Shape], entries: Mapping[str, Shape], source: Path) -> None:
    """Raises BadCheckpoint where a checkpoint's names or shapes differ from those that are wanted."""
    missing = sorted(wanted.keys() - entries.keys())
    unknown = sorted(entries.keys() - wanted.keys())
    misshapen = [
        f"{name} {entries[name]} instead of {shape}"
        for name, shape in wanted.items()
        if name in entries and entries[name] != shape
    ]
    for kind, names in (("lacks", missing), ("has the unknown", unknown), ("has", misshapen)):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise BadCheckpoint(
                f"models: {source} {kind} {', '.join(names[:3])}{more}; wanted the layout that its configuration "
                "describes. The files are of another variant, or mixed: download this folder again."
            )


def bytes_at(entries: Mapping[str, Shape], dtype: torch.dtype) -> int:
    """Bytes of a checkpoint's tensors once they are at `dtype`."""
    return sum(map(math.prod, entries.values())) * dtype.itemsize


def largest_layer_bytes(entries: Mapping[str, Shape], dtype: torch.dtype, blocks: str = "") -> int:
    """Bytes of the largest layer, or of the largest block, at `dtype`.

    Args:
        blocks: pattern of the names of modules that count as a whole.
    """
    sizes: dict[str, int] = {}
    for name, shape in entries.items():
        found = re.match(f"({blocks})\\.", name) if blocks else None
        unit = found[1] if found else name.rpartition(".")[0]
        sizes[unit] = sizes.get(unit, 0) + math.prod(shape) * dtype.itemsize
    return max(sizes.values(), default=0)
