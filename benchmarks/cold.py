"""Seconds of loading: files cold and warm, with and without reading ahead; the parts of delight; paint's pickle.

    python benchmarks/cold.py [--folder FOLDER]

Writes benchmarks/results/cold.json. Needs 16 GB of disk in FOLDER (default: the system's temporary folder), which must
be a real disk and not a RAM disk; Linux only. The weights are random, at the published sizes.

*Cold*: the system has dropped the files from RAM, which is checked. *Warm*: they are all in RAM. Each measurement runs
in a process of its own. Loading means: borrow, then read a byte of every page, since the copy to a GPU reads them all.
A component that computes is replaced by a wait of COMPUTES_S, because a GPU leaves the disk and the CPU free. The parts
of delight are CPU seconds of one thread, without computing, with warm files.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
RESULT = ROOT / "benchmarks" / "results" / "cold.json"
COMPUTES_S = 1.0
ROUNDS = 3
DELIGHT, PAINT, SHAPE = "hunyuan3d-delight-v2-0", "hunyuan3d-paint-v2-0", "hunyuan3d-dit-v2-0"

log = logging.getLogger("cold")


def main() -> None:
    """Writes the models, measures each case in its own process, prints and writes the figures."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="a folder on a disk with 16 GB of room")
    parser.add_argument("--case", choices=list(CASES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        log.info(json.dumps(CASES[options.case](options.folder)))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        found = run(Path(scratch))
    text = json.dumps(
        {"machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores", **found}, indent=1
    )
    log.info(text)
    RESULT.write_text(text + "\n", encoding="utf-8")


def run(root: Path) -> dict[str, Any]:
    """All figures."""
    in_a_process("write", root)
    found: dict[str, Any] = {"computes_s": COMPUTES_S, "loading": {}}
    for state, prepare in (("cold", drop), ("warm", warm)):
        rounds: dict[str, list[Any]] = {"plain": [], "ahead": []}
        for case in [*rounds] * ROUNDS:  # in turn, since the speed of a shared disk changes
            prepare(root)
            rounds[case].append(in_a_process(case, root))
        for case, rows in rounds.items():
            middle = sorted(rows, key=lambda row: row["seconds"])[ROUNDS // 2]
            found["loading"][f"{state}, {NAMES[case]}"] = {
                "median_s": middle["seconds"], "rounds_s": [row["seconds"] for row in rows],
                "components": middle["components"],
            }  # fmt: skip
    warm(root)
    found["delight"] = {case: in_a_process(f"delight-{case}", root) for case in ("before", "after")}
    found["paint"] = {}
    in_a_process("to-pickle", root)
    found["paint"]["cold, pickle"] = paint_rounds(root)
    found["paint"]["conversion"] = in_a_process("convert", root)
    found["paint"]["cold, converted"] = paint_rounds(root)
    return found


def paint_rounds(root: Path) -> dict[str, Any]:
    """Seconds of opening and loading the paint model's UNets from cold files: each round, and the median."""
    rounds = []
    for _ in range(ROUNDS):
        drop(root)
        rounds.append(in_a_process("paint", root)["seconds"])
    return {"median_s": statistics.median(rounds), "rounds_s": rounds}


NAMES = {"plain": "without reading ahead", "ahead": "with reading ahead"}


def in_a_process(case: str, root: Path) -> dict[str, Any]:
    """Runs one case in a new process. Returns its figures."""
    command = [sys.executable, __file__, "--case", case, "--folder", str(root)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    row: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    log.info("%-15s %s", case, row)
    return row


def weights(root: Path) -> Iterator[Path]:
    """The large files."""
    return (path for path in root.rglob("*") if path.suffix in (".safetensors", ".bin") and path.is_file())


def drop(root: Path) -> None:
    """Takes the files out of RAM.

    Raises:
        RuntimeError: the system keeps them, as on a RAM disk.
    """
    from lowvram_core.lending.read_ahead import CHUNK_BYTES, _is_cached

    for path in weights(root):
        with path.open("rb", buffering=0) as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            starts = range(0, path.stat().st_size - CHUNK_BYTES, CHUNK_BYTES)
            kept = sum(_is_cached(file, start, CHUNK_BYTES) for start in starts)
        if kept > len(starts) // 100:
            raise RuntimeError(f"{path}: {kept} of {len(starts)} chunks are still in RAM")


def warm(root: Path) -> None:
    """Reads the files into RAM."""
    buffer = bytearray(4 * 2**20)
    for path in weights(root):
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def write(root: Path) -> dict[str, Any]:
    """Writes the three models."""
    import full_size

    full_size.write_shape(root / SHAPE)
    full_size.write_delight(root / DELIGHT)
    full_size.write_paint(root / PAINT)
    return {"bytes": sum(path.stat().st_size for path in weights(root))}


def load_all(root: Path, *, ahead: bool) -> dict[str, Any]:
    """Seconds of loading, by component, in the order of a run, and their sum."""
    import torch

    from lowvram_core.app.torch_host import TorchHost

    order = components(root)
    host, rows = TorchHost(torch.device("cpu"), torch.float16), []
    with host.reading_ahead(order) if ahead else nullcontext():
        for component in order:
            start = time.perf_counter()
            with host.borrow(component) as module:
                read(module)
                rows.append([component.label, round(time.perf_counter() - start, 2)])
                time.sleep(COMPUTES_S)
    return {"seconds": round(sum(row[1] for row in rows), 2), "components": rows}


def components(root: Path) -> list[Any]:
    """All components in the order of a run, and everything imported that loading needs."""
    import torch

    from lowvram_core.networks.delight import open_delight
    from lowvram_core.networks.paint import open_paint
    from lowvram_core.networks.shape import open_shape

    opened: Sequence[Any] = (
        open_shape(root / SHAPE, torch.float16), open_delight(root / DELIGHT, torch.float16),
        open_paint(root / PAINT, torch.float16),
    )  # fmt: skip
    return [component for model in opened for component in model.order]


def read(module: Any) -> None:
    """Brings every page of the weights into RAM, by reading one byte of each."""
    import torch

    for parameter in module.parameters():
        flat = parameter.detach().view(-1).view(torch.uint8)
        flat[::4096].max(), flat[-1].item()


def delight_parts(root: Path, *, before: bool) -> dict[str, Any]:
    """CPU seconds of everything in delight but computing: in a new process, and twice more in the same one."""
    import torch

    torch.set_num_threads(1)
    rows: dict[str, dict[str, float]] = {}
    for name in ("first run", "second run", "third run"):
        row = rows[name] = {}
        for part, call in (_before if before else _after)(root / DELIGHT):
            start = time.process_time()
            call()
            row[part] = round(time.process_time() - start, 3)
        row["sum"] = round(sum(row.values()), 3)
    return rows


def _after(folder: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    import torch

    cpu, kept = torch.device("cpu"), dict[str, Any]()

    def open_model() -> None:
        from lowvram_core.networks.delight import open_delight

        kept["model"] = open_delight(folder, torch.float16)

    def prompt() -> None:
        found = kept["model"].kept_prompt(cpu).read()
        if found is None:
            read(kept["model"].text_encoder.load())
            kept["model"].kept_prompt(cpu).write(torch.zeros(1, 77, 1024, dtype=torch.float16))

    def part(name: str) -> None:
        read(getattr(kept["model"], name).load())

    yield "import and open", open_model
    yield "empty prompt", prompt
    yield "VAE, twice", lambda: (part("vae"), part("vae"))
    yield "UNet", lambda: part("unet")
    yield "scheduler", lambda: kept["model"].make_scheduler().set_timesteps(5)


def _before(folder: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """As it was: from_pretrained for all three, the text encoder in every run."""
    import torch

    kept = dict[str, Any]()

    def open_model() -> None:
        from diffusers import AutoencoderKL, UNet2DConditionModel

        from lowvram_core.files.checkpoints import build_empty, read_header
        from lowvram_core.networks.schedulers import euler_ancestral

        for name, cls in (("vae", AutoencoderKL), ("unet", UNet2DConditionModel)):
            read_header(folder / name / "diffusion_pytorch_model.safetensors")
            config = json.loads((folder / name / "config.json").read_text())
            build_empty(lambda cls=cls, config=config: cls.from_config(config))  # type: ignore[misc]
        kept["scheduler"] = euler_ancestral(folder)

    def prompt() -> None:
        from transformers import CLIPTextModel, CLIPTokenizer

        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
        tokenizer("", padding="max_length", max_length=77, truncation=True, return_tensors="pt")
        read(CLIPTextModel.from_pretrained(folder / "text_encoder", local_files_only=True, dtype=torch.float16))

    def part(cls: str, name: str) -> None:
        import diffusers

        read(getattr(diffusers, cls).from_pretrained(folder / name, local_files_only=True, torch_dtype=torch.float16))

    yield "import and open", open_model
    yield "empty prompt", prompt
    yield "VAE, twice", lambda: (part("AutoencoderKL", "vae"), part("AutoencoderKL", "vae"))
    yield "UNet", lambda: part("UNet2DConditionModel", "unet")
    yield "scheduler", lambda: kept["scheduler"]().set_timesteps(5)


def to_pickle(root: Path) -> dict[str, Any]:
    """Replaces the paint UNet's safetensors file by a pickle, as it is published."""
    import torch
    from safetensors.torch import load_file

    file = root / PAINT / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(file), file.with_suffix(".bin"))
    file.unlink()
    return {"bytes": file.with_suffix(".bin").stat().st_size}


def convert(root: Path) -> dict[str, Any]:
    """Seconds of the conversion back."""
    from lowvram_core.files.convert import convert_pickle

    start = time.perf_counter()
    convert_pickle(root / PAINT / "unet" / "diffusion_pytorch_model.bin")
    return {"seconds": round(time.perf_counter() - start, 2)}


def paint(root: Path) -> dict[str, Any]:
    """Seconds of opening and loading both UNets of the paint model, with everything imported before."""
    import torch

    from lowvram_core.networks import hy3dgen
    from lowvram_core.networks.paint import open_paint

    hy3dgen.paint_unet()
    start = time.perf_counter()
    model = open_paint(root / PAINT, torch.float16)
    for component in (model.dual, model.main):
        read(component.load())
    return {"seconds": round(time.perf_counter() - start, 2)}


CASES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "write": write,
    "plain": lambda root: load_all(root, ahead=False),
    "ahead": lambda root: load_all(root, ahead=True),
    "delight-before": lambda root: delight_parts(root, before=True),
    "delight-after": lambda root: delight_parts(root, before=False),
    "to-pickle": to_pickle,
    "convert": convert,
    "paint": paint,
}

if __name__ == "__main__":
    main()
