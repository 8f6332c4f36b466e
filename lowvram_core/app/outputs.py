"""Output files of the command line: one mesh per picture; no file overwrites a picture or another mesh."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ..errors import BadInput
from ..files.formats import OTHER_MESHES, WRITABLE_MESHES
from ..files.meshes import sidecars
from ..files.names import exists, is_folder
from ..files.pictures import SUFFIXES, unique_stems


def mesh_paths(pictures: Sequence[Path], out: Path, extension: str) -> list[Path]:
    """Returns a mesh file for each picture: `out` itself for one picture, or files in the folder `out`.

    Raises:
        BadInput: `out` has the wrong kind, or cannot be written.
    """
    suffix = out.suffix.lower()
    if suffix in (*OTHER_MESHES, *SUFFIXES) and not is_folder(out):
        raise BadInput(
            f"save: {out.name} ends in {out.suffix!r}; wanted {', '.join(WRITABLE_MESHES)}. Choose one of these."
        )
    if suffix in WRITABLE_MESHES:
        if len(pictures) > 1:
            raise BadInput(f"save: {len(pictures)} pictures for the one file {out}; wanted a folder. Give -o a folder.")
        paths = [out]
    else:
        paths = [out / f"{stem}.{extension}" for stem in unique_stems(pictures)]
    for path in paths:
        if is_folder(path):
            raise BadInput(f"save: {path} is a folder; wanted a file name. Choose another -o.")
    check_writable(paths[0].parent)
    return paths


def check_writable(folder: Path) -> None:
    """Raises BadInput if no file can be written to a folder. Creates the folder if it is missing."""
    probe = folder / ".lowvram-write-test"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise BadInput(
            f"save: {folder} cannot be written ({error.strerror}); wanted a folder to write to. Choose another -o."
        ) from error


def check_sheet(sheet: Path) -> None:
    """Raises BadInput if a contact sheet cannot be written."""
    if sheet.suffix.lower() != ".png" or is_folder(sheet):
        raise BadInput(f"sheet: {sheet} is no name of a PNG file; wanted one, such as sheet.png. Choose another.")
    check_writable(sheet.parent)


def turntable_path(mesh: Path) -> Path:
    """The animated picture beside a mesh."""
    return mesh.with_suffix(".webp")


def check_pictures_are_kept(
    pictures: Iterable[Path], meshes: Iterable[Path], sheet: Path | None, turntables: Iterable[Path] = ()
) -> None:
    """Raises BadInput if a mesh, a file beside it, the sheet or a turntable would overwrite one of the pictures."""
    inputs = {_identity(picture): picture for picture in pictures if exists(picture)}
    written = [path for mesh in meshes for path in (mesh, *sidecars(mesh))]
    for path in [*written, *([sheet] if sheet else []), *turntables]:
        if exists(path) and _identity(path) in inputs:
            raise BadInput(
                f"save: {path} would replace the picture {inputs[_identity(path)]}; wanted a place of its own. "
                "Choose another -o or --sheet."
            )


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino
