"""Pictures to meshes."""

from __future__ import annotations

from comfy_api.latest import io
from torch import Tensor

from ..lowvram_core.errors import BadInput
from ..lowvram_core.plans import shape_parts
from ..lowvram_core.presets import VARIANTS
from ..lowvram_core.types import SIDES
from . import _convert, _host, _pictures
from ._core import stage
from ._schema import (
    PICTURE_TO_MESH,
    GivenPreset,
    choice_input,
    overridden,
    preset_input,
    preset_of,
    schema,
    seed_input,
    steps_input,
)

_STEPS = "More steps take longer. turbo variants need 4 to 10, the others 50."


class GenerateShape(io.ComfyNode):
    """IMAGE, MASK to MESH."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """One picture; its mask marks the object."""
        return schema(
            "GenerateShape", "Generate Shape", "Makes a dense mesh, without texture, of the object in the picture.",
            [*PICTURE_TO_MESH, "mesh"],
            inputs=[
                io.Image.Input("image", tooltip="One picture of the object, best from the front."),
                preset_input(),
                io.Mask.Input("mask", optional=True, tooltip="1 = object, as Remove Background gives it."),
                steps_input("shape_steps", _STEPS),
                seed_input(0, "the shape"),
                choice_input("variant", tuple(v for v in VARIANTS if not v.startswith("mv")),
                             "The shape model. A choice here overrides the preset."),
            ],
            outputs=[io.Mesh.Output("mesh", display_name="mesh")],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, image: Tensor, preset: GivenPreset, seed: int, variant: str, steps: int, mask: Tensor | None = None
    ) -> io.NodeOutput:
        """The surface as marching cubes leaves it."""
        chosen = overridden(preset_of(preset), variant=variant, shape_steps=steps)
        host = _host.ComfyHost(chosen.precision, shape_parts(chosen))
        mesh = stage("shape").generate_shape(
            _convert.cutout(image, mask, "shape", host), chosen, host, _host.model_store(host), seed=seed
        )
        return io.NodeOutput(_convert.mesh_to_comfy(mesh), ui={**_pictures.of_meshes("look", mesh), **host.badge()})


class GenerateShapeMultiView(io.ComfyNode):
    """Up to four pictures of one object to MESH."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Any of front, left, back and right, each with its mask."""
        pictures = [
            view_input
            for view in SIDES
            for view_input in (
                io.Image.Input(view, optional=True, tooltip=f"The object seen from its {view}."),
                io.Mask.Input(f"{view}_mask", optional=True, tooltip="1 = object."),
            )
        ]
        return schema(
            "GenerateShapeMultiView", "Generate Shape (Multi-View)",
            "Makes a mesh from up to four pictures of one object.", [*PICTURE_TO_MESH, "multiview", "four views"],
            inputs=[
                preset_input(), *pictures, steps_input("shape_steps", _STEPS), seed_input(0, "the shape"),
                choice_input("variant", tuple(v for v in reversed(VARIANTS) if v.startswith("mv")),
                             "The multi-view model. from preset: the preset's mv model, or the mv model that matches "
                             "the preset's model for one picture."),
            ],
            outputs=[io.Mesh.Output("mesh", display_name="mesh")],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, preset: GivenPreset, seed: int, variant: str, steps: int, **pictures: Tensor | None
    ) -> io.NodeOutput:
        """The views that are connected."""
        own = preset_of(preset)
        host = _host.ComfyHost(own.precision)
        cutouts = {
            view: _convert.cutout(image, pictures.get(f"{view}_mask"), f"shape, {view}", host)
            for view in SIDES
            if (image := pictures.get(view)) is not None
        }
        if not cutouts:
            raise BadInput("shape: no picture is connected; wanted at least one view. Connect front, for one.")
        chosen = overridden(own.with_(variant=own.multiview_variant), variant=variant, shape_steps=steps)
        host.expect(shape_parts(chosen))
        mesh = stage("shape").generate_shape(cutouts, chosen, host, _host.model_store(host), seed=seed)
        return io.NodeOutput(_convert.mesh_to_comfy(mesh), ui={**_pictures.of_meshes("look", mesh), **host.badge()})
