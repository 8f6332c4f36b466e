"""Cache keys: a stage runs again only if a value changed that it reads.

ComfyUI's cache key of a node holds everything upstream of it. So one changed value of a preset node would make every
stage run again. Before a prompt is checked and run, `with_constants` replaces each stage's link to a preset node by the
values that the stage reads. Then the preset node is not upstream of the stage any more.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from typing import Any

from comfy_api.latest import io

from ..lowvram_core.errors import LowVramError
from ..lowvram_core.presets import Preset
from ..lowvram_core.stage_values import read_values
from ._schema import PREFIX

log = logging.getLogger(__name__)

Prompt = dict[str, dict[str, Any]]

STAGES: Mapping[str, tuple[str, ...]] = {
    "RemoveBackground": ("background",),
    "GenerateShape": ("shape",),
    "GenerateShapeMultiView": ("shape",),
    "CleanMesh": ("clean",),
    "UnwrapUVs": ("unwrap",),
    "Delight": ("delight",),
    "PaintViews": ("unwrap", "paint"),
    "BakeTexture": ("bake",),
}
"""The stages that each node runs with its preset."""


def with_constants(prompt: Prompt, nodes: Mapping[str, type[io.ComfyNode]]) -> Prompt:
    """The prompt, in the format of ComfyUI's API, with values in place of the links from stages to presets.

    A link stays where the preset is not known before the run: another node makes one of its widgets' values, or it is
    not one of this pack's nodes.

    Args:
        nodes: this pack's nodes by id, such as Hy3dLowVram_Preset2GB. A preset node has `settings`, which returns its
            preset from its inputs.
    """
    changed = copy.deepcopy(prompt)
    for node in changed.values():
        stages = STAGES.get(str(node.get("class_type", "")).removeprefix(PREFIX))
        link = node.get("inputs", {}).get("preset")
        if stages is None or not isinstance(link, list) or len(link) != 2:
            continue
        preset = _preset(prompt.get(str(link[0]), {}), nodes)
        if preset is not None:
            node["inputs"]["preset"] = read_values(preset, stages)
    return changed


def _preset(node: Mapping[str, Any], nodes: Mapping[str, type[io.ComfyNode]]) -> Preset | None:
    """The preset that a node gives; None if it is not known before the run, or if the run will raise an error."""
    settings = getattr(nodes.get(str(node.get("class_type", ""))), "settings", None)
    inputs = node.get("inputs", {})
    if settings is None or any(isinstance(value, list) for value in inputs.values()):
        return None
    try:
        preset: Preset = settings(**inputs)
    except (LowVramError, TypeError) as error:  # the run meets the same error and shows it on the node
        log.debug("The preset is not known before the run: %s", error)
        return None
    return preset
