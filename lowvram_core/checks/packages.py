"""Are the Python packages that a run imports installed? And one message for a package that is missing."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from ..errors import MissingDependency

if TYPE_CHECKING:  # presets import torch, which may be what is missing
    from ..presets import Preset

_PIP: Mapping[str, str] = MappingProxyType(
    {
        "cv2": "opencv-python-headless", "skimage": "scikit-image", "fast_simplification": "fast-simplification",
        "yaml": "pyyaml", "PIL": "pillow", "rembg": "rembg onnxruntime",
    }
)  # fmt: skip
"""What pip calls a package, where Python imports it by another name."""
_ALWAYS = ("hy3dgen", "torchvision", "einops", "transformers", "diffusers", "cv2", "skimage", "fast_simplification")
_HY3DGEN = Path(__file__).parents[1] / "requirements-hy3dgen.txt"
"""The only place that names hy3dgen's version."""


def missing_package(stage: str, missing: ImportError | Sequence[str], *, otherwise: str = "") -> MissingDependency:
    """Returns the error for Python packages that a stage needs and that cannot be imported.

    Args:
        stage: begins the message.
        missing: what Python said, or the names that Python imports the packages by.
        otherwise: a sentence about what the user can do instead.
    """
    if isinstance(missing, ImportError):
        names, said = [(missing.name or str(missing)).partition(".")[0]], f" ({missing})"
    else:
        names, said = list(missing), ""
    subject = "the Python package" if len(names) == 1 else "the Python packages"
    return MissingDependency(
        f"{stage}: {subject} {', '.join(map(repr, names))} could not be imported{said}; wanted all that the run needs. "
        f"Run: {install_command(names)}.{otherwise and ' ' + otherwise}",
        name=names[0],
    )


def install_command(packages: Sequence[str]) -> str:
    """Returns the commands that install packages, given by the names that Python imports them by."""
    together = [_PIP.get(name, name) for name in packages if name not in _ALONE]
    commands = [" ".join(together)] if together else []
    commands += [f"--no-deps {_ALONE[name]}" for name in packages if name in _ALONE]
    return " and then ".join(f"python -m pip install {command}" for command in commands)


def check_packages(preset: Preset, *, background: bool = True) -> None:
    """Looks for every package that stages import only when they run. Imports none of them.

    Args:
        background: the run removes backgrounds.

    Raises:
        MissingDependency: packages are missing; the message names all of them.
    """
    wanted = [*_ALWAYS, preset.unwrapper, *(("rembg", "onnxruntime") if background else ())]
    missing = [name for name in wanted if not is_there(name)]
    if missing:
        raise missing_package("packages", missing)


def is_there(name: str) -> bool:
    """Returns whether Python finds a package. Does not import it."""
    if name in sys.modules:
        return sys.modules[name] is not None
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _pinned(requirements: Path) -> str:
    lines = requirements.read_text(encoding="utf-8").splitlines()
    return next(line for line in lines if line and not line.startswith("#"))


_ALONE: Mapping[str, str] = MappingProxyType({"hy3dgen": _pinned(_HY3DGEN), "xformers": "xformers"})
"""Packages that are installed without their requirements: these would replace torch, or add 1.5 GB."""
