"""RAM over a run at full quality: peak RSS of each component and of each part of the geometry.

    python benchmarks/ram.py

The weights are random, at the published sizes. Each component is loaded as for a GPU, and every byte of it is read, as
the copy to a GPU does. The geometry is computed on the CPU, at octree 384 and 2048 px, so its RAM includes what a GPU
would hold. The activations of networks are left out. Then each component is loaded at float32 from the same files, in a
new process each, as for the CPU or for a card without float16. Writes benchmarks/results/ram.json. Needs 12 GB of disk.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import torch  # noqa: E402  (needs the path above)
import vram  # noqa: E402
from resident import reset_peak, resident_mib  # noqa: E402

from lowvram_core.app.torch_host import TorchHost  # noqa: E402
from lowvram_core.files.store import ModelStore  # noqa: E402
from lowvram_core.geometry.fields import BOX  # noqa: E402
from lowvram_core.geometry.marching import extract  # noqa: E402
from lowvram_core.host import Component  # noqa: E402
from lowvram_core.networks.delight import open_delight  # noqa: E402
from lowvram_core.networks.paint import open_paint  # noqa: E402
from lowvram_core.networks.shape import open_shape  # noqa: E402
from lowvram_core.presets import PRESETS  # noqa: E402
from lowvram_core.stages import bake, clean, inpaint, paint, unwrap  # noqa: E402
from lowvram_core.types import Views  # noqa: E402

PRESET = PRESETS["4 GB"]
HALF = torch.float16


def weigh(call: Callable[[], object]) -> dict[str, float]:
    """Returns the peak RSS and the seconds of a call."""
    reset_peak()
    start = time.perf_counter()
    call()
    return {"peak_rss_mib": round(resident_mib("VmHWM"), 1), "own_after_mib": round(resident_mib("RssAnon"), 1),
            "seconds": round(time.perf_counter() - start, 1)}  # fmt: skip


def read_every_byte(component: Component) -> None:
    """Loads the component as a host does, reads all its weights, and drops it."""
    host = TorchHost(torch.device("cpu"), HALF)
    with host.borrow(component) as module:
        for tensor in (*module.parameters(), *module.buffers()):
            for part in tensor.detach().reshape(-1).split(1 << 22):
                part.float().sum()


def components(store: ModelStore, dtype: torch.dtype) -> list[Component]:
    """All components, in the order of a run."""
    first = open_shape(store.folder("shape/v2-0"), dtype)
    second = open_delight(store.folder("delight"), dtype)
    third = open_paint(store.folder("paint"), dtype)
    return [first.conditioner, first.dit, first.vae, second.text_encoder, second.vae, second.unet, third.vae,
            third.dual, third.main]  # fmt: skip


def at_float32(folder: str, index: int) -> tuple[str, dict[str, float]]:
    """The label of a component and its figures at float32. It runs in its own process."""
    component = components(ModelStore([folder], offline=True), torch.float32)[index]
    row = weigh(lambda: read_every_byte(component))
    return component.label, {"weights_mib": round(component.weight_bytes / 2**20, 1), **row}


def bumpy_field() -> torch.Tensor:
    """[385,385,385] logits of a ball with bumps."""
    axis = torch.linspace(-BOX, BOX, PRESET.octree + 1)
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    radius = 0.8 + 0.05 * torch.sin(9 * x) * torch.sin(9 * y) * torch.sin(9 * z)
    return radius - (x**2 + y**2 + z**2).sqrt()


def geometry(rows: dict[str, dict[str, float]]) -> None:
    """Measures all stages without networks."""
    host = TorchHost(torch.device("cpu"), torch.float32)
    kept: dict[str, Any] = {"field": bumpy_field()}

    def keep(name: str, call: Callable[[], object]) -> None:
        rows[name] = weigh(lambda: kept.update({name: call()}))

    keep("surface", lambda: extract(kept.pop("field"), PRESET.octree))
    keep("clean", lambda: clean.clean(kept["surface"], PRESET, host))
    keep("unwrap", lambda: unwrap.unwrap(kept["clean"], PRESET, host))
    keep("maps", lambda: paint._geometry(kept["unwrap"], PRESET.cameras, PRESET.render_px, host))
    views = Views(torch.rand(len(PRESET.cameras), 512, 512, 3), PRESET.cameras)
    keep("bake", lambda: bake.bake(kept["unwrap"], views, PRESET, host))
    keep("inpaint", lambda: inpaint.inpaint(kept["unwrap"], kept["bake"], host))


def most(rows: dict[str, dict[str, float]]) -> float:
    """Returns the highest peak."""
    return max(row["peak_rss_mib"] for row in rows.values())


def main() -> None:
    """Prints and writes the figures."""
    rows: dict[str, dict[str, float]] = {}
    with TemporaryDirectory() as folder, multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as fresh:
        # in another process, so that memory left over from writing is not counted
        fresh.apply(vram.write_models, (Path(folder), [PRESET]), {"sparse": False})
        for component in components(ModelStore([folder], offline=True), HALF):
            rows[component.label] = weigh(lambda component=component: read_every_byte(component))  # type: ignore[misc]
        full = dict(fresh.starmap(at_float32, [(folder, index) for index in range(len(rows))], chunksize=1))
    geometry(rows)
    found = {
        "peak_rss_mib": most(rows), "steps": rows,
        "float32_peak_rss_mib": most(full), "float32": full,
    }  # fmt: skip
    text = json.dumps(found, indent=1)
    sys.stdout.write(text + "\n")
    (HERE / "results" / "ram.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
