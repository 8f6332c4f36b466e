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

from ..lowvram_core.errors import LowVramError
from ..lowvram_core.presets import Preset
from ..lowvram_core.stage_values import read_values
from ._graph import Prompt, is_link, own_name
from ._schema import preset_of
from .presets import SETTINGS

log = logging.getLogger(__name__)

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


def with_constants(prompt: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The prompt, in the format of ComfyUI's API, with values in place of the links from stages to presets.

    A link stays where the preset is not known before the run; see `known_preset`.
    """
    changed = copy.deepcopy(prompt)
    for node_id, node in changed.items():
        stages = STAGES.get(own_name(prompt, node_id))
        link = node.get("inputs", {}).get("preset")
        if stages is None or not is_link(prompt, link):
            continue
        preset = known_preset(prompt, link)
        if preset is not None:
            node["inputs"]["preset"] = read_values(preset, stages)
    return changed


def known_preset(prompt: Prompt, value: Any) -> Preset | None:
    """The preset of a stage, before the run.

    None if another pack's node passes it on or makes one of its values, or if the run will raise an error for it.

    Args:
        value: what the prompt has for the stage's input `preset`: a link, a preset's name, or values.
    """
    try:
        if not is_link(prompt, value):
            return preset_of(value) if isinstance(value, Mapping | str) else None
        node = prompt[str(value[0])]
        settings, inputs = SETTINGS.get(str(node.get("class_type", ""))), node.get("inputs", {})
        if settings is None or any(isinstance(given, list) for given in inputs.values()):  # a link, or an unknown one
            return None
        return settings(**inputs)
    except (LowVramError, TypeError) as error:  # the run meets the same error and shows it on the node
        log.debug("The preset is not known before the run: %s", error)
        return None
