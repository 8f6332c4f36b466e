"""Runs upstream's own pipelines as its README does: everything on the device, at given settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import EulerAncestralDiscreteScheduler
from diffusers import StableDiffusionInstructPix2PixPipeline as InstructPix2Pix
from PIL import Image
from torch import Tensor

from lowvram_core.files.checkpoints import fill, read_weights
from lowvram_core.networks import hy3dgen, paint
from lowvram_core.networks.diffusers_folders import load_diffusers, load_unet, load_vae, read_json
from lowvram_core.networks.shape import open_shape

HALF = torch.float16
VIEW_PX = 512
"""Edge of the pictures that the networks of delight and paint take and return; upstream's."""


class Upstream:
    """The shape, delight and paint pipelines, all on the device at once.

    Upstream's loaders are not used, because they hold the weights several times. Everything after loading is
    upstream's code.
    """

    def __init__(
        self, shape: Path, delight: Path, painting: Path, device: torch.device, dtype: torch.dtype = HALF
    ) -> None:
        self.device = device
        self.dtype = dtype
        self.shape = _shape(shape, device, dtype)
        self.delight = _delight(delight, device, dtype)
        self.paint = _paint(painting, device, dtype)

    def without_surface(self) -> Upstream:
        """Makes no mesh from the shape's field, because the field of random weights has no surface."""
        self.shape.vae.surface_extractor = lambda logits, **_: [None for _ in logits.cpu()]
        return self

    def make_shape(self, picture: Image.Image, steps: int, octree: int, guidance: float, chunk: int) -> Any:
        """A trimesh of the object in the picture, or None if the field has no surface."""
        return self.shape(
            picture, num_inference_steps=steps, octree_resolution=octree, guidance_scale=guidance, num_chunks=chunk,
            enable_pbar=False, generator=torch.Generator().manual_seed(0),
        )[0]  # fmt: skip

    def relight(self, picture: Image.Image, steps: int) -> None:
        """Calls the pipeline as Light_Shadow_Remover does, but with `steps` steps."""
        self.delight(
            prompt="", image=picture.resize((VIEW_PX, VIEW_PX)), generator=torch.Generator().manual_seed(42),
            height=VIEW_PX, width=VIEW_PX, num_inference_steps=steps, image_guidance_scale=1.5, guidance_scale=1.0,
            output_type="np",
        )  # fmt: skip

    def paint_views(
        self, picture: Image.Image, normals: Tensor, positions: Tensor, classes: list[int], steps: int,
        output_type: str = "np",
    ) -> Any:  # fmt: skip
        """Paints all views at once. The maps are [views,3,VIEW_PX,VIEW_PX] 0..1."""
        return self.paint(
            picture.resize((VIEW_PX, VIEW_PX)), num_inference_steps=steps, generator=torch.Generator().manual_seed(0),
            width=VIEW_PX, height=VIEW_PX, num_in_batch=len(normals), camera_info_gen=[classes], camera_info_ref=[[0]],
            normal_imgs=normals[None].to(self.device, self.dtype),
            position_imgs=positions[None].to(self.device, self.dtype), output_type=output_type,
        ).images  # fmt: skip


def _shape(folder: Path, device: torch.device, dtype: torch.dtype) -> Any:
    pipelines = hy3dgen.shapegen("pipelines")
    model = open_shape(folder, dtype)
    return pipelines.Hunyuan3DDiTFlowMatchingPipeline(
        vae=model.vae.load().to(device), model=model.dit.load().to(device), scheduler=model.make_scheduler(),
        conditioner=model.conditioner.load().to(device), image_processor=model.image_processor, device=device,
        dtype=dtype,
    )  # fmt: skip


def _delight(folder: Path, device: torch.device, dtype: torch.dtype) -> Any:
    from transformers import CLIPTextModel, CLIPTokenizer

    pipeline = InstructPix2Pix(
        vae=load_vae(folder / "vae", dtype).to(device),
        text_encoder=load_diffusers(CLIPTextModel, folder / "text_encoder", dtype).to(device),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        unet=load_unet(folder / "unet", dtype).to(device),
        scheduler=EulerAncestralDiscreteScheduler.from_pretrained(folder / "scheduler"),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _paint(folder: Path, device: torch.device, dtype: torch.dtype) -> Any:
    from hy3dgen.texgen.hunyuanpaint.pipeline import HunyuanPaintPipeline
    from transformers import CLIPTextModel, CLIPTokenizer

    weights = paint.find_weights(folder / "unet")
    unet = paint._build(read_json(folder / "unet" / "config.json"))
    pipeline = HunyuanPaintPipeline(
        vae=load_vae(folder / "vae", dtype).to(device),
        text_encoder=load_diffusers(CLIPTextModel, folder / "text_encoder", dtype).to(device),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        unet=fill(unet, read_weights(weights), dtype, weights).to(device),
        scheduler=EulerAncestralDiscreteScheduler.from_pretrained(folder / "scheduler", timestep_spacing="trailing"),
        feature_extractor=None,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def a_picture() -> Image.Image:
    """[512,512] RGBA: a disc."""
    y, x = np.mgrid[:512, :512]
    inside = (x - 256) ** 2 + (y - 256) ** 2 < 180**2
    pixels = np.full((512, 512, 4), 180, np.uint8)
    pixels[..., 3] = inside * 255
    return Image.fromarray(pixels)
