"""The nodes in menu order, and the entry point that ComfyUI calls."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from . import _comfy, _host, _prompts
from .background import LoadPictures, RemoveBackground
from .delight import Delight
from .mesh import CleanMesh, LoadMesh, MeshToTrimesh, SaveMesh, TrimeshToMesh, UnwrapUVs
from .models import ModelCheck
from .paint import PaintViews
from .presets import FIXED_PRESETS, ChosenPreset, PresetAuto, PresetCustom, PresetFromJson, PresetToJson
from .report import MemoryReport
from .shape import GenerateShape, GenerateShapeMultiView
from .texture import BakeTexture, InpaintTexture
from .turntable import Turntable

NODES: list[type[io.ComfyNode]] = [
    ChosenPreset,
    *FIXED_PRESETS,
    PresetAuto,
    PresetCustom,
    PresetFromJson,
    PresetToJson,
    LoadPictures,
    RemoveBackground,
    GenerateShape,
    GenerateShapeMultiView,
    CleanMesh,
    UnwrapUVs,
    Delight,
    PaintViews,
    BakeTexture,
    InpaintTexture,
    LoadMesh,
    SaveMesh,
    MeshToTrimesh,
    TrimeshToMesh,
    Turntable,
    MemoryReport,
    ModelCheck,
]


class LowVramExtension(ComfyExtension):
    """Gives ComfyUI the models folder and the nodes."""

    async def on_load(self) -> None:
        """Registers the models folder, and what changes prompts before they run."""
        _host.register_folders()
        _comfy.change_prompts(_prompts.with_constants)

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Returns the nodes in menu order."""
        return NODES


async def comfy_entrypoint() -> LowVramExtension:
    """Returns the extension. ComfyUI calls this once."""
    return LowVramExtension()
