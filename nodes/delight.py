"""Pictures without light and shadow."""

from __future__ import annotations

from comfy_api.latest import io
from torch import Tensor

from ..lowvram_core.plans import delight_parts
from . import _convert, _host
from ._core import stage
from ._schema import GivenPreset, further_inputs, overridden, preset_input, preset_of, schema, seed_input, steps_input


class Delight(io.ComfyNode):
    """IMAGE, MASK to IMAGE."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """One picture or several; each has a mask that marks the object."""
        return schema(
            "Delight", "Delight",
            "Removes light and shadow from the picture and centres the object on white, at 512 px. Paint Views needs "
            "such a picture. Several pictures are changed one by one and leave as one batch.",
            ["remove shadows", "albedo", "relight"],
            inputs=[
                io.Image.Input("image", tooltip="One picture of the object, or a batch."),
                preset_input(),
                io.Mask.Input("mask", optional=True, tooltip="1 = object, as Remove Background gives it."),
                *further_inputs(),
                steps_input("delight_steps", "More steps take longer. Upstream's value is 50."),
                seed_input(42, "the noise; upstream's is 42"),
            ],
            outputs=[
                io.Image.Output("image_out", display_name="image", tooltip="As many pictures as went in, 512 px."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls,
        image: Tensor,
        preset: GivenPreset,
        seed: int,
        steps: int,
        mask: Tensor | None = None,
        **sides: Tensor | None,
    ) -> io.NodeOutput:
        """[R,512,512,3]."""
        pictures = _convert.pictures_of_one(image, mask, sides, "delight")
        chosen = overridden(preset_of(preset), delight_steps=steps)
        host = _host.ComfyHost(chosen.precision, delight_parts(len(pictures), chosen))
        delit = stage("delight").delight_all(
            [_convert.cutout(*picture, name, host) for name, picture in pictures.items()],
            chosen, host, _host.model_store(host), seed=seed,
        )  # fmt: skip
        host.show_result(delit)
        return io.NodeOutput(_convert.to_image(delit), ui=host.badge())
