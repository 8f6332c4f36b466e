"""The parts of each stage, for the progress bar.

The planned seconds only set the lengths of the parts on the bar, until this machine's own seconds are known. They are
from benchmarks/results: phases from h200.json, loads from cold.json (read from the disk), unwrap from unwrap.json.
"""

from __future__ import annotations

from .presets import Preset
from .progress import Part, loading

LOAD_S = {
    "image encoder (DINOv2)": 4.5, "shape DiT": 2.4, "shape VAE": 0.6, "delight text encoder": 0.9, "delight VAE": 0.4,
    "delight UNet": 1.8, "paint VAE": 0.5, "paint dual UNet": 4.0, "paint UNet": 6.9,
}  # fmt: skip
"""Seconds to load each network, by its label."""
_CONDITION_S = 0.9
_STEP_S = 0.094
"""Of the shape DiT; it runs twice per step if guidance needs both halves."""
_DECODE_S = 8.2
"""All points of a grid at octree 384."""
_SPARSE_SHARE = 0.05
"""Of the points of that grid, asked where only points near the surface are decoded (decode.json)."""
_DELIGHT_STEP_S = 0.042
_MAP_S = 0.04
_PAINT_STEP_S = 0.022
"""For one view."""
_PICTURE_S = 0.1
"""The VAE, for one picture. It was not timed apart from its phase."""
_UNWRAP_S = {"xatlas": 22.0, "uvunwrap": 0.8}
"""40,000 faces."""
_BAKE_S = 0.08
"""One view."""
_INPAINT_S = 1.3
_BACKGROUND_S = 1.6
"""u2netp and the demo's photograph, CPU seconds of one thread."""
_CLEAN_S = 1.3
"""298,000 faces to 40,000, CPU seconds of one thread."""
_FRAME_S = 0.2
"""One frame of a turntable, 512 px, 39,000 faces, CPU seconds of one thread."""

_STEP = "step {done} of {total}"


def _load(label: str) -> Part:
    return Part(loading(label), LOAD_S[label], silent=True)


def background_parts(pictures: int, preset: Preset) -> list[Part]:
    """The parts of background removal for so many pictures."""
    doing = "removing the background"
    return [Part("background", _BACKGROUND_S, detail=preset.background_model, doing=doing, silent=True)] * pictures


def shape_parts(preset: Preset) -> list[Part]:
    """The parts of the shape stage."""
    halves = 1 if "fast" in preset.variant or "turbo" in preset.variant else 2
    cells = preset.octree / 384
    asked = 1.0 if preset.decode == "dense" else _SPARSE_SHARE
    decoded = cells**3 if preset.decode == "dense" else cells**2
    settings = f"{preset.variant} {preset.residency}"
    return [
        _load("image encoder (DINOv2)"),
        Part("image encoder (DINOv2)", _CONDITION_S, doing="looking at the picture", silent=True),
        _load("shape DiT"),
        Part("shape DiT", _STEP_S / 2 * halves * preset.shape_steps, preset.shape_steps, settings, _STEP),
        _load("shape VAE"),
        Part("shape VAE", _DECODE_S * asked * decoded, decoded, f"{preset.decode} {preset.shape_vae}",
             "decoding {percent} %"),
    ]  # fmt: skip


def clean_parts(faces: int) -> list[Part]:
    """The parts of cleaning a mesh with so many faces."""
    units = max(faces, 1) / 300_000
    return [Part("clean", _CLEAN_S * units, units, doing="cleaning the mesh", silent=True)]


def unwrap_parts(faces: int, preset: Preset) -> list[Part]:
    """The parts of unwrapping a mesh with so many faces."""
    units = max(faces, 1) / 40_000
    return [Part("unwrap", _UNWRAP_S[preset.unwrapper] * units, units, preset.unwrapper, "unwrapping {percent} %")]


def delight_parts(pictures: int, preset: Preset) -> list[Part]:
    """The parts of the delight stage for so many pictures. The text encoder runs only once on a machine."""
    steps = preset.delight_steps * pictures
    return [
        _load("delight VAE"),
        Part("delight VAE", _PICTURE_S * pictures, pictures, "encode", "encoding the picture", silent=True),
        _load("delight UNet"),
        Part("delight UNet", _DELIGHT_STEP_S * steps, steps, preset.residency, _STEP),
        _load("delight VAE"),
        Part("delight VAE", _PICTURE_S * pictures, pictures, "decode", "decoding the picture", silent=True),
    ]


def paint_parts(preset: Preset, references: int = 1) -> list[Part]:
    """The parts of the paint stage."""
    views = len(preset.cameras)
    steps = preset.paint_steps * views
    settings = f"{preset.paint_variant} {preset.residency} {references}"
    maps = [Part("normals", _MAP_S, doing="rendering the maps"), Part("positions", _MAP_S, doing="rendering the maps")]
    return [
        *maps * views,
        _load("paint VAE"),
        Part("paint VAE", _PICTURE_S * 2 * views, views, "encode", "encoding the maps", silent=True),
        _load("paint dual UNet"),
        Part("paint dual UNet", _PICTURE_S * references, references, "", "reading the picture", silent=True),
        _load("paint UNet"),
        Part("paint UNet", _PAINT_STEP_S * steps, steps, settings, _STEP),
        _load("paint VAE"),
        Part("paint VAE", _PICTURE_S * views, views, "decode", "decoding the views", silent=True),
    ]


def bake_parts(views: int, preset: Preset) -> list[Part]:
    """The parts of the bake of so many views."""
    units = views * preset.texture_px**2 / 2048**2
    doing = "{done} of {total} views baked"
    resize = [Part("resize", 0.05 * views, views)] if preset.bake == "upstream" else []
    return [*resize, Part("bake", _BAKE_S * units, units, preset.bake, doing)]


def inpaint_parts(texture_px: int) -> list[Part]:
    """The parts of filling a texture."""
    units = texture_px**2 / 2048**2
    return [Part("inpaint", _INPAINT_S * units, units, doing="filling the texture", silent=True)]


def turntable_parts(frames: int) -> list[Part]:
    """The parts of drawing so many frames."""
    return [Part("turntable", _FRAME_S * frames, frames, doing="frame {done} of {total}")]


def run_parts(preset: Preset, *, pictures: int = 1, references: int = 1, turntable_frames: int = 0) -> list[Part]:
    """The parts of a whole run, from pictures to the saved mesh.

    Args:
        pictures: whose backgrounds are removed.
        references: pictures that give colours.
        turntable_frames: 0: no turntable is drawn.
    """
    faces = 10 * preset.face_budget  # a dense surface has about so many
    return [
        *background_parts(pictures, preset), *shape_parts(preset), *clean_parts(faces),
        *unwrap_parts(preset.face_budget, preset), *delight_parts(references, preset),
        *paint_parts(preset, references), *bake_parts(len(preset.cameras), preset), *inpaint_parts(preset.texture_px),
        Part("save", 0.5, doing="saving the mesh", silent=True),
        *(turntable_parts(turntable_frames) if turntable_frames else []),
    ]  # fmt: skip
