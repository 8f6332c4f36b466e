"""Upstream's renderer and unwrapper on the CPU, with our rasteriser instead of its compiled one.

The modules are loaded from their files under other names, because importing hy3dgen.texgen imports every model.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from meshes import to_trimesh
from PIL import Image
from torch import Tensor

from lowvram_core.render import rasterize as ours
from lowvram_core.types import Camera, Mesh


def rasterizer_is_compiled() -> bool:
    """Upstream's own custom_rasterizer can be imported."""
    try:
        importlib.import_module("custom_rasterizer")
    except ImportError:
        return False
    return True


def _package(name: str, folder: Path) -> None:
    package = ModuleType(name)
    package.__path__ = [str(folder)]
    sys.modules[name] = package


def _texgen() -> Path:
    spec = importlib.util.find_spec("hy3dgen")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("hy3dgen is not installed")
    return Path(next(iter(spec.submodule_search_locations))) / "texgen"


def _rasterize(pos: Tensor, tri: Tensor, resolution: Any) -> tuple[Tensor, Tensor]:
    raster = ours.rasterize(pos[0], tri, int(resolution[0]))
    return raster.face_ids, raster.barycentric


def _interpolate(col: Tensor, findices: Tensor, barycentric: Tensor, tri: Tensor) -> Tensor:
    return ours.interpolate(col[0], ours.Raster(findices.int(), barycentric), tri)[None]


def _with_uvs(bare: trimesh.Trimesh, uvs: Tensor) -> trimesh.Trimesh:
    """The mesh with its UVs, v up."""
    up = torch.stack([uvs[:, 0], 1 - uvs[:, 1]], dim=1)
    bare.visual = trimesh.visual.TextureVisuals(uv=up.double().numpy())
    return bare


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Upstream:
    """One unwrapped mesh in upstream's renderer."""

    def __init__(
        self, mesh: Mesh, render_px: int, texture_px: int, monkeypatch: pytest.MonkeyPatch, *, compiled: bool = False
    ) -> None:
        """Unwraps the mesh if it has no UVs.

        Args:
            compiled: use upstream's own custom_rasterizer, which must be installed, instead of our rasteriser.
        """
        if not compiled:
            fake = ModuleType("custom_rasterizer")
            fake.rasterize, fake.interpolate = _rasterize, _interpolate  # type: ignore[attr-defined]
            monkeypatch.setitem(sys.modules, "custom_rasterizer", fake)
        _package("upstream_render", _texgen() / "differentiable_renderer")
        _package("upstream_utils", _texgen() / "utils")
        module = importlib.import_module("upstream_render.mesh_render")
        unwrapper = importlib.import_module("upstream_utils.uv_warp_utils")
        with _quiet():
            bare = to_trimesh(mesh)
            self.mesh: trimesh.Trimesh = unwrapper.mesh_uv_wrap(bare) if mesh.uvs is None else _with_uvs(bare, mesh.uvs)
            # On the CPU the renderer changes the arrays that it is given.
            self.uvs_up = np.array(self.mesh.visual.uv)
            self.render = module.MeshRender(default_resolution=render_px, texture_size=texture_px, device="cpu")
            self.render.load_mesh(self.mesh)

    def maps(self, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
        """[S,S,3] uint8 normal map and position map."""
        with _quiet():
            normal = self.render.render_normal(
                camera.elevation_deg, camera.azimuth_deg, use_abs_coor=True, return_type="pl"
            )
            position = self.render.render_position(camera.elevation_deg, camera.azimuth_deg, return_type="pl")
        return np.array(normal), np.array(position)

    def bake(self, pictures: list[Image.Image], cameras: tuple[Camera, ...]) -> tuple[Tensor, Tensor]:
        """[T,T,3] texture and [T,T] bool, from upstream's bake_from_multiview."""
        textures, cosines = [], []
        size = self.render.default_resolution
        with _quiet():
            for picture, camera in zip(pictures, cameras, strict=True):
                texture, cosine, _ = self.render.back_project(
                    picture.resize(size), camera.elevation_deg, camera.azimuth_deg
                )
                textures.append(texture)
                cosines.append(camera.weight * cosine**4)
            texture, trust = self.render.fast_bake_texture(textures, cosines)
        return texture, (trust > 1e-8).squeeze(-1)

    def inpaint(self, texture: Tensor, seen: Tensor) -> Tensor:
        """[T,T,3] float32 0..1, from upstream's texture_inpaint."""
        kept = self.render.vtx_pos.clone(), self.render.vtx_uv.clone()
        mask = (seen.numpy() * 255).astype(np.uint8)
        with _quiet():
            result = self.render.uv_inpaint(texture, mask)
        self.render.vtx_pos, self.render.vtx_uv = kept
        return torch.from_numpy(result.astype(np.float32) / 255)
