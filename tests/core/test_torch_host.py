"""The stand-alone host: every component is given back, also after errors."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch import nn

from lowvram_core.app.torch_host import TorchHost, pick_device
from lowvram_core.errors import BadInput, Cancelled, OutOfMemory
from lowvram_core.host import Component
from lowvram_core.presets import PRESETS
from lowvram_core.report import PHASES, PhaseRecord, format_table, merge


def component(loads: list[nn.Module]) -> Component:
    def load() -> nn.Module:
        loads.append(nn.Linear(2, 2))
        return loads[-1]

    return Component("linear", "linear", 24, load)


def cpu(**settings: object) -> TorchHost:
    return TorchHost(torch.device("cpu"), **settings)  # type: ignore[arg-type]


def is_freed(module: nn.Module) -> bool:
    return all(parameter.is_meta for parameter in module.parameters())


def test_given_back_on_success_and_error() -> None:
    host, loads = cpu(), []
    with host.borrow(component(loads)) as module:
        assert not is_freed(module)
    assert is_freed(loads[0])
    with pytest.raises(ZeroDivisionError), host.borrow(component(loads)):
        _ = 1 / 0
    assert is_freed(loads[1])
    with pytest.raises(KeyboardInterrupt), host.borrow(component(loads)):
        raise KeyboardInterrupt
    assert is_freed(loads[2])


def test_keep_loads_once_until_released_and_not_after_an_error() -> None:
    host, loads = cpu(residency="keep"), []
    for _ in range(3):
        with host.borrow(component(loads)):
            pass
    assert len(loads) == 1 and not is_freed(loads[0])
    with pytest.raises(ZeroDivisionError), host.borrow(component(loads)):
        _ = 1 / 0
    assert is_freed(loads[0])
    with host.borrow(component(loads)):
        pass
    host.release()
    assert len(loads) == 2 and is_freed(loads[1])


def test_phases_are_timed_and_progress_is_passed_on() -> None:
    heard: list[tuple[str, int, int]] = []
    host = cpu(on_progress=lambda *report: heard.append(report))
    with host.phase("decode"):
        host.progress(3, 7)
    (record,) = host.records
    assert (record.name, record.allocated_bytes, heard) == ("decode", None, [("decode", 3, 7)])
    assert record.seconds >= 0 and record.ram_bytes > 2**20


def test_cancel() -> None:
    host = cpu(is_cancelled=lambda: True)
    with pytest.raises(Cancelled, match="bake"), host.phase("bake"):
        host.progress(0, 1)
    assert host.records == []


@pytest.mark.parametrize("phase", ["decode", "x"])
def test_a_full_device_is_named_and_its_tensors_are_freed(phase: str) -> None:
    host, loads, tensors = cpu(), [], []

    def allocate() -> None:
        activations = torch.zeros(100)
        tensors.append(weakref.ref(activations))
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ...")

    with pytest.raises(OutOfMemory) as caught, host.phase(phase), host.borrow(component(loads)):
        allocate()
    assert str(caught.value).startswith(f"{phase}: cpu is full while the linear is on it (CUDA out of memory); wanted")
    assert tensors[0]() is None, "the error holds the tensors"
    assert is_freed(loads[0]) and host.records == []
    with pytest.raises(OutOfMemory, match=f"^{phase}: cpu is full \\("), host.phase(phase):
        allocate()


def test_keep_survives_a_collection_but_not_a_release() -> None:
    host, loads = cpu(residency="keep"), []
    with host.borrow(component(loads)):
        pass
    host.collect()
    assert not is_freed(loads[0])
    host.release()
    assert is_freed(loads[0])


def test_a_host_for_a_preset_keeps_weights_where_it_says() -> None:
    host = TorchHost.for_preset(PRESETS["2 GB"], torch.device("cpu"), torch.float16)
    assert (host.residency, host.device.type, host.dtype) == ("stream", "cpu", torch.float16)
    assert TorchHost.for_preset(PRESETS["4 GB"]).residency == "free"


def test_a_cancel_names_no_phase_that_is_over() -> None:
    host = cpu()
    with host.phase("bake"):
        pass
    host.is_cancelled = lambda: True
    with pytest.raises(Cancelled, match=r"^run: cancelled"):
        host.progress(0, 1)


def test_precision() -> None:
    assert cpu().dtype == torch.float32
    assert cpu(precision=torch.float16).dtype == torch.float16
    assert TorchHost(torch.device("meta")).dtype == torch.float16


@pytest.mark.parametrize("name", ["cuda:99", "nonsense", "cuda:x", "meta", "mps", "xla"])
def test_unknown_devices(name: str) -> None:
    with pytest.raises(BadInput, match=r"device: .*wanted cpu, cuda"):
        pick_device(name)


def test_table_has_every_phase_once_in_order() -> None:
    records = [PhaseRecord(name, 1.0, 2**30, 2**31, 2**32, 2**30) for name in reversed(PHASES)] * 2
    assert [record.name for record in merge(records)] == list(PHASES)
    table = format_table(records).splitlines()
    assert len(table) == len(PHASES) + 2
    assert table[1].split() == ["recentre", "2.00", "6.7%", "1.00", "2.00", "4.00", "1.00"]
    assert table[-1].split() == ["total", "30.00", "100.0%", "4.00", "1.00"]


def test_a_download_comes_first_in_the_table() -> None:
    records = [PhaseRecord(name, 1.0, None, None, None, 1) for name in ("odd", "save", "download")]
    assert [record.name for record in merge(records)] == ["download", "save", "odd"]


def test_table_of_the_cpu_has_no_device_figures() -> None:
    lines = format_table([PhaseRecord("bake", 0.5, None, None, None, 2**30)]).splitlines()
    assert [line.split() for line in lines] == [
        ["phase", "seconds", "share", "RAM", "GiB"], ["bake", "0.50", "100.0%", "1.00"],
        ["total", "0.50", "100.0%", "1.00"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "capability", "trusted"),
    [
        ("NVIDIA GeForce RTX 2070", (7, 5), True),
        ("NVIDIA GeForce RTX 3060", (8, 6), True),
        ("NVIDIA GeForce GTX 1660 Ti", (7, 5), False),
        ("NVIDIA T1000 8GB", (7, 5), False),
        ("NVIDIA T4", (7, 5), True),
        ("NVIDIA GeForce GTX 980", (5, 2), False),
    ],
)
def test_float16_is_for_cards_that_can(
    name: str, capability: tuple[int, int], trusted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    host = TorchHost(torch.device("cuda"))
    assert host.dtype == (torch.float16 if trusted else torch.float32)
    assert TorchHost(torch.device("cuda"), torch.float16).dtype == torch.float16, "a choice is a choice"
