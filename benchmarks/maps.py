"""Compares the maps that the paint model is shown with those of upstream's own renderer.

    python -W ignore benchmarks/maps.py

Five meshes: closed, open, thin, many charts, and 500,000 faces. Each is drawn from the six standard cameras, at the
render size of the presets and as the model is shown it. A pixel agrees if no channel of the normal map or of the
position map differs by more than 1/255. Pixels that are background in both do not count.

Upstream's custom_rasterizer is used where it is compiled and importable. Otherwise our rasteriser stands in for it. The
result file benchmarks/results/maps.json says which.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "tests" / "core")]

import numpy as np  # noqa: E402  (these need the path above)
import pytest  # noqa: E402
import torch  # noqa: E402
from bake_scenes import VIEW_PX, bowl, bumpy, crowd, dense, shell  # noqa: E402
from PIL import Image  # noqa: E402
from upstream import Upstream, rasterizer_is_compiled  # noqa: E402

from lowvram_core.app.torch_host import TorchHost  # noqa: E402
from lowvram_core.presets import PRESETS, VIEW_SETS  # noqa: E402
from lowvram_core.render.maps import normal_map, position_map  # noqa: E402
from lowvram_core.render.scene import Scene  # noqa: E402
from lowvram_core.stages.unwrap import unwrap  # noqa: E402
from lowvram_core.types import Camera, Mesh  # noqa: E402

log = logging.getLogger("maps")
RESULT = ROOT / "benchmarks" / "results" / "maps.json"
MESHES = {
    "closed": lambda: bumpy(6),
    "open": bowl,
    "thin": shell,
    "many charts": crowd,
    "500,000 faces": dense,
}
TOLERANCE = 1
"""In steps of 1/255."""
Row = dict[str, Any]


def agreement(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> tuple[int, int]:
    """Pixels of the object, and those of them where every channel of all pictures [S,S,3] uint8 agrees."""
    thing = np.zeros(ours[0].shape[:2], bool)
    agrees = np.ones_like(thing)
    for mine, other in zip(ours, theirs, strict=True):
        thing |= (mine != 255).any(axis=-1) | (other != 255).any(axis=-1)
        agrees &= (np.abs(mine.astype(int) - other.astype(int)) <= TOLERANCE).all(axis=-1)
    return int(thing.sum()), int(agrees[thing].sum())


def unwrapped(mesh: Mesh) -> Mesh:
    """The mesh with UVs, its own or uvunwrap's."""
    if mesh.uvs is not None:
        return mesh
    preset = PRESETS["8 GB Full"].with_(unwrapper="uvunwrap")
    return unwrap(mesh, preset, TorchHost(torch.device("cpu"), torch.float32))


def compare(mesh: Mesh, cameras: Sequence[Camera], render_px: int) -> Row:
    """The shares of the object's pixels that agree, over all cameras, as rendered and at VIEW_PX."""
    mesh = unwrapped(mesh)
    pixels, equal, shown, shown_equal = 0, 0, 0, 0
    with pytest.MonkeyPatch.context() as patch:
        upstream = Upstream(mesh, render_px, 64, patch, compiled=rasterizer_is_compiled())
        scene = Scene(mesh)
        for camera in cameras:
            ours = [draw(scene, camera, render_px).numpy() for draw in (normal_map, position_map)]
            theirs = upstream.maps(camera)
            pixels, equal = np.add((pixels, equal), agreement(ours, theirs))
            small = [[np.array(Image.fromarray(one).resize((VIEW_PX, VIEW_PX))) for one in maps]
                     for maps in (ours, theirs)]  # fmt: skip
            shown, shown_equal = np.add((shown, shown_equal), agreement(*small))
    return {
        "faces": len(mesh.faces), "render_px": render_px, "views": len(cameras), "pixels": int(pixels),
        "agree": round(float(equal / pixels), 6), "agree_as_shown": round(float(shown_equal / shown), 6),
    }  # fmt: skip


def main() -> None:
    """Compares the five meshes and writes benchmarks/results/maps.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--meshes", nargs="+", default=list(MESHES), choices=list(MESHES))
    parser.add_argument("--render-px", type=int, default=2048)
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    logging.getLogger("lowvram_core").setLevel(logging.WARNING)
    rows = []
    for name in options.meshes:
        rows.append({"mesh": name} | compare(MESHES[name](), VIEW_SETS["standard"], options.render_px))
        log.info("%s", json.dumps(rows[-1]))
    standing_in = "compiled" if rasterizer_is_compiled() else "ours stands in"
    options.output.write_text(json.dumps({"custom_rasterizer": standing_in, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
