"""What each node's last run cost, by node, with the prompt that it ran in."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from ..lowvram_core.report import StepRecord

KEPT = 512
"""Nodes whose records are kept; the oldest go first."""


@dataclass
class NodeRun:
    """The steps of one node's last run."""

    prompt_id: str
    records: list[StepRecord] = field(default_factory=list)


_runs: OrderedDict[str, NodeRun] = OrderedDict()


def executing() -> Any:
    """ComfyUI's context of the running node, None outside of a prompt."""
    try:
        from comfy_execution.utils import get_executing_context
    except ImportError:
        return None
    return get_executing_context()


def begin() -> list[StepRecord]:
    """A fresh list for the running node's steps; the items of one prompt's list share the node's entry."""
    context = executing()
    if context is None:
        return []
    run = _runs.get(context.node_id)
    if run is None or run.prompt_id != context.prompt_id:
        run = NodeRun(context.prompt_id)
        _runs[context.node_id] = run
    _runs.move_to_end(context.node_id)
    while len(_runs) > KEPT:
        _runs.popitem(last=False)
    records: list[StepRecord] = _Shared(run)
    return records


class _Shared(list[StepRecord]):
    """This call's own steps, which also go to the node's entry."""

    def __init__(self, run: NodeRun) -> None:
        super().__init__()
        self._run = run

    def append(self, record: StepRecord) -> None:
        """Adds the step to both."""
        super().append(record)
        self._run.records.append(record)


def of(node_ids: set[str]) -> tuple[list[StepRecord], set[str]]:
    """The steps of these nodes, and the names of those that come from an earlier prompt, being cached."""
    context = executing()
    current = context.prompt_id if context is not None else ""
    records: list[StepRecord] = []
    cached: set[str] = set()
    for node_id in node_ids:
        run = _runs.get(node_id)
        if run is not None:
            records += run.records
            if run.prompt_id != current:
                cached |= {record.name for record in run.records}
    return records, cached
