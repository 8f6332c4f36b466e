"""How much memory a component needs on the device. Arithmetic only: nothing is loaded or tried.

The sizes of activations are those of the published networks. benchmarks/vram.py measures them on a device that counts
bytes, and tests/core/test_vram.py compares them with what is planned here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

from ..host import Component, Host
from ..presets import Preset

MIB = 1024**2
MARGIN_BYTES = 160 * MIB
"""Added to what is computed: the allocator rounds sizes up, and convolutions use workspaces."""
STREAMED_AT_ONCE = 2
"""Layers whose weights are on the device at the same time while weights stream with prefetch."""
WHOLE_PX = 512
"""A VAE tile of this edge holds a whole picture."""
PARTS_MIB = 10.0
"""What a VAE with smaller tiles holds beside one tile: the parts of up to six views."""


@dataclass(frozen=True)
class Need:
    """What one component needs on the device while it runs."""

    key: str
    label: str
    weight_bytes: int
    """0 where there is no network. Anything else can stream."""
    largest_layer_bytes: int
    activation_bytes: int
    ram_bytes: int = 0
    """Needed in RAM beside the weights."""
    lowered_by: frozenset[str] = field(default=frozenset(), compare=False)
    """Names of the preset values that can lower this need. They choose the fallbacks and the advice for a stage."""

    @property
    def resident_bytes(self) -> int:
        """Needed with all weights on the device."""
        return self.weight_bytes + self.activation_bytes + MARGIN_BYTES

    @property
    def streamed_bytes(self) -> int:
        """Needed while weights stream with prefetch."""
        return self.streamed(ahead=True)

    def streamed(self, *, ahead: bool) -> int:
        """Needed while weights stream, with prefetch (`ahead`) or without."""
        layers = (STREAMED_AT_ONCE if ahead else 1) * self.largest_layer_bytes
        return min(self.weight_bytes, layers) + self.activation_bytes + MARGIN_BYTES


Needs = Callable[[Preset], Sequence[Need]]
"""Returns the needs of a stage's components with the values of a preset. The components run one after the other."""


def need(component: Component, host: Host, activation_mib: float, lowered_by: Collection[str] = ()) -> Need:
    """The need of a component.

    Args:
        activation_mib: in float16; float32 takes twice as much.
        lowered_by: names of the preset values that can lower it.
    """
    activations = int(activation_mib * MIB * host.dtype.itemsize / 2)
    return Need(
        component.key, component.label, component.weight_bytes, component.largest_layer_bytes, activations,
        lowered_by=frozenset(lowered_by),
    )  # fmt: skip


def plain_need(label: str, used_bytes: int, lowered_by: Collection[str] = ()) -> Need:
    """The need of a computation without a network."""
    return Need("", label, 0, 0, used_bytes, lowered_by=frozenset(lowered_by))


def together(need: Need, other: Need) -> Need:
    """The need of a component while another one is on the device too."""
    return replace(
        need, weight_bytes=need.weight_bytes + other.weight_bytes,
        largest_layer_bytes=need.largest_layer_bytes + other.largest_layer_bytes,
        activation_bytes=max(need.activation_bytes, other.activation_bytes),
        lowered_by=need.lowered_by | other.lowered_by,
    )  # fmt: skip


def tiled_mib(whole_mib: float, preset: Preset) -> float:
    """Activations of a VAE at the preset's tile size.

    Args:
        whole_mib: its activations without tiles.
    """
    share = preset.vae_tile_px / WHOLE_PX
    return whole_mib * share**2 + PARTS_MIB if preset.vae_tiling and share < 1 else whole_mib


def largest_bytes(needs: Sequence[Need], *, streamed: bool = False) -> int:
    """The largest of the needs, resident or streamed."""
    return max((need.streamed_bytes if streamed else need.resident_bytes for need in needs), default=0)


def largest_ram_bytes(needs: Sequence[Need]) -> int:
    """The largest of the needs of RAM."""
    return max((need.ram_bytes for need in needs), default=0)
