"""ComfyUI's IMAGE, MASK and MESH to the core's types and back."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any

import torch
import torch.nn.functional as F
from comfy_api.latest import Types
from torch import Tensor

from ..lowvram_core.errors import BadInput
from ..lowvram_core.pictures.transfer import linear, srgb
from ..lowvram_core.types import SIDES, Cutout, Mesh
from ._host import to_intermediate


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

    All zeros mean no mask: Load Image gives 1 - alpha, and 64x64 zeros for a file without alpha.
    """
    if mask is None or not bool(mask.any()):
        return None
    mask = mask.reshape(-1, *mask.shape[-2:]).float().cpu()
    return 1.0 - mask if invert else mask


def cutout(image: Tensor, mask: Tensor | None, stage: str) -> Cutout:
    """One picture and the mask of its object: the given mask, else the alpha channel, else the whole picture.

    Raises:
        BadInput: several pictures or masks in a batch.
    """
    picture = single_picture(image, stage)
    height, width, channels = picture.shape
    known = usable_mask(mask)
    if known is not None and len(known) != 1:
        raise BadInput(f"{stage}: {len(known)} masks for one picture; wanted one. Connect the picture's own mask.")
    if known is not None:
        alpha = resize_mask(known, height, width)[0]
    elif channels == 4:
        alpha = picture[..., 3]
    else:
        alpha = torch.ones(height, width)
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


def mesh_from_comfy(mesh: Any, stage: str) -> Mesh:
    """The core's Mesh from a MESH with one item.

    Raises:
        BadInput: it holds several meshes, or a part of it is missing.
    """
    if len(mesh.vertices) != 1:
        raise BadInput(
            f"{stage}: {len(mesh.vertices)} meshes in one batch; wanted one at a time. Make one per picture: pictures "
            "from a list run one by one."
        )
    vertex_count, face_count = (_count(mesh, name) for name in ("vertex_counts", "face_counts"))
    texture, uvs, normals, colors = (
        getattr(mesh, name, None) for name in ("texture", "uvs", "normals", "vertex_colors")
    )
    parts = {"faces": mesh.faces, "texture": texture, "UVs": uvs, "normals": normals, "colours": colors}
    for name, part in parts.items():
        if part is not None and len(part) != 1:
            raise BadInput(
                f"{stage}: one mesh has {name} for {len(part)} meshes; wanted one each. Check the node that made it."
            )
    return Mesh(
        vertices=mesh.vertices[0, :vertex_count].float().cpu(),
        faces=mesh.faces[0, :face_count].long().cpu(),
        uvs=None if uvs is None else uvs[0, :vertex_count].float().cpu(),
        texture=None if texture is None else texture[0, ..., :3].float().cpu(),
        normals=None if normals is None else normals[0, :vertex_count].float().cpu(),
        colors=None if colors is None else srgb(colors[0, :vertex_count, :3].float().cpu().clamp(0, 1)),
    )


def _count(mesh: Any, name: str) -> int | None:
    counts = getattr(mesh, name, None)
    return None if counts is None else int(counts[0])


def mesh_to_comfy(mesh: Mesh) -> Any:
    """A MESH with one item, on the intermediate device."""
    values: dict[str, Any] = {
        "vertices": to_intermediate(mesh.vertices[None]),
        "faces": to_intermediate(mesh.faces[None]),
    }
    if mesh.uvs is not None:
        values["uvs"] = to_intermediate(mesh.uvs[None])
    if mesh.texture is not None:
        values["texture"] = to_intermediate(mesh.texture[None])
    if mesh.normals is not None and "normals" in signature(Types.MESH).parameters:  # not in ComfyUI 0.21
        values["normals"] = to_intermediate(mesh.normals[None])
    if mesh.colors is not None:
        values["vertex_colors"] = to_intermediate(linear(mesh.colors)[None])  # ComfyUI's are linear, as glTF's
    return Types.MESH(**values)
