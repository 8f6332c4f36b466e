"""What ComfyUI shows of a run beside the bars: texts on nodes, the time left, one line in the log at the end."""

from __future__ import annotations

import logging
import time
from functools import cache
from typing import Any

from ..lowvram_core.files.timings import FileTimings
from ..lowvram_core.report import summary
from . import _comfy, _records
from ._graph import own_name, upstream

STAGES = {
    "RemoveBackground": "cutout", "GenerateShape": "mesh", "GenerateShapeMultiView": "mesh", "CleanMesh": "mesh",
    "UnwrapUVs": "mesh with UVs", "Delight": "delit picture", "PaintViews": "painted views",
    "BakeTexture": "textured mesh", "InpaintTexture": "textured mesh",
}  # fmt: skip
"""The nodes that make something, and what they make."""
TEXT_EVERY_S = 0.25
log = logging.getLogger(__name__)


def node_id() -> str:
    """The id of the running node; empty outside of a prompt."""
    context = _records.executing()
    return "" if context is None else str(context.node_id)


@cache
def timings() -> FileTimings:
    """The seconds that earlier runs took, in a folder of ComfyUI's user directory that its users cannot read."""
    return FileTimings(_comfy.user_folder() / "__hunyuan3d_lowvram" / "timings.json")


class Text:
    """The text on a node. ComfyUI shows the last one that was sent.

    Args:
        node_id: empty: nothing is shown.
    """

    def __init__(self, node_id: str) -> None:
        self._node_id = node_id
        self._sent = ""
        self._at = 0.0

    def show(self, text: str, *, last: bool = False) -> None:
        """Sends the text if it is new, at most four times a second.

        Args:
            last: send it in any case.
        """
        now = time.monotonic()
        if not self._node_id or text in ("", self._sent) or (now - self._at < TEXT_EVERY_S and not last):
            return
        self._sent, self._at = text, now
        _comfy.send_text(self._node_id, text)


def log_summary(prompt: dict[str, Any], node_id: str) -> None:
    """Logs one line about the run, if no other stage follows this node in the prompt."""
    made = STAGES.get(own_name(prompt, node_id))
    later = (other for other in prompt if node_id in upstream(prompt, other))
    if made is None or any(own_name(prompt, other) in STAGES for other in later):
        return
    records, _ = _records.of(prompt, {node_id, *upstream(prompt, node_id)})
    log.info("%s", summary(records, made))
