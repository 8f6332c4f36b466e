"""The schedulers of the delight and paint models."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import BadCheckpoint
from .diffusers_folders import read_json


def euler_ancestral(folder: Path, **changes: Any) -> Callable[[], Any]:
    """Returns a function that makes fresh EulerAncestralDiscreteSchedulers with the settings of a pipeline folder."""
    import diffusers

    return partial(diffusers.EulerAncestralDiscreteScheduler.from_config, _settings(folder), **changes)


def lcm(folder: Path, **changes: Any) -> Callable[[], Any]:
    """Returns a function that makes fresh LCMSchedulers with the settings of a pipeline folder."""
    import diffusers

    return partial(diffusers.LCMScheduler.from_config, _settings(folder), **changes)


def _settings(folder: Path) -> Any:
    """The settings of a pipeline folder's scheduler.

    As upstream does, the folder's own scheduler class is built first, so that its defaults, such as the timestep
    spacing, apply.
    """
    import diffusers

    config = read_json(folder / "scheduler" / "scheduler_config.json")
    name = str(config.get("_class_name", "EulerAncestralDiscreteScheduler"))
    cls = getattr(diffusers, name, None) if name.endswith("Scheduler") else None
    if cls is None:
        raise BadCheckpoint(
            f"models: {folder}/scheduler names the class {name!r}; wanted a diffusers scheduler. Download it again."
        )
    try:
        return cls.from_config(config).config
    except Exception as error:  # diffusers and torch have errors of their own for settings that they cannot use
        raise BadCheckpoint(
            f"models: {folder}/scheduler/scheduler_config.json cannot be used ({error}); wanted the published one. "
            "Download it again."
        ) from error


def next_latents(
    scheduler: Any, noise: Tensor, timestep: Tensor, latents: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Returns the scaled latents after a step, and the scheduler's estimate of the final ones; shapes as `latents`."""
    step = scheduler.step(noise, timestep, latents, generator=generator)
    return step.prev_sample, step.denoised if "denoised" in step else step.pred_original_sample
