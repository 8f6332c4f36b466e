"""The stand-alone host on a device that counts bytes: streamed weights give the same result in less memory."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import order_of_peaks
import pytest
import torch
from order_of_peaks import ledger

from lowvram_core.app.torch_host import TorchHost
from lowvram_core.errors import Cancelled, OutOfMemory
from lowvram_core.fitting.budget import need
from lowvram_core.fitting.ladder import fitted
from lowvram_core.host import Component
from lowvram_core.presets import PRESETS, Preset


def core(name: str) -> ModuleType:
    return importlib.import_module(f"lowvram_core.{name}")


@pytest.fixture
def host() -> Iterator[TorchHost]:
    from counted import counted

    with counted() as device:
        yield TorchHost(device, torch.float32)
    assert ledger.current == 0


@pytest.mark.parametrize("stage", order_of_peaks.COMPONENTS)
def test_streamed_equals_resident_and_takes_less(models: Path, host: TorchHost, stage: str) -> None:
    order_of_peaks.compare(stage, order_of_peaks.stages(core, models)[stage], host)


@pytest.mark.parametrize("residency", ["free", "stream"])
@pytest.mark.parametrize("error", [ZeroDivisionError(), Cancelled("x"), KeyboardInterrupt()], ids=repr)
def test_nothing_stays_after_an_error_within_a_borrow(
    models: Path, host: TorchHost, residency: str, error: BaseException
) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(type(error)), order_of_peaks.at_report(host, 2, fail):
        order_of_peaks.stages(core, models)["shape"](host, residency)
    error.__traceback__ = None  # its frames hold the latents


@pytest.mark.parametrize("streamed", [False, True])
def test_a_device_that_fills_up_within_a_borrow(models: Path, host: TorchHost, streamed: bool) -> None:
    with pytest.raises(OutOfMemory, match="is full while the paint VAE is on it"):
        order_of_peaks.fill_up(host, core, models, streamed=streamed)


def test_a_stage_that_no_table_knows_streams(host: TorchHost) -> None:
    """A network of 3 GB on a device of 1 GiB: the stage only says what it needs."""
    width, layers = 5000, 30

    def load() -> torch.nn.Module:
        with torch.device("meta"):
            network = torch.nn.Sequential(*(torch.nn.Linear(width, width, bias=False) for _ in range(layers)))
        for layer in network:
            layer.weight = torch.nn.Parameter(torch.zeros(1).expand(width, width), requires_grad=False)
        return network

    layer_bytes = 4 * width**2
    component = Component("new", "new network", layers * layer_bytes, load, layer_bytes)

    def run(_: Preset) -> torch.Size:
        with torch.inference_mode(), host.phase("new"), host.borrow(component) as network:
            return network(torch.zeros(1, width, device=host.device)).shape

    with ledger.set(cap=2**30, limit=width):
        assert fitted("new", PRESETS["8 GB Full"], host, lambda _: [need(component, host, 1.0)], run) == (1, width)
        assert layer_bytes < ledger.peak < 2**30
    assert component.weight_bytes == 3 * 10**9
    assert host.notes == ["new: little memory: weights streamed"]
