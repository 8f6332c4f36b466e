"""A grid of logits of which only some are known. It takes memory only near the known ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn.functional import pad

from .fields import LEVEL

UNKNOWN = float("nan")
_ASKED = float("inf")
_NONE = -1
_GROWTH = 1.5
_ROWS = 2**15
"""Bricks that are worked on at once. It bounds the memory."""


class Bricks:
    """The known logits of a grid of (cells + 1)^3 points, in cubes of edge^3 points.

    Every edge-th point of the grid (the lattice) is known from the start. The others are unknown until `put` writes
    them. A brick is opened, and takes memory, when one of its points is wanted for the first time.

    Points are [...,3] int64, in cells of the grid, in the order of the grid's axes. Everything is on the device of the
    lattice.
    """

    def __init__(self, lattice: Tensor, edge: int) -> None:
        """Args:
        lattice: [C + 1]^3 float32 logits of the lattice.
        edge: points along the edge of a brick, a power of two. The grid has edge * C cells along each edge.
        """
        self.lattice = lattice
        self.edge = edge
        self.cells = edge * (len(lattice) - 1)
        self._across = len(lattice)
        self._along = torch.arange(edge, device=lattice.device)
        self._slots = torch.full((self._across**3,), _NONE, dtype=torch.int32, device=lattice.device)
        self._bricks = torch.empty(0, dtype=torch.int64, device=lattice.device)
        self._values = torch.empty(0, edge**3, device=lattice.device)

    @property
    def device(self) -> torch.device:
        """Where everything is."""
        return self.lattice.device

    @property
    def count(self) -> int:
        """Bricks that are open."""
        return len(self._bricks)

    @property
    def nbytes(self) -> int:
        """Memory of all of it."""
        return sum(tensor.nbytes for tensor in (self.lattice, self._slots, self._bricks, self._values))

    def want(self, points: Tensor) -> None:
        """Marks the unknown ones of these points as wanted, and opens their bricks."""
        bricks, local = self._split(points)
        self._open(bricks)
        values = self._values.view(-1)
        addresses = self._slots[bricks].long() * self.edge**3 + local
        values[addresses[values[addresses].isnan()]] = _ASKED

    def want_all(self) -> None:
        """Marks every unknown point of the grid as wanted."""
        self._open(torch.arange(self._across**3, device=self.device))
        for start in range(0, self.count, _ROWS):
            values = self._values[start : min(start + _ROWS, self.count)]
            first = self.corners(self._bricks[start : start + len(values)])
            inside = [(first[:, axis, None] + self._along) <= self.cells for axis in range(3)]
            whole = inside[0][:, :, None, None] & inside[1][:, None, :, None] & inside[2][:, None, None, :]
            values[whole.view(values.shape) & values.isnan()] = _ASKED

    def wanted(self) -> int:
        """Number of points that are marked as wanted."""
        return sum(int(part.isinf().sum()) for part in self._values[: self.count].split(_ROWS))

    def each_wanted(self) -> Iterator[Tensor]:
        """Yields the addresses [N] of the points that are marked as wanted, in parts of bounded size."""
        for start in range(0, self.count, _ROWS):
            wanted = self._values[start : min(start + _ROWS, self.count)].isinf().view(-1).nonzero()[:, 0]
            if len(wanted):
                yield start * self.edge**3 + wanted

    def points_at(self, addresses: Tensor) -> Tensor:
        """[N,3] int64 points of these addresses [N]."""
        return self.corners(self.bricks_at(addresses)) + unravel(addresses % self.edge**3, self.edge)

    def bricks_at(self, addresses: Tensor) -> Tensor:
        """[N] int64 bricks of these addresses [N]."""
        return self._bricks[addresses // self.edge**3]

    def put(self, addresses: Tensor, logits: Tensor) -> None:
        """Writes finite logits [N] to the addresses [N]."""
        self._values.view(-1)[addresses] = logits

    def at(self, points: Tensor) -> Tensor:
        """The logits [...] at points in open bricks."""
        bricks, local = self._split(points)
        return self._values.view(-1)[self._slots[bricks].long() * self.edge**3 + local]

    def extremes(self) -> tuple[float, float]:
        """The lowest and the highest known logit."""
        values = self._values[: self.count].view(-1)
        known = torch.cat([values[~values.isnan()], self.lattice.view(-1)])
        return float(known.min()), float(known.max())

    def cell_bricks(self, fresh: Tensor | None = None) -> Tensor:
        """[N] int64 bricks with cells that touch an open brick, or only those that touch one of `fresh` [M]."""
        touched = self._slots != _NONE
        if fresh is not None:
            touched = torch.zeros_like(touched)
            touched[fresh] = True
        cube = pooled(touched.view(self._across, self._across, self._across), torch.logical_or)
        return self._ravel(cube.nonzero())

    def patches(self, bricks: Tensor) -> Tensor:
        """[N, edge+1, edge+1, edge+1] float32 logits of bricks [N] up to the next lattice points; NaN if unknown."""
        edge = self.edge
        corner = unravel(bricks, self._across)
        patches = torch.empty(len(bricks), edge + 1, edge + 1, edge + 1, device=self.device)
        for step in torch.cartesian_prod(*[torch.arange(2, device=self.device)] * 3):
            near = self._ravel(corner + step)
            slots = self._slots[near].long()
            values = self._values[slots.clamp(min=0)].view(-1, edge, edge, edge)
            values = torch.where((slots == _NONE)[:, None, None, None], UNKNOWN, values)
            values[:, 0, 0, 0] = self.lattice.view(-1)[near]
            here, there = zip(*(_halves(int(one), edge) for one in step), strict=True)
            patches[(slice(None), *there)] = values[(slice(None), *here)]
        return patches

    def corners(self, bricks: Tensor) -> Tensor:
        """[N,3] int64 first points of bricks [N]."""
        return unravel(bricks, self._across) * self.edge

    def planes(self, first: int, last: int) -> Tensor:
        """[last - first + 1, cells + 1, cells + 1] float32 logits on the CPU, NaN where unknown.

        Args:
            first: along the first axis of the grid, a multiple of `edge`.
            last: one more plane than a multiple of `edge` at the most: the first of the next bricks.
        """
        edge, across = self.edge, self._across
        rows = slice(first // edge, last // edge + 1)
        slots = self._slots.view(across, across, across)[rows]
        opened = (slots != _NONE).nonzero()
        values = self._values[slots[tuple(opened.T)].long()].view(-1, edge, edge, edge)
        volume = torch.full((len(slots), edge, across, edge, across, edge), UNKNOWN)
        row, line, column = opened.cpu().T
        volume[row, :, line, :, column, :] = values.cpu()
        whole = volume.view(len(slots) * edge, across * edge, across * edge)
        return whole[: last - first + 1, : self.cells + 1, : self.cells + 1]

    def _split(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """The bricks of the points, and the places of the points in them."""
        shift = self.edge.bit_length() - 1
        within = points & (self.edge - 1)
        local = (within[..., 0] * self.edge + within[..., 1]) * self.edge + within[..., 2]
        return self._ravel(points >> shift), local

    def _open(self, bricks: Tensor) -> None:
        slots = self._slots
        missing = bricks[slots[bricks] == _NONE]
        slots[missing] = _NONE - 1
        fresh = (slots == _NONE - 1).nonzero()[:, 0]
        if not len(fresh):
            return
        slots[fresh] = torch.arange(self.count, self.count + len(fresh), dtype=torch.int32, device=self.device)
        before, self._bricks = self.count, torch.cat([self._bricks, fresh])
        if self.count > len(self._values):
            room = min(self._across**3, int(_GROWTH * self.count))
            values = torch.full((room, self.edge**3), UNKNOWN, device=self.device)
            values[:before] = self._values[:before]
            self._values = values
        self._values[before : self.count, 0] = self.lattice.view(-1)[fresh]

    def _ravel(self, corner: Tensor) -> Tensor:
        return (corner[..., 0] * self._across + corner[..., 1]) * self._across + corner[..., 2]


def unravel(index: Tensor, across: int) -> Tensor:
    """[...,3] int64 places in a cube of across^3 of their numbers [...]; the last axis changes fastest."""
    return torch.stack([index // across**2, index // across % across, index % across], dim=-1)


def _halves(step: int, edge: int) -> tuple[slice, slice]:
    """Along one axis: what a brick gives to a patch, and its place there; for the brick itself and the next one."""
    return (slice(0, 1), slice(edge, edge + 1)) if step else (slice(0, edge), slice(0, edge))


def pooled(values: Tensor, combine: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """[..., n, n, n] of [..., n+1, n+1, n+1]: combines the values at the eight corners of every cell."""
    for axis in (-3, -2, -1):
        cells = values.shape[axis] - 1
        values = combine(values.narrow(axis, 0, cells), values.narrow(axis, 1, cells))
    return values


def crossed(logits: Tensor) -> Tensor:
    """[..., n, n, n] bool of logits [..., n+1, n+1, n+1]: cells whose corners are all known and differ in sign."""
    return (pooled(logits, torch.minimum) <= LEVEL) & (pooled(logits, torch.maximum) > LEVEL)  # NaN makes both NaN


def spread(cells: Tensor) -> Tensor:
    """[..., n+1, n+1, n+1] bool of [..., n, n, n] bool: whether a point is a corner of one of the cells."""
    for before in ((0, 0, 0, 0, 0, 1), (0, 0, 0, 1), (0, 1)):
        after = tuple(reversed(before[-2:]))
        cells = pad(cells, before) | pad(cells, (*before[:-2], *after))
    return cells
