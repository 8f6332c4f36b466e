"""Preset nodes: one value that every stage node reads. Swapping the node swaps the trade."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from comfy_api.latest import io

from ..lowvram_core.presets import CHOICES, PRESETS, Preset
from . import _host
from ._schema import CATEGORY, PresetType, schema

PRESET_CATEGORY = f"{CATEGORY}/presets"
GIB = 1024**3
CARDS: tuple[tuple[float, str], ...] = (
    (3.5, "2 GB"),
    (5.5, "4 GB"),
    (10.0, "8 GB Balanced"),
    (15.5, "12 GB"),
)
"""Total memory in GiB under which a card gets this preset; a "16 GB" card reports a little less than 16."""
LARGEST = "16 GB"


def values_of(preset: Preset) -> str:
    """The preset's values, one a line, as the node shows them."""
    return "\n".join(f"{field.name}: {getattr(preset, field.name)}" for field in fields(preset) if field.name != "name")


def _fixed(preset: Preset) -> type[io.ComfyNode]:
    node_id = "Preset" + preset.name.replace(" ", "")

    class FixedPreset(io.ComfyNode):
        """One row of the presets table."""

        @classmethod
        def define_schema(cls) -> io.Schema:
            """No inputs: the values are the node's."""
            return schema(
                node_id, f"Preset {preset.name}", f"{_SUMMARY[preset.name]}\n{values_of(preset)}",
                ["preset", "settings", "vram"], category=PRESET_CATEGORY,
                outputs=[PresetType.Output("preset_out", display_name="preset")],
            )  # fmt: skip

        @classmethod
        def execute(cls) -> io.NodeOutput:
            """The preset."""
            return io.NodeOutput(preset, ui=_host.ComfyHost().badge())

    FixedPreset.__name__ = FixedPreset.__qualname__ = node_id
    return FixedPreset


_SUMMARY = {
    "2 GB": "Full upstream quality for 2 GB cards: weights stream through the card, which takes the longest.",
    "4 GB": "Full upstream quality for 4 GB cards: one network at a time on the card.",
    "8 GB Fast": "The quickest: the mini model, three painted views, 1024 px texture.",
    "8 GB Balanced": "A good first choice for 8 GB cards: turbo shape, four painted views, 1536 px texture.",
    "8 GB Quality": "Finer shape than Balanced (octree 192), four painted views, 1536 px texture.",
    "8 GB Full": "Full upstream quality on 8 GB: 50 steps, octree 384, six views, 2048 px texture.",
    "12 GB": "Turbo shape at octree 192, four painted views, 2048 px texture, larger batches.",
    "16 GB": "As 12 GB with upstream's six views.",
}

FIXED_PRESETS = [_fixed(preset) for preset in PRESETS.values()]


class PresetAuto(io.ComfyNode):
    """The preset for the card that is in this computer."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """No inputs."""
        return schema(
            "PresetAuto", "Preset Auto",
            "Chooses a preset by the card's total memory and shows the card, its total and free memory and the choice.",
            ["preset", "automatic", "vram"], category=PRESET_CATEGORY,
            outputs=[PresetType.Output("preset_out", display_name="preset")],
        )  # fmt: skip

    @classmethod
    def execute(cls) -> io.NodeOutput:
        """By total memory alone: what is free now is each stage's business when it runs."""
        host = _host.ComfyHost()
        name, total, free = _host.card()
        preset = PRESETS[for_card(total)]
        text = f"{name}: {total / GIB:.1f} GiB, {free / GIB:.1f} GiB free\n{preset.name}\n{values_of(preset)}"
        return io.NodeOutput(preset, ui={**host.badge(), "text": [text]})


def for_card(total_bytes: int) -> str:
    """The name of the preset for a card of that total memory."""
    return next((name for limit, name in CARDS if total_bytes < limit * GIB), LARGEST)


class PresetCustom(io.ComfyNode):
    """Every knob, each saying what it costs."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """One widget per value; they start as 8 GB Balanced."""
        return schema(
            "PresetCustom", "Preset Custom", "Every setting by hand. Starts with the values of 8 GB Balanced.",
            ["preset", "settings", "advanced"], category=PRESET_CATEGORY,
            inputs=[_widget(name) for name in _KNOBS],
            outputs=[PresetType.Output("preset_out", display_name="preset")],
        )  # fmt: skip

    @classmethod
    def execute(cls, **values: Any) -> io.NodeOutput:
        """The preset of these values."""
        host = _host.ComfyHost()
        return io.NodeOutput(_BASE.with_(name="Custom", **values), ui=host.badge())


_BASE = PRESETS["8 GB Balanced"]
_NUMBERS: dict[str, tuple[int, int, int]] = {
    "shape_steps": (1, 200, 1), "octree": (16, 1024, 16), "delight_steps": (1, 200, 1), "multiview_steps": (1, 200, 1),
    "render_px": (64, 8192, 64), "texture_px": (64, 8192, 64), "points_per_chunk": (1000, 4_000_000, 1000),
    "picture_px": (64, 8192, 64), "face_budget": (100, 10_000_000, 100),
    "vae_tile_px": (128, 512, 64),
}  # fmt: skip
_KNOBS: dict[str, str] = {
    "variant": "Shape model. mini: half the network, less detail. turbo: made for 3 to 10 steps. fast: one pass a step "
    "instead of two. mv: takes up to four pictures.",
    "shape_steps": "Time grows with it. 50 for the plain models, 4 to 10 for turbo.",
    "octree": "Grid that the shape is decoded on: time grows with its cube. 128 loses about 30 % of the detail of 192; "
    "384 is upstream's.",
    "guidance": "How closely the shape follows the picture; upstream's is 5. At 0 the plain models do not look at it.",
    "delight_steps": "Steps that take light and shadow out of the picture; upstream's is 50. Few leave some light.",
    "multiview_steps": "Steps that paint the views; upstream's is 30. Few make them blurry.",
    "views": "Pictures painted of the mesh. Memory and time grow with them. standard: six, as upstream. fast: four, "
    "worse on top and below. minimal: three, worse at the sides. tilted: look from above and below, too.",
    "render_px": "Edge of the views when they are baked. Costs time and some memory.",
    "texture_px": "Edge of the texture. Costs time and some memory.",
    "residency": "Where weights lie. free: one network at a time on the card, gone when its step is done. stream: they "
    "pass through the card, for the smallest cards, slower. keep: they stay, for the next picture.",
    "cfg_together": "Both halves of guidance at once: faster, twice the memory of activations.",
    "points_per_chunk": "Grid points per pass when the shape is decoded: 8,000 take 178 MiB, 20,000 take 436 MiB "
    "(computed).",
    "vae_slicing": "Pictures through the VAE one by one: saves 1.9 GiB with six views (computed), costs little time.",
    "vae_tiling": "Tiles for pictures larger than 512 px; nothing changes at 512.",
    "background_model": "u2net: good in general. u2netp: small and quick. isnet-general-use, birefnet-general-lite: "
    "finer edges, slower. On the CPU.",
    "picture_px": "The long side of the picture before its background is removed.",
    "face_budget": "Faces that the shape is reduced to before it is painted. Unwrapping time grows with it.",
    "unwrapper": "xatlas: what the paint model was trained with. uvunwrap: about eight times faster, other charts.",
    "attention": "Kernels of the UNets. auto: fused where torch has them for the card, else sliced. Sliced on a card "
    "with fused ones takes more memory, not less. xformers: if it is installed.",
    "vae_tile_px": "512 leaves pictures whole. 256 saves memory when views are decoded and may show seams.",
    "view_by_view": "Paints each view by itself: least memory, but the views no longer agree with each other.",
    "compile_shape": "torch.compile for the shape transformer: a long first step, then faster ones. Needs a compiler.",
    "allow_lossy": "If the card is too small, lower octree, render size and views step by step, after everything that "
    "costs no quality. Off: stop with a message.",
}


def _widget(name: str) -> Any:
    default, tooltip = getattr(_BASE, name), _KNOBS[name]
    if name in CHOICES:
        return io.Combo.Input(name, options=list(CHOICES[name]), default=default, tooltip=tooltip)
    if isinstance(default, bool):
        return io.Boolean.Input(name, default=default, tooltip=tooltip)
    if isinstance(default, float):
        return io.Float.Input(name, default=default, min=0.0, max=50.0, step=0.1, tooltip=tooltip)
    low, high, step = _NUMBERS[name]
    return io.Int.Input(name, default=default, min=low, max=high, step=step, tooltip=tooltip)
