"""What the schemas of several nodes have in common.

Widgets stand in the order numbers and switches, seed, choices: comfy-test reads a workflow's values by position, and
knows neither a seed's control nor choices as V3 declares them.
"""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from comfy_api.latest import io

from ..lowvram_core.presets import Preset

PREFIX = "Hy3dLowVram_"
CATEGORY = "Hunyuan3D Low VRAM"
FROM_PRESET = "from preset"
MAX_SEED = 0xFFFFFFFFFFFFFFFF

KOREAN: dict[str, list[str]] = json.loads(Path(__file__).with_name("aliases_ko.json").read_text(encoding="utf-8"))
"""Korean search words by verb; not in Python, which comfy-test wants to fit Windows' old codepage."""

FIXED_PRESET = KOREAN["Preset"]

PresetType = io.Custom("HY3D_PRESET")
ViewsType = io.Custom("HY3D_VIEWS")
TrimeshType = io.Custom("TRIMESH")


def schema(node_id: str, display_name: str, description: str, aliases: list[str], **rest: Any) -> io.Schema:
    """A Schema with the pack's prefix and category; fields that an older ComfyUI lacks are left out."""
    settings = {
        "node_id": PREFIX + node_id,
        "display_name": display_name,
        "category": rest.pop("category", CATEGORY),
        "description": description,
        "search_aliases": ["hunyuan3d", "hy3d", "low vram", *aliases, *KOREAN.get(node_id, FIXED_PRESET)],
        **rest,
    }
    known = {field.name for field in fields(io.Schema)}
    return io.Schema(**{name: value for name, value in settings.items() if name in known})


def preset_input() -> Any:
    """The socket that every stage node has."""
    return PresetType.Input("preset", tooltip="The settings: connect one of the preset nodes.")


def seed_input(default: int, of: str) -> Any:
    """A seed with the usual control after it."""
    return io.Int.Input(
        "seed", default=default, min=0, max=MAX_SEED, control_after_generate=True,
        tooltip=f"Seed of {of}. Presets have none. The same seed gives the same result; keep it fixed to reuse the "
        "cached one.",
    )  # fmt: skip


def steps_input(field: str, cost: str) -> Any:
    """Steps, 0 meaning the preset's."""
    return io.Int.Input("steps", default=0, min=0, max=200, tooltip=f"0 takes the preset's {field}. {cost}")


def choice_input(name: str, options: tuple[str, ...], tooltip: str) -> Any:
    """A choice whose first option is the preset's own."""
    return io.Combo.Input(name, options=[FROM_PRESET, *options], default=FROM_PRESET, tooltip=tooltip)


def overridden(preset: Preset, **values: Any) -> Preset:
    """The preset with the widgets that were set; `from preset`, 0 and None leave its value."""
    given = {name: value for name, value in values.items() if value not in (FROM_PRESET, 0, None)}
    return preset.with_(**given) if given else preset
