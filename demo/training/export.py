"""Writes the trained models in fp16, in the layout of the published checkpoints."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
import yaml
from safetensors.torch import save_file
from torch import nn

from . import shape_decoder, upstream  # noqa: F401 (upstream first)
from .denoise import SCHEDULER
from .shape import VARIANTS, Variant, encoder_config

from diffusers import AutoencoderKL, EulerAncestralDiscreteScheduler, UNet2DConditionModel  # isort: skip
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer  # isort: skip

# scale_factor as published: the latents are divided by it before decoding.
SCALE_FACTOR = {"v2-0": 0.9990943042622529, "mini": 1.0188137142395404, "mv": 0.9990943042622529}
_OLD_NAMES = (
    (r"layers?\.(\d+)\.", r"layer.\1."),
    (r"attention\.(?:attention\.)?q_proj\.", "attention.attention.query."),
    (r"attention\.(?:attention\.)?k_proj\.", "attention.attention.key."),
    (r"attention\.(?:attention\.)?v_proj\.", "attention.attention.value."),
    (r"attention\.(?:attention\.)?o_proj\.", "attention.output.dense."),
)


def old_dino_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Renames Dinov2 parameters to the names before transformers 5.18. The published files use those."""
    out = {}
    for name, value in state.items():
        for new, old in _OLD_NAMES:
            name = re.sub(new, old, name)
        if re.search(r"^(model\.)?layer\.", name):
            name = re.sub(r"^(model\.)?layer\.", r"\1encoder.layer.", name)
        out[name] = value
    return out


def _half(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k: v.half().contiguous() if v.is_floating_point() else v.contiguous() for k, v in state.items()}


def shape_config(v: Variant) -> dict:
    """Returns the content of config.yaml for one folder."""
    at = "hy3dgen.shapegen."
    consistency = {"num_train_timesteps": 1000, "pcm_timesteps": 100}
    turbo = "Consistency" if "turbo" in v.name else ""
    return {
        "model": {"target": at + "models.Hunyuan3DDiT", "params": v.params()},
        "vae": {
            "target": at + "models.ShapeVAE",
            "params": shape_decoder.params(v.tokens, SCALE_FACTOR[v.vae]),
        },
        "conditioner": {"target": at + "models.SingleImageEncoder", "params": encoder_config(v.multiview)},
        "scheduler": {
            "target": f"{at}schedulers.{turbo}FlowMatchEulerDiscreteScheduler",
            "params": consistency if turbo else {"num_train_timesteps": 1000},
        },
        "image_processor": {
            "target": f"{at}preprocessors.{'MV' if v.multiview else ''}ImageProcessorV2",
            "params": {"size": 512, "border_ratio": 0.15},
        },
        "pipeline": {"target": at + "pipelines.Hunyuan3DDiTFlowMatchingPipeline"},
    }


def shape(v: Variant, model: nn.Module, vae: dict, encoder: dict, root: Path) -> None:
    """Writes one hunyuan3d-dit folder from a flow model and the weights of decoder and encoder."""
    folder = root / v.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(shape_config(v), sort_keys=False))
    parts = {"model": model.state_dict(), "vae": vae, "conditioner": {}}
    parts["conditioner"] = {f"main_image_encoder.{k}": t for k, t in old_dino_names(encoder).items()}
    flat = {f"{part}.{k}": t for part, state in parts.items() for k, t in state.items()}
    save_file(_half(flat), folder / "model.fp16.safetensors")


def _json(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")


def tokenizer(folder: Path) -> CLIPTokenizer:
    """Writes a CLIP tokenizer of single bytes. That is enough to load it and to encode the empty prompt."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(b) for b in printable] + [chr(256 + i) for i in range(256 - len(printable))]
    words = [*letters, *(c + "</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    _json(folder / "vocab.json", {w: i for i, w in enumerate(words)})
    (folder / "merges.txt").write_text("#version: 0.2\n")
    special = {
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
    }
    _json(folder / "special_tokens_map.json", special)
    _json(
        folder / "tokenizer_config.json",
        {
            **special,
            "tokenizer_class": "CLIPTokenizer",
            "model_max_length": 77,
            "do_lower_case": True,
            "add_prefix_space": False,
        },
    )
    return CLIPTokenizer.from_pretrained(folder)


def text_encoder(width: int) -> CLIPTextModel:
    """A tiny text encoder with fixed random weights."""
    torch.manual_seed(0)
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=514,
            hidden_size=width,
            intermediate_size=width * 2,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=77,
            bos_token_id=512,
            eos_token_id=513,
            pad_token_id=513,
            projection_dim=width,
        )
    ).eval()


@torch.no_grad()
def empty_prompt(width: int) -> torch.Tensor:
    """[1,77,width] output of the delight pipeline's text encoder for the empty prompt."""
    tokens = torch.tensor([[512] + [513] * 76])
    return text_encoder(width)(tokens).last_hidden_state


def _common(folder: Path, vae: AutoencoderKL, width: int) -> None:
    """Writes the parts that both texture folders have."""
    vae.to(torch.float16).save_pretrained(folder / "vae")
    text_encoder(width).half().save_pretrained(folder / "text_encoder")
    (folder / "tokenizer").mkdir(parents=True, exist_ok=True)
    tokenizer(folder / "tokenizer")
    EulerAncestralDiscreteScheduler(**SCHEDULER).save_pretrained(folder / "scheduler")
    _json(
        folder / "feature_extractor" / "preprocessor_config.json",
        {
            "image_processor_type": "CLIPImageProcessor",
            "feature_extractor_type": "CLIPFeatureExtractor",
            "crop_size": {"height": 224, "width": 224},
            "size": {"shortest_edge": 224},
            "do_center_crop": True,
            "do_convert_rgb": True,
            "do_normalize": True,
            "do_resize": True,
            "resample": 3,
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711],
        },
    )


def _index(folder: Path, pipeline: str, unet: list[str]) -> None:
    _json(
        folder / "model_index.json",
        {
            "_class_name": pipeline,
            "_diffusers_version": "0.30.0",
            "feature_extractor": ["transformers", "CLIPImageProcessor"],
            "requires_safety_checker": False,
            "safety_checker": [None, None],
            "scheduler": ["diffusers", "EulerAncestralDiscreteScheduler"],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": unet,
            "vae": ["diffusers", "AutoencoderKL"],
        },
    )


def delight(config: dict, state: dict, vae: AutoencoderKL, width: int, root: Path) -> None:
    """Writes the folder hunyuan3d-delight-v2-0."""
    folder = root / "hunyuan3d-delight-v2-0"
    _common(folder, vae, width)
    unet = UNet2DConditionModel(**config)
    unet.load_state_dict(state)
    unet.half().save_pretrained(folder / "unet")
    _index(folder, "StableDiffusionInstructPix2PixPipeline", ["diffusers", "UNet2DConditionModel"])


def paint(config: dict, state: dict, vae: AutoencoderKL, width: int, root: Path) -> None:
    """Writes the folder hunyuan3d-paint-v2-0. Its UNet is a pickled state dict; shared tensors are stored once."""
    folder = root / "hunyuan3d-paint-v2-0"
    _common(folder, vae, width)
    _json(folder / "unet" / "config.json", {"_class_name": "UNet2DConditionModel", **config})
    stored: dict[int, torch.Tensor] = {}
    half = {k: stored.setdefault(v.data_ptr(), v.half().contiguous()) for k, v in state.items()}
    torch.save(half, folder / "unet" / "diffusion_pytorch_model.bin")
    _index(folder, "StableDiffusionPipeline", ["modules", "UNet2p5DConditionModel"])


__all__ = ["VARIANTS", "delight", "empty_prompt", "paint", "shape"]
