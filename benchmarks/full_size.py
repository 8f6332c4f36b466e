"""Writes checkpoints of the published sizes with random weights, to measure memory and time."""

from __future__ import annotations

import copy
import json
import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from lowvram_core.files.checkpoints import build_empty
from lowvram_core.networks import hy3dgen

CHUNK_BYTES = 64 * 2**20

DINOV2_GIANT = {
    "attention_probs_dropout_prob": 0.0, "drop_path_rate": 0.0, "hidden_act": "gelu", "hidden_dropout_prob": 0.0,
    "hidden_size": 1536, "image_size": 518, "layer_norm_eps": 1.0e-6, "layerscale_value": 1.0, "mlp_ratio": 4,
    "num_attention_heads": 24, "num_channels": 3, "num_hidden_layers": 40, "patch_size": 14, "qkv_bias": True,
    "use_swiglu_ffn": True,
}  # fmt: skip
SHAPE_CONFIG: dict[str, Any] = {
    "model": {
        "target": "hy3dgen.shapegen.models.Hunyuan3DDiT",
        "params": {
            "in_channels": 64, "context_in_dim": 1536, "hidden_size": 1024, "mlp_ratio": 4.0, "num_heads": 16,
            "depth": 16, "depth_single_blocks": 32, "axes_dim": [64], "theta": 10000, "qkv_bias": True,
        },
    },
    "vae": {
        "target": "hy3dgen.shapegen.models.ShapeVAE",
        "params": {
            "num_latents": 3072, "embed_dim": 64, "num_freqs": 8, "include_pi": False, "heads": 16, "width": 1024,
            "num_decoder_layers": 16, "qkv_bias": False, "qk_norm": True, "scale_factor": 0.9990943042622529,
        },
    },
    "conditioner": {
        "target": "hy3dgen.shapegen.models.SingleImageEncoder",
        "params": {
            "main_image_encoder": {
                "type": "DinoImageEncoder", "kwargs": {"config": DINOV2_GIANT, "image_size": 518},
            }
        },
    },
    "scheduler": {
        "target": "hy3dgen.shapegen.schedulers.FlowMatchEulerDiscreteScheduler",
        "params": {"num_train_timesteps": 1000},
    },
    "image_processor": {
        "target": "hy3dgen.shapegen.preprocessors.ImageProcessorV2", "params": {"size": 512},
    },
}  # fmt: skip
UNET_CONFIG: dict[str, Any] = {
    "_class_name": "UNet2DConditionModel", "sample_size": 64, "in_channels": 4, "out_channels": 4,
    "attention_head_dim": [5, 10, 20, 20], "block_out_channels": [320, 640, 1280, 1280], "cross_attention_dim": 1024,
    "layers_per_block": 2, "use_linear_projection": True,
}  # fmt: skip
"""The UNet of Stable Diffusion 2.1. Both texture models are built on it."""
VAE_CONFIG: dict[str, Any] = {
    "_class_name": "AutoencoderKL", "sample_size": 768, "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2, "latent_channels": 4, "scaling_factor": 0.18215,
    "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4,
}  # fmt: skip
TEXT_CONFIG: dict[str, Any] = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16,
    "vocab_size": 49408, "max_position_embeddings": 77, "hidden_act": "gelu", "projection_dim": 512,
    "bos_token_id": 0, "eos_token_id": 1, "model_type": "clip_text_model",
}  # fmt: skip
SCHEDULER_CONFIG = {
    "_class_name": "EulerAncestralDiscreteScheduler", "beta_start": 0.00085, "beta_end": 0.012,
    "beta_schedule": "scaled_linear", "num_train_timesteps": 1000, "prediction_type": "v_prediction",
}  # fmt: skip


def shape_config(variant: str) -> dict[str, Any]:
    """Returns the content of config.yaml for a variant of the published size."""
    config = copy.deepcopy(SHAPE_CONFIG)
    params, vae = config["model"]["params"], config["vae"]["params"]
    if variant.startswith("mini"):
        params |= {"depth": 8, "depth_single_blocks": 16}
        vae |= {"num_latents": 512, "scale_factor": 1.0188137142395404}
    if "fast" in variant or "turbo" in variant:
        params["guidance_embed"] = True
    if variant.endswith("turbo"):
        config["scheduler"] = {
            "target": "hy3dgen.shapegen.schedulers.ConsistencyFlowMatchEulerDiscreteScheduler",
            "params": {"num_train_timesteps": 1000, "pcm_timesteps": 100},
        }
    return config


def write_shape(folder: Path, variant: str = "v2-0", *, sparse: bool = False) -> int:
    """Writes a shape model in fp16, with the parameter names of the installed transformers; returns its bytes.

    Writes in chunks of 64 MiB, so that the whole model is never in memory.

    Args:
        sparse: writes zeros that take no disk space, instead of random numbers.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = shape_config(variant)
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    models = hy3dgen.shapegen("models")
    shapes: dict[str, list[int]] = {}
    for part in ("model", "vae", "conditioner"):
        node = config[part]
        cls = getattr(models, node["target"].rsplit(".", 1)[1])
        module = build_empty(lambda cls=cls, node=node: cls(**node["params"]))  # type: ignore[misc]
        shapes.update({f"{part}.{name}": value for name, value in _shapes(module).items()})
    return write_weights(folder / "model.fp16.safetensors", shapes, sparse=sparse)


def write_delight(folder: Path, *, sparse: bool = False) -> None:
    """Writes a delight model in fp16, in the published layout and size."""
    from diffusers import UNet2DConditionModel

    _write_network(folder / "unet", UNet2DConditionModel, {**UNET_CONFIG, "in_channels": 8}, sparse)
    _write_surroundings(folder, sparse)


def write_paint(folder: Path, *, sparse: bool = False) -> None:
    """Writes a paint model in fp16, in the published layout and size. Its UNet is safetensors, not a pickle."""
    _write_network(folder / "unet", _two_and_a_half_d, UNET_CONFIG, sparse)
    _write_surroundings(folder, sparse)


def write_turbo_paint(folder: Path, *, sparse: bool = False) -> None:
    """Writes a turbo paint model in fp16, as the published float32 pickle is after a conversion; it has no VAE."""
    _write_network(folder / "unet", _two_and_a_half_d, UNET_CONFIG, sparse, "diffusion_pytorch_model.fp16.safetensors")
    _write_json(folder / "scheduler" / "scheduler_config.json", SCHEDULER_CONFIG)


def _two_and_a_half_d(**settings: Any) -> nn.Module:
    from diffusers import UNet2DConditionModel

    unet: nn.Module = hy3dgen.paint_unet()(UNet2DConditionModel(**settings))
    return unet


def _write_surroundings(folder: Path, sparse: bool) -> None:
    """Writes VAE, text encoder, tokenizer and scheduler. Both texture models have them."""
    from diffusers import AutoencoderKL
    from transformers import CLIPTextConfig, CLIPTextModel

    _write_network(folder / "vae", AutoencoderKL, VAE_CONFIG, sparse)
    _write_network(
        folder / "text_encoder", lambda **settings: CLIPTextModel(CLIPTextConfig(**settings)), TEXT_CONFIG, sparse,
        "model.safetensors",
    )  # fmt: skip
    _write_json(folder / "model_index.json", {"_class_name": "measured"})
    _write_json(folder / "scheduler" / "scheduler_config.json", SCHEDULER_CONFIG)
    words = ["<|startoftext|>", "<|endoftext|>", "a", "b", "a</w>", "b</w>", "ab"]
    _write_json(folder / "tokenizer" / "vocab.json", {word: index for index, word in enumerate(words)})
    (folder / "tokenizer" / "merges.txt").write_text("#version: 0.2\na b\n", encoding="utf-8")
    end = words[1]
    special = {"bos_token": words[0], "eos_token": end, "unk_token": end, "pad_token": end}
    _write_json(
        folder / "tokenizer" / "tokenizer_config.json",
        {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, **special},
    )
    _write_json(folder / "tokenizer" / "special_tokens_map.json", special)


def _write_network(
    folder: Path, make: Callable[..., nn.Module], config: dict[str, Any], sparse: bool,
    name: str = "diffusion_pytorch_model.safetensors",
) -> None:  # fmt: skip
    module = build_empty(lambda: make(**{key: value for key, value in config.items() if not key.startswith("_")}))
    _write_json(folder / "config.json", config)
    write_weights(folder / name, _shapes(module), sparse=sparse)


def _shapes(module: nn.Module) -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in module.state_dict().items()}


def _write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def write_weights(path: Path, shapes: dict[str, list[int]], *, sparse: bool = False) -> int:
    """Writes a safetensors file of small random fp16 numbers, or of zeros without disk space; returns its bytes."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        size = 2 * math.prod(shape)
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        if sparse:
            file.truncate(file.tell() + end)
            return path.stat().st_size
        noise = (torch.randn(CHUNK_BYTES // 2) * 0.02).half().numpy().tobytes()
        for start in range(0, end, CHUNK_BYTES):
            file.write(noise[: min(CHUNK_BYTES, end - start)])
    return path.stat().st_size
