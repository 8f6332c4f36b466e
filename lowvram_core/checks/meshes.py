"""Checks that a stage can use a mesh, before it starts to work."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import BadInput
from ..types import Mesh

SMALLEST, LARGEST = 1e-17, 1e18
"""Limits of a mesh's size: the squares of both are normal float32 numbers, so lengths can be computed."""


def check_mesh(mesh: Mesh, stage: str, *, needs_uvs: bool = False, tiles: bool = False, manifold: bool = False) -> None:
    """Raises BadInput if a stage cannot use the mesh.

    Args:
        stage: the message begins with this name.
        needs_uvs: every vertex must have a finite UV in 0..1.
        tiles: UVs may also lie outside, where the texture repeats.
        manifold: no edge may have more than two faces.
    """
    _check_shapes(mesh, stage)
    _check_values(mesh, stage)
    if needs_uvs:
        _check_uvs(mesh, stage, tiles=tiles)
    if manifold:
        count = int((edge_face_counts(mesh.faces)[0] > 2).sum())
        _refuse(
            count > 0, stage, f"{count} edges are shared by more than two faces", "a manifold mesh", "Run Clean first"
        )


def edge_face_counts(faces: Tensor) -> tuple[Tensor, Tensor]:
    """[E] how many faces share each undirected edge, [3F] the edge of each half-edge.

    Half-edge 3 f + k runs from corner k of face f to the face's next corner.
    """
    _, half_edge, counts = unique_edges(faces)
    return counts, half_edge


def unique_edges(faces: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """[E,2] int64 the undirected edges of faces [F,3], in order; [3F] and [E] as `edge_face_counts` returns them."""
    faces = faces.long()  # the keys below are as large as the square of an index
    ends = torch.stack([faces, faces.roll(-1, dims=1)], dim=-1).reshape(-1, 2)
    low, high = ends.min(dim=1).values, ends.max(dim=1).values
    stride = int(faces.max()) + 1 if faces.numel() else 1
    keys, half_edge, counts = torch.unique(low * stride + high, return_inverse=True, return_counts=True)
    return torch.stack([keys // stride, keys % stride], dim=1), half_edge, counts


def _check_shapes(mesh: Mesh, stage: str) -> None:
    vertices, faces = mesh.vertices, mesh.faces
    _refuse(
        vertices.dim() != 2 or vertices.shape[-1] != 3 or not vertices.is_floating_point(), stage,
        f"vertices are {tuple(vertices.shape)} of {vertices.dtype}", "[V,3] floating point", "Convert the mesh",
    )  # fmt: skip
    _refuse(
        faces.dim() != 2 or faces.shape[-1] != 3 or faces.is_floating_point() or faces.dtype == torch.bool, stage,
        f"faces are {tuple(faces.shape)} of {faces.dtype}", "[F,3] whole numbers", "Triangulate the mesh",
    )  # fmt: skip
    _refuse(
        len(faces) == 0 or len(vertices) == 0, stage, "the mesh is empty", "at least one face",
        "Check the stage that made it",
    )  # fmt: skip


def _check_values(mesh: Mesh, stage: str) -> None:
    vertices, faces = mesh.vertices.detach(), mesh.faces
    low, high = int(faces.min()), int(faces.max())
    _refuse(
        low < 0 or high >= len(vertices), stage, f"faces point at vertices {low} to {high} of {len(vertices)}",
        f"0 to {len(vertices) - 1}", "The file is damaged: export it again",
    )  # fmt: skip
    bad = int((~torch.isfinite(vertices)).any(dim=1).sum())
    _refuse(
        bad > 0, stage, f"{bad} vertices are NaN or infinite", "finite positions", "Check the stage that made the mesh"
    )
    normals = mesh.normals
    _refuse(
        normals is not None and (normals.shape != vertices.shape or not bool(torch.isfinite(normals.detach()).all())),
        stage, "the normals are not finite, or not one for each vertex", "[V,3] finite vectors",
        "Remove them: smooth ones are made",
    )  # fmt: skip
    colors = mesh.colors
    _refuse(
        colors is not None and (colors.shape != vertices.shape or not bool(torch.isfinite(colors.detach()).all())),
        stage, "the colours are not finite, or not one for each vertex", "[V,3] finite sRGB colours", "Remove them",
    )  # fmt: skip
    extent = float((vertices.amax(dim=0) - vertices.amin(dim=0)).max())
    _refuse(
        not SMALLEST < extent < LARGEST, stage, f"the mesh is {extent:g} across",
        f"a size of {SMALLEST:g} to {LARGEST:g}, whose square float32 can hold", "Scale the mesh",
    )  # fmt: skip


def _check_uvs(mesh: Mesh, stage: str, *, tiles: bool) -> None:
    uvs = mesh.uvs
    if uvs is None:
        raise BadInput(f"{stage}: the mesh has no UVs; UVs are wanted. Run Unwrap first.")
    wanted = (len(mesh.vertices), 2)
    _refuse(
        tuple(uvs.shape) != wanted, stage, f"UVs are {tuple(uvs.shape)}", f"{wanted}, one a vertex", "Run Unwrap again"
    )
    _refuse(not bool(torch.isfinite(uvs).all()), stage, "some UVs are NaN or infinite", "finite UVs", "Unwrap again")
    low, high = float(uvs.min()), float(uvs.max())
    _refuse(
        not tiles and (low < -1e-4 or high > 1.0001), stage, f"UVs run from {low:g} to {high:g}",
        "0 to 1, without tiling", "Run Unwrap again without keeping the UVs",
    )  # fmt: skip


def _refuse(condition: bool, stage: str, met: str, wanted: str, advice: str) -> None:
    if condition:
        raise BadInput(f"{stage}: {met}; wanted {wanted}. {advice}.")
