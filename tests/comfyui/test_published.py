"""comfy-test (PyPI) tests the pack as it is published, at the levels that comfy-test.toml names."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
from comfy_server import CHROMIUM, ROOT, Server

COMFYUI = os.environ.get("COMFYUI_PATH", "")
pytestmark = pytest.mark.skipif(find_spec("comfy_test") is None, reason="comfy-test is not installed")

LONGEST_S = 7200
"""All workflows run at their own presets, with the models of the demo."""

CPU = """
import sys
sys.path.append({folder!r})
import launch
sys.path.pop()
launch.declare_missing()
from comfy.cli_args import args
args.cpu = True
"""


def lay_out(comfyui: Path) -> Path:
    """Makes a ComfyUI folder with one custom node: the pack without .comfyignore's files. Returns the pack's folder."""
    for part in Path(COMFYUI).iterdir():
        if part.name not in {"custom_nodes", "folder_paths.py"}:
            (comfyui / part.name).symlink_to(part)
    # comfy-test imports the pack without launch.py and its --cpu. This is the first ComfyUI module that it imports.
    text = (Path(COMFYUI) / "folder_paths.py").read_text(encoding="utf-8")
    (comfyui / "folder_paths.py").write_text(CPU.format(folder=str(Path(__file__).parent)) + text, encoding="utf-8")
    lines = (ROOT / ".comfyignore").read_text(encoding="utf-8").splitlines()
    left_out = {ROOT / line.rstrip("/") for line in lines if line and not line.startswith("#")}

    def skipped(folder: str, names: list[str]) -> set[str]:
        return {name for name in names if name.startswith((".", "__pycache__")) or Path(folder) / name in left_out}

    pack = comfyui / "custom_nodes" / "hunyuan3d-lowvram"
    shutil.copytree(ROOT, pack, ignore=skipped)
    return pack


BROWSER_LEVELS = {"static_capture", "execution_light"}


def test_comfy_test(server: Server, tmp_path: Path) -> None:
    """Every level passes with the running ComfyUI, whose log has no import error. Some levels need Chromium."""
    comfyui, logs = tmp_path / "ComfyUI", tmp_path / "logs"
    for folder in (comfyui, logs):
        folder.mkdir()
    pack = lay_out(comfyui)
    levels = set(tomllib.loads((pack / "comfy-test.toml").read_text(encoding="utf-8"))["test"]["levels"])
    (logs / "server.log").write_text(server.log(), encoding="utf-8")
    command = [sys.executable, str(Path(__file__).with_name("comfy_test_here.py")), "run"]
    if not CHROMIUM:
        levels -= BROWSER_LEVELS
        command = [sys.executable, "-m", "comfy_test", "run", "--level", "validation"]
    done = subprocess.run(
        [*command, "--server-url", server.url], cwd=pack, capture_output=True, text=True, timeout=LONGEST_S,
        env={**os.environ, "COMFY_TEST_LOGS_DIR": str(logs), "TMPDIR": str(tmp_path),
             "COMFY_TEST_SCREENSHOT_TIMEOUT": "600000"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    passed = {level for level in levels if f"[{level.upper()}] PASSED" in done.stdout}
    assert passed == levels, done.stdout
    settings = tomllib.loads((pack / "comfy-test.toml").read_text(encoding="utf-8"))["test"]["workflows"]
    assert settings["run"] == settings["cpu"]
    workflows = len(settings["run"])
    assert f"Validating {workflows} workflow(s)" in done.stdout, done.stdout
    if CHROMIUM:
        assert f"will execute {workflows} workflow(s)" in done.stdout, done.stdout
