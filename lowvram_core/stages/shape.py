"""Picture to mesh: condition, sample, decode."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor, nn

from ..checks.finite import check_finite
from ..checks.pictures import check_cutout
from ..errors import BadInput
from ..files.store import ModelStore
from ..fitting.budget import Need, need
from ..fitting.ladder import fitted
from ..geometry.fields import Asking
from ..geometry.sparse import lattice_edge, search_bytes
from ..geometry.surface import surface
from ..host import Host
from ..lending.geometry import geometry_device
from ..lending.halves import guided
from ..networks.shape import ShapeModel, open_shape, shape_field, with_other_vae
from ..pictures.convert import rgba_from_cutout
from ..pictures.recentre import within_solid
from ..presets import Preset
from ..types import FRONT, SIDES, Cutout, Mesh

CONDITION_MIB = 52.0
IMAGE_TOKENS = 1370
SAMPLE_KIB = 45.5
LATENTS_KIB = 6.8
POINT_KIB = 22.4
"""Activations in float16: of the conditioner, of the DiT per latent and image token, of the VAE per latent token and
per point."""
LOGIT_BYTES = 4
"""Per point of the grid."""
MOST_POINTS = 20_000
"""Chunks of more points gain little: on an H200 8,000 took 12.1 s, 20,000 8.2 s and 100,000 6.5 s."""

log = logging.getLogger(__name__)
Condition = dict[str, Tensor]
Network = Callable[..., Any]


def generate_shape(
    pictures: Cutout | Mapping[str, Cutout], preset: Preset, host: Host, store: ModelStore, *, seed: int = 0
) -> Mesh:
    """A mesh of the object in the picture, +Y up, front facing +Z, inside a cube of edge 2.02.

    Args:
        pictures: one cutout, or for the mv variants any of front, left, back, right.
        preset: reads variant, shape_vae, shape_steps, octree, decode, guidance, cfg_together, points_per_chunk,
            skip_last_step, keys_once, logits_on_host, compile_shape.
        seed: for the initial noise, which is drawn on the CPU.

    Returns:
        The surface at level 0 from marching cubes: dense, without UVs.

    Raises:
        BadInput: a picture or the checkpoint cannot be used, or the variant wants other views.
        NumericalFailure: the networks gave NaN, or a field without a surface.

    Memory:
        One component at a time: conditioner, DiT, VAE. The grid of logits is in RAM.

    Source:
        hy3dgen.shapegen.pipelines.Hunyuan3DDiTFlowMatchingPipeline.__call__; bit-identical on the CPU in float32
        with cfg_together. Components are borrowed one after the other.
    """
    views = _check_views(pictures, preset)
    model = preset_shape(preset, host, store)
    with host.reading_ahead(model.order):
        return fitted("shape", preset, host, partial(_needs, model, host), partial(_generate, views, model, host, seed))


def preset_shape(preset: Preset, host: Host, store: ModelStore) -> ShapeModel:
    """The shape model that the preset names, opened but not loaded."""
    found = store.place(f"shape/{preset.variant}")
    assert found.folder is not None
    model = open_shape(found.folder, host.dtype, weights=found.weights)
    if preset.shape_vae == "turbo":
        return with_other_vae(model, store.folder(preset.turbo_vae), host.dtype)
    return model


def _needs(model: ShapeModel, host: Host, preset: Preset) -> list[Need]:
    halves = 2 if _uses_cfg(model, preset) and preset.cfg_together else 1
    tokens = model.latent_shape[0]
    decoding_mib = (tokens * LATENTS_KIB + preset.points_per_chunk * POINT_KIB) / 1024
    decoded = need(model.vae, host, decoding_mib, {"points_per_chunk", "octree", "logits_on_host", "decode"})
    searches = lattice_edge(preset.octree, preset.decode) > 1
    gathered = search_bytes(preset.octree) if searches else LOGIT_BYTES * (preset.octree + 1) ** 3
    on_device = 0 if preset.logits_on_host else gathered
    return [
        need(model.conditioner, host, CONDITION_MIB),
        need(model.dit, host, halves * (tokens + IMAGE_TOKENS) * SAMPLE_KIB / 1024, {"cfg_together", "variant"}),
        replace(decoded, activation_bytes=decoded.activation_bytes + on_device, ram_bytes=gathered),
    ]


def _generate(views: Mapping[str, Cutout], model: ShapeModel, host: Host, seed: int, preset: Preset) -> Mesh:
    with torch.inference_mode():
        with host.phase("condition"):
            condition = _condition(views, model, host, unconditional=_uses_cfg(model, preset))
        with host.phase("sample"):
            latents = _sample(condition, model, preset, host, seed)
    with host.phase("decode"):
        mesh = _decode(latents, model, preset, host)
    log.info("shape: %s, %d steps, octree %d, %d faces", preset.variant, preset.shape_steps, preset.octree,
             len(mesh.faces))  # fmt: skip
    return mesh


def check_view_names(names: Collection[str], preset: Preset) -> None:
    """Raises BadInput if the preset's variant does not take pictures of these views."""
    unknown = sorted(set(names) - set(SIDES))
    if unknown or not names:
        raise BadInput(f"shape: views {unknown or 'none'}; wanted any of {', '.join(SIDES)}. Name each picture so.")
    if len(names) > 1 and not preset.variant.startswith("mv"):
        raise BadInput(
            f"shape: {len(names)} views for variant {preset.variant}, which takes one picture; "
            "wanted an mv variant for several. Choose mv, mv-fast or mv-turbo, or give one picture."
        )


def _check_views(pictures: Cutout | Mapping[str, Cutout], preset: Preset) -> dict[str, Cutout]:
    views = {FRONT: pictures} if isinstance(pictures, Cutout) else dict(pictures)
    check_view_names(views, preset)
    for cutout in views.values():
        check_cutout(cutout, "shape")
    return views


def _uses_cfg(model: ShapeModel, preset: Preset) -> bool:
    return preset.guidance >= 0 and not model.guidance_embed


def _condition(views: Mapping[str, Cutout], model: ShapeModel, host: Host, *, unconditional: bool) -> Condition:
    """Image tokens `main` [1 or 2,T,C] on the device: those of the picture, then the unconditional ones if wanted."""
    inputs = _conditioner_inputs(views, model)
    with host.borrow(model.conditioner) as conditioner:
        condition: Condition = conditioner(**inputs)
        if unconditional:
            empty = conditioner.unconditional_embedding(1, **inputs)
            # a streamed conditioner makes its zeros off the device, where its weights are
            condition = {name: torch.cat([tokens, empty[name].to(tokens)]) for name, tokens in condition.items()}
        condition = {name: tokens.to(host.dtype) for name, tokens in condition.items()}
    host.progress(1, 1)
    check_finite("shape", "condition", host.dtype, *condition.values())
    return condition


def _conditioner_inputs(views: Mapping[str, Cutout], model: ShapeModel) -> dict[str, Any]:
    pictures = {name: within_solid(rgba_from_cutout(cutout)) for name, cutout in views.items()}
    only = pictures[FRONT] if FRONT in pictures else next(iter(pictures.values()))
    try:
        inputs = dict(model.image_processor(pictures if model.multiview else only))
    except Exception as error:  # OpenCV has errors of its own, and cannot scale an object to less than a pixel
        sizes = ", ".join(f"{right - left}x{bottom - top}" for left, top, right, bottom in map(_box, pictures.values()))
        raise BadInput(
            f"shape: the object is {sizes} px, which cannot be scaled to the network's input; wanted a wider one. "
            "Use a picture that the object fills."
        ) from error
    return {**inputs, "view_idxs": [inputs["view_idxs"]]} if model.multiview else inputs


def _box(picture: Image.Image) -> tuple[int, int, int, int]:
    return picture.getchannel("A").getbbox() or (0, 0, 0, 0)


def _sample(condition: Condition, model: ShapeModel, preset: Preset, host: Host, seed: int) -> Tensor:
    """Latents [1,tokens,channels] on the device."""
    generator = torch.Generator().manual_seed(seed)
    latents = randn_tensor((1, *model.latent_shape), generator=generator, device=host.device, dtype=host.dtype)
    scheduler = model.make_scheduler()
    scheduler.set_timesteps(sigmas=np.linspace(0, 1, preset.shape_steps), device=host.device)
    guidance = None
    if model.guidance_embed:
        guidance = torch.tensor([preset.guidance], device=host.device, dtype=host.dtype)
    idle = preset.skip_last_step and _ends_in_a_step_of_no_length(scheduler)
    timesteps = scheduler.timesteps[: -1 if idle else None]
    one_pass = preset.cfg_together or not _uses_cfg(model, preset)
    with host.borrow(model.dit) as dit, guided(dit, model.dit, host, together=one_pass) as together:
        network = _compiled(dit, host, streams=host.streams(model.dit)) if preset.compile_shape else dit
        for index, timestep in enumerate(timesteps):
            time = timestep.expand(1).to(latents.dtype) / scheduler.config.num_train_timesteps
            if model.guidance_embed:
                velocity = network(latents, time, condition, guidance=guidance)
            else:
                velocity = _guided_velocity(network, latents, time, condition, preset.guidance, together=together)
            latents = scheduler.step(velocity, timestep, latents).prev_sample
            host.progress(index + 1, len(timesteps))
    check_finite("shape", "sample", host.dtype, latents)
    return latents


def _compiled(dit: nn.Module, host: Host, *, streams: bool) -> Network:
    """The network through torch.compile. Where it cannot be compiled, it runs as it is, with a note."""
    if streams:
        host.note("shape: not compiled (its weights stream)")
        return dit
    fast = torch.compile(dit)
    usable = True

    def run(*args: Any, **kwargs: Any) -> Any:
        nonlocal usable
        if usable:
            try:
                return fast(*args, **kwargs)
            except torch._dynamo.exc.TorchDynamoException as error:
                usable = False
                host.note(f"shape: not compiled ({str(error).strip().splitlines()[0]})")
        return dit(*args, **kwargs)

    return run


def _ends_in_a_step_of_no_length(scheduler: Any) -> bool:
    """Whether the last step has length 0. Upstream's Euler schedule has its end twice."""
    if type(scheduler).__name__ != "FlowMatchEulerDiscreteScheduler":
        return False
    return bool(scheduler.sigmas[-1] == scheduler.sigmas[-2])


def _guided_velocity(
    dit: Network, latents: Tensor, time: Tensor, condition: Condition, guidance: float, *, together: bool
) -> Tensor:
    if together:
        both = dit(torch.cat([latents, latents]), time.expand(2), condition, guidance=None)
        conditional, unconditional = both.chunk(2)
    else:
        halves = [{name: tokens[half : half + 1] for name, tokens in condition.items()} for half in (0, 1)]
        conditional, unconditional = (dit(latents, time, half, guidance=None) for half in halves)
    return unconditional + guidance * (conditional - unconditional)


def _decode(latents: Tensor, model: ShapeModel, preset: Preset, host: Host) -> Mesh:
    """The surface that the latents [1,tokens,channels] describe."""
    edge = lattice_edge(preset.octree, preset.decode)
    with (
        host.borrow(model.vae) as vae,
        shape_field(vae, 1.0 / model.scale_factor * latents, keys_once=preset.keys_once) as field,
    ):
        return surface(field, preset.octree, _asking(model, preset, host, searches=edge > 1), edge=edge)


def _asking(model: ShapeModel, preset: Preset, host: Host, *, searches: bool) -> Asking:
    """How the field is asked. Memory that another network of the stage needs anyway is used for larger chunks.

    Args:
        searches: for points near the surface. The search too runs on the device if there is room.
    """
    chunk, gather_on = preset.points_per_chunk, torch.device("cpu")
    if host.device.type != "cpu":
        spare = _spare_bytes(model, preset, host)
        point_bytes = int(POINT_KIB * 1024 * host.dtype.itemsize / 2)
        more = min(max(0, MOST_POINTS - chunk), spare // point_bytes // 1000 * 1000)
        chunk, spare = chunk + more, spare - more * point_bytes
        if not preset.logits_on_host or (searches and spare >= search_bytes(preset.octree)):
            gather_on = geometry_device(host.device)
    return Asking(host.device, gather_on, chunk, host.dtype, host.progress)


def _spare_bytes(model: ShapeModel, preset: Preset, host: Host) -> int:
    """What the largest network of the stage needs more than the decoder."""
    streamed = {part.key for part in (model.conditioner, model.dit, model.vae) if host.streams(part)}
    taken = {
        need.key: need.streamed(ahead=preset.prefetch) if need.key in streamed else need.resident_bytes
        for need in _needs(model, host, preset)
    }
    return max(taken.values()) - taken[model.vae.key]
