"""Starts ComfyUI on a computer without a GPU: `python launch.py <ComfyUI's folder> <its arguments>`.

Only for tests. The CPU build of torch has no torchaudio, and the compiled library of its torchvision does not load.
ComfyUI imports both, but these tests do not use their compiled parts.
"""

from __future__ import annotations

import os
import runpy
import sys
import types
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent


def stub_torchaudio() -> None:
    """Adds empty modules with the names that ComfyUI imports, if torchaudio is not installed."""
    if find_spec("torchaudio") is not None:
        return
    for name in ("torchaudio", *(f"torchaudio.{part}" for part in ("functional", "transforms", "compliance"))):
        module = types.ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        sys.modules[name] = module
        parent, _, part = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], part, module)


def declare_missing() -> None:
    """Makes the imports of torchvision and torchaudio work."""
    sys.path.insert(0, str(TESTS))
    import torchvision_hook

    sys.path.remove(str(TESTS))  # ComfyUI has a tests package of its own
    torchvision_hook.install()
    stub_torchaudio()


def main() -> None:
    """Declares what is missing, then runs ComfyUI's main.py."""
    comfyui = Path(sys.argv[1]).resolve()
    declare_missing()
    sys.path[0] = str(comfyui)
    sys.argv = [str(comfyui / "main.py"), *sys.argv[2:]]
    os.chdir(comfyui)
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
