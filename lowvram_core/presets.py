"""The presets, and every value of a preset: declared once, with its default and its range.

Widgets, command-line options, checks, locales, help pages and the README's tables follow from these declarations and
from presets.toml, which holds the texts. After a change run `make texts`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

from .errors import BadInput
from .types import Camera

Residency = Literal["stream", "free", "keep"]
"""stream: weights pass through the device; free: one component at a time, taken off the device after its phase; keep:
weights stay loaded, and may be evicted."""

VARIANTS = (
    "v2-0", "v2-0-fast", "v2-0-turbo", "mini", "mini-fast", "mini-turbo", "mv", "mv-fast", "mv-turbo",
)  # fmt: skip
"""The shape models. fast and turbo are guidance-distilled, turbo also step-distilled; mv takes up to four pictures."""

PAINT_VARIANTS = ("standard", "turbo")
"""The paint models. turbo is experimental: step- and guidance-distilled, made for ten steps."""

TURBO_PAINT_STEPS = 30
"""The most steps of the turbo paint model: its ten are every third of these."""

BACKGROUND_MODELS = ("u2net", "isnet-general-use", "birefnet-general-lite", "u2netp")
"""The models that remove backgrounds, by rembg's names; where one is missing, the first that is there stands in."""

DECODES = ("sparse", "sparse-fine", "dense")
"""sparse: a coarse lattice, then only points near the surface; sparse-fine: from a lattice that also sees small parts;
dense: all points, as upstream."""

BAKES = ("texel", "upstream")
"""texel: each texel is looked up in each view; upstream: each pixel is spread over the texture, as upstream does."""

MERGES = ("weights", "matched")
"""weights: a weighted mean of the views, as upstream; matched: views are matched in brightness and tint, and the best
one counts nearly alone."""

EDGE_COLOURS = ("estimated", "upstream")
"""Of a removed background's soft edges. estimated: the object's own, without what was behind it; upstream: as rembg
leaves them, mixed with the background and darkened."""

UNWRAPPERS = ("xatlas", "uvunwrap")
"""xatlas: as upstream; uvunwrap: many times faster, with other charts."""

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
"""The cameras that the views are painted from. standard: upstream's six, with upstream's weights; fast: upstream's four
around the equator; minimal: three. The tilted sets look a little from above and below and see more of the mesh
(benchmarks/views.py). How well the real model paints them is not measured, so no preset uses them."""


Group = Literal["shape", "texture", "memory", "advanced"]
"""Which part of the settings a value belongs to. advanced: values that hardly anyone changes."""


def number(group: Group, low: float, high: float, step: float = 1, *, later: bool = False) -> dict[str, Any]:
    """Declares a number from low to high; the widget moves by step."""
    return {"group": group, "low": low, "high": high, "step": step, "later": later}


def choice(group: Group, choices: tuple[str, ...], *, later: bool = False) -> dict[str, Any]:
    """Declares one of several names."""
    return {"group": group, "choices": choices, "later": later}


def switch(group: Group, *, later: bool = False) -> dict[str, Any]:
    """Declares an on or off."""
    return {"group": group, "later": later}


@dataclass(frozen=True)
class Value:
    """The declaration of one field of Preset."""

    name: str
    kind: type
    """int, float, bool or str."""
    default: Any
    """None: every preset states its own value."""
    group: Group
    """The group of its widget in Preset Custom. ComfyUI shows the widgets of the group advanced on request."""
    choices: tuple[str, ...] = ()
    low: float = 0
    high: float = 0
    step: float = 1
    later: bool = False
    """Came after the first release. Its widget is optional and stands after the others: saved workflows hold widgets by
    position, and saved prompts may lack it."""

    @property
    def option(self) -> str:
        """The command-line option."""
        return f"--{self.name.replace('_', '-')}"

    def _is_number(self, value: Any) -> bool:
        kinds = (int,) if self.kind is int else (int, float)
        return isinstance(value, kinds) and not isinstance(value, bool)

    def check(self, value: Any) -> None:
        """Raises BadInput where a preset cannot have this value."""
        if self.kind is str and value not in self.choices:
            raise BadInput(
                f"preset: {self.name} is {value!r}; wanted one of {', '.join(self.choices)}. Choose one of these."
            )
        if self.kind is bool and not isinstance(value, bool):
            raise BadInput(f"preset: {self.name} is {value!r}; wanted true or false. Choose one of these.")
        if self.kind in (int, float) and not self._is_number(value):
            raise BadInput(
                f"preset: {self.name} is {value!r}; wanted {'a whole number' if self.kind is int else 'a number'} from "
                f"{self.low} to {self.high}. Choose one."
            )
        if self.kind in (int, float) and not self.low <= value <= self.high:
            raise BadInput(
                f"preset: {self.name} is {value}; wanted {self.low} to {self.high}. Choose a value in that range."
            )


@dataclass(frozen=True)
class Preset:
    """The settings of one run. A stage reads only its own.

    The order of the fields is the order of Preset Custom's widgets: a new field comes last and is `later`.
    """

    name: str
    variant: str = field(metadata=choice("shape", VARIANTS))
    shape_steps: int = field(metadata=number("shape", 1, 200))
    octree: int = field(metadata=number("shape", 16, 1024, 16))
    """Cells along one edge of the grid that the shape is decoded on."""
    guidance: float = field(metadata=number("shape", 0.0, 50.0, 0.1))
    """How closely the shape follows the picture. At 0 the plain models ignore the picture, as upstream's do; fast and
    turbo models were trained on the value."""
    delight_steps: int = field(metadata=number("texture", 1, 200))
    paint_steps: int = field(metadata=number("texture", 1, 200))
    views: str = field(metadata=choice("texture", tuple(VIEW_SETS)))
    """A key of VIEW_SETS."""
    render_px: int = field(metadata=number("texture", 64, 8192, 64))
    """Edge of the rendered maps, and of the painted views when they are baked."""
    texture_px: int = field(metadata=number("texture", 64, 8192, 64))
    residency: Residency = field(metadata=choice("memory", get_args(Residency)))
    cfg_together: bool = field(default=False, metadata=switch("memory"))
    """Both halves of classifier-free guidance run in one batch: faster, twice the activations."""
    points_per_chunk: int = field(default=8000, metadata=number("memory", 1000, 4_000_000, 1000))
    """Grid points per pass of the geometry decoder."""
    vae_slicing: bool = field(default=True, metadata=switch("memory"))
    vae_tiling: bool = field(default=True, metadata=switch("memory"))
    background_model: str = field(default="u2net", metadata=choice("shape", BACKGROUND_MODELS))
    picture_px: int = field(default=1024, metadata=number("shape", 64, 8192, 64))
    """The longest side of a picture before background removal."""
    face_budget: int = field(default=40_000, metadata=number("shape", 100, 10_000_000, 100))
    unwrapper: str = field(default="xatlas", metadata=choice("texture", UNWRAPPERS))
    attention: str = field(default="auto", metadata=choice("memory", ("auto", "fused", "xformers", "sliced")))
    """The kernels of the UNets' attention; auto: fused where torch has a fused kernel for the card, else sliced."""
    vae_tile_px: int = field(default=512, metadata=number("memory", 128, 512, 64))
    """Edge of a tile. 512 does not split the pictures, which is exact; less saves memory and shows in the picture."""
    view_by_view: bool = field(default=False, metadata=switch("memory"))
    """Each view is painted alone: least memory, but the views no longer agree with each other."""
    compile_shape: bool = field(default=False, metadata=switch("advanced"))
    """torch.compile for the shape transformer."""
    allow_lossy: bool = field(default=True, metadata=switch("memory"))
    """Where the device is too small, quality may be reduced, after every fallback that costs none."""
    precision: str = field(
        default="auto", metadata=choice("memory", ("auto", "float16", "bfloat16", "float32"), later=True)
    )
    """Of the networks; auto: float16 on a device that is good at it, else float32."""
    prefetch: bool = field(default=True, metadata=switch("advanced", later=True))
    """While one layer computes, the streamed weights of the next are copied."""
    skip_last_step: bool = field(default=True, metadata=switch("advanced", later=True))
    """Skips upstream's last step of the shape, which has length zero."""
    keys_once: bool = field(default=True, metadata=switch("advanced", later=True))
    """The geometry decoder computes its keys and values once per decode, not once per chunk."""
    logits_on_host: bool = field(default=True, metadata=switch("advanced", later=True))
    """The decoded logits are gathered in RAM, not on the device."""
    reference_once: bool = field(default=True, metadata=switch("advanced", later=True))
    """The reference picture is read once per run, not at every step with both UNets on the device."""
    skip_unguided_reference: bool = field(default=True, metadata=switch("advanced", later=True))
    """Guidance runs the UNet with and without the picture. The run without it skips the attention to it."""
    paint_guidance: float = field(default=2.0, metadata=number("advanced", 0.0, 20.0, 0.1, later=True))
    """How closely the painted views follow the picture; upstream's is 2."""
    decode: str = field(default="sparse", metadata=choice("shape", DECODES, later=True))
    """Which points of the grid the geometry decoder is asked for: sparse: those near the surface; dense: all."""
    shape_vae: str = field(default="own", metadata=choice("advanced", ("own", "turbo"), later=True))
    """The VAE that decodes the shape: the one in the shape model's file, or the published one with a small decoder."""
    bake: str = field(default="texel", metadata=choice("texture", BAKES, later=True))
    """How the views get onto the texture."""
    edge_colours: str = field(default="estimated", metadata=choice("advanced", EDGE_COLOURS, later=True))
    """The colours of the soft edges of an object whose background was removed."""
    paint_variant: str = field(default="standard", metadata=choice("texture", PAINT_VARIANTS, later=True))
    """The paint model."""
    merge: str = field(default="weights", metadata=choice("texture", MERGES, later=True))
    """How views that disagree are merged where the bake is texel."""

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
        for name, value in VALUES.items():
            value.check(getattr(self, name))
        if self.paint_variant == "turbo" and self.paint_steps > TURBO_PAINT_STEPS:
            raise BadInput(
                f"preset: paint_steps is {self.paint_steps} with paint_variant turbo; wanted at most "
                f"{TURBO_PAINT_STEPS}. Choose 10, which the model was made for."
            )

    def own_values(self) -> dict[str, Any]:
        """The values without a default, and those that differ from theirs."""
        every = {name: getattr(self, name) for name in VALUES}
        return {name: value for name, value in every.items() if value != VALUES[name].default}

    @property
    def multiview_variant(self) -> str:
        """The variant for several pictures: the preset's own, else its counterpart, such as mv-turbo of mini-turbo."""
        base, _, distilled = self.variant.removeprefix("v2-0").removeprefix("mini").partition("-")
        return self.variant if base == "mv" else f"mv-{distilled}".rstrip("-")

    @property
    def turbo_vae(self) -> str:
        """The model id of the VAE with a small decoder for the latents of this preset's variant."""
        return f"shape_vae/{'mini' if self.variant.startswith('mini') else 'v2-0'}-turbo"

    @property
    def paint_models(self) -> tuple[str, ...]:
        """The ids of the paint model's folders. The turbo model has no VAE of its own."""
        return ("paint/v2-0-turbo", "paint_vae") if self.paint_variant == "turbo" else ("paint",)

    @property
    def cameras(self) -> tuple[Camera, ...]:
        """The cameras of this preset's view set."""
        return VIEW_SETS[self.views]


def _declared(declared: Field[Any]) -> Value:
    kind = {"bool": bool, "int": int, "float": float}.get(str(declared.type), str)
    default = None if declared.default is MISSING else declared.default
    return Value(declared.name, kind, default, **declared.metadata)


VALUES: Mapping[str, Value] = MappingProxyType(
    {declared.name: _declared(declared) for declared in fields(Preset) if declared.name != "name"}
)
"""Every value of a preset by its name, in the order of the fields."""


def _table(*presets: Preset) -> Mapping[str, Preset]:
    return MappingProxyType({preset.name: preset for preset in presets})


PRESETS = _table(
    Preset("2 GB", "v2-0", 50, 384, 5.0, 50, 30, "standard", 2048, 2048, "stream", allow_lossy=False),
    Preset("4 GB", "v2-0", 50, 384, 5.0, 50, 30, "standard", 2048, 2048, "free", allow_lossy=False),
    Preset("8 GB Fast", "mini-turbo", 3, 128, 5.0, 5, 5, "minimal", 1024, 1024, "free", unwrapper="uvunwrap"),
    Preset(
        "8 GB Balanced", "v2-0-turbo", 4, 128, 5.0, 5, 5, "fast", 1536, 1536, "free", unwrapper="uvunwrap",
    ),
    Preset(
        "8 GB Quality", "v2-0-turbo", 5, 192, 5.0, 6, 6, "fast", 1536, 1536, "free", unwrapper="uvunwrap",
    ),
    Preset(
        "8 GB Full", "v2-0", 50, 384, 5.0, 50, 30, "standard", 2048, 2048, "free",
        cfg_together=True, allow_lossy=False,
    ),
    Preset(
        "12 GB", "v2-0-turbo", 5, 192, 5.0, 6, 6, "fast", 2048, 2048, "free",
        cfg_together=True, points_per_chunk=20_000, unwrapper="uvunwrap",
    ),
    Preset(
        "16 GB", "v2-0-turbo", 5, 192, 5.0, 6, 6, "standard", 2048, 2048, "free",
        cfg_together=True, points_per_chunk=20_000, unwrapper="uvunwrap",
    ),
    Preset(
        "8 GB Turbo", "v2-0-turbo", 5, 192, 5.0, 6, 10, "standard", 1536, 1536, "free", unwrapper="uvunwrap",
        paint_variant="turbo",
    ),
)  # fmt: skip
"""The presets by name. 8 GB Fast, Balanced and Quality, 12 GB and 16 GB paint with few steps of the standard paint
model, which was made for 30. 8 GB Turbo paints with the model that was made for few steps, which is experimental."""


def get(name: str) -> Preset:
    """The preset of that name, whatever its case.

    Raises:
        BadInput: there is none.
    """
    for preset in PRESETS.values():
        if preset.name.casefold() == name.strip().casefold():
            return preset
    raise BadInput(f"preset: {name!r} is not known; wanted one of {', '.join(PRESETS)}. Choose one of these.")


@cache
def texts() -> Mapping[str, Any]:
    """presets.toml: what each preset is for, and what each value is called and costs, by language."""
    return tomllib.loads(Path(__file__).with_name("presets.toml").read_text(encoding="utf-8"))


def cost(name: str, language: str = "en") -> str:
    """What a value of a preset does and costs."""
    text: str = texts()["values"][name]["cost"][language]
    return text
