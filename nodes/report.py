"""Time and memory of a run."""

from __future__ import annotations

from comfy_api.latest import io

from ..lowvram_core.report import format_table
from . import _host, _records
from ._graph import own_name, upstream
from ._schema import schema


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
        before = {other for other in upstream(prompt, str(cls.hidden.unique_id)) if own_name(prompt, other)}
        records, notes = _records.of(prompt, before)
        text = "\n".join([format_table(records), *notes])
        return io.NodeOutput(mesh, text, ui={**host.badge(), "text": [text]})
