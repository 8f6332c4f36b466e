"""Textures as the bytes of a picture file."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

from PIL import PngImagePlugin
from torch import Tensor

from ..errors import BadInput
from ..pictures.convert import pil_from_image
from .formats import TEXTURE_FORMATS, TEXTURE_QUALITY

_SRGB_CHUNK = b"sRGB", b"\0"
"""Says that the colours are sRGB. Without it some programs take a PNG's colours for those of the screen."""


@dataclass(frozen=True)
class Coding:
    """How a texture is written."""

    format: str = TEXTURE_FORMATS[0]
    """One of TEXTURE_FORMATS."""
    quality: int = TEXTURE_QUALITY
    """1 to 100, of JPEG and WebP. PNG keeps every colour."""

    def check(self) -> None:
        """Raises BadInput where a texture cannot be written so."""
        if self.format not in TEXTURE_FORMATS:
            raise BadInput(
                f"save: the texture's format is {self.format!r}; wanted one of {', '.join(TEXTURE_FORMATS)}. "
                "Choose one of these."
            )
        if not 1 <= self.quality <= 100:
            raise BadInput(
                f"save: the texture's quality is {self.quality}; wanted 1 to 100. Choose a value in that range."
            )


PNG = Coding()


@dataclass(frozen=True)
class Encoded:
    """A picture file."""

    content: bytes
    mime: str


def encode(texture: Tensor, coding: Coding = PNG) -> Encoded:
    """The picture file of a texture [H,W,3] float32 sRGB 0..1, rounded to 1/255."""
    image = pil_from_image(texture)
    stream = BytesIO()
    if coding.format == "png":
        chunks = PngImagePlugin.PngInfo()
        chunks.add(*_SRGB_CHUNK)
        image.save(stream, "PNG", pnginfo=chunks)
    elif coding.format == "jpeg":
        # Without subsampling: it would mix the colours of neighbouring charts.
        image.save(stream, "JPEG", quality=coding.quality, subsampling=0, optimize=True)
    else:
        image.save(stream, "WEBP", quality=coding.quality)
    return Encoded(stream.getvalue(), f"image/{coding.format}")
