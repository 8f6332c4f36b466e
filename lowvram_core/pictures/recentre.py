"""Framing: the object in the middle of a square, as the texture models were trained."""

from __future__ import annotations

from PIL import Image

BORDER = 0.2
SOLID = 128
"""The lowest alpha of 255 that counts as the object: one half. Of the masks of two photographs, the box of the pixels
that count lies within 2 px of the hand-drawn object at 102 to 191; at 13 it is up to 5 px off, at 1 up to 107 px."""

Box = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels; right and bottom are the first column and row outside."""


def solid_box(picture: Image.Image) -> Box | None:
    """The smallest box with all pixels of an RGBA picture whose alpha counts. None if there are none."""
    return picture.getchannel("A").point([0] * SOLID + [255] * (256 - SOLID)).getbbox()


def within_solid(picture: Image.Image) -> Image.Image:
    """RGBA: everything outside the box of the pixels whose alpha counts is fully transparent.

    The image processors of the shape model crop to all alpha above 0. A single faint pixel far away would change how
    the object is framed. A picture without such pixels is returned unchanged.
    """
    box = solid_box(picture)
    if box is None or box == picture.getchannel("A").getbbox():
        return picture
    alpha = Image.new("L", picture.size, 0)
    alpha.paste(picture.getchannel("A").crop(box), box)
    cleaned = picture.copy()
    cleaned.putalpha(alpha)
    return cleaned


def recentre(picture: Image.Image, border: float = BORDER) -> Image.Image:
    """Puts the object into the middle of a transparent white square.

    Args:
        picture: RGBA with at least one pixel that is at least half opaque.
        border: width of the border divided by the width of the object; the same for the height.

    Returns:
        RGBA, square. Nothing is resampled.

    Source:
        hy3dgen.texgen.pipelines.Hunyuan3DPaintPipeline.recenter_image, which counts all alpha above 0 as the object;
        bit-identical where no fainter pixel than SOLID lies outside the object's box.
    """
    box = solid_box(picture)
    assert box is not None, "check_cutout refuses empty masks"
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    border_width, border_height = int(width * border), int(height * border)
    edge = max(width + 2 * border_width, height + 2 * border_height)
    square = Image.new("RGBA", (edge, edge), (255, 255, 255, 0))
    corner = (
        (edge - width - 2 * border_width) // 2 + border_width,
        (edge - height - 2 * border_height) // 2 + border_height,
    )
    square.paste(picture.crop(box), corner)
    return square
