"""Upstream's whole job, picture to textured mesh, with the seconds of each of its stages.

Everything after loading is upstream's own code. Some stages need packages that do not come with hy3dgen's wheel:

    maps, bake    custom_rasterizer, compiled from upstream's repository (hy3dgen/texgen/custom_rasterizer)
    inpaint       the same, and mesh_processor, compiled there too (hy3dgen/texgen/differentiable_renderer)
    clean         pymeshlab

A stage without its packages does not run; `missing_stages` says which and why.
"""

from __future__ import annotations

import importlib
import time
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import trimesh
import upstream_run
from PIL import Image
from solid import solid_field
from torch import Tensor
from upstream_run import Upstream

from lowvram_core.files.store import ModelStore
from lowvram_core.lending.device import memory_of
from lowvram_core.networks import hy3dgen
from lowvram_core.presets import Preset
from lowvram_core.render.cameras import camera_class
from lowvram_core.stages.clean import clean
from lowvram_core.types import Mesh

Seconds = dict[str, float]
"""By stage."""


class Laps:
    """Measures one stage after the other. Each lap waits for the device."""

    def __init__(self, device: torch.device) -> None:
        self.seconds: Seconds = {}
        self._device = device
        self._start = self._now()

    def _now(self) -> float:
        memory = memory_of(self._device)
        if memory is not None:
            memory.synchronize(self._device)
        return time.perf_counter()

    def lap(self, stage: str) -> None:
        """Adds the time since the last lap to the stage."""
        now = self._now()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._start
        self._start = now

    def skip(self) -> None:
        """Counts the time since the last lap for no stage."""
        self._start = self._now()


def missing_stages() -> dict[str, str]:
    """The stages of upstream that cannot run here, each with the reason."""
    missing = {}
    if (reason := _import_error("pymeshlab")) is not None:
        missing["clean"] = reason
    if (reason := _import_error("custom_rasterizer")) is not None:
        missing |= dict.fromkeys(("maps", "bake", "inpaint"), reason)
    elif _compiled_inpaint() is None:
        missing["inpaint"] = "mesh_processor is not compiled; hy3dgen's wheel has only its slow Python version"
    return missing


def _import_error(package: str) -> str | None:
    try:
        importlib.import_module(package)
    except (ImportError, OSError) as error:
        return f"{package} cannot be imported ({str(error).splitlines()[0]})"
    return None


def _compiled_inpaint() -> ModuleType | None:
    """Upstream's mesh_processor if it is compiled, in its package or beside it."""
    for name in ("hy3dgen.texgen.differentiable_renderer.mesh_processor", "mesh_processor"):
        try:
            module = importlib.import_module(name)
        except (ImportError, OSError):
            continue
        if Path(str(module.__file__)).name.endswith(tuple(EXTENSION_SUFFIXES)):
            return module
    return None


def run_upstream(
    picture: Image.Image, preset: Preset, store: ModelStore, device: torch.device, dtype: torch.dtype
) -> Seconds:
    """Runs the whole job as upstream's README does, with all networks on the device.

    The shape's field is that of the solid. A mesh that upstream cannot clean here is cleaned by ours, and that time
    counts for no stage.

    Args:
        picture: RGBA, with the object cut out.
        preset: the steps, sizes and views.

    Raises:
        RuntimeError: the shape has no surface, or the device is full.
    """
    missing = missing_stages()
    laps = Laps(device)
    with torch.inference_mode():
        shape, delight, paint = (store.folder(name) for name in (f"shape/{preset.variant}", "delight", "paint"))
        job = _Job(Upstream(shape, delight, paint, device, dtype), preset, renders="maps" not in missing)
        laps.lap("load")
        mesh = job.shape(picture, laps)
        if "clean" not in missing:
            mesh = job.clean(mesh)
            laps.lap("clean")
        else:
            mesh = _cleaned_by_ours(mesh, preset, device)
            laps.skip()
        relit = job.delight(picture)
        laps.lap("delight")
        mesh = job.unwrap(mesh)
        laps.lap("unwrap")
        normals, positions = job.maps(mesh)
        if "maps" not in missing:
            laps.lap("maps")
        else:
            laps.skip()
        views = job.paint(relit, normals, positions)
        laps.lap("paint")
        if "bake" not in missing:
            texture, mask = job.bake(views)
            laps.lap("bake")
            if "inpaint" not in missing:
                job.finish(texture, mask)
                laps.lap("inpaint")
    return laps.seconds


def _cleaned_by_ours(mesh: Any, preset: Preset, device: torch.device) -> Any:
    from lowvram_core.app.torch_host import TorchHost

    vertices, faces = np.asarray(mesh.vertices, np.float32), np.asarray(mesh.faces, np.int64)
    cleaned = clean(Mesh(torch.from_numpy(vertices), torch.from_numpy(faces)), preset, TorchHost(device))
    return trimesh.Trimesh(cleaned.vertices.numpy(), cleaned.faces.numpy(), process=False)


class _Job:
    """Upstream's stages, with its own objects between them."""

    def __init__(self, pipelines: Upstream, preset: Preset, *, renders: bool) -> None:
        texgen = importlib.import_module("hy3dgen.texgen.pipelines")
        self.pipelines = pipelines
        self.preset = preset
        self.texturing = texgen.Hunyuan3DPaintPipeline.__new__(texgen.Hunyuan3DPaintPipeline)
        self.texturing.config = texgen.Hunyuan3DTexGenConfig(None, None)
        self.texturing.config.render_size = preset.render_px
        self.texturing.config.texture_size = preset.texture_px
        self.remover = texgen.Light_Shadow_Remover.__new__(texgen.Light_Shadow_Remover)
        self.remover.device, self.remover.cfg_image, self.remover.cfg_text = pipelines.device, 1.5, 1.0
        self.remover.pipeline = self._relight
        self.unwrap = texgen.mesh_uv_wrap
        if renders:
            self.texturing.render = texgen.MeshRender(
                default_resolution=preset.render_px, texture_size=preset.texture_px, device=pipelines.device
            )

    def shape(self, picture: Image.Image, laps: Laps) -> Any:
        """A trimesh, with laps for condition, sample and decode."""
        pipeline, preset = self.pipelines.shape, self.preset
        encode, export = pipeline.encode_cond, pipeline._export

        def encoded(*args: Any, **kwargs: Any) -> Any:
            condition = encode(*args, **kwargs)
            laps.lap("condition")
            return condition

        def exported(*args: Any, **kwargs: Any) -> Any:
            laps.lap("sample")
            mesh = export(*args, **kwargs)
            laps.lap("decode")
            return mesh

        with (
            solid_field(pipeline.vae.geo_decoder),
            patch.object(pipeline, "encode_cond", encoded),
            patch.object(pipeline, "_export", exported),
        ):
            mesh = self.pipelines.make_shape(
                picture, preset.shape_steps, preset.octree, preset.guidance, preset.points_per_chunk
            )
        if mesh is None:
            raise RuntimeError("upstream's shape has no surface")
        return mesh

    def clean(self, mesh: Any) -> Any:
        """The mesh without small parts and degenerate faces, with as many faces as the preset allows."""
        cleaners = hy3dgen.shapegen("postprocessors")
        mesh = cleaners.DegenerateFaceRemover()(cleaners.FloaterRemover()(mesh))
        return cleaners.FaceReducer()(mesh, max_facenum=self.preset.face_budget)

    def delight(self, picture: Image.Image) -> Image.Image:
        """The object recentred on white, evenly lit."""
        relit: Image.Image = self.remover(self.texturing.recenter_image(picture))
        return relit

    def _relight(self, **settings: Any) -> Any:
        """The delight pipeline with the preset's steps: upstream's are fixed to 50."""
        px, whole = upstream_run.VIEW_PX, settings["image"].size
        ours = {"num_inference_steps": self.preset.delight_steps, "height": px, "width": px}
        result = self.pipelines.delight(**{**settings, **ours, "image": settings["image"].resize((px, px))})
        return SimpleNamespace(images=[picture.resize(whole) for picture in result.images])

    def maps(self, mesh: Any) -> tuple[Tensor, Tensor]:
        """Two tensors [views,3,VIEW_PX,VIEW_PX] 0..1: normals and positions. Zeros where upstream cannot render."""
        if not hasattr(self.texturing, "render"):
            blank = torch.zeros(len(self.preset.cameras), 3, upstream_run.VIEW_PX, upstream_run.VIEW_PX)
            return blank, blank
        self.texturing.render.load_mesh(mesh)
        elevations, azimuths = self._poses()
        return (
            _tensor(self.texturing.render_normal_multiview(elevations, azimuths, use_abs_coor=True)),
            _tensor(self.texturing.render_position_multiview(elevations, azimuths)),
        )

    def _poses(self) -> tuple[list[float], list[float]]:
        cameras = self.preset.cameras
        return [camera.elevation_deg for camera in cameras], [camera.azimuth_deg for camera in cameras]

    def paint(self, picture: Image.Image, normals: Tensor, positions: Tensor) -> list[Image.Image]:
        """The painted views."""
        torch.manual_seed(0)
        classes = [camera_class(camera) for camera in self.preset.cameras]
        views: list[Image.Image] = self.pipelines.paint_views(
            picture, normals, positions, classes, self.preset.paint_steps, output_type="pil"
        )
        return views

    def bake(self, views: list[Image.Image]) -> tuple[Tensor, Tensor]:
        """The texture of the resized views, and where it is painted."""
        px = self.preset.render_px
        weights = [camera.weight for camera in self.preset.cameras]
        resized = [view.resize((px, px)) for view in views]
        texture, mask = self.texturing.bake_from_multiview(resized, *self._poses(), weights, method="fast")
        return texture, mask

    def finish(self, texture: Tensor, mask: Tensor) -> Any:
        """The mesh with the filled texture."""
        compiled = _compiled_inpaint()
        assert compiled is not None
        render = importlib.import_module("hy3dgen.texgen.differentiable_renderer.mesh_render")
        painted = (mask.squeeze(-1).cpu().numpy() * 255).astype(np.uint8)
        with patch.object(render, "meshVerticeInpaint", compiled.meshVerticeInpaint):
            self.texturing.render.set_texture(self.texturing.texture_inpaint(texture, painted))
        return self.texturing.render.save_mesh()


def _tensor(pictures: list[Image.Image]) -> Tensor:
    """[N,3,VIEW_PX,VIEW_PX] float32 0..1."""
    size = (upstream_run.VIEW_PX, upstream_run.VIEW_PX)
    small = [np.asarray(picture.resize(size).convert("RGB"), np.float32) / 255 for picture in pictures]
    return torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2)
