"""Weights in pickles, written once more as safetensors, which cannot hold code."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from ..errors import BadCheckpoint, BadInput
from .checkpoints import StateDict, at_dtype, read_header, read_pickle, read_shapes
from .download import check_room

log = logging.getLogger(__name__)

PICKLES = ("diffusion_pytorch_model.bin", "diffusion_pytorch_model.fp16.bin", "pytorch_model.bin")
"""The names that diffusers and transformers give to weights in pickles."""


def convert_pickles(paths: Sequence[Path], *, half: bool = False) -> Iterator[Path]:
    """Converts the weights among files and folders (with their subfolders); yields each file that it wrote.

    Pickles that have their safetensors file already are left alone.

    Args:
        half: write float16, see `convert_pickle`.

    Raises:
        BadInput: a path is not there, nothing of the kind is found, the disk is full, or the safetensors file that is
            there holds another network.
        BadCheckpoint: a file is damaged, holds anything but tensors, or torch is too old to read pickles safely.
    """
    found = [file for path in paths for file in _find(path)]
    if not found:
        where = ", ".join(map(str, paths))
        raise BadInput(f"models: no pickled weights in {where}; wanted one of {', '.join(PICKLES)}. Check the path.")
    for file in found:
        target = safetensors_path(file, half=half)
        if not target.exists():
            yield convert_pickle(file, half=half)
        elif read_header(target) == read_shapes(file):
            log.info("models: %s has its safetensors file already", file)
        else:
            raise BadInput(
                f"models: {target} holds another network than {file.name}; wanted no file of that name. "
                "Move it away, or convert with --half, which writes a file of another name."
            )


def _find(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.rglob("*.bin") if file.name in PICKLES)
    if not path.is_file():
        raise BadInput(f"models: {path} is not there; wanted a .bin file or a folder. Check the path.")
    return [path]


def safetensors_path(pickle: Path, *, half: bool = False) -> Path:
    """The safetensors file beside a pickle, under the name that diffusers or transformers looks for."""
    stem = pickle.stem.removeprefix("pytorch_") if pickle.name.startswith("pytorch_model") else pickle.stem
    return pickle.with_name(f"{stem.removesuffix('.fp16')}.fp16.safetensors" if half else f"{stem}.safetensors")


def convert_pickle(pickle: Path, *, half: bool = False) -> Path:
    """Writes the tensors of a PyTorch .bin to a safetensors file beside it, names and bits unchanged; keeps the .bin.

    The file is complete or not there: it is written under a name of its own first.

    Args:
        half: convert floating-point tensors to float16, and add `.fp16` to the file's name.

    Memory: the pickle is memory-mapped. With safetensors 0.8 nothing is copied; older versions copy the tensors once.
        With `half`, the converted tensors are in RAM.

    Raises:
        BadCheckpoint: the file is damaged, holds anything but tensors, or torch is too old to read pickles safely.
        BadInput: the disk is full or cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    target = safetensors_path(pickle, half=half)
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")  # two processes never write one file
    state = read_pickle(pickle)
    state = _savable(at_dtype(torch.float16, state, pickle) if half else state)
    check_room(target.parent, sum(value.nbytes for value in state.values()))
    try:
        save_file(state, part, metadata={"format": "pt"})
        _check_same(state, part)
        part.replace(target)
    except (OSError, SafetensorError) as error:
        raise BadInput(
            f"models: {target} cannot be written ({error}); wanted a folder with room and permission. "
            "Free some space, or copy the .bin to another folder."
        ) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return target


def _savable(state: StateDict) -> StateDict:
    """The tensors, each contiguous and in memory of its own, as safetensors wants them."""
    seen: set[int] = set()
    own: StateDict = {}
    for name, value in state.items():
        start = value.untyped_storage().data_ptr()
        own[name] = value.clone() if start in seen and value.nbytes else value.contiguous()
        seen.add(start)
    return own


def _check_same(state: dict[str, Tensor], file: Path) -> None:
    written = read_header(file)
    if written != {name: tuple(value.shape) for name, value in state.items()}:
        raise BadCheckpoint(f"models: {file} was not written completely; wanted every tensor. Run the command again.")
