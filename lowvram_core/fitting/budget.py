"""What a stage will need and what to change when that does not fit: arithmetic, no torch.

Nothing here is tried out. The sizes of activations are those of the published networks, measured by
benchmarks/vram.py on a device without values; tests/core/test_vram.py holds them to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from ..errors import OutOfMemory
from ..host import Component, Host
from ..presets import Preset

MIB = 1024**2
GIB = 1024**3
MARGIN_BYTES = 160 * MIB
"""Left free beside what is computed: the allocator's rounding, the workspaces of convolutions."""
STREAMED_AT_ONCE = 2
"""Layers that are on the device at the same time while weights stream."""
WHOLE_PX = 512
PARTS_MIB = 10.0
"""The tile that leaves the pictures whole; beside smaller ones, up to six views in parts."""


@dataclass(frozen=True)
class Need:
    """What one component takes of the device while it runs."""

    key: str
    label: str
    weight_bytes: int
    largest_layer_bytes: int
    activation_bytes: int

    @property
    def resident_bytes(self) -> int:
        """With all its weights there."""
        return self.weight_bytes + self.activation_bytes + MARGIN_BYTES

    @property
    def streamed_bytes(self) -> int:
        """With its weights passing through, those of the next layer on their way."""
        return self.streamed(ahead=True)

    def streamed(self, *, ahead: bool) -> int:
        """With its weights passing through."""
        layers = (STREAMED_AT_ONCE if ahead else 1) * self.largest_layer_bytes
        return min(self.weight_bytes, layers) + self.activation_bytes + MARGIN_BYTES


def need(component: Component, host: Host, activation_mib: float) -> Need:
    """What a component takes.

    Args:
        activation_mib: in float16; twice that in float32.
    """
    activations = int(activation_mib * MIB * host.dtype.itemsize / 2)
    return Need(component.key, component.label, component.weight_bytes, component.largest_layer_bytes, activations)


def plain_need(label: str, used_bytes: int) -> Need:
    """What arithmetic without a network takes."""
    return Need("", label, 0, 0, used_bytes)


def together(need: Need, other: Need) -> Need:
    """What a component takes while another is on the device beside it."""
    return replace(
        need, weight_bytes=need.weight_bytes + other.weight_bytes,
        largest_layer_bytes=need.largest_layer_bytes + other.largest_layer_bytes,
        activation_bytes=max(need.activation_bytes, other.activation_bytes),
    )  # fmt: skip


def tiled_mib(whole_mib: float, preset: Preset) -> float:
    """Activations of a VAE, from what they are for pictures left whole: a tile's, and the pictures in parts."""
    share = preset.vae_tile_px / WHOLE_PX
    return whole_mib * share**2 + PARTS_MIB if preset.vae_tiling and share < 1 else whole_mib


Needs = Callable[[Preset], Sequence[Need]]
"""What a stage's components need, one at a time, at the settings of a preset."""


@dataclass(frozen=True)
class _Rung:
    """One step down; the ladder is walked from top to bottom, each step kept."""

    stages: tuple[str, ...]
    change: str
    values: dict[str, object]
    applies: Callable[[Preset], bool]
    lossy: bool = False


@dataclass(frozen=True)
class Attempt:
    """Settings to run a stage at."""

    preset: Preset
    streamed: frozenset[str]
    """Keys of the components whose weights pass through the device."""
    rungs: tuple[_Rung, ...]

    @property
    def changes(self) -> tuple[str, ...]:
        """What is done otherwise than asked, for the log and the report."""
        return tuple(rung.change for rung in self.rungs)


_STREAM = _Rung(("shape", "delight", "paint"), "weights streamed", {}, lambda preset: preset.residency != "stream")
_LADDER = (
    _Rung(("shape", "paint"), "guidance halves one after the other", {"cfg_together": False},
          lambda preset: preset.cfg_together),
    _Rung(("shape",), "2,000 points per chunk", {"points_per_chunk": 2000},
          lambda preset: preset.points_per_chunk > 2000),
    _Rung(("paint",), "VAE picture by picture", {"vae_slicing": True},
          lambda preset: not preset.vae_slicing),
    _STREAM,
    _Rung(("shape", "delight", "paint"), "one layer's weights at a time", {"prefetch": False},
          lambda preset: preset.prefetch),
    _Rung(("shape",), "octree 128", {"octree": 128}, lambda preset: preset.octree > 128, lossy=True),
    _Rung(("paint", "bake"), "1024 px renders", {"render_px": 1024}, lambda preset: preset.render_px > 1024,
          lossy=True),
    _Rung(("paint",), "views fast", {"views": "fast"}, lambda preset: len(preset.cameras) > 4, lossy=True),
    _Rung(("paint",), "views minimal", {"views": "minimal"}, lambda preset: len(preset.cameras) > 3, lossy=True),
)  # fmt: skip
"""Exact in its class first (docs/techniques.md), then, only where the preset allows it, what costs quality."""


def attempts(stage: str, preset: Preset, needs: Needs) -> Iterator[Attempt]:
    """The preset as it is, then each step down, all that came before kept; no exact one that saves nothing."""
    attempt = _after(preset, (), needs)
    yield attempt
    for rung in _LADDER:
        if stage in rung.stages and rung.applies(attempt.preset) and (preset.allow_lossy or not rung.lossy):
            lower = _after(preset, (*attempt.rungs, rung), needs)
            if rung.lossy or _takes(lower, needs) != _takes(attempt, needs):
                attempt = lower
                yield attempt


def _takes(attempt: Attempt, needs: Needs) -> tuple[list[Need], frozenset[str], bool]:
    return list(needs(attempt.preset)), attempt.streamed, attempt.preset.prefetch


def _after(preset: Preset, rungs: tuple[_Rung, ...], needs: Needs) -> Attempt:
    for rung in rungs:
        preset = preset.with_(**rung.values)
    streams = preset.residency == "stream" or _STREAM in rungs
    return Attempt(preset, frozenset(need.key for need in needs(preset)) if streams else frozenset(), rungs)


def fit(attempt: Attempt, needs: Needs, free_bytes: int) -> Attempt | None:
    """The attempt with only those components streamed that do not fit as a whole; None where one fits in no way."""
    streamed = set()
    for need in needs(attempt.preset):
        if need.resident_bytes <= free_bytes and attempt.preset.residency != "stream":
            continue
        if need.key not in attempt.streamed or need.streamed(ahead=attempt.preset.prefetch) > free_bytes:
            return None
        streamed.add(need.key)
    return replace(attempt, streamed=frozenset(streamed))


def spared(asked: Preset, attempt: Attempt, needs: Needs, free_bytes: int) -> Attempt:
    """An attempt that fits without those of its steps that it fits without, the last ones taken back first."""
    for rung in reversed(attempt.rungs[:-1]):
        fewer = tuple(other for other in attempt.rungs if other is not rung)
        attempt = fit(_after(asked, fewer, needs), needs, free_bytes) or attempt
    return attempt


def largest_bytes(needs: Sequence[Need], *, streamed: bool = False) -> int:
    """What the hungriest component takes."""
    return max((need.streamed_bytes if streamed else need.resident_bytes for need in needs), default=0)


def plan_line(stage: str, attempt: Attempt, needs: Sequence[Need], free_bytes: int | None) -> str:
    """For the log: what the hungriest component takes, what is free, what streams or is done otherwise than asked."""
    free = "the device does not tell what is free" if free_bytes is None else f"{free_bytes / GIB:.2f} GiB free"
    ahead = attempt.preset.prefetch
    taken = [
        (need.streamed(ahead=ahead) if need.key in attempt.streamed else need.resident_bytes, need) for need in needs
    ]
    used, hungriest = max(taken, key=lambda pair: pair[0], default=(0, None))
    wanted = "nothing" if hungriest is None else f"{used / GIB:.2f} GiB for the {hungriest.label}"
    done = [f"{need.label} streamed" for need in needs if need.key in attempt.streamed and need.weight_bytes]
    done += [rung.change for rung in attempt.rungs if rung is not _STREAM]
    return f"{stage}: {wanted}, {free}" + (f"; {', '.join(done)}" if done else "")


def refusal(stage: str, preset: Preset, needs: Sequence[Need], free_bytes: int) -> OutOfMemory:
    """The error for a device on which the stage fits in no way that the preset allows."""
    hungriest = max(needs, key=lambda need: need.streamed(ahead=False))
    return OutOfMemory(
        f"{stage}: {free_bytes / GIB:.2f} GiB of the device are free, and the {hungriest.label} takes at least "
        f"{hungriest.streamed(ahead=False) / GIB:.2f} GiB; wanted room for it. {next_steps(stage, preset)}"
    )


_LOSSY_ADVICE = (
    ("shape paint bake", "let the preset step down (allow lossy, in Preset Custom)",
     lambda preset: not preset.allow_lossy),
    ("paint", "paint fewer views (fast, minimal)", lambda preset: len(preset.cameras) > 3),
    ("delight multiview", "smaller tiles in the VAE (vae_tile_px 256, in Preset Custom)",
     lambda preset: preset.vae_tile_px > 256),
    ("paint", "paint each view by itself (view_by_view, in Preset Custom)", lambda preset: not preset.view_by_view),
    ("paint bake", "render and texture at 1024 px", lambda preset: max(preset.render_px, preset.texture_px) > 1024),
    ("inpaint", "bake the texture at 1024 px", lambda preset: preset.texture_px > 1024),
    ("shape", "a mini variant of the shape model", lambda preset: not preset.variant.startswith("mini")),
)  # fmt: skip
"""Stages that read it, what to change, and whether there is anything to change."""


def next_steps(stage: str, preset: Preset) -> str:
    """What the user can do about a full device, in order; what costs no quality comes first.

    Where there are weights, the ladder has streamed them before anyone reads this.
    """
    steps = ["close other programs that use the card (nvidia-smi lists them)"]
    steps += [text for stages, text, applies in _LOSSY_ADVICE if stage in stages.split() and applies(preset)]
    done = " Weights were streamed already, as Preset 2 GB does." if stage in _STREAM.stages else ""
    return "In this order: " + "; ".join(f"{index}. {step}" for index, step in enumerate(steps, 1)) + "." + done
