"""Runs in ComfyUI's own Python with its real model management: `python streaming.py <ComfyUI> <models> <scene>`.

The card is a device that counts its bytes. The results are printed as JSON. ComfyUI's server is not started. The parts
of dynamic VRAM that need a GPU's driver do not run; the flag `dynamic` sets what ComfyUI sets when they do.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
PACK = "hunyuan3d_lowvram"
COMFYUI, MODELS = (Path(argument).resolve() for argument in sys.argv[1:3])
SCENE, *FLAGS = sys.argv[3:]
# ComfyUI has modules named server and tests, so this folder is removed and the helpers' folders come last
sys.path[:] = [str(COMFYUI), *sys.path[1:], str(TESTS), str(TESTS / "core"), str(TESTS / "devices")]
sys.argv[1:] = ["--cpu", "--enable-dynamic-vram" if "dynamic" in FLAGS else "--disable-dynamic-vram"]

import torch  # noqa: E402  (needs the path above)
import torchvision_hook  # noqa: E402

torchvision_hook.install()
torch.set_num_threads(1)

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import comfy.memory_management  # noqa: E402
import comfy.model_management as mm  # noqa: E402
import comfy.model_patcher  # noqa: E402
import order_of_peaks  # noqa: E402
from caching import CachingAllocator  # noqa: E402
from counted import Stream, counted  # noqa: E402
from ledger import ledger  # noqa: E402


def import_pack() -> None:
    """Imports the pack under its own module name, as ComfyUI does."""
    spec = importlib.util.spec_from_file_location(PACK, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    assert spec is not None and spec.loader is not None
    sys.modules[PACK] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[PACK])


def core(name: str) -> ModuleType:
    """Imports a module of the pack's core."""
    return importlib.import_module(f"{PACK}.lowvram_core.{name}")


@contextmanager
def card() -> Iterator[Any]:
    """Yields our host on the counting device, which ComfyUI takes for its card."""
    with counted() as device:
        mm.get_torch_device = lambda: device
        mm.get_total_memory = lambda *_, **__: 2**40
        have(2**40)
        mm.pin_memory = refuse_to_pin
        mm.soft_empty_cache = lambda force=False: torch.get_device_module(device).empty_cache()
        mm.should_use_fp16 = lambda *_, **__: False
        if "dynamic" in FLAGS:
            comfy.memory_management.aimdo_enabled = True
            comfy.model_patcher.CoreModelPatcher = comfy.model_patcher.ModelPatcherDynamic
        yield importlib.import_module(f"{PACK}.nodes._host").ComfyHost()
        assert Stream.on_the_way == 0


def refuse_to_pin(tensor: torch.Tensor) -> bool:
    """Fails if ComfyUI pins memory. It must not pin the pages of a mapped file."""
    raise AssertionError(f"{tensor.nbytes} bytes were to be pinned")


def have(free_bytes: int) -> None:
    """Makes ComfyUI see this much free memory on the card."""
    mm.get_free_memory = lambda dev=None, torch_free_too=False: (free_bytes, 0) if torch_free_too else free_bytes


def left() -> list[int]:
    """Returns the bytes on the card and the number of models in ComfyUI's list."""
    return [ledger.current, len(mm.current_loaded_models)]


def compare(host: Any) -> dict[str, Any]:
    """Runs every stage resident and streamed."""
    stages = order_of_peaks.stages(core, MODELS)
    return {name: {**order_of_peaks.compare(name, run, host), "left": left()} for name, run in stages.items()}


def traffic(host: Any) -> dict[str, Any]:
    """Bytes of weights copied to the card: with both halves of guidance in one batch, and one after the other."""
    prefetch, brought = core("lending.prefetch"), list[int]()
    copy_to = prefetch.Load.copy_to

    def counting(load: Any, flat: torch.Tensor) -> Any:
        brought.append(load.nbytes)
        return copy_to(load, flat)

    prefetch.Load.copy_to = counting
    seen: dict[str, Any] = {}
    for together in (True, False):
        for name, run in order_of_peaks.stages(core, MODELS, cfg_together=together).items():
            brought.clear()
            run(host, "stream")
            seen.setdefault(name, []).append(sum(brought))
    return seen


def published(host: Any) -> dict[str, Any]:
    """Peak MiB on the card at the published sizes and full quality, resident and streamed: [allocated, reserved]."""
    host._dtype, own_phase = torch.float16, host.phase
    surface = core("geometry.surface")  # random weights give no surface
    surface.extract, surface.extract_from_bricks = lambda logits, octree: ball(), lambda bricks: ball()

    @contextmanager
    def phase(name: str) -> Iterator[None]:
        ledger.limit = None if name in ("normals", "positions") else 1 << 14
        with own_phase(name):
            yield

    host.phase = phase
    settings = {"octree": 31, "points_per_chunk": 8000, "views": "standard", "render_px": 2048, "cfg_together": False,
                "shape_steps": 3, "delight_steps": 2, "paint_steps": 2}  # fmt: skip
    seen: dict[str, Any] = {}
    for residency in ("free", "stream"):
        peaks = []
        for run in order_of_peaks.stages(core, MODELS, **settings).values():
            with ledger.set(cache=CachingAllocator()):
                run(host, residency)
                peaks.append([ledger.peak / 2**20, ledger.reserved_peak / 2**20])
            assert left() == [0, 0]
        seen[residency] = [max(kind) for kind in zip(*peaks, strict=True)]
    return seen


def ball() -> Any:
    """A mesh of 1,280 faces."""
    import trimesh

    solid = trimesh.creation.icosphere(subdivisions=3)
    return core("types").Mesh(torch.from_numpy(solid.vertices.copy()).float(), torch.from_numpy(solid.faces.copy()))


def stop(host: Any) -> dict[str, Any]:
    """Returns what is left after an error, an interrupt and a full card, resident and streamed."""
    shape = order_of_peaks.stages(core, MODELS)["shape"]

    def fail() -> None:
        raise ZeroDivisionError

    def run(act: Callable[[], Any], residency: str) -> None:
        with order_of_peaks.at_report(host, 2, act):
            shape(host, residency)

    def fill_up(residency: str) -> None:
        order_of_peaks.fill_up(host, core, MODELS, streamed=residency == "stream")

    seen = {}
    for residency in ("free", "stream"):
        seen[f"error, {residency}"] = [ended(run, fail, residency), *left()]
        seen[f"interrupt, {residency}"] = [ended(run, mm.interrupt_current_processing, residency), *left()]
        seen[f"full card, {residency}"] = [ended(fill_up, residency), *left()]
    return seen


def ended(run: Callable[..., Any], *given: Any) -> str:
    """Returns only the name of the error that a run raised. The frames of the error itself hold tensors."""
    try:
        run(*given)
    except BaseException as error:
        return type(error).__name__
    return ""


def threshold(host: Any) -> dict[str, Any]:
    """Returns which components stream if the largest one just fits as a whole, and if one byte is missing."""
    shape, preset = core("stages.shape"), core("presets").PRESETS["8 GB Full"]
    preset = preset.with_(**order_of_peaks.SETTINGS, cfg_together=False)  # the fallback before streaming
    model = core("networks.shape").open_shape(MODELS / "hunyuan3d-dit-v2-0", host.dtype)
    needs = {need.label: need.resident_bytes for need in shape._needs(model, host, preset)}
    run, streamed, seen = order_of_peaks.stages(core, MODELS, cfg_together=False)["shape"], watched(host), []
    neighbour = other_packs_model(host)
    for missing in (0, 1):
        have(max(needs.values()) - missing + int(mm.extra_reserved_memory()))
        streamed.clear()
        run(host, "free")
        seen.append([*streamed, "another pack's model stays" if neighbour.loaded_size() else "it left"])
    mm.free_memory(2**40, host.device)
    return {"streamed": seen, "needs": needs, "comfyui": int(mm.minimum_inference_memory()), "left": left()}


def other_packs_model(host: Any) -> Any:
    """Loads another pack's model to the card before ours. ComfyUI may move it away."""
    network = torch.nn.Linear(64, 64).requires_grad_(False)
    patcher = comfy.model_patcher.ModelPatcher(network, host.device, torch.device("cpu"))
    patcher.pin_weight_to_device = lambda key: None  # there is no driver here to pin it
    mm.load_models_gpu([patcher])
    return patcher


def watched(host: Any) -> list[str]:
    """Returns a list that collects the labels of the components that stream. Checks what ComfyUI knows of each."""
    lend, labels = host.borrow, list[str]()

    @contextmanager
    def borrow(component: Any) -> Iterator[Any]:
        before = len(mm.current_loaded_models)
        with lend(component) as module:
            if host.streams(component):
                labels.append(component.label)
                assert len(mm.current_loaded_models) == before, "nothing that ComfyUI could unload"
            else:
                assert type(mm.current_loaded_models[0].model) is comfy.model_patcher.ModelPatcher
                assert mm.current_loaded_models[0].model.model.held is module
            yield module

    host.borrow = borrow
    return labels


def main() -> None:
    """Runs one scene."""
    logging.basicConfig(level=logging.WARNING)
    import_pack()
    scenes = {
        "compare": compare, "traffic": traffic, "published": published, "stop": stop, "threshold": threshold,
    }  # fmt: skip
    with card() as host:
        seen = scenes[SCENE](host)
    sys.stdout.write("\n" + json.dumps(seen) + "\n")


main()
