"""Smooth values on a mesh between vertices whose values are given."""

from __future__ import annotations

import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from ..checks.meshes import unique_edges
from ..geometry.weld import components

_MIN_DISTANCE = 1e-4
_MOST_STEPS = 400
_CHECK_EVERY = 10
_PRECISE = 2e-3
"""The solution is good enough when its residual is this share of the first one: the first guess is near already."""


class Graph:
    """The edges of a mesh with their weights, 1/d^2 as upstream's."""

    def __init__(self, points: Tensor, faces: Tensor) -> None:
        """`points` [V,3] and `faces` [F,3], on the CPU."""
        edges = unique_edges(faces)[0]
        self.ends = edges[edges[:, 0] != edges[:, 1]]
        """[E,2] int64."""
        length = (points[self.ends[:, 0]] - points[self.ends[:, 1]]).norm(dim=1)
        self.weights = 1 / length.clamp(min=_MIN_DISTANCE).square()
        """[E] float32."""
        self.size = len(points)

    def relax(self, values: Tensor, given: Tensor, device: torch.device) -> None:
        """Changes the values [V,C] that are not given [V] to the weighted mean of their neighbours', all at once.

        They are also the first guess. Vertices that are not connected with a given one keep theirs.
        The solver is the method of conjugate gradients, preconditioned by the diagonal.
        """
        free = ~given & self._reached(given)
        if not bool(free.any()):
            return
        touched = free[self.ends].any(dim=1)
        ends, weights = self.ends[touched], self.weights[touched]
        used, local = torch.unique(ends, return_inverse=True)
        system = _System(local.to(device), weights.to(device), free[used].to(device))
        values[used] = system.solve(values[used].to(device)).cpu()

    def _reached(self, given: Tensor) -> Tensor:
        """[V] bool: connected with a given vertex."""
        part = components(self.ends, self.size)
        good = torch.zeros(int(part.max()) + 1, dtype=torch.bool)
        good[part[given]] = True
        return good[part]


class _System:
    """The equations: each free vertex is the weighted mean of its neighbours."""

    def __init__(self, ends: Tensor, weights: Tensor, free: Tensor) -> None:
        self.one, self.other = ends.unbind(dim=1)
        self.weights = weights.unsqueeze(1)
        self.free = free.unsqueeze(1)
        total = torch.zeros(len(free), 1, device=free.device)
        total.index_add_(0, self.one, self.weights).index_add_(0, self.other, self.weights)
        self.diagonal = torch.where(self.free, total, 1.0)
        self.matrix = self._matrix(total) if free.device.type == "cpu" else None
        """The same equations as a sparse matrix, which is several times as fast on the CPU."""

    def _matrix(self, total: Tensor) -> csr_matrix:
        """[V,V] what `_apply` does: the rows of free vertices; all others are empty."""
        rows, columns = torch.cat([self.one, self.other]), torch.cat([self.other, self.one])
        kept = self.free[rows, 0]
        own = self.free[:, 0].nonzero().squeeze(1)
        values = torch.cat([-self.weights.repeat(2, 1)[kept, 0], total[own, 0]])
        places = torch.cat([rows[kept], own]).numpy(), torch.cat([columns[kept], own]).numpy()
        return csr_matrix((values.numpy(), places), shape=(len(self.free), len(self.free)))

    def _apply(self, values: Tensor) -> Tensor:
        """[V,C] how far each free value is from the mean of its neighbours, times its diagonal; 0 at the others."""
        if self.matrix is not None:
            return torch.from_numpy(self.matrix @ values.numpy())
        flow = (values[self.one] - values[self.other]) * self.weights
        result = torch.zeros_like(values).index_add_(0, self.one, flow).index_add_(0, self.other, -flow)
        return result * self.free

    def solve(self, values: Tensor) -> Tensor:
        """[V,C] the values, with the free ones solved."""
        residual = -self._apply(values)
        scaled = residual / self.diagonal
        direction, power = scaled, (residual * scaled).sum(dim=0)
        enough = power * _PRECISE**2
        for step in range(_MOST_STEPS):
            if step % _CHECK_EVERY == 0 and bool((power <= enough).all()):
                break
            change = self._apply(direction)
            rate = power / (direction * change).sum(dim=0).clamp(min=1e-30)
            values = values + rate * direction
            residual = residual - rate * change
            scaled = residual / self.diagonal
            before, power = power, (residual * scaled).sum(dim=0)
            direction = scaled + power / before.clamp(min=1e-30) * direction
        return values
