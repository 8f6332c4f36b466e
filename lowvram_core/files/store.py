"""Finds models in models folders, checks their files before anything is built, and downloads them if allowed."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ..errors import MissingModel
from .download import Progress, Remote, alone, bytes_left, check_room, fetch, no_room
from .download_line import DownloadLine
from .folders import Found, check_files, folders_of, is_there, missing_files, missing_text
from .manifest import MODELS, Model, ModelFile, get
from .single_files import SingleFile, find_single_file

log = logging.getLogger(__name__)


def default_roots() -> list[Path]:
    """The models folders of a stand-alone run: HY3D_LOWVRAM_MODELS (a list), HY3DGEN_MODELS, ~/.cache/hy3dgen."""
    named = os.environ.get("HY3D_LOWVRAM_MODELS", "").split(os.pathsep)
    named.append(os.environ.get("HY3DGEN_MODELS", ""))
    roots = [Path(name).expanduser() for name in named if name.strip()]
    return list(dict.fromkeys([*roots, Path.home() / ".cache" / "hy3dgen"]))


class ModelStore:
    """Finds the folders of models.

    Args:
        roots: models folders, searched in this order.
        download_to: the models folder that downloads go to; the first of `roots` if None.
        offline: never download. The environment's HF_HUB_OFFLINE does the same.
        endpoint: the hub's address, for a mirror; huggingface_hub's own (HF_ENDPOINT) if None.
        models: the manifest.
        progress: told of downloads where the caller of `place` gives no progress of its own.
        tell: told a line of text about a download: file, size, speed and time left.
    """

    def __init__(
        self,
        roots: Sequence[Path | str],
        *,
        download_to: Path | str | None = None,
        offline: bool = False,
        endpoint: str | None = None,
        models: Mapping[str, Model] = MODELS,
        progress: Progress | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self.roots = [Path(root).expanduser() for root in roots]
        if download_to is not None:
            self.download_to: Path | None = Path(download_to).expanduser()
        else:
            self.download_to = self.roots[0] if self.roots else None
        self.offline = offline
        self.endpoint = endpoint
        self.models = models
        self.progress = progress or (lambda done, total: None)
        self.tell = tell or (lambda text: None)

    def folder(self, model_id: str) -> Path:
        """The folder of a model; see `place`. The weights of a shape model may lie elsewhere."""
        folder = self.place(model_id).folder
        assert folder is not None
        return folder

    def place(
        self, model_id: str, progress: Progress | None = None, tell: Callable[[str], None] | None = None
    ) -> Found:
        """Where a model's files are. All are there, and complete as far as their headers tell.

        A model that is missing is downloaded.

        Raises:
            MissingModel: the model is in no models folder and could not be fetched.
            BadCheckpoint: the model is there, but a file is truncated or corrupt.
            BadInput: the model is unknown, or the disk has no room for it.
        """
        found = self.look(model_id)
        if found.folder is not None:
            check_files(found.model, found.folder)
            return found
        if why := self.never_downloads():
            raise MissingModel(missing_text([found], why, self._all_roots(), self.download_to))
        return self._download(found, progress or self.progress, tell or self.tell)

    def is_present(self, model_id: str) -> bool:
        """Whether a models folder has all files of the model."""
        return self.look(model_id).is_there

    def look(self, model_id: str) -> Found:
        """What the models folders have of a model. Nothing is downloaded, and no network is used."""
        model = get(model_id, self.models)
        folders = self.candidates(model)
        for folder in folders:
            if not missing_files(model, folder):
                return Found(model, folder)
        single = find_single_file(model, self._all_roots()) if model.layout else SingleFile()
        without = model.weights if single.path else None
        for folder in folders:
            if single.path and not missing_files(model, folder, without):
                return Found(model, folder, single.path, refused=single.refused)
        target = self.target(model)
        missing = [file for file in model.files if file != without and (target is None or not is_there(file, target))]
        left = sum(_left_by_manifest(file, target) for file in missing)
        return Found(model, None, single.path, tuple(missing), left, target, single.refused)

    def require(self, model_ids: Iterable[str], optional: Iterable[str] = ()) -> None:
        """Checks a run's models before its first stage. It reads headers; nothing is downloaded.

        Args:
            model_ids: what the run needs.
            optional: what it may need. These are listed with what is missing, but do not stop the run.

        Raises:
            MissingModel: models are missing and cannot be downloaded. The message lists all that is missing.
            BadCheckpoint: a file of a model is truncated or corrupt.
        """
        every = [self.look(model_id) for model_id in dict.fromkeys(model_ids)]
        for found in every:
            if found.folder is not None:
                check_files(found.model, found.folder)
        lacking = [found for found in every if not found.is_there]
        if why := self._why_not(lacking):
            known = {found.model.id for found in every}
            maybe = [self.look(model_id) for model_id in dict.fromkeys(optional) if model_id not in known]
            lacking += [found for found in maybe if not found.is_there]
            raise MissingModel(missing_text(lacking, why, self._all_roots(), self.download_to))

    def _why_not(self, lacking: Sequence[Found]) -> str:
        """Why these models cannot be downloaded; empty if they can, as far as can be known before."""
        if not lacking:
            return ""
        if (why := self.never_downloads()) or self.download_to is None:
            return why
        if why := no_room(self.download_to, sum(found.bytes_left for found in lacking)):
            return why
        for found in lacking:
            hosted = next((file for file in found.missing if not file.url), None)
            try:
                if hosted is not None:
                    self._remote(found.model, hosted)
            except _NotOffered as error:
                return str(error)
        return ""

    def never_downloads(self) -> str:
        """Why nothing is ever downloaded; empty if downloads are allowed."""
        if self.download_to is None:
            return "there is no folder to download to"
        switched = os.environ.get("HF_HUB_OFFLINE", "").strip().upper() in {"1", "ON", "YES", "TRUE"}
        return "downloads are switched off" if self.offline or switched else ""

    def target(self, model: Model) -> Path | None:
        """The folder that a download of the model would go to."""
        if self.download_to is None:
            return None
        root = self.download_to / model.repo.rpartition("/")[2] if model.repo else self.download_to
        return root / model.folder

    def candidates(self, model: Model) -> list[Path]:
        """The folders that are searched for the model, best first."""
        return folders_of(model, self._all_roots())

    def _all_roots(self) -> list[Path]:
        extra = [self.download_to] if self.download_to is not None else []
        return list(dict.fromkeys([*self.roots, *extra]))

    def _download(self, found: Found, progress: Progress, tell: Callable[[str], None]) -> Found:
        model, folder = found.model, self.target(found.model)
        assert folder is not None
        try:
            wanted = {file: self._remote(model, file) for file in found.missing}
        except _NotOffered as error:
            raise MissingModel(missing_text([found], str(error), self._all_roots(), self.download_to)) from error
        total = sum(remote.bytes for remote in wanted.values())
        check_room(folder, _bytes_left(wanted, folder))
        lock_file = folder / f".{model.id.replace('/', '-')}.lock"
        with alone(lock_file, waiting=lambda: progress(total - _bytes_left(wanted, folder), total)):
            # Another process may have fetched some of the files, or all, in the meantime.
            left = _bytes_left(wanted, folder)
            log.info("models: downloading %s, %.2f GB, to %s; licence: %s", model.id, left / 1e9, folder, model.licence)
            line = DownloadLine(tell, model.id, total - left, total)
            wrote = _adder(progress, line, total - left, total)
            for file, remote in wanted.items():
                if not is_there(file, folder):
                    line.file = file.path
                    fetch(remote, folder / file.path, wrote)
            with suppress(OSError):  # Windows removes it when the lock is released
                lock_file.unlink(missing_ok=True)
        check_files(model, folder)
        return Found(model, folder, found.weights)

    def _remote(self, model: Model, file: ModelFile) -> Remote:
        """The file's address, and what its content must be by the manifest, else by the server.

        Only the file's HTTP headers are fetched.

        Raises:
            _NotOffered: the server does not answer, or offers another file.
        """
        if file.url:
            return Remote(file.url, file.md5 or file.sha256, file.bytes, file.sha256, file.md5)
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        name = f"{model.folder}/{file.path}"
        try:
            url = hf_hub_url(model.repo, name, revision=model.revision or None, endpoint=self.endpoint)
            meta = get_hf_file_metadata(url, token=False)
        # Whatever the HTTP client of the installed huggingface_hub raises: no network, no such file, no access.
        except Exception as error:
            raise _NotOffered(f"{name} could not be fetched: {_first_line(error)}") from error
        if meta.size is None or meta.etag is None:
            raise _NotOffered(f"{url} tells no size")
        named = _hash_of(meta.etag)
        if file.known == "published" and meta.size != file.bytes:
            raise _NotOffered(f"{url} has {meta.size:,} bytes instead of {file.bytes:,}. {_OTHER_SERVER}")
        if file.sha256 and named and named != file.sha256:
            raise _NotOffered(f"{url} has sha256 {named} instead of {file.sha256}. {_OTHER_SERVER}")
        # Not meta.location: the signed address behind the redirect may have expired when the file's turn comes.
        return Remote(url, file.sha256 or meta.etag, meta.size, file.sha256 or named, file.md5)


class _NotOffered(Exception):
    """A file cannot be fetched; the text says why."""


_OTHER_SERVER = "This server offers other content than was published: unset HF_ENDPOINT or use another mirror"


def _hash_of(etag: str) -> str:
    """The SHA-256 by which the hub names large files; empty where a server's ETag is something else."""
    return etag.lower() if re.fullmatch("[0-9a-fA-F]{64}", etag) else ""


def _bytes_left(wanted: Mapping[ModelFile, Remote], folder: Path) -> int:
    return sum(bytes_left(remote, folder / file.path) for file, remote in wanted.items() if not is_there(file, folder))


def _left_by_manifest(file: ModelFile, folder: Path | None) -> int:
    """What is still to be fetched of a file, without asking the server: only of files with a hash a part is known."""
    mark = file.md5 or file.sha256 if file.url else file.sha256
    if folder is None or not mark:
        return file.bytes
    return bytes_left(Remote("", mark, file.bytes), folder / file.path)


def _adder(progress: Progress, line: DownloadLine, done: int, total: int) -> Callable[[int], None]:
    def wrote(count: int) -> None:
        nonlocal done
        done = min(total, done + count)
        line.show(done)
        progress(done, total)

    progress(done, total)
    return wrote


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
