"""Finds picture files, and loads pictures of any mode."""

from __future__ import annotations

import io
import logging
import unicodedata
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from ..checks.pictures import SHORTER, check_size
from ..errors import BadInput
from .names import is_file, is_folder

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
"""The file endings that count as pictures when a folder is searched."""
NAMED = 5
"""How many of the files that are skipped in a folder are named."""
BLACK_POINT_COMPENSATION: Any = 0x2000
"""A flag of LittleCMS. Pillow has a name for it only since 10.3."""

log = logging.getLogger(__name__)


def load_picture(path: Path | str) -> Image.Image:
    """Loads a picture as RGB, or as RGBA if it has transparency: 8 bits a channel, sRGB, EXIF rotation applied.

    Colours with an ICC profile, such as Display P3, Adobe RGB or one of CMYK, are converted to sRGB.

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
                turned = ImageOps.exif_transpose(opened)
                return _to_srgb(to_eight_bit(turned, path.name), turned, path.name)
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


def _to_srgb(picture: Image.Image, original: Image.Image, name: str) -> Image.Image:
    """The picture, RGB or RGBA, with its colours converted from the ICC profile of the original, if it has one."""
    profile = original.info.get("icc_profile")
    if not profile:
        return picture
    try:
        given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        colours = _for_profile(given, picture, original)
        converted = ImageCms.profileToProfile(
            colours, given, ImageCms.createProfile("sRGB"), ImageCms.Intent.RELATIVE_COLORIMETRIC, "RGB",
            flags=BLACK_POINT_COMPENSATION,
        )  # fmt: skip
    except (ImageCms.PyCMSError, OSError, ImportError) as error:
        log.warning("picture: %s has a colour profile that cannot be used (%s); taken as sRGB.", name, error)
        return picture
    assert converted is not None
    if picture.mode == "RGBA":
        converted.putalpha(picture.getchannel("A"))
    # A profile of sRGB itself only adds rounding errors.
    change = np.abs(np.asarray(converted, np.int16) - np.asarray(picture, np.int16)).max(initial=0)
    return picture if change <= 1 else converted


def _for_profile(profile: ImageCms.ImageCmsProfile, picture: Image.Image, original: Image.Image) -> Image.Image:
    """The picture in the colour space of the profile.

    Raises:
        OSError: the picture has none of the profile's channels.
    """
    space = profile.profile.xcolor_space.strip()
    if space == "CMYK" and original.mode == "CMYK":
        return original
    if space == "RGB" and original.mode != "CMYK":
        return picture.convert("RGB")
    if space == "GRAY" and (original.mode in ("1", "L", "LA") or original.mode.startswith("I")):
        return picture.convert("L")
    raise OSError(f"it is for {space}, the picture is {original.mode}")


def find_pictures(paths: Sequence[Path | str], note: Callable[[str], None] | None = None) -> list[Path]:
    """Lists the picture files among files and folders (without subfolders), each once; a folder's in name order.

    Args:
        note: gets a text for each folder with the names of what was skipped in it.

    Raises:
        BadInput: a path is not there, or nothing was found.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if is_folder(path):
            entries = sorted(path.iterdir())
            skipped = [entry for entry in entries if not _looks_like_a_picture(entry)]
            found.update((entry, None) for entry in entries if entry not in skipped)
            if skipped and note is not None:
                note(_skipped(path, skipped))
        elif is_file(path):
            found[path] = None
        else:
            raise BadInput(f"picture: {path} is not there; wanted a picture file or a folder. Check the path.")
    if not found:
        where = ", ".join(str(path) for path in paths) or "nothing"
        raise BadInput(f"picture: no picture in {where}; wanted files ending in {', '.join(SUFFIXES)}. Name one.")
    return list(found)


def _looks_like_a_picture(path: Path) -> bool:
    """Whether a file of a folder is read. `._a.png` is not: macOS keeps the attributes of a.png in it."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith("._") and not is_folder(path)


def _skipped(folder: Path, skipped: Sequence[Path]) -> str:
    names = [f"{path.name}/" if is_folder(path) else path.name for path in skipped[:NAMED]]
    more = f" and {len(skipped) - NAMED} more" if len(skipped) > NAMED else ""
    return f"picture: skipped in {folder.name or folder}, since only picture files are read: {', '.join(names)}{more}."


def unique_stems(pictures: Sequence[Path]) -> list[str]:
    """Returns a file name without extension for each picture. No two are equal, even where case does not count.

    Pictures that differ only in the extension get it into their names (a_jpg, a_png). Names that are still equal get
    a number.
    """
    plain = [_sameness(picture.stem) for picture in pictures]
    taken: set[str] = set()
    stems = []
    for picture, sameness in zip(pictures, plain, strict=True):
        wanted = stem = picture.name.replace(".", "_") if plain.count(sameness) > 1 else picture.stem
        number = 2
        while _sameness(stem) in taken:
            stem = f"{wanted}_{number}"
            number += 1
        taken.add(_sameness(stem))
        stems.append(stem)
    return stems


def _sameness(name: str) -> str:
    """Returns the same text for names that some file systems take as equal: other case, other Unicode composition."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
