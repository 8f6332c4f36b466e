"""Which values of a preset each stage reads.

A change of any other value leaves the stage's result as it was, so a cached result is used again. A stage must read no
value that is not listed here: tests/core/test_stage_values.py runs every stage and watches what it reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from .errors import BadInput
from .presets import PRESETS, VALUES, Preset

_FITTING = {"residency", "prefetch", "allow_lossy"}
"""Read by every stage that plans what fits the device."""
_NETWORKS = {"precision", "attention", "vae_slicing", "vae_tiling", "vae_tile_px", *_FITTING}

STAGE_VALUES: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "background": frozenset({"background_model", "picture_px", "edge_colours"}),
        "shape": frozenset(
            {
                "variant", "shape_vae", "octree", "shape_steps", "guidance", "cfg_together", "points_per_chunk",
                "decode", "keys_once", "logits_on_host", "skip_last_step", "compile_shape", "precision", *_FITTING,
            }
        ),
        "clean": frozenset({"face_budget"}),
        "unwrap": frozenset({"unwrapper"}),
        "delight": frozenset({"delight_steps", *_NETWORKS}),
        "paint": frozenset(
            {
                "paint_variant", "paint_steps", "paint_guidance", "views", "view_by_view", "cfg_together", "render_px",
                "reference_once", "skip_unguided_reference", *_NETWORKS,
            }
        ),
        "bake": frozenset({"bake", "merge", "render_px", "texture_px", *_FITTING}),
    }
)  # fmt: skip
"""By the name of the stage's module. A value stands at every stage that reads it, on any device."""


def read_values(preset: Preset, stages: Iterable[str]) -> dict[str, Any]:
    """The values of a preset that these stages read, by name, in the order of the preset's fields."""
    read = frozenset[str]().union(*(STAGE_VALUES[stage] for stage in stages))
    return {name: getattr(preset, name) for name in VALUES if name in read}


def preset_of_values(values: Mapping[str, Any]) -> Preset:
    """A preset with these values, for the stages that read no others.

    Raises:
        BadInput: a name is unknown, or a value is out of its range.
    """
    unknown = sorted(set(values) - set(VALUES))
    if unknown:
        raise BadInput(
            f"preset: {', '.join(unknown)} is no value of a preset; wanted names such as "
            f"{', '.join(list(VALUES)[:3])}. docs/nodes.md lists them."
        )
    return PRESETS["8 GB Balanced"].with_(name="of values", **values)
