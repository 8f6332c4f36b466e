"""A preset that knows which of its values were read."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from lowvram_core.presets import VALUES, Preset


class Watched(Preset):
    """Checking and copying read every value; they do not count. Copies note what is read in the same set."""

    read: set[str]

    def __getattribute__(self, name: str) -> Any:
        if name in VALUES:
            object.__getattribute__(self, "read").add(name)
        return object.__getattribute__(self, name)

    def with_(self, **changes: Any) -> Preset:
        """See Preset."""
        copy = watch(plain(self).with_(**changes))
        object.__setattr__(copy, "read", self.read)
        return copy


def plain(preset: Preset) -> Preset:
    """An equal preset that watches nothing."""
    return Preset(**{field.name: object.__getattribute__(preset, field.name) for field in fields(Preset)})


def watch(preset: Preset) -> Watched:
    """An equal preset; its `read` holds the names of the values that were read."""
    made = object.__new__(Watched)
    object.__setattr__(made, "read", set())
    for field in fields(Preset):
        object.__setattr__(made, field.name, object.__getattribute__(preset, field.name))
    return made
