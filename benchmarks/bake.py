"""Bakes known colours onto meshes that are hard to bake: ours beside upstream's own code.

    make bench-bake                                   the meshes at 1024 px, one of them at 2048 px
    make bench-bake BAKE="--meshes carved --texture-px 2048"

Upstream's custom_rasterizer and mesh_processor are used where they are compiled and importable. Otherwise our
rasteriser stands in for the first, and upstream's Python version for the second; the result file says so. Each stage
of upstream runs right after ours. On the CPU everything uses one thread, and seconds are the process's own CPU time,
which other programs disturb little. On a GPU they are wall time. ours_torch_s is ours without numba; ours_s is with
numba where it is installed, after its machine code was loaded.

Peaks are MiB: on a GPU what torch allocated on it, on the CPU the growth of the process's resident memory.
PSNR is that of texels which both see, before rounding to bytes, and of texels which neither sees, in dB.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import json
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "tests" / "core")]

import pytest  # noqa: E402  (these need the path above)
import torch  # noqa: E402
from bake_scenes import SOLIDS, paint, truth  # noqa: E402
from PIL import Image  # noqa: E402
from resident import reset_peak, resident_mib  # noqa: E402
from torch import Tensor  # noqa: E402
from upstream import Upstream  # noqa: E402

from lowvram_core.app.torch_host import TorchHost  # noqa: E402
from lowvram_core.pictures.convert import pil_from_image  # noqa: E402
from lowvram_core.presets import PRESETS, VIEW_SETS, Preset  # noqa: E402
from lowvram_core.render import compiled as kernels  # noqa: E402
from lowvram_core.render.maps import normal_map, position_map  # noqa: E402
from lowvram_core.render.preview import render_textured  # noqa: E402
from lowvram_core.render.scene import Scene  # noqa: E402
from lowvram_core.stages.bake import bake  # noqa: E402
from lowvram_core.stages.inpaint import inpaint  # noqa: E402
from lowvram_core.stages.unwrap import unwrap  # noqa: E402
from lowvram_core.types import Atlas, Camera, Mesh, Views  # noqa: E402

log = logging.getLogger("bake")
RESULT = ROOT / "benchmarks" / "results" / "bake.json"
CAMERAS = VIEW_SETS["standard"]
STAGES = ("maps", "bake", "inpaint")
WRONG = 0.3
TILE_PX = 320
POSE = (40, 25)
"""Azimuth and elevation, between the painted views."""
Row = dict[str, Any]


def compiled(name: str) -> Any:
    """The extension module of upstream, or None."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


class Meter:
    """Measures the seconds and the peak of calls on a device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = 0.0
        self.peak_mib = 0.0

    def run(self, call: Callable[[], Any]) -> Any:
        """The call's result; its seconds and peak are kept."""
        on_gpu = self.device.type == "cuda"
        if on_gpu:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        before, begin = self._resident(reset=True), self._now()
        result = call()
        if on_gpu:
            torch.cuda.synchronize()
        self.seconds = self._now() - begin
        used = torch.cuda.max_memory_allocated() if on_gpu else self._resident() - before
        self.peak_mib = used / 2**20
        return result

    def _now(self) -> float:
        return time.perf_counter() if self.device.type == "cuda" else time.process_time()

    @staticmethod
    def _resident(*, reset: bool = False) -> int:
        """Bytes: the most since the last reset; with `reset` those of now."""
        if reset:
            if sys.platform == "linux":
                ctypes.CDLL(None).malloc_trim(0)  # memory that is only kept for later would hide the growth
            reset_peak()
        return int(resident_mib("VmHWM") * 2**20)


def psnr(error: Tensor) -> float | None:
    """dB, or None where nothing was compared."""
    return round(float(-10 * torch.log10(error.square().mean().clamp(min=1e-12))), 2) if error.numel() else None


def draw_maps(scene: Scene, px: int) -> None:
    """The normal map and the position map of each camera."""
    for camera in CAMERAS:
        normal_map(scene, camera, px)
        position_map(scene, camera, px)


def compare(name: str, preset: Preset, device: torch.device, tiles: list[Mesh]) -> list[Row]:
    """One mesh through both: a row for each stage. Appends it with upstream's texture and with ours to `tiles`."""
    solid, host = SOLIDS[name](), TorchHost(device, torch.float32)
    mesh = unwrap(solid.mesh, preset, TorchHost(torch.device("cpu"), torch.float32))
    views = paint(solid, mesh, CAMERAS)
    colours, inside = truth(solid, mesh, preset.texture_px)
    meter, rows = Meter(device), [
        {"mesh": name, "faces": len(mesh.faces), "texture_px": preset.texture_px, "stage": stage} for stage in STAGES
    ]  # fmt: skip

    def keep(stage: str, whose: str, call: Callable[[], Any]) -> Any:
        result, row = meter.run(call), rows[STAGES.index(stage)]
        row[f"{whose}_s"], row[f"{whose}_peak_mib"] = round(meter.seconds, 2), round(meter.peak_mib)
        if whose == "ours" and device.type == "cpu":
            with patch.context() as without:
                without.setattr(kernels, "_kernel", lambda function: None)
                meter.run(call)
            row["ours_torch_s"] = round(meter.seconds, 2)
        return result

    with pytest.MonkeyPatch.context() as patch:
        upstream = _upstream(mesh, preset, patch)
        keep("maps", "ours", lambda: draw_maps(Scene(mesh, device), preset.render_px))
        keep("maps", "upstream", lambda: [upstream.maps(camera) for camera in CAMERAS])
        atlas = keep("bake", "ours", lambda: bake(mesh, views, preset, host))
        theirs = _theirs(upstream, views, keep)
        textured = keep("inpaint", "ours", lambda: inpaint(mesh, atlas, host)).texture
        filled = keep("inpaint", "upstream", lambda: upstream.inpaint(theirs.texture, theirs.seen)) if theirs else None
    for texture in (filled, textured):
        tiles.append(mesh.with_(texture=textured * 0 + 0.5 if texture is None else texture))
    rows[1] |= _seen(atlas, theirs, colours, inside)
    rows[2] |= _holes(atlas, theirs, textured, filled, colours, inside)
    return rows


def _upstream(mesh: Mesh, preset: Preset, patch: pytest.MonkeyPatch) -> Upstream:
    upstream = Upstream(
        mesh, preset.render_px, preset.texture_px, patch, compiled=compiled("custom_rasterizer") is not None
    )
    if (processor := compiled("mesh_processor")) is not None:
        patch.setattr(sys.modules["upstream_render.mesh_render"], "meshVerticeInpaint", processor.meshVerticeInpaint)
    return upstream


def _theirs(upstream: Upstream, views: Views, keep: Callable[..., Any]) -> Atlas | None:
    """What upstream bakes; None where it fails: it cannot bake a card, which a view sees edge-on."""
    pictures = [Image.fromarray((image * 255).round().byte().numpy()) for image in views.images]
    try:
        return Atlas(*keep("bake", "upstream", lambda: upstream.bake(pictures, CAMERAS)))
    except RuntimeError as error:
        log.info("upstream's bake failed: %s", str(error).splitlines()[0])
        return None


def _seen(atlas: Atlas, theirs: Atlas | None, colours: Tensor, inside: Tensor) -> Row:
    both = inside & atlas.seen & (theirs.seen if theirs else inside)
    row: Row = {
        "psnr_seen_ours": psnr((atlas.texture - colours)[both]),
        "coverage_ours": round(float(atlas.seen[inside].float().mean()), 4),
    }
    if theirs:
        row["psnr_seen_upstream"] = psnr((theirs.texture - colours)[both])
        row["coverage_upstream"] = round(float(theirs.seen[inside].float().mean()), 4)
    return row


def _holes(
    atlas: Atlas, theirs: Atlas | None, ours: Tensor, upstreams: Tensor | None, colours: Tensor, inside: Tensor
) -> Row:
    hole = inside & ~atlas.seen & ~(theirs.seen if theirs else ~inside)
    row: Row = {"hole_share": round(float(hole.sum() / inside.sum()), 4)}
    for whose, texture in (("ours", ours), ("upstream", upstreams)):
        if texture is not None and bool(hole.any()):
            error = (texture - colours)[hole]
            row[f"psnr_hole_{whose}"] = psnr(error)
            row[f"wrong_hole_{whose}"] = round(float((error.abs().amax(dim=1) > WRONG).float().mean()), 4)
    return row


def draw(tiles: list[Mesh]) -> Image.Image:
    """Each mesh from one camera: with upstream's texture in the upper row, with ours in the lower."""
    sheet = Image.new("RGB", (len(tiles) // 2 * TILE_PX, 2 * TILE_PX), "white")
    for index, mesh in enumerate(tiles):
        picture = pil_from_image(render_textured(mesh, Camera(*POSE), TILE_PX))
        sheet.paste(picture, (index // 2 * TILE_PX, index % 2 * TILE_PX))
    return sheet


def main() -> None:
    """Measures every mesh and writes benchmarks/results/bake.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--meshes", nargs="+", default=list(SOLIDS), choices=list(SOLIDS))
    parser.add_argument("--texture-px", type=int, nargs="+", default=[1024])
    parser.add_argument("--large", nargs="*", default=["carved"], help="meshes that are measured at 2048 px, too")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--picture", type=Path, help="upstream's textures above ours")
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    logging.getLogger("lowvram_core").setLevel(logging.WARNING)
    device = torch.device(options.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
    runs = [(name, px) for px in options.texture_px for name in options.meshes]
    rows: list[Row] = []
    tiles: list[Mesh] = []
    base = PRESETS["8 GB Full"].with_(unwrapper="uvunwrap")
    compare("slab", base.with_(render_px=64, texture_px=64), device, [])  # loads the machine code
    for name, px in runs + [(name, 2048) for name in options.large if (name, 2048) not in runs]:
        preset = base.with_(render_px=px, texture_px=px)
        for row in compare(name, preset, device, tiles):
            rows.append(row)
            log.info("%s", json.dumps(row))
    if options.picture:
        draw(tiles).save(options.picture, quality=85)
    result = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU, one thread",
        "load_average": round(os.getloadavg()[0], 1),
        "custom_rasterizer": "compiled" if compiled("custom_rasterizer") else "ours stands in",
        "mesh_processor": "compiled" if compiled("mesh_processor") else "upstream's Python version",
        "rows": rows,
    }
    options.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
