"""Downloads one file over HTTP: resumes it, checks it, and gives it its name only when it is complete.

huggingface_hub fetches the bytes. Its own hf_hub_download deletes an unfinished file when the process ends (seen in
2.4). With 5 GB a file that is no resume, so this module keeps the unfinished part itself.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from filelock import BaseFileLock, FileLock, Timeout

from ..errors import BadInput, MissingModel

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all). An exception from it stops the download, which can be resumed."""

SPARE_BYTES = 256 * 1024**2
"""Room that stays free on the disk."""

POLL_S = 0.2
"""How often a download, or the wait for another process's download, reports its progress, and so can be cancelled."""

CHUNK_BYTES = 1024**2
"""How much of a file is fetched before it is written. A stopped download loses at most this."""

BLOCK_BYTES = 8 * 1024**2
"""How much of a file is hashed at once."""


@dataclass(frozen=True)
class Remote:
    """A file that can be fetched, and what its content must be."""

    url: str
    etag: str
    """Names the content. An unfinished part is resumed only for the same name."""
    bytes: int
    sha256: str = ""
    md5: str = ""


def part_path(target: Path, etag: str) -> Path:
    """Where the unfinished part of `target` lies."""
    mark = hashlib.sha256(etag.encode()).hexdigest()[:12]
    return target.with_name(f".{target.name}.{mark}.part")


def bytes_left(remote: Remote, target: Path) -> int:
    """How many bytes of a file are still to be fetched."""
    part = part_path(target, remote.etag)
    return max(0, remote.bytes - (part.stat().st_size if part.is_file() else 0))


def free_disk(folder: Path) -> int | None:
    """Bytes that are free on the disk of a folder, which need not be there. None: its drive is not there."""
    existing = next((path for path in (folder, *folder.parents) if path.exists()), None)
    return None if existing is None else shutil.disk_usage(existing).free


def no_room(folder: Path, wanted: int) -> str:
    """Why the disk of `folder` cannot take `wanted` bytes more; empty if it can."""
    free = free_disk(folder)
    if free is None:
        return f"{folder} is on a drive that is not there"
    if free < wanted + SPARE_BYTES:
        return f"{folder} has {free / 1e9:.2f} GB free of the {(wanted + SPARE_BYTES) / 1e9:.2f} GB that are needed"
    return ""


def check_room(folder: Path, wanted: int) -> None:
    """Raises BadInput where the disk of `folder` has no room for `wanted` bytes more."""
    free = free_disk(folder)
    if free is None:
        raise BadInput(
            f"models: {folder} is on a drive that is not there; wanted a folder to download to. "
            "Choose another models folder."
        )
    if free < wanted + SPARE_BYTES:
        raise BadInput(
            f"models: {folder} has {free / 1e9:.2f} GB free; wanted {(wanted + SPARE_BYTES) / 1e9:.2f} GB for the "
            "download. Free some space or choose another models folder."
        )


@contextlib.contextmanager
def alone(lock_file: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Waits until no other process holds the lock file, then holds it.

    The caller may remove the lock file, but only while it holds the lock and after the last write. A process that
    waited for the removed file may then run beside one that made a new file.

    Args:
        waiting: called every POLL_S seconds while another process holds the lock; an exception from it ends the wait.

    Raises:
        BadInput: the lock file cannot be written.
    """
    lock = FileLock(lock_file)
    with _disk_errors(lock_file.parent):
        lock_file.parent.mkdir(parents=True, exist_ok=True)
        held = _try_lock(lock, 0)
    if not held:
        log.info("models: another process downloads to %s; waiting for it", lock_file.parent)
    while not held:
        waiting()
        with _disk_errors(lock_file.parent):
            held = _try_lock(lock, POLL_S)
    try:
        yield
    finally:
        lock.release()


def _try_lock(lock: BaseFileLock, timeout_s: float) -> bool:
    try:
        lock.acquire(timeout=timeout_s)
    except Timeout:
        return False
    except NotImplementedError:  # filelock before 4 on a file system without locks
        log.warning("models: the file system of %s has no locks; do not download from two processes", lock.lock_file)
    return True


def fetch(remote: Remote, target: Path, wrote: Callable[[int], None]) -> None:
    """Fetches a file to `target`; resumes an unfinished part. No other process may fetch it: see `alone`.

    Args:
        wrote: called with the number of bytes that came since the last call, at least every POLL_S seconds, also while
            nothing comes. An exception from it stops the download at once.

    Raises:
        BadInput: the folder cannot be written, or the disk is full.
        MissingModel: the server stopped answering, or sent other content.
    """
    part = part_path(target, remote.etag)
    with _disk_errors(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("ab") as file:
                have = file.tell()
                if have > remote.bytes:
                    file.truncate(0)
                    have = 0
                _stream(remote, _Counted(file), have, wrote)
        finally:
            if part.is_file() and part.stat().st_size == 0:
                part.unlink()  # nothing was fetched, so there is nothing to resume
        _verify(remote, part, target, wrote)
        part.replace(target)


def _stream(remote: Remote, file: _Counted, have: int, wrote: Callable[[int], None]) -> None:
    """Fetches in a thread, because a read from a slow server can block for longer than a user waits for a cancel."""
    from huggingface_hub.file_download import http_get

    failures: list[BaseException] = []
    ended = threading.Event()

    def get() -> None:
        try:
            http_get(remote.url, file, resume_size=have, expected_size=remote.bytes)  # type: ignore[arg-type]
        except BaseException as error:  # raised again below, in the thread that waits
            failures.append(error)
        finally:
            ended.set()

    with _without_hub_bars(), _small_chunks():
        try:
            threading.Thread(target=get, name="hunyuan3d-lowvram download", daemon=True).start()
            while not ended.wait(POLL_S):
                wrote(file.take())
            wrote(file.take())
        finally:
            file.close()
    for error in failures:
        if file.failed or not (isinstance(error, OSError) or _is_transport_error(error)):
            raise error
        raise _gave_up(remote, error) from error


def _gave_up(remote: Remote, error: BaseException) -> MissingModel:
    return MissingModel(
        f"models: the download of {remote.url} stopped ({error}); wanted {remote.bytes} bytes. "
        "Run again: it goes on where it stopped."
    )


def _is_transport_error(error: BaseException) -> bool:
    return type(error).__module__.split(".")[0] in {"httpx", "httpx2", "httpcore", "requests", "urllib3"}


def _verify(remote: Remote, part: Path, target: Path, wrote: Callable[[int], None]) -> None:
    size = part.stat().st_size
    met = f"{size} bytes instead of {remote.bytes}" if size != remote.bytes else ""
    for name, wanted in (("sha256", remote.sha256), ("md5", remote.md5)):
        if wanted and not met:
            digest = _digest(part, name, wrote)
            met = "" if digest == wanted else f"{name} {digest} instead of {wanted}"
    if met:
        part.unlink()
        raise MissingModel(
            f"models: {target.name} from {remote.url} arrived with {met}; wanted the published file. "
            "Run again, or get it from another place."
        )


def _digest(path: Path, name: str, wrote: Callable[[int], None]) -> str:
    """The hash of a file. `wrote` is called for each block, so that the user can cancel."""
    digest = hashlib.new(name)
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
            wrote(0)
    return digest.hexdigest()


class _Counted:
    """A file that counts what is written to it. `failed` tells that an error came from the disk, not from the network.

    One thread writes; another one takes the count, and closes it. After that the writer cannot write any more.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._count = 0
        self._closed = False
        self.failed = False

    def write(self, data: bytes) -> int:
        with self._lock:
            if self._closed:
                raise ValueError("the download was stopped")
            try:
                count = self._file.write(data)
            except BaseException:
                self.failed = True
                raise
            self._count += count
        return count

    def take(self) -> int:
        """The bytes that were written since the last call."""
        with self._lock:
            count, self._count = self._count, 0
        return count

    def close(self) -> None:
        """Ends the writing. The file itself stays open."""
        with self._lock:
            self._closed = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@contextlib.contextmanager
def _small_chunks() -> Iterator[None]:
    """Within it, huggingface_hub writes after each MiB. With its own 10 MiB a slow download would seem to stand."""
    from huggingface_hub import constants

    before = getattr(constants, "DOWNLOAD_CHUNK_SIZE", 0)
    if before:
        constants.DOWNLOAD_CHUNK_SIZE = min(before, CHUNK_BYTES)
    try:
        yield
    finally:
        if before:
            constants.DOWNLOAD_CHUNK_SIZE = before


@contextlib.contextmanager
def _without_hub_bars() -> Iterator[None]:
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


@contextlib.contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            met, what = "its disk is full", "Free some space and run again: the download goes on where it stopped."
        else:
            met, what = f"it cannot be written ({error})", "Choose another models folder."
        raise BadInput(f"models: {folder}: {met}; wanted a folder to download to. {what}") from error
