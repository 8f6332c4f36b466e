"""The records of each node's last run, by the node's class and inputs, with the prompt in which it ran."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any

from ..lowvram_core.report import OTHER, PhaseRecord
from ._comfy import executing
from ._graph import is_link

KEPT = 512
"""Runs whose records are kept. The oldest run is dropped first."""


@dataclass
class NodeRun:
    """The phases of one node's run."""

    prompt_id: str
    seconds: float = 0.0
    """From the start of the node to its end."""
    records: list[PhaseRecord] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What was done in another way than the preset asks."""


_runs: OrderedDict[str, NodeRun] = OrderedDict()
"""By signature, not by id: ComfyUI's cache also finds a node's result by its class and inputs, and keeps several."""


def signatures(prompt: dict[str, Any], node_ids: Iterable[str]) -> dict[str, str]:
    """For each node, a hash of its class, its inputs and everything upstream.

    Two nodes have equal hashes if ComfyUI's cache may use the result of one for the other.
    """
    known: dict[str, str] = {}

    def of_node(node_id: str) -> str:
        if node_id not in known:
            node = prompt.get(node_id, {"class_type": f"unknown node {node_id}"})
            inputs = {name: of_value(value) for name, value in node.get("inputs", {}).items()}
            text = json.dumps([node.get("class_type"), inputs], sort_keys=True, default=str)
            known[node_id] = sha256(text.encode()).hexdigest()
        return known[node_id]

    def of_value(value: Any) -> Any:
        if is_link(prompt, value):
            return [of_node(str(value[0])), value[1]]
        return value

    return {node_id: of_node(node_id) for node_id in node_ids}


def begin(prompt: dict[str, Any]) -> Records:
    """New records for the running node. If the node runs once for each item of a list, the runs share one entry.

    Args:
        prompt: the running prompt, in the format of ComfyUI's API; empty if it is not known.
    """
    context = executing()
    if context is None:
        return Records(NodeRun(""))
    key = signatures(prompt, [context.node_id])[context.node_id]
    run = _runs.pop(key, None)
    if run is None or run.prompt_id != context.prompt_id:
        run = NodeRun(context.prompt_id)
    _runs[key] = run
    while len(_runs) > KEPT:
        _runs.popitem(last=False)
    return Records(run)


class Records(list[PhaseRecord]):
    """The phases of one call. They and the notes are also added to the node's entry."""

    def __init__(self, run: NodeRun) -> None:
        super().__init__()
        self._run = run

    def append(self, record: PhaseRecord) -> None:
        """Adds the phase to both."""
        super().append(record)
        self._run.records.append(record)

    def note(self, text: str) -> None:
        """Adds a note to the node's entry."""
        self._run.notes.append(text)

    def took(self, seconds: float) -> None:
        """Adds the time of a call to the node's entry."""
        self._run.seconds += seconds


def of(prompt: dict[str, Any], node_ids: set[str]) -> tuple[list[PhaseRecord], list[str]]:
    """The phases of these nodes, and their notes without repetitions.

    Phases of an earlier prompt are marked as cached. The time of a node outside of its phases is a record `other`.
    """
    context = executing()
    current = context.prompt_id if context is not None else ""
    found = signatures(prompt, sorted(node_ids))
    records: list[PhaseRecord] = []
    notes: list[str] = []
    for run in [_runs[key] for key in dict.fromkeys(found.values()) if key in _runs]:
        cached = run.prompt_id != current
        records += [replace(record, cached=cached) for record in (*run.records, *_others(run))]
        notes += run.notes
    return records, list(dict.fromkeys(notes))


def _others(run: NodeRun) -> list[PhaseRecord]:
    """The rest of a node's time: imports of packages on first use, opening of files, conversions."""
    seconds = run.seconds - sum(record.added_seconds for record in run.records)
    ram = max((record.ram_bytes for record in run.records), default=0)
    return [PhaseRecord(OTHER, seconds, None, None, None, ram)] if seconds > 0 else []
