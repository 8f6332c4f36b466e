"""Framing a cutout the way the texturing models were trained on."""

from __future__ import annotations

from PIL import Image

BORDER = 0.2


def recentre(picture: Image.Image, border: float = BORDER) -> Image.Image:
    """The object in the middle of a transparent white square, with a border around its longer side.

    Args:
        picture: RGBA with at least one pixel that is not transparent.
        border: width of the border over the object's width, and likewise for heights.

    Returns:
        RGBA, square. Pixels keep their size; nothing is resampled.

    Source:
        hy3dgen.texgen.pipelines.Hunyuan3DPaintPipeline.recenter_image; bit-identical.
    """
    box = picture.getchannel("A").getbbox()
    assert box is not None, "check_cutout lets no empty mask through"
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
