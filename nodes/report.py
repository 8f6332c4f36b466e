"""Time and memory of a run."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..lowvram_core.report import format_table
from . import _host, _records
from ._schema import PREFIX, schema


class MemoryReport(io.ComfyNode):
    """The end of a branch. It runs again if something before it ran again. Older graphs pass the mesh through it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Connect the mesh of the last stage."""
        return schema(
            "MemoryReport", "Memory Report",
            "Shows seconds, graphics memory and RAM of everything that ran before it. Connect the final mesh. Connect "
            "the same mesh to Save 3D Model, not this node's, so that no mesh is saved twice.",
            ["vram", "profile", "timing"],
            inputs=[io.Mesh.Input("mesh", tooltip="The final mesh.")],
            outputs=[
                io.Mesh.Output("mesh_out", display_name="mesh", is_output_list=True),
                io.String.Output("report", display_name="report"),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
            is_input_list=True,
            is_output_node=True,
        )  # fmt: skip

    @classmethod
    def execute(cls, mesh: list[object]) -> io.NodeOutput:
        """The meshes of a list, and one table for all as text and on the node."""
        host = _host.ComfyHost()
        prompt = cls.hidden.prompt or {}
        records, notes = _records.of(prompt, upstream_nodes(prompt, str(cls.hidden.unique_id)))
        text = "\n".join([format_table(records), *notes])
        return io.NodeOutput(mesh, text, ui={**host.badge(), "text": [text]})


def upstream_nodes(prompt: dict[str, Any], node_id: str) -> set[str]:
    """Ids of this pack's nodes that lead to a node, directly or through others."""
    found: set[str] = set()
    waiting = [node_id]
    while waiting:
        node = prompt.get(waiting.pop(), {})
        for value in node.get("inputs", {}).values():
            if isinstance(value, list) and len(value) == 2 and str(value[0]) not in found:
                found.add(str(value[0]))
                waiting.append(str(value[0]))
    return {found_id for found_id in found if prompt.get(found_id, {}).get("class_type", "").startswith(PREFIX)}
