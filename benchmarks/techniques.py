"""Each technique with and without: MiB at the published sizes, seconds and PSNR on the demo's small networks.

    python benchmarks/techniques.py

MiB: computed, on the device that counts bytes, through the stage functions; the peak while a component is lent.
Seconds and PSNR: measured on this computer's CPU, one thread, float32, with demo/'s checkpoints; no measure of a GPU.
Writes benchmarks/results/techniques.json.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import torch  # noqa: E402  (needs the path above)
import vram  # noqa: E402
from PIL import Image  # noqa: E402
from scales import CountingScale  # noqa: E402

from lowvram_core.models.store import ModelStore  # noqa: E402
from lowvram_core.pictures import cutout_from_rgba  # noqa: E402
from lowvram_core.presets import PRESETS, Preset  # noqa: E402
from lowvram_core.stages import multiview, shape  # noqa: E402
from lowvram_core.torch_host import TorchHost  # noqa: E402

BASE = PRESETS["4 GB"]
Row = dict[str, Any]


@dataclass(frozen=True)
class Technique:
    """What is switched, and the component that shows it."""

    name: str
    component: str
    """The end of the component's key."""
    off: Preset
    on: Preset


DIT, SHAPE_VAE, PAINT = ":model:torch.float16", ":vae:torch.float16", ":main:torch.float16"
PAINT_VAE = "paint-v2-0/vae/diffusion_pytorch_model.safetensors:torch.float16"
TECHNIQUES = (
    Technique("guidance halves, shape DiT", DIT, BASE.with_(cfg_together=True), BASE),
    Technique("guidance halves, paint UNet", PAINT, BASE.with_(cfg_together=True), BASE),
    Technique("streaming, shape DiT", DIT, BASE, BASE.with_(residency="stream")),
    Technique("streaming, paint UNet", PAINT, BASE, BASE.with_(residency="stream")),
    Technique("2,000 instead of 8,000 points per chunk", SHAPE_VAE, BASE, BASE.with_(points_per_chunk=2000)),
    Technique("VAE slicing, six views", PAINT_VAE, BASE.with_(vae_slicing=False), BASE),
    Technique("VAE tiles of 256 px", PAINT_VAE, BASE, BASE.with_(vae_tile_px=256)),
    Technique("one view at a time", PAINT, BASE, BASE.with_(view_by_view=True)),
    Technique("four views instead of six", PAINT, BASE, BASE.with_(views="fast")),
    Technique("attention slicing beside a fused kernel", PAINT, BASE, BASE.with_(attention="sliced")),
)


def peaks(preset: Preset, store: ModelStore) -> dict[str, int]:
    """Bytes by component."""
    scale = CountingScale()
    with scale.weighing():
        host = scale.host(residency=preset.residency)
        vram.run_ours(vram.few(preset), store, host, geometry=False)
    return host.peaks


def memory_rows(store: ModelStore) -> list[Row]:
    """MiB with and without each technique."""
    known: dict[Preset, dict[str, int]] = {}
    rows = []
    for technique in TECHNIQUES:
        mib = []
        for preset in (technique.off, technique.on):
            if preset not in known:
                known[preset] = peaks(preset, store)
            mib.append(next(size for key, size in known[preset].items() if key.endswith(technique.component)) / 2**20)
        rows.append({"technique": technique.name, "without_mib": round(mib[0], 1), "with_mib": round(mib[1], 1)})
    return rows


def best_of(runs: int, call: Any) -> float:
    """Seconds of the fastest of several calls."""
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def picture() -> Image.Image:
    """The demo's picture with a transparent background."""
    return Image.open(HERE.parent / "demo" / "pictures" / "capsule.png").convert("RGBA")


def painted(preset: Preset, store: ModelStore) -> torch.Tensor:
    """[N,512,512,3] of the demo's picture on a ball."""
    host = TorchHost(torch.device("cpu"))
    return multiview.paint_views(vram.a_mesh(), cutout_from_rgba(picture()), preset, host, store).images


def psnr(one: torch.Tensor, other: torch.Tensor) -> float:
    """dB between pictures in 0..1."""
    error = float(((one - other) ** 2).mean())
    return 99.0 if error == 0 else -10 * torch.log10(torch.tensor(error)).item()


def lossy_rows(store: ModelStore) -> list[Row]:
    """What the labelled options change in the painted views."""
    preset = BASE.with_(render_px=512, multiview_steps=4)
    whole = painted(preset, store)
    options = {"VAE tiles of 256 px": {"vae_tile_px": 256}, "one view at a time": {"view_by_view": True}}
    return [
        {"option": name, "psnr_db": round(psnr(painted(preset.with_(**values), store), whole), 1)}
        for name, values in options.items()
    ]


def sample_seconds(preset: Preset, store: ModelStore) -> float:
    """Of the shape transformer's steps alone."""
    host = TorchHost(torch.device("cpu"))
    shape.generate_shape(cutout_from_rgba(picture()), preset, host, store)
    return next(record.seconds for record in host.records if record.name == "sample")


def second_rows(store: ModelStore) -> list[Row]:
    """Seconds with and without, on the demo's networks."""
    plain = BASE.with_(octree=32, shape_steps=11, multiview_steps=3, render_px=256, views="fast")
    with patch.object(shape, "_ends_in_a_step_of_no_length", lambda scheduler: False):
        with_idle_step = min(sample_seconds(plain, store) for _ in range(3))
    rows = [{
        "technique": "last Euler step of no length skipped, 11 steps", "without_s": with_idle_step,
        "with_s": min(sample_seconds(plain, store) for _ in range(3)),
    }]  # fmt: skip
    with patch.object(multiview, "without_reference", lambda main: nullcontext()):
        both = best_of(2, lambda: painted(plain, store))
    rows.append({"technique": "reference attention of the unconditional half skipped", "without_s": both,
                 "with_s": best_of(2, lambda: painted(plain, store))})  # fmt: skip
    compiled = plain.with_(compile_shape=True, shape_steps=21)
    first = sample_seconds(compiled, store)
    again = sample_seconds(compiled, store)
    eager = min(sample_seconds(compiled.with_(compile_shape=False), store) for _ in range(2))
    rows.append({"technique": "torch.compile, 20 passes: first run", "without_s": eager, "with_s": first})
    rows.append({"technique": "torch.compile, 20 passes: next run, the network loaded anew", "without_s": eager,
                 "with_s": again})  # fmt: skip
    return [{key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()} for row in rows]


def main() -> None:
    """Prints the rows and writes them."""
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        vram.write_models(Path(folder), [BASE], sparse=True)
        found = {"mib": memory_rows(ModelStore([folder], offline=True))}
    demo = ModelStore([HERE.parent / "demo"], offline=True)
    found |= {"seconds_on_this_cpu": second_rows(demo), "lossy": lossy_rows(demo)}
    text = json.dumps(found, indent=1)
    sys.stdout.write(text + "\n")
    (HERE / "results" / "techniques.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
