"""Geometry computes on the CPU where the device has no float64, as Apple's GPUs and DirectML."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import meshes
import pytest
import tiny
import torch
from counted import CountedTensor, counted
from hosts import RecordingHost
from torch import Tensor
from torch.utils import _pytree as tree
from torch.utils._python_dispatch import TorchDispatchMode

from lowvram_core.files.store import ModelStore
from lowvram_core.lending import geometry
from lowvram_core.lending.geometry import geometry_device
from lowvram_core.networks.paint import open_paint
from lowvram_core.stages import bake, delight, inpaint, paint, shape
from lowvram_core.types import Atlas, Cutout, Mesh

PRESET = meshes.small_preset(
    octree=16, points_per_chunk=3000, shape_steps=2, delight_steps=1, paint_steps=1, render_px=64, texture_px=64,
    views="minimal",
)  # fmt: skip
CPU = torch.device("cpu")


class WithoutFloat64(TorchDispatchMode):
    """Refuses what the device would have to hold or compute in float64, as torch does on Apple's GPUs."""

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = op(*args, **(kwargs or {}))
        for tensor in tree.tree_leaves((args, kwargs, result)):
            if isinstance(tensor, CountedTensor) and tensor.dtype == torch.float64:
                raise TypeError(f"Cannot convert a tensor to float64: the device has none ({op})")
        return result


def ball() -> Mesh:
    mesh = meshes.blob(2)
    return mesh.with_(uvs=(mesh.vertices[:, :2] * 0.4 + 0.5).clamp(0, 1))


def disc() -> Cutout:
    y, x = torch.meshgrid(torch.arange(96), torch.arange(96), indexing="ij")
    return Cutout(torch.full((96, 96, 3), 0.6), ((x - 48) ** 2 + (y - 48) ** 2 < 30**2).float())


def seen_in_part() -> Atlas:
    seen = torch.zeros(64, 64, dtype=torch.bool)
    seen[:, :32] = True
    return Atlas(torch.full((64, 64, 3), 0.5), seen)


def baked(host: Any, **changes: str) -> tuple[Tensor, ...]:
    preset = PRESET.with_(**changes)
    atlas = bake.bake(ball(), meshes.picture_views(ball(), PRESET.cameras, 64), preset, host)
    return atlas.texture, atlas.seen


def filled(host: Any) -> tuple[Tensor, ...]:
    texture = inpaint.inpaint(ball(), seen_in_part(), host).texture
    assert texture is not None
    return (texture,)


GEOMETRY: dict[str, Callable[[Any], tuple[Tensor, ...]]] = {
    "maps": lambda host: paint._geometry(ball(), PRESET.cameras, PRESET.render_px, host),
    "bake": baked,
    "bake as upstream": lambda host: baked(host, bake="upstream"),
    "inpaint": filled,
}
NEEDS_FLOAT64 = ("maps", "bake as upstream")
NETWORKS: dict[str, Callable[[Any, ModelStore], Any]] = {
    "shape": lambda host, store: shape.generate_shape(disc(), PRESET, host, store),
    "delight": lambda host, store: delight.delight(disc(), PRESET, host, store),
    "paint": lambda host, store: paint.paint_views(ball(), disc(), PRESET, host, store),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    return ModelStore([tiny.make_all(tmp_path_factory.mktemp("models"))], offline=True)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """The counting device, taken for one without float64."""
    with counted() as found:
        monkeypatch.setattr(geometry, "WITHOUT_FLOAT64", (*geometry.WITHOUT_FLOAT64, found.type))
        yield found


@pytest.mark.parametrize("stage", GEOMETRY)
def test_geometry_runs_on_the_cpu(stage: str) -> None:
    """There is no Apple GPU here: a tensor that is sent to it is an error."""
    there = GEOMETRY[stage](RecordingHost(device=torch.device("mps")))
    here = GEOMETRY[stage](RecordingHost())
    assert all(torch.equal(one, other) for one, other in zip(there, here, strict=True))


@pytest.mark.parametrize("stage", GEOMETRY)
def test_no_float64_reaches_the_device(stage: str, device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    host = RecordingHost(device=device)
    with WithoutFloat64():
        GEOMETRY[stage](host)
        if stage not in NEEDS_FLOAT64:
            return
        monkeypatch.undo()  # taken for a GPU like any other
        with pytest.raises(TypeError, match="float64"):
            GEOMETRY[stage](host)


@pytest.mark.parametrize("stage", NETWORKS)
def test_networks_need_no_float64(stage: str, device: torch.device, store: ModelStore) -> None:
    with WithoutFloat64():
        NETWORKS[stage](RecordingHost(device=device), store)


def test_the_budget_plans_no_device_memory_for_it(
    device: torch.device, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, model = RecordingHost(device=device), open_paint(store.folder("paint"), torch.float32)

    def planned() -> list[str]:
        needs = [bake._needs(host, PRESET), inpaint._needs(ball(), seen_in_part(), host, PRESET)]
        return [need.label for need in sum(needs, paint._needs(model, host, PRESET))]

    without = planned()
    monkeypatch.undo()  # taken for a GPU like any other
    assert sorted({*planned()} - {*without}) == ["bake", "raster of the texture", "renderer of the maps"]
    assert len(without) == len(planned()) - 3


def test_directml_is_known_by_the_name_that_torch_gives_it() -> None:
    """Not a torch.device: the counting device renames this type in the whole process."""
    assert geometry_device(SimpleNamespace(type="privateuseone")) == CPU  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["cpu", "cuda", "cuda:1"])
def test_other_devices_compute_their_own(name: str) -> None:
    assert geometry_device(torch.device(name)) == torch.device(name)


@pytest.mark.parametrize("has_float64", [True, False])
def test_intels_gpus_are_asked(has_float64: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.xpu, "get_device_properties", lambda device: SimpleNamespace(has_fp64=has_float64))
    gpu = torch.device("xpu:0")
    assert geometry_device(gpu) == (gpu if has_float64 else CPU)
