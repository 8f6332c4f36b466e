"""The contact sheet: the results of a run side by side, one row per picture."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from PIL import Image, ImageDraw

from ..pictures.checkers import on_checkers
from ..pictures.convert import flatten, image_from_pil, pil_from_image
from ..render.portraits import CAMERAS
from ..render.preview import render_textured
from .pipeline import Result

TILE_PX = 256
LABEL_PX = 20
_AROUND = ("front", "right", "back", "left")


def contact_sheet(strips: Sequence[Image.Image]) -> Image.Image:
    """RGB: the strips of several pictures, stacked."""
    width = max(strip.width for strip in strips)
    sheet = Image.new("RGB", (width, sum(strip.height for strip in strips)), "white")
    top = 0
    for strip in strips:
        sheet.paste(strip, (0, top))
        top += strip.height
    return sheet


def draw_strip(name: str, picture: Image.Image, result: Result) -> Image.Image:
    """RGB: picture, cutout, delit pictures, painted views, then the textured mesh from four sides."""
    tiles = _tiles(name, picture, result)
    strip = Image.new("RGB", (len(tiles) * TILE_PX, TILE_PX + LABEL_PX), "white")
    draw = ImageDraw.Draw(strip)
    for index, (label, image) in enumerate(tiles.items()):
        strip.paste(_fit(image), (index * TILE_PX, LABEL_PX))
        draw.text((index * TILE_PX + 4, 4), label, fill="black")
    return strip


def _tiles(name: str, picture: Image.Image, result: Result) -> dict[str, Image.Image]:
    tiles = {name: flatten(picture), "cutout": pil_from_image(on_checkers(result.cutout))}
    for number, delit in enumerate(result.delit, 1):
        tiles["delit" if number == 1 else f"delit reference {number - 1}"] = pil_from_image(delit)
    for camera, image in zip(result.views.cameras, result.views.images, strict=True):
        tiles[f"painted {camera.azimuth_deg}, {camera.elevation_deg}"] = pil_from_image(image)
    for side in _AROUND:
        tiles[f"mesh {side}"] = pil_from_image(render_textured(result.mesh, CAMERAS[side], TILE_PX * 2))
    return tiles


def _fit(image: Image.Image) -> Image.Image:
    tile = Image.new("RGB", (TILE_PX, TILE_PX), "white")
    small = image.copy()
    small.thumbnail((TILE_PX - 4, TILE_PX - 4), Image.Resampling.LANCZOS)
    if max(small.size) < TILE_PX - 4:
        small = _enlarge(small)
    tile.paste(small, ((TILE_PX - small.width) // 2, (TILE_PX - small.height) // 2))
    return tile


def _enlarge(image: Image.Image) -> Image.Image:
    scale = (TILE_PX - 4) / max(image.size)
    pixels = image_from_pil(image).permute(2, 0, 1)[None]
    larger = F.interpolate(pixels, scale_factor=scale, mode="nearest")
    return pil_from_image(larger[0].permute(1, 2, 0))
