"""Pictures of the mesh from several sides."""

from __future__ import annotations

import torch
from comfy_api.latest import io
from torch import Tensor

from ..lowvram_core.plans import paint_parts, unwrap_parts
from ..lowvram_core.presets import VIEW_SETS
from ..lowvram_core.types import Mesh, Views
from . import _convert, _host
from ._core import core, stage
from ._schema import (
    GivenPreset,
    ViewsType,
    choice_input,
    further_inputs,
    overridden,
    preset_input,
    preset_of,
    schema,
    seed_input,
    steps_input,
)


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
        cls, mesh: object, image: Tensor, preset: GivenPreset, seed: int, steps: int, views: str,
        mask: Tensor | None = None, **sides: Tensor | None,
    ) -> io.NodeOutput:  # fmt: skip
        """[N,512,512,3], their cameras, and the mesh. The views of several meshes follow each other."""
        chosen = overridden(preset_of(preset), paint_steps=steps, views=views)
        host = _host.ComfyHost(chosen.precision)
        meshes = _convert.meshes_from_comfy(mesh, "paint", host)
        shares = _convert.shared_out({"image": image, "mask": mask, **sides}, len(meshes), "paint")
        references = [_references(share, host) for share in shares]

        def paint(item: Mesh, own: list[Tensor | _convert.Cutout]) -> tuple[Mesh, Views]:
            unwrapped = stage("unwrap").unwrap(item, chosen, host, keep_uvs=True)
            store = _host.model_store(host)
            return unwrapped, stage("paint").paint_views(unwrapped, own, chosen, host, store, seed=seed)

        host.expect(
            part
            for item, own in zip(meshes, references, strict=True)
            for part in (*(unwrap_parts(len(item.faces), chosen) if item.uvs is None else ()),
                         *paint_parts(chosen, len(own)))
        )  # fmt: skip
        done = _convert.one_by_one(meshes, paint, references)
        images = torch.cat([painted.images for _, painted in done])
        host.show_result(images)
        cameras = [painted.cameras for _, painted in done]
        return io.NodeOutput(
            _convert.to_image(images),
            cameras[0] if len(cameras) == 1 else tuple(cameras),
            _convert.meshes_to_comfy([unwrapped for unwrapped, _ in done]),
            ui=host.badge(),
        )  # fmt: skip


def _references(given: dict[str, Tensor | None], host: _host.ComfyHost) -> list[Tensor | _convert.Cutout]:
    """The reference pictures of one mesh.

    Args:
        given: `image`, `mask`, and the further pictures and masks by name.
    """
    image, mask, *_ = given.values()
    assert image is not None
    pictures = _convert.pictures_of_one(image, mask, given, "paint")
    core("checks.pictures").check_reference_count(len(pictures))
    return [_reference(*picture, name, host) for name, picture in pictures.items()]


def _reference(image: Tensor, mask: Tensor | None, name: str, host: _host.ComfyHost) -> Tensor | _convert.Cutout:
    """The whole picture if nothing marks an object in it, else the cutout."""
    picture = _convert.single_picture(image, name)
    whole = _convert.usable_mask(mask) is None and picture.shape[-1] == 3
    return picture if whole else _convert.cutout(image, mask, name, host)
