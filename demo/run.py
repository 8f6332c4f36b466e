"""`make demo`: the pictures in demo/pictures to textured meshes, on the CPU, with the tiny checkpoints in demo/.

The same command as a user's run on the real models; only the models folder is another.
"""

from __future__ import annotations

import sys
from pathlib import Path

DEMO = Path(__file__).resolve().parent
ROOT = DEMO.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import cpu_torchvision  # noqa: E402  (needs the path above)

cpu_torchvision.declare()

from lowvram_core.cli import main  # noqa: E402  (needs the declaration above)

OUTPUT = ROOT / "output"

if __name__ == "__main__":
    arguments = [str(DEMO / "pictures"), "--out", str(OUTPUT), "--sheet", str(OUTPUT / "demo.png")]
    arguments += ["--models", str(DEMO), "--offline", "--device", "cpu", "--background-model", "u2netp"]
    raise SystemExit(main([*arguments, "--preset", "8 GB Balanced", *sys.argv[1:]]))
