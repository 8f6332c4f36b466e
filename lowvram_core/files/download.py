"""One file over HTTP, resumed where it stopped, checked, and in place only when it is whole.

huggingface_hub fetches the bytes. Its own hf_hub_download throws a half-fetched file away when a process
ends (seen in 2.4), which at 5 GB a file is no resume, so the unfinished part is kept here.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import BadInput, MissingModel

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all); what it raises stops the download, which can be resumed."""

SPARE_BYTES = 256 * 1024**2
"""Room that is left free on the disk."""


@dataclass(frozen=True)
class Remote:
    """A file that can be fetched, as its server describes it."""

    url: str
    etag: str
    """Names the content: an unfinished part is only resumed for the same one."""
    bytes: int
    sha256: str = ""
    md5: str = ""


def part_path(target: Path, etag: str) -> Path:
    """Where the unfinished part of `target` is kept."""
    mark = hashlib.sha256(etag.encode()).hexdigest()[:12]
    return target.with_name(f".{target.name}.{mark}.part")


def bytes_left(remote: Remote, target: Path) -> int:
    """What is still to be fetched of a file."""
    part = part_path(target, remote.etag)
    return max(0, remote.bytes - (part.stat().st_size if part.is_file() else 0))


def check_room(folder: Path, wanted: int) -> None:
    """Raises BadInput where the disk of `folder` has no room for `wanted` bytes more."""
    existing = next((path for path in (folder, *folder.parents) if path.exists()), None)
    if existing is None:
        raise BadInput(
            f"models: {folder} is on a drive that is not there; wanted a folder to download to. "
            "Choose another models folder."
        )
    free = shutil.disk_usage(existing).free
    if free < wanted + SPARE_BYTES:
        raise BadInput(
            f"models: {folder} has {free / 1e9:.2f} GB free; wanted {(wanted + SPARE_BYTES) / 1e9:.2f} GB for the "
            "download. Free some space or choose another models folder."
        )


def fetch(remote: Remote, target: Path, wrote: Callable[[int], None]) -> None:
    """Fetches a file to `target`; resumes an unfinished part.

    Args:
        wrote: called with the number of bytes of each piece that was fetched.

    Raises:
        BadInput: the folder cannot be written, or the disk is full.
        MissingModel: the server stopped answering, or what it sent is not the file.
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
                _stream(remote, _Counted(file, wrote), have)
        finally:
            if part.is_file() and part.stat().st_size == 0:
                part.unlink()  # nothing came: nothing to resume
        _verify(remote, part, target)
        part.replace(target)


def _stream(remote: Remote, file: _Counted, have: int) -> None:
    from huggingface_hub.file_download import http_get

    try:
        with _without_hub_bars():
            http_get(remote.url, file, resume_size=have, expected_size=remote.bytes)  # type: ignore[arg-type]
    except OSError as error:
        if file.failed:
            raise
        raise _gave_up(remote, error) from error
    except Exception as error:
        if file.failed or not _is_transport_error(error):
            raise
        raise _gave_up(remote, error) from error


def _gave_up(remote: Remote, error: Exception) -> MissingModel:
    return MissingModel(
        f"models: the download of {remote.url} stopped ({error}); wanted {remote.bytes} bytes. "
        "Run again: it goes on where it stopped."
    )


def _is_transport_error(error: Exception) -> bool:
    return type(error).__module__.split(".")[0] in {"httpx", "httpx2", "httpcore", "requests", "urllib3"}


def _verify(remote: Remote, part: Path, target: Path) -> None:
    size = part.stat().st_size
    met = f"{size} bytes instead of {remote.bytes}" if size != remote.bytes else ""
    for name, wanted in (("sha256", remote.sha256), ("md5", remote.md5)):
        if wanted and not met:
            with part.open("rb") as file:
                digest = hashlib.file_digest(file, name).hexdigest()
            met = "" if digest == wanted else f"{name} {digest} instead of {wanted}"
    if met:
        part.unlink()
        raise MissingModel(
            f"models: {target.name} from {remote.url} arrived with {met}; wanted the published file. "
            "Run again, or get it from another place."
        )


class _Counted:
    """A file that reports each write; knows whether an error came from the disk and not from the network."""

    def __init__(self, file: BinaryIO, wrote: Callable[[int], None]) -> None:
        self._file = file
        self._wrote = wrote
        self.failed = False

    def write(self, data: bytes) -> int:
        try:
            count = self._file.write(data)
            self._wrote(count)
        except BaseException:
            self.failed = True
            raise
        return count

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


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
