"""Framing: the object in the middle of a square, as the texture models were trained."""

from __future__ import annotations

from PIL import Image

BORDER = 0.2


def recentre(picture: Image.Image, border: float = BORDER) -> Image.Image:
    """Puts the object into the middle of a transparent white square.

    Args:
        picture: RGBA with at least one pixel that is not transparent.
        border: width of the border divided by the width of the object; the same for the height.

    Returns:
        RGBA, square. Nothing is resampled.

    Source:
        hy3dgen.texgen.pipelines.Hunyuan3DPaintPipeline.recenter_image; bit-identical.
    """
    box = picture.getchannel("A").getbbox()
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
