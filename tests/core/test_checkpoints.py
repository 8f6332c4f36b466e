"""Checkpoints: published names, one copy in memory, no code of theirs, damage named."""

from __future__ import annotations

import json
import pickle
import re
import socket
import struct
import sys
from pathlib import Path
from typing import Any

import diffusers
import pytest
import tiny
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode

from lowvram_core.errors import BadCheckpoint
from lowvram_core.files.checkpoints import StateDict, build_empty, fill, read_header, read_pickle, read_safetensors
from lowvram_core.files.convert import convert_pickle
from lowvram_core.networks import diffusers_folders, dinov2
from lowvram_core.networks.delight import open_delight
from lowvram_core.networks.paint import open_paint
from lowvram_core.networks.shape import open_shape


def test_fixtures_carry_the_published_names(tmp_path: Path) -> None:
    names = read_header(tiny.make_shape(tmp_path) / "model.fp16.safetensors")
    layer = "conditioner.main_image_encoder.model.encoder.layer.0."
    for name in ("attention.attention.query.weight", "attention.output.dense.bias", "mlp.weights_in.weight",
                 "mlp.weights_out.weight", "layer_scale1.lambda1"):  # fmt: skip
        assert layer + name in names


def test_dinov2_names_in_both_directions(tmp_path: Path) -> None:
    state = load_file(tiny.make_shape(tmp_path) / "model.fp16.safetensors")
    old = {name: value for name, value in state.items() if ".encoder.layer." in name}
    new = dinov2._to_new(old)
    assert not any("attention.attention" in name or "weights_" in name for name in new)
    back = dinov2._to_old(new)
    assert back.keys() == old.keys() and all(torch.equal(back[name], old[name]) for name in old)
    assert dinov2.to_installed_names(new, new).keys() == new.keys()
    assert dinov2.to_installed_names(new, old).keys() == old.keys()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/maps")
def test_weights_stay_in_the_mapped_file(tmp_path: Path) -> None:
    shape = open_shape(tiny.make_shape(tmp_path), torch.float16)
    paint = open_paint(tiny.make_paint(tmp_path), torch.float16)
    for component in (shape.dit, shape.vae, shape.conditioner, paint.dual, paint.main):
        module = component.load()
        for name, parameter in module.named_parameters():
            assert _mapped(parameter.data_ptr()), f"{component.label}: {name} was copied"
        assert component.weight_bytes == sum(p.numel() * 2 for p in module.parameters())


def _mapped(address: int) -> bool:
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, *_, path = line.split(maxsplit=5)
        low, high = (int(edge, 16) for edge in span.split("-"))
        if low <= address < high:
            return path.endswith((".safetensors", ".bin"))
    return False


def test_float32_runs_from_the_same_files(tmp_path: Path) -> None:
    component = open_shape(tiny.make_shape(tmp_path), torch.float32).dit
    module = component.load()
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}
    assert component.weight_bytes == sum(p.numel() * 4 for p in module.parameters())


MIB = 2**20


def layers() -> torch.nn.Module:
    """32 MiB at float16, and an integer."""
    network = torch.nn.Sequential(*(torch.nn.Linear(1024, 1024) for _ in range(16)))
    network.register_buffer("count", torch.zeros(3, dtype=torch.int64))
    return network


def written(path: Path) -> tuple[StateDict, StateDict]:
    """What `layers` take, drawn and written at float16; and the same as the file's reader gives it."""
    torch.manual_seed(0)
    drawn = {name: value.half() if value.is_floating_point() else value + 7
             for name, value in layers().state_dict().items()}  # fmt: skip
    if path.suffix == ".bin":
        torch.save(drawn, path)
        return drawn, read_pickle(path)
    save_file(drawn, path)
    return drawn, read_safetensors(path)


def status_mib(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(field + ":"))) / 1024


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_what_is_read_for_another_precision_leaves_ram(tmp_path: Path, suffix: str) -> None:
    """The peak is the copies', not theirs and the file's; before, half as much again."""
    path = tmp_path / f"모델 1{suffix}"
    drawn, state = written(path)
    del drawn
    Path("/proc/self/clear_refs").write_text("5")
    before = status_mib("VmRSS")
    mapped = status_mib("RssFile")
    module = fill(build_empty(layers), state, torch.float32, path)
    assert sum(value.nbytes for value in module.parameters()) > 64 * MIB
    assert status_mib("RssFile") - mapped < 4, "while the state is still there"
    assert status_mib("VmHWM") - before < 76


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
@pytest.mark.parametrize("system", ["this one", "one that lists no mappings"])
def test_another_precision_has_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, system: str
) -> None:
    """And the file is read again where its pages have left; what is no file's memory is not touched."""
    if system != "this one":
        monkeypatch.setattr("lowvram_core.files.checkpoints.file_spans", lambda file: [])
    path = tmp_path / f"weights{suffix}"
    drawn, state = written(path)
    state["0.weight"] = state["0.weight"].clone()
    own = state["0.weight"]
    filled = fill(build_empty(layers), state, torch.float32, path).state_dict()
    for name, value in drawn.items():
        assert torch.equal(filled[name], value.float() if value.is_floating_point() else value)
        assert torch.equal(state[name], value)
    assert filled["count"].dtype == torch.int64 and torch.equal(own, drawn["0.weight"])


def test_korean_names_and_spaces(tmp_path: Path) -> None:
    root = tmp_path / "모델 폴더 1"
    assert open_shape(tiny.make_shape(root), torch.float32).dit.load()
    delight = open_delight(tiny.make_delight(root), torch.float32)
    assert delight.text_encoder.load()().shape == (1, 77, 32)
    assert open_paint(tiny.make_paint(root), torch.float32).dual.load()


def test_truncated_weights(tmp_path: Path) -> None:
    for folder, name, opened in (
        (tiny.make_shape(tmp_path), "model.fp16.safetensors", open_shape),
        (tiny.make_delight(tmp_path), "unet/diffusion_pytorch_model.safetensors", open_delight),
        (tiny.make_paint(tmp_path), "unet/diffusion_pytorch_model.bin", open_paint),
    ):
        file = folder / name
        data = file.read_bytes()
        for length in (0, 5, 60, len(data) // 2):
            file.write_bytes(data[:length])
            with pytest.raises(BadCheckpoint, match=r"(?s)models: .*wnload"):
                opened(folder, torch.float32)


def test_missing_parts(tmp_path: Path) -> None:
    folder = tiny.make_delight(tmp_path)
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(BadCheckpoint, match="holds no weights"):
        open_delight(folder, torch.float32)
    folder = tiny.make_paint(tmp_path)
    (folder / "scheduler" / "scheduler_config.json").write_text("{")
    with pytest.raises(BadCheckpoint, match="scheduler_config"):
        open_paint(folder, torch.float32)
    folder = tiny.make_delight(tmp_path / "b")
    (folder / "tokenizer" / "vocab.json").unlink()
    with pytest.raises(BadCheckpoint, match="tokenizer"):
        open_delight(folder, torch.float32).text_encoder.load()


class _Bomb:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return Path.touch, (self.mark,)


def test_a_pickle_cannot_run_code(tmp_path: Path) -> None:
    folder = tiny.make_paint(tmp_path)
    weights = folder / "unet" / "diffusion_pytorch_model.bin"
    bomb = _Bomb(tmp_path / "went-off")
    torch.save({"a": torch.zeros(1), "b": bomb}, weights)
    with pytest.raises(BadCheckpoint):
        open_paint(folder, torch.float32)
    weights.write_bytes(pickle.dumps(bomb))
    with pytest.raises(BadCheckpoint):
        read_pickle(weights)
    assert not bomb.mark.exists()


def test_a_configuration_cannot_choose_code(tmp_path: Path) -> None:
    folder = tiny.make_shape(tmp_path)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    for part in ("model", "scheduler", "image_processor"):
        changed = {**config, part: {**config[part], "target": "os.system", "params": {"command": "true"}}}
        (folder / "config.yaml").write_text(yaml.safe_dump(changed))
        with pytest.raises(BadCheckpoint, match=r"os\.system"):
            open_shape(folder, torch.float32)
    (folder / "config.yaml").write_text("!!python/object/apply:os.system ['true']")
    with pytest.raises(BadCheckpoint, match=r"config\.yaml"):
        open_shape(folder, torch.float32)
    (folder / "config.yaml").write_text("just a sentence")
    with pytest.raises(BadCheckpoint, match=r"config\.yaml"):
        open_shape(folder, torch.float32)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """No socket can connect and no name be looked up. Returns a list of the attempts."""
    attempts: list[str] = []

    def refuse(*address: object, **_: object) -> None:
        attempts.append(str(address))
        raise OSError("the test forbids the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return attempts


DINO = "facebook/dinov2-giant"
REMOTE_ENCODERS: dict[str, Any] = {
    "version and no config": {"type": "DinoImageEncoder", "kwargs": {"version": DINO}},
    "version and an empty config": {"type": "DinoImageEncoder", "kwargs": {"version": DINO, "config": None}},
    "a config that is a name": {"type": "DinoImageEncoder", "kwargs": {"config": DINO}},
    "no arguments": {"type": "CLIPImageEncoder"},
    "multi-view": {"type": "DinoImageEncoderMV", "kwargs": {"version": DINO, "view_num": 4}},
    "kernels of the hub": {
        "type": "DinoImageEncoder", "kwargs": {"config": {**tiny.DINO, "attn_implementation": "owner/kernels"}},
    },
    "kernels by transformers' own name": {
        "type": "DinoImageEncoder", "kwargs": {"config": {**tiny.DINO, "_attn_implementation": "flash_attention_2"}},
    },
    "a quantization": {
        "type": "DinoImageEncoder", "kwargs": {"config": {**tiny.DINO, "quantization_config": {"a": 1}}},
    },
}  # fmt: skip


@pytest.mark.parametrize("place", ["main_image_encoder", "additional_image_encoder"])
@pytest.mark.parametrize("encoder", REMOTE_ENCODERS.values(), ids=REMOTE_ENCODERS)
def test_a_configuration_cannot_reach_the_network(
    tmp_path: Path, no_network: list[str], encoder: dict[str, Any], place: str
) -> None:
    file = tiny.make_shape(tmp_path) / "config.yaml"
    config = yaml.safe_load(file.read_text())
    conditioner = config["conditioner"]
    conditioner["params"][place] = encoder
    if place == "additional_image_encoder":
        conditioner["target"] = "hy3dgen.shapegen.models.DualImageEncoder"
    file.write_text(yaml.safe_dump(config))
    with pytest.raises(BadCheckpoint, match=rf"^models: .*config\.yaml sets .* in conditioner\.params\.{place}"):
        open_shape(file.parent, torch.float32)
    assert no_network == []


def test_a_text_encoder_cannot_reach_the_network(tmp_path: Path, no_network: list[str]) -> None:
    folder = tiny.make_delight(tmp_path)
    file = folder / "text_encoder" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "_attn_implementation": "owner/kernels"}))
    with pytest.raises(BadCheckpoint, match=r"sets _attn_implementation 'owner/kernels' in its top level"):
        open_delight(folder, torch.float32).text_encoder.load()
    assert no_network == []


def test_a_configuration_that_holds_itself_is_a_bad_checkpoint(tmp_path: Path) -> None:
    file = tiny.make_shape(tmp_path) / "config.yaml"
    config = yaml.safe_load(file.read_text())
    config["conditioner"]["params"]["main_image_encoder"] = {
        "type": "DinoImageEncoder", "kwargs": {"version": DINO, "again": config},
    }  # fmt: skip
    file.write_text(yaml.safe_dump(config))
    with pytest.raises(BadCheckpoint, match="without a config"):
        open_shape(file.parent, torch.float32)


def test_published_configurations_load_without_the_network(tmp_path: Path, no_network: list[str]) -> None:
    shapes = [open_shape(tiny.make_shape(tmp_path, variant), torch.float16) for variant in ("v2-0", "mv-turbo")]
    delight = open_delight(tiny.make_delight(tmp_path), torch.float16)
    paint = open_paint(tiny.make_paint(tmp_path), torch.float16)
    for component in (*(shape.conditioner for shape in shapes), delight.text_encoder, delight.unet, paint.vae):
        assert component.load()
    assert no_network == []


@pytest.mark.parametrize("version", ["2.4.0", "2.9.1+cu128", "2.10.0a0+git1"])
def test_pickles_are_refused_on_an_older_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    """Before one is opened, and with what to do instead; safetensors are read on any torch."""
    folder = tiny.make_paint(tmp_path)
    written = convert_pickle(folder / "unet" / "diffusion_pytorch_model.bin")
    aside = written.rename(written.with_suffix(".aside"))
    monkeypatch.setattr(torch, "__version__", version)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("the pickle was opened"))
    with pytest.raises(BadCheckpoint, match=rf"is a pickle and torch is {re.escape(version)}; wanted torch 2\.10 .*Up"):
        open_paint(folder, torch.float32)
    with pytest.raises(BadCheckpoint, match=r"safetensors file is downloaded\. .*--convert-pickles FILE"):
        diffusers_folders.load_unet(folder / "unet", torch.float32)
    aside.rename(written)
    assert open_paint(folder, torch.float32).main.load()


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_an_index_cannot_lead_to_a_pickle(part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """diffusers prefers the files that an index names to the file whose kind was checked."""
    folder = tiny.make_delight(tmp_path)
    (weights,) = (folder / part).glob("*.safetensors")
    names = dict.fromkeys(load_file(weights), "evil.bin")
    index = {"metadata": {"total_size": 1}, "weight_map": names}
    weights.with_name(f"{weights.name}.index.json").write_text(json.dumps(index))
    torch.save({"a": torch.zeros(1)}, folder / part / "evil.bin")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("the pickle was opened"))
    with pytest.raises(BadCheckpoint, match="splits the weights over several files"):
        open_delight(folder, torch.float32)
    with pytest.raises(BadCheckpoint, match="splits the weights over several files"):
        diffusers_folders.load_diffusers(diffusers.AutoencoderKL, folder / part, torch.float32)


@pytest.mark.parametrize("version", ["2.10.0", "2.10.1+cu130", "2.13.0+cpu"])
def test_pickles_are_read_on_a_sound_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(torch, "__version__", version)
    assert open_paint(tiny.make_paint(tmp_path), torch.float32)


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"nonsense",
        b"[]",
        b'{"a": 1}',
        b'{"a": {"dtype": "F32", "shape": [4]}}',
        b'{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 8]}}',
        b'{"a": {"dtype": "F32", "shape": [4], "data_offsets": [8, 24]}}',
        b'{"a": {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]}}',
        b'{"a": {"dtype": "F99", "shape": [4], "data_offsets": [0, 16]}}',
    ],
)
def test_a_corrupt_header_is_a_bad_checkpoint(tmp_path: Path, header: bytes) -> None:
    file = tmp_path / "a.safetensors"
    for length in (len(header), 2**40):
        file.write_bytes(struct.pack("<Q", length) + header + bytes(16))
        for read in (read_header, read_safetensors):
            with pytest.raises(BadCheckpoint, match=r"^models: .*a\.safetensors cannot be read .*; wanted a whole"):
                read(file)


def test_reading_a_prefix(tmp_path: Path) -> None:
    file = tiny.make_shape(tmp_path) / "model.fp16.safetensors"
    part = read_safetensors(file, "vae.")
    assert part and all(f"vae.{name}" in read_header(file) for name in part)


def renamed(folder: Path, suffix: str) -> Path:
    """The folder's weights under the half-precision name."""
    (file,) = folder.glob(f"*{suffix}")
    file.rename(file.with_name(file.name.replace(suffix, f".fp16{suffix}")))
    return folder


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_weights_of_the_half_precision_name_are_loaded(tmp_path: Path, part: str) -> None:
    folder = tiny.make_delight(tmp_path)
    plain = getattr(open_delight(folder, torch.float32), part).load().state_dict()
    renamed(folder / part, ".safetensors")
    component = getattr(open_delight(folder, torch.float32), part)
    assert ".fp16." in component.key
    loaded = component.load().state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in plain.items())


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_configuration_that_the_library_cannot_use(tmp_path: Path, part: str) -> None:
    folder = tiny.make_delight(tmp_path)
    file = folder / part / "config.json"
    wrong = {"num_attention_heads": 5} if part == "text_encoder" else {"norm_num_groups": "many"}
    file.write_text(json.dumps({**json.loads(file.read_text()), **wrong}))
    with pytest.raises(BadCheckpoint, match=r"(?s)config\.json cannot be used .*; wanted the published"):
        getattr(open_delight(folder, torch.float32), part).load()


def test_a_vae_with_the_names_of_old_diffusers(tmp_path: Path) -> None:
    """As the published ones are: query, key, value and proj_attn."""
    folder = tiny.make_delight(tmp_path)
    wanted = open_delight(folder, torch.float32).vae.load().state_dict()
    file = folder / "vae" / "diffusion_pytorch_model.safetensors"
    old = {today: name for name, today in diffusers_folders._RENAMED.items()}
    pattern = r"(?<=\.attentions\.0\.)(to_q|to_k|to_v|to_out\.0)(?=\.)"
    state = {re.sub(pattern, lambda found: old[found[1]], name): value for name, value in load_file(file).items()}
    assert "decoder.mid_block.attentions.0.proj_attn.bias" in state and state.keys() != wanted.keys()
    save_file(state, file)
    loaded = open_delight(folder, torch.float32).vae.load().state_dict()
    assert loaded.keys() == wanted.keys() and all(torch.equal(loaded[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("prefix", ["", "text_model."])
def test_a_text_encoder_with_the_names_of_another_transformers(tmp_path: Path, prefix: str) -> None:
    """With and without the prefix, and with the positions that old files hold."""
    folder = tiny.make_delight(tmp_path)
    wanted = open_delight(folder, torch.float32).text_encoder.load()()
    file = folder / "text_encoder" / "model.safetensors"
    state = {prefix + name.removeprefix("text_model."): value for name, value in load_file(file).items()}
    save_file({**state, f"{prefix}embeddings.position_ids": torch.arange(77)[None]}, file)
    assert torch.equal(open_delight(folder, torch.float32).text_encoder.load()(), wanted)


class NoRandomNumbers(TorchDispatchMode):
    """Fails where a tensor with memory is filled with random numbers."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Lets an operation pass if it draws nothing, or has no memory to fill."""
        result = func(*args, **(kwargs or {}))
        if torch.Tag.nondeterministic_seeded in func.tags and not result.is_meta:
            pytest.fail(f"{func} drew {tuple(result.shape)} random numbers")
        return result


def test_no_load_draws_random_numbers(tmp_path: Path) -> None:
    """Neither opening nor loading a component, and none is initialised by torch.nn.init."""
    folders = tiny.make_shape(tmp_path), tiny.make_delight(tmp_path), tiny.make_paint(tmp_path)
    with pytest.raises(pytest.fail.Exception, match=r"normal_.* drew \(4,\)"), NoRandomNumbers():
        torch.nn.init.normal_(torch.empty(4))
    before = torch.random.get_rng_state()
    with NoRandomNumbers():
        shape, delight, paint = (
            opened(folder, torch.float32)
            for opened, folder in zip((open_shape, open_delight, open_paint), folders, strict=True)
        )
        for component in (shape.conditioner, shape.dit, shape.vae, delight.text_encoder, delight.unet, delight.vae,
                          paint.vae, paint.dual, paint.main):  # fmt: skip
            assert component.load()
    assert torch.equal(before, torch.random.get_rng_state())


def test_an_empty_network_is_not_initialised() -> None:
    with NoRandomNumbers(), FillsNothing():
        module = build_empty(lambda: torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Embedding(4, 4)))
    assert all(parameter.is_meta for parameter in module.parameters())


class FillsNothing(TorchDispatchMode):
    """Fails where an operation fills a tensor, with or without memory, with random numbers."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Lets every other operation pass."""
        assert torch.Tag.nondeterministic_seeded not in func.tags, f"{func} was called"
        return func(*args, **(kwargs or {}))
