"""The stages in order: what the command line runs, and the shortest way to use this package as a library.

result = run(load_picture(path), preset, host, store)
save_mesh(result.mesh, "out.glb")
"""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from .host import Host
from .models.store import ModelStore
from .presets import Preset
from .stages.background import remove_background
from .stages.bake import bake
from .stages.clean import clean
from .stages.delight import SEED as DELIGHT_SEED
from .stages.delight import delight
from .stages.inpaint import inpaint
from .stages.multiview import SEED as PAINT_SEED
from .stages.multiview import paint_views
from .stages.shape import generate_shape
from .stages.unwrap import unwrap
from .types import Atlas, Cutout, Mesh, Views


@dataclass(frozen=True)
class Seeds:
    """Of the noise in each generating stage; texture seeds default to upstream's fixed ones."""

    shape: int = 0
    delight: int = DELIGHT_SEED
    paint: int = PAINT_SEED


@dataclass(frozen=True)
class Result:
    """A textured mesh and what it was made from, for looking at each step."""

    mesh: Mesh
    cutout: Cutout
    delit: Tensor
    """[512,512,3] float32 sRGB."""
    views: Views
    atlas: Atlas


def run(
    picture: Image.Image,
    preset: Preset,
    host: Host,
    store: ModelStore,
    *,
    seeds: Seeds | None = None,
    keep_background: bool = False,
) -> Result:
    """One picture to a textured mesh.

    Args:
        picture: RGB, or RGBA with the object cut out.
        preset: all settings.
        host: where it runs; it also collects the timings.
        store: where the models' files are.
        keep_background: the whole picture is the object.

    Raises:
        LowVramError: with the stage, what was met, what is wanted and what to do.
    """
    seeds = seeds or Seeds()
    cutout = remove_background(picture, preset, host, store, keep_background=keep_background)
    mesh = clean(generate_shape(cutout, preset, host, store, seed=seeds.shape), preset, host)
    return texture(mesh, cutout, preset, host, store, seeds=seeds)


def texture(
    mesh: Mesh,
    cutout: Cutout,
    preset: Preset,
    host: Host,
    store: ModelStore,
    *,
    seeds: Seeds | None = None,
    keep_uvs: bool = False,
) -> Result:
    """A mesh and a picture of it to a textured mesh.

    Args:
        mesh: clean; unwrapped here, before painting, as upstream does.
        keep_uvs: paint on the UVs that the mesh has.
    """
    seeds = seeds or Seeds()
    mesh = unwrap(mesh, preset, host, keep_uvs=keep_uvs)
    delit = delight(cutout, preset, host, store, seed=seeds.delight)
    views = paint_views(mesh, delit, preset, host, store, seed=seeds.paint)
    atlas = bake(mesh, views, preset, host)
    return Result(inpaint(mesh, atlas, host), cutout, delit, views, atlas)
