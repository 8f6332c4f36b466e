"""Starts one real ComfyUI for all tests in this folder.

COMFYUI_PATH is the folder of its checkout. COMFYUI_PYTHON is a Python with its packages; by default, this one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import torchvision_hook  # noqa: E402  (tests/ is on the path by tests/conftest.py)

torchvision_hook.install()  # this folder's tests may run in ComfyUI's own environment, without our .venv
COMFYUI = os.environ.get("COMFYUI_PATH", "")
WEIGHTS = HERE.parents[1] / "demo" / "rembg" / "u2netp.onnx"


def _reason() -> str:
    if not COMFYUI:
        return "COMFYUI_PATH is not set: it names the folder of a ComfyUI checkout"
    if not (Path(COMFYUI) / "main.py").is_file():
        return f"COMFYUI_PATH is {COMFYUI}, which has no main.py"
    if not WEIGHTS.is_file():
        return "demo/rembg/u2netp.onnx is missing: run make weights"
    missing = [name for name in ("websocket", "trimesh", "PIL") if find_spec(name) is None]
    return f"{', '.join(missing)} not installed (websocket is websocket-client)" if missing else ""


REASON = _reason()


PART = (
    "test_private_names.py",
    "test_api.py::test_every_node_is_there",
    "test_api.py::test_workflows_use_core_and_ours_only",
    "test_api.py::test_mesh_is_what_the_tests_without_comfyui_take_it_for",
    "test_api.py::test_core_takes_our_mesh",
)
"""What `make test` runs: two servers, one for each file."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skips this folder's tests if there is no ComfyUI, or if they are not in the part that is asked for."""
    for item in items:
        if HERE not in item.path.parents:
            continue
        name = item.nodeid.rpartition("/")[2]
        if REASON:
            item.add_marker(pytest.mark.skip(reason=REASON))
        elif config.getoption("--comfyui") == "part" and not name.startswith(PART):
            item.add_marker(pytest.mark.skip(reason="make test runs only a part"))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The server. Its input folder holds the demo's pictures, and the ring again as example.png."""
    from comfy_server import running

    with running(tmp_path_factory.mktemp("comfy") / "base", Path(COMFYUI)) as started:
        yield started


@pytest.fixture(scope="session")
def info(server: Any) -> dict[str, Any]:
    """The server's description of its nodes."""
    known: dict[str, Any] = server.get("/object_info")
    return known


@pytest.fixture(scope="module")
def tab(server: Any) -> Iterator[Any]:
    """One browser tab for all tests of a file."""
    from browser import editor

    with editor(server) as opened:
        yield opened
