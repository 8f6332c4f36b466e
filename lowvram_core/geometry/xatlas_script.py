"""Runs xatlas. As a module it runs it in this process; as a script, in a process of its own.

xatlas holds Python's GIL from beginning to end, so no other thread of its process can run. xatlas_child.py therefore
starts this file as a script, with pipes as standard input and output. The script uses two processes:

- The watcher reads the job, starts the worker and waits for the end of its standard input, which comes when the parent
  closes the pipe or dies. Then it kills the worker.
- The worker imports NumPy and xatlas, writes READY, computes and writes the answer. It cannot watch a pipe itself,
  because xatlas holds the GIL.

A job is 8 bytes with its length, then a line of JSON (the parent's sys.path), then an NPZ. An answer is READY, then a
line of JSON (why xatlas refused the mesh, or an empty text), then an NPZ.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

READY = b"ready\n"
NO_WINDOW: int = getattr(subprocess, "CREATE_NO_WINDOW", 0)
"""Flag of a process that gets no console window on Windows; 0 elsewhere."""
ALONE = ("-I", "-S")
"""Python's options for both processes: no environment variables, no user folder, no sitecustomize."""
_WORKER = "--worker"


class Refused(Exception):
    """xatlas cannot unwrap the mesh."""


def parametrize(
    positions: np.ndarray, faces: np.ndarray, resolution_px: int, padding_px: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """[W] uint32 source vertices, [F,3] uint32 faces, [W,2] float32 UVs, from xatlas with its default chart options.

    Resolution and padding change only the UVs: source vertices and faces are those of `xatlas.parametrize`.

    Args:
        positions: [V,3] float32.
        faces: [F,3] uint32.
        resolution_px: width of the texture that the charts are packed for; 0: xatlas chooses it.
        padding_px: gap between two charts, in texels of that texture.

    Raises:
        Refused: xatlas cannot unwrap the mesh, or not into one texture.
        ImportError: xatlas is not installed.
    """
    import xatlas

    packing = xatlas.PackOptions()
    packing.resolution, packing.padding = resolution_px, padding_px
    try:
        atlas = xatlas.Atlas()
        atlas.add_mesh(positions, faces)
        atlas.generate(pack_options=packing)
        if atlas.atlas_count != 1:
            raise Refused(f"its charts need {atlas.atlas_count} textures")
        source, indices, uvs = atlas[0]
    except (RuntimeError, ValueError) as error:
        raise Refused(str(error)) from error
    return source, indices, uvs


def _watch() -> int:
    """Runs the worker on the job of standard input, kills it when that ends, and returns its exit code."""
    length = int.from_bytes(sys.stdin.buffer.read(8), "little")
    job = sys.stdin.buffer.read(length)
    command = [sys.executable, *ALONE, str(Path(__file__)), _WORKER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, creationflags=NO_WINDOW) as worker:
        threading.Thread(target=_kill_at_the_end, args=(worker,), daemon=True).start()
        worker.communicate(job)
    return worker.returncode


def _kill_at_the_end(worker: subprocess.Popen[bytes]) -> None:
    sys.stdin.buffer.read()
    worker.kill()


def _work() -> None:
    """Answers the job of standard input on standard output."""
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever else writes to standard output must not get into the answer
    paths, _, arrays = sys.stdin.buffer.read().partition(b"\n")
    sys.path += [path for path in json.loads(paths) if path not in sys.path]
    import numpy as np
    import xatlas  # noqa: F401  (the parent takes READY as the sign that it can be imported)

    answer.write(READY)
    answer.flush()
    job = np.load(io.BytesIO(arrays))
    refused, found = "", io.BytesIO()
    try:
        source, indices, uvs = parametrize(job["positions"], job["faces"], int(job["resolution"]), int(job["padding"]))
        np.savez(found, source=source, indices=indices, uvs=uvs)
    except Refused as error:
        refused = str(error)
    answer.write(json.dumps(refused).encode() + b"\n" + found.getvalue())
    answer.flush()


def _main() -> int:
    if _WORKER in sys.argv:
        _work()
        return 0
    return _watch()


if __name__ == "__main__":
    # Ends the process at once: the thread of the watcher may still wait for standard input.
    os._exit(_main() & 0xFF)
