"""The pack imports without hy3dgen's own requirements of 1.5 GB."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import importlib, importlib.abc, pkgutil, sys

BLOCKED = {"gradio", "fastapi", "uvicorn", "starlette", "pymeshlab", "pygltflib", "pybind11", "ninja",
           "custom_rasterizer", "mesh_processor", "comfy", "folder_paths"}
asked = set()

class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        first = name.split(".")[0]
        if first in BLOCKED:
            asked.add(first)
            raise ModuleNotFoundError(f"{name} is blocked", name=name)
        return None

sys.meta_path.insert(0, Block())

import cv2
for gui in ("imshow", "namedWindow", "waitKey", "destroyAllWindows"):
    if hasattr(cv2, gui):
        delattr(cv2, gui)

import lowvram_core
names = [module.name for module in pkgutil.walk_packages(lowvram_core.__path__, "lowvram_core.")]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)

from lowvram_core.networks import hy3dgen
for part in ("models.denoisers.hunyuan3ddit", "models.autoencoders", "models.conditioner", "schedulers", "pipelines"):
    hy3dgen.shapegen(part)
hy3dgen.paint_unet()
assert "pymeshlab" not in sys.modules, "the stand-in was left behind"
sys.stdout.write(f"imported {len(names)} modules; blocked: {sorted(asked)}")
"""


def test_everything_imports_with_the_heavy_requirements_blocked() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    count = int(done.stdout.split("imported ")[1].split()[0])
    assert count > 20


def test_the_requirements_name_none_of_them() -> None:
    listed = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    names = {line.split(">=")[0].split("==")[0].strip().lower() for line in listed if line and line[0].isalpha()}
    heavy = {"gradio", "fastapi", "uvicorn", "pymeshlab", "pygltflib", "pybind11", "ninja", "opencv-python"}
    assert not names & heavy
    assert not names & {"hy3dgen", "torch", "torchvision"}
