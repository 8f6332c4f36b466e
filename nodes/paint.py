"""Pictures of the mesh from several sides."""

from __future__ import annotations

from comfy_api.latest import io
from torch import Tensor

from ..lowvram_core.plans import paint_parts, unwrap_parts
from ..lowvram_core.presets import VIEW_SETS, Preset
from . import _convert, _host
from ._core import core, stage
from ._schema import ViewsType, choice_input, further_inputs, overridden, preset_input, schema, seed_input, steps_input


class PaintViews(io.ComfyNode):
    """MESH and IMAGE to one IMAGE per view."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Unwraps a mesh without UVs: the paint model was trained on meshes that are split at the seams."""
        return schema(
            "PaintViews", "Paint Views",
            "Paints the mesh from several sides in the colours of one picture, or of up to 5 pictures of the same "
            "object. Unwraps the mesh first if it has no UVs.",
            ["texture", "multiview"],
            inputs=[
                io.Mesh.Input("mesh", tooltip="The mesh to paint. Its UVs are kept, if it has any."),
                io.Image.Input("image",
                               tooltip="The picture to take colours from, or a batch of pictures of the same object. "
                               "Best from Delight."),
                preset_input(),
                io.Mask.Input("mask", optional=True,
                              tooltip="1 = object. Only for a picture that did not go through Delight."),
                *further_inputs(),
                steps_input("paint_steps", "More steps take longer. Upstream's value is 30."),
                seed_input(0, "the noise; upstream's is 0"),
                choice_input("views", tuple(VIEW_SETS), "The painted sides. A choice here overrides the preset."),
            ],
            outputs=[
                io.Image.Output("images", display_name="images", tooltip="One picture per view, 512 px."),
                ViewsType.Output("views_out", display_name="views", tooltip="The cameras of the pictures."),
                io.Mesh.Output("mesh_out", display_name="mesh", tooltip="The mesh with UVs."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, mesh: object, image: Tensor, preset: Preset, seed: int, steps: int, views: str,
        mask: Tensor | None = None, **sides: Tensor | None,
    ) -> io.NodeOutput:  # fmt: skip
        """[N,512,512,3], their cameras, and the mesh."""
        chosen = overridden(preset, paint_steps=steps, views=views)
        pictures = _convert.pictures_of_one(image, mask, sides, "paint")
        given = _convert.mesh_from_comfy(mesh, "paint")
        plan = [*(unwrap_parts(len(given.faces), chosen) if given.uvs is None else []),
                *paint_parts(chosen, len(pictures))]  # fmt: skip
        host = _host.ComfyHost(preset.precision, plan)
        core("checks.pictures").check_reference_count(len(pictures))
        references = [_reference(*picture, name) for name, picture in pictures.items()]
        core_mesh = stage("unwrap").unwrap(given, chosen, host, keep_uvs=True)
        painted = stage("paint").paint_views(core_mesh, references, chosen, host, _host.model_store(host), seed=seed)
        host.show_result(painted.images)
        return io.NodeOutput(
            _convert.to_image(painted.images), painted.cameras, _convert.mesh_to_comfy(core_mesh),
            ui=host.badge(),
        )  # fmt: skip


def _reference(image: Tensor, mask: Tensor | None, name: str) -> Tensor | _convert.Cutout:
    """The whole picture if nothing marks an object in it, else the cutout."""
    picture = _convert.single_picture(image, name)
    whole = _convert.usable_mask(mask) is None and picture.shape[-1] == 3
    return picture if whole else _convert.cutout(image, mask, name)
