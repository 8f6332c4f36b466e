"""How a host shows progress: one bar that only grows, with a line of text. See progress.py."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ..host import Component
from ..progress import Bar, Part, Timings, loading
from ..report import DOWNLOAD, GIB
from .device import free_bytes, name_of

TICK_S = 0.25
"""How often the bar is shown while nothing is reported, as in the loading of a network."""
DOWNLOAD_BYTES_S = 30e6
"""How fast a download is planned to be."""

log = logging.getLogger(__name__)


class ShownProgress:
    """The bar of a host. A host implements `_show`."""

    device: torch.device
    timings: Timings | None = None
    """Of this machine. None: the time that is left is not known."""
    _bar: Bar | None = None
    _lock: threading.RLock | None = None
    """Held while the bar changes and is shown."""
    _ticks = False
    _download_bytes = 0

    @property
    def dtype(self) -> torch.dtype:
        """See Host."""
        raise NotImplementedError

    def expect(self, parts: Iterable[Part]) -> None:
        """Begins a bar for a run with these parts, in their order; see plans.py. Without this call there is no bar."""
        self._lock = threading.RLock()
        self._bar = Bar(parts, self.timings, f"{name_of(self.device)}|{str(self.dtype).removeprefix('torch.')}")

    def tell(self, text: str) -> None:
        """See Host."""
        with self._changing() as bar:
            bar.tell(text)

    def downloading(self, done: int, total: int) -> None:
        """Reports bytes of a download outside of a phase; see `Host.progress`."""
        self._plan_download(total)
        self.progress(done, total)
        if done >= total:
            self._download_bytes = 0
            with self._changing() as bar:
                bar.leave(DOWNLOAD)

    def _plan_download(self, total: int) -> None:
        """Makes a download of so many bytes a part of the bar, unless it is one."""
        if self._download_bytes != total:
            self._download_bytes = total
            with self._changing() as bar:
                bar.add(Part(DOWNLOAD, total / DOWNLOAD_BYTES_S, total, doing="downloading {percent} %"))

    def progress(self, done: int, total: int, preview: Tensor | None = None) -> None:
        """See Host."""
        raise NotImplementedError

    def finish(self) -> None:
        """Fills the bar."""
        with self._changing() as bar:
            bar.finish()

    def _show(self, fraction: float, line: str, preview: Tensor | None) -> None:
        """Shows the bar, 0 to 1, and the line. Called often, and from several threads, but never by two at once.

        Args:
            preview: [H,W,3] float32 sRGB 0..1 on any device, or None.
        """

    @contextmanager
    def _changing(self, preview: Tensor | None = None, *, shows: bool = True) -> Iterator[Bar]:
        """Within it, the bar may change. It is shown at the end."""
        if self._lock is None or self._bar is None:
            yield Bar()
            return
        with self._lock:
            yield self._bar
            if shows:
                self._show(self._bar.fraction, self._bar.line(), preview)

    @contextmanager
    def _part(self, key: str) -> Iterator[None]:
        """Within it, the part of the bar runs, and a thread shows the bar now and then."""
        finished = False
        with self._changing() as bar:
            bar.enter(key)
        try:
            with self._ticking():
                yield
            finished = True
        finally:
            with self._changing() as bar:
                bar.leave(key, finished=finished)

    @contextmanager
    def _shown_borrow(self, component: Component, *, streams: bool) -> Iterator[Callable[[], None]]:
        """Within it, a component is loaded and then works: two parts of the bar.

        Yields:
            What `borrow` calls between the two.
        """
        size = component.weight_bytes / 1e9
        finished = False
        with self._changing() as bar:
            bar.enter(loading(component.label))
            bar.tell(f"loading {component.label} {f'{size:.1f} GB' if size >= 1 else f'{1000 * size:.0f} MB'}")

        def loaded() -> None:
            with self._changing() as bar:
                bar.leave(loading(component.label))
                bar.enter(component.label, detail="streams" if streams else "")
                bar.also = self._streaming_line() if streams else ""

        try:
            yield loaded
            finished = True
        finally:
            with self._changing() as bar:
                bar.leave(component.label, finished=finished)
                bar.also = ""

    def _streaming_line(self) -> str:
        free = free_bytes(self.device)
        return "weights stream" if free is None else f"weights stream: {free / GIB:.1f} GiB free"

    @contextmanager
    def _ticking(self) -> Iterator[None]:
        if self._bar is None or self._ticks:
            yield
            return
        stop = threading.Event()
        thread = threading.Thread(target=self._tick, args=(stop,), name="hunyuan3d-progress", daemon=True)
        self._ticks = True
        thread.start()
        try:
            yield
        finally:
            self._ticks = False
            stop.set()
            thread.join()

    def _tick(self, stop: threading.Event) -> None:
        while not stop.wait(TICK_S):
            try:
                with self._changing():
                    pass
            except Exception as error:  # what is shown must not end a run
                log.debug("progress: %s", error)
