"""ComfyUI answers while xatlas unwraps, shows its progress, and can interrupt it."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import psutil
import trimesh
from comfy_server import Server
from graphs import Prompt, node, ours, saved, tiny_preset
from test_api import interrupted

Info = dict[str, Any]
ANSWER_S = 2.0
"""Within this time the server must answer, also on a busy computer. With xatlas inside, it took as long as xatlas."""
INTERRUPT_S = 2.0


def unwrapping(server: Server, info: Info) -> Prompt:
    """A graph that unwraps a torus of 25,600 faces, for which xatlas needs several seconds."""
    shape = trimesh.creation.torus(1.0, 0.42, major_sections=160, minor_sections=80)
    points = np.asarray(shape.vertices)
    wave = 1 + 0.1 * np.sin(5 * points[:, 0] + 0.3) * np.cos(4 * points[:, 2]) * np.sin(6 * points[:, 1] + 1.1)
    trimesh.Trimesh(points * wave[:, None], shape.faces, process=False).export(server.input / "large.glb")
    return {
        "preset": tiny_preset(info, unwrapper="xatlas", texture_px=1024),
        "mesh": ours(info, "LoadMesh", file="large.glb"),
        "unwrap": ours(info, "UnwrapUVs", mesh=["mesh", 0], preset=["preset", 0]),
        "save": node(info, "SaveGLB", mesh=["unwrap", 0], filename_prefix="3d/unwrapped"),
    }


class Pings:
    """Asks the server again and again, until the end of the `with` block."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self.waits_s: list[float] = []

    def __enter__(self) -> Pings:
        self._thread.start()
        return self

    def _ask(self) -> None:
        while not self._stop.wait(0.05):
            start = time.monotonic()
            self._server.get("/queue")
            self.waits_s.append(time.monotonic() - start)

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()


def children(server: Server) -> list[str]:
    below = psutil.Process(server.process.pid).children(recursive=True)
    return [line for line in (" ".join(process.cmdline()) for process in below) if "xatlas_script" in line]


def test_the_server_answers_while_xatlas_works(server: Server, info: Info) -> None:
    with Pings(server) as pings:
        run = server.run(unwrapping(server, info))
    seconds = run.ui("unwrap")["hy3d_seconds"][0]
    bars = [data["nodes"]["unwrap"]["value"] for data in run.of("progress_state") if "unwrap" in data["nodes"]]
    print(f"unwrap {seconds:.1f} s, {len(pings.waits_s)} answers, the slowest after {max(pings.waits_s):.2f} s")  # noqa: T201
    assert seconds > 2 and len(pings.waits_s) > seconds, "it took long enough to be asked"
    assert max(pings.waits_s) < ANSWER_S
    assert len(set(bars)) > 4 and bars == sorted(bars), "the bar moves"
    (path,) = saved(server.output, run.ui("save"))
    assert trimesh.load(path, force="mesh").visual.uv is not None
    assert not children(server) and "no other process could be started" not in server.log()


def test_an_interrupt_ends_xatlas(server: Server, info: Info) -> None:
    prompt = unwrapping(server, info)
    prompt["unwrap"]["inputs"]["unwrapper"] = "xatlas"  # in the preset it stands already: the result is cached
    run, seconds = interrupted(server, prompt, "unwrap", "unwrapping ")
    print(f"interrupted after {seconds:.2f} s")  # noqa: T201
    assert seconds < INTERRUPT_S
    assert run.of("execution_interrupted")[0]["node_id"] == "unwrap"
    assert not children(server) and server.is_idle()
