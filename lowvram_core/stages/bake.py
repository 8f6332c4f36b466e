"""Projects the painted views onto the texture."""

from __future__ import annotations

import logging
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..checks.meshes import check_mesh
from ..errors import BadInput
from ..fitting.budget import Need, plain_need
from ..fitting.ladder import fitted
from ..host import Host
from ..lending.geometry import geometry_device
from ..presets import Preset
from ..render.facing import face_outwards
from ..render.matching import gains
from ..render.project import EXPONENT, project_view
from ..render.scene import Scene
from ..render.seen import add_view, picture_px, shoot
from ..render.texels import surface_points
from ..types import Atlas, Mesh, Views

log = logging.getLogger(__name__)

_PAINTED_SHARE = 0.99
"""A view is not used if more than this share of the texels that it sees has a colour already."""
_MIN_TRUST = 1e-8
"""A texel with a smaller sum of weights counts as not seen."""
_POWERS = {"weights": 1, "matched": 4}
"""The power of a view's weight, by `preset.merge`."""
TEXEL_BYTES = 40
PIXEL_BYTES = 45
CHUNK_BYTES = 100 * 2**20
"""Device memory of upstream's way: per texel, per pixel of a view, and for one chunk of pixels."""
SHOT_PIXEL_BYTES = 15
STRIP_BYTES = 52 * 2**20
"""Device memory of our way: per pixel of a view, and for a strip of texels or a chunk of pixels."""
VIEW_PX = 512
"""The edge of the views as they are painted."""
PICTURE_BYTES = 12
LARGE_PICTURE_BYTES = 44
"""Device memory of our way for larger views: per pixel as they come, and per pixel that is used."""


def bake(mesh: Mesh, views: Views, preset: Preset, host: Host) -> Atlas:
    """The texture as the views see it, at `preset.texture_px`, with holes where no view sees the surface.

    The weight of a view's colour is the camera's weight times cos^4. `preset.bake` is texel or upstream:

    texel: each texel looks up its colour in each view. A test against the view's depth map, in units of pixels, tells
        whether the view sees it. Pixels near the silhouette count only where no view sees the texel better. Views keep
        their precision; upstream rounds them to bytes. If `preset.merge` is matched, the views are first brought to
        the same brightness where they overlap, and the best view of a texel counts nearly alone.
    upstream: each pixel of the enlarged views is spread over the texture, as upstream does it, to the same weights.

    The views may have any size. texel uses all their pixels, up to the larger of render_px and texture_px. upstream
    scales them to render_px. The host gets a note if pixels are lost.

    Raises:
        BadInput: the mesh has no usable UVs; pictures and cameras do not match or are not finite.

    Memory: texel: 15 S^2 bytes and 52 MiB where `geometry_device` says, for any number of views, and 60 bytes of RAM
    per texel; for views of more than 512 px also 12 P^2 and 44 E^2 bytes (see seen.py). upstream: 16 T^2 bytes for the
    sums, and for one view at a time 20 T^2 + 45 S^2 bytes and 100 MiB (T texture edge, S render edge).
    Source: hy3dgen texgen/pipelines.py bake_from_multiview, mesh_render.py fast_bake_texture. What differs in
    upstream's way: one view is in memory at a time.
    """
    check_mesh(mesh, "bake", needs_uvs=True)
    check_views(views)
    _note_lost_pixels(views.images.shape[1], preset, host)
    mesh = face_outwards(mesh)
    needs = partial(_needs, host, view_px=views.images.shape[1])
    return fitted("bake", preset, host, needs, partial(_bake, mesh, views, host))


def _note_lost_pixels(view_px: int, preset: Preset, host: Host) -> None:
    by_texel = preset.bake == "texel"
    most = max(preset.render_px, preset.texture_px) if by_texel else preset.render_px
    if view_px > max(most, VIEW_PX):
        why = "the texture shows no more of them" if by_texel else "upstream's bake uses render_px"
        advice = "a larger texture_px" if by_texel else "a larger render_px, or bake texel"
        host.note(
            f"bake: the views are {view_px} px and are scaled down to {most} px, since {why}. To keep their detail, "
            f"choose {advice}."
        )


def _needs(host: Host, preset: Preset, view_px: int = VIEW_PX) -> list[Need]:
    if geometry_device(host.device) != host.device:
        return []
    texels, pixels = preset.texture_px**2, preset.render_px**2
    if preset.bake == "texel":
        fine_px = picture_px(view_px, preset.render_px, preset.texture_px)
        used = SHOT_PIXEL_BYTES * pixels + STRIP_BYTES
        if view_px <= VIEW_PX:
            return [plain_need("bake", used, {"render_px"})]
        used += PICTURE_BYTES * view_px**2 + LARGE_PICTURE_BYTES * fine_px**2
        return [plain_need("bake", used, {"render_px", "texture_px"})]
    used = TEXEL_BYTES * texels + PIXEL_BYTES * pixels + CHUNK_BYTES
    return [plain_need("bake", used, {"texture_px", "render_px"})]


def _bake(mesh: Mesh, views: Views, host: Host, preset: Preset) -> Atlas:
    scene = Scene(mesh, geometry_device(host.device))
    atlas = (_by_pixels if preset.bake == "upstream" else _by_texels)(scene, views, preset, host)
    share = float(atlas.seen.float().mean())
    log.info("bake: %d views of %d px, texture %d px, %.1f %% of it seen", len(views.images), views.images.shape[1],
             preset.texture_px, 100 * share)  # fmt: skip
    return atlas


def _by_texels(scene: Scene, views: Views, preset: Preset, host: Host) -> Atlas:
    """Looks up each texel in each view. The sums are in RAM; the device holds one view and one strip of texels."""
    with host.phase("bake"):
        host.progress(0, len(views.images))
        texels = surface_points(scene, preset.texture_px)
        total, trust = torch.zeros(len(texels.index), 3), torch.zeros(len(texels.index))
        power, images = _POWERS[preset.merge], views.images
        if preset.merge == "matched":
            factors = gains(scene, images, views.cameras, texels)
            images = (images.detach().cpu().float() * factors.view(-1, 1, 1, 3)).clamp_(0, 1)
        for done, (image, camera) in enumerate(zip(images, views.cameras, strict=True), 1):
            picture = image.detach().float().to(scene.device)
            shot = shoot(scene, picture, camera, preset.render_px, preset.texture_px)
            add_view(total, trust, shot, texels, power)
            del picture, shot  # before the next view allocates its own
            host.progress(done, len(views.images))
        return _atlas(total, trust, texels.index, preset.texture_px, _MIN_TRUST**power)


def _atlas(total: Tensor, trust: Tensor, index: Tensor, size_px: int, least: float) -> Atlas:
    """The atlas of the sums [N,3] and [N] of the texels with these numbers, where the sum of weights is not smaller."""
    kept = trust > least
    texture, seen = torch.zeros(size_px * size_px, 3), torch.zeros(size_px * size_px, dtype=torch.bool)
    total.div_(trust.clamp(min=least).unsqueeze(1)).clamp_(0, 1).mul_(kept.unsqueeze(1))
    texture.index_copy_(0, index, total)
    seen.index_copy_(0, index, kept)
    return Atlas(texture.view(size_px, size_px, 3), seen.view(size_px, size_px))


def _by_pixels(scene: Scene, views: Views, preset: Preset, host: Host) -> Atlas:
    """Spreads each pixel of each enlarged view over the texture, as upstream does."""
    with host.phase("resize"):
        pictures = [resize(image, preset.render_px) for image in views.images]
    with host.phase("bake"):
        size = preset.texture_px
        total = torch.zeros(size, size, 3, device=scene.device)
        trust = torch.zeros(size, size, device=scene.device)
        for index, (picture, camera) in enumerate(zip(pictures, views.cameras, strict=True)):
            host.progress(index, len(pictures))
            colour, cosine = project_view(scene, picture.float().div_(255).to(scene.device), camera, size)
            _add(total, trust, colour, cosine.pow_(EXPONENT).mul_(camera.weight))
            del colour, cosine  # before the next view allocates its own
        total /= trust.clamp(min=_MIN_TRUST).unsqueeze(-1)
        seen = trust > _MIN_TRUST
        total[~seen] = 0
        atlas = Atlas(total.clamp_(0, 1).cpu(), seen.cpu())
        host.progress(len(pictures), len(pictures))
    return atlas


def check_views(views: Views) -> None:
    """Raises BadInput if the pictures have the wrong shape or values, or do not match the cameras."""
    images, cameras = views.images, views.cameras
    if images.dim() != 4 or images.shape[-1] != 3 or images.shape[1] != images.shape[2] or 0 in images.shape:
        raise BadInput(
            f"bake: the views are {tuple(images.shape)}; wanted [N,S,S,3], square RGB pictures. "
            "Use the pictures as Paint Views gives them."
        )
    if len(images) != len(cameras):
        raise BadInput(
            f"bake: {len(images)} pictures for {len(cameras)} cameras; wanted one each. "
            "Use the same view set for painting and baking."
        )
    if not images.is_floating_point() or not bool(torch.isfinite(images).all()):
        raise BadInput(
            f"bake: the views are {images.dtype}, or NaN or infinite somewhere; wanted finite floats 0 to 1. "
            "Paint the views again."
        )


def resize(image: Tensor, size_px: int) -> Tensor:
    """[S,S,3] uint8 from [H,W,3] float 0..1, with Pillow's bicubic filter, as upstream does it."""
    pixels = image.detach().cpu().float().clamp(0, 1).mul(255).round().byte().numpy()
    return torch.from_numpy(np.array(Image.fromarray(pixels).resize((size_px, size_px))))


def _add(total: Tensor, trust: Tensor, colour: Tensor, weight: Tensor) -> None:
    """Adds one view's colours [T,T,3] with their weights [T,T], unless nearly all that it sees has a colour."""
    sees = weight > 0
    count = int(sees.sum())
    if count == 0 or int((sees & (trust > 0)).sum()) / count > _PAINTED_SHARE:
        return
    total.addcmul_(colour, weight.unsqueeze(-1))
    trust += weight
