"""Preset nodes: a preset is one value that every stage node reads. Another preset changes all stages at once.

`settings` of each node returns its preset from its inputs alone, without a run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from comfy_api.latest import io

from ..lowvram_core.files.preset_files import EXAMPLE, from_json, to_json
from ..lowvram_core.presets import PRESETS, VALUES, Preset, Value, cost, get, texts
from ..lowvram_core.report import GIB
from . import _host
from ._schema import CATEGORY, PresetType, preset_input, schema

PRESET_CATEGORY = f"{CATEGORY}/presets"
CARDS: tuple[tuple[float, str], ...] = (
    (3.5, "2 GB"),
    (5.5, "4 GB"),
    (9.5, "8 GB Balanced"),
    (15.5, "12 GB"),
)
"""Total memory in GiB under which a card gets this preset; a card sold with 10 or 16 GB reports a little less."""
LARGEST = "16 GB"
NO_CARD = "8 GB Fast"
"""For the CPU, whose memory says nothing about its speed: the preset with the least work."""
AUTO = "Auto"
"""The choice of Preset that takes what Preset Auto chooses."""
GROUP = "hy3d_group"
"""What web/groups.js calls the group of a widget."""
BASE = PRESETS["8 GB Balanced"]
"""Preset Custom starts with its values."""


def values_of(preset: Preset) -> str:
    """What is special about the preset, one `name: value` per line: the values that differ from their defaults."""
    return "\n".join(f"{name}: {value}" for name, value in preset.own_values().items())


def _fixed(preset: Preset) -> type[io.ComfyNode]:
    node_id = "Preset" + preset.name.replace(" ", "")
    summary = texts()["presets"][preset.name]["summary"]["en"]

    class FixedPreset(io.ComfyNode):
        """One row of the presets table."""

        @classmethod
        def define_schema(cls) -> io.Schema:
            """No inputs: the values are the node's."""
            return schema(
                node_id, f"Preset {preset.name}", f"{summary}\n{values_of(preset)}",
                ["preset", "settings", "vram"], category=PRESET_CATEGORY, korean="FixedPreset",
                outputs=[PresetType.Output("preset_out", display_name="preset")],
            )  # fmt: skip

        @classmethod
        def settings(cls) -> Preset:
            """Returns the preset."""
            return preset

        @classmethod
        def execute(cls) -> io.NodeOutput:
            """The preset."""
            return io.NodeOutput(preset, ui=_host.ComfyHost().badge())

    FixedPreset.__name__ = FixedPreset.__qualname__ = node_id
    return FixedPreset


FIXED_PRESETS = [_fixed(preset) for preset in PRESETS.values()]


class ChosenPreset(io.ComfyNode):
    """Any fixed preset, or the one that Preset Auto chooses."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """One choice. An output node, so that its text shows even where the stages need no preset node to run."""
        return schema(
            "Preset", "Preset",
            "All settings in one node. Choose the preset for your card. Auto chooses by the card's total memory when "
            "it runs. The node shows the preset's values.",
            ["preset", "settings", "automatic", "vram"], category=PRESET_CATEGORY, is_output_node=True,
            inputs=[
                io.Combo.Input(
                    "preset", options=[AUTO, *PRESETS], default=AUTO,
                    tooltip="Auto: by the card's total memory, or without a card the preset with the least work. The "
                    "others are named after the cards that they are made for.",
                ),
            ],
            outputs=[PresetType.Output("preset_out", display_name="preset")],
        )  # fmt: skip

    @classmethod
    def settings(cls, preset: str = AUTO) -> Preset:
        """Returns the chosen preset."""
        return PresetAuto.settings() if preset == AUTO else get(preset)

    @classmethod
    def execute(cls, preset: str = AUTO) -> io.NodeOutput:
        """The chosen preset. For Auto it shows the card and the choice."""
        if preset == AUTO:
            return PresetAuto.execute()
        return io.NodeOutput(cls.settings(preset), ui=_host.ComfyHost().badge())


class PresetAuto(io.ComfyNode):
    """The preset for the card that is in this computer."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """No inputs. An output node for the same reason as Preset."""
        return schema(
            "PresetAuto", "Preset Auto",
            "Chooses a preset by the card's total memory. Shows the card, its total and free memory, and the choice.",
            ["preset", "automatic", "vram"], category=PRESET_CATEGORY, is_output_node=True,
            outputs=[PresetType.Output("preset_out", display_name="preset")],
        )  # fmt: skip

    @classmethod
    def settings(cls) -> Preset:
        """Reads the total memory only; each stage looks at the free memory when it runs."""
        return PRESETS[NO_CARD if _host.on_cpu() else for_card(_host.card()[1])]

    @classmethod
    def execute(cls) -> io.NodeOutput:
        """The choice, with a text that names the card."""
        host, preset = _host.ComfyHost(), PresetAuto.settings()
        name, total, free = _host.card()
        lines = [f"{name}: {total / GIB:.1f} GiB, {free / GIB:.1f} GiB free", preset.name, values_of(preset)]
        if _host.on_cpu():
            lines.insert(1, texts()["notes"]["no_card"]["text"]["en"])
        return io.NodeOutput(preset, ui={**host.badge(), "text": ["\n".join(lines)]})


def for_card(total_bytes: int) -> str:
    """The name of the preset for a card of that total memory."""
    return next((name for limit, name in CARDS if total_bytes < limit * GIB), LARGEST)


class PresetCustom(io.ComfyNode):
    """A widget for every preset value; its tooltip says what the value costs."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The widgets stand in the order of Preset's fields."""
        return schema(
            "PresetCustom", "Preset Custom", f"Every setting by hand. Starts with the values of {BASE.name}.",
            ["preset", "settings", "advanced"], category=PRESET_CATEGORY,
            inputs=[_widget(value) for value in VALUES.values()],
            outputs=[PresetType.Output("preset_out", display_name="preset")],
        )  # fmt: skip

    @classmethod
    def settings(cls, **values: Any) -> Preset:
        """Returns the preset of these values."""
        return BASE.with_(name="Custom", **values)

    @classmethod
    def execute(cls, **values: Any) -> io.NodeOutput:
        """The preset of these values."""
        host = _host.ComfyHost()
        return io.NodeOutput(cls.settings(**values), ui=host.badge())


def _widget(value: Value) -> Any:
    settings: dict[str, Any] = {
        "default": getattr(BASE, value.name), "tooltip": cost(value.name), "optional": value.later,
        "extra_dict": {GROUP: value.group},
    }  # fmt: skip
    if value.group == "advanced":
        settings["advanced"] = True
    if value.kind is str:
        return io.Combo.Input(value.name, options=list(value.choices), **settings)
    if value.kind is bool:
        return io.Boolean.Input(value.name, **settings)
    kind = io.Float if value.kind is float else io.Int
    return kind.Input(value.name, min=value.low, max=value.high, step=value.step, **settings)


class PresetFromJson(io.ComfyNode):
    """The preset that a text describes."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """One text."""
        return schema(
            "PresetFromJson", "Preset from JSON",
            "Reads a preset from a text, so that people can share their settings. Preset to JSON writes such a text.",
            ["preset", "settings", "share", "import"], category=PRESET_CATEGORY,
            inputs=[
                io.String.Input(
                    "text", multiline=True, default=EXAMPLE,
                    tooltip="A JSON object. base names the fixed preset to start from; the others are values of Preset "
                    "Custom, by the names that its help lists.",
                ),
            ],
            outputs=[PresetType.Output("preset_out", display_name="preset")],
        )  # fmt: skip

    @classmethod
    def settings(cls, text: str) -> Preset:
        """Returns the preset. An unknown name or value raises BadInput."""
        return from_json(text)

    @classmethod
    def execute(cls, text: str) -> io.NodeOutput:
        """The preset."""
        return io.NodeOutput(cls.settings(text), ui=_host.ComfyHost().badge())


class PresetToJson(io.ComfyNode):
    """A preset as a text."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """An output node, so that it shows its text without a node after it."""
        return schema(
            "PresetToJson", "Preset to JSON",
            "Shows a preset as a short text to share: a fixed preset, and the values that differ from it. Preset from "
            "JSON and the command line read it.",
            ["preset", "settings", "share", "export"], category=PRESET_CATEGORY, is_output_node=True,
            inputs=[preset_input()],
            outputs=[io.String.Output("json", display_name="json")],
        )  # fmt: skip

    @classmethod
    def execute(cls, preset: Preset) -> io.NodeOutput:
        """The text."""
        text = to_json(preset)
        return io.NodeOutput(text, ui={**_host.ComfyHost().badge(), "text": [text]})


SETTINGS: dict[str, Callable[..., Preset]] = {
    node.GET_SCHEMA().node_id: node.settings
    for node in (ChosenPreset, *FIXED_PRESETS, PresetAuto, PresetCustom, PresetFromJson)
}
"""By the id of each node that makes a preset: what makes it of the node's inputs."""
