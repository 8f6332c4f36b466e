"""Rewrites an OBJ and its materials so that trimesh reads them right.

trimesh 5.2 counts negative numbers from the end of the wrong object, cuts hollow polygons across their outside, invents
a texture for UVs without a material, and finds no picture behind options or in folders with backslashes. Here all
numbers are positive, all faces are triangles, the parts of one material are one part, and pictures have plain names.
What cannot be kept is named in notes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..errors import BadInput

MATERIALS = "materials.mtl"
"""The name of the rewritten material file. There is no such file: the reader gets its content."""
NO_MATERIAL = "no_material"
"""The material of faces without one. trimesh would invent one."""

_OPTIONS = {"-blendu": (1, 1), "-blendv": (1, 1), "-boost": (1, 1), "-mm": (2, 2), "-o": (1, 3), "-s": (1, 3),
            "-t": (1, 3), "-texres": (1, 1), "-clamp": (1, 1), "-bm": (1, 1), "-imfchan": (1, 1),
            "-type": (1, 1)}  # fmt: skip
"""The options of a texture in an MTL, each with the smallest and the largest number of its values."""
_Corner = tuple[int, int, int]


@dataclass
class PlainObj:
    """An OBJ that trimesh reads right."""

    content: bytes
    files: dict[str, bytes] = field(default_factory=dict)
    """The files that it names, by name."""
    notes: list[str] = field(default_factory=list)


def plain_obj(content: bytes, name: str, get: Callable[[str], bytes]) -> PlainObj:
    """Rewrites an OBJ.

    Args:
        name: of the file, for messages.
        get: returns the content of a file beside the OBJ; raises FileNotFoundError, or BadInput for a picture over the
            limits.

    Raises:
        BadInput: a face names vertices that are not there, or a picture is over the limits.
    """
    reader = _Reader(name)
    text = content.decode("utf-8", errors="replace").replace("\\\r\n", " ").replace("\\\n", " ")
    try:
        for line in text.splitlines():
            reader.line(line.strip())
    except (ValueError, IndexError) as error:
        raise BadInput(f"load: {name} cannot be read ({error}); wanted an OBJ. Export it again.") from error
    plain = PlainObj(b"")
    materials = _Materials(name, get, plain)
    for library in reader.libraries:
        materials.read(library)
    lacking = sorted(reader.materials - materials.names)
    if lacking and not plain.notes:
        plain.notes.append(
            f"load: {name} names the material {', '.join(lacking[:3])}, which is not there; its colours were left out."
        )
    materials.lines += [f"newmtl {_plain_name(material)}" for material in (*lacking, NO_MATERIAL)]
    plain.files[MATERIALS] = "\n".join(materials.lines).encode()
    # trimesh reads either colours of vertices or materials, and UVs only with a material.
    colours_only = reader.colours and not reader.materials
    head = [] if colours_only else [f"mtllib {MATERIALS}", f"usemtl {NO_MATERIAL}"]
    body = [line for line in reader.lines if not line.startswith("vt ")] if colours_only else reader.lines
    plain.content = "\n".join([*head, *body, ""]).encode()
    return plain


class _Reader:
    def __init__(self, name: str) -> None:
        self.lines: list[str] = []
        self.libraries: list[str] = []
        self.materials: set[str] = set()
        self.colours = False
        """Whether vertices have colours."""
        self._name = name
        self._points: list[tuple[float, float, float]] = []
        self._counts = {"v": 0, "vt": 0, "vn": 0}

    def line(self, line: str) -> None:
        """Takes one line of the file."""
        kind, _, rest = line.partition(" ")
        if kind == "v":
            x, y, z, *more = (float(value) for value in rest.partition("#")[0].split())
            self._points.append((x, y, z))
            self.colours |= len(more) >= 3
        if kind in self._counts:
            self._counts[kind] += 1
            self.lines.append(line)
        elif kind == "f":
            corners = [self._corner(corner) for corner in rest.partition("#")[0].split()]
            self.lines += [_face(triangle) for triangle in self._triangles(corners)]
        elif kind == "usemtl":
            self.materials.add(rest.strip())
            self.lines.append(f"usemtl {_plain_name(rest.strip())}")
        elif kind == "mtllib":
            self.libraries.append(rest.strip())

    def _corner(self, text: str) -> _Corner:
        """The numbers of a corner's vertex, UV and normal, from 1; 0 where it has none."""
        numbers = [self._number(part, kind) for part, kind in zip(text.split("/"), self._counts, strict=False)]
        vertex, uv, normal = (*numbers, 0, 0)[:3]
        return vertex, uv, normal

    def _number(self, text: str, kind: str) -> int:
        if not text:
            return 0
        number = int(text)
        found = number + self._counts[kind] + 1 if number < 0 else number
        if not 1 <= found <= self._counts[kind]:
            raise ValueError(f"a face names the {kind} {number} of {self._counts[kind]}")
        return found

    def _triangles(self, corners: Sequence[_Corner]) -> list[tuple[_Corner, ...]]:
        if len(corners) <= 3:
            return [tuple(corners)] if len(corners) == 3 else []
        points = np.array([self._points[vertex - 1] for vertex, _, _ in corners])
        return [(corners[a], corners[b], corners[c]) for a, b, c in triangulated(points)]


def triangulated(points: np.ndarray) -> list[tuple[int, int, int]]:
    """Cuts a polygon [N,3], which may be hollow, into N - 2 triangles: numbers of its corners, in its direction.

    Cuts off one corner after the other, if the triangle points outwards and holds no other corner.
    """
    flat = _flattened(points)
    rest = list(range(len(flat)))
    triangles = []
    while len(rest) > 3:
        ear = next((place for place in range(len(rest)) if _is_ear(flat, rest, place)), 1)  # 1: of a broken polygon
        triangles.append((rest[ear - 1], rest[ear], rest[(ear + 1) % len(rest)]))
        del rest[ear]
    return [*triangles, (rest[0], rest[1], rest[2])]


def _flattened(points: np.ndarray) -> np.ndarray:
    """[N,2] the polygon in the plane in which it is largest, counter-clockwise."""
    after = np.roll(points, -1, axis=0)
    normal = np.cross(points - points[0], after - points[0]).sum(axis=0)
    axis = int(np.abs(normal).argmax())
    plane = [(1, 2), (2, 0), (0, 1)][axis]
    flat = points[:, plane]
    return flat if normal[axis] >= 0 else flat[:, ::-1]


def _is_ear(flat: np.ndarray, rest: Sequence[int], place: int) -> bool:
    names = rest[place - 1], rest[place], rest[(place + 1) % len(rest)]
    a, b, c = flat[list(names)]
    if _turn(a, b, c) <= 0:
        return False
    others = flat[[corner for corner in rest if corner not in names]]
    inside = (_turn(a, b, others) >= 0) & (_turn(b, c, others) >= 0) & (_turn(c, a, others) >= 0)
    return not bool(inside.any())


def _turn(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Positive where the way from a over b to c turns to the left."""
    return (b[0] - a[0]) * (c[..., 1] - a[1]) - (b[1] - a[1]) * (c[..., 0] - a[0])


def _face(corners: Sequence[_Corner]) -> str:
    return "f " + " ".join(_written(*corner) for corner in corners)


def _written(vertex: int, uv: int, normal: int) -> str:
    if normal:
        return f"{vertex}/{uv or ''}/{normal}"
    return f"{vertex}/{uv}" if uv else str(vertex)


def _plain_name(name: str) -> str:
    """Readers end a name at a space."""
    return "_".join(name.split()) or "unnamed"


class _Materials:
    def __init__(self, name: str, get: Callable[[str], bytes], plain: PlainObj) -> None:
        self.lines: list[str] = []
        self.names: set[str] = set()
        self._name = name
        self._get = get
        self._plain = plain

    def read(self, library: str) -> None:
        """Reads a material file. The name may hold spaces, or be several names."""
        for names in ([library], library.split()):
            try:
                contents = [self._get(name) for name in names]
            except FileNotFoundError:
                continue
            for content in contents:
                for line in content.decode("utf-8", errors="replace").splitlines():
                    self._line(line.strip())
            return
        self._note(f"names the material file {library}, which is not beside it; its colours were left out")

    def _line(self, line: str) -> None:
        kind, _, rest = line.replace("\t", " ").partition(" ")
        rest = rest.strip()
        if kind == "newmtl":
            self.names.add(rest)
            self.lines.append(f"newmtl {_plain_name(rest)}")
        elif kind == "Kd":
            self.lines.append(f"Kd {rest}")
        elif kind.lower() == "map_kd":
            self._picture(rest)

    def _picture(self, text: str) -> None:
        name, options = _file_of(text)
        if any(option in ("-o", "-s", "-t") for option in options):
            self._note(f"moves or scales the texture {name} in its material, which was left out")
        try:
            content = self._get(name)
        except FileNotFoundError:
            self._note(f"names the texture {name}, which is not in its folder; its colours were left out")
            return
        plain = f"texture_{len(self._plain.files)}"
        self._plain.files[plain] = content
        self.lines.append(f"map_Kd {plain}")

    def _note(self, text: str) -> None:
        self._plain.notes.append(f"load: {self._name} {text}.")


def _file_of(text: str) -> tuple[str, list[str]]:
    """The file that a texture's line names, and the options before it."""
    options = []
    words = text.partition(" #")[0].strip()
    while words.split(" ", 1)[0] in _OPTIONS:
        option, _, words = words.partition(" ")
        least, most = _OPTIONS[option]
        taken = 0
        while taken < most and words and (taken < least or _is_number(words.split(" ", 1)[0])):
            words = words.partition(" ")[2].strip()
            taken += 1
        options.append(option)
    return words.strip().strip("\"'"), options


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
