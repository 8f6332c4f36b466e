"""Runs a real ComfyUI in its own process and folder, and talks to it as a client."""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "demo"
sys.path.append(str(DEMO))

import turbo_model  # noqa: E402  (needs the path above)

BROWSER = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or ""
CHROMIUM = BROWSER if find_spec("playwright") is not None else ""
"""The browser. Empty if there is no browser or no playwright."""
START_S = 240
RUN_S = 400
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
"""Of the server. Offline, so that models missing from the demo are not downloaded: its small background model replaces
u2net. One thread: a browser that draws without a GPU keeps one core busy, and with two threads each step would wait for
the thread on that core (a run took 92 s, not 20). numba has a number of its own.
"""
FINAL = {"execution_success", "execution_error", "execution_interrupted"}


@dataclass
class Run:
    """The events from the websocket between queueing a prompt and its end."""

    prompt_id: str
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def ending(self) -> str:
        """`execution_success`, `execution_error` or `execution_interrupted`."""
        return self.events[-1][0]

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The events of one kind."""
        return [data for name, data in self.events if name == kind]

    def cached(self) -> set[str]:
        """Ids of the nodes that ComfyUI did not run again."""
        return {node for data in self.of("execution_cached") for node in data["nodes"]}

    def texts(self, node_id: str) -> list[str]:
        """The texts that the node showed, in order."""
        return [data["text"] for data in self.of("text") if data["node"] == node_id]

    def bars(self) -> dict[str, list[float]]:
        """By node, how full its bar was while it ran, 0 to 1."""
        found: dict[str, list[float]] = {}
        for data in self.of("progress_state"):
            for name, bar in data["nodes"].items():
                if bar["state"] == "running":
                    found.setdefault(name, []).append(bar["value"] / bar["max"])
        return found

    def ui(self, node_id: str) -> dict[str, Any]:
        """What the node sent to the front end. If it ran several times, the last one."""
        return next(data["output"] for data in reversed(self.of("executed")) if data["node"] == node_id)


class Server:
    """One running ComfyUI.

    Args:
        base: its base directory: input, output, models, custom_nodes.
        port: its port on 127.0.0.1.
    """

    def __init__(self, base: Path, port: int, process: subprocess.Popen[bytes]) -> None:
        self.base = base
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.process = process

    @property
    def input(self) -> Path:
        """The input folder."""
        return self.base / "input"

    @property
    def output(self) -> Path:
        """The output folder."""
        return self.base / "output"

    def get(self, path: str) -> Any:
        """Returns the JSON at a path."""
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            return json.load(answer)

    def post(self, path: str, body: Any = None) -> Any:
        """Sends JSON. Returns the answer's JSON, or None if the answer is empty."""
        data = json.dumps({} if body is None else body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                text = answer.read()
        except HTTPError as error:
            raise AssertionError(f"{path}: {error.code} {error.read().decode()[:3000]}") from error
        return json.loads(text) if text else None

    def run(
        self,
        prompt: dict[str, Any],
        *,
        on_event: Callable[[str, dict[str, Any]], None] | None = None,
        expect: str = "execution_success",
    ) -> Run:
        """Queues the prompt and reads its events to the end.

        Args:
            on_event: called with each event.
            expect: how the prompt must end.
        """
        import websocket

        client = uuid.uuid4().hex
        line = websocket.create_connection(f"ws://127.0.0.1:{self.port}/ws?clientId={client}", timeout=RUN_S)
        try:
            line.send(json.dumps({"type": "feature_flags", "data": {"supports_preview_metadata": True}}))
            start = time.monotonic()
            run = Run(self.post("/prompt", {"prompt": prompt, "client_id": client})["prompt_id"])
            while not run.events or run.ending not in FINAL:
                message = line.recv()
                kind, data = _binary(message) if isinstance(message, bytes) else _event(message)
                if isinstance(message, bytes) or data.get("prompt_id") == run.prompt_id:
                    run.events.append((kind, data))
                    if on_event is not None:
                        on_event(kind, data)
            run.seconds = time.monotonic() - start
        finally:
            line.close()
        assert run.ending == expect, run.events[-1]
        return run

    def is_idle(self) -> bool:
        """Whether the queue is empty within 5 s. A prompt leaves the queue a moment after its last event."""
        deadline = time.monotonic() + 5
        while self.get("/queue") != {"queue_running": [], "queue_pending": []}:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def wait_for_file(self, pattern: str) -> Path:
        """The first file of the output folder that matches, once the queue is empty again."""
        deadline = time.monotonic() + RUN_S
        while not (found := list(self.output.glob(pattern))) or not self.is_idle():
            assert time.monotonic() < deadline, f"no {pattern} in {RUN_S} s:\n{self.log()[-4000:]}"
            time.sleep(0.2)
        return found[0]

    def log(self) -> str:
        """What the server has printed so far."""
        return (self.base / "server.log").read_text(errors="replace")


PICTURE_WITH_DESCRIPTION, TEXT = 4, 3
"""Kinds of binary messages."""


def _event(message: str) -> tuple[str, dict[str, Any]]:
    event = json.loads(message)
    return event["type"], event["data"]


def _binary(message: bytes) -> tuple[str, dict[str, Any]]:
    """Returns a `preview` with node and picture, or a `text` with node and text.

    4 bytes kind, 4 bytes length of the description, the description, a JPEG. Or 4 bytes kind, 4 bytes length of the
    node's id, the id, the text.
    """
    kind, length = struct.unpack(">II", message[:8])
    head, rest = message[8 : 8 + length], message[8 + length :]
    if kind == TEXT:
        return "text", {"node": head.decode(), "text": rest.decode()}
    assert kind == PICTURE_WITH_DESCRIPTION, f"{kind} is no picture with a description"
    return "preview", {"node": json.loads(head)["node_id"], "picture": rest}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _lay_out(base: Path, pack: Path, others: Iterable[Path]) -> Path:
    for folder in ("custom_nodes", "input", "output", "models", "user", "temp"):
        (base / folder).mkdir(parents=True)
    (base / "custom_nodes" / "hunyuan3d-lowvram").symlink_to(pack)
    for other in others:
        (base / "custom_nodes" / other.name).symlink_to(other)
    shutil.copy(Path(__file__).with_name("probe.py"), base / "custom_nodes")
    _put_inputs(base / "input")
    _put_upscaler(base / "models" / "upscale_models")
    turbo_model.write(base / "models" / "hunyuan3d_lowvram")  # the other models are those of the demo's folder
    paths = base / "extra_model_paths.yaml"
    paths.write_text(f"demo:\n  base_path: {json.dumps(str(DEMO))}\n  hunyuan3d_lowvram: .\n")
    return paths


def _put_upscaler(folder: Path) -> None:
    """Writes an upscale model of two layers without weights, which repeats pixels: four times the width and height."""
    import torch
    from safetensors.torch import save_file

    sizes = {"0.weight": (1, 3, 3, 3), "0.bias": (1,), "1.weight": (1,), "2.weight": (48, 1, 3, 3), "2.bias": (48,)}
    folder.mkdir(parents=True)
    layers = {f"body.{name}": torch.zeros(size) for name, size in sizes.items()}
    save_file(layers, folder / "RealESRGAN_x4plus.safetensors")


def _put_inputs(folder: Path) -> None:
    """Writes the files that the workflows name: example.png is the demo's ring, mesh.glb is a capsule,
    my_pictures has two pictures.

    Every ComfyUI has its own example.png, but the demo's models only know simple solids.
    """
    from PIL import Image

    for picture in (DEMO / "pictures").iterdir():
        shutil.copy(picture, folder)
    Image.open(folder / "ring.jpg").save(folder / "example.png")
    (folder / "my_pictures").mkdir()
    for name in ("capsule.png", "ring.jpg"):
        shutil.copy(folder / name, folder / "my_pictures")
    _put_capsule(folder / "mesh.glb")


def _put_capsule(path: Path) -> None:
    """Writes a capsule of 2 x 1 x 1 with small triangles everywhere, as made and scanned meshes have."""
    import numpy as np
    import trimesh

    turn, side = np.linspace(0, np.pi / 2, 13), np.linspace(-0.5, 0.5, 12)[1:-1]
    cap = np.stack([0.5 * np.cos(turn), 0.5 * np.sin(turn) + 0.5], axis=1)
    cap[-1, 0] = 0
    line = np.concatenate([cap[::-1] * (1, -1), np.stack([np.full_like(side, 0.5), side], axis=1), cap])
    trimesh.creation.revolve(line, sections=32).export(path)


@contextmanager
def running(base: Path, comfyui: Path, pack: Path = ROOT, others: Iterable[Path] = ()) -> Iterator[Server]:
    """Starts a server in an empty folder. It ends with the `with` block.

    Args:
        base: a folder that is empty or does not exist yet.
        comfyui: a checkout. It is not changed.
        pack: the folder of this pack.
        others: the folders of other packs.
    """
    paths = _lay_out(base, pack, others)
    port = _free_port()
    # No --disable-api-nodes: its Content-Security-Policy blocks the textures inside a GLB in the viewer.
    command = [
        os.environ.get("COMFYUI_PYTHON", sys.executable), str(Path(__file__).with_name("launch.py")), str(comfyui),
        "--cpu", "--port", str(port), "--base-directory", str(base), "--extra-model-paths-config", str(paths),
        "--database-url", f"sqlite:///{base / 'user' / 'comfyui.db'}", "--disable-auto-launch",
    ]  # fmt: skip
    with (base / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=os.environ | ENVIRONMENT)
        server = Server(base, port, process)
        try:
            _wait(server)
            yield server
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(server: Server) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        assert server.process.poll() is None, f"ComfyUI ended while starting:\n{server.log()[-4000:]}"
        try:
            server.get("/system_stats")
            return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"ComfyUI did not answer in {START_S} s:\n{server.log()[-4000:]}")
