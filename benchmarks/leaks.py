"""Runs the whole pipeline many times with tiny networks: bytes left on a counting device, and growth of RAM.

    python benchmarks/leaks.py [--runs 100]

Writes benchmarks/results/leaks.json. The slope is the growth of the resident set after the first tenth of the runs.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).resolve().parent
TESTS = HERE.parent / "tests"
sys.path[:0] = [str(HERE.parent), str(TESTS), str(TESTS / "core"), str(TESTS / "devices")]

import numpy as np  # noqa: E402  (needs the path above)
import psutil  # noqa: E402
import tiny  # noqa: E402
import torch  # noqa: E402
from counted import counted, ledger  # noqa: E402
from PIL import Image, ImageDraw  # noqa: E402

from lowvram_core.app.pipeline import run  # noqa: E402
from lowvram_core.app.torch_host import TorchHost  # noqa: E402
from lowvram_core.files.store import ModelStore  # noqa: E402
from lowvram_core.presets import PRESETS  # noqa: E402

PRESET = PRESETS["4 GB"].with_(
    octree=20, shape_steps=2, delight_steps=1, paint_steps=1, render_px=64, texture_px=64, views="minimal",
    face_budget=200, unwrapper="uvunwrap",
)  # fmt: skip


def picture() -> Image.Image:
    """A disc on a transparent background."""
    image = Image.new("RGBA", (96, 96), (0, 0, 0, 0))
    ImageDraw.Draw(image).ellipse((10, 10, 86, 86), fill=(200, 80, 40, 255))
    return image


def measure(runs: int) -> dict[str, object]:
    """The most bytes left on the device after a run, and how the resident set grows."""
    left, resident = [], []
    with TemporaryDirectory() as folder, counted() as device:
        store = ModelStore([tiny.make_all(Path(folder))], offline=True)
        for index in range(runs):
            host = TorchHost(device, torch.float32, ("free", "stream", "keep")[index % 3])
            run(picture(), PRESET, host, store)
            host.release()
            del host
            gc.collect()
            left.append(ledger.current)
            resident.append(psutil.Process().memory_info().rss)
    settled = resident[max(1, runs // 10) :]
    slope = float(np.polyfit(np.arange(len(settled)), settled, 1)[0])
    return {
        "runs": runs, "bytes_left_on_the_device": max(left), "rss_mib_first": round(settled[0] / 2**20, 1),
        "rss_mib_last": round(settled[-1] / 2**20, 1),
        "rss_slope_percent_per_100_runs": round(100 * 100 * slope / settled[0], 3),
    }  # fmt: skip


def main() -> None:
    """Prints and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = json.dumps(measure(options.runs), indent=1)
    sys.stdout.write(found + "\n")
    (HERE / "results" / "leaks.json").write_text(found + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
