"""The project's own .venv imports torchvision without help, and so runs `python -m lowvram_core`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torchvision_hook
import trimesh

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "--models", "demo", "--offline", "--device", "cpu", "--octree", "24", "--shape-steps", "2", "--delight-steps", "1",
    "--paint-steps", "1", "--views", "minimal", "--render-px", "128", "--texture-px", "128", "--face-budget", "300",
    "--unwrapper", "uvunwrap",
]  # fmt: skip


def python(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, timeout=300)


def test_the_command_line_runs_as_the_readme_says(tmp_path: Path) -> None:
    picture = ROOT / "demo" / "pictures" / "capsule.png"
    done = python("-m", "lowvram_core", str(picture), "-o", str(tmp_path / "mesh.glb"), *SMALL, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    mesh = trimesh.load(tmp_path / "mesh.glb", force="mesh", process=False)
    assert 100 < len(mesh.faces) <= 300 and mesh.visual.material.baseColorTexture.size == (128, 128)


def test_python_starts_without_torch_and_then_imports_torchvision(tmp_path: Path) -> None:
    program = "import sys; assert not {'torch', 'torchvision'} & set(sys.modules); import torchvision.transforms"
    done = python("-W", "error", "-c", program, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("library", ["", "loads", "fails"])
def test_the_operators_are_declared_only_where_the_library_does_not_load(tmp_path: Path, library: str) -> None:
    """With a torchvision whose import reports what it finds; `find_spec` alone imports nothing."""
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text("import torch\nFOUND = hasattr(torch.ops.torchvision, 'nms')\n")
    if library:
        (package / "_C.so").touch()
    program = f"""
import sys
sys.path[:0] = [{str(tmp_path)!r}, {str(Path(torchvision_hook.__file__).parent)!r}]
import importlib.util, torchvision_hook
torchvision_hook.install(), torchvision_hook.install()
assert sum(finder is torchvision_hook._Finder for finder in sys.meta_path) == 1
assert importlib.util.find_spec("torchvision") and "torch" not in sys.modules
import torch
def load_library(path):
    if {library == "fails"}:
        raise OSError(path)
torch.ops.load_library = load_library
import torchvision
assert torchvision.FOUND == {library != "loads"}, torchvision.FOUND
"""
    done = python("-c", program, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
