"""A stage on a device that may be too small: planned before anything is loaded, stepped down if it is full anyway."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from ..errors import OutOfMemory
from ..host import Host
from ..lending.device import full_device_is_named
from ..presets import Preset
from .budget import Attempt, Needs, attempts, fit, largest_bytes, next_steps, plan_line, refusal, spared

Result = TypeVar("Result")

log = logging.getLogger(__name__)


def fitted(stage: str, preset: Preset, host: Host, needs: Needs, run: Callable[[Preset], Result]) -> Result:
    """What `run` gives at the first settings that fit the device: those of the preset if they do.

    The budget decides before anything is loaded. A device that is full all the same costs one step down the ladder
    and another run, after everything was freed.

    Args:
        stage: names the ladder, and the error.
        needs: of the stage's components, by preset.
        run: the stage; called once, and once more after each time that the device was full.

    Raises:
        OutOfMemory: nothing that the preset allows fits; the message says what to do, in order.
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
            raise OutOfMemory(f"{outcome} {next_steps(stage, attempt.preset)}")
        log.warning("%s", outcome)


def _wanted_bytes(attempt: Attempt, needs: Needs) -> int:
    return largest_bytes(needs(attempt.preset), streamed=bool(attempt.streamed))


def _tried(stage: str, attempt: Attempt, host: Host, run: Callable[[Preset], Result]) -> tuple[Result] | str:
    """What came out, or what the full device said; the error itself holds tensors, and dies here."""
    try:
        with host.streaming(attempt.streamed, ahead=attempt.preset.prefetch), full_device_is_named(host.device, stage):
            return (run(attempt.preset),)
    except OutOfMemory as error:
        return str(error)


def _planned(stage: str, preset: Preset, host: Host, needs: Needs) -> list[Attempt]:
    """The attempts that the budget does not rule out; all of them where the device does not tell what is free."""
    known = list(attempts(stage, preset, needs))
    free = host.make_room(_wanted_bytes(known[0], needs))
    if free is None:
        log.info("%s", plan_line(stage, known[0], needs(known[0].preset), free))
        return known
    fitting = [(index, planned) for index, one in enumerate(known) if (planned := fit(one, needs, free)) is not None]
    if not fitting:
        raise refusal(stage, known[-1].preset, needs(known[-1].preset), free)
    first, planned = fitting[0]
    planned = spared(preset, planned, needs, free)
    log.info("%s", plan_line(stage, planned, needs(planned.preset), free))
    # What the budget let pass and the device did not is streamed whole on the next attempt.
    return [planned, *known[first if planned != known[first] else first + 1 :]]
