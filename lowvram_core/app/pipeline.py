"""The stages in order: what the command line runs, and the shortest way to use this package as a library.

preset = get("8 GB Balanced")
host = TorchHost.for_preset(preset)  # it, not the stages, keeps weights where the preset's residency says
result = run(load_picture(path), preset, host, ModelStore(default_roots()))
save_mesh(result.mesh, "out.glb")
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from PIL import Image
from torch import Tensor

from ..checks.packages import check_packages
from ..checks.pictures import check_size, check_visible, has_real_transparency
from ..files.manifest import needed
from ..files.store import ModelStore
from ..host import Host
from ..networks.delight import open_delight
from ..networks.paint import open_paint
from ..networks.shape import open_shape
from ..presets import Preset
from ..report import DOWNLOAD
from ..stages.background import remove_background
from ..stages.bake import bake
from ..stages.clean import clean
from ..stages.delight import SEED as DELIGHT_SEED
from ..stages.delight import delight, frame
from ..stages.inpaint import inpaint
from ..stages.paint import SEED as PAINT_SEED
from ..stages.paint import paint_views
from ..stages.shape import check_view_names, generate_shape
from ..stages.unwrap import unwrap
from ..types import Atlas, Cutout, Mesh, Views


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
    pictures: Image.Image | Mapping[str, Image.Image],
    preset: Preset,
    host: Host,
    store: ModelStore,
    *,
    seeds: Seeds | None = None,
    keep_background: bool = False,
) -> Result:
    """One picture, or several of one object for the mv variants, to a textured mesh.

    Args:
        pictures: RGB, or RGBA with the object cut out; several as front, left, back, right. The front one paints.
        preset: all settings.
        host: where it runs; it also collects the timings.
        store: where the models' files are; all of them are looked up, and fetched, before the first one runs.
            So are pictures, views and packages: what can be refused is refused before the first download.
        keep_background: the whole picture is the object.

    Raises:
        LowVramError: with the stage, what was met, what is wanted and what to do.
    """
    seeds = seeds or Seeds()
    named = {"front": pictures} if isinstance(pictures, Image.Image) else dict(pictures)
    check_view_names(named, preset)
    for name, picture in named.items():
        check_size(picture.size, f"the {name} picture")
        check_visible(picture, f"the {name} picture")
    cut = not keep_background and not all(has_real_transparency(picture) for picture in named.values())
    check_packages(preset, background=cut)
    find_models(preset, host, store, background=cut)
    cutouts = {
        name: remove_background(picture, preset, host, store, keep_background=keep_background)
        for name, picture in named.items()
    }
    front = cutouts.get("front") or next(iter(cutouts.values()))
    frame(front)  # refuses here, not after the shape, what delight could not use
    mesh = clean(generate_shape(cutouts, preset, host, store, seed=seeds.shape), preset, host)
    return texture(mesh, front, preset, host, store, seeds=seeds)


def find_models(preset: Preset, host: Host, store: ModelStore, *, background: bool = True) -> None:
    """Looks up every model that the preset needs, downloading what is missing, and opens each without loading it.

    A download is the step `download` of its own and reports bytes as progress.

    Raises:
        MissingModel: one is not there and could not be fetched.
        BadCheckpoint: one is truncated, or of another model.
    """
    for model in needed(preset):
        if model.id.startswith("background/") and not background:
            continue
        if store.is_present(model.id):
            folder = store.folder(model.id)
        else:
            with host.phase(DOWNLOAD):
                folder = store.folder(model.id, host.progress)
        opener = _OPENERS.get(model.id.partition("/")[0])
        if opener is not None:
            opener(folder, host.dtype)


_OPENERS: Mapping[str, Callable[[Path, torch.dtype], object]] = MappingProxyType(
    {"shape": open_shape, "delight": open_delight, "paint": open_paint}
)


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
