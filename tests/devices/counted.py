"""A torch device that counts its bytes, built on torch's support for backends written in Python.

Its tensors lie in RAM, or have no values. An operator that mixes them with CPU tensors fails, as on a GPU. An
allocation beyond `ledger.cap` raises torch.OutOfMemoryError. With `ledger.limit` set, larger tensors have shapes and
bytes but no values, so networks of full size run in seconds; a copy of such a tensor to the CPU is all zeros. With
`ledger.cache` set, the device also computes what a GPU's allocator would reserve (caching.py).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from ledger import ledger
from torch import Tensor

NAME = "counted"


class CountedTensor(Tensor):
    """A tensor of the device. `raw` is a CPU tensor, or a meta tensor if there are no values."""

    raw: Tensor

    def __repr__(self, **_: Any) -> str:
        return f"{NAME}({self.raw!r})"

    @staticmethod
    def __new__(cls, raw: Tensor) -> CountedTensor:
        ledger.enter(raw.untyped_storage(), _active)
        wrapper = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, raw.size(), strides=raw.stride(), storage_offset=raw.storage_offset(), dtype=raw.dtype,
            device=f"{NAME}:0", requires_grad=False,
        )  # fmt: skip
        wrapper.raw = raw
        return wrapper  # type: ignore[no-any-return]

    @classmethod
    def __torch_dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # Under inference_mode composite operators arrive here, too. The device has only the ones they consist of.
        if _is_composite(op):
            result = op.decompose(*args, **(kwargs or {}))
            if result is not NotImplemented:
                return result
        return _run(op, *args, **(kwargs or {}))


_ACROSS = ("_to_copy", "copy_")
"""Operators that may take tensors of both devices."""


@functools.cache
def _is_composite(op: Any) -> bool:
    """Whether torch runs the operator as a sequence of others."""
    key = torch._C.DispatchKey.CompositeImplicitAutograd
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(op.name(), key))


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    """The tensors among an operator's arguments or results. Much faster than torch.utils._pytree."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found += _tensors(value)
    return found


def _mapped(function: Callable[[Any], Any], value: Any) -> Any:
    """The value with the function applied to each element of its lists and tuples, nested ones included."""
    if type(value) is tuple or type(value) is list:
        return type(value)([_mapped(function, one) for one in value])
    return function(value)


def _mapped_kwargs(function: Callable[[Any], Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    return {name: _mapped(function, value) for name, value in kwargs.items()}


def _run(op: Any, *args: Any, **kwargs: Any) -> Any:
    name = op.overloadpacket.__name__
    tensors = _tensors((*args, *kwargs.values()))
    if name == "_has_compatible_shallow_copy_type":  # Module.to asks; False makes it create new tensors for weights
        return False
    if name not in _ACROSS:
        _check_device(name, tensors)
    device = kwargs.get("device")
    to_here = is_counted(device) if device is not None else any(isinstance(one, CountedTensor) for one in tensors)
    if device is not None:
        kwargs = {**kwargs, "device": "meta" if torch.device(device).type == "meta" else "cpu"}
    raws = [one.raw if isinstance(one, CountedTensor) else one for one in tensors]
    if _active is not None and name == "copy_":
        _active.queue(*args[:2])
        return args[0]
    if name == "_local_scalar_dense" and raws[0].is_meta:
        return True if raws[0].dtype == torch.bool else 1
    if not to_here:
        return _read_back(op, args, kwargs)
    result = _computed(op, name, args, kwargs, tensors, raws)
    ledger.use_workspace(name, [tensor.nbytes for tensor in _tensors([*tensors, result])])
    return result


def _computed(op: Any, name: str, args: Any, kwargs: Any, tensors: list[Tensor], raws: list[Tensor]) -> Any:
    if name == "copy_" and raws[1].is_meta and not isinstance(tensors[0], CountedTensor):
        return args[0].zero_()  # as `_read_back`
    if any(raw.is_meta for raw in raws) or (not raws and _is_large(op, args, kwargs)):
        return _wrapped(_on_meta(op, args, kwargs), tensors)
    unwrapped_args, unwrapped_kwargs = _mapped(_raw, args), _mapped_kwargs(_raw, kwargs)
    if name == "copy_" and not isinstance(tensors[0], CountedTensor):
        return op(*unwrapped_args, **unwrapped_kwargs)
    return _wrapped(op(*unwrapped_args, **unwrapped_kwargs), tensors)


def _check_device(name: str, tensors: list[Tensor]) -> None:
    for tensor in tensors:
        if not isinstance(tensor, CountedTensor) and tensor.dim() > 0:
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but found at least two devices, {NAME}:0 and "
                f"{tensor.device}! ({name})"
            )


def _raw(value: Any) -> Any:
    return value.raw if isinstance(value, CountedTensor) else value


def _read_back(op: Any, args: Any, kwargs: Any) -> Any:
    source = _raw(args[0])
    if source.is_meta and kwargs.get("device") != "meta":
        return torch.zeros(source.shape, dtype=kwargs.get("dtype") or source.dtype)
    return op(source, *args[1:], **kwargs)


def _is_large(op: Any, args: Any, kwargs: Any) -> bool:
    if ledger.limit is None:
        return False
    return any(leaf.numel() > ledger.limit for leaf in _tensors([_on_meta(op, args, kwargs)]))


@dataclass(frozen=True)
class _Layout:
    """What the device needs of a tensor without values."""

    shape: torch.Size
    strides: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, tensor: Tensor) -> _Layout:
        return cls(tensor.shape, tensor.stride(), tensor.dtype)

    def empty(self) -> Tensor:
        return torch.empty_strided(self.shape, self.strides, dtype=self.dtype, device="meta")


_known: dict[Any, Any] = {}
"""Results of operators on the meta device, as layouts, by operator and arguments. Networks repeat their layers, and the
meta device computes each layout in slow Python code."""


def _key(value: Any) -> Any:
    """A key that is equal for two arguments if the meta device treats them alike. 1, 1.0 and True differ."""
    if isinstance(value, (list, tuple)):
        return tuple(_key(one) for one in value)
    if isinstance(value, Tensor):
        return _Layout.of(value), value.storage_offset()
    return type(value), value


def _on_meta(op: Any, args: Any, kwargs: Any) -> Any:
    """The operator's result without values."""
    key = None
    if not (op._schema.is_mutable or op.is_view):
        key = op, _key(args), tuple((name, _key(value)) for name, value in kwargs.items())
        if key in _known:
            return _mapped(lambda one: one.empty() if isinstance(one, _Layout) else one, _known[key])

    def moved(value: Any) -> Any:
        raw = _raw(value)
        return raw.to("meta") if isinstance(raw, Tensor) and not raw.is_meta else raw

    meta_args, meta_kwargs = _mapped(moved, args), _mapped_kwargs(moved, kwargs)
    if "device" in meta_kwargs:
        meta_kwargs["device"] = "meta"
    result = op(*meta_args, **meta_kwargs)
    if key is not None and all(_is_fresh(tensor, meta_args) for tensor in _tensors([result])):
        _known[key] = _mapped(lambda one: _Layout.of(one) if isinstance(one, Tensor) else one, result)
    return result


def _is_fresh(result: Tensor, args: Any) -> bool:
    """Whether a result fills a storage of its own."""
    storage = result.untyped_storage()
    shared = any(storage._cdata == one.untyped_storage()._cdata for one in _tensors(args))
    return not shared and storage.nbytes() == _Layout.of(result).empty().untyped_storage().nbytes()


def _wrapped(result: Any, tensors: list[Tensor]) -> Any:
    known = {id(one.raw): one for one in tensors if isinstance(one, CountedTensor)}

    def wrap(raw: Any) -> Any:
        if not isinstance(raw, Tensor):
            return raw
        if id(raw) in known:
            return known[id(raw)]
        if ledger.limit is not None and not raw.is_meta and raw.numel() > ledger.limit:
            raw = torch.empty_strided(raw.shape, raw.stride(), dtype=raw.dtype, device="meta")
        return CountedTensor(raw)

    return _mapped(wrap, result)


def is_counted(device: Any) -> bool:
    """Whether a device, or a device's name, is the counting device."""
    return device is not None and torch.device(device).type == NAME


class _Backend(ModuleType):
    """The functions of a device module, such as torch.cuda, that torch and lowvram_core call."""

    def is_available(self) -> bool:
        return True

    def is_initialized(self) -> bool:
        return True

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        """Does nothing: random numbers come from the CPU."""

    def get_rng_state(self, device: Any = None) -> Tensor:
        return torch.empty(0, dtype=torch.uint8)

    def set_rng_state(self, state: Tensor, device: Any = None) -> None:
        """Does nothing: random numbers come from the CPU."""

    def synchronize(self, device: Any = None) -> None:
        """Does nothing: operators finish before they return."""

    def empty_cache(self) -> None:
        if ledger.cache is not None:
            ledger.cache.empty_cache()

    def memory_allocated(self, device: Any = None) -> int:
        return ledger.current

    def memory_reserved(self, device: Any = None) -> int:
        return ledger.reserved

    def max_memory_allocated(self, device: Any = None) -> int:
        return ledger.peak

    def max_memory_reserved(self, device: Any = None) -> int:
        return ledger.reserved_peak

    def get_device_name(self, device: Any = None) -> str:
        return NAME

    def set_per_process_memory_fraction(self, fraction: float, device: Any = None) -> None:
        ledger.share = fraction

    def get_per_process_memory_fraction(self, device: Any = None) -> float:
        return ledger.share

    def reset_peak_memory_stats(self, device: Any = None) -> None:
        ledger.reset_peak()

    def current_stream(self, device: Any = None) -> _Main:
        return _main

    @contextmanager
    def stream(self, side: Stream) -> Iterator[None]:
        global _active
        before, _active = _active, side
        try:
            yield
        finally:
            _active = before

    def Stream(self, device: Any = None) -> Stream:
        return Stream()

    def mem_get_info(self, device: Any = None) -> tuple[int, int]:
        total = ledger.cap if ledger.cap is not None else 2**50
        return total - ledger.reserved, total


@dataclass
class Event:
    """A moment of a stream: a number of allocations on the main stream, a number of queued copies on another."""

    stream: Stream | None
    moment: int

    def synchronize(self) -> None:
        """Waits for the moment. The main stream's operators have run already."""
        if self.stream is not None:
            self.stream.run(self.moment)


class _Main:
    """The main stream. Its operators run immediately."""

    def record_event(self) -> Event:
        return Event(None, ledger.allocations)

    def wait_event(self, event: Event) -> None:
        if event.stream is not None:
            event.stream.run(event.moment)


class Stream:
    """A stream for copies that is as late as possible: a copy runs only when something waits for it.

    Until then its target holds invalid values. A copy fails if the stream has not waited until the target's memory was
    free: on a GPU, the main stream might still read that memory.
    """

    on_the_way = 0
    """Queued copies of all streams. On a GPU, their memory must not be freed yet."""

    def __init__(self) -> None:
        self._queue: list[Callable[[], Any]] = []
        self._done = 0
        self._knows = 0

    def record_event(self) -> Event:
        return Event(self, self._done + len(self._queue))

    def wait_event(self, event: Event) -> None:
        assert event.stream is None, "one side stream cannot wait for another here"
        self._knows = max(self._knows, event.moment)

    def synchronize(self) -> None:
        self.run(self._done + len(self._queue))

    def run(self, moment: int) -> None:
        """Runs the copies that were queued before that moment."""
        while self._done < moment:
            self._queue.pop(0)()
            self._done += 1
            Stream.on_the_way -= 1

    def queue(self, there: CountedTensor, here: Tensor) -> None:
        """Queues a copy."""
        if ledger.born(there.raw) > self._knows:
            raise RuntimeError("a copy on another stream to memory that may still be in use: wait for its event")
        if not there.raw.is_meta:
            dense = there.raw.is_contiguous() or not there.raw.is_floating_point()
            there.raw.view(torch.uint8).fill_(255) if dense else there.raw.fill_(math.nan)
        self._queue.append(lambda: there.raw.copy_(here))
        Stream.on_the_way += 1


_main = _Main()
_active: Stream | None = None
"""The current stream, which queues the copies. None: the main stream."""


class _Doors(torch.overrides.TorchFunctionMode):
    """Intercepts functions that never reach a Python backend, and fused attention."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if (
            function in _FROM_DATA
            and is_counted(kwargs.get("device"))
            and not isinstance((*args, None)[0], CountedTensor)
        ):
            return function(*args, **{**kwargs, "device": "cpu"}).to(kwargs["device"])
        if function is _ATTENTION and ledger.limit is not None and isinstance(args[0], CountedTensor):
            return _fused_attention(*args[:3], kwargs.get("attn_mask"))
        return function(*args, **kwargs)


_FROM_DATA = (torch.tensor, torch.as_tensor, torch.arange)
_ATTENTION = torch.nn.functional.scaled_dot_product_attention


def _fused_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Allocates what a fused kernel does, its output and one sum per row but no [L,S] matrix, without values.

    A mask becomes a bias of the same shape, as for CUDA's memory-efficient kernel.
    """
    bias = None if mask is None else mask.new_empty(mask.shape, dtype=query.dtype)
    del bias
    sums = query.new_empty(query.shape[:-1], dtype=torch.float32)
    del sums
    return query.new_empty((*query.shape[:-1], value.shape[-1]))


_installed: list[Any] = []


@contextmanager
def counted() -> Iterator[torch.device]:
    """The device, for use inside the `with` block. Its name stays registered in torch until the process ends."""
    if not _installed:
        from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

        _setup_privateuseone_for_python_backend(NAME, _Backend(NAME))
        library = torch.library.Library("_", "IMPL")
        library.fallback(_run, dispatch_key="PrivateUse1")
        _installed.append(library)
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(False)
    try:
        with _Doors():
            yield torch.device(f"{NAME}:0")
    finally:
        torch.__future__.set_swap_module_params_on_conversion(before)
