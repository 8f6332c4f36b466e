"""The folders of models: where they are looked for, what a complete one has, and the list of what is missing."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import BadCheckpoint
from .checkpoints import read_header
from .download import SPARE_BYTES, free_disk
from .manifest import Model, ModelFile


@dataclass(frozen=True)
class Found:
    """What the models folders have of a model."""

    model: Model
    folder: Path | None
    """The folder with all files but `weights`; None if a file is missing."""
    weights: Path | None = None
    """Another program's file of the model's weights, see single_files.py; None if the folder has them."""
    missing: tuple[ModelFile, ...] = ()
    """The files that a download would fetch."""
    bytes_left: int = 0
    """What is still to be fetched of them, without the parts of a stopped download."""
    target: Path | None = None
    """The folder that a download would write to; None if there is none."""
    refused: tuple[str, ...] = ()
    """Other programs' files with the model's name that are not used, and why."""

    @property
    def is_there(self) -> bool:
        """Whether the model has all its files."""
        return self.folder is not None


def folders_of(model: Model, roots: Iterable[Path]) -> list[Path]:
    """The folders that are searched for the model, best first.

    Args:
        roots: models folders, best first.
    """
    found: list[Path] = []
    for root in roots:
        found += _places_on_the_hub(root, model) if model.repo else _places_of_rembg(root, model)
    if not model.repo:
        found += _rembg_homes(model)
    return list(dict.fromkeys(found))


def missing_files(model: Model, folder: Path, without: ModelFile | None = None) -> list[ModelFile]:
    """The files of a model that a folder lacks. An empty list means that the folder is complete.

    Args:
        without: a file that need not be there.
    """
    wanted = (file for file in model.files if not file.optional and file != without)
    return [file for file in wanted if not is_there(file, folder)]


def check_files(model: Model, folder: Path) -> None:
    """Raises BadCheckpoint where a file is empty, truncated or of another kind. Reads headers only."""
    for file in model.files:
        path = next((folder / name for name in (file.path, *file.instead) if (folder / name).is_file()), None)
        if path is None:
            continue
        if path.stat().st_size == 0:
            raise _bad(path, file, "is empty")
        _CHECKS.get(path.suffix, _any_content)(path, file)


def is_there(file: ModelFile, folder: Path) -> bool:
    """Whether a folder has the file, or one that can replace it."""
    return any((folder / name).is_file() for name in (file.path, *file.instead))


def missing_text(lacking: Sequence[Found], why: str, roots: Sequence[Path], target: Path | None) -> str:
    """The message about models that are missing and cannot be downloaded: one list of all, with sizes and licences.

    Args:
        why: they cannot be downloaded.
        roots: the models folders that were searched.
        target: the models folder that downloads go to.
    """
    names = ", ".join(found.model.id for found in lacking)
    size = sum(found.bytes_left for found in lacking)
    verb = "is" if len(lacking) == 1 else "are"
    lines = [
        f"models: {names} {verb} missing, {gigabytes_of(size)} in all, and cannot be downloaded ({why}); wanted every "
        "model before the first stage. Make downloads possible and run again, or copy the files below into the folders "
        "below."
    ]
    for found in lacking:
        lines += ["", *about(found), f"  licence: {found.model.licence}", *_incomplete(found.model, roots)]
    return "\n".join([*lines, "", disk_line(target, size), "Models folders that were searched:", *_searched(roots)])


def _searched(roots: Sequence[Path]) -> list[str]:
    """A line for each folder that exists; the others are counted."""
    there = [f"  {root}" for root in roots if root.is_dir()]
    absent = len(roots) - len(there)
    return [*there, *([f"  not there: {absent} more" if there else f"  not there: {absent}"] if absent else [])] or [
        "  none"
    ]


SMALL_BYTES = 100_000
"""Files up to this size, such as configurations, share one line of the list."""


def about(found: Found) -> list[str]:
    """Lines about a missing model: what is to be downloaded, from where, and why other programs' files do not count."""
    large = [file for file in found.missing if file.bytes > SMALL_BYTES]
    small = [file.path for file in found.missing if file.bytes <= SMALL_BYTES]
    lines = [f"{found.model.id}: {gigabytes_of(found.bytes_left)} to download", f"  from {found.model.address}"]
    lines += [f"  {file.path}  {file.bytes / 1e6:,.1f} MB" for file in large]
    if small:
        lines.append(f"  small files: {', '.join(small)}")
    if found.target is not None:
        lines.append(f"  to {found.target}")
    if found.weights is not None:
        lines.append(f"  there already: the weights, in {found.weights}")
    return lines + [f"  not used: {refused}" for refused in found.refused]


def _incomplete(model: Model, roots: Sequence[Path]) -> Iterator[str]:
    """A line for each folder that has some of the model's files."""
    for folder in folders_of(model, roots):
        missing = missing_files(model, folder)
        if len(missing) < sum(not file.optional for file in model.files):
            yield f"  incomplete: {folder} (lacks {', '.join(file.path for file in missing)})"


def gigabytes_of(size: int) -> str:
    """A number of bytes in GB, or in MB where it is small."""
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.2f} MB"


def disk_line(target: Path | None, wanted: int) -> str:
    """The line about the folder that downloads go to, and the room on its disk."""
    if target is None:
        return "There is no folder to download to."
    free = free_disk(target)
    if free is None:
        return f"Downloads go to {target}, which is on a drive that is not there."
    room = "" if not wanted else "; that is enough" if free >= wanted + SPARE_BYTES else "; that is not enough"
    return f"Downloads go to {target}, where {gigabytes_of(free)} are free{room}."


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
