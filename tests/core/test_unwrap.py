"""UVs: charts that do not overlap, on the mesh that went in."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hosts import RecordingHost
from meshes import blob, cube, fin, small_preset, torus

from lowvram_core.checks.meshes import check_mesh
from lowvram_core.errors import BadInput, Cancelled, MissingDependency
from lowvram_core.geometry.unwrappers import _arrays
from lowvram_core.geometry.weld import mean_normals, smooth_normals, weld
from lowvram_core.render.atlas import rasterize_atlas
from lowvram_core.stages.unwrap import unwrap
from lowvram_core.types import Mesh

BOTH = pytest.mark.parametrize("unwrapper", ["xatlas", "uvunwrap"])


@BOTH
@pytest.mark.parametrize("shape", ["torus", "cube"])
def test_mesh_is_the_same_with_uvs(unwrapper: str, shape: str) -> None:
    mesh = {"torus": torus(), "cube": cube()}[shape]
    host = RecordingHost()
    result = unwrap(mesh, small_preset(unwrapper=unwrapper), host)
    check_mesh(result, "test", needs_uvs=True, manifold=True)
    assert torch.equal(result.vertices[result.faces], mesh.vertices[mesh.faces])
    assert len(result.vertices) > len(mesh.vertices)
    assert len(weld(result.vertices)[0]) == len(mesh.vertices)
    assert host.finished == ["unwrap"] and host.reports[-1] == ("unwrap", 100, 100)


@BOTH
def test_charts_do_not_overlap(unwrapper: str) -> None:
    """The areas of the faces in the atlas add up to the area that they cover together."""
    result = unwrap(torus(), small_preset(unwrapper=unwrapper), RecordingHost())
    assert result.uvs is not None
    a, b, c = result.uvs[result.faces].unbind(dim=1)
    total = ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]).abs().sum() / 2
    covered = _covered(result)
    assert 0.2 < covered < 1
    assert float(total) == pytest.approx(covered, rel=0.02)


def _covered(mesh: Mesh, size: int = 512) -> float:
    assert mesh.uvs is not None
    return float((rasterize_atlas(mesh.uvs, mesh.faces, size).face_ids > 0).sum()) / (size - 1) ** 2


def test_both_are_deterministic() -> None:
    for unwrapper in ("xatlas", "uvunwrap"):
        one, other = (unwrap(blob(2), small_preset(unwrapper=unwrapper), RecordingHost()) for _ in range(2))
        assert one.uvs is not None and other.uvs is not None
        assert torch.equal(one.uvs, other.uvs) and torch.equal(one.faces, other.faces)


def test_own_uvs_are_kept_on_request() -> None:
    mesh = cube().with_(uvs=torch.rand(8, 2, generator=torch.Generator().manual_seed(0)))
    host = RecordingHost()
    assert unwrap(mesh, small_preset(), host, keep_uvs=True) is mesh
    assert host.phases == []
    assert unwrap(mesh, small_preset(), host).uvs is not mesh.uvs
    assert unwrap(cube(), small_preset(), host, keep_uvs=True).uvs is not None


def test_own_uvs_that_cannot_be_used_are_refused() -> None:
    with pytest.raises(BadInput, match=r"^unwrap: UVs run from"):
        unwrap(cube().with_(uvs=torch.full((8, 2), 3.0)), small_preset(), RecordingHost(), keep_uvs=True)


def test_non_manifold_mesh_is_sent_to_clean() -> None:
    host = RecordingHost()
    with pytest.raises(BadInput, match=r"^unwrap: 1 edges .* Run Clean first\.$"):
        unwrap(fin(), small_preset(), host)
    assert host.phases == []


def test_unknown_unwrapper_is_refused() -> None:
    with pytest.raises(BadInput, match=r"^unwrap: the unwrapper is 'scissors'; wanted one of xatlas, uvunwrap"):
        unwrap(cube(), dataclasses.replace(small_preset(), unwrapper="scissors"), RecordingHost())


@BOTH
def test_missing_package_is_named(unwrapper: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, unwrapper, None)
    with pytest.raises(MissingDependency, match=rf"pip install {unwrapper}"):
        unwrap(cube(), small_preset(unwrapper=unwrapper), RecordingHost())


@pytest.mark.parametrize("after", [0, 1])
def test_cancel_gets_through(after: int) -> None:
    host = RecordingHost(cancel_after=after)
    with pytest.raises(Cancelled):
        unwrap(torus(96, 48), small_preset(unwrapper="uvunwrap"), host)
    assert host.finished == []


def test_weld_numbers_by_first_appearance() -> None:
    points = torch.tensor([[2.0, 0, 0], [1, 0, 0], [2, 0, 0], [-0.0, 0, 0], [0, 0, 0], [1, 0, 0]])
    first, group = weld(points)
    assert first.tolist() == [0, 1, 3] and group.tolist() == [0, 1, 0, 2, 2, 1]


def test_weld_keeps_apart_what_differs_in_the_last_bit() -> None:
    one, tiny = torch.tensor(1.0), torch.tensor(0.0)
    above, denormal = torch.nextafter(one, one * 2), torch.nextafter(tiny, one)
    points = torch.stack([one, above, tiny, denormal, -denormal, above, -tiny])[:, None].expand(-1, 3)
    first, group = weld(points)
    assert first.tolist() == [0, 1, 2, 3, 4] and group.tolist() == [0, 1, 2, 3, 4, 1, 2]
    first, group = weld(torch.zeros(0, 3))
    assert first.tolist() == group.tolist() == []


def test_normals_point_outwards_and_cross_seams() -> None:
    mesh = blob(3, 0.0)
    unwrapped = unwrap(mesh, small_preset(), RecordingHost())
    normals = smooth_normals(unwrapped.vertices, unwrapped.faces)
    group = weld(unwrapped.vertices)[1]
    outwards = torch.nn.functional.normalize(unwrapped.vertices / torch.tensor([1.0, 1.2, 0.8]) ** 2, dim=1)
    assert (normals * outwards).sum(dim=1).min() > 0.99
    assert torch.equal(normals, normals[weld(unwrapped.vertices)[0]][group])
    loose = mean_normals(torch.cat([mesh.vertices, torch.zeros(1, 3)]), mesh.faces)
    assert loose[-1].tolist() == [0, 0, 0] and torch.allclose(loose[:-1].norm(dim=1), torch.ones(len(mesh.vertices)))


@pytest.mark.parametrize(("scale", "offset"), [(1e15, 0.0), (1e9, 3e9)])
def test_huge_meshes_end(scale: float, offset: float) -> None:
    """xatlas itself would run for ever: tried in a process of its own."""
    code = (
        "import sys; sys.path[:0] = sys.argv[1:3]\n"
        "from meshes import blob\n"
        "from lowvram_core.geometry.unwrappers import unwrap_xatlas\n"
        "mesh = blob(2)\n"
        f"large = unwrap_xatlas(mesh.with_(vertices=mesh.vertices * {scale} + {offset}))\n"
        "plain = unwrap_xatlas(mesh)\n"
        "assert large.faces.shape == plain.faces.shape and float(large.vertices.max()) > 1e6\n"
    )
    here = Path(__file__).resolve().parent
    subprocess.run([sys.executable, "-c", code, str(here), str(here.parents[1])], check=True, timeout=60)


def test_unwrapping_an_ordinary_mesh_gets_its_own_numbers() -> None:
    positions, _ = _arrays(blob(1))
    assert np.array_equal(positions, blob(1).vertices.numpy())
