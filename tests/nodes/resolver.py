"""Finds versions of requirements.txt that go together on another platform, from wheels only; nothing is installed.

    COMFYUI_PATH=<ComfyUI's folder> python tests/nodes/resolver.py

With COMFYUI_PATH, the versions also meet ComfyUI's own requirements.txt. Exits with 1 where there are none.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from install_report import REQUIREMENTS, NoIndex

HY3DGEN = REQUIREMENTS.parent / "lowvram_core" / "requirements-hy3dgen.txt"
PLATFORMS = {"Linux": "x86_64-manylinux_2_28", "Windows": "x86_64-pc-windows-msvc", "macOS": "aarch64-apple-darwin"}
"""uv's names. libigl has wheels from glibc 2.28 on."""
PYTHONS = ("3.11", "3.12", "3.13")
TARGETS = [(platform, python) for platform in PLATFORMS for python in PYTHONS]
OPTIONAL = ("DracoPy",)
"""The pack uses them if they are installed, so they must have wheels, too."""
MACOS = "14.0"
"""ComfyUI's own PyAV has no wheels for older versions."""
_UNREACHABLE = ("Failed to fetch", "error sending request", "network was disabled")


def comfyuis() -> Path | None:
    """ComfyUI's requirements.txt, if COMFYUI_PATH names its folder."""
    path = Path(os.environ.get("COMFYUI_PATH", "")) / "requirements.txt"
    return path if os.environ.get("COMFYUI_PATH") and path.is_file() else None


class Resolution:
    """A resolver that runs in its own process, so that all targets can be asked at once.

    Args:
        target: platform and Python version.
        requirements: files.
        names: further packages.
        alone: without the packages that these need, as pip's --no-deps.
    """

    def __init__(
        self, target: tuple[str, str], requirements: list[Path], names: tuple[str, ...] = (), *, alone: bool = False
    ) -> None:
        self._folder = TemporaryDirectory()
        extra = Path(self._folder.name) / "extra.txt"
        extra.write_text("\n".join(names) + "\n", encoding="utf-8")
        command = [
            sys.executable, "-m", "uv", "--quiet", "pip", "compile", "--only-binary", ":all:", "--no-header",
            "--no-annotate", "--python-platform", PLATFORMS[target[0]], "--python-version", target[1],
            *(["--no-deps"] if alone else []), *map(str, requirements), str(extra),
        ]  # fmt: skip
        environment = {**os.environ, "MACOSX_DEPLOYMENT_TARGET": MACOS}
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )

        self._found: dict[str, str] | None = None

    def versions(self) -> dict[str, str]:
        """Waits for the result, once: versions by package.

        Raises:
            NoIndex: uv cannot reach a package index.
            RuntimeError: no versions go together, or a package has no wheel.
        """
        if self._found is not None:
            return self._found
        with self._folder:
            out, errors = self._process.communicate(timeout=300)
        if self._process.returncode:
            kind = NoIndex if any(mark in errors for mark in _UNREACHABLE) else RuntimeError
            raise kind(f"uv: {errors.strip()[-1200:]}")
        pairs = (line.partition(";")[0].strip().partition("==") for line in out.splitlines())
        self._found = {name: version for name, _, version in pairs if version}
        return self._found


def of_the_pack(target: tuple[str, str]) -> Resolution:
    """The pack's requirements and optional packages, with ComfyUI's own if they are there, else with its torch."""
    theirs = comfyuis()
    files = [REQUIREMENTS] if theirs is None else [REQUIREMENTS, theirs]
    return Resolution(target, files, (*OPTIONAL, "torch", "torchvision"))


if __name__ == "__main__":
    running = {target: of_the_pack(target) for target in TARGETS}
    failed = 0
    for (platform, python), resolution in running.items():
        try:
            told = f"{len(resolution.versions())} packages"
        except RuntimeError as error:
            told, failed = str(error), 1
        sys.stdout.write(f"{platform}, Python {python}: {told}\n")
    sys.exit(failed)
