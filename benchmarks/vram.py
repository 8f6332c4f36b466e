"""Memory of every preset, stage by stage, ours beside upstream's own pipeline at the same settings.

    make bench-vram                 computed: the published sizes on a device that counts bytes
    make bench-vram DEVICE=cuda     measured: full-size random weights on a GPU, under caps of 8, 6, 4 and 2 GiB

Ours runs through the stage functions that the nodes call. Writes benchmarks/results/vram-meta.json or vram-cuda.json.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "tests"), str(HERE.parent / "tests" / "devices")]

import cpu_torchvision  # noqa: E402  (needs the path above)

cpu_torchvision.declare()

import full_size  # noqa: E402
import torch  # noqa: E402
import trimesh  # noqa: E402
from scales import CountingScale, CudaScale  # noqa: E402
from upstream_run import Upstream, a_picture  # noqa: E402

from lowvram_core.errors import LowVramError, OutOfMemory  # noqa: E402
from lowvram_core.manifest import MODELS  # noqa: E402
from lowvram_core.models.store import ModelStore  # noqa: E402
from lowvram_core.pictures import cutout_from_rgba  # noqa: E402
from lowvram_core.presets import PRESETS, Preset  # noqa: E402
from lowvram_core.render.cameras import camera_class  # noqa: E402
from lowvram_core.stages import bake, delight, inpaint, multiview, shape  # noqa: E402
from lowvram_core.torch_host import TorchHost  # noqa: E402
from lowvram_core.types import Mesh  # noqa: E402

RESULTS = HERE / "results"
STAGES: dict[str, tuple[str, ...]] = {
    "shape": ("condition", "sample", "decode"), "delight": ("delight",), "maps": ("normals", "positions"),
    "multiview": ("multiview",), "bake": ("resize", "bake"), "inpaint": ("inpaint",),
}  # fmt: skip
"""Our steps by stage."""
CAPS_GIB = (8, 6, 4, 2)
Scale = CountingScale | CudaScale
Row = dict[str, Any]


def write_models(root: Path, presets: list[Preset], *, sparse: bool) -> None:
    """Checkpoints of the published sizes for these presets."""
    for variant in {preset.variant for preset in presets}:
        full_size.write_shape(root / MODELS[f"shape/{variant}"].folder, variant, sparse=sparse)
    full_size.write_delight(root / MODELS["delight"].folder, sparse=sparse)
    full_size.write_paint(root / MODELS["paint"].folder, sparse=sparse)


def a_mesh() -> Mesh:
    """40,960 faces with UVs; what is measured depends on their number and on how much of a picture they fill."""
    ball = trimesh.creation.icosphere(subdivisions=5)
    faces = torch.from_numpy(ball.faces.copy()).long()
    vertices = torch.from_numpy(ball.vertices.copy()).float()
    faces = torch.cat([faces, faces])
    uvs = vertices[:, :2] * 0.24 + 0.25 + 0.5 * (vertices[:, 2:] > 0)
    return Mesh(vertices, faces, uvs=uvs.clamp(0, 1))


@contextmanager
def without_surface(mesh: Mesh) -> Iterator[None]:
    """Weights without meaning give no surface: this mesh stands in for it, after all that runs on the device."""
    with patch.object(shape, "_extract_surface", lambda logits, octree: mesh):
        yield


def run_ours(preset: Preset, store: ModelStore, host: TorchHost, *, geometry: bool = True) -> None:
    """Every stage that uses the device, in the pipeline's order; what they cost is in the host's records.

    Args:
        geometry: bake and inpaint, too.
    """
    mesh, cutout = a_mesh(), cutout_from_rgba(a_picture())
    with without_surface(mesh):
        shape.generate_shape(cutout, preset, host, store)
    views = multiview.paint_views(mesh, delight.delight(cutout, preset, host, store), preset, host, store)
    if geometry:
        inpaint.inpaint(mesh, bake.bake(mesh, views, preset, host), host)
    host.release()


def ours(preset: Preset, store: ModelStore, scale: Scale) -> dict[str, Row]:
    """Peak MiB and seconds by stage."""
    host = scale.host(residency=preset.residency)
    run_ours(preset, store, host)
    found: dict[str, Row] = {}
    for stage, steps in STAGES.items():
        own = [record for record in host.records if record.name in steps]
        peak = max(record.peak_bytes or 0 for record in own)
        found[stage] = {"mib": peak / 2**20, "seconds": sum(record.seconds for record in own)}
    return found


def theirs(preset: Preset, store: ModelStore, scale: Scale) -> dict[str, Row]:
    """Upstream's peak MiB and seconds, everything resident; its renderer is compiled and not part of this."""
    folders = [store.folder(name) for name in (f"shape/{preset.variant}", "delight", "paint")]
    with torch.inference_mode():
        pipelines = Upstream(*folders, scale.device)
    picture = a_picture()
    maps = torch.zeros(len(preset.cameras), 3, 512, 512)
    classes = [camera_class(camera) for camera in preset.cameras]
    calls: dict[str, Callable[[], None]] = {
        "shape": lambda: pipelines.make_shape(
            picture, preset.shape_steps, preset.octree, preset.guidance, preset.points_per_chunk
        ),
        "delight": lambda: pipelines.relight(picture.convert("RGB"), preset.delight_steps),
        "multiview": lambda: pipelines.paint_views(picture.convert("RGB"), maps, maps, classes, preset.multiview_steps),
    }
    found: dict[str, Row] = {}
    for stage, call in calls.items():
        scale.reset()
        start = time.perf_counter()
        with torch.inference_mode(), redirect_stderr(io.StringIO()):  # it prints that zeros have no surface
            call()
        found[stage] = {"mib": scale.peak_mib()["allocated"], "seconds": time.perf_counter() - start}
    return found


def quick(preset: Preset) -> Preset:
    """The same sizes in fewer passes: two steps, four chunks of points. Peaks stay, since each pass frees its own."""
    octree = max(16, round((4 * preset.points_per_chunk) ** (1 / 3)))
    return preset.with_(shape_steps=3, delight_steps=2, multiview_steps=2, octree=min(preset.octree, octree))


def rows_of(preset: Preset, store: ModelStore, scale: Scale, known: dict[tuple[Any, ...], dict[str, Row]]) -> list[Row]:
    """One row a stage."""
    with scale.weighing():
        own = ours(preset, store, scale)
        settings = (preset.variant, preset.shape_steps, preset.octree, preset.points_per_chunk, preset.delight_steps,
                    preset.multiview_steps, preset.views)  # fmt: skip
        if settings not in known:
            try:
                known[settings] = theirs(preset, store, scale)
            except torch.OutOfMemoryError:
                known[settings] = {}
    counted_only = isinstance(scale, CountingScale)
    return [
        {
            "preset": preset.name, "stage": stage, "ours_mib": round(own[stage]["mib"], 1),
            "upstream_mib": round(known[settings][stage]["mib"], 1) if stage in known[settings] else None,
            "seconds": None if counted_only else round(own[stage]["seconds"], 2),
            "upstream_seconds": None if counted_only or stage not in known[settings]
            else round(known[settings][stage]["seconds"], 2),
        }
        for stage in STAGES
    ]  # fmt: skip


def finishes(preset: Preset, store: ModelStore, scale: Scale, cap_gib: float) -> Row:
    """Whether a preset runs to its end on a device of that size, and what it had to change for it."""
    with scale.weighing(cap_gib):
        scale.reset()
        host = scale.host(residency=preset.residency)
        try:
            run_ours(preset, store, host, geometry=False)
            outcome, said = True, host.notes
        except (OutOfMemory, torch.OutOfMemoryError) as error:
            outcome, said = False, [str(error)]
        peaks = {f"{name}_mib": round(value, 1) for name, value in scale.peak_mib().items()}
    return {"preset": preset.name, "cap_gib": cap_gib, "finishes": outcome, **peaks, "notes": said}


def main() -> None:
    """Prints the table and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("meta", "cuda"), default="meta")
    parser.add_argument("--presets", nargs="*", default=list(PRESETS))
    parser.add_argument("--every-step", action="store_true", help="computed: all steps and chunks, not only a few")
    parser.add_argument("--caps", nargs="*", type=float, default=CAPS_GIB, help="GiB")
    options = parser.parse_args()
    torch.set_num_threads(2)
    scale: Scale = CudaScale() if options.device == "cuda" else CountingScale()
    few = options.device == "meta" and not options.every_step
    presets = [quick(PRESETS[name]) if few else PRESETS[name] for name in options.presets]
    with TemporaryDirectory() as folder:
        write_models(Path(folder), presets, sparse=options.device == "meta")
        store = ModelStore([folder], offline=True)
        known: dict[tuple[Any, ...], dict[str, Row]] = {}
        rows = []
        for preset in presets:
            rows += rows_of(preset, store, scale, known)
            _print(rows[-len(STAGES) :])
        capped = [finishes(quick(preset), store, scale, cap) for cap in options.caps for preset in presets]
    for row in capped:
        sys.stdout.write(f"{row['cap_gib']} GiB  {row['preset']:<14}{'finishes' if row['finishes'] else 'refused'}\n")
    result = {"device": scale.name, "torch": torch.__version__, "few_steps": few, "rows": rows, "caps": capped}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"vram-{options.device}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _print(rows: list[Row]) -> None:
    for row in rows:
        other = f"{row['upstream_mib']:>10,.0f}" if row["upstream_mib"] is not None else f"{'-':>10}"
        sys.stdout.write(f"{row['preset']:<14}{row['stage']:<11}{row['ours_mib']:>10,.0f}{other}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        main()
    except LowVramError as error:
        sys.exit(str(error))
