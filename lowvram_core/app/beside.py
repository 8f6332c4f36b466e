"""Work on the CPU in a second thread, while the main thread computes on the GPU."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from typing import Generic, TypeVar

import torch

from ..host import Host
from .torch_host import TorchHost

Result = TypeVar("Result")

_POLL_S = 0.05
"""While the main thread waits for the work, it asks for a cancel this often."""


class Beside(Generic[Result]):
    """The result of work that may still run."""

    def __init__(self, future: Future[Result], host: Host, own: TorchHost) -> None:
        self._future = future
        self._host = host
        self._own = own

    def result(self) -> Result:
        """Waits for the work, and adds its phases and notes to the host's.

        The seconds before this call are hidden behind other phases. They are not counted a second time.

        Raises:
            Cancelled: the user cancelled; see `Host.progress`.
            Exception: the work's own error.
        """
        start = time.perf_counter()
        if not self._future.done():
            self._host.tell("unwrapping")
        while not self._future.done():
            self._host.progress(0, 1)
            wait([self._future], _POLL_S)
        waited = time.perf_counter() - start
        result = self._future.result()
        for record in reversed(self._own.records):
            shown = min(waited, record.seconds)
            waited -= shown
            self._host.record(replace(record, hidden_seconds=record.seconds - shown))
        for note in self._own.notes:
            self._host.note(note)
        return result


@contextmanager
def beside(work: Callable[[Host], Result], host: Host) -> Iterator[Beside[Result]]:
    """Starts the work in a thread; within the `with`, the main thread does something else and then asks for the result.

    At the end of the `with` the thread has ended, too: after an error or a cancel in the main thread, the work's next
    report of progress raises Cancelled.

    Args:
        work: is called with a host of its own, on the CPU. It must not hold Python's global lock for long.
    """
    stopped = threading.Event()
    own = TorchHost(torch.device("cpu"), host.dtype, is_cancelled=stopped.is_set)
    with ThreadPoolExecutor(1, "hunyuan3d-beside") as pool:
        future = pool.submit(work, own)
        try:
            yield Beside(future, host, own)
        finally:
            stopped.set()
