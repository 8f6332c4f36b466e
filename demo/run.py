"""`make demo`: turns the pictures in demo/pictures into textured meshes on the CPU, with the tiny checkpoints in demo/.

It is the command that a user runs, with another models folder. `make demo-turbo`, or --turbo as the first argument,
paints with the turbo paint model.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

DEMO = Path(__file__).resolve().parent
ROOT = DEMO.parent
sys.path[:0] = [str(ROOT), str(DEMO)]

import turbo_model  # noqa: E402  (needs the path above)

from lowvram_core.app.cli import main  # noqa: E402

OUTPUT = ROOT / "output"
PHOTOGRAPH = "ring"


def run(extra: list[str]) -> int:
    """Returns the exit status of the command line. Also copies the mesh of the photograph to demo.glb."""
    is_turbo = extra[:1] == ["--turbo"]
    arguments = [str(DEMO / "pictures"), "--out", str(OUTPUT), "--sheet", str(OUTPUT / "demo.png")]
    arguments += ["--models", str(DEMO), "--offline", "--device", "cpu", "--background-model", "u2netp"]
    if is_turbo:
        turbo_model.write(OUTPUT / "models")
        arguments += ["--models", str(OUTPUT / "models"), "--preset", "8 GB Turbo"]
    else:
        arguments += ["--preset", "8 GB Balanced"]
    status = main([*arguments, *extra[is_turbo:]])
    if status == 0:
        shutil.copyfile(OUTPUT / f"{PHOTOGRAPH}.glb", OUTPUT / "demo.glb")
    return status


if __name__ == "__main__":
    raise SystemExit(run(sys.argv[1:]))
