"""What each node's last run cost, by node, with the prompt that it ran in."""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import Any

from ..lowvram_core.report import StepRecord

KEPT = 512
"""Nodes whose records are kept; the oldest go first."""


@dataclass
class NodeRun:
    """The steps of one node's last run, and what it ran on: an id alone may be another graph's node."""

    prompt_id: str
    made_from: str
    records: list[StepRecord] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What was done otherwise than asked."""


_runs: OrderedDict[str, NodeRun] = OrderedDict()


def executing() -> Any:
    """ComfyUI's context of the running node, None outside of a prompt."""
    try:
        from comfy_execution.utils import get_executing_context
    except ImportError:
        return None
    return get_executing_context()


def made_from(prompt: dict[str, Any], node_id: str) -> str:
    """The node with everything that feeds it, as text: equal for two prompts where the cache may serve the node."""
    found: dict[str, Any] = {}
    waiting = [node_id]
    while waiting:
        current = waiting.pop()
        if current in found or current not in prompt:
            continue
        inputs = prompt[current].get("inputs", {})
        found[current] = [prompt[current].get("class_type"), inputs]
        waiting += [str(value[0]) for value in inputs.values() if isinstance(value, list) and len(value) == 2]
    return json.dumps(found, sort_keys=True, default=str)


def begin(prompt: dict[str, Any]) -> list[StepRecord]:
    """A fresh list for the running node's steps; the items of one prompt's list share the node's entry.

    Args:
        prompt: the running prompt, in the API's format; empty where it is not known.
    """
    context = executing()
    if context is None:
        return []
    run = _runs.get(context.node_id)
    if run is None or run.prompt_id != context.prompt_id:
        run = NodeRun(context.prompt_id, made_from(prompt, context.node_id))
        _runs[context.node_id] = run
    _runs.move_to_end(context.node_id)
    while len(_runs) > KEPT:
        _runs.popitem(last=False)
    records: list[StepRecord] = _Shared(run)
    return records


def note(text: str) -> None:
    """Adds a note to the running node's entry."""
    context = executing()
    run = _runs.get(context.node_id) if context is not None else None
    if run is not None:
        run.notes.append(text)


class _Shared(list[StepRecord]):
    """This call's own steps, which also go to the node's entry."""

    def __init__(self, run: NodeRun) -> None:
        super().__init__()
        self._run = run

    def append(self, record: StepRecord) -> None:
        """Adds the step to both."""
        super().append(record)
        self._run.records.append(record)


def of(prompt: dict[str, Any], node_ids: set[str]) -> tuple[list[StepRecord], list[str]]:
    """The steps of these nodes of the prompt, those of an earlier one marked as cached; and their notes."""
    context = executing()
    current = context.prompt_id if context is not None else ""
    records: list[StepRecord] = []
    notes: list[str] = []
    for node_id in sorted(node_ids):
        run = _runs.get(node_id)
        if run is None or (run.prompt_id != current and run.made_from not in ("{}", made_from(prompt, node_id))):
            continue
        cached = run.prompt_id != current
        records += [replace(record, cached=cached) for record in run.records]
        notes += run.notes
    return records, notes
