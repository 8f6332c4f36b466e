"""Refuses configurations by which a network would be fetched from the hub while it is built.

A checkpoint may not choose what code runs. Only the model store may download.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import BadCheckpoint

_ATTENTION = ("attn_implementation", "_attn_implementation", "_attn_implementation_internal", "experts_implementation",
              "_experts_implementation", "_experts_implementation_internal")  # fmt: skip
"""Settings by which transformers downloads kernels: a name such as `owner/kernels`, or a kernel not installed."""
_BUILT_IN = (None, "eager", "sdpa")


def check_local(config: Mapping[str, Any], source: Path) -> None:
    """Raises BadCheckpoint where building the networks of a configuration would ask the hub for something.

    Refuses, at any depth: an image encoder without a `config`, for which hy3dgen calls from_pretrained(version);
    attention that is not built into torch; a quantization, whose kernels transformers may download.

    Args:
        source: the configuration's file, for the message.
    """
    for where, node in _mappings(config):
        for met in _remote_parts(node):
            raise BadCheckpoint(
                f"models: {source} sets {met} in {where or 'its top level'}, which would be fetched from the hub; "
                "wanted a configuration that describes the whole network. Download the published folder again."
            )


def _mappings(config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """Every mapping at every depth with its place, each once: YAML can nest a value in itself."""
    waiting: list[tuple[str, Any]] = [("", config)]
    seen: set[int] = set()
    while waiting:
        where, value = waiting.pop()
        if id(value) in seen or not isinstance(value, Mapping | list | tuple):
            continue
        seen.add(id(value))
        if isinstance(value, Mapping):
            yield where, value
        parts = value.items() if isinstance(value, Mapping) else enumerate(value)
        waiting += [(f"{where}.{name}".lstrip("."), part) for name, part in parts]


def _remote_parts(node: Mapping[Any, Any]) -> Iterator[str]:
    if str(node.get("type", "")).endswith(("ImageEncoder", "ImageEncoderMV")):
        arguments = node.get("kwargs")
        if not isinstance(arguments, Mapping) or not isinstance(arguments.get("config"), Mapping):
            yield f"a {node['type']} without a config"
    if node.get("version") is not None and not isinstance(node.get("config"), Mapping):
        yield f"version {node['version']!r} without a config"
    for name in _ATTENTION:
        if name in node and node[name] not in _BUILT_IN:
            yield f"{name} {node[name]!r}"
    if node.get("quantization_config") is not None:
        yield "a quantization_config"
