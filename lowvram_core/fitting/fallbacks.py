"""What a stage changes on a device that is too small, and what the user is advised to do.

No table here names a stage. A fallback is for a stage if it changes a value that one of the stage's needs names in
`lowered_by`, or, for streaming, if one of the needs has weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ..errors import OutOfMemory
from ..presets import Preset
from ..report import GIB
from .budget import Need, Needs, largest_ram_bytes


@dataclass(frozen=True)
class Fallback:
    """One change that lowers what a stage needs."""

    text: str
    """For the log and the report."""
    values: Mapping[str, object]
    """The preset values that it sets."""
    applies: Callable[[Preset], bool]
    """Whether the preset leaves anything to change."""
    lossy: bool = False
    """Whether it costs quality."""
    of_weights: bool = False
    """Whether it lowers the memory of weights. Then it helps every need that has weights."""

    def helps(self, needs: Sequence[Need]) -> bool:
        """Whether it can lower one of the needs."""
        if self.of_weights:
            return _have_weights(needs)
        return any(not need.lowered_by.isdisjoint(self.values) for need in needs)


STREAM = Fallback("weights streamed", {}, lambda preset: preset.residency != "stream", of_weights=True)
"""It changes no preset value. `fit` then streams only the components that do not fit."""
FALLBACKS = (
    Fallback("guidance halves one after the other", {"cfg_together": False}, lambda preset: preset.cfg_together),
    Fallback("2,000 points per chunk", {"points_per_chunk": 2000}, lambda preset: preset.points_per_chunk > 2000),
    Fallback("VAE picture by picture", {"vae_slicing": True}, lambda preset: not preset.vae_slicing),
    STREAM,
    Fallback("one layer's weights at a time", {"prefetch": False}, lambda preset: preset.prefetch, of_weights=True),
    Fallback("decoded sparsely", {"decode": "sparse"}, lambda preset: preset.decode != "sparse"),
    Fallback("octree 128", {"octree": 128}, lambda preset: preset.octree > 128, lossy=True),
    Fallback("1024 px renders", {"render_px": 1024}, lambda preset: preset.render_px > 1024, lossy=True),
    Fallback("views fast", {"views": "fast"}, lambda preset: len(preset.cameras) > 4, lossy=True),
    Fallback("views minimal", {"views": "minimal"}, lambda preset: len(preset.cameras) > 3, lossy=True),
)
"""In the order in which they are tried: first those that cost no quality (see docs/techniques.md)."""


@dataclass(frozen=True)
class Attempt:
    """A preset with some fallbacks, at which a stage can be run."""

    preset: Preset
    streamed: frozenset[str]
    """Keys of the components whose weights stream."""
    fallbacks: tuple[Fallback, ...]

    @property
    def changes(self) -> tuple[str, ...]:
        """The fallbacks as text, for the log and the report."""
        return tuple(fallback.text for fallback in self.fallbacks)


def attempts(preset: Preset, needs: Needs) -> Iterator[Attempt]:
    """Yields the preset without fallbacks, then with one fallback more each time.

    Skips an exact fallback that changes no need, and a lossy one that the preset forbids.
    """
    attempt = _with_fallbacks(preset, (), needs)
    yield attempt
    for fallback in FALLBACKS:
        if not fallback.helps(needs(attempt.preset)) or not fallback.applies(attempt.preset):
            continue
        longer = _with_fallbacks(preset, (*attempt.fallbacks, fallback), needs)
        wanted = preset.allow_lossy if fallback.lossy else _demand(longer, needs) != _demand(attempt, needs)
        if wanted:
            attempt = longer
            yield attempt


def _demand(attempt: Attempt, needs: Needs) -> tuple[list[Need], frozenset[str], bool]:
    return list(needs(attempt.preset)), attempt.streamed, attempt.preset.prefetch


def _with_fallbacks(preset: Preset, fallbacks: tuple[Fallback, ...], needs: Needs) -> Attempt:
    for fallback in fallbacks:
        preset = preset.with_(**fallback.values)
    streams = preset.residency == "stream" or STREAM in fallbacks
    keys = (need.key for need in needs(preset) if streams and need.weight_bytes)
    return Attempt(preset, frozenset(keys), fallbacks)


def fits_ram(attempt: Attempt, needs: Needs, free_ram: int | None) -> bool:
    """Whether the attempt fits the RAM; None means that the RAM does not count."""
    return free_ram is None or largest_ram_bytes(needs(attempt.preset)) <= free_ram


def fit(attempt: Attempt, needs: Needs, free_bytes: int, free_ram: int | None = None) -> Attempt | None:
    """The attempt, where only the components stream that do not fit as a whole. None if a component does not fit.

    With residency `stream` all components stream.
    """
    if not fits_ram(attempt, needs, free_ram):
        return None
    streamed = set()
    for need in needs(attempt.preset):
        can_stream = need.key in attempt.streamed
        must_stream = can_stream and attempt.preset.residency == "stream"
        if need.resident_bytes <= free_bytes and not must_stream:
            continue
        if not can_stream or need.streamed(ahead=attempt.preset.prefetch) > free_bytes:
            return None
        streamed.add(need.key)
    return replace(attempt, streamed=frozenset(streamed))


def without_needless(
    asked: Preset, attempt: Attempt, needs: Needs, free_bytes: int, free_ram: int | None = None
) -> Attempt:
    """Undoes every fallback that proves unnecessary, newest first.

    Args:
        asked: the preset without fallbacks.
        attempt: one that fits.
    """
    for fallback in reversed(attempt.fallbacks[:-1]):
        fewer = tuple(other for other in attempt.fallbacks if other is not fallback)
        attempt = fit(_with_fallbacks(asked, fewer, needs), needs, free_bytes, free_ram) or attempt
    return attempt


def plan_line(stage: str, attempt: Attempt, needs: Sequence[Need], free_bytes: int | None) -> str:
    """One line for the log: the largest need, the free memory, what streams and what else is changed."""
    free = "the device does not tell what is free" if free_bytes is None else f"{free_bytes / GIB:.2f} GiB free"
    ahead = attempt.preset.prefetch
    taken = [
        (need.streamed(ahead=ahead) if need.key in attempt.streamed else need.resident_bytes, need) for need in needs
    ]
    used, largest = max(taken, key=lambda pair: pair[0], default=(0, None))
    wanted = "nothing" if largest is None else f"{used / GIB:.2f} GiB for the {largest.label}"
    done = [f"{need.label} streamed" for need in needs if need.key in attempt.streamed]
    done += [fallback.text for fallback in attempt.fallbacks if fallback is not STREAM]
    return f"{stage}: {wanted}, {free}" + (f"; {', '.join(done)}" if done else "")


def refusal(stage: str, preset: Preset, needs: Sequence[Need], free_bytes: int) -> OutOfMemory:
    """The error for a stage that fits with none of its fallbacks."""
    largest = max(needs, key=lambda need: need.streamed(ahead=False))
    return OutOfMemory(
        f"{stage}: {free_bytes / GIB:.2f} GiB of the device are free, and the {largest.label} takes at least "
        f"{largest.streamed(ahead=False) / GIB:.2f} GiB; wanted room for it. {advice(preset, needs)}"
    )


def ram_refusal(stage: str, needs: Sequence[Need], free_ram: int) -> OutOfMemory:
    """The error for a stage whose smallest need of RAM is too large."""
    largest = max(needs, key=lambda need: need.ram_bytes)
    return OutOfMemory(
        f"{stage}: {free_ram / GIB:.2f} GiB of the RAM are free, and the {largest.label} takes "
        f"{largest.ram_bytes / GIB:.2f} GiB beside its weights; wanted room for it. Close other programs, decode "
        "sparsely (decode, in Preset Custom), or choose a smaller octree."
    )


@dataclass(frozen=True)
class _Advice:
    """Something that only the user can change, because it costs quality."""

    text: str
    value: str
    """The preset value; the advice is for a stage if a need names it in `lowered_by`."""
    applies: Callable[[Preset], bool]


_ADVICE = (
    _Advice("paint fewer views (fast, minimal)", "views", lambda preset: len(preset.cameras) > 3),
    _Advice("smaller tiles in the VAE (vae_tile_px 256, in Preset Custom)", "vae_tile_px",
            lambda preset: preset.vae_tile_px > 256),
    _Advice("paint each view by itself (view_by_view, in Preset Custom)", "view_by_view",
            lambda preset: not preset.view_by_view),
    _Advice("render at 1024 px", "render_px", lambda preset: preset.render_px > 1024),
    _Advice("bake the texture at 1024 px", "texture_px", lambda preset: preset.texture_px > 1024),
    _Advice("a mini variant of the shape model", "variant", lambda preset: not preset.variant.startswith("mini")),
)  # fmt: skip


def advice(preset: Preset, needs: Sequence[Need]) -> str:
    """What the user can do about a full device, in order. What costs no quality comes first.

    If there are weights, they were streamed before the user reads this.
    """
    texts = ["close other programs that use the card (nvidia-smi lists them)"]
    if not preset.allow_lossy and any(fallback.lossy and fallback.helps(needs) for fallback in FALLBACKS):
        texts.append("let the preset lower its quality (allow lossy, in Preset Custom)")
    values = frozenset[str]().union(*(need.lowered_by for need in needs))
    texts += [entry.text for entry in _ADVICE if entry.value in values and entry.applies(preset)]
    done = " Weights were streamed already, as Preset 2 GB does." if _have_weights(needs) else ""
    return "In this order: " + "; ".join(f"{index}. {text}" for index, text in enumerate(texts, 1)) + "." + done


def _have_weights(needs: Sequence[Need]) -> bool:
    return any(need.weight_bytes for need in needs)
