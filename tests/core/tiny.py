"""Writes tiny checkpoints with random weights, in the published layout and with the published names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import yaml
from diffusers import AutoencoderKL, EulerAncestralDiscreteScheduler, PNDMScheduler, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

from lowvram_core.networks import hy3dgen
from lowvram_core.networks.dinov2 import _to_old

DINO = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 56, "patch_size": 14,
    "use_swiglu_ffn": True, "mlp_ratio": 2,
}  # fmt: skip
VARIANTS = {
    "v2-0": "hunyuan3d-dit-v2-0",
    "v2-0-fast": "hunyuan3d-dit-v2-0-fast",
    "v2-0-turbo": "hunyuan3d-dit-v2-0-turbo",
    "mv": "hunyuan3d-dit-v2-mv",
    "mv-turbo": "hunyuan3d-dit-v2-mv-turbo",
}


def make_all(root: Path) -> Path:
    """Writes every model once, into one models folder."""
    for variant in VARIANTS:
        make_shape(root, variant)
    make_delight(root)
    make_paint(root)
    make_turbo_paint(root)
    return root


def shape_config(variant: str) -> dict[str, Any]:
    """Returns the content of config.yaml for a variant."""
    multiview = variant.startswith("mv")
    turbo = variant.endswith("turbo")
    scheduler = "ConsistencyFlowMatchEulerDiscreteScheduler" if turbo else "FlowMatchEulerDiscreteScheduler"
    encoder = "DinoImageEncoderMV" if multiview else "DinoImageEncoder"
    return {
        "model": {
            "target": "hy3dgen.shapegen.models.Hunyuan3DDiT",
            "params": {
                "in_channels": 8, "context_in_dim": 32, "hidden_size": 32, "num_heads": 2, "depth": 2,
                "depth_single_blocks": 2, "axes_dim": [16], "mlp_ratio": 2.0, "qkv_bias": True,
                "guidance_embed": "fast" in variant or turbo,
            },
        },
        "vae": {
            "target": "hy3dgen.shapegen.models.ShapeVAE",
            "params": {
                "num_latents": 12, "embed_dim": 8, "num_freqs": 4, "include_pi": False, "heads": 2, "width": 32,
                "num_decoder_layers": 2, "qkv_bias": False, "qk_norm": True, "scale_factor": 0.999,
            },
        },
        "conditioner": {
            "target": "hy3dgen.shapegen.models.SingleImageEncoder",
            "params": {"main_image_encoder": {"type": encoder, "kwargs": {"config": DINO, "image_size": 56}}},
        },
        "scheduler": {
            "target": f"hy3dgen.shapegen.schedulers.{scheduler}",
            "params": {"num_train_timesteps": 1000, **({"pcm_timesteps": 100} if turbo else {})},
        },
        "image_processor": {
            "target": f"hy3dgen.shapegen.preprocessors.{'MV' if multiview else ''}ImageProcessorV2",
            "params": {"size": 128},
        },
        "pipeline": {"target": "hy3dgen.shapegen.pipelines.Hunyuan3DDiTFlowMatchingPipeline"},
    }  # fmt: skip


def make_shape(root: Path, variant: str = "v2-0") -> Path:
    """Writes a shape model whose random field crosses zero."""
    folder = root / VARIANTS[variant]
    folder.mkdir(parents=True)
    config = shape_config(variant)
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    torch.manual_seed(1)
    models = hy3dgen.shapegen("models")
    parts = {name: getattr(models, config[name]["target"].rsplit(".", 1)[1])(**config[name]["params"])
             for name in ("model", "vae", "conditioner")}  # fmt: skip
    torch.nn.init.normal_(parts["vae"].geo_decoder.query_proj.weight)
    torch.nn.init.zeros_(parts["vae"].geo_decoder.output_proj.bias)
    state = {}
    for name, module in parts.items():
        for key, value in _published(module.state_dict()).items():
            state[f"{name}.{key}"] = value.half().contiguous()
    save_file(state, folder / "model.fp16.safetensors")
    return folder


def make_turbo_vae(root: Path) -> Path:
    """Writes a shape VAE with a small geometry decoder, in a folder of its own as published."""
    folder = root / "hunyuan3d-vae-v2-0-turbo"
    folder.mkdir(parents=True)
    config = shape_config("v2-0")["vae"]
    config["params"] |= {
        "geo_decoder_downsample_ratio": 2, "geo_decoder_mlp_expand_ratio": 1, "geo_decoder_ln_post": False,
        "heads": 4, "scale_factor": 0.9,
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    torch.manual_seed(2)
    vae = hy3dgen.shapegen("models").ShapeVAE(**config["params"])
    torch.nn.init.normal_(vae.geo_decoder.query_proj.weight)
    torch.nn.init.zeros_(vae.geo_decoder.output_proj.bias)
    state = {name: value.half().contiguous() for name, value in vae.state_dict().items()}
    save_file(state, folder / "model.fp16.safetensors")
    return folder


def _published(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return _to_old(state) if any("q_proj" in name for name in state) else state


def unet_config(in_channels: int, cross_dim: int) -> dict[str, Any]:
    """A UNet with attention only at its lowest resolution."""
    return {
        "sample_size": 64, "in_channels": in_channels, "out_channels": 4, "block_out_channels": [8, 16, 16],
        "time_embedding_dim": 1280,
        "layers_per_block": 1, "norm_num_groups": 4, "cross_attention_dim": cross_dim, "attention_head_dim": [2, 2, 2],
        "down_block_types": ["DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"],
        "use_linear_projection": True,
    }  # fmt: skip


def make_vae(folder: Path) -> None:
    """Writes an 8x autoencoder."""
    AutoencoderKL(
        block_out_channels=(8, 8, 16, 16), norm_num_groups=4, latent_channels=4, sample_size=256,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    ).half().save_pretrained(folder)  # fmt: skip


def make_text(folder: Path, width: int) -> None:
    """Writes a text encoder, and a tokenizer that knows single letters."""
    CLIPTextModel(
        CLIPTextConfig(hidden_size=width, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
                       vocab_size=60, max_position_embeddings=77, bos_token_id=52, eos_token_id=53)
    ).half().save_pretrained(folder / "text_encoder")  # fmt: skip
    tokenizer = folder / "tokenizer"
    tokenizer.mkdir()
    letters = [chr(97 + index) for index in range(26)]
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>", "ab"]
    (tokenizer / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(words)}))
    (tokenizer / "merges.txt").write_text("#version: 0.2\na b\n")
    end = "<|endoftext|>"
    special = {"bos_token": "<|startoftext|>", "eos_token": end, "unk_token": end, "pad_token": end}
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, **special}
    (tokenizer / "tokenizer_config.json").write_text(json.dumps(settings))
    (tokenizer / "special_tokens_map.json").write_text(json.dumps(special))


def _index(folder: Path, pipeline: str, unet: list[str]) -> None:
    index = {
        "_class_name": pipeline, "_diffusers_version": "0.30.0", "feature_extractor": [None, None],
        "safety_checker": [None, None], "image_encoder": [None, None], "requires_safety_checker": False,
        "scheduler": ["diffusers", "PNDMScheduler"], "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"], "unet": unet, "vae": ["diffusers", "AutoencoderKL"],
    }  # fmt: skip
    (folder / "model_index.json").write_text(json.dumps(index))


def make_delight(root: Path) -> Path:
    """Writes a delight model. The stage runs another scheduler class than the file names, as diffusers allows."""
    folder = root / "hunyuan3d-delight-v2-0"
    folder.mkdir(parents=True)
    torch.manual_seed(2)
    UNet2DConditionModel(**unet_config(8, 32)).half().save_pretrained(folder / "unet")
    make_vae(folder / "vae")
    make_text(folder, 32)
    PNDMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").save_pretrained(
        folder / "scheduler"
    )
    _index(folder, "StableDiffusionInstructPix2PixPipeline", ["diffusers", "UNet2DConditionModel"])
    return folder


def make_paint(root: Path) -> Path:
    """Writes a paint model, with its UNet as a pickle of tensors."""
    folder = root / "hunyuan3d-paint-v2-0"
    (folder / "unet").mkdir(parents=True)
    torch.manual_seed(3)
    config = unet_config(4, 1024)
    unet = hy3dgen.paint_unet()(UNet2DConditionModel(**config))
    torch.save({name: value.half() for name, value in unet.state_dict().items()},
               folder / "unet" / "diffusion_pytorch_model.bin")  # fmt: skip
    (folder / "unet" / "config.json").write_text(json.dumps({"_class_name": "UNet2DConditionModel", **config}))
    make_vae(folder / "vae")
    make_text(folder, 32)
    EulerAncestralDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction"
    ).save_pretrained(folder / "scheduler")
    _index(folder, "HunyuanPaintPipeline", ["modules", "UNet2p5DConditionModel"])
    return folder


def make_turbo_paint(root: Path, **changes: Any) -> Path:
    """Writes a turbo paint model: its UNet as a pickle of float32 tensors, and no VAE.

    Args:
        changes: of the UNet's configuration.
    """
    folder = root / "hunyuan3d-paint-v2-0-turbo"
    (folder / "unet").mkdir(parents=True)
    torch.manual_seed(4)
    config = unet_config(4, 1024) | changes
    unet = hy3dgen.paint_unet()(UNet2DConditionModel(**config))
    torch.save(unet.state_dict(), folder / "unet" / "diffusion_pytorch_model.bin")
    (folder / "unet" / "config.json").write_text(json.dumps({"_class_name": "UNet2DConditionModel", **config}))
    EulerAncestralDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction"
    ).save_pretrained(folder / "scheduler")
    return folder


FOUR_LEVELS: dict[str, Any] = {
    "block_out_channels": [4, 8, 8, 8], "attention_head_dim": [1, 1, 2, 2],
    "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
    "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
}  # fmt: skip
"""Of a UNet with attention at every level, as the published one: 64, 32, 16 and 8."""
NO_FINEST_LEVEL = FOUR_LEVELS | {
    "down_block_types": ["DownBlock2D", *["CrossAttnDownBlock2D"] * 2, "DownBlock2D"],
    "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 2, "UpBlock2D"],
}
"""The same without attention at 64, which takes most of the time."""
