"""The mesh seen once all around."""

from __future__ import annotations

import torch
from comfy_api.latest import io
from torch import Tensor

from ..lowvram_core.errors import BadInput
from ..lowvram_core.plans import turntable_parts
from ..lowvram_core.types import Mesh
from . import _convert, _host
from ._core import core, naming
from ._schema import schema

BACKGROUNDS = {"white": 1.0, "grey": 0.5, "black": 0.0}
MOST_PIXELS = 2**28
"""Of all frames together; their colours take 3 GiB of RAM."""


class Turntable(io.ComfyNode):
    """MESH to IMAGE."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The core's Save Animated WEBP and Save Image write the frames."""
        return schema(
            "Turntable", "Turntable",
            "Draws the mesh from all around, one picture per frame. Connect Save Animated WEBP for a turning picture, "
            "or Save Image for the single ones.",
            ["spin", "rotate", "360", "animation", "render"],
            inputs=[
                io.Mesh.Input("mesh", tooltip="A mesh with texture, with colours, or without both."),
                io.Int.Input("frames", default=36, min=1, max=360,
                             tooltip="Pictures for one turn. 36 at 12 frames a second turn in 3 seconds."),
                io.Int.Input("size", default=512, min=64, max=2048, step=64,
                             tooltip="Width and height of a picture, in pixels."),
                io.Combo.Input("background", options=list(BACKGROUNDS), default="white",
                               tooltip="The colour behind the mesh."),
            ],
            outputs=[io.Image.Output("images", display_name="images", tooltip="The frames, the front first.")],
        )  # fmt: skip

    @classmethod
    def execute(cls, mesh: object, frames: int, size: int, background: str) -> io.NodeOutput:
        """[frames,size,size,3]; the frames of several meshes follow each other."""
        host = _host.ComfyHost()
        meshes = _convert.meshes_from_comfy(mesh, "turntable", host)
        count = frames * len(meshes)
        if count * size**2 > MOST_PIXELS:
            raise BadInput(
                f"turntable: {count} frames of {size} px; wanted at most {MOST_PIXELS // size**2} of that size. "
                "Choose fewer frames or a smaller size."
            )

        def draw(item: Mesh) -> Tensor:
            core("checks.meshes").check_mesh(item, "turntable")
            pictures = torch.empty(frames, size, size, 3)
            with naming("turntable"), host.phase("turntable"):
                drawn = core("render.preview").turntable(item, frames, size, background=BACKGROUNDS[background])
                for index, picture in enumerate(drawn):
                    pictures[index] = picture
                    host.progress(index + 1, frames)
            return pictures

        host.expect(part for _ in meshes for part in turntable_parts(frames))
        pictures = torch.cat(_convert.one_by_one(meshes, draw))
        return io.NodeOutput(_convert.to_image(pictures), ui=host.badge())
