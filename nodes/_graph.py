"""The nodes and links of a prompt in the format of ComfyUI's API."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ._schema import PREFIX

Prompt = Mapping[str, Mapping[str, Any]]
"""For each node id its `class_type` and `inputs`."""


def own_name(prompt: Prompt, node_id: str) -> str:
    """The name of a node of this pack, without the prefix; empty for other nodes and unknown ids."""
    kind = str(prompt.get(node_id, {}).get("class_type", ""))
    return kind.removeprefix(PREFIX) if kind.startswith(PREFIX) else ""


def is_link(prompt: Prompt, value: Any) -> bool:
    """Whether the value of an input is a link to another node of the prompt."""
    return isinstance(value, list) and len(value) == 2 and str(value[0]) in prompt


def sources(prompt: Prompt, node_id: str) -> list[str]:
    """The ids of the nodes whose outputs a node uses."""
    values = prompt.get(node_id, {}).get("inputs", {}).values()
    return [str(value[0]) for value in values if is_link(prompt, value)]


def reached(starts: Iterable[str], following: Callable[[str], Iterable[str]]) -> set[str]:
    """These ids, and those that follow them, directly or through others."""
    found: set[str] = set()
    waiting = list(starts)
    while waiting:
        node_id = waiting.pop()
        if node_id not in found:
            found.add(node_id)
            waiting += following(node_id)
    return found


def upstream(prompt: Prompt, node_id: str) -> set[str]:
    """The ids of the nodes that lead to a node, directly or through others."""
    return reached(sources(prompt, node_id), lambda other: sources(prompt, other))
