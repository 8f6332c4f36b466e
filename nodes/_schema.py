"""What the schemas of several nodes have in common.

A node's widgets stand in this order: numbers and switches, the seed, choices. comfy-test reads a workflow's values by
position, but knows neither the control after a seed nor the choices of V3 schemas.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from comfy_api.latest import io

from ..lowvram_core.presets import VALUES, Preset, get
from ..lowvram_core.stage_values import preset_of_values
from ..lowvram_core.types import SIDES

PREFIX = "Hy3dLowVram_"
CATEGORY = "Hunyuan3D Low VRAM"
PACK_WORDS = ("hunyuan3d", "hy3d", "low vram", "hunyuan3d low vram")
"""Search words of every node. ComfyUI's search finds a phrase only if one alias has all of its words."""
PICTURE_TO_MESH = ["image to 3d", "image to mesh", "picture to 3d", "picture to mesh", "photo to 3d"]
"""Search words of the nodes that begin a mesh."""
FROM_PRESET = "from preset"
MAX_SEED = 0xFFFFFFFFFFFFFFFF

GivenPreset = Preset | Mapping[str, Any] | str
"""What arrives at a preset socket; see `preset_of`."""

KOREAN: dict[str, Any] = tomllib.loads(
    (Path(__file__).parents[1] / "locales" / "ko.toml").read_text(encoding="utf-8")
)  # fmt: skip
"""Korean texts by node, for the search words; not in Python, since comfy-test wants Python files to fit Windows' old
code page."""

PresetType = io.Custom("HY3D_PRESET")
ViewsType = io.Custom("HY3D_VIEWS")
TrimeshType = io.Custom("TRIMESH")
File3DType = io.Custom("FILE_3D,FILE_3D_GLB,FILE_3D_GLTF,FILE_3D_OBJ,FILE_3D_STL,FILE_3D_PLY")
"""ComfyUI's 3D files of the formats that Load Mesh reads, and those of any format."""


def schema(node_id: str, display_name: str, description: str, aliases: list[str], **rest: Any) -> io.Schema:
    """A Schema with the pack's prefix and category. Fields that an older ComfyUI lacks are left out.

    Args:
        rest: more fields of io.Schema; `korean`: another node in locales/ko.toml whose search words it uses.
    """
    korean = [*KOREAN["pack"]["words"], *KOREAN.get(rest.pop("korean", node_id), {}).get("words", [])]
    settings = {
        "node_id": PREFIX + node_id,
        "display_name": display_name,
        "category": rest.pop("category", CATEGORY),
        "description": description,
        "search_aliases": [*PACK_WORDS, *aliases, *korean],
        **rest,
    }
    known = {field.name for field in fields(io.Schema)}
    return io.Schema(**{name: value for name, value in settings.items() if name in known})


def preset_input() -> Any:
    """The socket that every stage node has."""
    return PresetType.Input("preset", tooltip="The settings: connect one of the preset nodes.")


def further_inputs() -> list[Any]:
    """Sockets for further pictures of the object and their masks, named as those of Generate Shape (Multi-View)."""
    return [
        item
        for side in SIDES[1:]
        for item in (
            io.Image.Input(
                side, optional=True,
                tooltip=f"A further picture of the same object, for example from its {side}. The paint model does not "
                "know which side a picture shows.",
            ),
            io.Mask.Input(f"{side}_mask", optional=True, tooltip="1 = object."),
        )
    ]  # fmt: skip


def seed_input(default: int, of: str) -> Any:
    """A seed with the usual control after it."""
    return io.Int.Input(
        "seed", default=default, min=0, max=MAX_SEED, control_after_generate=True,
        tooltip=f"Seed of {of}. Presets have no seed. The same seed gives the same result. Keep it fixed to reuse the "
        "cached result.",
    )  # fmt: skip


def steps_input(value: str, cost: str) -> Any:
    """Steps that override a preset value; 0 takes the preset's."""
    told = f"0 takes the preset's {value.replace('_', ' ')}. {cost}"
    return io.Int.Input("steps", default=0, min=0, max=int(VALUES[value].high), tooltip=told)


def choice_input(name: str, options: tuple[str, ...], tooltip: str) -> Any:
    """A choice that overrides the preset's; the first option takes the preset's."""
    return io.Combo.Input(name, options=[FROM_PRESET, *options], default=FROM_PRESET, tooltip=tooltip)


def preset_of(given: GivenPreset) -> Preset:
    """The preset that a stage runs with.

    Args:
        given: a preset from a link; or, as a constant of the prompt, a preset's name or the values that the stage
            reads.

    Raises:
        BadInput: there is no such preset or no such value.
    """
    if isinstance(given, Preset):
        return given
    return get(given) if isinstance(given, str) else preset_of_values(given)


def overridden(preset: Preset, **values: Any) -> Preset:
    """The preset with the values of the widgets; `from preset`, 0 and None keep the preset's value."""
    given = {name: value for name, value in values.items() if value not in (FROM_PRESET, 0, None)}
    return preset.with_(**given) if given else preset
