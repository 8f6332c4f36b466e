"""Finds models in models folders, checks their files before anything is built, and downloads them if allowed."""

from __future__ import annotations

import json
import logging
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ..errors import BadCheckpoint, MissingModel
from .checkpoints import read_header
from .download import Progress, Remote, alone, bytes_left, check_room, fetch
from .manifest import MODELS, Model, ModelFile, get

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
        progress: told of downloads where the caller of `folder` gives no progress of its own.
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

    def folder(self, model_id: str, progress: Progress | None = None) -> Path:
        """The folder of a model. All its files are there, and complete as far as their headers tell.

        Raises:
            MissingModel: the model is in no models folder and could not be fetched.
            BadCheckpoint: the model is there, but a file is truncated or corrupt.
            BadInput: the model is unknown, or the disk has no room for it.
        """
        model = get(model_id, self.models)
        for folder in self.candidates(model):
            if not missing_files(model, folder):
                check_files(model, folder)
                return folder
        if self.download_to is None or self._is_offline():
            raise self._missing(model, "downloads are switched off")
        return self._download(model, progress or self.progress)

    def is_present(self, model_id: str) -> bool:
        """Whether a models folder has all files of the model."""
        model = get(model_id, self.models)
        return any(not missing_files(model, folder) for folder in self.candidates(model))

    def candidates(self, model: Model) -> list[Path]:
        """The folders that are searched for the model, best first."""
        found: list[Path] = []
        for root in self._all_roots():
            found += _places_on_the_hub(root, model) if model.repo else _places_of_rembg(root, model)
        if not model.repo:
            found += _rembg_homes(model)
        return list(dict.fromkeys(found))

    def _all_roots(self) -> list[Path]:
        extra = [self.download_to] if self.download_to is not None else []
        return list(dict.fromkeys([*self.roots, *extra]))

    def _is_offline(self) -> bool:
        switched = os.environ.get("HF_HUB_OFFLINE", "").strip().upper() in {"1", "ON", "YES", "TRUE"}
        return self.offline or switched

    def _missing(self, model: Model, why: str) -> MissingModel:
        into = "a models folder"
        if self.download_to is not None:
            into = str(self.download_to / model.repo.rpartition("/")[2] / model.folder)
        files = "\n".join(f"  {file.path}  {file.bytes / 1e6:,.1f} MB" for file in model.files if not file.optional)
        return MissingModel(
            f"models: {model.id} is in no models folder ({why}); wanted its files, {model.bytes / 1e9:.2f} GB in all. "
            f"Allow downloads, or get them from {model.address} into {into}.\n"
            f"Files:\n{files}\nFolders that were searched:\n{_searched(model, self.candidates(model))}"
        )

    def _download(self, model: Model, progress: Progress) -> Path:
        assert self.download_to is not None
        root = self.download_to / model.repo.rpartition("/")[2] if model.repo else self.download_to
        folder = root / model.folder
        wanted = {file: self._remote(model, file) for file in model.files if not _is_there(file, folder)}
        total = sum(remote.bytes for remote in wanted.values())
        left = _bytes_left(wanted, folder)
        check_room(folder, left)
        lock_file = folder / f".{model.id.replace('/', '-')}.lock"
        with alone(lock_file, waiting=lambda: progress(total - _bytes_left(wanted, folder), total)):
            # Another process may have fetched some of the files, or all, in the meantime.
            left = _bytes_left(wanted, folder)
            log.info("models: downloading %s, %.2f GB, to %s; licence: %s", model.id, left / 1e9, folder, model.licence)
            wrote = _adder(progress, total - left, total)
            for file, remote in wanted.items():
                if not _is_there(file, folder):
                    fetch(remote, folder / file.path, wrote)
            with suppress(OSError):  # Windows removes it when the lock is released
                lock_file.unlink(missing_ok=True)
        check_files(model, folder)
        return folder

    def _remote(self, model: Model, file: ModelFile) -> Remote:
        """The file's address, and what its content must be by the manifest, else by the server.

        Only the file's HTTP headers are fetched.
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
            raise self._missing(model, f"{name} could not be fetched: {_first_line(error)}") from error
        if meta.size is None or meta.etag is None:
            raise self._missing(model, f"{url} tells no size")
        named = _hash_of(meta.etag)
        if file.known == "published" and meta.size != file.bytes:
            raise self._missing(model, f"{url} has {meta.size:,} bytes instead of {file.bytes:,}. {_OTHER_SERVER}")
        if file.sha256 and named and named != file.sha256:
            raise self._missing(model, f"{url} has sha256 {named} instead of {file.sha256}. {_OTHER_SERVER}")
        # Not meta.location: the signed address behind the redirect may have expired when the file's turn comes.
        return Remote(url, file.sha256 or meta.etag, meta.size, file.sha256 or named, file.md5)


_OTHER_SERVER = "This server offers other content than was published: unset HF_ENDPOINT or use another mirror"


def _hash_of(etag: str) -> str:
    """The SHA-256 by which the hub names large files; empty where a server's ETag is something else."""
    return etag.lower() if re.fullmatch("[0-9a-fA-F]{64}", etag) else ""


def _bytes_left(wanted: Mapping[ModelFile, Remote], folder: Path) -> int:
    return sum(bytes_left(remote, folder / file.path) for file, remote in wanted.items() if not _is_there(file, folder))


def missing_files(model: Model, folder: Path) -> list[ModelFile]:
    """The files of a model that a folder lacks. An empty list means that the folder is complete."""
    return [file for file in model.files if not file.optional and not _is_there(file, folder)]


def check_files(model: Model, folder: Path) -> None:
    """Raises BadCheckpoint where a file is empty, truncated or of another kind. Reads headers only."""
    for file in model.files:
        path = next((folder / name for name in (file.path, *file.instead) if (folder / name).is_file()), None)
        if path is None:
            continue
        if path.stat().st_size == 0:
            raise _bad(path, file, "is empty")
        _CHECKS.get(path.suffix, _any_content)(path, file)


def _is_there(file: ModelFile, folder: Path) -> bool:
    return any((folder / name).is_file() for name in (file.path, *file.instead))


def _lacks(model: Model, folder: Path) -> str:
    missing = missing_files(model, folder)
    if len(missing) == sum(not file.optional for file in model.files):
        return ""
    return f" (lacks {', '.join(file.path for file in missing)})"


def _searched(model: Model, folders: Sequence[Path]) -> str:
    """Lists the folders that exist, a line each, with what each of them lacks. The others are counted."""
    lines = [f"  {folder}{_lacks(model, folder)}" for folder in folders if folder.is_dir()]
    absent = len(folders) - len(lines)
    if absent:
        lines.append(f"  not there: {absent} more" if lines else f"  not there: {absent}")
    return "\n".join(lines) or "  nowhere"


def _places_on_the_hub(root: Path, model: Model) -> Iterator[Path]:
    owner, _, name = model.repo.rpartition("/")
    yield root / model.folder
    yield root / name / model.folder
    yield root / owner / name / model.folder


def _places_of_rembg(root: Path, model: Model) -> Iterator[Path]:
    yield root / model.folder
    yield root / "u2net"
    yield root


def _rembg_homes(model: Model) -> Iterator[Path]:
    """The folders where rembg keeps models: one for each model since 2.0.7x, before that all in ~/.u2net."""
    name = model.id.rpartition("/")[2]
    legacy = os.environ.get("U2NET_HOME")
    for home in filter(None, (legacy, os.environ.get("REMBG_HOME"), "~/.rembg")):
        yield Path(home).expanduser() / "models" / name
    yield Path(legacy or "~/.u2net").expanduser()


def _adder(progress: Progress, done: int, total: int) -> Callable[[int], None]:
    def wrote(count: int) -> None:
        nonlocal done
        done = min(total, done + count)
        progress(done, total)

    progress(done, total)
    return wrote


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _bad(path: Path, file: ModelFile, met: str) -> BadCheckpoint:
    size = path.stat().st_size
    return BadCheckpoint(
        f"models: {path} {met}: {size:,} bytes; the published file has {'' if file.known == 'published' else 'about '}"
        f"{file.bytes:,}. Delete it and run again, or copy it again."
    )


def _check_safetensors(path: Path, file: ModelFile) -> None:
    try:
        read_header(path)
    except BadCheckpoint as error:
        raise _bad(path, file, "is truncated or not a safetensors file") from error


def _check_pickle(path: Path, file: ModelFile) -> None:
    if not zipfile.is_zipfile(path):
        raise _bad(path, file, "is truncated or not a PyTorch checkpoint")


def _check_json(path: Path, file: ModelFile) -> None:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _bad(path, file, f"is not JSON ({error})") from error


def _check_onnx(path: Path, file: ModelFile) -> None:
    if path.stat().st_size != file.bytes:
        raise _bad(path, file, "is truncated or another model")


def _any_content(path: Path, file: ModelFile) -> None:
    """Accepts any content, for text files."""


_CHECKS: Mapping[str, Callable[[Path, ModelFile], None]] = {
    ".safetensors": _check_safetensors,
    ".bin": _check_pickle,
    ".json": _check_json,
    ".onnx": _check_onnx,
}
