"""Runs xatlas in a child process, so that this process stays responsive and can stop it."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from . import xatlas_script
from .xatlas_script import NO_WINDOW, READY, Refused

Progress = Callable[[int, int], None]
Charts = tuple[np.ndarray, np.ndarray, np.ndarray]
"""What `xatlas_script.parametrize` returns."""
_POLL_S = 0.1
_END_S = 2.0
"""Time for a child to end after its standard input was closed. Then it is killed."""
_SECONDS_PER_FACE = 6e-4
"""About what xatlas takes on one core for 40,000 faces as the pipeline makes them (benchmarks/unwrap.py)."""


class NoChild(Exception):
    """No child process could be started, or xatlas cannot be imported there."""


class ChildEnded(Exception):
    """The child process ended without an answer."""


def parametrize_in_child(
    positions: np.ndarray,
    faces: np.ndarray,
    resolution_px: int,
    padding_px: int,
    progress: Progress | None = None,
) -> Charts:
    """The result of `xatlas_script.parametrize`, byte for byte, computed by a child process.

    The child ends with this call, also after an error, and with this process. It writes no files.

    Args:
        progress: called with (done, 100) ten times a second. xatlas does not tell how far it is, so `done` follows the
            elapsed time. An error that it raises stops the child.

    Raises:
        Refused: xatlas cannot unwrap the mesh.
        NoChild: no child process could be started, or xatlas cannot be imported there.
        ChildEnded: the child crashed or was killed.
    """
    expected_s = _SECONDS_PER_FACE * len(faces)
    with _Child(_job(positions, faces, resolution_px, padding_px)) as child:
        start = time.monotonic()
        while child.works(_POLL_S):
            if progress is not None:
                progress(int(100 * -math.expm1(-(time.monotonic() - start) / expected_s)), 100)
        return child.charts()


def _job(positions: np.ndarray, faces: np.ndarray, resolution_px: int, padding_px: int) -> bytes:
    arrays = io.BytesIO()
    np.savez(arrays, positions=positions, faces=faces, resolution=resolution_px, padding=padding_px)
    paths = [str(Path(path).absolute()) for path in sys.path if path]
    job = json.dumps(paths).encode() + b"\n" + arrays.getvalue()
    return len(job).to_bytes(8, "little") + job


class _Child:
    """A child process that works on one job. A thread talks to it, because pipes block."""

    def __init__(self, job: bytes) -> None:
        if getattr(sys, "frozen", False) or not sys.executable:
            raise NoChild("this program has no Python to start")
        command = [sys.executable, *xatlas_script.ALONE, str(Path(xatlas_script.__file__).absolute())]
        try:
            # A session of its own keeps Ctrl+C away from the child: this process stops it.
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                creationflags=NO_WINDOW, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise NoChild(str(error)) from error
        self._answer = b""
        self._sent = threading.Event()
        self._thread = threading.Thread(target=self._talk, args=(job,), name="xatlas", daemon=True)

    def __enter__(self) -> _Child:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        if not self._sent.is_set():
            self._process.kill()  # no worker runs yet, and closing the pipe would wait for the thread that writes
        with suppress(OSError):
            self._process.stdin.close()  # the watcher ends the worker, and then itself
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._thread.join(_END_S)
        if not self._thread.is_alive():  # else closing would wait for it
            self._process.stdout.close()

    def _talk(self, job: bytes) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            with suppress(OSError):
                self._process.stdin.write(job)
                self._process.stdin.flush()
        finally:
            self._sent.set()
        self._answer = self._process.stdout.read()

    def works(self, wait_s: float) -> bool:
        """Waits for the end of the work. Returns whether it still goes on."""
        self._thread.join(wait_s)
        return self._thread.is_alive()

    def charts(self) -> Charts:
        """Returns the charts from the answer."""
        code = self._process.wait(_END_S)
        if not self._answer.startswith(READY):
            raise NoChild(f"it ended with code {code} before it had imported xatlas")
        if code != 0:
            raise ChildEnded(f"its process ended with code {code}")
        refused, _, arrays = self._answer.removeprefix(READY).partition(b"\n")
        if text := json.loads(refused):
            raise Refused(text)
        with np.load(io.BytesIO(arrays)) as found:
            return found["source"], found["indices"], found["uvs"]
