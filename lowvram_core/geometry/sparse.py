"""Asks a field only near its surface, and finds the same surface as if every point of the grid had been asked.

Marching cubes reads only the corners of cells that the surface crosses. The search for them has three steps.

1. Ask a coarse lattice: every edge-th point of the grid.
2. Refine: a cell is split in two along each axis if its corners differ in sign, or if a corner is near 0. Repeat down
   to cells of the grid.
3. Grow: where known corners of one cell differ in sign, ask its unknown corners. Repeat until there are none. Each part
   of the surface that was found anywhere is complete then.

"Near 0" follows from the field itself. Where logits rise slowly, the steepest slope seen so far certifies that no
surface is in the cells left out. The published VAE's logits rise from -1 to 1 within 1/64 of the cube; then nothing can
be certified, and a part of the surface that no point of the lattice sees is lost. The lattice is fine enough that Clean
Mesh would drop such a part; see docs/performance.md.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from .bricks import Bricks, crossed, pooled, spread, unravel
from .fields import BOX, LEVEL, Asking, Field, ask, axis

MIN_LATTICE = 24
"""Cells along the edge of the coarsest lattice. With fewer, whole bodies are missed."""
FINE_OCTREE = 192
"""From here on a lattice of octree/4 misses only parts that Clean Mesh drops."""
MOST_SHARE = 0.4
"""If more than this share of the points would be asked, all are."""
STEEPEST = 128.0
"""A logit may rise from 0 to the saturated value within 1 / STEEPEST, even where the points asked so far show less."""
SATURATED = 0.95
"""Share of the median logit from which a logit says only that the surface is far away."""
SEARCH_BYTES, SEARCH_MIB = 3, 32
"""Memory of the search for each point of the grid, and beside that."""
_AT_ONCE = 2**12
"""Cells or bricks that are worked on at once. It bounds the memory."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sparse:
    """The logits near a surface, and how they were found."""

    bricks: Bricks
    asked: int
    """Points that the field was asked for."""
    kind: Literal["slow", "steep"]
    """slow: every cell that was left out is certified to hold no surface."""
    missable: float
    """Radius of the largest ball that no asked point may have seen, in cells of the grid."""

    @property
    def share(self) -> float:
        """Of all points of the grid."""
        return self.asked / (self.bricks.cells + 1) ** 3


def lattice_edge(octree: int, mode: str) -> int:
    """Cells of the grid along the edge of a cell of the coarsest lattice: 4, 2, or 1 if all points are asked.

    Args:
        octree: cells along the edge of the grid.
        mode: the preset's `decode`: sparse, sparse-fine or dense.
    """
    wanted = 4 if octree >= FINE_OCTREE and mode == "sparse" else 2
    fitting = (edge for edge in (wanted, 2) if octree % edge == 0 and octree // edge >= MIN_LATTICE)
    return 1 if mode == "dense" else next(fitting, 1)


def search_bytes(octree: int) -> int:
    """Memory of the search on `gather_on` while it asks up to a quarter of the points. Ordinary shapes take a third."""
    return SEARCH_BYTES * (octree + 1) ** 3 + SEARCH_MIB * 2**20


@torch.inference_mode()
def sparse_logits(field: Field, octree: int, edge: int, how: Asking) -> Sparse:
    """The logits near the surface; see the module's text.

    Args:
        field: called with exactly `how.points_per_chunk` points.
        octree: cells along the edge of the grid.
        edge: of `lattice_edge`; 2 or 4.
        how: `progress` gets an estimate of what is done.

    Raises:
        NumericalFailure: some logits are NaN or infinite.

    Memory:
        On `how.gather_on`; see `search_bytes`.
    """
    search = _Search(field, octree, how)
    bricks = Bricks(search.lattice(edge), edge)
    if search.refine(bricks):
        search.grow(bricks)
    found = Sparse(bricks, search.asked, "steep" if search.missable else "slow", search.missable)
    log.info("shape: asked %.1f %% of %d points; %s field, slope %.3g", 100 * found.share, search.points, found.kind,
             search.slope)  # fmt: skip
    return found


class _Search:
    """Asks the field, and counts."""

    def __init__(self, field: Field, octree: int, how: Asking) -> None:
        self.octree = octree
        self.points = (octree + 1) ** 3
        self.asked = 0
        self.slope = 0.0
        """The steepest slope of the field between neighbours, per length."""
        self._field = field
        self._how = how
        self._axis = axis(octree, how.gather_on)
        self._saturated = math.inf
        """Logits from here on say only that the surface is far away."""
        self.missable = 0.0
        """As Sparse.missable."""
        self._expected = self.points
        """Estimate of the points that will have been asked."""
        self._shown = 0.0

    def lattice(self, edge: int) -> Tensor:
        """[octree / edge + 1]^3 logits of the coarsest lattice."""
        across = self.octree // edge + 1

        def points(start: int, stop: int) -> Tensor:
            return edge * unravel(torch.arange(start, stop, device=self._axis.device), across)

        self._expected = 3 * across**3
        logits = self._ask(across**3, points).view(across, across, across)
        self._saturated = SATURATED * float(logits.abs().median())
        return logits

    def refine(self, bricks: Bricks) -> bool:
        """Asks the corners of smaller and smaller cells at the surface. Returns False once all points are asked."""
        edge = bricks.edge
        self._see(bricks.lattice, edge)
        cells = edge * _to_split(bricks.lattice, self._near(edge)).nonzero()
        self._expected = self.asked + sum(8 * len(cells) * 4**level for level in range(edge.bit_length() - 1))
        while edge > 1:
            edge //= 2
            for part in cells.split(_AT_ONCE):
                bricks.want(_inside(part, edge))
            if not self._answer(bricks):
                return False
            if edge > 1:
                cells = self._split(bricks, cells, edge)
        return True

    def _split(self, bricks: Bricks, cells: Tensor, edge: int) -> Tensor:
        """[N,3] first corners of the cells of this edge that are to be split, of the cells [M,3] that were split."""
        for part in cells.split(_AT_ONCE):
            self._see(bricks.at(_inside(part, edge)).view(-1, 3, 3, 3), edge)
        near, split = self._near(edge), []
        for part in cells.split(_AT_ONCE):
            which = _to_split(bricks.at(_inside(part, edge)).view(-1, 3, 3, 3), near).nonzero()
            split.append(part[which[:, 0]] + edge * which[:, 1:])
        return torch.cat(split or [cells])

    def grow(self, bricks: Bricks) -> None:
        """Asks the unknown corners of every cell of which known corners differ in sign, until there are none."""
        fresh: Tensor | None = None
        while True:
            for part in bricks.cell_bricks(fresh).split(_AT_ONCE):
                logits = bricks.patches(part)
                unknown = logits.isnan()
                open_cells = pooled(logits > LEVEL, torch.logical_or) & pooled(logits <= LEVEL, torch.logical_or)
                which = (spread(open_cells & pooled(unknown, torch.logical_or)) & unknown).nonzero()
                bricks.want(bricks.corners(part[which[:, 0]]) + which[:, 1:])
            if not bricks.wanted():
                return
            fresh = torch.cat([bricks.bricks_at(part) for part in bricks.each_wanted()])
            if not self._answer(bricks):
                return

    def _answer(self, bricks: Bricks) -> bool:
        """Asks for all wanted points. If they are too many, asks for all of the grid and returns False."""
        few = self.asked + bricks.wanted() <= MOST_SHARE * self.points
        if not few:
            bricks.want_all()
            self._expected = self.points
            self.missable = 0.0
        for part in bricks.each_wanted():
            bricks.put(part, self._ask(len(part), partial(_points_of, bricks, part)))
        return few

    def _ask(self, count: int, points: Callable[[int, int], Tensor]) -> Tensor:
        """[count] logits of points, which are given as [N,3] int64 numbers along the axes."""
        before = self.asked
        logits = ask(
            self._field, count, lambda start, stop: self._axis[points(start, stop)], self._how,
            lambda done: self._show(before + done), padded=True,
        )  # fmt: skip
        self.asked += count
        return logits

    def _show(self, done: int) -> None:
        """Reports the share of the work that is done. It never goes back, although the estimate changes."""
        self._shown = max(self._shown, min(done / self._expected, 1.0))
        self._how.progress(round(1000 * self._shown), 1000)

    def _length(self, edge: int) -> float:
        return 2 * BOX * edge / self.octree

    def _see(self, logits: Tensor, edge: int) -> None:
        """Learns the slope from the logits [...,n,n,n] of a lattice whose cells have this edge."""
        steps = [float(logits.diff(dim=axis).abs().max()) for axis in (-3, -2, -1)] if len(logits) else [0.0]
        self.slope = max(self.slope, max(steps) / self._length(edge))

    def _near(self, edge: int) -> float:
        """A cell of this edge is split if a corner's logit is closer to 0 than this."""
        bound = self.slope * self._farthest(edge)
        if bound > self._saturated:
            steepest = max(self.slope, STEEPEST * self._saturated)
            unseen = self._farthest(edge) - self._saturated / steepest
            self.missable = max(self.missable, unseen / self._length(1))
        return min(bound, self._saturated)

    def _farthest(self, edge: int) -> float:
        """Distance of a point of a cell of this edge from the nearest corner, at most."""
        return self._length(edge) * math.sqrt(3) / 2


def _points_of(bricks: Bricks, addresses: Tensor, start: int, stop: int) -> Tensor:
    return bricks.points_at(addresses[start:stop])


def _to_split(logits: Tensor, near: float) -> Tensor:
    """[...,n,n,n] bool of the logits [...,n+1,n+1,n+1]: cells whose corners differ in sign or come near to 0."""
    return crossed(logits) | (pooled(logits.abs(), torch.minimum) < near)


def _inside(cells: Tensor, edge: int) -> Tensor:
    """[N,27,3] points at the corners of the eight parts of cells [N,3], whose parts have this edge."""
    steps = torch.cartesian_prod(*[edge * torch.arange(3, device=cells.device)] * 3)
    return cells[:, None] + steps
