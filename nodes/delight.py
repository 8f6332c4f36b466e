"""The picture without light and shadow."""

from __future__ import annotations

from comfy_api.latest import io
from torch import Tensor

from ..lowvram_core.presets import Preset
from . import _convert, _host
from ._core import stage
from ._schema import overridden, preset_input, schema, seed_input, steps_input


class Delight(io.ComfyNode):
    """IMAGE, MASK to IMAGE."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """One picture; its mask marks the object."""
        return schema(
            "Delight", "Delight",
            "Removes light and shadow from the picture and centres the object on white, at 512 px. Paint Views needs "
            "such a picture.",
            ["remove shadows", "albedo", "relight"],
            inputs=[
                io.Image.Input("image", tooltip="One picture of the object."),
                preset_input(),
                io.Mask.Input("mask", optional=True, tooltip="1 = object, as Remove Background gives it."),
                steps_input("delight_steps", "More steps take longer. Upstream's value is 50."),
                seed_input(42, "the noise; upstream's is 42"),
            ],
            outputs=[io.Image.Output("image_out", display_name="image")],
        )  # fmt: skip

    @classmethod
    def execute(cls, image: Tensor, preset: Preset, seed: int, steps: int, mask: Tensor | None = None) -> io.NodeOutput:
        """[1,512,512,3]."""
        host = _host.ComfyHost(preset.precision)
        delit = stage("delight").delight(
            _convert.cutout(image, mask, "delight"), overridden(preset, delight_steps=steps), host,
            _host.model_store(host), seed=seed,
        )  # fmt: skip
        return io.NodeOutput(_convert.to_image(delit), ui=host.badge())
