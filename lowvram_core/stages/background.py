"""Cuts the object out of a picture."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..checks.packages import missing_package
from ..checks.pictures import (
    check_cutout,
    check_size,
    check_visible,
    has_real_transparency,
    looks_inverted,
    touched_sides,
)
from ..errors import BadCheckpoint, BadInput, LowVramError
from ..files.store import ModelStore
from ..host import Host
from ..pictures.convert import cutout_from_rgba, flatten, image_from_pil, limit_long_side
from ..pictures.recentre import SOLID
from ..presets import Preset
from ..types import Cutout

log = logging.getLogger(__name__)

FILL = [255, 255, 255, 0]
"""Colour behind the object, as upstream asks rembg for it."""

_OTHERWISE = "Or use a transparent PNG."

CONFIDENT = 0.5
"""The network's largest value where it found something. It is at most 0.06 on blank pictures, paper and gradients, 0.27
on grass, and at least 0.8 on everything that shows an object (u2netp). rembg stretches all of them to 0..1."""
MIN_SHARE = 1e-4
"""The smallest share of the picture that an object may have. u2netp finds discs down to a share of 0.00025; on blank
white 0.00005 remains."""

PROVIDERS = ["CPUExecutionProvider"]
"""Always the CPU. rembg would also use a GPU, whose memory the other networks need."""


def remove_background(
    picture: Image.Image, preset: Preset, host: Host, store: ModelStore, *, keep_background: bool = False,
    is_cutout: bool = False,
) -> Cutout:  # fmt: skip
    """Cuts the object out with one of rembg's networks, on the CPU.

    A picture with real transparency stays as it is. The host gets a note if the object touches the picture's border.

    Args:
        picture: any mode that `load_picture` gives.
        preset: reads picture_px (the limit of the long side), background_model and edge_colours.
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
        is_cutout = is_cutout or has_real_transparency(picture)  # scaling would soften small corners
        picture = limit_long_side(picture, preset.picture_px)
        if keep_background:
            image = image_from_pil(flatten(picture))
            cutout = Cutout(image, torch.ones(image.shape[:2]))
        elif is_cutout:
            cutout = cutout_from_rgba(picture)
        else:
            cutout = _found(flatten(picture), preset, store)
        check_cutout(cutout, "background")
        host.progress(1, 1)
    if not keep_background:
        _note_border(cutout.mask, host)
    share = float((cutout.mask >= 0.5).float().mean())
    log.info("background: %dx%d px, object on %.0f %% of it", *picture.size, 100 * share)
    return cutout


def _note_border(mask: Tensor, host: Host) -> None:
    """Notes a mask [H,W] that looks inverted, or an object that touches the picture's border."""
    if looks_inverted(mask):
        host.note(
            "background: the object touches the picture's border all round, so the mask looks inverted. If the result "
            "shows the background, switch invert_mask of Remove Background, or invert the picture's alpha channel."
        )
    elif sides := touched_sides(mask):
        host.note(
            f"background: the object touches the picture's border ({', '.join(sides)}) and may be cut off there. Use a "
            "picture with some room around it."
        )


def _found(picture: Image.Image, preset: Preset, store: ModelStore) -> Cutout:
    """The object that the network found in an RGB picture."""
    with _same_threads():
        cut = _cut_out(picture, preset.background_model, store)
        if float((np.asarray(cut.getchannel("A")) >= SOLID).mean()) < MIN_SHARE:
            raise _nothing_found()
        return cutout_from_rgba(_with_own_colours(cut, picture) if preset.edge_colours == "estimated" else cut)


@contextmanager
def _same_threads() -> Iterator[None]:
    """Keeps torch's number of threads. numba, which rembg imports, sets OpenMP's number, and torch takes that."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _cut_out(picture: Image.Image, model: str, store: ModelStore) -> Image.Image:
    rembg = import_rembg()
    path = store.folder(f"background/{model}") / f"{model}.onnx"
    session = _session(rembg, model, path)
    watched = session.inner_session = _Watched(session.inner_session)
    # A picture of one colour can make rembg divide 0 by 0.
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        result: Image.Image = rembg.remove(picture, session=session, bgcolor=FILL)
    if not watched.largest >= CONFIDENT:
        raise _nothing_found()
    return result


class _Watched:
    """A session of onnxruntime that remembers the largest value of the mask before rembg stretches it."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.largest = -np.inf

    def run(self, *given: Any) -> Any:
        """Runs the network."""
        results = self._session.run(*given)
        self.largest = float(results[0][:, 0].max())
        return results

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


def _nothing_found() -> BadInput:
    return BadInput(
        "background: no object found in the picture; wanted one that stands out from its background. Use another "
        "background model or picture, or a transparent PNG."
    )


def _with_own_colours(cut: Image.Image, picture: Image.Image) -> Image.Image:
    """RGBA: a cutout whose soft edge has the colours of the object alone.

    A pixel of a soft edge is a mixture of the object and what is behind it. rembg also darkens it: it multiplies the
    colour by alpha, and alpha is applied again where the cutout is shown.

    Args:
        cut: RGBA, the network's cutout; its alpha is kept.
        picture: RGB, the same picture before.

    Source: rembg's `decontaminate`, which older versions do not have. Only soft pixels are changed here.
    """
    from pymatting.foreground.estimate_foreground_ml import estimate_foreground_ml

    colours, pixels = np.asarray(picture), np.array(cut)
    alpha = pixels[..., 3]
    soft = (alpha > 0) & (alpha < 255)
    if soft.any():
        estimated = estimate_foreground_ml(colours / 255.0, alpha / 255.0)
        pixels[soft, :3] = (estimated[soft] * 255).round().clip(0, 255).astype(np.uint8)
    return Image.fromarray(pixels)


def import_rembg() -> Any:
    """Imports rembg and returns it. The import is late because it also imports numba.

    Raises:
        MissingDependency: rembg or a package that it needs is not installed. Without onnxruntime rembg ends the
            process; this function raises the error instead.
    """
    try:
        with warnings.catch_warnings(), _same_threads():
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
