"""Are the Python packages that a run will import there? Asked before the first stage, not after the last minute."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from types import MappingProxyType

from ..errors import MissingDependency
from ..presets import Preset

_PIP: Mapping[str, str] = MappingProxyType(
    {"cv2": "opencv-python-headless", "skimage": "scikit-image", "fast_simplification": "fast-simplification"}
)
"""Names to install by, where they are not the names to import by."""
_ALWAYS = ("hy3dgen", "torchvision", "einops", "transformers", "diffusers", "cv2", "skimage", "fast_simplification")
_ALONE = MappingProxyType({"hy3dgen": "--no-deps hy3dgen==2.0.2"})
"""Installed in a step of its own; see requirements.txt."""


def check_packages(preset: Preset, *, background: bool = True) -> None:
    """Looks for every package that stages import only when they run; imports none.

    Args:
        background: backgrounds will be removed.

    Raises:
        MissingDependency: naming all that are missing.
    """
    wanted = [*_ALWAYS, preset.unwrapper, *(("rembg", "onnxruntime") if background else ())]
    missing = [name for name in wanted if not _is_there(name)]
    if not missing:
        return
    listed = [_PIP.get(name, name) for name in missing if name not in _ALONE]
    commands = [f"python -m pip install {' '.join(listed)}"] if listed else []
    commands += [f"python -m pip install {_ALONE[name]}" for name in missing if name in _ALONE]
    raise MissingDependency(
        f"packages: {', '.join(missing)} cannot be found; wanted everything that this run imports. "
        f"Run: {' and then '.join(commands)}",
        name=missing[0],
    )


def _is_there(name: str) -> bool:
    if name in sys.modules:
        return sys.modules[name] is not None
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False
