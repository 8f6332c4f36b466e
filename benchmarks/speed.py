"""Compares the seconds of the whole job, picture to textured mesh, with upstream's own code, stage by stage.

    make bench-speed                   on the CPU: the demo networks, few steps and small sizes
    make bench-speed DEVICE=cuda       on a GPU: random weights of the published sizes, 17 GB on the disk
    python benchmarks/speed.py --device cuda --settings full --cache warm --models /dev/shm/models

Both sides use the same picture, seeds, steps, octree, views and texture size. Each loads its networks in every run. The
networks do all their work. Only the decoded field is replaced by that of a solid (solid.py), so both make a real mesh.

    setting   full: the preset "4 GB", upstream's full quality. balanced: the preset "8 GB Balanced".
    cache     cold: the page cache of the model files is dropped before the run. warm: a later run in the process.
    weights   resident: one network at a time on the device. streamed: layer by layer. Upstream has no streamed mode, so
              both are compared with upstream resident.

A short run of each side comes first and is not counted. It loads the kernels of the device. The system can drop no
pages of a RAM disk (/dev/shm), so only warm runs are measured there.

A stage that upstream cannot run here (upstream_job.py) counts in neither total. The results are written after each
combination. An error ends only its own combination.
Writes benchmarks/results/speed.json (CPU) or speed-cuda.json.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "tests"), str(HERE.parent / "tests" / "devices")]

import page_cache  # noqa: E402  (needs the path above)
import torch  # noqa: E402
import vram  # noqa: E402
from solid import SolidHost  # noqa: E402
from upstream_job import Seconds, missing_stages, run_upstream  # noqa: E402
from upstream_run import a_picture  # noqa: E402

from lowvram_core.app.pipeline import run  # noqa: E402
from lowvram_core.app.torch_host import TorchHost  # noqa: E402
from lowvram_core.files.store import ModelStore  # noqa: E402
from lowvram_core.lending.device import memory_of  # noqa: E402
from lowvram_core.presets import PRESETS, Preset  # noqa: E402

RESULTS = HERE / "results"
DEMO = HERE.parent / "demo"
SETTINGS = {"full": "4 GB", "balanced": "8 GB Balanced"}
CACHES = ("cold", "warm")
WEIGHTS = ("resident", "streamed")
STAGES: dict[str, tuple[str, ...]] = {
    "load": (), "condition": ("condition",), "sample": ("sample",), "decode": ("decode",), "clean": ("clean",),
    "delight": ("recentre", "delight"), "unwrap": ("unwrap",), "maps": ("normals", "positions"), "paint": ("paint",),
    "bake": ("bake",), "inpaint": ("inpaint",), "rest": (),
}  # fmt: skip
"""The phases of each stage. Ours loads inside the stages."""
NOTES = {
    "load": "Upstream loads everything first, through our loaders, because its own hold the weights several times. "
    "Ours loads in the stages.",
    "rest": "The time of the whole run outside the stages. It is negative where two stages ran at the same time.",
    "total": "The sum of all rows of a combination except those in left_out.",
    "streamed": "Upstream has no streamed mode. Its seconds are those with all networks resident.",
    "surface": "The networks do all their work. The decoded field is then replaced by that of a ball with a torus.",
}
Row = dict[str, Any]


@dataclass
class Results:
    """A file of results. It is written after each change.

    Earlier results stay until they are measured again, if `about` is the same.
    """

    path: Path
    about: Row
    """What all results of the file have in common."""
    rows: list[Row] = field(default_factory=list)
    errors: list[Row] = field(default_factory=list)
    """Runs that failed, and what was not measured."""
    fallbacks: list[Row] = field(default_factory=list)
    """What our host said about a run, such as that the device was too small for the preset's settings."""

    def __post_init__(self) -> None:
        before = json.loads(self.path.read_text(encoding="utf-8")) if self.path.exists() else {}
        if all(before.get(key) == value for key, value in self.about.items()):
            for table in ("rows", "errors", "fallbacks"):
                setattr(self, table, before.get(table, []))

    def put(self, key: Row, rows: list[Row], said: list[str]) -> None:
        """Replaces the rows of one combination, and forgets its errors. `said` are the notes of our host."""
        for table in ("rows", "errors", "fallbacks"):
            setattr(self, table, [row for row in getattr(self, table) if not _has(row, key)])
        self.rows += [{**key, **row} for row in rows]
        self.fallbacks += [{**key, "notes": said}] if said else []
        self.write()

    def fail(self, key: Row, side: str, why: str) -> None:
        """Records what failed or could not be measured."""
        self.errors = [row for row in self.errors if not _has(row, {**key, "side": side})]
        self.errors.append({**key, "side": side, "error": why})
        self.write()

    def write(self) -> None:
        """Writes the file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        tables = {"fallbacks": self.fallbacks, "rows": self.rows, "errors": self.errors}
        self.path.write_text(json.dumps({**self.about, "notes": NOTES, **tables}, indent=1) + "\n", encoding="utf-8")


def _has(row: Row, key: Row) -> bool:
    return all(row.get(name) == value for name, value in key.items())


@dataclass
class Bench:
    """Runs both sides on one device with the models of one folder."""

    device: torch.device
    models: Path
    presets: dict[str, Preset]
    """By setting."""
    results: Results
    caches: tuple[str, ...] = CACHES
    weights: tuple[str, ...] = WEIGHTS
    left_out: dict[str, str] = field(default_factory=missing_stages)
    said: list[str] = field(default_factory=list)
    """The notes of our host in the last run."""

    def __post_init__(self) -> None:
        self.store = ModelStore([self.models], offline=True)

    def measure(self) -> None:
        """Runs every combination and writes its rows."""
        for setting, preset in self.presets.items():
            theirs = dict(self._runs({"setting": setting}, "upstream", self._upstream, preset))
            for weights in self.weights:
                residency = "stream" if weights == "streamed" else preset.residency
                key = {"setting": setting, "weights": weights}
                for cache, ours in self._runs(key, "ours", self._ours, preset.with_(residency=residency)):
                    rows = rows_of(ours, theirs.get(cache), self.left_out)
                    self.results.put({"setting": setting, "cache": cache, "weights": weights}, rows, self.said)
                    sys.stdout.write(_table(setting, cache, weights, rows))
                    sys.stdout.flush()

    def _runs(
        self, key: Row, side: str, once: Callable[[Preset], Seconds], preset: Preset
    ) -> Iterator[tuple[str, Seconds]]:
        """The seconds of the runs that succeed, by the state of the page cache. A short run comes first."""
        if self._tried({**key, "cache": "warm-up"}, side, once, vram.quick(preset)) is None:
            return
        for cache in self.caches:
            where = {**key, "cache": cache}
            if cache == "cold" and (why := page_cache.drop(self.models)) is not None:
                self.results.fail(where, side, f"not measured: {why}")
                continue
            found = self._tried(where, side, once, preset)
            if found is not None:
                yield cache, found

    def _tried(self, key: Row, side: str, once: Callable[[Preset], Seconds], preset: Preset) -> Seconds | None:
        """The seconds of one run, or None if it fails. The error is recorded."""
        try:
            return once(preset)
        except Exception as error:  # one failed run must not end the others
            traceback.clear_frames(error.__traceback__)
            text = str(error).strip().splitlines() or [""]
            self.results.fail(key, side, f"{type(error).__name__}: {text[0]}")
            sys.stdout.write(f"{side} failed ({key}): {type(error).__name__}: {text[0]}\n")
            return None
        finally:
            gc.collect()
            if (memory := memory_of(self.device)) is not None:
                memory.empty_cache()

    def _ours(self, preset: Preset) -> Seconds:
        host = SolidHost.for_preset(preset, self.device)
        start = time.perf_counter()
        run(a_picture(), preset, host, self.store)
        host.release()
        whole = time.perf_counter() - start
        self.said = host.notes
        seconds = {
            stage: sum(record.seconds for record in host.records if record.name in phases)
            for stage, phases in STAGES.items()
            if phases
        }
        return {**seconds, "rest": whole - sum(seconds.values())}

    def _upstream(self, preset: Preset) -> Seconds:
        dtype = TorchHost.for_preset(preset, self.device).dtype
        return run_upstream(a_picture(), preset, self.store, self.device, dtype)


def rows_of(ours: Seconds, theirs: Seconds | None, left_out: dict[str, str]) -> list[Row]:
    """One row for each stage, then the total. Upstream's seconds are None if it failed or cannot run the stage."""
    rows = []
    for stage in STAGES:
        counted = stage not in left_out
        rows.append(_row(stage, ours.get(stage), theirs.get(stage) if theirs and counted else None, counted=counted))
    counting = [row for row in rows if row["counted"]]
    whole = sum(row["ours_s"] or 0.0 for row in counting)
    other = sum(row["upstream_s"] or 0.0 for row in counting) if theirs is not None else None
    return [*rows, _row("total", whole, other, counted=True)]


def _row(stage: str, ours: float | None, theirs: float | None, *, counted: bool) -> Row:
    shown = [None if seconds is None else round(seconds, 3) for seconds in (ours, theirs)]
    ratio = round(shown[0] / shown[1], 3) if shown[0] is not None and shown[1] and shown[1] > 0 else None
    return {"stage": stage, "counted": counted, "ours_s": shown[0], "upstream_s": shown[1], "ratio": ratio}


def _table(setting: str, cache: str, weights: str, rows: list[Row]) -> str:
    lines = [f"\n{setting}, {cache}, {weights}", f"{'stage':<11}{'ours s':>10}{'upstream s':>12}{'ratio':>8}"]
    for row in rows:
        cells = ["-" if row[name] is None else f"{row[name]:.2f}" for name in ("ours_s", "upstream_s", "ratio")]
        note = "" if row["counted"] else "  left out of both totals"
        lines.append(f"{row['stage']:<11}{cells[0]:>10}{cells[1]:>12}{cells[2]:>8}{note}")
    return "\n".join(lines) + "\n"


def small(preset: Preset) -> Preset:
    """The preset with few steps and small sizes, for networks on a CPU."""
    return preset.with_(
        shape_steps=min(preset.shape_steps, 10), delight_steps=2, paint_steps=1, octree=preset.octree // 4,
        views="minimal", render_px=preset.render_px // 8, texture_px=preset.texture_px // 8, face_budget=2000,
    )  # fmt: skip


def about(device: torch.device, presets: dict[str, Preset], weights: str, cap_gib: float | None) -> Row:
    """What all rows of a file have in common: the machine, the versions, the settings and what is left out."""
    import diffusers
    import transformers

    memory = memory_of(device)
    return {
        "device": str(device) if memory is None else memory.get_device_name(device),
        "torch": torch.__version__, "diffusers": diffusers.__version__, "transformers": transformers.__version__,
        "models": weights, "cap_gib": cap_gib,
        "presets": {setting: {"preset": preset.name, **preset.own_values()} for setting, preset in presets.items()},
        "left_out": [{"stage": stage, "why": why} for stage, why in missing_stages().items()],
    }  # fmt: skip


def write_models(folder: Path, presets: dict[str, Preset]) -> None:
    """Writes random weights of the published sizes, unless the folder has them."""
    done = folder / "-".join(["written", *sorted(preset.variant for preset in presets.values())])
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        vram.write_models(folder, list(presets.values()), sparse=False)
        done.touch()


def limit_memory(device: torch.device, cap_gib: float) -> None:
    """Lets this process reserve at most `cap_gib` of the device."""
    memory = torch.get_device_module(device)
    _, total = memory.mem_get_info(device)
    memory.set_per_process_memory_fraction(min(1.0, cap_gib * 2**30 / total), device)


def main(arguments: list[str] | None = None) -> None:
    """Measures every combination that is asked for, prints the tables and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--cache", nargs="+", choices=CACHES, default=list(CACHES))
    parser.add_argument("--weights", nargs="+", choices=WEIGHTS, default=list(WEIGHTS))
    parser.add_argument("--full-preset", choices=list(PRESETS), default=SETTINGS["full"], help="for the setting full")
    parser.add_argument("--models", type=Path, help="write the random weights to this folder and keep them there")
    parser.add_argument("--cap-gib", type=float, help="a GPU's memory that this process may reserve")
    parser.add_argument("--out", type=Path, help="the JSON file")
    options = parser.parse_args(arguments)
    on_gpu = options.device == "cuda"
    device = torch.device("cuda", 0) if on_gpu else torch.device("cpu")
    named = {**SETTINGS, "full": options.full_preset}
    presets = {setting: PRESETS[named[setting]] for setting in options.settings}
    if not on_gpu:
        presets = {setting: small(preset) for setting, preset in presets.items()}
    if options.cap_gib is not None and on_gpu:
        limit_memory(device, options.cap_gib)
    weights = "random weights of the published sizes" if on_gpu else "demo networks"
    out = options.out or RESULTS / f"speed{'-cuda' if on_gpu else ''}.json"
    results = Results(out, about(device, presets, weights, options.cap_gib))
    for row in results.about["left_out"]:
        sys.stdout.write(f"left out: {row['stage']}: {row['why']}\n")
    with TemporaryDirectory() as scratch:
        models = (options.models or Path(scratch)) if on_gpu else DEMO
        if on_gpu:
            write_models(models, presets)
        Bench(device, models, presets, results, tuple(options.cache), tuple(options.weights)).measure()


if __name__ == "__main__":
    main()
