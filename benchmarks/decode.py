"""Decodes shapes from all points of the grid and from those near the surface, and compares the meshes.

    make bench-decode                 the networks of the demo and fields of known solids, on the CPU
    make bench-decode DEVICE=cuda     a decoder of the published size whose logits are replaced by those of a solid

Slow fields rise from 0 to 1 within a tenth of half the cube, steep ones within 1/128. Writes
benchmarks/results/decode.json or decode-cuda.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "tests" / "core")]

import fields  # noqa: E402  (needs the path above)
import full_size  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from resident import reset_peak, resident_mib  # noqa: E402
from torch import Tensor  # noqa: E402

from lowvram_core.app.torch_host import TorchHost  # noqa: E402
from lowvram_core.files.manifest import MODELS  # noqa: E402
from lowvram_core.geometry import repair  # noqa: E402
from lowvram_core.geometry.fields import Asking, Field  # noqa: E402
from lowvram_core.geometry.marching import extract  # noqa: E402
from lowvram_core.geometry.sparse import lattice_edge  # noqa: E402
from lowvram_core.geometry.surface import dense_logits, surface  # noqa: E402
from lowvram_core.networks.shape import open_shape, shape_field  # noqa: E402
from lowvram_core.types import Mesh  # noqa: E402

DEMO = HERE.parent / "demo"
RESULTS = HERE / "results"
VARIANTS = ("v2-0", "v2-0-turbo", "mini-turbo", "mv", "mv-turbo")
OCTREES = (128, 192, 256, 384)
LARGE = (512, 768)
ANALYTIC_OCTREES = (128, 192)
Row = dict[str, Any]
Change = Callable[[Tensor], Tensor]
"""Makes other logits of logits."""
SOLIDS: Mapping[str, Change] = {
    kind: (lambda distance, rise=rise: (distance / rise).clamp(-1, 1))
    for kind, rise in (("slow", fields.SLOW), ("steep", fields.STEEP))
}


def _parts(mesh: Mesh) -> dict[tuple[float, ...], tuple[float, float]]:
    """The area and the longest side of each part, by the part's first vertex in order."""
    part, areas, extents = repair.parts(mesh.vertices, mesh.faces)
    corners = mesh.vertices[mesh.faces].numpy().round(5)
    order = np.argsort(part.numpy(), kind="stable")
    groups = np.split(order, np.bincount(part.numpy()).cumsum()[:-1])
    places = [min(map(tuple, corners[group].reshape(-1, 3).tolist())) for group in groups]
    return dict(zip(places, zip(areas.tolist(), extents.tolist(), strict=True), strict=True))


def _lost(dense: Mesh, sparse: Mesh) -> tuple[int, int]:
    """How many parts the sparse mesh lacks, and how many of them Clean Mesh would have kept."""
    before, after = _parts(dense), _parts(sparse)
    lost = torch.tensor([place not in after for place in before])
    areas, extents = torch.tensor(list(before.values()), dtype=torch.float64).unbind(dim=1)
    return int(lost.sum()), int((lost & ~repair.floaters(areas, extents)).sum())


@dataclass
class Dense:
    """The logits of all points of a grid, and what it cost to ask for them."""

    logits: Tensor
    seconds: float
    ram_mib: float | None

    @classmethod
    def ask(cls, field: Field, octree: int, how: Asking) -> Dense:
        """Asks a field."""
        start = time.perf_counter()
        with _Ram() as ram:
            logits = dense_logits(field, octree, how)
        return cls(logits, time.perf_counter() - start, ram.mib)


def dense_row(dense: Dense, octree: int, change: Change) -> tuple[Row, Mesh]:
    """The row of the dense decoder, whose logits are changed before the surface is extracted, and its mesh."""
    start = time.perf_counter()
    mesh = extract(change(dense.logits), octree)
    seconds = dense.seconds + time.perf_counter() - start
    return _row("dense", octree, dense.logits.numel(), seconds, dense.ram_mib, mesh), mesh


def sparse_row(field: Field, octree: int, how: Asking, whole: Mesh | None) -> Row:
    """The row of the sparse decoder, compared with the dense decoder's mesh if there is one."""
    asked = 0

    def counted(points: Tensor) -> Tensor:
        nonlocal asked
        asked += len(points)
        return field(points)

    start = time.perf_counter()
    with _Ram() as ram:
        mesh = surface(counted, octree, how, edge=lattice_edge(octree, "sparse"))
    row = _row("sparse", octree, asked, time.perf_counter() - start, ram.mib, mesh)
    if whole is None:
        return row
    same = torch.equal(whole.vertices, mesh.vertices) and torch.equal(whole.faces, mesh.faces)
    lost, kept = (0, 0) if same else _lost(whole, mesh)
    return row | {"identical": same, "lost_parts": lost, "lost_kept_by_clean": kept}


def _row(mode: str, octree: int, queries: int, seconds: float, ram_mib: float | None, mesh: Mesh) -> Row:
    return {
        "octree": octree, "mode": mode, "queries": queries, "share": round(queries / (octree + 1) ** 3, 4),
        "seconds": round(seconds, 2), "ram_mib": ram_mib, "faces": len(mesh.faces), "identical": None,
        "lost_parts": None, "lost_kept_by_clean": None,
    }  # fmt: skip


def rows_of(name: str, field: Field, octree: int, how: Asking, changes: Mapping[str, Change]) -> Iterator[Row]:
    """Two rows for each kind of logits, dense and sparse."""
    dense = Dense.ask(field, octree, how)
    for kind, change in changes.items():
        row, mesh = dense_row(dense, octree, change)
        yield {"shape": name, "logits": kind} | row
        yield {"shape": name, "logits": kind} | sparse_row(
            lambda points, change=change: change(field(points)), octree, how, mesh
        )


class _Ram:
    """Measures how much the process grows at most. Linux only; elsewhere `mib` stays None."""

    mib: float | None = None

    def __enter__(self) -> _Ram:
        if sys.platform == "linux":
            reset_peak()
            self._before = resident_mib("VmRSS")
        return self

    def __exit__(self, *_: object) -> None:
        if sys.platform == "linux":
            self.mib = round(resident_mib("VmHWM") - self._before)


@contextmanager
def demo_field(variant: str, seed: int) -> Iterator[Field]:
    """The field that a network of the demo makes of random latents."""
    model = open_shape(DEMO / MODELS[f"shape/{variant}"].folder, torch.float32)
    latents = torch.randn(1, *model.latent_shape, generator=torch.Generator().manual_seed(seed))
    host = TorchHost(torch.device("cpu"), torch.float32)
    with host.borrow(model.vae) as vae, shape_field(vae, latents, keys_once=True) as field:
        yield field


def asking(device: torch.device, points: int, dtype: torch.dtype) -> Asking:
    """Asks on the device, and gathers there."""
    return Asking(device, device, points, dtype, lambda done, total: None)


def on_cpu(octrees: Sequence[int], large: Sequence[int]) -> Iterator[Row]:
    """All networks of the demo and all known solids."""
    how = asking(torch.device("cpu"), 8000, torch.float32)
    as_it_is: Mapping[str, Change] = {"slow": torch.clone, "steep": _steep}
    # The demo's VAEs of one size are the same network, so each variant gets latents of its own.
    for seed, variant in enumerate((*VARIANTS, "v2-0", "v2-0")):
        with demo_field(variant, seed) as field:
            for octree in octrees:
                yield from rows_of(f"demo {variant}, latents {seed}", field, octree, how, as_it_is)
    for name, distance in fields.ANALYTIC.items():
        for octree in ANALYTIC_OCTREES:
            yield from rows_of(name, distance, octree, how, SOLIDS)
    sphere = fields.logits(fields.ANALYTIC["sphere"], fields.STEEP)
    for octree in large:
        yield {"shape": "sphere", "logits": "steep"} | sparse_row(sphere, octree, how, None)


def _steep(logits: Tensor) -> Tensor:
    """Logits of a demo network, which rise by 12 per length, as steep as fields.STEEP."""
    return (logits / (12 * fields.STEEP)).clamp(-1, 1)


def on_device(
    device: torch.device, folder: Path, octrees: Sequence[int], large: Sequence[int], warm_up: int = 64
) -> Iterator[Row]:
    """A decoder with random weights. It computes, and a solid gives the logits.

    Args:
        folder: the shape model.
        warm_up: the grid of a run before the measured ones.
    """
    how = asking(device, 20_000, torch.float16)
    model = open_shape(folder, torch.float16)
    latents = torch.randn(1, *model.latent_shape).to(device, torch.float16)
    host = TorchHost(device, torch.float16)
    with host.borrow(model.vae) as vae, shape_field(vae, latents, keys_once=True) as network:
        for name in ("sphere", "chair", "gyroid"):
            field = partial(_logits_of_a_solid, network, fields.logits(fields.ANALYTIC[name], fields.STEEP))
            list(rows_of(name, field, warm_up, how, {"steep": torch.clone}))
            for octree in octrees:
                yield from rows_of(name, field, octree, how, {"steep": torch.clone})
            for octree in large:
                yield {"shape": name, "logits": "steep"} | sparse_row(field, octree, how, None)


def _logits_of_a_solid(network: Field, solid: Field, points: Tensor) -> Tensor:
    """The solid's logits, after the network has computed its own."""
    return solid(points) + 0 * network(points).nan_to_num()


def on_gpu(octrees: Sequence[int], large: Sequence[int]) -> Iterator[Row]:
    """As `on_device`, with weights of the published size."""
    with TemporaryDirectory() as folder:
        full_size.write_shape(Path(folder))
        yield from on_device(torch.device("cuda"), Path(folder), octrees, large)


def main() -> None:
    """Measures, and writes the results after each row."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    options.add_argument("--octrees", type=int, nargs="*", default=OCTREES)
    options.add_argument("--large", type=int, nargs="*", default=LARGE, help="without the dense decoder")
    options.add_argument("--out", type=Path)
    chosen = options.parse_args()
    out = chosen.out or RESULTS / ("decode.json" if chosen.device == "cpu" else "decode-cuda.json")
    name = torch.cuda.get_device_name() if chosen.device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    rows: list[Row] = []
    for row in (on_cpu if chosen.device == "cpu" else on_gpu)(chosen.octrees, chosen.large):
        rows.append(row)
        sys.stdout.write("  ".join(map(str, row.values())) + "\n")
        sys.stdout.flush()
        found = {"device": name, "torch": torch.__version__, "rows": rows}
        out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
