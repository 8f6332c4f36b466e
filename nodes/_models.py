"""Which models the running graph needs, checked before its first stage."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from ..lowvram_core.errors import BadInput, MissingDependency
from ..lowvram_core.files.manifest import needed_by
from ..lowvram_core.presets import BACKGROUND_MODELS, Preset
from . import _host, _records
from ._graph import Prompt, is_link, own_name, reached, sources
from ._prompts import STAGES, known_preset
from ._schema import overridden

PresetReader = Callable[[Prompt, Any], Preset | None]
"""Takes a prompt and the value of a `preset` input. Returns the preset; None if it is not known before the run."""

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
    if context is None or context.prompt_id == _checked or own_name(prompt, context.node_id) not in STAGES:
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
        preset_of: reads the presets of stages; `known_preset` if None.
        has_run: whether a node's result is known from an earlier prompt. Its models, and those of the nodes before it,
            are not needed again.

    Raises:
        MissingModel: models are missing and cannot be downloaded. The message lists all of them.
        BadCheckpoint: a file of a model is truncated or corrupt.
    """
    sure, maybe = wanted_models(prompt, outputs, preset_of or known_preset, has_run)
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
        name, inputs = own_name(prompt, node_id), prompt[node_id].get("inputs", {})
        preset = preset_of(prompt, inputs.get("preset")) if name in STAGES else None
        if preset is None or (name == "RemoveBackground" and inputs.get("keep_background") is True):
            continue
        try:
            chosen = _chosen(name, preset, inputs)
            ids = [model.id for stage in STAGES[name] for model in needed_by(stage, chosen)]
        except BadInput:  # the node itself will tell it
            continue
        # A picture with a mask, or with an alpha channel that came as one, needs no background model.
        (maybe if name == "RemoveBackground" and is_link(prompt, inputs.get("mask")) else sure).extend(ids)
    return sure, maybe


def _executed(prompt: Prompt, outputs: Collection[str], has_run: Callable[[str], bool]) -> Iterator[str]:
    """Ids of the nodes that lead to an output, in the order of the prompt, without those that have run."""

    def waiting(ids: Iterable[str]) -> list[str]:
        return [other for other in ids if not (own_name(prompt, other) in STAGES and has_run(other))]

    starts = waiting(other for other in map(str, outputs) if other in prompt)
    found = reached(starts, lambda node_id: waiting(sources(prompt, node_id)))
    return (node_id for node_id in prompt if node_id in found)


def _chosen(name: str, preset: Preset, inputs: Mapping[str, Any]) -> Preset:
    """The preset with the node's own choice of a model.

    Raises:
        BadInput: the choice is not known, for example because it comes from another node.
    """
    if name == "GenerateShapeMultiView":
        preset = preset.with_(variant=preset.multiview_variant)
    return overridden(preset, variant=inputs.get("variant")) if name.startswith("GenerateShape") else preset
