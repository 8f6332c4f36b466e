"""Painting in few steps with the demo's paint models, standard and turbo: mean colour error against 30 steps.

    python benchmarks/few_steps.py

A red capsule and a blue ring are painted from four views. The error is that of the views' pixels which show the object,
in 255ths: against the same model's own result at 30 steps, and against the picture's colour. Writes
benchmarks/results/few_steps.json.

What it does not tell: the demo's models give nearly the same picture at every step, by construction (demo/README.md).
So the table shows that each path runs and keeps colours at any number of steps. It says nothing of the published
weights.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "demo")]

import torch  # noqa: E402  (needs the path above)
import trimesh  # noqa: E402
import turbo_model  # noqa: E402
from torch import Tensor  # noqa: E402

from lowvram_core.app.torch_host import TorchHost  # noqa: E402
from lowvram_core.files.store import ModelStore  # noqa: E402
from lowvram_core.presets import PAINT_VARIANTS, PRESETS, TURBO_PAINT_STEPS, Preset  # noqa: E402
from lowvram_core.render.maps import normal_map  # noqa: E402
from lowvram_core.render.scene import Scene  # noqa: E402
from lowvram_core.stages.paint import paint_views  # noqa: E402
from lowvram_core.types import Cutout, Mesh  # noqa: E402

log = logging.getLogger("few_steps")
RESULT = ROOT / "benchmarks" / "results" / "few_steps.json"
STEPS = (4, 5, 6, 8, 10)
PRESET = PRESETS["8 GB Balanced"].with_(render_px=512)
COLOURS = {"capsule": (205, 45, 40), "ring": (45, 80, 200)}
SOLIDS = {
    "capsule": lambda: trimesh.creation.capsule(height=0.8, radius=0.4, count=[24, 24]),
    "ring": lambda: trimesh.creation.torus(0.6, 0.25),
}


def solid(name: str) -> Mesh:
    """A mesh with UVs; painting only asks whether there are any."""
    made = SOLIDS[name]()
    vertices = torch.tensor(made.vertices, dtype=torch.float32)
    return Mesh(vertices, torch.tensor(made.faces), uvs=(vertices[:, :2] * 0.4 + 0.5).clamp(0, 1))


def disc(colour: tuple[int, int, int]) -> Cutout:
    """A disc of one colour."""
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, 256)] * 2, indexing="ij")
    return Cutout(torch.tensor(colour).expand(256, 256, 3) / 255, (x**2 + y**2 < 0.64).float())


def seen(mesh: Mesh, preset: Preset) -> Tensor:
    """[N,512,512] bool: the pixels of the views that show the object."""
    scene = Scene(mesh, torch.device("cpu"))
    maps = torch.stack([normal_map(scene, camera, 512) for camera in preset.cameras])
    return (maps != 255).any(dim=-1)


def measure(names: Iterable[str] = SOLIDS, steps: Iterable[int] = STEPS) -> list[dict[str, object]]:
    """One row for each paint model and number of steps: the means over the solids."""
    host, rows = TorchHost(torch.device("cpu"), torch.float32), []
    with TemporaryDirectory() as folder:
        turbo_model.write(Path(folder))
        store = ModelStore([turbo_model.DEMO, folder], offline=True)
        for variant in PAINT_VARIANTS:
            found: dict[int, list[tuple[float, float]]] = {}
            for name in names:
                for count, errors in _errors(solid(name), COLOURS[name], variant, steps, host, store).items():
                    found.setdefault(count, []).append(errors)
            for count, pairs in found.items():
                own, true = (sum(one) / len(pairs) for one in zip(*pairs, strict=True))
                rows.append({"paint_variant": variant, "steps": count, "from_30_steps": round(own, 2),
                             "from_the_colour": round(true, 1)})  # fmt: skip
                log.info("%s", rows[-1])
    return rows


def _errors(
    mesh: Mesh, colour: tuple[int, int, int], variant: str, steps: Iterable[int], host: TorchHost, store: ModelStore
) -> dict[int, tuple[float, float]]:
    """By number of steps: the mean errors from the result at 30 steps and from the colour."""
    preset = PRESET.with_(paint_variant=variant)
    inside = seen(mesh, preset)

    def painted(count: int) -> Tensor:
        return paint_views(mesh, disc(colour), preset.with_(paint_steps=count), host, store).images[inside] * 255

    full, wanted = painted(TURBO_PAINT_STEPS), torch.tensor(colour, dtype=torch.float32)
    results = {TURBO_PAINT_STEPS: full, **{count: painted(count) for count in steps}}
    return {
        count: (float((pixels - full).abs().mean()), float((pixels - wanted).abs().mean()))
        for count, pixels in sorted(results.items())
    }


def main() -> None:
    """Prints and writes the table."""
    logging.basicConfig(format="%(message)s")
    log.setLevel(logging.INFO)
    RESULT.write_text(json.dumps({"rows": measure()}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
