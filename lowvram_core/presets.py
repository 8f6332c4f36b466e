"""Every number that trades quality for memory or time, with a name; one read-only table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal, get_args

from .errors import BadInput
from .types import Camera

Residency = Literal["stream", "free", "keep"]
"""stream: weights pass through the device; free: one component at a time, off the device when its step is
done; keep: left loaded, evictable."""

VARIANTS = (
    "v2-0", "v2-0-fast", "v2-0-turbo", "mini", "mini-fast", "mini-turbo", "mv", "mv-fast", "mv-turbo",
)  # fmt: skip
"""The shape models. fast and turbo are guidance-distilled, turbo also step-distilled; mv takes up to four views."""

VIEW_SETS: Mapping[str, tuple[Camera, ...]] = MappingProxyType(
    {
        "standard": (
            Camera(0, 0, 1.0), Camera(90, 0, 0.1), Camera(180, 0, 0.5), Camera(270, 0, 0.1),
            Camera(0, 90, 0.05), Camera(180, -90, 0.05),
        ),
        "fast": (Camera(0, 0, 1.0), Camera(90, 0, 0.1), Camera(180, 0, 0.5), Camera(270, 0, 0.1)),
        "minimal": (Camera(0, 0, 1.0), Camera(120, 0, 0.3), Camera(240, 0, 0.3)),
        "fast-tilted": (Camera(0, 0, 1.0), Camera(90, 20, 0.1), Camera(180, 0, 0.5), Camera(270, -20, 0.1)),
        "minimal-tilted": (Camera(0, 0, 1.0), Camera(120, 20, 0.3), Camera(240, -20, 0.3)),
    }
)  # fmt: skip
"""Poses to paint: upstream's six (with upstream's weights), its four around the equator, and three. The tilted sets
look a little from above and below and see more (benchmarks/views.py); what the real model makes of them is not
measured, so they are by choice."""

CHOICES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "variant": VARIANTS,
        "views": tuple(VIEW_SETS),
        "residency": get_args(Residency),
        "unwrapper": ("xatlas", "uvunwrap"),
        "attention": ("auto", "fused", "xformers", "sliced"),
        "precision": ("auto", "float16", "bfloat16", "float32"),
        "background_model": ("u2net", "u2netp", "isnet-general-use", "birefnet-general-lite"),
    }
)
"""What the fields that are no numbers may be."""


@dataclass(frozen=True)
class Preset:
    """Settings of one run. A stage reads only its own."""

    name: str
    variant: str
    shape_steps: int
    octree: int
    """Cells along one edge of the grid that the shape is decoded on."""
    guidance: float
    """How closely the shape follows the picture. At 0 the plain models do not look at it at all, as upstream's; the
    fast and turbo ones have learned what a value means."""
    delight_steps: int
    paint_steps: int
    views: str
    """A key of VIEW_SETS."""
    render_px: int
    """Edge of the rendered maps and of the painted views when they are baked."""
    texture_px: int
    residency: Residency
    cfg_together: bool = False
    """Both halves of classifier-free guidance in one batch: faster, twice the activations."""
    points_per_chunk: int = 8000
    """Grid points per pass of the geometry decoder."""
    vae_slicing: bool = True
    vae_tiling: bool = True
    background_model: str = "u2net"
    picture_px: int = 1024
    """The long side of a picture before background removal."""
    face_budget: int = 40_000
    unwrapper: str = "xatlas"
    attention: str = "auto"
    """Which kernels the UNets' attention runs on; auto: fused where torch has a fused one for the card, else sliced."""
    vae_tile_px: int = 512
    """Edge of a tile. 512 leaves the pictures whole, which is exact; less saves memory and shows in the picture."""
    view_by_view: bool = False
    """Each view is painted by itself: least memory, and the views no longer agree with each other."""
    compile_shape: bool = False
    """torch.compile for the shape transformer."""
    precision: str = "auto"
    """Of the networks; auto: float16 where the device is good at it, else float32."""
    prefetch: bool = True
    """While a layer computes, the weights of the next that streams are on their way."""
    skip_last_step: bool = True
    """Upstream's last step of the shape, which has no length, is left out."""
    keys_once: bool = True
    """The geometry decoder's keys and values are computed once per decode, not once per chunk."""
    logits_on_host: bool = True
    """What the decode finds is gathered in RAM, not on the device."""
    reference_once: bool = True
    """The reference picture is read once per run, not at every step with both UNets on the device."""
    skip_unguided_reference: bool = True
    """The half of guidance that the reference does not count for computes no attention to it."""
    allow_lossy: bool = True
    """Where the device is too small, quality may go down a step, after all that costs none was tried."""

    def with_(self, **changes: Any) -> Preset:
        """A copy with some values replaced, checked.

        Raises:
            BadInput: a value is out of its range.
        """
        preset = replace(self, **changes)
        preset.check()
        return preset

    def check(self) -> None:
        """Raises BadInput where a value cannot be used."""
        for field, allowed in CHOICES.items():
            _one_of(field, getattr(self, field), allowed)
        for field, (low, high) in _RANGES.items():
            value = getattr(self, field)
            if not low <= value <= high:
                raise BadInput(f"preset: {field} is {value}; wanted {low} to {high}. Choose a value in that range.")

    @property
    def multiview_variant(self) -> str:
        """The variant for several pictures: the preset's own, else its counterpart, such as mv-turbo of mini-turbo."""
        base, _, distilled = self.variant.removeprefix("v2-0").removeprefix("mini").partition("-")
        return self.variant if base == "mv" else f"mv-{distilled}".rstrip("-")

    @property
    def cameras(self) -> tuple[Camera, ...]:
        """The poses of this preset's view set."""
        return VIEW_SETS[self.views]


_RANGES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "shape_steps": (1, 200), "octree": (16, 1024), "guidance": (0.0, 50.0), "delight_steps": (1, 200),
        "paint_steps": (1, 200), "render_px": (64, 8192), "texture_px": (64, 8192),
        "points_per_chunk": (64, 4_000_000), "picture_px": (64, 8192), "face_budget": (4, 10_000_000),
        "vae_tile_px": (128, 512),
    }
)  # fmt: skip


def _one_of(field: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise BadInput(f"preset: {field} is {value!r}; wanted one of {', '.join(allowed)}. Choose one of these.")


def _table(*presets: Preset) -> Mapping[str, Preset]:
    return MappingProxyType({preset.name: preset for preset in presets})


PRESETS = _table(
    Preset("2 GB", "v2-0", 50, 384, 5.0, 50, 30, "standard", 2048, 2048, "stream", allow_lossy=False),
    Preset("4 GB", "v2-0", 50, 384, 5.0, 50, 30, "standard", 2048, 2048, "free", allow_lossy=False),
    Preset("8 GB Fast", "mini-turbo", 3, 128, 5.0, 5, 5, "minimal", 1024, 1024, "free"),
    Preset("8 GB Balanced", "v2-0-turbo", 4, 128, 5.0, 5, 5, "fast", 1536, 1536, "free"),
    Preset("8 GB Quality", "v2-0-turbo", 5, 192, 5.0, 6, 6, "fast", 1536, 1536, "free"),
    Preset(
        "8 GB Full", "v2-0", 50, 384, 5.0, 50, 30, "standard", 2048, 2048, "free",
        cfg_together=True, allow_lossy=False,
    ),
    Preset(
        "12 GB", "v2-0-turbo", 5, 192, 5.0, 6, 6, "fast", 2048, 2048, "free",
        cfg_together=True, points_per_chunk=20_000,
    ),
    Preset(
        "16 GB", "v2-0-turbo", 5, 192, 5.0, 6, 6, "standard", 2048, 2048, "free",
        cfg_together=True, points_per_chunk=20_000,
    ),
)  # fmt: skip
"""The presets by name. The 8 GB Fast, Balanced, Quality, 12 GB and 16 GB rows paint with few steps, which is
what a turbo painting model is made for; until that model is supported they paint with the standard one."""

PEAKS_MIB: Mapping[str, int] = MappingProxyType(
    {
        "2 GB": 576, "8 GB Fast": 2219, "8 GB Balanced": 2316, "8 GB Quality": 2316, "4 GB": 2318, "12 GB": 2450,
        "8 GB Full": 2732, "16 GB": 2732,
    }
)  # fmt: skip
"""The most MiB of tensors that a preset's run has on the device at once, in float16: computed by benchmarks/vram.py
for the published sizes, and held by tests/core/test_vram.py. Beside it a GPU needs its context and workspaces."""


def get(name: str) -> Preset:
    """The preset of that name, whatever its case.

    Raises:
        BadInput: there is none.
    """
    for preset in PRESETS.values():
        if preset.name.casefold() == name.strip().casefold():
            return preset
    raise BadInput(f"preset: {name!r} is not known; wanted one of {', '.join(PRESETS)}. Choose one of these.")
