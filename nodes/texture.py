"""Nodes that make a texture of the painted views and fill its holes."""

from __future__ import annotations

from comfy_api.latest import io
from torch import Tensor

from ..lowvram_core.errors import BadInput
from ..lowvram_core.plans import bake_parts, inpaint_parts
from ..lowvram_core.types import Atlas, Camera, Mesh, Views
from . import _convert, _host, _pictures
from ._core import stage
from ._schema import GivenPreset, ViewsType, preset_input, preset_of, schema

Rigs = tuple[Camera, ...] | tuple[tuple[Camera, ...], ...]
"""The cameras of one mesh, or those of each mesh of a batch."""


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
    def execute(cls, mesh: object, images: Tensor, views: Rigs, preset: GivenPreset) -> io.NodeOutput:
        """The texture, black where no view saw it, and the mask of the seen texels."""
        host, chosen = _host.ComfyHost(), preset_of(preset)
        meshes = _convert.meshes_from_comfy(mesh, "bake", host)
        host.expect(bake_parts(len(images), chosen))
        atlases = _convert.one_by_one(
            meshes, lambda item, own: stage("bake").bake(item, own, chosen, host), _views(images, views, len(meshes))
        )
        textured = [item.with_(texture=atlas.texture) for item, atlas in zip(meshes, atlases, strict=True)]
        seen = _convert.to_masks([atlas.seen for atlas in atlases])
        shown = _pictures.of_meshes("look", *textured)
        return io.NodeOutput(_convert.meshes_to_comfy(textured), seen, ui={**shown, **host.badge()})


def _views(images: Tensor, rigs: Rigs, count: int) -> list[Views]:
    """The views of each of so many meshes.

    Raises:
        BadInput: they are not those of so many meshes.
    """
    pictures = images[..., :3].float().cpu()
    each = [rig for rig in rigs if isinstance(rig, tuple)] or [tuple(rig for rig in rigs if isinstance(rig, Camera))]
    if len(each) != count or (count > 1 and len(pictures) != sum(map(len, each))):
        raise BadInput(
            f"bake: {len(pictures)} pictures and the cameras of {len(each)} meshes came for {count}; wanted those of "
            "the same meshes. Connect mesh, images and views of one Paint Views."
        )
    shares = [pictures] if count == 1 else pictures.split([len(rig) for rig in each])
    return [Views(share, rig) for share, rig in zip(shares, each, strict=True)]


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
        host = _host.ComfyHost()
        meshes = _convert.meshes_from_comfy(mesh, "inpaint", host)
        masks = seen.reshape(-1, *seen.shape[-2:]).float().cpu()
        if len(masks) != len(meshes):
            textures = "one texture; wanted one" if len(meshes) == 1 else f"{len(meshes)} textures; wanted one each"
            raise BadInput(f"inpaint: {len(masks)} masks for {textures}. Connect Bake Texture's.")

        def inpaint(item: Mesh, mask: Tensor) -> Mesh:
            if item.texture is None:
                raise BadInput("inpaint: the mesh has no texture; wanted one from Bake Texture. Connect its mesh.")
            kept = _convert.resize_mask(mask, *item.texture.shape[:2])[0] >= 0.5
            filled: Mesh = stage("inpaint").inpaint(item, Atlas(item.texture, kept), host)
            return filled

        sizes = [0 if item.texture is None else len(item.texture) for item in meshes]
        host.expect(part for size in sizes for part in inpaint_parts(size))
        filled = _convert.one_by_one(meshes, inpaint, masks.split(1))
        shown = _pictures.of_meshes("look", *filled)
        return io.NodeOutput(_convert.meshes_to_comfy(filled), ui={**shown, **host.badge()})
