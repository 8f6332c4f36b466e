"""A node pack for the test server. It reads ComfyUI's state and makes test inputs without a model."""

from __future__ import annotations

import importlib.util
import inspect
import json
import sys
from pathlib import Path

import comfy.model_management as mm
import comfy.model_patcher
import torch
import trimesh
from comfy_api.latest import ComfyExtension, Types, io

SIDE = 24
PACK = Path(__file__).parent / "hunyuan3d-lowvram"


class Loaded(io.ComfyNode):
    """Counts the models that ComfyUI holds."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """An output node that runs every time."""
        return io.Schema(
            "Hy3dTest_Loaded", inputs=[io.Int.Input("salt", default=0)], outputs=[], is_output_node=True,
            not_idempotent=True,
        )  # fmt: skip

    @classmethod
    def execute(cls, salt: int) -> io.NodeOutput:
        """The count, as text."""
        return io.NodeOutput(ui={"text": [str(len(mm.current_loaded_models))]})


class Ball(io.ComfyNode):
    """Makes the VOXEL of a ball."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """No inputs."""
        return io.Schema("Hy3dTest_Ball", inputs=[], outputs=[io.Voxel.Output("voxel")])

    @classmethod
    def execute(cls) -> io.NodeOutput:
        """[1,S,S,S], positive inside."""
        axis = torch.linspace(-1, 1, SIDE)
        z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
        return io.NodeOutput(Types.VOXEL((1.6 - (x**2 + y**2 + z**2).sqrt() * 2)[None]))


class Hunyuan(io.ComfyNode):
    """Makes the VOXEL of two shapes, as the core's VAE Decode Hunyuan3D lays out its grid (2.0 and 2.1 alike).

    A figure with its nose at +Z and an arm at +X, and a smaller one.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        """No inputs."""
        return io.Schema("Hy3dTest_Hunyuan", inputs=[], outputs=[io.Voxel.Output("voxel")])

    @classmethod
    def execute(cls) -> io.NodeOutput:
        """[2,Z,Y,X] logits."""
        axis = torch.linspace(-1.01, 1.01, SIDE + 1)
        grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
        logits = torch.stack([cls._figure(grid), cls._figure(grid / 0.7)])
        decoded = logits.movedim(-2, -1)  # comfy.ldm.hunyuan3d.vae.ShapeVAE.decode
        return io.NodeOutput(Types.VOXEL(decoded.movedim(1, -1)))  # comfy.sd.VAE.decode

    @staticmethod
    def _figure(points: torch.Tensor) -> torch.Tensor:
        boxes = (((0, 0, 0), (0.3, 0.8, 0.3)), ((0, 0.4, 0.35), (0.2, 0.2, 0.35)), ((0.3, 0, 0), (0.3, 0.2, 0.2)))
        inside = [(torch.tensor(half) - (points - torch.tensor(centre)).abs()).amin(dim=-1) for centre, half in boxes]
        return 10 * torch.stack(inside).amax(dim=0)


class Trimeshes(io.ComfyNode):
    """A node of another pack with TRIMESH sockets. It doubles the size in place, as such nodes do."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """TRIMESH to TRIMESH."""
        kind = io.Custom("TRIMESH")
        return io.Schema("Hy3dTest_Trimesh", inputs=[kind.Input("trimesh")], outputs=[kind.Output("trimesh_out")])

    @classmethod
    def execute(cls, trimesh: object) -> io.NodeOutput:
        """One at a time."""
        return io.NodeOutput(trimesh.apply_scale(2.0))  # type: ignore[attr-defined]


class Upscaler(io.ComfyNode):
    """An upscale model without weights, for the core's Upscale Image (using Model)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """No inputs."""
        return io.Schema("Hy3dTest_Upscaler", inputs=[], outputs=[io.UpscaleModel.Output("model")])

    @classmethod
    def execute(cls) -> io.NodeOutput:
        """It enlarges by 2."""
        model = torch.nn.Upsample(scale_factor=2, mode="bilinear")
        model.scale = 2
        device = mm.get_torch_device()
        model.patcher = comfy.model_patcher.CoreModelPatcher(model, device, torch.device("cpu"))
        return io.NodeOutput(model)


class Foreground(io.ComfyNode):
    """A model without weights for the core's Remove Background. It finds the left half, as soft as a network would."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """No inputs."""
        kind = io.Custom("BACKGROUND_REMOVAL")
        return io.Schema("Hy3dTest_Foreground", inputs=[], outputs=[kind.Output("bg_model")])

    @classmethod
    def execute(cls) -> io.NodeOutput:
        """Returns this class as the model."""
        return io.NodeOutput(cls)

    @staticmethod
    def encode_image(image: torch.Tensor) -> torch.Tensor:
        """[B,H,W], 1 = foreground."""
        side = torch.where(torch.arange(image.shape[2]) < image.shape[2] // 2, 6.0, -6.0)
        return side.sigmoid().expand(image.shape[:3])


class MeshFields(io.ComfyNode):
    """Reports the arguments of MESH."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """An output node without inputs."""
        return io.Schema("Hy3dTest_MeshFields", inputs=[], outputs=[], is_output_node=True)

    @classmethod
    def execute(cls) -> io.NodeOutput:
        """Names, defaults and order of the arguments, as text."""
        return io.NodeOutput(
            ui={"text": [f"{part.name} {part.default}" for part in inspect.signature(Types.MESH).parameters.values()]}
        )


class Names(io.ComfyNode):
    """Looks for the names that the pack takes from ComfyUI."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """An output node that runs every time."""
        return io.Schema(
            "Hy3dTest_Names", inputs=[io.Int.Input("salt", default=0)], outputs=[], is_output_node=True,
            not_idempotent=True,
        )  # fmt: skip

    @classmethod
    def execute(cls, salt: int) -> io.NodeOutput:
        """What changed, by name, as JSON; and the class of the node that runs."""
        spec = importlib.util.spec_from_file_location("comfy_names", PACK / "tests" / "nodes" / "comfy_names.py")
        names = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = names
        spec.loader.exec_module(names)
        comfy = next(module for name, module in sys.modules.items() if name.endswith("lowvram.nodes._comfy"))
        now = comfy.executing()
        found = {name.where: names.check(name) for name in names.NAMES}
        found["prompt"] = comfy.running(now.prompt_id)[0][now.node_id]["class_type"]
        return io.NodeOutput(ui={"text": [json.dumps(found)]})


class TrimeshBox(io.ComfyNode):
    """Gives a mesh as the nodes of kijai's pack do: a trimesh.Trimesh on a TRIMESH socket."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """No inputs."""
        return io.Schema("Hy3dTest_TrimeshBox", inputs=[], outputs=[io.Custom("TRIMESH").Output("trimesh")])

    @classmethod
    def execute(cls) -> io.NodeOutput:
        """A box, not a cube, so that its sides are told apart."""
        return io.NodeOutput(trimesh.creation.box((0.8, 1.2, 0.6)).subdivide())


class Probe(ComfyExtension):
    """Gives ComfyUI the nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Returns all nodes."""
        return [Loaded, Ball, Hunyuan, Trimeshes, Upscaler, Foreground, MeshFields, Names, TrimeshBox]


async def comfy_entrypoint() -> Probe:
    """The entry point that ComfyUI calls."""
    return Probe()
