"""Turntables of the command line: animated WebP files."""

from __future__ import annotations

from pathlib import Path

from ..errors import BadInput
from ..host import Host
from ..pictures.convert import pil_from_image
from ..render.preview import turntable
from ..types import Mesh

FRAMES = 36
SIZE_PX = 512
FRAME_MS = 83
"""36 frames take 3 seconds."""
QUALITY = 85


def write_turntable(mesh: Mesh, path: Path, host: Host) -> None:
    """Writes an animated WebP of the mesh, once around, that repeats for ever.

    Raises:
        BadInput: the file cannot be written.
    """
    frames = []
    with host.phase("turntable"):
        for picture in turntable(mesh, FRAMES, SIZE_PX):
            frames.append(pil_from_image(picture))
            host.progress(len(frames), FRAMES)
        try:
            frames[0].save(path, save_all=True, append_images=frames[1:], duration=FRAME_MS, loop=0, quality=QUALITY)
        except OSError as error:
            raise BadInput(
                f"save: {path} cannot be written ({error}); wanted a place with room. Choose another -o."
            ) from error
