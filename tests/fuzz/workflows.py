"""Values of workflows: nodes are called with what other packs or a hand-written prompt may give them."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import meshes
import torch
import trimesh
from mutate import JUNK
from torch import Tensor

NODES = Path(__file__).resolve().parents[1] / "nodes"
if str(NODES) not in sys.path:
    sys.path.append(str(NODES))

TEXTS = (
    "", "x", "../../x", "/etc/passwd", '"m.glb"', "m.glb [output]", "//server/share/x", "a" * 5000, "기와 집", "\0",
    "%",
)  # fmt: skip
"""What a text widget may hold. ComfyUI checks numbers and choices itself before it runs a node."""

WHOLE = 0.8
"""The share of the pictures, masks and meshes that nothing is wrong with, so that some nodes ask for a network."""
SMALL: dict[str, Any] = {
    "variant": "v2-0", "shape_steps": 2, "octree": 16, "delight_steps": 2, "paint_steps": 1, "views": "minimal",
    "render_px": 128, "texture_px": 128, "face_budget": 200, "unwrapper": "uvunwrap",
}  # fmt: skip
"""A preset whose models are there."""


class Workflows:
    """Calls one node after the other. `accepted` is the error that a node ends with at its first network."""

    def __init__(self, models: Path, tensor: Callable[..., Tensor], accepted: type[Exception]) -> None:
        from comfy_pack import Pack, module

        os.environ["HF_HUB_OFFLINE"] = "1"
        self._pack = Pack()
        self._host = module("nodes._host")
        self._tensor = tensor
        self._models = models

        @contextmanager
        def borrow(_: Any, component: Any) -> Iterator[Any]:
            raise accepted(component.label)
            yield

        self._host.ComfyHost.borrow = borrow

    def case(self, rng: random.Random, folder: Path) -> Callable[[], None]:
        """A node with values; its files stay in the folder."""
        names = sorted(self._pack.by_id)
        stages = [name for name in names if not name.startswith("Preset")]
        name = rng.choice(stages if rng.random() < 0.9 else names)
        inputs = self._pack.by_id[name].GET_SCHEMA().inputs
        given = {item.id: self._value(rng, item) for item in inputs if not item.optional or rng.random() < 0.7}
        given = {key: value for key, value in given.items() if value is not None}

        def run() -> None:
            self._folders(folder)
            self._pack.run(name, **given)

        return run

    def _folders(self, folder: Path) -> None:
        import folder_paths

        for name in ("input", "output"):
            (folder / name).mkdir()
            setattr(folder_paths, f"{name}_directory", str(folder / name))
        folder_paths.models_dir = str(folder / "none")
        folder_paths.folder_names_and_paths = {}
        self._host.register_folders()
        folder_paths.add_model_folder_path("hunyuan3d_lowvram", str(self._models), is_default=True)
        trimesh.creation.box().export(folder / "input" / "m.glb")

    def _value(self, rng: random.Random, item: Any) -> Any:
        """A value of the kind that the input has; None: the default."""
        kind = item.get_io_type()
        if kind == "HY3D_PRESET":
            return self._pack.run("PresetCustom", **SMALL) if rng.random() < 0.9 else self._pack.run("Preset8GBFast")
        if kind in ("IMAGE", "MASK", "MESH", "HY3D_VIEWS", "TRIMESH"):
            return getattr(self, f"_{kind.lower()}")(rng)
        if kind in ("INT", "FLOAT"):
            low, high = item.min or 0, item.max if item.max is not None else 10
            return rng.choice((item.default, low, high if high < 10_000 else item.default))
        if kind == "BOOLEAN":
            return rng.random() < 0.5
        if kind == "STRING":
            return rng.choice(TEXTS)
        return rng.choice(item.options) if getattr(item, "options", None) else rng.choice(JUNK)

    def _image(self, rng: random.Random) -> Tensor:
        if rng.random() < WHOLE:
            return torch.rand(1, 64, 64, 3)
        return self._tensor(rng, rng.choice((1, 1, 1, 2, 6)), *[rng.choice((1, 16, 64))] * 2, rng.choice((3, 3, 4)))

    def _mask(self, rng: random.Random) -> Tensor:
        if rng.random() < WHOLE:
            return torch.ones(1, 64, 64)
        return self._tensor(rng, rng.choice((1, 1, 2)), rng.choice((1, 16, 64)), rng.choice((1, 64)))

    def _mesh(self, rng: random.Random) -> Any:
        from comfy_mesh import MeshData

        mesh = rng.choice((meshes.cube(), meshes.blob(1)))
        vertices, faces = mesh.vertices[None].clone(), mesh.faces[None].clone()
        if rng.random() < WHOLE:
            return MeshData(vertices, faces)
        if rng.random() < 0.5:
            vertices[0, 0] = rng.choice((float("nan"), 1e30, 0.0))
        if rng.random() < 0.3:
            faces[0, 0, 0] = rng.choice((-1, 10**9))
        more: dict[str, Any] = {}
        if rng.random() < 0.4:
            more = {"uvs": self._tensor(rng, 1, vertices.shape[1], 2), "texture": self._tensor(rng, 1, 8, 8, 3)}
        if rng.random() < 0.2:
            vertices, faces = torch.cat([vertices] * 2), torch.cat([faces] * 2)
        if rng.random() < 0.2:
            more["vertex_colors"] = self._tensor(rng, 1, 8, 3)
        return MeshData(vertices, faces, **more)

    def _hy3d_views(self, rng: random.Random) -> Any:
        from comfy_pack import module

        sets = module("lowvram_core.presets").VIEW_SETS
        return rng.choice((*sets.values(), (), "standard"))

    def _trimesh(self, rng: random.Random) -> Any:
        box = trimesh.creation.box()
        return rng.choice((box, trimesh.Scene([box]), trimesh.Trimesh(), trimesh.PointCloud([[0, 0, 0]]), "mesh", 3))
