"""The command line: pictures in, textured meshes out."""

from __future__ import annotations

import argparse
import io
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from ..errors import BadInput, Cancelled, LowVramError
from ..files import manifest
from ..files.meshes import save
from ..files.pictures import find_pictures, load_picture
from ..files.store import ModelStore, default_roots
from ..presets import CHOICES, PRESETS, Preset, get
from ..report import format_table
from ..stages.shape import check_view_names
from ..types import SIDES
from .outputs import FORMATS, check_pictures_are_kept, check_sheet, mesh_paths
from .pipeline import Seeds, run
from .sheet import contact_sheet, draw_strip
from .torch_host import TorchHost, pick_device

_TYPES: Mapping[str, type] = {"int": int, "float": float, "str": str}
_HELP: Mapping[str, str] = {
    "precision": "auto: float16 on a GPU that is good at it, float32 on the CPU",
    "guidance": "how closely the shape follows the picture; at 0 the plain variants do not look at it at all",
}
LARGEST_SEED = 2**63 - 1

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status: 0 all went well, 1 a picture failed, 2 wrong usage."""
    parser = build_parser()
    options = parser.parse_intermixed_args(arguments)
    _never_fail_to_print()
    logging.basicConfig(level=logging.INFO if options.verbose else logging.WARNING, format="%(message)s")
    try:
        preset = chosen_preset(options)
        if options.describe:
            _say(manifest.describe(preset))
            return 0
        jobs = _jobs(options, preset)
        host = TorchHost.for_preset(preset, pick_device(options.device))
    except LowVramError as error:
        _complain(str(error))
        return 2
    return _run_all(jobs, preset, host, options)


def build_parser() -> argparse.ArgumentParser:
    """Every option; each value of a preset has one, named after it."""
    parser = argparse.ArgumentParser(prog="python -m lowvram_core", description=__doc__)
    parser.add_argument("pictures", nargs="*", type=Path, metavar="PICTURE", help="picture files or folders")
    parser.add_argument("-o", "--out", type=Path, default=Path("output"), help="a folder, or for one picture a file")
    parser.add_argument("--format", choices=[ext[1:] for ext in FORMATS], default="glb", help="for an output folder")
    parser.add_argument("--preset", default="8 GB Balanced", help=f"one of: {', '.join(PRESETS)}")
    parser.add_argument("--models", type=Path, action="append", default=[], metavar="DIR",
                        help="a models folder, searched first; may be given several times")  # fmt: skip
    parser.add_argument("--offline", action="store_true", help="never download a model")
    parser.add_argument("--device", help="cpu, cuda or cuda:N; by default the GPU if there is one")
    parser.add_argument("--seed", type=_seed, default=0, help="of the shape's noise")
    parser.add_argument("--delight-seed", type=_seed, default=Seeds.delight, help="default: upstream's")
    parser.add_argument("--paint-seed", type=_seed, default=Seeds.paint, help="default: upstream's")
    parser.add_argument("--keep-background", action="store_true", help="the whole picture is the object")
    for side in SIDES[1:]:
        parser.add_argument(f"--{side}", type=Path, metavar="PICTURE", help=f"{side} view, for the mv variants")
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="also write a contact sheet of every step")
    parser.add_argument("--describe", action="store_true", help="show the models that the preset needs, and stop")
    parser.add_argument("-v", "--verbose", action="store_true", help="a line per stage")
    values = parser.add_argument_group("values of the preset; given here, they win over it")
    for name, kind in _preset_values().items():
        values.add_argument(f"--{name.replace('_', '-')}", **kind)
    return parser


def _seed(text: str) -> int:
    seed = int(text)
    if not 0 <= seed <= LARGEST_SEED:
        raise argparse.ArgumentTypeError(f"{text} is out of range; wanted 0 to {LARGEST_SEED}")
    return seed


def _preset_values() -> dict[str, dict[str, Any]]:
    kinds: dict[str, dict[str, Any]] = {}
    for field in fields(Preset):
        if field.name in CHOICES:
            kinds[field.name] = {"choices": CHOICES[field.name]}
        elif field.type == "bool":
            kinds[field.name] = {"action": argparse.BooleanOptionalAction, "default": None}
        elif field.type in _TYPES and field.name != "name":
            kinds[field.name] = {"type": _TYPES[str(field.type)], "metavar": "N"}
    for name, text in _HELP.items():
        kinds[name]["help"] = text
    return kinds


def chosen_preset(options: argparse.Namespace) -> Preset:
    """The preset with the values that the command line gives on top.

    Raises:
        BadInput: the preset is unknown or a value out of range.
    """
    given = {name: getattr(options, name) for name in _preset_values() if getattr(options, name) is not None}
    return get(options.preset).with_(**given)


Job = tuple[dict[str, Path], Path]
"""Pictures by view, and where the mesh goes."""


def _jobs(options: argparse.Namespace, preset: Preset) -> list[Job]:
    pictures = find_pictures(options.pictures)
    others = {side: getattr(options, side) for side in SIDES[1:] if getattr(options, side)}
    if others and len(pictures) != 1:
        raise BadInput(
            f"picture: {len(pictures)} front pictures with a {next(iter(others))} view; wanted one front picture. "
            "Run once per object."
        )
    check_view_names(["front", *others], preset)
    outputs = mesh_paths(pictures, options.out, options.format)
    if options.sheet:
        check_sheet(options.sheet)
    check_pictures_are_kept([*pictures, *others.values()], outputs, options.sheet)
    return [({"front": picture, **others}, output) for picture, output in zip(pictures, outputs, strict=True)]


def _run_all(jobs: Sequence[Job], preset: Preset, host: TorchHost, options: argparse.Namespace) -> int:
    store = ModelStore([*options.models, *default_roots()], offline=options.offline)
    strips: list[Image.Image] = []
    failures, stopped = 0, False
    for pictures, output in jobs:
        try:
            problem = _attempt(pictures, output, preset, host, store, options, strips)
        except (Cancelled, KeyboardInterrupt):
            stopped = True
            _complain("cancelled")
            break
        # Here, where no traceback holds tensors any more.
        if problem:
            failures += 1
            _complain(f"{pictures['front'].name}: {problem}")
            host.release()
        else:
            _say(f"{pictures['front'].name} -> {output}")
            host.collect()
    host.release()
    if host.records:
        _say("\n".join([format_table(host.records), *host.notes]))
    if strips and not _write_sheet(strips, options.sheet):
        failures += 1
    return 130 if stopped else 1 if failures else 0


def _attempt(
    pictures: Mapping[str, Path], output: Path, preset: Preset, host: TorchHost, store: ModelStore,
    options: argparse.Namespace, strips: list[Image.Image],
) -> str:  # fmt: skip
    """Makes one mesh, and its strip of the sheet; returns what went wrong, if anything did."""
    try:
        with _Bar(host, output.stem):
            _run_one(pictures, output, preset, host, store, options, strips)
    except Cancelled:
        raise
    except LowVramError as error:
        return str(error)
    except Exception as error:
        log.exception("unexpected")
        return f"unexpected {type(error).__name__}: {error}"
    return ""


def _run_one(
    paths: Mapping[str, Path], output: Path, preset: Preset, host: TorchHost, store: ModelStore,
    options: argparse.Namespace, strips: list[Image.Image],
) -> None:  # fmt: skip
    pictures = {view: load_picture(path) for view, path in paths.items()}
    seeds = Seeds(options.seed, options.delight_seed, options.paint_seed)
    result = run(pictures, preset, host, store, seeds=seeds, keep_background=options.keep_background)
    save(result.mesh, output, host)
    if options.sheet:
        strips.append(draw_strip(paths["front"].name, pictures["front"], result))


def _write_sheet(strips: Sequence[Image.Image], path: Path) -> bool:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        contact_sheet(strips).save(path)
    except OSError as error:
        _complain(f"sheet: {path} cannot be written ({error}); wanted a place with room. Choose another --sheet.")
        return False
    _say(f"contact sheet -> {path}")
    return True


class _Bar:
    """A progress bar on standard error that follows the host's steps."""

    def __init__(self, host: TorchHost, name: str) -> None:
        self._host = host
        self._name = name
        self._bar: tqdm[Any] | None = None
        self._phase = ""

    def __enter__(self) -> _Bar:
        self._host.on_progress = self.show
        return self

    def show(self, phase: str, done: int, total: int) -> None:
        """Moves the bar; a new step starts a new one."""
        if self._bar is None or self._phase != phase or self._bar.total != total:
            self._close()
            self._bar = tqdm(total=total, desc=f"{self._name} {phase}", leave=False, file=sys.stderr)
            self._phase = phase
        self._bar.update(done - self._bar.n)

    def __exit__(self, *exception: object) -> None:
        self._host.on_progress = None
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def _never_fail_to_print() -> None:
    """A redirected console may know no Korean; a question mark is better than the end of a batch."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


def _complain(text: str) -> None:
    sys.stderr.write(text + "\n")
