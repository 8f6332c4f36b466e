"""ICC profiles for tests, written from their numbers, and the colours that they stand for."""

from __future__ import annotations

import struct

import numpy as np

D50 = (0.9642, 1.0, 0.8249)
PRIMARIES = {
    "sRGB": ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410)),
    "Display P3": ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407)),
    "Adobe RGB": ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)),
}
"""XYZ of red, green and blue, adapted to D50, as the published profiles hold them."""
SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
"""gamma, a, b, c, d of a curve of type 3."""
GAMMA = 563 / 256
"""Of Adobe RGB."""


def rgb_profile(name: str) -> bytes:
    """A profile of three primaries and one curve."""
    xyz = {
        tag: b"XYZ \0\0\0\0" + _fixed(*value)
        for tag, value in zip(("wtpt", "rXYZ", "gXYZ", "bXYZ"), (D50, *PRIMARIES[name]), strict=True)
    }
    parameters = (GAMMA,) if name == "Adobe RGB" else SRGB_CURVE
    curve = b"para\0\0\0\0" + struct.pack(">HH", 0 if len(parameters) == 1 else 3, 0) + _fixed(*parameters)
    return _profile("mntr", "RGB ", "XYZ ", {**xyz, "rTRC": curve, "gTRC": curve, "bTRC": curve})


def grey_profile(gamma: float) -> bytes:
    """A profile of grey."""
    curve = b"para\0\0\0\0" + struct.pack(">HH", 0, 0) + _fixed(gamma)
    return _profile("mntr", "GRAY", "XYZ ", {"wtpt": b"XYZ \0\0\0\0" + _fixed(*D50), "kTRC": curve})


def cmyk_profile() -> bytes:
    """A profile of inks that mix as `cmyk_lab` says."""
    identity = bytes(range(256))
    nodes = np.array(np.meshgrid(*[(0, 1)] * 4, indexing="ij")).reshape(4, -1).T
    lab = np.array([cmyk_lab(*node) for node in nodes])
    grid = np.stack([lab[:, 0] * 2.55, lab[:, 1] + 128, lab[:, 2] + 128], 1).round().astype(np.uint8).tobytes()
    table = struct.pack(">4sIBBBB", b"mft1", 0, 4, 3, 2, 0) + _fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    return _profile("prtr", "CMYK", "Lab ", {"A2B0": table + identity * 4 + grid + identity * 3})


def cmyk_lab(c: float, m: float, y: float, k: float) -> tuple[float, float, float]:
    """Lab of solid inks: pale ones, as on newsprint."""
    paper = 1 - k
    return 100 - 80 * k - paper * (20 * c + 25 * m + 5 * y), paper * (20 * m - 15 * c), paper * (30 * y - 20 * c)


def srgb_of(name: str, colour: tuple[int, int, int]) -> np.ndarray:
    """[3] 8-bit sRGB of an 8-bit colour of that profile."""
    values = np.array(colour) / 255
    if name == "Adobe RGB":
        linear = values**GAMMA
    else:
        linear = np.where(values < 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return encoded(np.array(PRIMARIES[name]).T @ linear)


def encoded(xyz: np.ndarray) -> np.ndarray:
    """[3] 8-bit sRGB of XYZ adapted to D50."""
    linear = np.clip(np.linalg.solve(np.array(PRIMARIES["sRGB"]).T, xyz), 0, 1)
    return 255 * np.where(linear < 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


def xyz_of_lab(lightness: float, a: float, b: float) -> np.ndarray:
    """[3] XYZ with the white D50."""
    y = (lightness + 16) / 116
    f = np.array([y + a / 500, y, y - b / 200])
    return np.array(D50) * np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29))


def _fixed(*values: float) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))


def _profile(kind: str, space: str, connection: str, tags: dict[str, bytes]) -> bytes:
    body, table, start = b"", struct.pack(">I", len(tags)), 132 + 12 * len(tags)
    for tag, data in tags.items():
        data += b"\0" * (-len(data) % 4)
        table += struct.pack(">4sII", tag.encode(), start + len(body), len(data))
        body += data
    head = struct.pack(">I4sI4s4s4s", start + len(body), b"\0" * 4, 0x04200000 if kind == "mntr" else 0x02400000,
                       kind.encode(), space.encode(), connection.encode())  # fmt: skip
    head += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + b"\0" * 28 + _fixed(*D50)
    return head.ljust(128, b"\0") + table + body
