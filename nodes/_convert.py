"""ComfyUI's IMAGE, MASK and MESH to the core's types and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from comfy_api.latest import Types
from torch import Tensor

from ..lowvram_core.checks.pictures import looks_inverted
from ..lowvram_core.errors import BadInput
from ..lowvram_core.host import Host
from ..lowvram_core.pictures.transfer import linear, srgb
from ..lowvram_core.types import SIDES, Cutout, Mesh
from ._host import to_intermediate

Result = TypeVar("Result")


def single_picture(image: Tensor, stage: str) -> Tensor:
    """[H,W,C] float32 on the CPU, from an IMAGE [1,H,W,C].

    Raises:
        BadInput: there are several pictures; none is dropped silently.
    """
    if image.ndim != 4 or len(image) != 1:
        count = len(image) if image.ndim == 4 else f"shape {tuple(image.shape)}"
        raise BadInput(
            f"{stage}: {count} pictures in one batch; wanted one at a time. Remove Background splits a batch into a "
            "list, and so does the core node Rebatch Images with a batch size of 1."
        )
    return image[0].float().cpu()


def usable_mask(mask: Tensor | None, *, invert: bool = False) -> Tensor | None:
    """[B,H,W] float32 on the CPU, 1 = object; None if there is no mask.

    All zeros mean no mask: Load Image gives 1 - alpha, and 64x64 zeros for a file without alpha. Call it only for a
    mask as it came, not for one that was inverted: there all zeros mean that nothing is left.
    """
    if mask is None or not bool(mask.any()):
        return None
    mask = mask.reshape(-1, *mask.shape[-2:]).float().cpu()
    return 1.0 - mask if invert else mask


def cutout(image: Tensor, mask: Tensor | None, stage: str, host: Host) -> Cutout:
    """One picture and the mask of its object: the given mask, else the alpha channel, else the whole picture.

    The host gets a note if the mask looks inverted.

    Raises:
        BadInput: several pictures or masks in a batch.
    """
    known = usable_mask(mask)
    if known is not None and len(known) != 1:
        raise BadInput(f"{stage}: {len(known)} masks for one picture; wanted one. Connect the picture's own mask.")
    found = own_cutout(image, stage)
    if known is not None:
        found = Cutout(found.image, resize_mask(known, *found.image.shape[:2])[0].contiguous())
    if looks_inverted(found.mask):
        host.note(
            f"{stage}: the mask marks the picture's border all round, so it looks inverted; wanted 1 = object. Connect "
            "the masks of Load Image and Load Pictures to Remove Background, whose invert_mask is on, and connect its "
            "object mask here."
        )
    return found


def own_cutout(image: Tensor, stage: str) -> Cutout:
    """One picture and its alpha channel as the mask. Without alpha, the whole picture is the object.

    Raises:
        BadInput: several pictures in a batch.
    """
    picture = single_picture(image, stage)
    alpha = picture[..., 3] if picture.shape[-1] == 4 else torch.ones(picture.shape[:2])
    return Cutout(picture[..., :3].contiguous(), alpha.contiguous())


def pictures_of_one(
    image: Tensor, mask: Tensor | None, sides: Mapping[str, Tensor | None], stage: str
) -> dict[str, tuple[Tensor, Tensor | None]]:
    """Pictures of one object: those of a batch, then left, back and right. Each is an IMAGE and a MASK of one item.

    Args:
        mask: one for each picture of the batch.
        sides: IMAGE by name and MASK by `<name>_mask`; each may be missing.

    Returns:
        By name: how messages begin that are about the picture.

    Raises:
        BadInput: there are not as many masks as pictures.
    """
    if len(image) == 1:
        found = {stage: (image, mask)}
    else:
        masks = _one_each(image, mask, stage)
        found = {
            f"{stage}, picture {index + 1}": (image[index : index + 1], masks[index]) for index in range(len(image))
        }
    for side in SIDES[1:]:
        picture = sides.get(side)
        if picture is not None:
            found[f"{stage}, {side}"] = picture, sides.get(f"{side}_mask")
    return found


def _one_each(images: Tensor, mask: Tensor | None, stage: str) -> list[Tensor | None]:
    if mask is None or usable_mask(mask) is None:
        return [None] * len(images)
    if len(mask) != len(images):
        raise BadInput(
            f"{stage}: {len(mask)} masks for {len(images)} pictures; wanted one each. Connect the pictures' own masks."
        )
    return list(mask.split(1))


def resize_mask(mask: Tensor, height: int, width: int) -> Tensor:
    """[B,height,width]: the masks, scaled to that size."""
    if mask.shape[-2:] == (height, width):
        return mask
    return F.interpolate(mask[:, None], (height, width), mode="bilinear", align_corners=False)[:, 0]


def to_image(picture: Tensor) -> Tensor:
    """IMAGE [B,H,W,3] from [H,W,3] or [B,H,W,3]."""
    return to_intermediate(picture if picture.ndim == 4 else picture[None])


def to_mask(mask: Tensor) -> Tensor:
    """MASK [1,H,W] float32 from [H,W]."""
    return to_intermediate(mask.float()[None])


def to_masks(masks: Sequence[Tensor]) -> Tensor:
    """MASK [B,H,W] float32 from masks [h,w]; H and W are those of the largest."""
    return to_intermediate(_stacked([mask.float()[..., None] for mask in masks], "nearest")[..., 0])


def meshes_from_comfy(mesh: Any, stage: str, host: Host) -> list[Mesh]:
    """The core's meshes from a MESH, one for each item of the batch, without padding.

    A texture without UVs is left out, with a note: the core's nodes that change faces remove UVs and keep the texture.

    Raises:
        BadInput: the MESH is empty, or does not have a part for each of its meshes.
    """
    parts = {name: _items(getattr(mesh, name, None), dims) for name, dims in _PART_DIMS.items()}
    count = len(parts["vertices"] or [])
    if not count:
        raise BadInput(f"{stage}: an empty batch of meshes came; wanted one mesh or more. Check the node that made it.")
    if parts["uvs"] is None and parts["texture"] is not None:
        parts["texture"] = None
        host.note(
            f"{stage}: the mesh has a texture but no UVs, so the texture is left out. ComfyUI's Decimate, Remesh and "
            "Fill Holes remove UVs: use them before you paint."
        )
    for name, part in parts.items():
        if part is not None and len(part) != count:
            raise BadInput(
                f"{stage}: {count} meshes have {name.replace('_', ' ')} for {len(part)}; wanted one each. Check the "
                "node that made them."
            )
    return [_item({name: part and part[index] for name, part in parts.items()}) for index in range(count)]


_PART_DIMS = {
    "vertices": 2, "faces": 2, "uvs": 2, "texture": 3, "normals": 2, "vertex_colors": 2, "vertex_counts": 0,
    "face_counts": 0,
}  # fmt: skip
"""What is read of a MESH, and the dimensions that each has without the batch."""


def _items(part: Any, dims: int) -> list[Tensor] | None:
    """One tensor for each mesh. Some nodes give a list instead of a batch, or a mesh without the batch dimension."""
    if part is None or isinstance(part, list):
        return part
    return [part] if part.ndim == dims else list(part)


def _item(own: Mapping[str, Any]) -> Mesh:
    """One mesh from its parts, cut to their counts."""
    vertex_count, face_count = (None if own[name] is None else int(own[name]) for name in _COUNTS)
    vertices, uvs, normals, colors = (
        None if own[name] is None else own[name][:vertex_count].float().cpu()
        for name in ("vertices", "uvs", "normals", "vertex_colors")
    )
    assert vertices is not None
    return Mesh(
        vertices=vertices,
        faces=own["faces"][:face_count].long().cpu(),
        uvs=uvs,
        texture=None if own["texture"] is None else own["texture"][..., :3].float().cpu(),
        normals=normals,
        colors=None if colors is None else srgb(colors[:, :3].clamp(0, 1)),
    )


_COUNTS = ("vertex_counts", "face_counts")


def one_by_one(meshes: Sequence[Mesh], work: Callable[..., Result], *beside: Sequence[Any]) -> list[Result]:
    """The results of the work for each mesh of a batch.

    Args:
        work: takes a mesh and one item of each sequence of `beside`.

    Raises:
        BadInput: as `work` does; of several meshes, the message says which one it is.
    """
    results = []
    for number, given in enumerate(zip(meshes, *beside, strict=True), 1):
        try:
            results.append(work(*given))
        except BadInput as error:
            if len(meshes) == 1:
                raise
            raise BadInput(f"{error} It is mesh {number} of a batch of {len(meshes)}.") from error
    return results


def shared_out(given: Mapping[str, Tensor | None], count: int, stage: str) -> list[dict[str, Tensor | None]]:
    """What each of so many meshes gets of these IMAGEs and MASKs: all of them if it is one mesh, else one item each.

    Raises:
        BadInput: there are several meshes, and an input has neither one item for all nor one for each.
    """
    for name, batch in given.items():
        if batch is not None and count > 1 and len(batch) not in (1, count):
            raise BadInput(
                f"{stage}: {name} has {len(batch)} items for {count} meshes; wanted one for all, or one each. Connect "
                "a batch of that size."
            )

    def own(batch: Tensor | None, index: int) -> Tensor | None:
        return batch if batch is None or count == 1 or len(batch) == 1 else batch[index : index + 1]

    return [{name: own(batch, index) for name, batch in given.items()} for index in range(count)]


def mesh_to_comfy(mesh: Mesh) -> Any:
    """A MESH with one item, on the intermediate device."""
    return meshes_to_comfy([mesh])


def meshes_to_comfy(meshes: Sequence[Mesh]) -> Any:
    """A MESH with one item for each mesh, on the intermediate device.

    Meshes of different sizes are padded with zeros and get counts, as ComfyUI's own nodes do it. Textures of different
    sizes are scaled up to the largest. A part that one of the meshes lacks is left out.
    """
    values: dict[str, Any] = {"vertices": _padded([mesh.vertices for mesh in meshes]),
                              "faces": _padded([mesh.faces for mesh in meshes])}  # fmt: skip
    parts = {
        "uvs": [mesh.uvs for mesh in meshes],
        "normals": [mesh.normals for mesh in meshes],
        # ComfyUI's colours are linear, as glTF's.
        "vertex_colors": [None if mesh.colors is None else linear(mesh.colors) for mesh in meshes],
    }
    if "normals" not in signature(Types.MESH).parameters:  # not in ComfyUI 0.21
        del parts["normals"]
    for name, part in parts.items():
        if (whole := _complete(part)) is not None:
            values[name] = _padded(whole)
    if (textures := _complete([mesh.texture for mesh in meshes])) is not None:
        values["texture"] = _stacked(textures, "bilinear")
    if len(meshes) > 1:
        values["vertex_counts"] = torch.tensor([len(mesh.vertices) for mesh in meshes])
        values["face_counts"] = torch.tensor([len(mesh.faces) for mesh in meshes])
    return Types.MESH(**{name: to_intermediate(value) for name, value in values.items()})


def _complete(parts: list[Tensor | None]) -> list[Tensor] | None:
    found = [part for part in parts if part is not None]
    return found if len(found) == len(parts) else None


def _padded(parts: Sequence[Tensor]) -> Tensor:
    """[B,N,C] from [n,C]; N is the largest n."""
    return torch.nn.utils.rnn.pad_sequence(list(parts), batch_first=True)


def _stacked(pictures: Sequence[Tensor], mode: str) -> Tensor:
    """[B,H,W,C] from [h,w,C], scaled to the largest h and w."""
    height, width = (max(picture.shape[side] for picture in pictures) for side in (0, 1))
    return torch.stack([
        picture if picture.shape[:2] == (height, width)
        else F.interpolate(picture.movedim(2, 0)[None], (height, width), mode=mode)[0].movedim(0, 2)
        for picture in pictures
    ])  # fmt: skip
