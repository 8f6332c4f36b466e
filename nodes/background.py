"""Pictures from a folder, and the objects cut out of pictures."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..lowvram_core.errors import BadInput, MissingModel
from ..lowvram_core.files.names import is_folder
from ..lowvram_core.plans import background_parts
from ..lowvram_core.presets import BACKGROUND_MODELS, Preset
from . import _convert, _host, _pictures
from ._core import core, stage
from ._schema import GivenPreset, preset_input, preset_of, schema

log = logging.getLogger(__name__)


class RemoveBackground(io.ComfyNode):
    """IMAGE to IMAGE and MASK, a batch to a list."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """A connected mask that is not empty marks the object; then no background is removed."""
        return schema(
            "RemoveBackground", "Remove Background (Hunyuan3D)",
            "Cuts the object out, on the CPU. A connected mask is used instead. A batch becomes a list, so that the "
            "nodes after it run once per picture.",
            ["rembg", "cutout", "alpha"],
            inputs=[
                io.Image.Input("image", tooltip="One picture or a batch."),
                preset_input(),
                io.Mask.Input("mask", optional=True, tooltip="The object's mask, if any. All zeros count as none."),
                io.Boolean.Input(
                    "invert_mask", default=True,
                    tooltip="On for the mask of Load Image and Load Pictures, which is 1 where the picture is "
                    "transparent. Off for the core's own Remove Background, whose mask is 1 = object.",
                ),
                io.Boolean.Input("keep_background", default=False, tooltip="Takes the whole picture as the object."),
            ],
            outputs=[
                io.Image.Output("image_out", display_name="image", is_output_list=True),
                io.Mask.Output("object_mask", display_name="object mask", is_output_list=True,
                               tooltip="1 = object."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, image: Tensor, preset: GivenPreset, invert_mask: bool, keep_background: bool, mask: Tensor | None = None
    ) -> io.NodeOutput:
        """Cuts each picture out; one mask may serve all pictures."""
        chosen = preset_of(preset)
        host = _host.ComfyHost(plan=background_parts(len(image), chosen))
        known = _convert.usable_mask(mask, invert=invert_mask)
        if known is not None and len(known) not in (1, len(image)):
            raise BadInput(
                f"background: {len(known)} masks for {len(image)} pictures; wanted one each, or one for all. "
                "Connect the pictures' own masks."
            )
        cutouts = []
        for index, picture in enumerate(image):
            own = None if known is None else known[min(index, len(known) - 1)]
            if own is not None and invert_mask:
                own = _inverted(own, core("checks.pictures").named("background", index, len(image)))
            cutouts.append(_cut(picture[None], own, chosen, host, keep_background))
        images = [_convert.to_image(cutout.image) for cutout in cutouts]
        masks = [_convert.to_mask(cutout.mask) for cutout in cutouts]
        return io.NodeOutput(images, masks, ui={**_pictures.of_cutouts(cutouts), **host.badge()})


def _inverted(mask: Tensor, stage_name: str) -> Tensor | None:
    """A mask [H,W] that was inverted, 1 = object. None if it was made of the alpha of an opaque file.

    Such a mask comes in a batch with others, or from an alpha that is not quite 255. `stage_name` begins the message.

    Raises:
        BadInput: nothing is left of the picture.
    """
    if not bool(mask.any()):
        raise BadInput(
            f"{stage_name}: the mask is 1 everywhere and invert_mask is on, so nothing is left of the picture; wanted "
            "an object. If the mask is 1 = object, switch invert_mask off. If the picture is fully transparent, use "
            "another one."
        )
    return mask if core("checks.pictures").is_used(mask.numpy() < 0.5) else None


def _cut(image: Tensor, mask: Tensor | None, preset: Preset, host: _host.ComfyHost, keep: bool) -> _convert.Cutout:
    convert = core("pictures.convert")
    if mask is not None:
        picture = _convert.single_picture(image, "background")
        alpha = _convert.resize_mask(mask[None], *picture.shape[:2])[0]
        rgba = convert.rgba_from_cutout(_convert.Cutout(picture[..., :3], alpha))
    else:
        rgb = _convert.own_cutout(image, "background")
        rgba = convert.rgba_from_cutout(rgb) if image.shape[-1] == 4 else convert.pil_from_image(rgb.image)
    store = _host.model_store(host)
    remove = partial(stage("background").remove_background, rgba, host=host, store=store)
    try:
        result: _convert.Cutout = remove(preset=preset, keep_background=keep, is_cutout=mask is not None)
    except MissingModel as error:
        there = next((name for name in BACKGROUND_MODELS if store.is_present(f"background/{name}")), None)
        if there is None:
            raise
        log.warning("%s", error)
        host.note(
            f"background: {there} is used, since {preset.background_model}, which the preset wants, cannot be had (the "
            "log says why). Get its files, or choose a preset with another."
        )
        result = remove(preset=preset.with_(background_model=there))
    return result


class LoadPictures(io.ComfyNode):
    """A folder's pictures as a list: the graph runs once for each."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """A folder out of those that `_host.readable` allows."""
        return schema(
            "LoadPictures", "Load Pictures from Folder",
            "Every picture of a folder, as a list: what follows runs once per picture.",
            ["batch", "folder", "directory"],
            inputs=[
                io.String.Input("folder", default="",
                                tooltip="A folder in ComfyUI's input folder; empty for the input folder itself. With "
                                f"[output] after the name, a folder in its output folder. {_host.FULL_PATHS}"),
                io.Int.Input("limit", default=0, min=0, max=10000, tooltip="At most so many, in name order; 0: all."),
            ],
            outputs=[
                io.Image.Output("image", display_name="image", is_output_list=True),
                io.Mask.Output("mask", display_name="mask", is_output_list=True,
                               tooltip="As Load Image's: 1 where the picture is transparent; all zeros without that."),
                io.String.Output("name", display_name="name", is_output_list=True),
            ],
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(cls, folder: str, limit: int) -> list[tuple[str, float]]:
        """Runs again when a file was added or changed."""
        try:
            where = _host.readable(folder, "picture")
        except BadInput:
            return []
        files = sorted(where.iterdir()) if is_folder(where) else []
        return [(file.name, file.stat().st_mtime) for file in files]

    @classmethod
    def execute(cls, folder: str, limit: int) -> io.NodeOutput:
        """Pictures, masks and names, in name order."""
        host = _host.ComfyHost()
        pictures, convert = core("files.pictures"), core("pictures.convert")
        paths: list[Path] = pictures.find_pictures([_host.readable(folder, "picture")], host.note)
        loaded = _load(paths, limit, host)
        cutouts = [convert.cutout_from_rgba(picture.convert("RGBA")) for picture in loaded.values()]
        return io.NodeOutput(
            [_convert.to_image(cutout.image) for cutout in cutouts],
            [_convert.to_mask(1 - cutout.mask) for cutout in cutouts],
            pictures.unique_stems(list(loaded)),
            ui=host.badge(),
        )


def _load(paths: list[Path], limit: int, host: _host.ComfyHost) -> dict[Path, Any]:
    """The pictures by path, `limit` at most; 0: all. One that cannot be used is skipped, with a note.

    A picture cannot be used if it cannot be read, if it is fully transparent, or if its path leads out of the folders
    that may be read.

    Raises:
        BadInput: none can be used.
    """
    loaded: dict[Path, Any] = {}
    failed: list[BadInput] = []
    for path in paths:
        if limit and len(loaded) == limit:
            break
        try:
            picture = core("files.pictures").load_picture(_host.readable(str(path), "picture"))
            core("checks.pictures").check_visible(picture, path.name)
            loaded[path] = picture
        except BadInput as error:
            failed.append(error)
            host.note(f"{error} It was skipped.")
    if not loaded:
        raise failed[0]
    return loaded
