"""Pictures: read from disk in any mode, checked, and turned into cutouts and back."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from .errors import BadInput
from .types import Cutout

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
"""What counts as a picture when a folder is searched."""
MIN_SIDE_PX = 16
MAX_SIDE_PX = 16_384
MAX_PIXELS = 128_000_000
"""About 0.5 GB as RGBA; above the largest cameras, below Pillow's own limit for decompression bombs."""

_SHORTER = "Scale it down and try again."


def load_picture(path: Path | str) -> Image.Image:
    """A picture file as RGB, or as RGBA if it has transparency; EXIF rotation applied, 8 bits a channel.

    Raises:
        BadInput: no such file, not a picture, truncated, too small or too large.
    """
    path = Path(path)
    try:
        # Pillow warns of large or slightly broken files; what matters of that is an error below.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as opened:
                check_size(opened.size, path.name)
                opened.load()
                return _to_eight_bit(ImageOps.exif_transpose(opened), path.name)
    except BadInput:
        raise
    except FileNotFoundError:
        raise BadInput(f"picture: {path} is not there; wanted a picture file. Check the path.") from None
    except Image.DecompressionBombError as error:
        raise BadInput(f"picture: {path.name} is far too large ({error}). {_SHORTER}") from error
    except UnidentifiedImageError:
        raise BadInput(
            f"picture: {path.name} is not a picture that can be read; wanted PNG, JPEG, WebP, BMP, GIF or TIFF. "
            "Save it as PNG."
        ) from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise BadInput(
            f"picture: {path.name} cannot be read ({error}); wanted a whole picture file. Save or download it again."
        ) from error


def check_size(size_px: tuple[int, int], name: str) -> None:
    """Raises BadInput where (width, height) is out of range; to be called before the pixels are decoded."""
    width, height = size_px
    if min(width, height) < MIN_SIDE_PX:
        raise BadInput(
            f"picture: {name} is {width}x{height} px; wanted at least {MIN_SIDE_PX} px a side. Use a larger picture."
        )
    if max(width, height) > MAX_SIDE_PX or width * height > MAX_PIXELS:
        raise BadInput(
            f"picture: {name} is {width}x{height} px; wanted at most {MAX_SIDE_PX} px a side and "
            f"{MAX_PIXELS // 1_000_000} million pixels. {_SHORTER}"
        )


def check_visible(image: Image.Image, name: str) -> None:
    """Raises BadInput where every pixel is fully transparent."""
    if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema() == (0, 0):
        raise BadInput(f"picture: {name} is fully transparent; wanted something to see. Use another picture.")


def _to_eight_bit(image: Image.Image, name: str) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow's own conversion clips at 255 instead of scaling. Mode I holds a 16-bit file's values, too.
        grey = np.asarray(image).astype(np.int64)
        if image.mode == "I" and (grey.min(initial=0) < 0 or grey.max(initial=0) > 65_535):
            raise BadInput(f"picture: {name} has 32 bits a channel; wanted 8 or 16. Save it with 8 bits a channel.")
        return Image.fromarray(((grey * 255 + 32_767) // 65_535).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise BadInput(f"picture: {name} holds float values; wanted 8 or 16 bits a channel. Save it as PNG.")
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def limit_long_side(image: Image.Image, px: int) -> Image.Image:
    """The picture with its long side at `px` (LANCZOS) if it was longer, else the picture itself."""
    long_side = max(image.size)
    if long_side <= px:
        return image
    width, height = (max(1, round(side * px / long_side)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def has_real_transparency(image: Image.Image) -> bool:
    """Whether the picture is a cutout already: over 1 % of its pixels are at least half transparent."""
    if not image.has_transparency_data:
        return False
    alpha = np.asarray(image.convert("RGBA").getchannel("A"))
    return bool((alpha < 128).mean() > 0.01)


def flatten(image: Image.Image) -> Image.Image:
    """The picture as RGB, what is transparent over white."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def image_from_pil(rgb: Image.Image) -> Tensor:
    """[H,W,3] float32 0..1 from a picture; transparency is dropped."""
    return torch.from_numpy(np.array(rgb.convert("RGB"), dtype=np.float32)).div_(255)


def pil_from_image(image: Tensor) -> Image.Image:
    """An RGB picture from [H,W,3] values in 0..1, rounded to 8 bits."""
    return Image.fromarray(_bytes_of(image))


def cutout_from_rgba(image: Image.Image) -> Cutout:
    """A cutout whose mask is the picture's alpha."""
    values = torch.from_numpy(np.array(image.convert("RGBA"), dtype=np.float32)).div_(255)
    return Cutout(values[..., :3].contiguous(), values[..., 3].contiguous())


def rgba_from_cutout(cutout: Cutout) -> Image.Image:
    """An RGBA picture whose alpha is the cutout's mask; 8-bit values come back as they were."""
    return Image.fromarray(_bytes_of(torch.cat((cutout.image, cutout.mask[..., None]), dim=-1)))


def _bytes_of(values: Tensor) -> np.ndarray:
    return values.detach().cpu().float().mul(255).round().clamp(0, 255).to(torch.uint8).numpy()


def check_cutout(cutout: Cutout, stage: str) -> None:
    """Raises BadInput, in the name of `stage`, where a cutout cannot be used."""
    image, mask = cutout.image, cutout.mask
    if image.ndim != 3 or image.shape[-1] != 3 or mask.shape != image.shape[:2] or mask.numel() == 0:
        raise BadInput(
            f"{stage}: the cutout's picture is {list(image.shape)} and its mask {list(mask.shape)}; "
            "wanted [H,W,3] and [H,W]. Give a picture and a mask of one size."
        )
    for name, values in (("picture", image), ("mask", mask)):
        if not torch.isfinite(values).all():
            raise BadInput(f"{stage}: the cutout's {name} has NaN or infinite values; wanted 0 to 1. Make it again.")
        low, high = float(values.min()), float(values.max())
        if low < -1e-3 or high > 1 + 1e-3:
            raise BadInput(
                f"{stage}: the cutout's {name} has values {low:.3g} to {high:.3g}; wanted 0 to 1. "
                "Divide 8-bit values by 255."
            )
    _check_object(mask, stage)


def _check_object(mask: Tensor, stage: str) -> None:
    solid = mask >= 0.5
    if not solid.any():
        met = "is fully transparent" if float(mask.max()) == 0 else "has no pixel that is at least half opaque"
        raise BadInput(f"{stage}: the cutout {met}; wanted an object. Use another background model or picture.")
    height = int(solid.any(dim=1).sum())
    width = int(solid.any(dim=0).sum())
    if min(width, height) < 2:
        raise BadInput(
            f"{stage}: the object is {width}x{height} px; wanted at least 2 px a side. Use a picture that it fills."
        )


def find_pictures(paths: Sequence[Path | str]) -> list[Path]:
    """The picture files among files and folders (not their subfolders), each once; a folder's in name order.

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
