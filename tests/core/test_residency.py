"""The stand-alone host on a device that counts its bytes: streamed gives what resident gives, in less memory."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import order_of_peaks
import pytest
import tiny
import torch
from order_of_peaks import ledger

from lowvram_core.app.torch_host import TorchHost
from lowvram_core.errors import Cancelled, OutOfMemory


def core(name: str) -> ModuleType:
    return importlib.import_module(f"lowvram_core.{name}")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_all(tmp_path_factory.mktemp("models"))


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
