"""paint: pictures of the mesh from several sides, in the colours of one or several reference pictures."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor

from ..checks.finite import check_finite
from ..checks.meshes import check_mesh
from ..checks.pictures import check_cutout, check_reference_count, named
from ..errors import BadInput
from ..files.store import ModelStore
from ..fitting.budget import MIB, Need, need, plain_need, tiled_mib, together
from ..fitting.ladder import fitted
from ..host import Host
from ..lending.geometry import geometry_device
from ..lending.halves import guided
from ..networks.attention import choose_attention, set_attention, sliced_mib
from ..networks.paint import PaintModel, References, open_paint, read_references, without_reference
from ..networks.position_masks import WindowMeans, mask_bytes, masked_views, window_means
from ..networks.previews import preview, silhouettes
from ..networks.schedulers import next_latents
from ..networks.turbo_paint import open_turbo_paint
from ..networks.vae import DECODE_MIB, VIEW_PX, decode_pictures, set_slicing
from ..pictures.convert import pil_from_image, rgba_from_cutout
from ..pictures.recentre import recentre
from ..presets import Preset
from ..render.cameras import camera_class
from ..render.maps import normal_map, position_map
from ..render.scene import Scene
from ..types import Camera, Cutout, Mesh, Views

SEED = 0
"""Upstream's."""
PAINT_MIB = 28.0
VIEW_MIB = 72.5
DUAL_MIB = 88.0
"""Activations in float16: of the main UNet without views, of the main UNet per view of each half, of the dual UNet per
half. A model without guidance has one half."""
ENCODE_MIB = 322.0
"""Activations in float16 of the VAE while it encodes one picture of 512 px."""
REFERENCE_MIB = 22.1
REFERENCE_VIEW_MIB = 2.5
"""What each further reference picture adds in float16: the stored conditions per half that was read, and activations of
the main UNet per view of each half."""
MAP_BYTES = 60
MAP_CHUNK_BYTES = 100 * 2**20
"""Memory of the renderer: per pixel, and for a chunk of pixels."""

Reference = Tensor | Cutout
"""A reference picture: [H,W,3] float32 sRGB on white, from the delight stage, or a cutout."""

log = logging.getLogger(__name__)


def paint_views(
    mesh: Mesh, reference: Reference | Sequence[Reference], preset: Preset, host: Host, store: ModelStore, *,
    seed: int = SEED,
) -> Views:  # fmt: skip
    """One picture of 512 px for each camera of the preset's view set.

    Args:
        mesh: unwrapped, with vertices split at the seams. The model was trained on such meshes.
        reference: one picture of the object, or several of any size. The network does not know which side a picture
            shows. A cutout is recentred on white.
        preset: reads views, render_px, paint_variant, paint_steps, view_by_view, vae_slicing, vae_tiling, vae_tile_px,
            attention, reference_once; with the standard model also paint_guidance, cfg_together,
            skip_unguided_reference.
        seed: for all noise, which is drawn on the CPU.

    Raises:
        BadInput: the mesh, a picture or the checkpoint cannot be used, or there are more than 5 pictures.
        NumericalFailure: a network gave NaN.

    Memory:
        One component at a time: VAE, dual UNet (once), main UNet, VAE.

    Source:
        hy3dgen.texgen.pipelines.Hunyuan3DPaintPipeline.__call__ up to the paint model, Multiview_Diffusion_Net
        and HunyuanPaintPipeline. Bit-identical on the CPU in float32 with cfg_together and without VAE slicing. The
        dual UNet runs once instead of at every step. The noise is drawn on the CPU for every device. Upstream's
        pipeline takes one picture; its UNet takes several, in one batch. Here the dual UNet reads one after the other,
        which differs from the batch by rounding. The turbo model runs as Hunyuan3D-2's code in git means it, see
        docs/turbo_painting.md.
    """
    check_mesh(mesh, "paint", needs_uvs=True)
    pictures = _reference_pictures(reference)
    choose_attention(preset.attention, host.device, host.dtype)
    model = preset_paint(preset, host, store)

    def run(fitting: Preset) -> Views:
        cameras = fitting.cameras
        classes = [camera_class(camera) for camera in cameras]
        normals, positions = _geometry(mesh, cameras, fitting.render_px, host)
        with host.phase("paint"):
            images = _paint(pictures, normals, positions, classes, model, fitting, host, seed)
        return Views(torch.from_numpy(images.astype(np.float32) / 255.0), cameras)

    with host.reading_ahead(model.order):
        views = fitted("paint", preset, host, partial(_needs, model, host, references=len(pictures)), run)
    log.info(
        "paint: %d views, %d steps, %d px, %d reference pictures",
        len(views.cameras), preset.paint_steps, VIEW_PX, len(pictures),
    )  # fmt: skip
    return views


def preset_paint(preset: Preset, host: Host, store: ModelStore) -> PaintModel:
    """The paint model that the preset names, opened but not loaded."""
    folder, *vae = (store.folder(model_id) for model_id in preset.paint_models)
    if preset.paint_variant == "turbo":
        return open_turbo_paint(folder, vae[0], host.dtype)
    return open_paint(folder, host.dtype)


def _needs(model: PaintModel, host: Host, preset: Preset, *, references: int = 1) -> list[Need]:
    views = 1 if preset.view_by_view else len(preset.cameras)
    halves = 2 if preset.cfg_together and model.guided else 1
    decoded, encoded = (1, 1) if preset.vae_slicing else (len(preset.cameras), references)
    vae_mib = tiled_mib(max(DECODE_MIB * decoded, ENCODE_MIB * encoded), preset)
    readings = 1 if _reads_only_guided(model, preset) else 2
    sliced = partial(sliced_mib, preset.attention, host.device, host.dtype)
    of_halves = {"cfg_together"} if model.guided else set()
    held_mib = REFERENCE_MIB * (references - 1) * readings
    dual = need(model.dual, host, DUAL_MIB * readings + held_mib + sliced(), of_halves)
    masks_mib = mask_bytes(views) / MIB * 2 / host.dtype.itemsize if model.masked else 0.0  # bool in any precision
    view_mib = VIEW_MIB + REFERENCE_VIEW_MIB * (references - 1)
    sliced_views_mib = sliced(pictures=views, references=references)
    main_mib = PAINT_MIB + held_mib + view_mib * views * halves + sliced_views_mib + masks_mib
    main = need(model.main, host, main_mib, {*of_halves, "views", "view_by_view"})
    if not preset.reference_once:
        dual, main = together(dual, main), together(main, dual)
    maps = plain_need("renderer of the maps", MAP_BYTES * preset.render_px**2 + MAP_CHUNK_BYTES, {"render_px"})
    return [
        *([maps] if geometry_device(host.device) == host.device else []),
        need(model.vae, host, vae_mib, {"vae_slicing", "vae_tile_px", "views"}),
        dual,
        main,
    ]


def _reads_only_guided(model: PaintModel, preset: Preset) -> bool:
    """Whether the dual UNet reads only the conditional half.

    The attention to the unconditional reference is multiplied by 0. So separate halves do not need it.
    """
    return not model.guided or (preset.skip_unguided_reference and not preset.cfg_together)


def _reference_pictures(reference: Reference | Sequence[Reference]) -> list[Image.Image]:
    several = [reference] if isinstance(reference, (Tensor, Cutout)) else list(reference)
    check_reference_count(len(several))
    return [_reference_picture(one, named("paint", index, len(several))) for index, one in enumerate(several)]


def _reference_picture(reference: Reference, name: str) -> Image.Image:
    if isinstance(reference, Cutout):
        check_cutout(reference, name)
        square = recentre(rgba_from_cutout(reference))
        white = Image.new("RGBA", square.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, square).convert("RGB")
    elif reference.ndim == 3 and reference.shape[-1] == 3 and bool(torch.isfinite(reference).all()):
        picture = pil_from_image(reference)
    else:
        raise BadInput(
            f"{name}: a reference picture of shape {tuple(reference.shape)} or with NaN; wanted [H,W,3] finite "
            "sRGB. Pass the delight stage's picture, or a cutout."
        )
    return picture.resize((VIEW_PX, VIEW_PX))


def _geometry(mesh: Mesh, cameras: tuple[Camera, ...], size_px: int, host: Host) -> tuple[Tensor, Tensor]:
    """Normal and position maps, each [N,3,512,512] float32 0..1; one raster serves both maps of a view."""
    scene: Scene | None = None
    normals, positions = [], []
    for index, camera in enumerate(cameras):
        with host.phase("normals"):
            scene = scene or Scene(mesh, geometry_device(host.device))
            normals.append(_to_view_size(normal_map(scene, camera, size_px)))
            host.progress(index + 1, len(cameras))
        with host.phase("positions"):
            positions.append(_to_view_size(position_map(scene, camera, size_px)))
            host.progress(index + 1, len(cameras))
    return torch.stack(normals), torch.stack(positions)


def _to_view_size(pixels: Tensor) -> Tensor:
    """[3,512,512] float32 0..1 of [S,S,3] uint8."""
    resized = Image.fromarray(pixels.numpy()).resize((VIEW_PX, VIEW_PX))
    return torch.from_numpy(np.asarray(resized, np.float32) / 255.0).permute(2, 0, 1)


@torch.inference_mode()
def _paint(
    pictures: Sequence[Image.Image], normals: Tensor, positions: Tensor, classes: list[int], model: PaintModel,
    preset: Preset, host: Host, seed: int,
) -> np.ndarray:  # fmt: skip
    """[N,512,512,3] uint8."""
    pixels = _pixels(pictures)
    encoding_noise = torch.Generator().manual_seed(seed)
    with host.borrow(model.vae) as vae:
        set_slicing(vae, preset)
        reference, normal, position = (
            _encode(vae, batch, host, encoding_noise) for batch in (pixels, normals, positions)
        )
    check_finite("paint", "encode", host.dtype, reference, normal, position)
    means = window_means(positions) if model.masked and not preset.view_by_view else {}
    objects = silhouettes((positions < 1).any(dim=1), (position.shape[2], position.shape[3]))
    views = _Known(torch.cat([normal, position], dim=1), classes, means, objects)
    latents = _painted(reference, views, model, preset, host, seed)
    check_finite("paint", "denoise", host.dtype, latents)
    del views, reference, normal, position  # decoding needs the most memory
    with host.borrow(model.vae) as vae:
        set_slicing(vae, preset)
        images = decode_pictures(vae, latents).permute(0, 2, 3, 1).cpu()
    check_finite("paint", "decode", host.dtype, images)
    return (images.numpy() * 255).round().astype(np.uint8)


def _pixels(pictures: Sequence[Image.Image]) -> Tensor:
    """[R,3,512,512] float64 in 0..1."""
    values = [torch.from_numpy(np.array(picture) / 255.0).permute(2, 0, 1) for picture in pictures]
    # one picture keeps its strides: they choose the kernel of the convolution and so the last bits
    return values[0][None] if len(values) == 1 else torch.stack(values)


@dataclass(frozen=True)
class _Known:
    """What the main UNet knows of the views."""

    conditions: Tensor
    """[N,8,64,64], the latents of the normal and position maps."""
    classes: list[int]
    """Of the cameras."""
    means: WindowMeans
    """Where the views' windows lie on the object; empty without masks. A view that is painted alone needs none."""
    objects: Tensor
    """[N,64,64] 0..1 on the CPU: where the object is, for the previews."""


def _painted(reference: Tensor, views: _Known, model: PaintModel, preset: Preset, host: Host, seed: int) -> Tensor:
    """Scaled latents [N,4,64,64] of the views.

    Args:
        reference: [R,4,64,64], the latents of the reference pictures.
    """
    batches = [
        picture if _reads_only_guided(model, preset) else torch.cat([torch.zeros_like(picture), picture])
        for picture in reference.split(1)
    ]
    with ExitStack() as reading:
        dual = reading.enter_context(host.borrow(model.dual))
        set_attention(dual, choose_attention(preset.attention, host.device, host.dtype))
        references = read_references(dual, batches)
        check_finite("paint", "reference", host.dtype, *references.values())
        host.progress(0, preset.paint_steps)
        if not preset.reference_once:
            references.clear()
            return _denoise(views, partial(read_references, dual, batches), model, preset, host, seed)
    return _denoise(views, lambda: references, model, preset, host, seed)


def _encode(vae: Any, pictures: Tensor, host: Host, noise: torch.Generator) -> Tensor:
    """[N,4,64,64] scaled latents of pictures [N,3,512,512] in 0..1."""
    scaled = (pictures.to(host.device, host.dtype) - 0.5) * 2.0
    latents: Tensor = vae.encode(scaled).latent_dist.sample(generator=noise)
    return latents * vae.config.scaling_factor


def _denoise(
    views: _Known, read: Callable[[], References], model: PaintModel, preset: Preset, host: Host, seed: int
) -> Tensor:
    """Scaled latents [N,4,64,64].

    Args:
        read: returns the reference; it is called at every step.
    """
    scheduler = model.make_scheduler()
    scheduler.set_timesteps(preset.paint_steps, device=host.device, **model.timestep_settings)
    generator = torch.Generator().manual_seed(seed)
    count, _, height, width = views.conditions.shape
    groups = [slice(view, view + 1) for view in range(count)] if preset.view_by_view else [slice(0, count)]
    latents = randn_tensor((count, 4, height, width), generator=generator, device=host.device, dtype=host.dtype)
    latents = latents * scheduler.init_noise_sigma
    chosen = choose_attention(preset.attention, host.device, host.dtype)
    with host.borrow(model.main) as unet, ExitStack() as running:
        set_attention(unet, chosen)
        running.enter_context(masked_views(unet, views.means, host.device, in_rows=chosen == "sliced"))
        together = running.enter_context(guided(unet, model.main, host, together=preset.cfg_together)
                                         if model.guided else nullcontext(False))  # fmt: skip
        text = unet.unet.learned_text_clip_gen.to(host.device)
        halves = _Halves(unet, views.conditions, torch.cat([torch.zeros_like(text), text]),
                         torch.tensor([views.classes], device=host.device), preset.skip_unguided_reference)  # fmt: skip
        for index, timestep in enumerate(scheduler.timesteps):
            scaled = scheduler.scale_model_input(latents, timestep)
            halves.references = read()
            if model.guided:
                parts = [halves.run(scaled, timestep, group, together=together) for group in groups]
                unconditional, conditional = (torch.cat(half) for half in zip(*parts, strict=True))
                noise = unconditional + preset.paint_guidance * (conditional - unconditional)
            else:
                noise = torch.cat([halves.conditional(scaled, timestep, group) for group in groups])
            latents, guess = next_latents(scheduler, noise, timestep, latents, generator)
            host.progress(index + 1, preset.paint_steps, preview=preview(guess, views.objects))
    return latents


class _Halves:
    """Runs the UNet for both halves of classifier-free guidance: 0 unconditional, 1 conditional.

    The unconditional half gets neither text nor reference.
    """

    references: References
    """From the dual UNet, for the conditional half or for both."""

    def __init__(self, unet: Any, conditions: Tensor, text: Tensor, classes: Tensor, skips_unguided: bool) -> None:
        self._unet = unet
        self._conditions = conditions
        self._text = text
        self._classes = classes
        self._skips_unguided = skips_unguided

    def run(self, latents: Tensor, timestep: Tensor, views: slice, *, together: bool) -> tuple[Tensor, Tensor]:
        """The noise [N,4,h,w] that each half predicts for the views of the slice."""
        if together:
            unconditional, conditional = self._pass(latents, timestep, views, slice(0, 2)).chunk(2)
            return unconditional, conditional
        with without_reference(self._unet) if self._skips_unguided else nullcontext():
            unconditional = self._pass(latents, timestep, views, slice(0, 1))
        return unconditional, self.conditional(latents, timestep, views)

    def conditional(self, latents: Tensor, timestep: Tensor, views: slice) -> Tensor:
        """The noise [N,4,h,w] that the conditional half predicts; all that a model without guidance runs."""
        return self._pass(latents, timestep, views, slice(1, 2))

    def _pass(self, latents: Tensor, timestep: Tensor, views: slice, half: slice) -> Tensor:
        batch = half.stop - half.start
        scale = torch.tensor([0.0, 1.0][half]).to(latents)
        conditions = torch.stack([self._conditions[views]] * batch)
        noise: Tensor = self._unet(
            torch.stack([latents[views]] * batch),
            timestep,
            encoder_hidden_states=self._text[half],
            normal_imgs=conditions[:, :, :4],
            position_imgs=conditions[:, :, 4:],
            camera_info_gen=torch.cat([self._classes[:, views]] * batch),
            condition_embed_dict={layer: _of_half(tokens, half) for layer, tokens in self.references.items()},
            ref_scale=scale,
        )[0]
        return noise


def _of_half(tokens: Tensor, half: slice) -> Tensor:
    """The references of one half or of both. If only the conditional half was read, it replaces the other.

    Args:
        tokens: [1 or 2 halves,tokens of all reference pictures,channels].
    """
    return tokens[half] if len(tokens) == 2 else tokens.expand(half.stop - half.start, -1, -1)
