"""Cuts the object out of a picture."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..checks.packages import missing_package
from ..checks.pictures import check_cutout, check_size, check_visible, has_real_transparency
from ..errors import BadCheckpoint, BadInput, LowVramError
from ..files.store import ModelStore
from ..host import Host
from ..pictures.convert import cutout_from_rgba, flatten, image_from_pil, limit_long_side
from ..presets import Preset
from ..types import Cutout

log = logging.getLogger(__name__)

FILL = [255, 255, 255, 0]
"""Colour behind the object, as upstream asks rembg for it."""

_OTHERWISE = "Or use a transparent PNG."

PROVIDERS = ["CPUExecutionProvider"]
"""Always the CPU. rembg would also use a GPU, whose memory the other networks need."""


def remove_background(
    picture: Image.Image, preset: Preset, host: Host, store: ModelStore, *, keep_background: bool = False,
    is_cutout: bool = False,
) -> Cutout:  # fmt: skip
    """Cuts the object out with one of rembg's networks, on the CPU.

    A picture with real transparency stays as it is.

    Args:
        picture: any mode that `load_picture` gives.
        preset: reads picture_px (the limit of the long side) and background_model.
        keep_background: take the whole picture as the object.
        is_cutout: take the alpha channel as the object, even if almost nothing is transparent.

    Returns:
        [H,W,3] and [H,W], long side at most `picture_px`.

    Raises:
        BadInput: no object was found, or the model cannot be had.
        MissingDependency: rembg or onnxruntime is not installed.
        Cancelled: by the host.

    Source: hy3dgen/rembg.py, BackgroundRemover; the same call, with a session that cannot download.
    """
    with host.phase("background"):
        check_size(picture.size, "the picture")
        check_visible(picture, "the picture")
        host.progress(0, 1)
        picture = limit_long_side(picture, preset.picture_px)
        if keep_background:
            image = image_from_pil(flatten(picture))
            cutout = Cutout(image, torch.ones(image.shape[:2]))
        elif is_cutout or has_real_transparency(picture):
            cutout = cutout_from_rgba(picture)
        else:
            cutout = cutout_from_rgba(_cut_out(flatten(picture), preset.background_model, store))
        check_cutout(cutout, "background")
        host.progress(1, 1)
    share = float((cutout.mask >= 0.5).float().mean())
    log.info("background: %dx%d px, object on %.0f %% of it", *picture.size, 100 * share)
    return cutout


def _cut_out(picture: Image.Image, model: str, store: ModelStore) -> Image.Image:
    rembg = import_rembg()
    path = store.folder(f"background/{model}") / f"{model}.onnx"
    # A picture of one colour makes rembg divide 0 by 0. The result is an empty mask, which check_cutout refuses.
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        result: Image.Image = rembg.remove(picture, session=_session(rembg, model, path), bgcolor=FILL)
    return result


def import_rembg() -> Any:
    """Imports rembg and returns it. The import is late because it also imports numba.

    Raises:
        MissingDependency: rembg or a package that it needs is not installed. Without onnxruntime rembg ends the
            process; this function raises the error instead.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import rembg
            import rembg.sessions
    except SystemExit as error:
        raise missing_package("background", ["onnxruntime"], otherwise=_OTHERWISE) from error
    except ImportError as error:
        raise missing_package("background", error, otherwise=_OTHERWISE) from error
    return rembg


def _session(rembg: Any, model: str, path: Path) -> Any:
    """Returns a session of rembg that reads the weights at `path` and never downloads."""
    import onnxruntime

    base = next((known for known in rembg.sessions.sessions_class if known.name() == model), None)
    if base is None:
        raise BadInput(f"background: this rembg has no model {model!r}; wanted a newer rembg. Update rembg.")
    local = type("LocalSession", (base,), {"download_models": classmethod(lambda cls, *args, **kwargs: str(path))})
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        return local(model, options, providers=list(PROVIDERS))
    except LowVramError:
        raise
    # The exceptions of onnxruntime have no common base class except Exception.
    except Exception as error:
        raise BadCheckpoint(
            f"background: {path} cannot be loaded ({error}); wanted the weights of {model}. "
            "Delete the file and run again."
        ) from error
