"""Measures the memory of every preset, stage by stage, and of upstream's own pipeline at the same settings.

    make bench-vram                 computed: the published sizes on a device that counts bytes
    make bench-vram DEVICE=cuda     measured: full-size random weights on a GPU, under caps of 8, 6, 4 and 2 GiB

Our runs call the same stage functions as the nodes. Writes benchmarks/results/vram-meta.json or vram-cuda.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "tests"), str(HERE.parent / "tests" / "devices")]

import full_size  # noqa: E402  (needs the path above)
import torch  # noqa: E402
import trimesh  # noqa: E402
from scales import CountingScale, GpuScale, Scale, WeighingHost  # noqa: E402
from upstream_run import Upstream, a_picture  # noqa: E402

from lowvram_core.app.torch_host import _RESERVED_MIB, TorchHost  # noqa: E402
from lowvram_core.errors import LowVramError, OutOfMemory  # noqa: E402
from lowvram_core.files.manifest import MODELS  # noqa: E402
from lowvram_core.files.store import ModelStore  # noqa: E402
from lowvram_core.geometry import surface as geometry_surface  # noqa: E402
from lowvram_core.pictures.convert import cutout_from_rgba  # noqa: E402
from lowvram_core.presets import PRESETS, Preset  # noqa: E402
from lowvram_core.render.cameras import camera_class  # noqa: E402
from lowvram_core.stages import bake, delight, inpaint, paint, shape  # noqa: E402
from lowvram_core.types import Mesh  # noqa: E402

RESULTS = HERE / "results"
STAGES: dict[str, tuple[str, ...]] = {
    "shape": ("condition", "sample", "decode"), "delight": ("recentre", "delight"), "maps": ("normals", "positions"),
    "paint": ("paint",), "bake": ("bake",), "inpaint": ("inpaint",),
}  # fmt: skip
"""The phases of each stage."""
CAPS_GIB = (8, 6, 4, 2)
_UPSTREAM = (
    "Upstream is null for maps, bake and inpaint: it does them with its rasteriser, a compiled extension that the "
    "machine of this benchmark lacks. For 8 GB Turbo it paints with the standard paint model, because the code that "
    "upstream published cannot run the turbo one."
)
_RESERVE = f"the {_RESERVED_MIB[False]} MiB (on Windows {_RESERVED_MIB[True]}) that a run on CUDA leaves free"
_CAPS = {
    "meta": f"A cap counts what torch's allocator would reserve: neither the driver's context nor {_RESERVE}. "
    "Bake and inpaint are left out.",
    "cuda": f"A cap counts tensors, the driver's context, other programs, and {_RESERVE}.",
}
Row = dict[str, Any]


def write_models(root: Path, presets: list[Preset], *, sparse: bool) -> None:
    """Writes checkpoints of the published sizes for these presets."""
    for variant in {preset.variant for preset in presets}:
        full_size.write_shape(root / MODELS[f"shape/{variant}"].folder, variant, sparse=sparse)
    full_size.write_delight(root / MODELS["delight"].folder, sparse=sparse)
    full_size.write_paint(root / MODELS["paint"].folder, sparse=sparse)
    if any(preset.paint_variant == "turbo" for preset in presets):
        full_size.write_turbo_paint(root / MODELS["paint/v2-0-turbo"].folder, sparse=sparse)


def a_mesh() -> Mesh:
    """A mesh of 40,960 faces with UVs. The memory depends on their number and on how much of a picture they fill."""
    ball = trimesh.creation.icosphere(subdivisions=5)
    faces = torch.from_numpy(ball.faces.copy()).long()
    vertices = torch.from_numpy(ball.vertices.copy()).float()
    faces = torch.cat([faces, faces])
    uvs = vertices[:, :2] * 0.24 + 0.25 + 0.5 * (vertices[:, 2:] > 0)
    return Mesh(vertices, faces, uvs=uvs.clamp(0, 1))


@contextmanager
def without_surface(mesh: Mesh) -> Iterator[None]:
    """Within it, a decode returns this mesh, because random weights give no surface. All work on the device is done."""
    with (
        patch.object(geometry_surface, "extract", lambda logits, octree: mesh),
        patch.object(geometry_surface, "extract_from_bricks", lambda bricks: mesh),
    ):
        yield


def run_ours(preset: Preset, store: ModelStore, host: TorchHost, *, geometry: bool = True) -> None:
    """Runs every stage that uses the device, in the order of the pipeline. The figures are in the host's records.

    Args:
        geometry: run bake and inpaint too.
    """
    mesh, cutout = a_mesh(), cutout_from_rgba(a_picture())
    with without_surface(mesh):
        shape.generate_shape(cutout, preset, host, store)
    for kept in store.folder("delight").glob("empty_prompt.*"):
        kept.unlink()  # so that the text encoder is measured, as in a first run
    views = paint.paint_views(mesh, delight.delight(cutout, preset, host, store), preset, host, store)
    if geometry:
        inpaint.inpaint(mesh, bake.bake(mesh, views, preset, host), host)
    host.release()


def ours(preset: Preset, store: ModelStore, scale: Scale) -> dict[str, Row]:
    """Peaks in MiB and seconds with loading, by stage."""
    host = scale.host(residency=preset.residency)
    run_ours(preset, store, host)
    return by_stage(host)


def by_stage(host: WeighingHost) -> dict[str, Row]:
    """Peaks in MiB and seconds of each stage that finished."""
    ended = {record.name for record in host.records}
    return {stage: _costs(host, phases) for stage, phases in STAGES.items() if ended.issuperset(phases)}


def _costs(host: WeighingHost, phases: Collection[str] | None = None) -> Row:
    """The highest peaks and the sum of the seconds of these phases, or of all."""
    own = [record for record in host.records if phases is None or record.name in phases]
    row: Row = {"mib": max((record.peak_bytes or 0 for record in own), default=0) / 2**20}
    beside = [peaks for name, peaks in host.beside.items() if phases is None or name in phases]
    for kind in ("reserved", "device"):
        row[f"{kind}_mib"] = max((peaks[kind] for peaks in beside if kind in peaks), default=None)
    return row | {"seconds": sum(record.seconds for record in own)}


def theirs(preset: Preset, store: ModelStore, scale: Scale) -> dict[str, Row]:
    """Upstream's peaks in MiB and seconds, with all networks resident. Its compiled renderer is left out."""
    folders = [store.folder(name) for name in (f"shape/{preset.variant}", "delight", "paint")]
    found: dict[str, Row] = {}

    def weigh(stage: str, call: Callable[[], Any]) -> Any:
        scale.reset()
        start = time.perf_counter()
        with torch.inference_mode():
            result = call()
        peaks = scale.peak_mib()  # waits for the device
        found[stage] = {"mib": peaks.pop("allocated"), **{f"{kind}_mib": value for kind, value in peaks.items()},
                        "seconds": time.perf_counter() - start}  # fmt: skip
        return result

    pipelines = weigh("load", lambda: Upstream(*folders, scale.device).without_surface())
    picture = a_picture()
    maps = torch.zeros(len(preset.cameras), 3, 512, 512)
    classes = [camera_class(camera) for camera in preset.cameras]
    weigh("shape", lambda: pipelines.make_shape(
        picture, preset.shape_steps, preset.octree, preset.guidance, preset.points_per_chunk
    ))  # fmt: skip
    weigh("delight", lambda: pipelines.relight(picture.convert("RGB"), preset.delight_steps))
    weigh("paint", lambda: pipelines.paint_views(
        picture.convert("RGB"), maps, maps, classes, preset.paint_steps
    ))  # fmt: skip
    return found


def quick(preset: Preset) -> Preset:
    """The preset with two steps and four chunks of points. The peaks stay the same, as each pass frees its memory."""
    octree = max(16, round((4 * preset.points_per_chunk) ** (1 / 3)))
    return preset.with_(shape_steps=3, delight_steps=2, paint_steps=2, octree=min(preset.octree, octree))


def few(preset: Preset) -> Preset:
    """The preset with one pass of each network, or two where weights stream: prefetch begins in the second pass.

    The maps are small, because the renderer needs less than any network.
    """
    passes = 2 if preset.residency == "stream" else 1
    return quick(preset).with_(
        shape_steps=1 + passes, delight_steps=passes, paint_steps=passes, render_px=min(preset.render_px, 512)
    )


def rows_of(preset: Preset, store: ModelStore, scale: Scale, known: dict[tuple[Any, ...], dict[str, Row]]) -> list[Row]:
    """One row for each stage. On a GPU one more for upstream's loading; our stages include it."""
    with scale.weighing():
        own = ours(preset, store, scale)
        settings = (preset.variant, preset.shape_steps, preset.octree, preset.points_per_chunk, preset.delight_steps,
                    preset.paint_steps, preset.views)  # fmt: skip
        if settings not in known:
            try:
                known[settings] = theirs(preset, store, scale)
            except torch.OutOfMemoryError:
                known[settings] = {}
    on_gpu = isinstance(scale, GpuScale)
    return [
        _row(preset, stage, own.get(stage, {}), known[settings].get(stage, {}), on_gpu=on_gpu)
        for stage in (*STAGES, *(["load"] if on_gpu else []))
    ]


def _row(preset: Preset, stage: str, own: Row, other: Row, *, on_gpu: bool) -> Row:
    row: Row = {"preset": preset.name, "stage": stage}
    for kind in ("mib", "reserved_mib", "device_mib") if on_gpu else ("mib", "reserved_mib"):
        row |= {f"ours_{kind}": _rounded(own.get(kind), 1), f"upstream_{kind}": _rounded(other.get(kind), 1)}
    seconds = own.get("seconds"), other.get("seconds")
    return row | {
        key: _rounded(value, 2) if on_gpu else None
        for key, value in zip(("seconds", "upstream_seconds"), seconds, strict=True)
    }


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def finishes(preset: Preset, store: ModelStore, scale: Scale, cap_gib: float) -> Row:
    """Whether a preset finishes on a device of that size, with which fallbacks, and its memory and seconds.

    `stages` has the stages that finished. Seconds are given only for a GPU.
    """
    on_gpu = isinstance(scale, GpuScale)
    with scale.weighing(cap_gib):
        scale.reset()
        host = scale.host(residency=preset.residency)
        try:
            run_ours(preset, store, host, geometry=on_gpu)
            outcome, said = True, host.notes
        except (OutOfMemory, torch.OutOfMemoryError) as error:
            outcome, said = False, [str(error)]
    stages = {stage: _rounded_costs(costs, on_gpu=on_gpu) for stage, costs in by_stage(host).items()}
    return {
        "preset": preset.name, "cap_gib": cap_gib, "finishes": outcome,
        **_rounded_costs(_costs(host), on_gpu=on_gpu), "stages": stages, "notes": said,
    }  # fmt: skip


def _rounded_costs(costs: Row, *, on_gpu: bool) -> Row:
    seconds = _rounded(costs["seconds"], 2) if on_gpu else None
    return {key: _rounded(value, 1) for key, value in costs.items()} | {"seconds": seconds}


class Results:
    """A file of results. Earlier results on the same device stay until they are measured again.

    Args:
        about: what all results of one file have in common.
        notes: for the reader.
    """

    def __init__(self, path: Path, about: Row, notes: Row | None = None) -> None:
        self.path = path
        before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        same = all(before.get(key) == value for key, value in about.items())
        kept = {table: before[table] if same and before else [] for table in ("rows", "caps")}
        self.all: Row = {**about, **(notes or {}), **kept}

    def put(self, table: str, rows: list[Row], *key: str) -> None:
        """Adds rows. A row replaces an earlier one with the same values under `key`."""
        new = {tuple(row[name] for name in key) for row in rows}
        kept = [row for row in self.all[table] if tuple(row[name] for name in key) not in new]
        order = list(PRESETS)
        self.all[table] = sorted(
            [*kept, *rows], key=lambda row: (-row.get("cap_gib", 0), order.index(row["preset"]))
        )  # fmt: skip
        self.path.parent.mkdir(exist_ok=True)
        self.path.write_text(json.dumps(self.all, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Prints the table and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("meta", "cuda"), default="meta")
    parser.add_argument("--presets", nargs="*", default=list(PRESETS))
    parser.add_argument("--every-step", action="store_true", help="computed results only: run all steps and chunks")
    parser.add_argument("--caps", nargs="*", type=float, default=CAPS_GIB, help="GiB")
    options = parser.parse_args()
    on_gpu = options.device == "cuda"
    if not on_gpu:
        torch.set_num_threads(2)
    scale: Scale = GpuScale(torch.device("cuda", 0)) if on_gpu else CountingScale()
    shortened = not on_gpu and not options.every_step
    presets = [PRESETS[name] for name in options.presets]
    if shortened:  # at full size, the maps take more than `few` says
        presets = [few(preset).with_(render_px=preset.render_px) for preset in presets]
    about = {"device": scale.name, "torch": torch.__version__, "few_steps": shortened}
    notes = {"upstream": _UPSTREAM, "cap": _CAPS[options.device]}
    results = Results(RESULTS / f"vram-{options.device}.json", about, notes)
    sys.stdout.write("\n".join([scale.name, *notes.values(), ""]))
    with TemporaryDirectory() as folder:
        write_models(Path(folder), presets, sparse=not on_gpu)
        store = ModelStore([folder], offline=True)
        known: dict[tuple[Any, ...], dict[str, Row]] = {}
        for preset in presets:
            rows = rows_of(preset, store, scale, known)
            results.put("rows", rows, "preset", "stage")
            _print(rows, head=preset is presets[0])
        for cap in options.caps:
            for preset in presets:
                row = finishes(quick(preset), store, scale, cap)
                results.put("caps", [row], "preset", "cap_gib")
                sys.stdout.write(f"{cap} GiB  {preset.name:<14}{'finishes' if row['finishes'] else 'refused'}\n")


def _print(rows: list[Row], *, head: bool) -> None:
    if head:
        names = [key.replace("upstream", "theirs").replace("seconds", "s") for key in rows[0]]
        sys.stdout.write(f"{names[0]:<14}{names[1]:<11}{''.join(f'{name:>21}' for name in names[2:])}\n")
    for row in rows:
        numbers = (value for key, value in row.items() if key not in ("preset", "stage"))
        cells = (f"{'-':>21}" if value is None else f"{value:>21,.1f}" for value in numbers)
        sys.stdout.write(f"{row['preset']:<14}{row['stage']:<11}{''.join(cells)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        main()
    except LowVramError as error:
        sys.exit(str(error))
