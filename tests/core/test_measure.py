"""How a device reports its memory, and how it says that it is full."""

from __future__ import annotations

import types

import pytest
import torch
from accelerate.utils.memory import should_reduce_batch_size
from order_of_peaks import ledger

from lowvram_core.app.torch_host import TorchHost
from lowvram_core.errors import OutOfMemory
from lowvram_core.host import Component
from lowvram_core.lending import device
from lowvram_core.lending.device import free_bytes, full_device_is_named, is_full, measured, memory_of
from lowvram_core.report import PhaseRecord

GIB = 2**30
MIB = 2**20


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.cuda as on a card of 8 GiB with 6 free. This process may use half of the card. torch's own checks stay."""
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: None)
    monkeypatch.setattr(torch.cuda.memory, "_lazy_init", lambda: None)
    monkeypatch.setattr(torch._C, "_cuda_getMemoryFraction", lambda index: 0.5, raising=False)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (6 * GIB, 8 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 1 * GIB)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: GIB // 2)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize("name", ["cuda", "cuda:0"])
def test_what_is_free_of_a_card(name: str) -> None:
    """The process may use 4 GiB. torch has reserved one of them already and uses half of it."""
    assert free_bytes(torch.device(name)) == int(3.5 * GIB)


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize(("system", "reserved_mib"), [("Linux", 400), ("Windows", 600)])
def test_some_of_a_card_stays_free(monkeypatch: pytest.MonkeyPatch, system: str, reserved_mib: int) -> None:
    monkeypatch.setattr("platform.system", lambda: system)
    host = TorchHost(torch.device("cuda"), torch.float16)
    assert host.make_room(0) == int(3.5 * GIB) - reserved_mib * 2**20


def test_a_device_that_torch_has_no_module_for_tells_nothing() -> None:
    assert memory_of(torch.device("xla")) is None and free_bytes(torch.device("xla")) is None


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9.0 GB)"), True),
        (torch.OutOfMemoryError("Allocation on device 0 would exceed allowed memory. (out of memory)"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (RuntimeError(ValueError("no text")), False),
        (MemoryError("out of memory"), False),
    ],
)
def test_how_devices_say_that_they_are_full(error: BaseException, full: bool) -> None:
    assert is_full(error) == full
    with pytest.raises(OutOfMemory if full else type(error)), full_device_is_named(torch.device("cpu"), "decode"):
        raise error


@pytest.mark.parametrize("known", device._ALSO_FULL)
def test_accelerate_does_not_know_all_of_them(known: str) -> None:
    """When this fails, the message can go from our list."""
    assert not should_reduce_batch_size(RuntimeError(f"{known}, whatever follows"))
    assert not should_reduce_batch_size(RuntimeError("Allocation on device 0 would exceed allowed memory. (out of"))


def test_full_ram_is_not_blamed_on_the_device() -> None:
    with (
        pytest.raises(OutOfMemory, match=r"^load: the RAM is full"),
        full_device_is_named(torch.device("cuda"), "load"),
    ):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you")


def test_what_is_kept_makes_room_for_what_comes() -> None:
    """Two components that fit one at a time, on a host that keeps them while they fit."""
    from counted import counted

    def component(key: str) -> Component:
        return Component(key, key, 4000, lambda: torch.nn.Linear(1000, 1, bias=False))

    with counted() as device:
        host = TorchHost(device, torch.float32, "keep")
        for cap, left in ((7000, {"b"}), (9000, {"a", "b"})):
            with ledger.set(cap=cap):
                host.make_room(5000)
                for key in ("a", "b"):
                    with host.borrow(component(key)):
                        torch.empty(200, device=device)
                assert set(host._kept) == left
            host.release()
        assert ledger.current == 0


@pytest.mark.parametrize("name", ["cuda:0", "mps"])
def test_a_phase_can_be_the_first_to_touch_a_device(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """torch.cuda counts nothing before torch.cuda.init(); a module without `init` needs none."""
    said: list[str] = []

    def reset(device: torch.device) -> None:
        if name == "cuda:0" and "init" not in said:
            raise RuntimeError("Invalid device argument 0: did you call init?")
        said.append("reset")

    counts = dict.fromkeys(("memory_allocated", "memory_reserved", "max_memory_allocated"), lambda device: MIB)
    module = types.SimpleNamespace(reset_peak_memory_stats=reset, synchronize=lambda device: None, **counts)
    if name == "cuda:0":
        module.init = lambda: said.append("init")
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)
    records: list[PhaseRecord] = []
    with measured("background", torch.device(name), records):
        said.append("body")
    assert said == [*(["init"] if name == "cuda:0" else []), "reset", "body"]
    assert [(record.name, record.peak_bytes) for record in records] == [("background", MIB)]
