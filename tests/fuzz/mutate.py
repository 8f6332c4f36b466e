"""Damages files and values at random."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Iterator
from typing import Any

JUNK: tuple[Any, ...] = (
    None, True, -1, 0, 1, 3, 2**31, 2**40, -(2**63), 0.5, -0.0, 1e308, math.nan, math.inf, "", "x", "../../x", "0",
    "TRIANGLES", "기와", [], [0], [[]], {}, {"x": 1}, "a" * 3000,
)  # fmt: skip


def damaged_bytes(rng: random.Random, content: bytes) -> bytes:
    """The content with a few bytes changed, cut off, repeated or inserted."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5))):
        if not data:
            break
        at, size = rng.randrange(len(data)), rng.choice((1, 2, 4, 8, 64, 1000))
        kind = rng.choice(("flip", "set", "cut", "drop", "repeat", "insert", "head"))
        if kind == "flip":
            data[at] ^= 1 << rng.randrange(8)
        elif kind == "set":
            data[at : at + 4] = rng.choice((b"\xff" * 4, b"\0" * 4, b"\0\0\0\x80", rng.randbytes(4)))
        elif kind == "cut":
            del data[at:]
        elif kind == "drop":
            del data[at : at + size]
        elif kind == "repeat":
            data[at:at] = data[at : at + size] * rng.choice((1, 2, 10))
        elif kind == "insert":
            data[at:at] = rng.randbytes(size)
        else:
            data[: min(size, 64)] = rng.randbytes(min(size, 64))
    return bytes(data)


def damaged_text(rng: random.Random, text: str) -> str:
    """The text with a few words changed, and lines dropped, repeated or moved."""
    lines = text.splitlines()
    for _ in range(rng.choice((1, 1, 2, 6))):
        if not lines:
            break
        at = rng.randrange(len(lines))
        kind = rng.choice(("word", "word", "word", "drop", "repeat", "move", "cut"))
        if kind == "word":
            words = lines[at].split(" ")
            words[rng.randrange(len(words))] = str(rng.choice(JUNK))
            lines[at] = " ".join(words)
        elif kind == "drop":
            del lines[at]
        elif kind == "repeat":
            lines[at:at] = [lines[at]] * rng.choice((1, 2, 50))
        elif kind == "move":
            lines.insert(rng.randrange(len(lines)), lines.pop(at))
        else:
            del lines[at:]
    return "\n".join(lines)


def damaged_values(rng: random.Random, values: Any) -> Any:
    """Nested lists and dicts with a few entries replaced by junk, or left out."""
    values = copy.deepcopy(values)
    for _ in range(rng.choice((1, 1, 2, 4))):
        places = list(_places(values))
        if not places:
            break
        parent, key = rng.choice(places)
        if rng.random() < 0.2:
            del parent[key]
        else:
            parent[key] = copy.deepcopy(rng.choice(JUNK))
    return values


def _places(values: Any) -> Iterator[tuple[Any, Any]]:
    entries = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in entries:
        yield values, key
        yield from _places(value)
