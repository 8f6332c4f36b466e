"""What a preset needs of models, and what of it is there."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..lowvram_core.presets import Preset
from . import _host
from ._core import core
from ._schema import preset_input, schema


class ModelCheck(io.ComfyNode):
    """A preset to a text about its models."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """An output node, so that it runs with nothing behind it."""
        return schema(
            "ModelCheck", "Model Check",
            "Shows which models the preset needs, which are there and where, what a run would download, the free disk "
            "space, and the licences. Downloads nothing.",
            ["models", "download", "missing", "disk space", "licence"],
            inputs=[preset_input()],
            outputs=[io.String.Output("report", display_name="report")],
            is_output_node=True,
            not_idempotent=True,
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(cls, **inputs: Any) -> float:
        """NaN, so that it runs at every queueing: the models folders change although the preset does not."""
        return float("nan")

    @classmethod
    def execute(cls, preset: Preset) -> io.NodeOutput:
        """The text, also shown on the node."""
        host = _host.ComfyHost()
        text = core("files.describe").describe(preset, _host.model_store(host))
        return io.NodeOutput(text, ui={**host.badge(), "text": [text]})
