"""Which models the running graph needs, checked before its first stage."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from typing import Any

from ..lowvram_core.errors import BadInput, MissingDependency
from ..lowvram_core.files.manifest import needed_by
from ..lowvram_core.presets import BACKGROUND_MODELS, PRESETS, VALUES, Preset
from . import _host, _records, presets
from ._schema import PREFIX, overridden

Prompt = Mapping[str, Mapping[str, Any]]
"""A prompt in the format of ComfyUI's API: for each node id its `class_type` and `inputs`."""

PresetReader = Callable[[Prompt, Any], Preset | None]
"""Takes a prompt and the value of a `preset` input. Returns the preset; None if it is not known before the run."""

STAGES = {
    "RemoveBackground": "background", "GenerateShape": "shape", "GenerateShapeMultiView": "shape", "Delight": "delight",
    "PaintViews": "paint", "CleanMesh": "", "UnwrapUVs": "", "BakeTexture": "", "InpaintTexture": "",
}  # fmt: skip
"""The nodes that run a stage, and the stage's name in the manifest; empty for stages without models."""

_checked = ""
"""The id of the last prompt whose models were checked."""


def check_before_first_stage(host: _host.ComfyHost, prompt: Prompt, outputs: Collection[str]) -> None:
    """Checks the models of the running prompt, once, when the first of its stages starts.

    Args:
        prompt: the running prompt; empty outside of ComfyUI's server.
        outputs: ids of its output nodes that are executed.

    Raises:
        MissingModel: models are missing and cannot be downloaded. The message lists all of them.
    """
    global _checked
    context = _records.executing()
    if context is None or context.prompt_id == _checked or _own_name(prompt, context.node_id) not in STAGES:
        return

    def has_run(node_id: str) -> bool:
        return any(record.cached for record in _records.of(dict(prompt), {node_id})[0])

    with suppress(MissingDependency):  # each stage names the packages that it misses
        check_models(prompt, outputs, _host.model_store(host), has_run=has_run)
    _checked = context.prompt_id


def check_models(
    prompt: Prompt,
    outputs: Collection[str],
    store: Any,
    *,
    preset_of: PresetReader | None = None,
    has_run: Callable[[str], bool] = lambda node_id: False,
) -> None:
    """Checks that the models of all stages of a prompt are there or can be downloaded. Downloads nothing.

    Args:
        outputs: ids of the output nodes that are executed. Nodes that lead to none of them are ignored.
        store: a ModelStore.
        preset_of: reads the presets of stages; `read_preset` if None.
        has_run: whether a node's result is known from an earlier prompt. Its models, and those of the nodes before it,
            are not needed again.

    Raises:
        MissingModel: models are missing and cannot be downloaded. The message lists all of them.
        BadCheckpoint: a file of a model is truncated or corrupt.
    """
    sure, maybe = wanted_models(prompt, outputs, preset_of or read_preset, has_run)
    others = [f"background/{name}" for name in BACKGROUND_MODELS]
    if any(store.is_present(model_id) for model_id in others):  # Remove Background takes it if the preset's is missing
        sure, maybe = ([model_id for model_id in ids if model_id not in others] for ids in (sure, maybe))
    store.require(sure, maybe)


def wanted_models(
    prompt: Prompt, outputs: Collection[str], preset_of: PresetReader, has_run: Callable[[str], bool]
) -> tuple[list[str], list[str]]:
    """The ids of the models that a prompt needs, and of those that it needs only for some pictures; see `check_models`.

    A stage whose settings are not known before the run is left out: it finds its models itself.
    """
    sure: list[str] = []
    maybe: list[str] = []
    for node_id in _executed(prompt, outputs, has_run):
        name, inputs = _own_name(prompt, node_id), prompt[node_id].get("inputs", {})
        preset = preset_of(prompt, inputs.get("preset")) if STAGES.get(name) else None
        if preset is None or (name == "RemoveBackground" and inputs.get("keep_background") is True):
            continue
        try:
            ids = [model.id for model in needed_by(STAGES[name], _chosen(name, preset, inputs))]
        except BadInput:  # the node itself will tell it
            continue
        # A picture with a mask, or with an alpha channel that came as one, needs no background model.
        (maybe if name == "RemoveBackground" and _is_link(prompt, inputs.get("mask")) else sure).extend(ids)
    return sure, maybe


def _executed(prompt: Prompt, outputs: Collection[str], has_run: Callable[[str], bool]) -> Iterator[str]:
    """Ids of the nodes that lead to an output, in the order of the prompt, without those that have run."""
    found: set[str] = set()
    waiting = [node_id for node_id in map(str, outputs) if node_id in prompt]
    while waiting:
        node_id = waiting.pop()
        if node_id in found or (_own_name(prompt, node_id) in STAGES and has_run(node_id)):
            continue
        found.add(node_id)
        values = prompt[node_id].get("inputs", {}).values()
        waiting += [str(value[0]) for value in values if _is_link(prompt, value)]
    return (node_id for node_id in prompt if node_id in found)


def _own_name(prompt: Prompt, node_id: str) -> str:
    """The name of a node of this pack without the prefix; empty for others."""
    kind = str(prompt.get(node_id, {}).get("class_type", ""))
    return kind.removeprefix(PREFIX) if kind.startswith(PREFIX) else ""


def _is_link(prompt: Prompt, value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and str(value[0]) in prompt


def _chosen(name: str, preset: Preset, inputs: Mapping[str, Any]) -> Preset:
    """The preset with the node's own choice of a model.

    Raises:
        BadInput: the choice is not known, for example because it comes from another node.
    """
    if name == "GenerateShapeMultiView":
        preset = preset.with_(variant=preset.multiview_variant)
    return overridden(preset, variant=inputs.get("variant")) if name.startswith("GenerateShape") else preset


FIXED = {f"Preset{preset.name.replace(' ', '')}": preset for preset in PRESETS.values()}
"""The fixed presets by the names of their nodes."""


def read_preset(prompt: Prompt, value: Any) -> Preset | None:
    """The preset of a stage. None if it is not known before the run, such as behind another pack's node.

    Args:
        value: what the prompt has for the stage's input `preset`: a link to a preset node, or a dict with some or all
            of a preset's values.
    """
    try:
        if isinstance(value, Mapping):
            return _with_values(value)
        if not _is_link(prompt, value):
            return None
        name, inputs = _own_name(prompt, str(value[0])), prompt[str(value[0])].get("inputs", {})
        chosen = inputs.get("preset") if name == "Preset" else None
        if name == "PresetAuto" or chosen == "Auto":
            return PRESETS[presets.for_card(_host.card()[1])]
        if name == "PresetCustom":
            return _with_values(inputs)
        return PRESETS.get(chosen) if isinstance(chosen, str) else FIXED.get(name)
    except BadInput:
        return None


def _with_values(values: Mapping[str, Any]) -> Preset:
    """Preset Custom's preset with these values.

    Raises:
        BadInput: a value is not known before the run, or out of its range.
    """
    return presets.BASE.with_(name="Custom", **{name: value for name, value in values.items() if name in VALUES})
