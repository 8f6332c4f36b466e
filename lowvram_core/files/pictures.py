"""Finds picture files, and loads pictures of any mode."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..checks.pictures import SHORTER, check_size
from ..errors import BadInput

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
"""The file endings that count as pictures when a folder is searched."""


def load_picture(path: Path | str) -> Image.Image:
    """Loads a picture as RGB, or as RGBA if it has transparency, with 8 bits a channel and EXIF rotation applied.

    Raises:
        BadInput: the file is missing, no picture, truncated, too small or too large.
    """
    path = Path(path)
    try:
        # Pillow warns of large or slightly broken files. Those that cannot be used raise an error below.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as opened:
                check_size(opened.size, path.name)
                opened.load()
                return to_eight_bit(ImageOps.exif_transpose(opened), path.name)
    except BadInput:
        raise
    except FileNotFoundError:
        raise BadInput(f"picture: {path} is not there; wanted a picture file. Check the path.") from None
    except Image.DecompressionBombError as error:
        raise BadInput(f"picture: {path.name} is far too large ({error}). {SHORTER}") from error
    except UnidentifiedImageError:
        raise BadInput(
            f"picture: {path.name} is not a picture that can be read; wanted one of {', '.join(SUFFIXES)}. "
            "Save it as PNG."
        ) from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise BadInput(
            f"picture: {path.name} cannot be read ({error}); wanted a whole picture file. Save or download it again."
        ) from error


def to_eight_bit(image: Image.Image, name: str) -> Image.Image:
    """The picture as RGB, or as RGBA if it has transparency. `name` is for messages.

    Raises:
        BadInput: it has 32 bits a channel, or floats.
    """
    if image.mode.startswith("I"):
        # Pillow's own conversion clips at 255 instead of scaling. Mode I also holds the values of 16-bit files.
        grey = np.asarray(image).astype(np.int64)
        if image.mode == "I" and (grey.min(initial=0) < 0 or grey.max(initial=0) > 65_535):
            raise BadInput(f"picture: {name} has 32 bits a channel; wanted 8 or 16. Save it with 8 bits a channel.")
        return Image.fromarray(((grey * 255 + 32_767) // 65_535).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise BadInput(f"picture: {name} holds float values; wanted 8 or 16 bits a channel. Save it as PNG.")
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def find_pictures(paths: Sequence[Path | str]) -> list[Path]:
    """Lists the picture files among files and folders (without subfolders), each once; a folder's in name order.

    Raises:
        BadInput: a path is not there, or nothing was found.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if path.is_dir():
            found.update((file, None) for file in sorted(path.iterdir()) if file.suffix.lower() in SUFFIXES)
        elif path.is_file():
            found[path] = None
        else:
            raise BadInput(f"picture: {path} is not there; wanted a picture file or a folder. Check the path.")
    if not found:
        where = ", ".join(str(path) for path in paths) or "nothing"
        raise BadInput(f"picture: no picture in {where}; wanted files ending in {', '.join(SUFFIXES)}. Name one.")
    return list(found)
