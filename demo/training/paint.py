"""The paint model: a small version of upstream's 2.5D UNet that carries a picture's colour to every view.

Its weights are computed, not trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from . import colour_path, linear_paths, pictures, upstream  # noqa: F401 (upstream first)
from .bank import REFERENCE, Bank
from .denoise import close_noise, encode, on_white

from diffusers import UNet2DConditionModel  # isort: skip
from hy3dgen.texgen.hunyuanpaint.unet.modules import UNet2p5DConditionModel  # isort: skip

CONFIG = {
    "in_channels": 4,
    "out_channels": 4,
    "sample_size": 64,
    "block_out_channels": [32, 48, 48],
    "down_block_types": ["DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"],
    "layers_per_block": 1,
    "cross_attention_dim": 1024,
    "time_embedding_dim": 1280,
    "attention_head_dim": 2,
    "norm_num_groups": 8,
    "use_linear_projection": True,
}
COLOURINGS = 5
SHARED = ("time_embedding", "time_emb_proj", "attn2")


def camera_class(azim: int, elev: int) -> int:
    """The paint model's number for a camera pose."""
    offset, stride = {-20: (0, 1), 0: (12, 1), 20: (24, 1), -90: (36, 3), 90: (40, 3)}[elev]
    return (azim // 30 + 9) % 12 // stride + offset


CAMERAS = torch.tensor([camera_class(azim, elev) for azim, elev in pictures.VIEWS])


@dataclass(frozen=True)
class Latents:
    """Scaled latents: normal and position [S,8,4,32,32]; coloured views and picture [S*COLOURINGS,9,4,32,32]."""

    normal: torch.Tensor
    position: torch.Tensor
    coloured: torch.Tensor


def prepare(bank: Bank, scale: float, seed: int) -> Latents:
    """Encodes every map once, and COLOURINGS random colourings of every solid."""
    rng = np.random.default_rng(seed)
    normal, position, coloured = [], [], []
    for solid in range(len(bank)):
        faces = [bank.surface(solid, v) for v in range(REFERENCE + 1)]
        maps = [
            [(f(s) * 255).astype(np.uint8) for s in faces[:REFERENCE]]
            for f in (pictures.normal_map, pictures.position_map)
        ]
        normal.append(encode(np.stack(maps[0])))
        position.append(encode(np.stack(maps[1])))
        for _ in range(COLOURINGS):
            draw = int(rng.integers(1 << 30))
            looks = [pictures.albedo(np.random.default_rng(draw), s.point) for s in faces]
            coloured.append(encode(np.stack([on_white(c, s.mask) for c, s in zip(looks, faces, strict=True)])))
    parts = (torch.stack(x) * scale for x in (normal, position, coloured))
    return Latents(*parts)


def build() -> UNet2p5DConditionModel:
    """Returns the network with random weights.

    The dual UNet runs only at timestep 0 and with one text. So it shares the main UNet's layers for both. They are a
    third of the file and are stored once.
    """
    model = UNet2p5DConditionModel(UNet2DConditionModel(**CONFIG))
    model.unet.learned_text_clip_gen.data.mul_(0.1)
    model.unet.learned_text_clip_ref.data.mul_(0.1)
    for name, _ in list(model.unet_dual.named_parameters()):
        if any(part in name for part in SHARED):
            owner, leaf = name.rsplit(".", 1)
            setattr(model.unet_dual.get_submodule(owner), leaf, model.unet.get_parameter(name))
    return model


@torch.no_grad()
def fit(data: Latents, scale: float, seed: int, out: Path) -> None:
    """Writes the path of the picture's colours (colour_path) into a fresh network, with three regressions on `data`."""
    torch.manual_seed(seed)
    model = build()
    close_noise(model.unet.conv_in)
    colour_path.open_dual(model)
    colour_path.open_output(model.unet)
    white = linear_paths.GAIN * (1 - linear_paths.MEAN) * scale
    colour_path.open_gate(model.unet, white)
    index, view = torch.randint(len(data.coloured), (60,)), torch.zeros(60, 1, dtype=torch.long)
    solid, latents = index // COLOURINGS, data.coloured[index, REFERENCE]
    darkness = white - latents[:, :3]
    picture = {"inside": (darkness.abs().sum(1) > 0.25).float(), "darkness": darkness}
    colour_path.open_attention(model, picture, {
        "sample": torch.randn_like(latents[:, None]), "timestep": torch.full((60,), 999),
        "encoder_hidden_states": model.unet.learned_text_clip_gen.expand(60, -1, -1), "ref_latents": latents[:, None],
        "ref_scale": torch.ones(60), "camera_info_ref": view, "camera_info_gen": CAMERAS[view],
        "normal_imgs": data.normal[solid, :1], "position_imgs": data.position[solid, :1],
    })  # fmt: skip
    torch.save(model.state_dict(), out)
