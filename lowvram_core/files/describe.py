"""What a preset needs, what of it is there and where, and what would be downloaded. Downloads nothing."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import BadCheckpoint
from ..presets import Preset
from .folders import Found, about, check_files, disk_line, gigabytes_of
from .manifest import gigabytes, needed
from .store import ModelStore


def describe(preset: Preset, store: ModelStore) -> str:
    """Describes the preset's models: which are there, what would be downloaded, the room on the disk, the licences."""
    every = [store.look(model.id) for model in needed(preset)]
    lacking = [found for found in every if not found.is_there]
    models = [found.model for found in every]
    lines = [f"Preset {preset.name} needs {len(models)} models, {gigabytes(models)} GB in all:"]
    for found in every:
        lines += _state(found)
    lines += ["", *_downloads(lacking, store), "", "Licences:"]
    licences = dict.fromkeys(found.model.licence for found in every)
    for licence in licences:
        lines.append(f"  {', '.join(model.id for model in models if model.licence == licence)}: {licence}")
    return "\n".join(lines)


def _state(found: Found) -> list[str]:
    """Lines about one model: whether it is there, and where."""
    size = f"{gigabytes([found.model])} GB"
    if found.folder is None:
        return [f"  missing  {found.model.id}, {size}"]
    try:
        check_files(found.model, found.folder)
    except BadCheckpoint as error:
        return [f"  damaged  {found.model.id}, {size}", f"           {error}"]
    lines = [f"  there    {found.model.id}, {size}", f"           {found.folder}"]
    if found.weights is not None:
        lines.append(f"           its weights are those of another program: {found.weights}")
    return lines


def _downloads(lacking: Sequence[Found], store: ModelStore) -> list[str]:
    """Lines about what a run would download, and where to."""
    if not lacking:
        return ["Nothing is to be downloaded.", disk_line(store.download_to, 0)]
    size = sum(found.bytes_left for found in lacking)
    lines = [f"To download, {gigabytes_of(size)} in all:"]
    for found in lacking:
        lines += [f"  {line}" for line in about(found)]
    why = store.never_downloads()
    lines.append(f"But {why}: copy the files by hand, or allow downloads." if why else "A run downloads them.")
    return [*lines, disk_line(store.download_to, size)]
