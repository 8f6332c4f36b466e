"""ComfyUI as a host. All calls into ComfyUI are in _comfy.py.

A component is loaded when it is borrowed, and taken off the device when it is given back. Our own plan decides whether
its weights stream: they do not if `Need.resident_bytes` are free. A component that does not stream is wrapped in a
ModelPatcher, so that ComfyUI's list of loaded models has it. One that streams is not in that list, because ComfyUI
could only unload it in the middle of its work: the core's engine copies its weights and drops the copies
(lowvram_core/lending/streaming.py). ComfyUI sees those bytes where it sees all tensors, in torch's statistics.

ComfyUI's load_models_gpu is not called. It always keeps 1.2 GiB or more free for activations
(minimum_inference_memory), and it unloads other packs' models until 1.1 times the size of this model is free beside
that. `make_room` unloads them only as far as the plan needs.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..lowvram_core.errors import BadInput, OutOfMemory
from ..lowvram_core.files.names import pasted
from ..lowvram_core.host import Component
from ..lowvram_core.lending.device import memory_of
from ..lowvram_core.lending.hosts import LendingHost
from ..lowvram_core.lending.prefetch import empty_host_cache
from ..lowvram_core.progress import Part
from ..lowvram_core.report import summary
from . import _comfy, _progress, _records
from ._core import core

FOLDER_KEY = "hunyuan3d_lowvram"
ALLOWED_KEY = "hunyuan3d_lowvram_inputs"
ALLOWED_VARIABLE = "HY3D_LOWVRAM_ALLOWED_FOLDERS"
FULL_PATHS = (
    "A full path works in folders that the owner of the machine allows: in the environment variable "
    f"{ALLOWED_VARIABLE}, or under {ALLOWED_KEY} in extra_model_paths.yaml."
)
"""What the tooltips of loading nodes say about other folders."""
BAR_STEPS = 1000
"""Steps of a node's progress bar."""
log = logging.getLogger(__name__)


def register_folders() -> None:
    """Makes models/hunyuan3d_lowvram a models folder, after those that extra_model_paths.yaml names."""
    _comfy.add_models_folder(FOLDER_KEY, _comfy.models_folder() / FOLDER_KEY)


def model_store(host: ComfyHost) -> Any:
    """A ModelStore over all folders where users and other packs keep these models.

    A download moves the node's progress bar, and tells file, size, speed and time left.
    """
    keys = (FOLDER_KEY, "diffusers", "diffusion_models", "checkpoints")
    roots = [folder for key in keys for folder in _comfy.models_folders(key)]
    return core("files.store").ModelStore([*roots, _comfy.models_folder()], progress=host.downloading, tell=host.tell)


def readable_folders() -> list[Path]:
    """The folders that nodes may read files from: ComfyUI's input and output folders, and those that the owner allows.

    Only the machine's owner can allow a folder: in the environment variable ALLOWED_VARIABLE (several are separated as
    in PATH), or under ALLOWED_KEY in extra_model_paths.yaml.
    """
    allowed = os.environ.get(ALLOWED_VARIABLE, "").split(os.pathsep)
    allowed += _comfy.models_folders(ALLOWED_KEY)
    own = [_comfy.input_folder(), _comfy.output_folder()]
    return own + [Path(name.strip()).expanduser() for name in allowed if name.strip()]


def readable(name: str, stage_name: str) -> Path:
    """The path of a file or folder that a prompt names. It need not be there.

    Args:
        name: relative to ComfyUI's input folder, or to the output folder if " [output]" follows; or a full path. It may
            stand in quotes.

    Raises:
        BadInput: the path leads out of the readable folders, also by a symbolic link. Whether it is there is not told.
    """
    plain, base = _comfy.split_annotation(pasted(name))
    # By name first: resolving a name such as //server/share would already ask that server.
    path = Path(os.path.normpath(Path(base or _comfy.input_folder()).absolute() / plain))
    places = [place for folder in readable_folders() for place in (folder.absolute(), folder.resolve())]
    if not _is_in(path, places) or not _is_in(_resolved(path), places):
        raise BadInput(
            f"{stage_name}: {name!r} leads out of the folders that may be read; wanted a place in ComfyUI's input or "
            "output folder. Copy it there. Or the owner of this machine allows its folder: in the environment variable "
            f"{ALLOWED_VARIABLE}, or under {ALLOWED_KEY} in extra_model_paths.yaml."
        )
    return path


def input_meshes(endings: Collection[str]) -> list[str]:
    """The files with these endings in ComfyUI's input folder and in its folder 3d, by their paths from the first.

    Files in other subfolders are not listed, as by ComfyUI's own nodes.
    """
    root = _comfy.input_folder()
    with suppress(OSError):
        found = [*root.glob("*"), *(root / "3d").rglob("*")]
        return sorted(path.relative_to(root).as_posix() for path in found if path.suffix.lower() in endings)
    return []


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
        folder, name, counter, subfolder = _comfy.save_target(prefix)
    except Exception as error:
        raise BadInput(
            f"save: the prefix {prefix!r} cannot be used ({error}); wanted a name inside ComfyUI's output folder. "
            "Use one such as 3d/mesh."
        ) from error
    taken = [int(found[1]) for path in folder.iterdir() if (found := re.match(rf"{re.escape(name)}_(\d+)_", path.name))]
    counter = max([counter - 1, *taken]) + 1
    file = f"{name}_{counter:05}_{extension}"
    return folder / file, file, subfolder


def card() -> tuple[str, int, int]:
    """The device's name, its total memory and its free memory, in bytes."""
    device = _comfy.device()
    name = "CPU" if on_cpu() else torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    return name, _comfy.total_bytes(device), _comfy.free_bytes(device)


def on_cpu() -> bool:
    """Whether ComfyUI computes without a graphics card."""
    return bool(_comfy.device().type == "cpu")


def _running_item() -> tuple[dict[str, Any], list[str]] | None:
    """The prompt that runs now and the ids of its executed output nodes; None outside of ComfyUI's server."""
    context = _records.executing()
    return None if context is None else _comfy.running(context.prompt_id)


def _running_prompt() -> dict[str, Any]:
    """The prompt that runs now, in the format of ComfyUI's API; empty outside of ComfyUI's server."""
    item = _running_item()
    return {} if item is None else item[0]


def _running_outputs() -> list[str]:
    """The ids of the output nodes that are executed in the prompt that runs now; empty outside of ComfyUI's server."""
    item = _running_item()
    return [] if item is None else item[1]


def to_intermediate(tensor: Tensor) -> Tensor:
    """The tensor on the device on which ComfyUI wants the outputs of nodes."""
    return tensor.to(_comfy.intermediate_device())


class ComfyHost(LendingHost):
    """Runs one node's stages under ComfyUI's model management.

    Raises:
        MissingModel: it is the first stage of a prompt, and models of the prompt's stages are missing and cannot be
            downloaded.
    """

    _shown = 0.0
    """Where the bar was when it was sent last."""
    _sums_up = False
    """Whether the node's text says at the end what its phases took: not where there is nothing to wait for."""

    def __init__(self, precision: str = "auto", plan: Iterable[Part] = ()) -> None:
        """Begins the node's run.

        Args:
            precision: the preset's.
            plan: the parts of the node's bar; see lowvram_core/plans.py. Without them the first phase is the whole bar.
        """
        self.device: torch.device = _comfy.device()
        if precision == "auto":
            trusted = self.device.type != "cpu" and _comfy.uses_float16(self.device)
            precision = "float16" if trusted else "float32"
        self._dtype: torch.dtype = getattr(torch, precision)
        prompt = _running_prompt()
        self._run = _records.begin(prompt)
        self.records = self._run
        self._start = time.perf_counter()
        self._node_id = _progress.node_id()
        self._text = _progress.Text(self._node_id)
        if self._node_id:
            self.timings = _progress.timings()
            self.expect(plan)
        from ._models import check_before_first_stage  # here, because that file imports this one

        check_before_first_stage(self, prompt, _running_outputs())

    def expect(self, parts: Iterable[Part]) -> None:
        """Begins the node's bar with these parts. A node calls it where it knows them only after it began."""
        if not self._node_id:
            return
        planned = list(parts)
        super().expect(planned)
        self._sums_up = bool(planned)
        if planned:
            self.tell("getting ready")

    @property
    def dtype(self) -> torch.dtype:
        """The chosen one. For `auto`: float16 on a card for which ComfyUI uses it, else float32."""
        return self._dtype

    @contextmanager
    def borrow(self, component: Component) -> Iterator[nn.Module]:
        """The component's module on the device; see Host.

        Raises:
            OutOfMemory: the device is full.
        """
        streams = self.streams(component)
        with self._borrowing(component, streams=streams) as loaded:
            yield from self._borrowed(component, loaded, streams=streams)

    def _borrowed(self, component: Component, loaded: Callable[[], None], *, streams: bool) -> Iterator[nn.Module]:
        module = component.load()
        try:
            on_device = self._with_streaming if streams else self._resident
            with self._names_full_device(component), on_device(module, component):
                loaded()
                yield module
        finally:
            module.to("meta")
            _comfy.empty_cache()
            empty_host_cache(self.device)

    @contextmanager
    def _resident(self, module: nn.Module, component: Component) -> Iterator[None]:
        """Within it, ComfyUI has loaded the module to the device, and has it in its list of loaded models.

        Raises:
            OutOfMemory: ComfyUI left weights on the CPU. ComfyUI itself does not report this.
        """
        patcher = _comfy.load_model(_Holder(module), self.device, component.weight_bytes)
        try:
            stray = [tensor for tensor in module.parameters() if tensor.device.type != self.device.type]
            if stray:
                raise OutOfMemory(
                    f"memory: {len(stray)} weights of the {component.label} did not fit on the card; wanted all of "
                    "them there. Close other programs that use the card, or take Preset 2 GB, whose weights stream."
                )
            yield
        finally:
            _comfy.unload_model(patcher)

    def make_room(self, wanted_bytes: int) -> int | None:
        """Unloads other packs' models, only as far as needed; see Host."""
        if self.device.type == "cpu":
            return None
        reserved = _comfy.reserved_bytes()
        _comfy.unload_models(wanted_bytes + reserved, self.device)
        _comfy.empty_cache()
        return max(0, _comfy.free_bytes(self.device) - reserved)

    def streams(self, component: Component) -> bool:
        """See Host. On the CPU nothing streams."""
        return component.key in self._streamed and self.device.type != "cpu"

    def note(self, text: str) -> None:
        """Logs the text and shows it in Memory Report; see Host."""
        log.info("%s", text)
        self._run.note(text)

    def _stop_if_cancelled(self) -> None:
        _comfy.stop_if_interrupted()

    def _show(self, fraction: float, line: str, preview: Tensor | None) -> None:
        """Moves the node's progress bar, shows the preview, and the line as the node's text."""
        if not self._node_id:
            return
        picture = None if preview is None else preview.detach().float().cpu()[None]
        if fraction != self._shown or picture is not None:
            self._shown = fraction
            _comfy.set_progress(self._node_id, round(fraction * BAR_STEPS), BAR_STEPS, picture)
        self._text.show(line)

    def show_result(self, pictures: Tensor) -> None:
        """Shows the finished pictures [N,H,W,3] in place of the last preview of their latents.

        They are a preview too: the front end keeps the last one, in front of or above the pictures of an output.
        """
        with self._changing(core("networks.previews").sheet(pictures)):
            pass

    def badge(self) -> dict[str, Any]:
        """Ends the node's run: its seconds and peak memory, each in a list.

        ComfyUI joins the lists of a node that runs once for each item of a list, and the front end adds up the
        numbers. The list of peaks is empty where the device does not count its memory.
        """
        peaks = [record.peak_bytes or 0 for record in self.records]
        seconds = time.perf_counter() - self._start
        self._run.took(seconds)
        counted = memory_of(self.device) is not None
        self._ends()
        return {
            "hy3d_seconds": [seconds],
            "hy3d_peak_bytes": [max(peaks, default=0)] if counted else [],
        }

    def _ends(self) -> None:
        """Fills the bar, shows what the phases took, and logs a summary after the last node of the run."""
        self.finish()
        if self._sums_up:
            self._text.show(summary(self.records), last=True)
        if self._node_id:
            _progress.timings().save()
            _progress.log_summary(_running_prompt(), self._node_id)


class _Holder(nn.Module):
    """Wraps a module, because ModelPatcher sets attributes that are read-only properties of diffusers' modules."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.held = module
