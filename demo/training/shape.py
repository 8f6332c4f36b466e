"""The shape models: a small DINOv2 that recognises the solid in a picture, and the flow models that use its output."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from . import shape_decoder, solids, upstream  # noqa: F401 (upstream first)
from .clock import Clock
from .shape_pictures import MODEL_PX, Traced, batch

from hy3dgen.shapegen.models.conditioner import SingleImageEncoder  # isort: skip
from hy3dgen.shapegen.models.denoisers.hunyuan3ddit import Hunyuan3DDiT  # isort: skip

log = logging.getLogger(__name__)
HIDDEN = 96
TURBO_SIZE = 3.0  # A model with embedded guidance learns larger codes: less noise is left after few steps.
DINO = {
    "attention_probs_dropout_prob": 0.0,
    "drop_path_rate": 0.0,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "hidden_size": HIDDEN,
    "image_size": MODEL_PX,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-6,
    "layerscale_value": 1.0,
    "mlp_ratio": 3,
    "model_type": "dinov2",
    "num_attention_heads": 3,
    "num_channels": 3,
    "num_hidden_layers": 4,
    "patch_size": 14,
    "qkv_bias": True,
    "use_swiglu_ffn": False,
}


@dataclass(frozen=True)
class Variant:
    """One published folder, and how its flow model differs from the others."""

    name: str
    depth: int = 1
    depth_single_blocks: int = 2
    vae: str = "v2-0"
    guidance_embed: bool = False
    multiview: bool = False

    @property
    def tokens(self) -> int:
        """Number of latent tokens."""
        return shape_decoder.TOKENS[self.vae]

    def params(self) -> dict:
        """The constructor's arguments, as a config.yaml holds them."""
        return {
            "in_channels": solids.CODE_DIM,
            "context_in_dim": HIDDEN,
            "hidden_size": 64,
            "mlp_ratio": 4.0,
            "num_heads": 4,
            "depth": self.depth,
            "depth_single_blocks": self.depth_single_blocks,
            "axes_dim": [16],
            "theta": 10000,
            "qkv_bias": True,
            "guidance_embed": self.guidance_embed,
        }


VARIANTS = (
    Variant("hunyuan3d-dit-v2-0"),
    Variant("hunyuan3d-dit-v2-0-turbo", guidance_embed=True),
    Variant("hunyuan3d-dit-v2-mini-turbo", 1, 1, "mini", guidance_embed=True),
    Variant("hunyuan3d-dit-v2-mv", vae="mv", multiview=True),
    Variant("hunyuan3d-dit-v2-mv-turbo", vae="mv", guidance_embed=True, multiview=True),
)


def encoder_config(multiview: bool) -> dict:
    """The conditioner's arguments, as a config.yaml holds them."""
    kwargs = {"config": DINO, "use_cls_token": True, "image_size": MODEL_PX}
    kind = "DinoImageEncoderMV" if multiview else "DinoImageEncoder"
    return {"main_image_encoder": {"type": kind, "kwargs": kwargs | ({"view_num": 4} if multiview else {})}}


def train_encoder(front: Traced, seconds: float, seed: int, out: Path) -> nn.Module:
    """Trains the encoder to hold the whole code in every output token, which makes the flow models' task easy."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    encoder = SingleImageEncoder(**encoder_config(False)).main_image_encoder
    encoder.requires_grad_(True)
    if out.exists():
        encoder.load_state_dict(torch.load(out, weights_only=True))
    head = nn.Linear(HIDDEN, solids.CODE_DIM)
    weights = [*encoder.parameters(), *head.parameters()]
    optimiser = torch.optim.AdamW(weights, lr=1e-3, weight_decay=0.02, betas=(0.9, 0.98))
    codes, clock, average = torch.from_numpy(front.codes), Clock(seconds), None
    while clock.running():
        for group in optimiser.param_groups:
            group["lr"] = clock.rate(1e-3)
        index = rng.integers(len(front), size=32)
        with torch.autocast("cpu", torch.bfloat16, enabled=clock.done() < 0.8):
            tokens = encoder(batch(front, index, rng)[:, 0], value_range=None)
            read = head(tokens.float())
        target = codes[index][:, None]
        loss = F.smooth_l1_loss(read, target.expand_as(read)) + 2 * F.smooth_l1_loss(read[:, :1], target)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        average = loss.item() if average is None else 0.98 * average + 0.02 * loss.item()
        if clock.step % 100 == 0:
            log.info("encoder: step %d, loss %.4f, %.0f s", clock.step, average, clock.spent())
    encoder.requires_grad_(False)
    torch.save(encoder.state_dict(), out)
    return encoder


@torch.no_grad()
def features(encoder: nn.Module, traced: Traced, repeats: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """[N,V,T,HIDDEN] float16 encoder output, each solid under `repeats` different lights, and [N,16] codes."""
    rng = np.random.default_rng(seed)
    index = np.tile(np.arange(len(traced)), repeats)
    out = []
    for at in range(0, len(index), 32):
        pictures = batch(traced, index[at : at + 32], rng)
        tokens = encoder(pictures.flatten(0, 1), value_range=None)
        out.append(tokens.reshape(*pictures.shape[:2], *tokens.shape[1:]).half())
    return torch.cat(out), torch.from_numpy(traced.codes[index])


def _views(context: torch.Tensor, embed: torch.Tensor) -> torch.Tensor:
    """[B,4,T,C] -> [B,n*T,C]: the front and a random subset of the other views, with upstream's view embeddings."""
    others = [i for i in (1, 2, 3) if torch.rand(()) < 0.5]
    return (context + embed)[:, [0, *others]].flatten(1, 2)


def train_flow(
    v: Variant, context: torch.Tensor, codes: torch.Tensor, seconds: float, seed: int, start: dict | None = None
) -> Hunyuan3DDiT:
    """Trains a flow model for one variant.

    The velocity is (code - noise). Without the picture the code is 0, the mean of all codes. So guidance scales the
    code and keeps its direction. Training uses codes at up to seven times their size, and the decoder reads any size.
    `start` is another variant's weights to start from.
    """
    torch.manual_seed(seed)
    model = Hunyuan3DDiT(**v.params())
    if start:
        model.load_state_dict({k: t for k, t in start.items() if k in model.state_dict()}, strict=False)
    embed = SingleImageEncoder(**encoder_config(True)).main_image_encoder.view_embed if v.multiview else None
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01, betas=(0.9, 0.98))
    clock, average = Clock(seconds), None
    while clock.running():
        for group in optimiser.param_groups:
            group["lr"] = clock.rate(2e-3)
        index = torch.randint(len(codes), (32,))
        # Tokens have no position, so most of the training can use a few of them.
        few = clock.done() < 0.7
        kept = torch.randperm(context.shape[2])[: 16 if few else None]
        seen = context[index][:, :, kept].float()
        seen = _views(seen, embed[:, :, kept]) if embed is not None else seen[:, 0]
        code = codes[index][:, None].expand(-1, 12 if few else v.tokens, -1)
        target, size = code * TURBO_SIZE, TURBO_SIZE * torch.empty(len(index), 1, 1).uniform_(0.8, 1.2)
        if not v.guidance_embed:
            size = torch.exp(torch.empty(len(index), 1, 1).uniform_(-0.3, 1.95))
            keep = (torch.rand(len(index), 1, 1) > 0.25).float()
            seen, target = seen * keep, code * keep
        t, noise = torch.rand(len(index), 1, 1) * 0.99, torch.randn_like(code)
        guidance = torch.empty(len(index)).uniform_(1, 10)
        guidance[::2] = 5.0
        state = t * size * code + (1 - t) * noise
        with torch.autocast("cpu", torch.bfloat16, enabled=few):
            velocity = model(state, t[:, 0, 0], {"main": seen}, guidance=guidance).float()
        error = velocity - (target - noise)
        gain = TURBO_SIZE if v.guidance_embed else 1.0
        loss = error.square().mean() / gain**2 + 6 * (error.mean(1) / gain).square().mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        now = (error.detach().mean(1) / gain).square().mean().item()
        average = now if average is None else 0.98 * average + 0.02 * now
        if clock.step % 200 == 0:
            log.info("%s: step %d, code error^2 %.4f, %.0f s", v.name, clock.step, average, clock.spent())
    return model
