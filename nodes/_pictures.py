"""Small pictures of results, for the nodes that made them. They are files in ComfyUI's temporary folder."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ..lowvram_core.types import Cutout, Mesh
from . import _comfy, _records
from ._core import core

VARIABLE = "HY3D_LOWVRAM_PICTURES"
"""0 or 1: whether nodes show pictures of meshes. It wins over the setting."""
SETTING = "hunyuan3dlowvram.pictures"
"""Its name in ComfyUI's settings; see web/pictures.js."""
MOST_PX = 512
"""Longest side of a picture."""
log = logging.getLogger(__name__)


def of_meshes(kind: str, *meshes: Mesh) -> dict[str, Any]:
    """What a node sends to show meshes, a picture of each; nothing if that is switched off.

    Args:
        kind: a function of lowvram_core/render/portraits.py.
    """
    if not _records.executing() or not wanted():
        return {}
    try:
        draw = getattr(core("render.portraits"), kind)
        return {"images": [image for mesh in meshes for image in shown(draw(mesh)[None])["images"]]}
    except Exception as error:  # the mesh is finished: no picture of it may cost it
        log.warning("pictures: no picture of the mesh (%s: %s)", type(error).__name__, error)
        return {}


def of_cutouts(cutouts: Sequence[Cutout]) -> dict[str, Any]:
    """What a node sends to show objects that were cut out, on a chequerboard."""
    on_checkers = core("pictures.checkers").on_checkers
    return {"images": [image for cutout in cutouts for image in shown(on_checkers(cutout)[None]).get("images", [])]}


def shown(images: Tensor) -> dict[str, Any]:
    """What a node sends to show pictures [N,H,W,3] float32 sRGB 0..1. Nodes with previews use ComfyHost.show_result."""
    if not _records.executing():
        return {}
    from comfy_api.latest import ui

    height, width = images.shape[1:3]
    scale = MOST_PX / max(height, width)
    if scale < 1:
        size = max(1, round(height * scale)), max(1, round(width * scale))
        images = F.interpolate(images.permute(0, 3, 1, 2).float(), size, mode="area").permute(0, 2, 3, 1)
    return {"images": list(ui.PreviewImage(images.detach().float().cpu()).as_dict()["images"])}


def wanted() -> bool:
    """Whether nodes show pictures of meshes: the environment variable, else ComfyUI's setting, else yes."""
    told = os.environ.get(VARIABLE, "").strip().lower()
    if told:
        return told not in ("0", "off", "no", "false")
    file = _comfy.user_folder() / "default" / "comfy.settings.json"
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return True
    return not (isinstance(settings, dict) and settings.get(SETTING) is False)
