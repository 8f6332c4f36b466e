"""Checkpoints of the published sizes with meaningless weights, for measuring memory and time."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import torch
import yaml

from lowvram_core.models import upstream
from lowvram_core.models.loading import build_empty

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


def write_shape(folder: Path) -> int:
    """Writes hunyuan3d-dit-v2-0 at fp16 under the installed transformers' names; returns its bytes.

    Never holds more than 64 MiB: the weights go to the file as they are drawn.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(SHAPE_CONFIG), encoding="utf-8")
    models = upstream.shapegen("models")
    shapes: dict[str, list[int]] = {}
    for part in ("model", "vae", "conditioner"):
        node = SHAPE_CONFIG[part]
        cls = getattr(models, node["target"].rsplit(".", 1)[1])
        module = build_empty(lambda cls=cls, node=node: cls(**node["params"]))  # type: ignore[misc]
        shapes.update({f"{part}.{name}": list(value.shape) for name, value in module.state_dict().items()})
    return write_random(folder / "model.fp16.safetensors", shapes)


def write_random(path: Path, shapes: dict[str, list[int]]) -> int:
    """Writes a safetensors file of small random fp16 numbers; returns its bytes."""
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 2 * math.prod(shape)
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    noise = (torch.randn(CHUNK_BYTES // 2) * 0.02).half().numpy().tobytes()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        for start in range(0, end, CHUNK_BYTES):
            file.write(noise[: min(CHUNK_BYTES, end - start)])
    return path.stat().st_size
