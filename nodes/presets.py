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
    (9.5, "8 GB Balanced"),
    (15.5, "12 GB"),
)
"""Total memory in GiB under which a card gets this preset; a card sold with 10 or 16 GB reports a little less."""
LARGEST = "16 GB"
_ADVANCED = ("prefetch", "skip_last_step", "keys_once", "logits_on_host", "reference_once", "skip_unguided_reference")
"""Nodes 2.0 shows them on request. Off, each costs memory or time, prefetch time alone."""
_LATER = ("precision", *_ADVANCED)
"""Came after the others: last, since workflows hold values by position, and optional, since prompts may lack them."""


def values_of(preset: Preset) -> str:
    """The values that presets trade with, one a line, as the node shows them; what came later is the same in all."""
    names = [field.name for field in fields(preset) if field.name not in ("name", *_LATER)]
    return "\n".join(f"{name}: {getattr(preset, name)}" for name in names)


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
    "shape_steps": (1, 200, 1), "octree": (16, 1024, 16), "delight_steps": (1, 200, 1), "paint_steps": (1, 200, 1),
    "render_px": (64, 8192, 64), "texture_px": (64, 8192, 64), "points_per_chunk": (1000, 4_000_000, 1000),
    "picture_px": (64, 8192, 64), "face_budget": (100, 10_000_000, 100),
    "vae_tile_px": (128, 512, 64),
}  # fmt: skip
_KNOBS: dict[str, str] = {
    "variant": "Shape model. mini: half the network, less detail, a little less memory. turbo: made for 3 to 10 "
    "steps. fast: one pass a step instead of two. mv: takes up to four pictures.",
    "shape_steps": "Time grows with it, memory does not. 50 for the plain models, 4 to 10 for turbo; fewer make the "
    "shape rougher.",
    "octree": "Grid that the shape is decoded on. Time and RAM grow with its cube (384: 228 MB), the card's memory "
    "does not. 128 loses about 30 % of the detail of 192 (an estimate); 384 is upstream's.",
    "guidance": "How closely the shape follows the picture; upstream's is 5. At 0 the plain models do not look at it. "
    "No value costs time or memory: plain models compute two passes a step, fast and turbo ones one.",
    "delight_steps": "Steps that take light and shadow out of the picture; upstream's is 50. Few leave some light. "
    "Time grows with it, memory does not.",
    "paint_steps": "Steps that paint the views; upstream's is 30. Few make them blurry. Time grows with it, "
    "memory does not.",
    "views": "Pictures painted of the mesh; time grows with them, and memory by about 70 MiB each (computed). "
    "standard: six, as upstream. fast: four, none from above or below. minimal: three, which see the sides at a "
    "steeper angle, too. tilted: look a little from above and below.",
    "render_px": "Edge of the views when they are baked; they are painted at 512 px. Time and memory grow with its "
    "square: 45 MiB at 1024, 180 at 2048 (computed), much less than the networks take. Smaller is softer.",
    "texture_px": "Edge of the texture. Time, file and memory grow with its square: 40 MiB at 1024, 160 at 2048 "
    "(computed), much less than the networks take. Smaller is softer: 1536 a little against 2048.",
    "residency": "Where weights lie; the result is the same. free: one network at a time on the card, gone when its "
    "step is done; what does not fit is streamed. stream: all pass through the card, 0.6 GiB at the most instead of "
    "2.3 (computed), slower. keep: left there for the next picture, on the command line alone; in ComfyUI it is free.",
    "cfg_together": "Both halves of guidance at once: faster, the same result, more memory: 185 MiB for a plain shape "
    "model, 444 for six views (computed).",
    "points_per_chunk": "Grid points per pass when the shape is decoded: 8,000 take 178 MiB, 20,000 take 436 MiB "
    "(computed). Fewer take longer and give the same result.",
    "vae_slicing": "Pictures through the VAE one by one: saves 2.3 GiB with six views (computed), costs little time; "
    "the same result.",
    "vae_tiling": "Tiles for pictures larger than 512 px; nothing changes at 512.",
    "background_model": "On the CPU, with none of the card's memory. u2net: good in general, a download of 0.18 GB. "
    "u2netp: small and quick, 5 MB. isnet-general-use (0.18 GB), birefnet-general-lite (0.22 GB): finer edges, "
    "slower. Each is in RAM for its step.",
    "picture_px": "A larger picture is reduced to this long side before its background is removed. Time and RAM of "
    "that grow with its square, the card's memory does not: the networks see 512 px of the object.",
    "face_budget": "Faces that the shape is reduced to before it is painted; fewer lose detail. It costs unwrapping "
    "time, hardly memory: a torus of 10,000 faces took 0.5 s, 40,000 5 s, 80,000 15 s (xatlas, two CPU cores).",
    "unwrapper": "On the CPU. xatlas: what the paint model was trained with. uvunwrap: about eight times faster, "
    "other charts.",
    "attention": "Kernels of the UNets. auto: fused where torch has them for the card, else sliced. Sliced on a card "
    "with fused ones takes more memory, not less. xformers: if it is installed.",
    "vae_tile_px": "512 leaves pictures whole. 256 takes 289 instead of 648 MiB when views are decoded (computed) and "
    "may show seams.",
    "view_by_view": "Paints each view by itself: 354 MiB less with six views (computed), but the views no longer "
    "agree with each other.",
    "compile_shape": "torch.compile for the shape transformer: a long first step, then faster ones. Needs a compiler, "
    "and weights that do not stream.",
    "allow_lossy": "If the card is too small, lower octree, render size and views step by step, after everything that "
    "costs no quality. Off: stop with a message.",
    "precision": "Of the networks. auto: float16 where ComfyUI trusts the card with it, else float32. float32 takes "
    "twice the memory and cures NaN on cards with weak float16, such as the GTX 16xx. bfloat16: float16's memory, a "
    "wider range, coarser.",
    "prefetch": "While a layer computes, the weights of the next that streams are on their way; the same result. Off: "
    "one layer's weights at a time, 254 instead of 326 MiB for the shape model, 575 instead of 576 for the paint UNet "
    "(computed), but slower on a GPU (not measured).",
    "skip_last_step": "Leaves out upstream's last step of the shape, which has no length; the same result. Off: one "
    "step more each time, with nothing to show for it. turbo has no such step.",
    "keys_once": "When the shape is decoded, the keys and values of its tokens are computed once; the same result. "
    "Off: again for each chunk of grid points, which costs time.",
    "logits_on_host": "What the decode of the shape finds is gathered in RAM; the same result. Off: on the card, which "
    "takes 228 MB more there at octree 384, 9 MB at 128 (computed).",
    "reference_once": "Reads the picture to paint from once; the same result. Off: at every step, as upstream: one "
    "more UNet pass a step, and both UNets of the paint model on the card at once, 3,961 instead of 2,287 MiB "
    "(computed).",
    "skip_unguided_reference": "The half of guidance that the picture does not count for computes no attention to it; "
    "the same result. Off: time, and 1,827 instead of 1,739 MiB for the UNet that reads it, 2,309 instead of 2,287 for "
    "the one that paints (computed). With CFG together it is always computed.",
}


def _widget(name: str) -> Any:
    default: Any = getattr(_BASE, name)
    common: dict[str, Any] = {"default": default, "tooltip": _KNOBS[name], "optional": name in _LATER}
    if name in CHOICES:
        return io.Combo.Input(name, options=list(CHOICES[name]), **common)
    if isinstance(default, bool):
        return io.Boolean.Input(name, advanced=name in _ADVANCED, **common)
    if isinstance(default, float):
        return io.Float.Input(name, min=0.0, max=50.0, step=0.1, **common)
    low, high, step = _NUMBERS[name]
    return io.Int.Input(name, min=low, max=high, step=step, **common)
