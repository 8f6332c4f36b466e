"""Upstream's own pipelines on the CPU in float32, built part by part from a folder in the published layout.

Upstream's loaders cannot be used: they need the Dinov2 names of an older transformers, CUDA, and code from the
checkpoint's folder. Everything after loading is upstream's code.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from diffusers import AutoencoderKL, EulerAncestralDiscreteScheduler, PNDMScheduler
from diffusers import StableDiffusionInstructPix2PixPipeline as InstructPix2Pix
from PIL import Image
from safetensors.torch import load_file
from transformers import CLIPTextModel, CLIPTokenizer, Dinov2Config, Dinov2Model

from lowvram_core.networks import hy3dgen

DINO_PREFIX = "conditioner.main_image_encoder.model."


def shape_pipeline(folder: Path) -> Any:
    """Upstream's Hunyuan3DDiTFlowMatchingPipeline. transformers itself converts the old Dinov2 names."""
    pipelines = hy3dgen.shapegen("pipelines")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    state = load_file(folder / "model.fp16.safetensors")
    parts = {name: pipelines.instantiate_from_config(config[name])
             for name in ("model", "vae", "conditioner", "scheduler", "image_processor")}  # fmt: skip
    for name in ("model", "vae"):
        parts[name].load_state_dict(_without(state, f"{name}."))
    dino = config["conditioner"]["params"]["main_image_encoder"]["kwargs"]["config"]
    encoder = parts["conditioner"].main_image_encoder
    encoder.model = Dinov2Model.from_pretrained(
        None, config=Dinov2Config.from_dict(dino), state_dict=_without(state, DINO_PREFIX)
    ).float().eval()  # fmt: skip
    return pipelines.Hunyuan3DDiTFlowMatchingPipeline(**parts, device="cpu", dtype=torch.float32)


def _without(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def delight_model(folder: Path) -> Any:
    """Upstream's Light_Shadow_Remover."""
    from hy3dgen.texgen.utils.dehighlight_utils import Light_Shadow_Remover

    remover = Light_Shadow_Remover.__new__(Light_Shadow_Remover)
    remover.device, remover.cfg_image, remover.cfg_text = "cpu", 1.5, 1.0
    pipeline = InstructPix2Pix.from_pretrained(folder, dtype=torch.float32, safety_checker=None)
    assert isinstance(pipeline.scheduler, PNDMScheduler)
    pipeline.scheduler = EulerAncestralDiscreteScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    remover.pipeline = pipeline
    return remover


def paint_views(
    folder: Path,
    pictures: Sequence[Image.Image],
    normals: torch.Tensor,
    positions: torch.Tensor,
    classes: list[int],
    steps: int,
) -> list[Image.Image]:
    """Does what Multiview_Diffusion_Net.__call__ does, but with the maps as tensors: upstream's lists go to CUDA.

    Args:
        normals: [N,3,S,S]; the views have the same size.
        pictures: the references. Upstream's pipeline takes one; its VAE and UNet take several as they are. So the
            first call of its `encode_images`, which is for the reference, gets all of them.
    """
    from hy3dgen.texgen.hunyuanpaint.pipeline import HunyuanPaintPipeline
    from hy3dgen.texgen.hunyuanpaint.unet.modules import UNet2p5DConditionModel

    pipeline = HunyuanPaintPipeline(
        vae=AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32),
        text_encoder=CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        unet=UNet2p5DConditionModel.from_pretrained(str(folder / "unet")),
        scheduler=EulerAncestralDiscreteScheduler.from_pretrained(folder / "scheduler"),
        feature_extractor=None,
    )
    pipeline.scheduler = EulerAncestralDiscreteScheduler.from_config(
        pipeline.scheduler.config, timestep_spacing="trailing"
    )
    pipeline.set_progress_bar_config(disable=True)
    size_px = normals.shape[-1]
    resized = [picture.resize((size_px, size_px)) for picture in pictures]
    if len(pictures) > 1:
        pipeline.encode_images = _with_all(pipeline.encode_images, resized)
    with torch.random.fork_rng():
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)
        return pipeline(
            resized[0], num_inference_steps=steps, generator=torch.Generator().manual_seed(0),
            width=size_px, height=size_px, num_in_batch=len(normals), camera_info_gen=[classes], camera_info_ref=[[0]],
            normal_imgs=normals[None], position_imgs=positions[None],
        ).images  # fmt: skip


def _with_all(encode: Callable[[torch.Tensor], torch.Tensor], pictures: list[Image.Image]) -> Any:
    """`encode`, whose first call gets [1,R,3,512,512] of these pictures instead of its own argument."""
    waiting = [torch.stack([torch.tensor(np.array(picture) / 255.0).permute(2, 0, 1) for picture in pictures])[None]]
    return lambda images: encode(waiting.pop().to(images) if waiting else images)
