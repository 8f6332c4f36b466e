"""Lists every file of every model, with its origin, size, hash and licence.

A size marked `published` is the hub's at the pinned revision, as public records state it. A `computed` size comes from
the tensor shapes of the architecture. `about` marks text files of a few KB whose exact size is not known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from ..errors import BadInput
from ..presets import Preset

Known = Literal["published", "computed", "about"]

TENCENT = "Tencent Hunyuan 3D 2.0 Community License (not in the EU, the UK and South Korea)"
TENCENT_SD = f"{TENCENT}; Stable Diffusion 2.1 parts: CreativeML Open RAIL++-M"
APACHE = "Apache-2.0"
MIT = "MIT"

REVISIONS: Mapping[str, str] = MappingProxyType(
    {
        "tencent/Hunyuan3D-2": "9cd649ba6913f7a852e3286bad86bfa9a2d83dcf",
        "tencent/Hunyuan3D-2mini": "f90a0f7df7d5e6f71109cf333f6a95a0ae3194a6",
        "tencent/Hunyuan3D-2mv": "3a761b539b29fe4ff64714813aa9560fd66f5de0",
    }
)
"""The commits that downloads are pinned to, so that a run today and one next year use the same weights."""

REMBG_RELEASE = "https://github.com/danielgatis/rembg/releases/download/v0.0.0"


@dataclass(frozen=True)
class ModelFile:
    """One file of a model."""

    path: str
    """The path within the model's folder, with forward slashes."""
    bytes: int
    known: Known = "published"
    sha256: str = ""
    md5: str = ""
    instead: tuple[str, ...] = ()
    """Files that can replace this one if a models folder already has them."""
    optional: bool = False
    """The file is downloaded with the others, but a folder counts as complete without it."""
    url: str = ""
    """The address of a file that is in no hub repository."""


@dataclass(frozen=True)
class Model:
    """A folder of files that belong to one model."""

    id: str
    repo: str
    """Owner and name on the hub; empty for files that are in no hub repository."""
    folder: str
    licence: str
    files: tuple[ModelFile, ...]
    layout: str = ""
    """What `single_files.layout_of` gives for the weights. Only models that other programs keep as one file have it."""

    @property
    def weights(self) -> ModelFile | None:
        """The file that another program's single file can replace; None where no program has such a file."""
        return self.files[-1] if self.layout else None

    @property
    def bytes(self) -> int:
        """Size of the download, and on disk."""
        return sum(file.bytes for file in self.files)

    @property
    def revision(self) -> str:
        """The pinned commit; empty for a model that is in no hub repository."""
        return REVISIONS.get(self.repo, "")

    @property
    def address(self) -> str:
        """The web page of the files."""
        return f"https://huggingface.co/{self.repo}/tree/main/{self.folder}" if self.repo else self.files[0].url


_FULL, _FULL_GUIDED = 4_928_151_562, 4_930_777_530
_MINI, _MINI_GUIDED = 3_819_958_234, 3_822_584_202
_2, _2MINI, _2MV = REVISIONS

_LAYOUTS: Mapping[int, str] = MappingProxyType(
    {
        _FULL: "324a2cc763404479ff0e8015c75429b16dead778bd115b375550022a0aa5dcd1",
        _FULL_GUIDED: "790af6511ad8bb28141ae8c25329f40333e6c30f0a96f9f49a0c7ccfaea93f66",
        _MINI: "cb55fd6e7868db4343bf980a4764aaec82cd26d90dac274453ac36ff67adb7c2",
        _MINI_GUIDED: "628a00184d08cc1b8b53f3659cba8099e82fe425f5533c4f2ced78b59aea7f20",
    }
)
"""The layout of the weights by their size: names and shapes, computed from the networks at the published sizes."""

_SHAPES: tuple[tuple[str, str, str, int, Known, str], ...] = (
    ("v2-0", _2, "hunyuan3d-dit-v2-0", _FULL, "published",
     "360bc281fc956d4acac0c3d36d5ec0ebf8cdddbf4b8892e894d12419388d479b"),
    ("v2-0-fast", _2, "hunyuan3d-dit-v2-0-fast", _FULL_GUIDED, "computed",
     "fcf91f29922270b4cce5f266099b306c6e140f2a2382a81fc5e47752d4d41e85"),
    ("v2-0-turbo", _2, "hunyuan3d-dit-v2-0-turbo", _FULL_GUIDED, "published",
     "5ee5a81e4df08a1c65b79910bf5b145a90376e526794f4607a4d5d068d62f269"),
    ("mini", _2MINI, "hunyuan3d-dit-v2-mini", _MINI, "published",
     "3cc66f3bea33e4062b7dbc875ffe1d70c4888914aec3e91b60f94e9bd01b522b"),
    ("mini-fast", _2MINI, "hunyuan3d-dit-v2-mini-fast", _MINI_GUIDED, "computed",
     "2bc48c8168874bb3f3d9bb6699af40517e498d2da3400c9c54dc0f5779875ab3"),
    ("mini-turbo", _2MINI, "hunyuan3d-dit-v2-mini-turbo", _MINI_GUIDED, "published",
     "bdbcef30dd0149a281e17d5b5b1fdad1122c904e098a42f3100e04e03c247bc4"),
    ("mv", _2MV, "hunyuan3d-dit-v2-mv", _FULL, "published",
     "d36f5881bcdc56726b73e517cd444c13c60732431622da7268145355c8d38e9c"),
    ("mv-fast", _2MV, "hunyuan3d-dit-v2-mv-fast", _FULL_GUIDED, "computed",
     "dcd6e2716ff13f2de1e4480bcfe779f330f6494af6f1bedbd4f1e503f198e785"),
    ("mv-turbo", _2MV, "hunyuan3d-dit-v2-mv-turbo", _FULL_GUIDED, "computed",
     "172d7a989b99f66af760da0080d8c6f6350c72609536cf0c55b87a4afa574e45"),
)  # fmt: skip
"""The fast and turbo variants have two more layers in the DiT, the guidance embedding: 2,625,968 bytes, as both
published turbo files show."""

_TURBO_VAES: tuple[tuple[str, str, int], ...] = (("v2-0-turbo", _2, 407_410_000), ("mini-turbo", _2MINI, 407_410_000))
"""The VAEs with a small geometry decoder. Their sizes are computed; their headers may differ by a few KB."""

_BACKGROUNDS: tuple[tuple[str, str, str, int, str, str], ...] = (
    ("u2net", APACHE, "u2net.onnx", 175_997_641, "60024c5c889badc19c04ad937298a77b",
     "8d10d2f3bb75ae3b6d527c77944fc5e7dcd94b29809d47a739a7a728a912b491"),
    ("u2netp", APACHE, "u2netp.onnx", 4_574_861, "8e83ca70e441ab06c318d82300c84806",
     "309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8"),
    ("isnet-general-use", APACHE, "isnet-general-use.onnx", 178_648_008, "fc16ebd8b0c10d971d3513d564d01e29",
     "60920e99c45464f2ba57bee2ad08c919a52bbf852739e96947fbb4358c0d964a"),
    ("birefnet-general-lite", MIT, "BiRefNet-general-bb_swin_v1_tiny-epoch_232.onnx", 224_005_088,
     "4fab47adc4ff364be1713e97b7e66334", "5600024376f572a557870a5eb0afb1e5961636bef4e1e22132025467d0f03333"),
)  # fmt: skip


def _shape(variant: str, repo: str, folder: str, size: int, known: Known, sha256: str) -> Model:
    weights = ModelFile("model.fp16.safetensors", size, known, sha256, instead=("model.safetensors",))
    files = (ModelFile("config.yaml", 1_700, "about"), weights)
    return Model(f"shape/{variant}", repo, folder, TENCENT, files, _LAYOUTS[size])


def _turbo_vae(name: str, repo: str, size: int) -> Model:
    """The VAE with a small geometry decoder. No public record states the hash of its weights; the hub does."""
    files = (ModelFile("config.yaml", 500, "about"), ModelFile("model.fp16.safetensors", size, "computed"))
    return Model(f"shape_vae/{name}", repo, f"hunyuan3d-vae-{name.replace('mini', 'v2-mini')}", TENCENT, files)


def _background(name: str, licence: str, asset: str, size: int, md5: str, sha256: str) -> Model:
    file = ModelFile(f"{name}.onnx", size, sha256=sha256, md5=md5, url=f"{REMBG_RELEASE}/{asset}")
    return Model(f"background/{name}", "", "rembg", licence, (file,))


_INSTEAD = (
    "{}/diffusion_pytorch_model.fp16.safetensors",
    "{}/diffusion_pytorch_model.bin",
    "{}/diffusion_pytorch_model.fp16.bin",
)


def _instead(folder: str) -> tuple[str, ...]:
    return tuple(name.format(folder) for name in _INSTEAD)


_TOKENIZER = (
    ModelFile("tokenizer/vocab.json", 1_059_962, instead=("tokenizer/tokenizer.json",)),
    ModelFile("tokenizer/merges.txt", 524_619, instead=("tokenizer/tokenizer.json",)),
    ModelFile("tokenizer/special_tokens_map.json", 460, "about", optional=True),
    ModelFile("tokenizer/tokenizer_config.json", 800, "about", optional=True),
)

_DELIGHT = Model(
    "delight", _2, "hunyuan3d-delight-v2-0", TENCENT_SD,
    (
        ModelFile("model_index.json", 600, "about"),
        ModelFile("scheduler/scheduler_config.json", 550, "about"),
        ModelFile("text_encoder/config.json", 620, "about"),
        ModelFile("text_encoder/model.safetensors", 680_820_392,
                  sha256="bc1827c465450322616f06dea41596eac7d493f4e95904dcb51f0fc745c4e13f",
                  instead=("text_encoder/model.fp16.safetensors", "text_encoder/pytorch_model.bin")),
        *_TOKENIZER,
        ModelFile("unet/config.json", 1_900, "about"),
        ModelFile("unet/diffusion_pytorch_model.safetensors", 1_731_927_776, "computed",
                  sha256="0ce61d15a43d11ba19079ab8f24dfce78b876d3f5291470079ef64b17e08ca58",
                  instead=_instead("unet")),
        ModelFile("vae/config.json", 660, "about"),
        ModelFile("vae/diffusion_pytorch_model.safetensors", 167_335_342,
                  sha256="3e4c08995484ee61270175e9e7a072b66a6e4eeb5f0c266667fe1f45b90daf9a",
                  instead=_instead("vae")),
    ),
)  # fmt: skip

_PAINT = Model(
    "paint", _2, "hunyuan3d-paint-v2-0", TENCENT_SD,
    (
        ModelFile("model_index.json", 620, "about"),
        ModelFile("scheduler/scheduler_config.json", 550, "about"),
        ModelFile("unet/config.json", 911),
        ModelFile("unet/diffusion_pytorch_model.safetensors", 3_662_636_472,
                  sha256="1c5ce434ba976b30bbb51a080917ecd39f8d8761691887b5df3be765ef4bd9e9",
                  instead=_instead("unet")),
        ModelFile("vae/config.json", 553),
        ModelFile("vae/diffusion_pytorch_model.safetensors", 167_335_310,
                  sha256="abcec86e499e1ce9f05d1630725d386dc533b61fe0947ab034f07f89042e7a61",
                  instead=_instead("vae")),
    ),
)  # fmt: skip
"""Without the text encoder, since painting never runs it."""

_PAINT_VAE = Model(
    "paint_vae", _2, _PAINT.folder, TENCENT_SD, tuple(file for file in _PAINT.files if file.path.startswith("vae/"))
)
"""The part of the paint model that the turbo paint model needs, too: its own folder has the same VAE as a pickle."""

_PAINT_TURBO = Model(
    "paint/v2-0-turbo", _2, "hunyuan3d-paint-v2-0-turbo", TENCENT_SD,
    (
        ModelFile("scheduler/scheduler_config.json", 550, "about"),
        ModelFile("unet/config.json", 911),
        ModelFile("unet/diffusion_pytorch_model.bin", 7_325_355_000, "computed",
                  sha256="24e7f1aea8a7c94cee627eb06f5265f19eeff4e19568636c5eaef050cc19ba3d",
                  instead=("unet/diffusion_pytorch_model.fp16.safetensors",)),
    ),
)  # fmt: skip
"""Its UNet in float32, and without a VAE, see `paint_vae`. The safetensors file beside the .bin is an older network
with other layers, so it does not replace the .bin. The .fp16.safetensors file is a .bin that was converted."""

MODELS: Mapping[str, Model] = MappingProxyType(
    {
        model.id: model
        for model in (
            *(_shape(*row) for row in _SHAPES),
            *(_turbo_vae(*row) for row in _TURBO_VAES),
            _DELIGHT,
            _PAINT,
            _PAINT_TURBO,
            _PAINT_VAE,
            *(_background(*row) for row in _BACKGROUNDS),
        )
    }
)
"""Every model by its id: `shape/<variant>`, `shape_vae/<name>`, `delight`, `paint`,
`paint/v2-0-turbo`, `paint_vae`, `background/<name>`."""


def get(model_id: str, models: Mapping[str, Model] = MODELS) -> Model:
    """The model of that id.

    Raises:
        BadInput: no model has that id.
    """
    if model_id not in models:
        raise BadInput(f"models: {model_id!r} is not known; wanted one of {', '.join(models)}. Choose one of these.")
    return models[model_id]


STAGES = ("background", "shape", "delight", "paint")
"""The stages that have models, in the order of a run."""


def needed_by(stage: str, preset: Preset) -> list[Model]:
    """The models of a stage with this preset; none for a stage that is not in STAGES."""
    shape = [f"shape/{preset.variant}", *([preset.turbo_vae] if preset.shape_vae == "turbo" else [])]
    ids = {
        "background": [f"background/{preset.background_model}"],
        "shape": shape,
        "delight": ["delight"],
        "paint": list(preset.paint_models),
    }
    return [get(model_id) for model_id in ids.get(stage, ())]


def needed(preset: Preset) -> list[Model]:
    """The models of a whole run with this preset, in the order of the stages."""
    return [model for stage in STAGES for model in needed_by(stage, preset)]


def gigabytes(models: list[Model]) -> str:
    """The size of these models in GB; `~` where a part of it is computed."""
    computed = any(file.known == "computed" for model in models for file in model.files)
    size = sum(model.bytes for model in models) / 1e9
    return f"{'~' if computed else ''}{size:.{2 if size > 0.1 else 3}f}"
