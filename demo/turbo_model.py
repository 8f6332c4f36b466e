"""Makes the demo's turbo paint model from its standard paint model, in the published layout: a float32 pickle.

It is not stored: it differs in three rows of one layer. The standard model writes half of what it reads from the
reference picture, because guidance doubles that. The turbo model has no guidance, so it writes all of it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

DEMO = Path(__file__).resolve().parent
STANDARD = DEMO / "hunyuan3d-paint-v2-0"
READER = "unet.down_blocks.2.attentions.0.transformer_blocks.0.attn_refview.to_out.0"
COLOURS = [0, 6, 12]
"""The channels for red, green and blue, see training/colour_path.py."""


def write(root: Path) -> Path:
    """Writes the model into a models folder, unless it is there. Returns its own folder."""
    folder = root / "hunyuan3d-paint-v2-0-turbo"
    weights = folder / "unet" / "diffusion_pytorch_model.bin"
    if weights.exists():
        return folder
    for part in ("scheduler/scheduler_config.json", "unet/config.json"):
        (folder / part).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(STANDARD / part, folder / part)
    state = torch.load(STANDARD / "unet" / weights.name, weights_only=True)
    whole = {name: value.float() for name, value in state.items()}
    for kind in ("weight", "bias"):
        whole[f"{READER}.{kind}"][COLOURS] *= 2
    part = weights.with_suffix(".part")
    torch.save(whole, part)
    part.replace(weights)
    return folder
