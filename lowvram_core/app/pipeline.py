"""All stages in their order. The command line runs this, and it is the shortest way to use the package as a library:

preset = get("8 GB Balanced")
host = TorchHost.for_preset(preset)  # the host keeps or frees the weights, as the preset's residency says
result = run(load_picture(path), preset, host, ModelStore(default_roots()))
save_mesh(result.mesh, "out.glb")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from PIL import Image
from torch import Tensor

from ..checks.packages import check_packages
from ..checks.pictures import check_reference_count, check_size, check_visible, has_real_transparency
from ..files.manifest import needed
from ..files.store import ModelStore
from ..host import Component, Host
from ..networks.delight import open_delight
from ..presets import Preset
from ..report import DOWNLOAD
from ..stages.background import remove_background
from ..stages.bake import bake
from ..stages.clean import clean
from ..stages.delight import SEED as DELIGHT_SEED
from ..stages.delight import delight_all, frame
from ..stages.inpaint import inpaint
from ..stages.paint import SEED as PAINT_SEED
from ..stages.paint import paint_views, preset_paint
from ..stages.shape import check_view_names, generate_shape, preset_shape
from ..stages.unwrap import unwrap
from ..types import FRONT, Atlas, Cutout, Mesh, Views
from .beside import beside


@dataclass(frozen=True)
class Seeds:
    """Seeds of the noise of each generating stage. delight and paint default to upstream's fixed seeds."""

    shape: int = 0
    delight: int = DELIGHT_SEED
    paint: int = PAINT_SEED


@dataclass(frozen=True)
class Result:
    """A textured mesh, and the result of every stage before it."""

    mesh: Mesh
    cutout: Cutout
    delit: Tensor
    """[R,512,512,3] float32 sRGB: the picture, then the further reference pictures."""
    views: Views
    atlas: Atlas


def run(
    pictures: Image.Image | Mapping[str, Image.Image],
    preset: Preset,
    host: Host,
    store: ModelStore,
    *,
    references: Sequence[Image.Image] = (),
    seeds: Seeds | None = None,
    keep_background: bool = False,
) -> Result:
    """Makes a textured mesh of one picture, or of several pictures of one object with an mv variant.

    Args:
        pictures: RGB, or RGBA with the object cut out. Several are named front, left, back, right; colours come
            from the front.
        references: further pictures of the object, from any side, that give colours too.
        preset: all settings.
        host: runs the stages and collects the timings.
        store: finds the files of the models and downloads what is missing. This happens before the first stage runs;
            pictures, views and packages are checked before the first download.
        keep_background: take the whole picture as the object.

    Raises:
        LowVramError: the message names the stage, the problem, what is wanted and what to do.
    """
    seeds = seeds or Seeds()
    named = {FRONT: pictures} if isinstance(pictures, Image.Image) else dict(pictures)
    check_view_names(named, preset)
    check_reference_count(1 + len(references))
    every = {f"the {name} picture": picture for name, picture in named.items()}
    every |= {f"reference picture {number}": picture for number, picture in enumerate(references, 1)}
    for name, picture in every.items():
        check_size(picture.size, name)
        check_visible(picture, name)
    cut = not keep_background and not all(has_real_transparency(picture) for picture in every.values())
    check_packages(preset, background=cut)
    order = find_models(preset, host, store, background=cut)
    with host.reading_ahead(order):
        remove = partial(remove_background, preset=preset, host=host, store=store, keep_background=keep_background)
        cutouts = {name: remove(picture) for name, picture in named.items()}
        colours = [cutouts.get(FRONT) or next(iter(cutouts.values())), *(remove(picture) for picture in references)]
        for cutout in colours:
            frame(cutout)  # raises now, not after the shape is done, if delight cannot use the cutout
        mesh = clean(generate_shape(cutouts, preset, host, store, seed=seeds.shape), preset, host)
        return texture(mesh, colours[0], preset, host, store, references=colours[1:], seeds=seeds)


def find_models(preset: Preset, host: Host, store: ModelStore, *, background: bool = True) -> list[Component]:
    """Finds every model that the preset needs, downloads what is missing, and opens each model without loading it.

    A download is a phase of its own, `download`, and reports bytes as progress.

    Returns:
        The components in the order in which a run borrows them.

    Raises:
        MissingModel: models are missing and cannot be downloaded. The message lists all of them.
        BadCheckpoint: a file is truncated, or belongs to another model.
    """
    ids = [model.id for model in needed(preset) if background or not model.id.startswith("background/")]
    store.require(ids)
    for model_id in ids:
        if not store.is_present(model_id):
            with host.phase(DOWNLOAD):
                store.place(model_id, host.progress, host.tell)
    delight_model = open_delight(store.folder("delight"), host.dtype)
    paint_model = preset_paint(preset, host, store)
    return [*preset_shape(preset, host, store).order, *delight_model.order, *paint_model.order]


def texture(
    mesh: Mesh,
    cutout: Cutout,
    preset: Preset,
    host: Host,
    store: ModelStore,
    *,
    references: Sequence[Cutout] = (),
    seeds: Seeds | None = None,
    keep_uvs: bool = False,
) -> Result:
    """Textures a mesh with the colours of a picture, or of several.

    Args:
        mesh: clean. It is unwrapped here, before painting, as upstream does.
        references: further pictures of the object.
        keep_uvs: keep the UVs that the mesh has.
    """
    seeds = seeds or Seeds()
    check_reference_count(1 + len(references))
    unwrapping = partial(unwrap, mesh, preset, keep_uvs=keep_uvs)
    relight = partial(delight_all, [cutout, *references], preset, host, store, seed=seeds.delight)
    if host.device.type != "cpu":
        with beside(unwrapping, host) as unwrapped:  # on the CPU, while delight is on the GPU
            delit = relight()
            mesh = unwrapped.result()
    else:
        mesh = unwrapping(host)
        delit = relight()
    views = paint_views(mesh, list(delit), preset, host, store, seed=seeds.paint)
    atlas = bake(mesh, views, preset, host)
    return Result(inpaint(mesh, atlas, host), cutout, delit, views, atlas)
