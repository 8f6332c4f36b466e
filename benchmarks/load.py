"""Compares upstream's loader with ours: peak RAM and seconds for the full-size shape model.

    python benchmarks/load.py [--keep FOLDER]

Each loader runs in its own process. It loads in float16 on the CPU, then reads every weight once, as a copy to a GPU
does. `anonymous` is the process's own memory. `rss` also counts the pages of the mapped file, which the system can
take back at any time.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
RESULT = ROOT / "benchmarks" / "results" / "load.json"

log = logging.getLogger("load")


def main() -> None:
    """Writes the checkpoint, runs both loaders, prints the table and writes the JSON."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loader", choices=["upstream", "ours"], help=argparse.SUPPRESS)
    parser.add_argument("--keep", type=Path, help="write the 5 GB checkpoint to this folder and keep it")
    options = parser.parse_args()
    if options.loader:
        log.info(json.dumps(measure(options.loader, options.keep)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        run(options.keep or Path(scratch) / "hunyuan3d-dit-v2-0")


def run(folder: Path) -> None:
    """Runs both loaders on one checkpoint."""
    if not (folder / "model.fp16.safetensors").exists():
        subprocess.run([sys.executable, "-c", _WRITE, str(folder)], check=True, cwd=ROOT)
    rows = {}
    for loader in ("upstream", "ours"):
        command = [sys.executable, __file__, "--loader", loader, "--keep", str(folder)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        rows[loader] = json.loads(output.strip().splitlines()[-1])
        log.info("%-9s %s", loader, rows[loader])
    ratios = {name: round(rows["ours"][name] / rows["upstream"][name], 4) for name in rows["ours"]}
    log.info("%-9s %s", "ratio", ratios)
    size = (folder / "model.fp16.safetensors").stat().st_size
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(
        json.dumps({"machine": machine, "checkpoint_bytes": size, **rows, "ours/upstream": ratios}, indent=1) + "\n"
    )


_WRITE = """
import sys; sys.path[:0] = [".", "tests", "benchmarks"]
from pathlib import Path
import full_size; full_size.write_shape(Path(sys.argv[1]))
"""


def measure(loader: str, folder: Path) -> dict[str, float]:
    """Returns the MiB and seconds of one loader. Runs in this process."""
    import torch

    from lowvram_core.networks import hy3dgen

    hy3dgen.shapegen("pipelines")
    watch = _Watch()
    start = time.perf_counter()
    if loader == "upstream":
        pipelines = hy3dgen.shapegen("pipelines")
        pipeline = pipelines.Hunyuan3DDiTFlowMatchingPipeline.from_single_file(
            str(folder / "model.fp16.safetensors"), str(folder / "config.yaml"), device="cpu",
            dtype=torch.float16, use_safetensors=True,
        )  # fmt: skip
        loaded = time.perf_counter() - start
        for module in (pipeline.conditioner, pipeline.model, pipeline.vae):
            _read(module)
    else:
        from lowvram_core.networks.shape import open_shape

        model = open_shape(folder, torch.float16)
        loaded = 0.0
        for component in (model.conditioner, model.dit, model.vae):
            begin = time.perf_counter()
            module = component.load()
            loaded += time.perf_counter() - begin
            _read(module)
            del module
    seconds = time.perf_counter() - start
    return {**watch.stop(), "load_seconds": round(loaded, 2), "load_and_read_seconds": round(seconds, 2)}


def _read(module: object) -> None:
    import torch

    assert isinstance(module, torch.nn.Module)
    for parameter in module.parameters():
        parameter.view(torch.int16).max()


class _Watch:
    """Measures the peak memory of this process above its start value, in MiB, every 5 ms."""

    def __init__(self) -> None:
        self._start = _status()
        self._peak = dict(self._start)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        while not self._done.wait(0.005):
            for name, value in _status().items():
                self._peak[name] = max(self._peak[name], value)

    def stop(self) -> dict[str, float]:
        self._done.set()
        self._thread.join()
        return {f"peak_{name}_mib": round(self._peak[name] - self._start[name], 1) for name in self._start}


def _status() -> dict[str, float]:
    names = {"VmRSS:": "rss", "RssAnon:": "anonymous"}
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = [line.split() for line in lines]
    return {names[field[0]]: int(field[1]) / 1024 for field in fields if field and field[0] in names}


if __name__ == "__main__":
    main()
