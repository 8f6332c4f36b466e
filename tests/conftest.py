"""Set-up of every test process."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
for folder in (ROOT, ROOT / "tests", ROOT / "tests" / "devices"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

import cpu_torchvision  # noqa: E402  (needs the path above)

cpu_torchvision.declare()
torch.set_num_threads(1)
