"""Nodes that make a texture of the painted views and fill its holes."""

from __future__ import annotations

from comfy_api.latest import io
from torch import Tensor

from ..lowvram_core.errors import BadInput
from ..lowvram_core.plans import bake_parts, inpaint_parts
from ..lowvram_core.presets import Preset
from ..lowvram_core.types import Atlas, Camera, Views
from . import _convert, _host, _pictures
from ._core import stage
from ._schema import ViewsType, preset_input, schema


class BakeTexture(io.ComfyNode):
    """MESH, IMAGE, VIEWS to a MESH whose texture may have holes."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Mesh, images and views come from one Paint Views; the images may have been edited or enlarged."""
        return schema(
            "BakeTexture", "Bake Texture", "Projects the painted views onto the mesh's texture.",
            ["project", "texture"],
            inputs=[
                io.Mesh.Input("mesh", tooltip="The mesh with UVs, from Paint Views."),
                io.Image.Input("images", tooltip="One square picture per view, in the views' order, of any size."),
                ViewsType.Input("views", tooltip="From Paint Views."),
                preset_input(),
            ],
            outputs=[
                io.Mesh.Output("mesh_out", display_name="mesh"),
                io.Mask.Output("seen", display_name="seen", tooltip="1 = at least one view painted this texel."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, mesh: object, images: Tensor, views: tuple[Camera, ...], preset: Preset) -> io.NodeOutput:
        """The texture, black where no view saw it, and the mask of the seen texels."""
        core_mesh = _convert.mesh_from_comfy(mesh, "bake")
        host = _host.ComfyHost(plan=bake_parts(len(images), preset))
        atlas = stage("bake").bake(core_mesh, Views(images[..., :3].float().cpu(), views), preset, host)
        textured = core_mesh.with_(texture=atlas.texture)
        return io.NodeOutput(
            _convert.mesh_to_comfy(textured), _convert.to_mask(atlas.seen),
            ui={**_pictures.of_mesh("look", textured), **host.badge()},
        )  # fmt: skip


class InpaintTexture(io.ComfyNode):
    """MESH, MASK to MESH."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The mask marks the texels to keep."""
        return schema(
            "InpaintTexture", "Inpaint Texture", "Fills the texels that no view has seen with the colours around them.",
            ["fill holes", "texture"],
            inputs=[
                io.Mesh.Input("mesh", tooltip="The textured mesh, from Bake Texture."),
                io.Mask.Input("seen", tooltip="1 = keep this texel. Comes from Bake Texture."),
            ],
            outputs=[io.Mesh.Output("mesh_out", display_name="mesh")],
        )  # fmt: skip

    @classmethod
    def execute(cls, mesh: object, seen: Tensor) -> io.NodeOutput:
        """The same mesh with a texture without holes."""
        core_mesh = _convert.mesh_from_comfy(mesh, "inpaint")
        if core_mesh.texture is None:
            raise BadInput("inpaint: the mesh has no texture; wanted one from Bake Texture. Connect its mesh.")
        host = _host.ComfyHost(plan=inpaint_parts(len(core_mesh.texture)))
        masks = seen.reshape(-1, *seen.shape[-2:]).float().cpu()
        if len(masks) != 1:
            raise BadInput(f"inpaint: {len(masks)} masks for one texture; wanted one. Connect Bake Texture's.")
        kept = _convert.resize_mask(masks, *core_mesh.texture.shape[:2])[0] >= 0.5
        filled = stage("inpaint").inpaint(core_mesh, Atlas(core_mesh.texture, kept), host)
        shown = _pictures.of_mesh("look", filled)
        return io.NodeOutput(_convert.mesh_to_comfy(filled), ui={**shown, **host.badge()})
