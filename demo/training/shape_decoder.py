"""The shape autoencoder's decoder: the same code in every latent token -> a scaled, clamped signed distance."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch

from . import solids, upstream  # noqa: F401 (upstream first: it makes hy3dgen importable)
from .clock import Clock

from hy3dgen.shapegen.models.autoencoders import ShapeVAE  # isort: skip

log = logging.getLogger(__name__)
TOKENS = {"v2-0": 32, "mini": 16, "mv": 32}
STEEPNESS = 12.0  # Logits per unit of distance, clamped at +-1.5.
PARAMS = {
    "embed_dim": solids.CODE_DIM,
    "width": 64,
    "heads": 4,
    "num_decoder_layers": 2,
    "geo_decoder_mlp_expand_ratio": 4,
    "num_freqs": 4,
    "include_pi": False,
    "qkv_bias": False,
    "qk_norm": True,
}


def params(num_latents: int, scale_factor: float) -> dict:
    """The constructor's arguments, as a config.yaml holds them."""
    return {"num_latents": num_latents, "scale_factor": scale_factor, "label_type": "binary", **PARAMS}


def _points(rng: np.random.Generator, solid: solids.Solid, count: int) -> np.ndarray:
    """[count, 3] points: two thirds near the surface, the rest anywhere in upstream's box."""
    p = rng.uniform(-1.02, 1.02, (count * 4, 3)).astype(np.float32)
    d = solids.sdf(solid, p)
    near = np.argsort(np.abs(d))[: count * 2 // 3]
    return np.concatenate([p[near], p[-(count - len(near)) :]])


def examples(count: int, per_solid: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """[S,16] codes, [S,P,3] points, [S,P] target logits (positive inside)."""
    rng = np.random.default_rng(seed)
    codes, points, logits = [], [], []
    for _ in range(count):
        s = solids.sample(rng, free_depth=bool(rng.random() < 0.5))
        p = _points(rng, s, per_solid)
        codes.append(solids.code(s))
        points.append(p)
        logits.append(np.clip(-solids.sdf(s, p) * STEEPNESS, -1.5, 1.5))
    return tuple(torch.from_numpy(np.stack(x).astype(np.float32)) for x in (codes, points, logits))


def _latents(code: torch.Tensor, tokens: int) -> torch.Tensor:
    """[B,16] -> [B,tokens,16] as sampling leaves them: at any scale (guidance scales the code), with some noise."""
    scale = torch.exp(torch.empty(len(code), 1, 1).uniform_(-0.5, 2.0))
    shared = torch.randn(len(code), 1, code.shape[1]) * 0.15
    noise = torch.randn(len(code), tokens, code.shape[1]) * torch.rand(len(code), 1, 1) * 1.0
    return (code[:, None] + shared) * scale + noise * scale.clamp(max=1.5)


def train(seconds: float, seed: int, out: Path) -> ShapeVAE:
    """Trains for about `seconds` of CPU time."""
    torch.manual_seed(seed)
    data = examples(4000, 3000, seed)
    vae = ShapeVAE(**params(TOKENS["v2-0"], 1.0))
    if out.exists():
        vae.load_state_dict(torch.load(out, weights_only=True))
    optimiser = torch.optim.AdamW(vae.parameters(), lr=3e-3, weight_decay=1e-4, betas=(0.9, 0.98))
    clock, average = Clock(seconds, 100), None
    while clock.running():
        for group in optimiser.param_groups:
            group["lr"] = clock.rate(3e-3)
        solid = torch.randint(len(data[0]), (24,))
        pick = torch.randint(data[1].shape[1], (24, 512))
        points = data[1][solid[:, None], pick]
        target = data[2][solid[:, None], pick]
        tokens = TOKENS["mini"] if clock.step % 4 == 0 else TOKENS["v2-0"]
        latents = vae(_latents(data[0][solid], tokens))
        predicted = vae.geo_decoder(queries=points, latents=latents)[..., 0]
        loss = (predicted - target).abs().mean() + (predicted - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimiser.step()
        average = loss.item() if average is None else 0.99 * average + 0.01 * loss.item()
        if clock.step % 500 == 0:
            log.info("shape decoder: step %d, loss %.4f, %.0f s", clock.step, average, clock.spent())
    torch.save(vae.state_dict(), out)
    return vae
