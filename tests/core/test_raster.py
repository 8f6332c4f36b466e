"""The rasteriser against a reference that loops over faces, and at its edges."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from meshes import torus
from torch import Tensor

from lowvram_core.render import rasterize as module
from lowvram_core.render.cameras import project, to_rig
from lowvram_core.render.rasterize import Raster, interpolate, rasterize
from lowvram_core.types import Camera


def reference(clip: Tensor, faces: Tensor, size: int) -> tuple[np.ndarray, np.ndarray]:
    """[S,S], [S,S,3]: every pixel against every face, one face at a time, in float32."""
    points = clip.numpy().astype(np.float32)
    w = points[:, 3:]
    half, one = np.float32(0.5), np.float32(size - 1)
    screen = (points[:, :2] / w * half + half) * one + half
    depth = points[:, 2] / w[:, 0] * np.float32(0.49999) + half
    x, y = np.meshgrid(np.arange(size, dtype=np.float32) + half, np.arange(size, dtype=np.float32) + half)
    best = np.full((size, size), np.iinfo(np.int64).max)
    ids, weights = np.zeros((size, size), np.int32), np.zeros((size, size, 3), np.float32)
    for number, face in enumerate(faces.numpy()):
        a, b, c = screen[face]
        area = (c[0] - a[0]) * (b[1] - a[1]) - (b[0] - a[0]) * (c[1] - a[1])
        if area == 0:
            continue
        inverse = np.float32(1) / area
        beta = ((c[0] - a[0]) * (y - a[1]) - (x - a[0]) * (c[1] - a[1])) * inverse
        gamma = ((x - a[0]) * (b[1] - a[1]) - (b[0] - a[0]) * (y - a[1])) * inverse
        alpha = (1.0 - beta.astype(np.float64) - gamma).astype(np.float32)
        bary = np.stack([alpha, beta, gamma], axis=-1)
        z = alpha * depth[face[0]] + beta * depth[face[1]] + gamma * depth[face[2]]
        key = (z * np.float32(1 << 18)).astype(np.int64)
        won = ((bary >= 0) & (bary <= 1)).all(axis=-1) & (z >= 0) & (key < best)
        corrected = bary / w[face, 0]
        corrected = corrected / corrected.sum(axis=-1, keepdims=True)
        best[won], ids[won], weights[won] = key[won], number + 1, corrected[won]
    return ids, weights


TRIANGLE = [[-0.93, -0.91, 0.3, 1], [0.87, -0.89, 0.3, 1], [0.03, 0.95, 0.3, 1]]
"""No pixel's centre lies on an edge, where rounding decides."""


def soup(seed: int, w: float = 1.0) -> tuple[Tensor, Tensor]:
    """[60,4], [50,3]: triangles of all sizes, some off the picture, some behind it."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(60, 3, generator=generator) * torch.tensor([0.7, 0.7, 0.6])
    depth = torch.ones(60, 1) if w == 1.0 else 0.5 + torch.rand(60, 1, generator=generator) * w
    return torch.cat([points * depth, depth], dim=1), torch.randint(0, 60, (50, 3), generator=generator)


@pytest.mark.parametrize("size", [1, 7, 64])
@pytest.mark.parametrize("w", [1.0, 2.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_agrees_with_reference_on_soup(seed: int, w: float, size: int) -> None:
    clip, faces = soup(seed, w)
    ids, weights = reference(clip, faces, size)
    raster = rasterize(clip, faces, size)
    assert raster.face_ids.dtype == torch.int32
    assert np.array_equal(raster.face_ids.numpy(), ids)
    assert np.abs(raster.barycentric.numpy() - weights).max() <= 1e-6


def test_agrees_with_reference_on_mesh() -> None:
    mesh = torus(24, 12, 0.2)
    clip = project(to_rig(mesh.vertices), Camera(30, 20))[1]
    ids, weights = reference(clip, mesh.faces, 96)
    raster = rasterize(clip, mesh.faces, 96)
    assert np.array_equal(raster.face_ids.numpy(), ids)
    assert np.abs(raster.barycentric.numpy() - weights).max() <= 1e-6


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    clip, faces = soup(3)
    whole = rasterize(clip, faces, 64)
    monkeypatch.setattr(module, "_ROWS_PER_CHUNK", 10)
    monkeypatch.setattr(module, "PIXELS_PER_CHUNK", 33)
    pieces = rasterize(clip, faces, 64)
    assert torch.equal(pieces.face_ids, whole.face_ids)
    assert torch.equal(pieces.barycentric, whole.barycentric)
    values = torch.rand(60, 2)
    assert torch.equal(interpolate(values, pieces, faces), _whole_interpolate(values, whole, faces))


def _whole_interpolate(values: Tensor, raster: Raster, faces: Tensor) -> Tensor:
    corners = values[faces[(raster.face_ids.long() - 1).clamp(min=0)]]
    terms = corners * raster.barycentric.unsqueeze(-1)
    return terms[..., 0, :] + terms[..., 1, :] + terms[..., 2, :]


def test_square_fills_the_picture_without_gaps() -> None:
    clip = torch.tensor([[-1, -1, 0, 1], [1, -1, 0, 1], [1, 1, 0, 1], [-1, 1, 0, 1]], dtype=torch.float32)
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    raster = rasterize(clip, faces, 33)
    assert int((raster.face_ids == 0).sum()) == 0
    column = interpolate(clip[:, :1], raster, faces)[..., 0]
    assert torch.allclose(column, torch.linspace(-1, 1, 33).expand(33, 33), atol=1e-5)
    # The diagonal belongs to both: the lower number has it.
    assert bool((raster.face_ids.diagonal() == 1).all())


def test_row_zero_is_the_bottom_of_clip_space() -> None:
    clip = torch.tensor([[-1, -1, 0, 1], [1, -1, 0, 1], [0, -0.5, 0, 1]], dtype=torch.float32)
    rows = rasterize(clip, torch.tensor([[0, 1, 2]]), 16).face_ids.nonzero()[:, 0]
    assert int(rows.min()) == 0 and int(rows.max()) <= 4


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_nearer_face_wins_whatever_the_order_and_side(order: tuple[int, int]) -> None:
    far = torch.tensor(TRIANGLE)
    near = far * torch.tensor([1, 1, -1, 1])
    faces = torch.tensor([[0, 1, 2], [5, 4, 3]])[list(order)]
    ids = rasterize(torch.cat([far, near]), faces, 16).face_ids
    assert set(ids.unique().tolist()) == {0, order.index(1) + 1}


def test_equal_depth_goes_to_the_lower_face() -> None:
    clip = torch.tensor(TRIANGLE)
    ids = rasterize(clip, torch.tensor([[0, 1, 2], [2, 1, 0], [1, 2, 0]]), 16).face_ids
    assert set(ids.unique().tolist()) == {0, 1}


@pytest.mark.parametrize(
    "clip",
    [
        [[0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 1]],
        [[-1, 0, 0, 1], [0, 0, 0, 1], [1, 0, 0, 1]],
        [[3, 3, 0, 1], [4, 3, 0, 1], [3, 4, 0, 1]],
        [[-1, -1, -2, 1], [1, -1, -2, 1], [0, 1, -2, 1]],
    ],
    ids=["point", "line", "off the picture", "before the near plane"],
)
def test_what_cannot_be_seen_leaves_background(clip: list[list[float]]) -> None:
    raster = rasterize(torch.tensor(clip, dtype=torch.float32), torch.tensor([[0, 1, 2]]), 16)
    assert not raster.face_ids.any() and not raster.barycentric.any()


def test_no_faces_leave_background() -> None:
    raster = rasterize(torch.zeros(0, 4), torch.zeros(0, 3, dtype=torch.int64), 8)
    assert not raster.face_ids.any()
    assert interpolate(torch.zeros(0, 3), raster, torch.zeros(0, 3, dtype=torch.int64)).shape == (8, 8, 3)
