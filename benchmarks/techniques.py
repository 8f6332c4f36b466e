"""Measures each technique off and on: MiB at the published sizes, seconds and PSNR on the demo's small networks.

    python benchmarks/techniques.py               all
    python benchmarks/techniques.py --seconds     measures only the seconds again; nothing else may run on the computer

MiB are computed: the stage functions run on a device that counts bytes. They are the peak while a component is lent, or
the peak of reserved memory. Seconds and PSNR are measured on this computer's CPU with one thread, in float32, with the
checkpoints in demo/. Each is the fastest of three runs. They say little about a GPU. Writes
benchmarks/results/techniques.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import torch  # noqa: E402  (needs the path above)
import torch._inductor.config  # noqa: E402
import vram  # noqa: E402
from PIL import Image  # noqa: E402
from scales import CountingScale, SizingHost  # noqa: E402

from lowvram_core.app.torch_host import TorchHost  # noqa: E402
from lowvram_core.files.store import ModelStore  # noqa: E402
from lowvram_core.pictures.convert import cutout_from_rgba  # noqa: E402
from lowvram_core.presets import PRESETS, Preset  # noqa: E402
from lowvram_core.stages import delight, paint, shape  # noqa: E402

BASE = PRESETS["4 GB"]
DEMO = {"octree": 64, "shape_steps": 11, "delight_steps": 3, "paint_steps": 3, "render_px": 256}
"""Settings that are small enough for a CPU."""
DIT, SHAPE_VAE, PAINT, DUAL = (f":{part}:torch.float16" for part in ("model", "vae", "main", "dual"))
PAINT_VAE = "paint-v2-0/vae/diffusion_pytorch_model.safetensors:torch.float16"
ONLY_GPU = "a CPU has no weights to bring"
ALL = ("shape", "delight", "paint")
Row = dict[str, Any]


@dataclass(frozen=True)
class Technique:
    """A technique, the preset value that switches it, and the component and phase that show its effect."""

    name: str
    switch: str
    """The field of Preset."""
    phase: str
    """The phase whose seconds are taken. Empty: all phases with networks."""
    component: str = ""
    """The end of the key of the component whose memory is taken. Empty: the largest peak."""
    off: Mapping[str, Any] = field(default_factory=dict)
    on: Mapping[str, Any] = field(default_factory=dict)
    no_seconds: str = ""
    """Why the seconds are not measured."""
    reserved: bool = False
    """Whether the MiB are reserved memory."""

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages that have to run."""
        return tuple(stage for stage in ALL if not self.phase or self.phase in vram.STAGES[stage])


STREAM = {"residency": "stream"}
TECHNIQUES = (
    Technique("one component at a time, given back after its phase; without: left there", "residency", "", "",
              {"residency": "keep"}, {}),
    Technique("streaming, shape DiT", "residency", "sample", DIT, {}, STREAM, no_seconds=ONLY_GPU),
    Technique("streaming, paint UNet", "residency", "paint", PAINT, {}, STREAM, no_seconds=ONLY_GPU),
    Technique("next layer's weights on their way, shape DiT", "prefetch", "sample", DIT,
              {**STREAM, "prefetch": False}, STREAM, no_seconds=ONLY_GPU),
    Technique("next layer's weights on their way, paint UNet", "prefetch", "paint", PAINT,
              {**STREAM, "prefetch": False}, STREAM, no_seconds=ONLY_GPU),
    Technique("guidance halves, shape DiT", "cfg_together", "sample", DIT, {"cfg_together": True}),
    Technique("guidance halves, paint UNet", "cfg_together", "paint", PAINT, {"cfg_together": True}),
    Technique("guidance halves inside each streamed block, shape DiT", "cfg_together", "sample", DIT,
              {**STREAM, "cfg_together": True}, STREAM),
    Technique("guidance halves inside each streamed block, paint UNet", "cfg_together", "paint", PAINT,
              {**STREAM, "cfg_together": True}, STREAM),
    Technique("last Euler step of no length skipped", "skip_last_step", "sample", DIT, {"skip_last_step": False}),
    Technique("2,000 instead of 8,000 points per chunk", "points_per_chunk", "decode", SHAPE_VAE, {},
              {"points_per_chunk": 2000}),
    Technique("keys and values of the decoder once", "keys_once", "decode", SHAPE_VAE, {"keys_once": False}),
    Technique("logits on the host, octree 384", "logits_on_host", "decode", SHAPE_VAE,
              {"logits_on_host": False, "octree": 384}, {"octree": 384}, no_seconds="host and device are one on a CPU"),
    Technique("reference read once, dual UNet gone before the main one", "reference_once", "paint", PAINT,
              {"reference_once": False}),
    Technique("no reference for the unconditional half, dual UNet", "skip_unguided_reference", "paint", DUAL,
              {"skip_unguided_reference": False}),
    Technique("no reference for the unconditional half, paint UNet", "skip_unguided_reference", "paint", PAINT,
              {"skip_unguided_reference": False}),
    Technique("VAE slicing, six views", "vae_slicing", "paint", PAINT_VAE, {"vae_slicing": False}),
    Technique("VAE tiles of 256 px (lossy)", "vae_tile_px", "paint", PAINT_VAE, {}, {"vae_tile_px": 256}),
    Technique("one view at a time (lossy)", "view_by_view", "paint", PAINT, {}, {"view_by_view": True}),
    Technique("four views instead of six (lossy)", "views", "paint", PAINT, {}, {"views": "fast"}),
    Technique("attention sliced, beside a fused kernel", "attention", "paint", PAINT, {}, {"attention": "sliced"}),
    Technique("float16 instead of float32", "precision", "", "", {"precision": "float32"}, {},
              no_seconds="a CPU's float16 says nothing of a GPU's"),
    Technique("cache emptied at stage borders; MiB reserved", "", "", reserved=True, no_seconds="a CPU has no cache"),
)  # fmt: skip


def run_stages(stages: tuple[str, ...], preset: Preset, store: ModelStore, host: TorchHost) -> None:
    """Runs these stages with the demo's picture and a ball."""
    mesh, cutout = vram.a_mesh(), cutout_from_rgba(picture())
    if "shape" in stages:
        with vram.without_surface(mesh):
            shape.generate_shape(cutout, preset, host, store)
    if "delight" in stages:
        delight.delight(cutout, preset, host, store)
    if "paint" in stages:
        paint.paint_views(mesh, cutout, preset, host, store)


@contextmanager
def cache_kept() -> Iterator[None]:
    """Within it, the allocator's cache is not emptied."""
    with patch.object(TorchHost, "_empty_cache", lambda host: None):
        yield


def weighed(technique: Technique, preset: Preset, store: ModelStore) -> SizingHost:
    """The host after the technique's stages at the published sizes. It has the peaks by component."""
    few = vram.few(preset)
    if "octree" in technique.on:
        few = few.with_(octree=preset.octree)
    scale = CountingScale()
    with scale.weighing():
        precision = torch.float32 if preset.precision == "float32" else torch.float16
        host = SizingHost(scale.device, precision, residency=preset.residency, scale=scale)
        run_stages(technique.stages, few, store, host)
        host.release()
    return host


def mib_of(technique: Technique, host: SizingHost) -> float:
    """The peak of the technique's component."""
    if technique.reserved:
        return max(peaks["reserved"] for peaks in host.beside.values())
    found = [size for key, size in host.peaks.items() if key.endswith(technique.component)]
    return max(found) / 2**20


def memory(technique: Technique, store: ModelStore, known: dict[Any, SizingHost]) -> list[float]:
    """MiB without and with the technique."""
    found = []
    for changes, is_on in ((technique.off, False), (technique.on, True)):
        preset = BASE.with_(**changes)
        with cache_kept() if technique.reserved and not is_on else nullcontext():
            key = (technique.stages, preset, technique.reserved and not is_on)
            if key not in known:
                known[key] = weighed(technique, preset, store)
        found.append(round(mib_of(technique, known[key]), 1))
    return found


def picture() -> Image.Image:
    """The demo's picture with a transparent background."""
    return Image.open(HERE.parent / "demo" / "pictures" / "capsule.png").convert("RGBA")


def run_seconds(technique: Technique, preset: Preset, store: ModelStore, host: TorchHost) -> float:
    """Seconds of the technique's phase, or of all phases."""
    host.records.clear()
    run_stages(technique.stages, preset, store, host)
    phases = [technique.phase] if technique.phase else [phase for stage in ALL for phase in vram.STAGES[stage]]
    return sum(record.seconds for record in host.records if record.name in phases)


def seconds(technique: Technique, store: ModelStore) -> list[float]:
    """Seconds without and with the technique: the fastest of three runs each. The first loads what is kept."""
    presets = [BASE.with_(**{**changes, **DEMO}) for changes in (technique.off, technique.on)]
    hosts = [TorchHost(torch.device("cpu"), residency=preset.residency) for preset in presets]
    turns = [[run_seconds(technique, preset, store, host) for preset, host in zip(presets, hosts, strict=True)]
             for _ in range(3)]  # fmt: skip
    for host in hosts:
        host.release()
    return [round(min(found), 3) for found in zip(*turns, strict=True)]


def painted(preset: Preset, store: ModelStore) -> torch.Tensor:
    """[N,512,512,3] views of a ball, painted from the demo's picture."""
    host = TorchHost(torch.device("cpu"))
    return paint.paint_views(vram.a_mesh(), cutout_from_rgba(picture()), preset, host, store).images


def psnr(one: torch.Tensor, other: torch.Tensor) -> float:
    """Returns the PSNR of pictures in 0..1, in dB."""
    error = float(((one - other) ** 2).mean())
    return 99.0 if error == 0 else -10 * torch.log10(torch.tensor(error)).item()


def lossy_rows(store: ModelStore) -> list[Row]:
    """How much each lossy option changes the painted views."""
    preset = BASE.with_(render_px=512, paint_steps=4)
    whole = painted(preset, store)
    options = {"VAE tiles of 256 px": {"vae_tile_px": 256}, "one view at a time": {"view_by_view": True}}
    return [
        {"option": name, "psnr_db": round(psnr(painted(preset.with_(**values), store), whole), 1)}
        for name, values in options.items()
    ]


def compile_row(store: ModelStore) -> Row:
    """torch.compile: the first run, and one after the network was loaded again."""
    technique = Technique("torch.compile, 20 passes", "compile_shape", "sample")
    preset = BASE.with_(**{**DEMO, "shape_steps": 21})

    def run(preset: Preset) -> float:
        return run_seconds(technique, preset, store, TorchHost(torch.device("cpu")))

    compiled = preset.with_(compile_shape=True)
    torch._inductor.config.force_disable_caches = True  # ignores what earlier processes left on the disk
    first, again = run(compiled), min(run(compiled) for _ in range(2))
    return {"technique": technique.name, "switch": technique.switch, "mib": None,
            "seconds": [round(min(run(preset) for _ in range(2)), 3), round(again, 3)],
            "why": f"first run {first:.1f} s; nothing is compiled for a device that only counts"}  # fmt: skip


def line(row: Row) -> str:
    """Formats a row of docs/techniques.md."""
    mib, taken = (["-", "-"] if row[key] is None else row[key] for key in ("mib", "seconds"))
    cells = [f"{value:,.0f}" if isinstance(value, float) else value for value in mib]
    cells += [f"{value:.3g}" if isinstance(value, float) else value for value in taken]
    return f"| {row['technique']} | {row['switch'] or '-'} | {' | '.join(cells)} | {row['why'] or ''} |"


def measured(demo: ModelStore, before: Mapping[str, Row] | None) -> list[Row]:
    """One row for each technique.

    Args:
        before: earlier rows; their MiB are kept.
    """
    known: dict[Any, SizingHost] = {}
    rows: list[Row] = []
    with TemporaryDirectory() as folder:
        vram.write_models(Path(folder), [BASE], sparse=True)
        store = ModelStore([folder], offline=True)
        for technique in TECHNIQUES:
            mib = memory(technique, store, known) if before is None else before[technique.name]["mib"]
            rows.append({
                "technique": technique.name, "switch": technique.switch or None, "mib": mib,
                "seconds": None if technique.no_seconds else seconds(technique, demo),
                "why": technique.no_seconds or None,
            })  # fmt: skip
            sys.stdout.write(line(rows[-1]) + "\n")
            sys.stdout.flush()
    rows.append(compile_row(demo))
    sys.stdout.write(line(rows[-1]) + "\n")
    return rows


def main() -> None:
    """Prints and writes the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", action="store_true", help="measure only the seconds; keep the file's MiB")
    torch.set_num_threads(1)
    demo, results = ModelStore([HERE.parent / "demo"], offline=True), HERE / "results" / "techniques.json"
    before = None
    if parser.parse_args().seconds:
        before = {row["technique"]: row for row in json.loads(results.read_text(encoding="utf-8"))["rows"]}
    found = {"rows": measured(demo, before), "lossy": lossy_rows(demo)}
    results.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
