"""Times the small pictures that nodes show, with numba and without.

    python -W ignore benchmarks/portraits.py

The mesh has 40,000 faces, UVs and a texture of 2048 px. The first picture of a process also loads the machine code, so
it is listed on its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

RESULT = ROOT / "benchmarks" / "results" / "portraits.json"
REPEATS = 15
Row = dict[str, Any]


def measured() -> list[Row]:
    """One row for each kind of picture, in this process."""
    import torch
    from bake_scenes import carved

    from lowvram_core.geometry.unwrappers import unwrap_uvunwrap
    from lowvram_core.render.portraits import layout, look, wireframe
    from lowvram_core.types import Mesh

    torch.manual_seed(0)
    plain = carved()
    mesh = unwrap_uvunwrap(plain)
    textured = Mesh(mesh.vertices, mesh.faces, uvs=mesh.uvs, texture=torch.rand(2048, 2048, 3))
    rows = []
    for name, draw, drawn in (
        ("four sides", look, plain), ("four sides, textured", look, textured),
        ("wireframe", wireframe, plain), ("UV layout", layout, mesh),
    ):  # fmt: skip
        seconds = []
        for _ in range(REPEATS + 1):
            start = time.perf_counter()
            draw(drawn)
            seconds.append(time.perf_counter() - start)
        first, *later = (round(1000 * one) for one in seconds)
        rows.append({"picture": name, "faces": len(drawn.faces), "median_ms": round(statistics.median(later)),
                     "longest_ms": max(later), "first_ms": first})  # fmt: skip
    return rows


def child(numba: bool) -> list[Row]:
    """The rows of a fresh process."""
    block = "" if numba else "import sys; sys.modules['numba'] = None; "
    code = f"{block}import portraits, json; print(json.dumps(portraits.measured()))"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=ROOT / "benchmarks", check=True, stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    rows: list[Row] = json.loads(done.stdout.splitlines()[-1])
    return [{"numba": numba} | row for row in rows]


def main() -> None:
    """Measures both, and writes the results."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, default=RESULT)
    chosen = options.parse_args()
    rows = child(True) + child(False)
    for row in rows:
        sys.stdout.write("  ".join(map(str, row.values())) + "\n")
    import torch

    found = {"device": f"CPU, {torch.get_num_threads()} threads", "torch": torch.__version__, "rows": rows}
    chosen.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
