"""Runs a stage with the first fallbacks that fit the device."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import TypeVar

from ..errors import OutOfMemory
from ..host import Host
from ..lending.device import free_ram_bytes, full_device_is_named
from ..presets import Preset
from .budget import Needs, largest_bytes
from .fallbacks import Attempt, advice, attempts, fit, fits_ram, plan_line, ram_refusal, refusal, without_needless

Result = TypeVar("Result")

log = logging.getLogger(__name__)


def fitted(stage: str, preset: Preset, host: Host, needs: Needs, run: Callable[[Preset], Result]) -> Result:
    """Runs a stage with the preset's values if they fit, else with the first fallbacks that fit.

    The plan is made before anything is loaded. If the device is full all the same, everything is freed and the stage
    runs again with one fallback more.

    Args:
        stage: its name, for messages.
        needs: what the stage's components need, by preset.
        run: the stage; it is called once, and once more each time the device was full.

    Raises:
        OutOfMemory: the stage fits with none of the fallbacks that the preset allows. The message gives advice.
    """
    waiting = _planned(stage, preset, host, needs)
    while True:
        attempt = waiting.pop(0)
        if attempt.changes:
            host.note(f"{stage}: little memory: {', '.join(attempt.changes)}")
        outcome = _tried(stage, attempt, host, run)
        if not isinstance(outcome, str):
            return outcome[0]
        host.make_room(_wanted_bytes(waiting[0], needs) if waiting else 0)
        if not waiting:
            raise OutOfMemory(f"{outcome} {advice(attempt.preset, needs(attempt.preset))}")
        log.warning("%s", outcome)


def _wanted_bytes(attempt: Attempt, needs: Needs) -> int:
    return largest_bytes(needs(attempt.preset), streamed=bool(attempt.streamed))


def _tried(stage: str, attempt: Attempt, host: Host, run: Callable[[Preset], Result]) -> tuple[Result] | str:
    """The result in a tuple, or the message of OutOfMemory. The error itself would keep tensors alive."""
    try:
        with host.streaming(attempt.streamed, ahead=attempt.preset.prefetch), full_device_is_named(host.device, stage):
            return (run(attempt.preset),)
    except OutOfMemory as error:
        return str(error)


def _planned(stage: str, preset: Preset, host: Host, needs: Needs) -> list[Attempt]:
    """The attempts that can fit, in order; all of them where the device does not report its free memory."""
    free_ram = free_ram_bytes()
    every = list(attempts(preset, needs))
    known = [attempt for attempt in every if fits_ram(attempt, needs, free_ram)]
    if not known:
        raise ram_refusal(stage, needs(every[-1].preset), free_ram)
    free = host.make_room(_wanted_bytes(known[0], needs))
    if free is None:
        first = without_needless(preset, known[0], needs, sys.maxsize, free_ram)
        log.info("%s", plan_line(stage, first, needs(first.preset), free))
        return [first, *known[1:]]
    fitting = [(index, planned) for index, one in enumerate(known) if (planned := fit(one, needs, free)) is not None]
    if not fitting:
        raise refusal(stage, known[-1].preset, needs(known[-1].preset), free)
    index, planned = fitting[0]
    planned = without_needless(preset, planned, needs, free, free_ram)
    log.info("%s", plan_line(stage, planned, needs(planned.preset), free))
    # If the device is full although the plan fits, the next attempt streams every component.
    return [planned, *known[index if planned != known[index] else index + 1 :]]
