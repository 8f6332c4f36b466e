"""The manifest: complete, unique, and of the size that the published architectures have."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from lowvram_core.errors import BadInput
from lowvram_core.files import manifest
from lowvram_core.files.manifest import MODELS, needed
from lowvram_core.files.single_files import layout_of
from lowvram_core.networks.dinov2 import to_installed_names
from lowvram_core.presets import BACKGROUND_MODELS, PRESETS, VARIANTS

HEADER_BYTES = 300_000
"""A safetensors file is its tensors and a header; the largest header here is 215,416 bytes."""


def test_every_variant_and_every_stage_has_its_model() -> None:
    wanted = {f"shape/{variant}" for variant in VARIANTS} | {"delight", "paint", "paint/v2-0-turbo", "paint_vae"}
    wanted |= {f"background/{name}" for name in BACKGROUND_MODELS}
    wanted |= {preset.with_(variant=variant).turbo_vae for preset in PRESETS.values() for variant in VARIANTS}
    assert set(MODELS) == wanted


def test_ids_folders_and_files_are_unique() -> None:
    """The turbo paint model shares the VAE of the standard one, and nothing else is in two models."""
    own = [model for model in MODELS.values() if model.id != "paint_vae"]
    places = [(model.repo, model.folder, file.path) for model in own for file in model.files]
    assert len(places) == len(set(places))
    hashes = [file.sha256 for model in own for file in model.files if file.sha256]
    assert len(hashes) == len(set(hashes))


def test_every_file_has_a_size_and_every_model_a_licence_and_an_address() -> None:
    for model in MODELS.values():
        assert model.licence
        assert model.address.startswith("https://")
        assert bool(model.repo) == all(not file.url for file in model.files)
        assert bool(model.repo) == bool(re.fullmatch("[0-9a-f]{40}", model.revision))
        for file in model.files:
            assert file.bytes > 0
            assert re.fullmatch("([0-9a-f]{64})?", file.sha256) and re.fullmatch("([0-9a-f]{32})?", file.md5)
            assert ".." not in file.path and not file.path.startswith("/") and "\\" not in file.path
            if file.known == "about":
                assert file.bytes < 10_000
            else:
                hashed = file.sha256 or file.path.startswith("tokenizer/") or model.id.startswith("shape_vae/")
                assert file.bytes < 10_000 or hashed


def test_each_preset_names_what_it_needs() -> None:
    for preset in PRESETS.values():
        models = needed(preset)
        painters = ["paint/v2-0-turbo", "paint_vae"] if preset.paint_variant == "turbo" else ["paint"]
        shape = f"shape/{preset.variant}"
        assert [model.id for model in models] == ["background/u2net", shape, "delight", *painters]


def test_the_turbo_vae_is_needed_only_where_it_is_chosen() -> None:
    chosen = PRESETS["8 GB Balanced"].with_(shape_vae="turbo")
    assert [model.id for model in needed(chosen)][1:3] == ["shape/v2-0-turbo", "shape_vae/v2-0-turbo"]
    assert needed(chosen.with_(variant="mini"))[2].folder == "hunyuan3d-vae-v2-mini-turbo"
    assert needed(chosen.with_(variant="mv"))[2].id == "shape_vae/v2-0-turbo"


def test_what_is_not_there_is_bad_input() -> None:
    with pytest.raises(BadInput, match="wanted one of u2net"):
        manifest.needed(PRESETS["8 GB Fast"].with_(background_model="nothing"))
    with pytest.raises(BadInput, match="shape/v2-0"):
        manifest.get("shape/v3")


def fp16_bytes(*modules: nn.Module) -> int:
    return sum(2 * value.numel() for module in modules for value in module.state_dict().values())


def published_names(dit: nn.Module, vae: nn.Module, dino: nn.Module) -> dict[str, tuple[int, ...]]:
    """Names and shapes as the published file has them: DINOv2's are those of an older transformers."""
    old = ["layer.0.attention.attention.query.weight"]
    parts = {"model": dit, "vae": vae, "conditioner.main_image_encoder.model": dino}
    shapes = {part: {name: tuple(value.shape) for name, value in module.state_dict().items()}
              for part, module in parts.items()}  # fmt: skip
    shapes["conditioner.main_image_encoder.model"] = to_installed_names(
        shapes["conditioner.main_image_encoder.model"], old
    )
    return {f"{part}.{name}": shape for part, every in shapes.items() for name, shape in every.items()}


def test_shape_sizes_are_those_of_the_published_architecture() -> None:
    """DiT + ShapeVAE + DINOv2-giant on the meta device, with the published configurations."""
    from transformers import Dinov2Config, Dinov2Model

    from lowvram_core.networks import hy3dgen

    make_dit = hy3dgen.shapegen("models.denoisers.hunyuan3ddit").Hunyuan3DDiT
    make_vae = hy3dgen.shapegen("models.autoencoders").ShapeVAE
    giant = Dinov2Config(
        hidden_size=1536, num_hidden_layers=40, num_attention_heads=24, image_size=518, patch_size=14,
        mlp_ratio=4, use_swiglu_ffn=True,
    )  # fmt: skip
    with torch.device("meta"):
        dino = Dinov2Model(giant)
        vae = make_vae(num_latents=3072, embed_dim=64, num_freqs=8, include_pi=False, heads=16, width=1024,
                       num_decoder_layers=16, qkv_bias=False, qk_norm=True)  # fmt: skip
        shared = fp16_bytes(dino, vae)
        for variant in VARIANTS:
            layers = (8, 16) if variant.startswith("mini") else (16, 32)
            dit = make_dit(
                in_channels=64, context_in_dim=1536, hidden_size=1024, num_heads=16, depth=layers[0],
                depth_single_blocks=layers[1], qkv_bias=True, guidance_embed=variant.endswith(("fast", "turbo")),
            )  # fmt: skip
            tensors = fp16_bytes(dit) + shared
            size = MODELS[f"shape/{variant}"].files[1].bytes
            assert tensors < size < tensors + HEADER_BYTES, variant
            assert MODELS[f"shape/{variant}"].layout == layout_of(published_names(dit, vae, dino)), variant
        for latents, name in ((3072, "v2-0-turbo"), (512, "mini-turbo")):
            vae = make_vae(num_latents=latents, embed_dim=64, num_freqs=8, include_pi=False, heads=16, width=1024,
                           num_decoder_layers=16, qkv_bias=False, qk_norm=True, geo_decoder_downsample_ratio=2,
                           geo_decoder_mlp_expand_ratio=1, geo_decoder_ln_post=False)  # fmt: skip
            size = MODELS[f"shape_vae/{name}"].files[1].bytes
            assert fp16_bytes(vae) < size < fp16_bytes(vae) + HEADER_BYTES, name


def test_delight_size_is_that_of_stable_diffusion_with_eight_channels() -> None:
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(
            sample_size=64, in_channels=8, cross_attention_dim=1024, attention_head_dim=[5, 10, 20, 20],
            use_linear_projection=True,
        )  # fmt: skip
    size = next(file.bytes for file in MODELS["delight"].files if file.path.startswith("unet/diffusion"))
    assert fp16_bytes(unet) < size < fp16_bytes(unet) + HEADER_BYTES


def test_the_turbo_paint_unet_is_the_standard_one_in_float32() -> None:
    from diffusers import UNet2DConditionModel

    from lowvram_core.networks import hy3dgen

    with torch.device("meta"):
        unet = hy3dgen.paint_unet()(
            UNet2DConditionModel(sample_size=64, cross_attention_dim=1024, attention_head_dim=[5, 10, 20, 20],
                                 use_linear_projection=True)
        )  # fmt: skip
    names = "unet/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model.bin"
    half, whole = (next(file.bytes for file in MODELS[model].files if file.path == name)
                   for model, name in zip(("paint", "paint/v2-0-turbo"), names, strict=True))  # fmt: skip
    assert fp16_bytes(unet) < half < fp16_bytes(unet) + HEADER_BYTES
    assert 2 * fp16_bytes(unet) < whole < 2 * fp16_bytes(unet) + 2 * HEADER_BYTES
