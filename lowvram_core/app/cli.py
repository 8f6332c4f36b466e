"""Makes textured meshes of pictures."""

from __future__ import annotations

import argparse
import io
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from ..checks.pictures import MAX_REFERENCES, check_reference_count
from ..errors import BadInput, Cancelled, LowVramError
from ..files.convert import convert_pickles
from ..files.describe import describe
from ..files.formats import TEXTURE_FORMATS, TEXTURE_QUALITY, WRITABLE_MESHES
from ..files.meshes import save
from ..files.names import exists, pasted
from ..files.pictures import find_pictures, load_picture
from ..files.preset_files import EXAMPLE, read_preset
from ..files.store import ModelStore, default_roots
from ..files.textures import Coding
from ..files.timings import FileTimings, cache_file
from ..plans import run_parts
from ..presets import PRESETS, VALUES, Preset, Value, cost, get
from ..report import format_table, summary
from ..stages.shape import check_view_names
from ..types import FRONT, SIDES
from .outputs import check_pictures_are_kept, check_sheet, mesh_paths, turntable_path
from .pipeline import Seeds, run
from .sheet import contact_sheet, draw_strip
from .torch_host import TorchHost, pick_device
from .turntables import FRAMES, write_turntable

LARGEST_SEED = 2**64 - 1
"""torch's and ComfyUI's."""
BAR = "{desc} {percentage:3.0f} %|{bar:20}| {elapsed} {postfix}"

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line. Returns the exit status: 0 success, 1 a picture failed, 2 wrong usage, 130 cancelled."""
    parser = build_parser()
    options = parser.parse_intermixed_args(arguments)
    _never_fail_to_print()
    logging.basicConfig(level=logging.INFO if options.verbose else logging.WARNING, format="%(message)s")
    try:
        preset = chosen_preset(options)
        if options.describe:
            _say(describe(preset, _store(options)))
            return 0
        if options.convert_pickles:
            for written in convert_pickles(options.convert_pickles, half=options.half):
                _say(f"written: {written}")
            return 0
        _coding(options).check()
        jobs = _jobs(options, preset)
        host = TorchHost.for_preset(preset, pick_device(options.device))
    except LowVramError as error:
        _complain(str(error))
        return 2
    return _run_all(jobs, preset, host, options)


def build_parser() -> argparse.ArgumentParser:
    """Builds the parser. Each value of a preset has an option of its name."""
    parser = argparse.ArgumentParser(prog="python -m lowvram_core", description=__doc__)
    parser.add_argument("pictures", nargs="*", type=_path, metavar="PICTURE", help="picture files or folders")
    parser.add_argument("-o", "--out", type=_path, default=Path("output"), help="a folder, or for one picture a file")
    parser.add_argument(
        "--format", choices=[ext[1:] for ext in WRITABLE_MESHES], default="glb", help="for an output folder"
    )
    parser.add_argument("--texture-format", choices=TEXTURE_FORMATS, default=TEXTURE_FORMATS[0],
                        help="of the texture inside .glb and .gltf; jpeg and webp are smaller")  # fmt: skip
    parser.add_argument("--texture-quality", type=int, default=TEXTURE_QUALITY, metavar="N",
                        help=f"of jpeg and webp, 1 to 100; default: {TEXTURE_QUALITY}")  # fmt: skip
    presets = parser.add_mutually_exclusive_group()
    presets.add_argument("--preset", default="8 GB Balanced", help=f"one of: {', '.join(PRESETS)}")
    presets.add_argument("--preset-file", type=_path, metavar="FILE.json",
                         help=f"a preset as JSON text: {EXAMPLE}; the node Preset to JSON writes it")  # fmt: skip
    parser.add_argument("--models", type=Path, action="append", default=[], metavar="DIR",
                        help="a models folder, searched first; may be given several times")  # fmt: skip
    parser.add_argument("--offline", action="store_true", help="never download a model")
    parser.add_argument("--device", help="cpu, cuda or cuda:N; by default the GPU if there is one")
    parser.add_argument("--seed", type=_seed, default=0, help="of the shape's noise")
    parser.add_argument("--delight-seed", type=_seed, default=Seeds.delight, help="default: upstream's")
    parser.add_argument("--paint-seed", type=_seed, default=Seeds.paint, help="default: upstream's")
    parser.add_argument("--keep-background", action="store_true", help="the whole picture is the object")
    for side in SIDES[1:]:
        parser.add_argument(f"--{side}", type=_path, metavar="PICTURE", help=f"{side} view, for the mv variants")
    parser.add_argument("--reference", type=_path, action="append", default=[], metavar="PICTURE",
                        help="a further picture of the object, from any side, that gives colours too; may be given up "
                        f"to {MAX_REFERENCES - 1} times. Pictures of --left, --back and --right give colours only if "
                        "they are named here too")  # fmt: skip
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="also write a sheet with the result of every stage")
    parser.add_argument("--turntable", action="store_true",
                        help="also write an animated WebP of the turning mesh beside each mesh")  # fmt: skip
    parser.add_argument("--describe", action="store_true",
                        help="show the models that the preset needs, what of them is there and what would be "
                        "downloaded, and stop")  # fmt: skip
    parser.add_argument("--convert-pickles", type=Path, nargs="+", metavar="PATH",
                        help="write a .safetensors file beside each weights .bin found here, and stop")  # fmt: skip
    parser.add_argument("--half", action="store_true", help="with --convert-pickles: write float16")
    parser.add_argument("-v", "--verbose", action="store_true", help="a line per stage")
    values = parser.add_argument_group("values of the preset; given here, they win over it")
    for value in VALUES.values():
        values.add_argument(value.option, **_kind(value), help=cost(value.name).replace("%", "%%"))
    return parser


def _path(text: str) -> Path:
    return Path(pasted(text))


def _seed(text: str) -> int:
    seed = int(text)
    if not 0 <= seed <= LARGEST_SEED:
        raise argparse.ArgumentTypeError(f"{text} is out of range; wanted 0 to {LARGEST_SEED}")
    return seed


def _kind(value: Value) -> dict[str, Any]:
    """How argparse reads a preset value."""
    if value.kind is bool:
        return {"action": argparse.BooleanOptionalAction, "default": None}
    if value.kind is str:
        return {"choices": value.choices}
    return {"type": value.kind, "metavar": "N"}


def chosen_preset(options: argparse.Namespace) -> Preset:
    """Returns the preset, changed by the values on the command line.

    Raises:
        BadInput: the preset is unknown, its file cannot be used, or a value is out of range.
    """
    given = {name: getattr(options, name) for name in VALUES if getattr(options, name) is not None}
    base = read_preset(options.preset_file) if options.preset_file else get(options.preset)
    return base.with_(**given)


def _coding(options: argparse.Namespace) -> Coding:
    return Coding(options.texture_format, options.texture_quality)


Job = tuple[dict[str, Path], Path]
"""Pictures by view, and the file of the mesh. The reference pictures are those of the command line."""


def _jobs(options: argparse.Namespace, preset: Preset) -> list[Job]:
    pictures = find_pictures(options.pictures, _complain)
    others = {side: getattr(options, side) for side in SIDES[1:] if getattr(options, side)}
    further = [*(f"{side} view" for side in others), *["reference picture"] * len(options.reference)]
    if further and len(pictures) != 1:
        raise BadInput(
            f"picture: {len(pictures)} front pictures with a {further[0]}; wanted one front picture. "
            "Run once per object."
        )
    check_view_names([FRONT, *others], preset)
    check_reference_count(1 + len(options.reference))
    outputs = mesh_paths(pictures, options.out, options.format)
    if options.sheet:
        check_sheet(options.sheet)
    turntables = [turntable_path(output) for output in outputs] if options.turntable else []
    check_pictures_are_kept([*pictures, *others.values(), *options.reference], outputs, options.sheet, turntables)
    return [({FRONT: picture, **others}, output) for picture, output in zip(pictures, outputs, strict=True)]


def _store(options: argparse.Namespace) -> ModelStore:
    return ModelStore([*options.models, *default_roots()], offline=options.offline)


def _run_all(jobs: Sequence[Job], preset: Preset, host: TorchHost, options: argparse.Namespace) -> int:
    store = _store(options)
    host.timings = timings = FileTimings(cache_file())
    strips: list[Image.Image] = []
    failures, stopped = 0, False
    for pictures, output in jobs:
        noted, timed, there = len(host.notes), len(host.records), exists(output)
        try:
            problem = _attempt(pictures, output, preset, host, store, options, strips)
        except (Cancelled, KeyboardInterrupt):
            stopped = True
            _complain("cancelled")
            break
        # Release here: no traceback holds tensors any more.
        if problem:
            failures += 1
            _complain(f"{pictures['front'].name}: {problem}")
            host.release()
        else:
            replaced = ", replaced" if there else ""
            _say(f"{pictures['front'].name} -> {output} ({output.stat().st_size / 1e6:.1f} MB{replaced})")
            _say(summary(host.records[timed:], "textured mesh"))
            host.collect()
        if len(jobs) > 1:
            host.notes[noted:] = [f"{pictures['front'].name}: {note}" for note in host.notes[noted:]]
    host.release()
    timings.save()
    if host.records:
        _say("\n".join([format_table(host.records), *host.notes]))
    if strips and not _write_sheet(strips, options.sheet):
        failures += 1
    return 130 if stopped else 1 if failures else 0


def _attempt(
    pictures: Mapping[str, Path], output: Path, preset: Preset, host: TorchHost, store: ModelStore,
    options: argparse.Namespace, strips: list[Image.Image],
) -> str:  # fmt: skip
    """Makes one mesh and its strip of the sheet. Returns the error message, or an empty text."""
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
    references = [load_picture(path) for path in options.reference]
    host.expect(run_parts(preset, pictures=len(pictures) + len(references), references=1 + len(references),
                          turntable_frames=FRAMES if options.turntable else 0))  # fmt: skip
    result = run(
        pictures, preset, host, store, references=references, seeds=seeds, keep_background=options.keep_background
    )
    save(result.mesh, output, host, _coding(options))
    if options.turntable:
        write_turntable(result.mesh, turntable_path(output), host)
    if options.sheet:
        strips.append(draw_strip(paths[FRONT].name, pictures[FRONT], result))


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
    """One progress bar on standard error, from the first phase of a picture to the last."""

    def __init__(self, host: TorchHost, name: str) -> None:
        self._host = host
        self._name = name
        self._bar: tqdm[Any] | None = None

    def __enter__(self) -> _Bar:
        self._host.on_bar = self.show
        return self

    def show(self, fraction: float, line: str) -> None:
        """Moves the bar, and shows the line behind it."""
        if self._bar is None:
            self._bar = tqdm(total=1.0, desc=self._name, leave=False, file=sys.stderr, bar_format=BAR)
        self._bar.set_postfix_str(line, refresh=False)
        self._bar.n = fraction
        self._bar.refresh()

    def __exit__(self, *exception: object) -> None:
        self._host.on_bar = None
        if self._bar is not None:
            self._bar.close()


def _never_fail_to_print() -> None:
    """Prints question marks for characters that the console cannot show, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


def _complain(text: str) -> None:
    sys.stderr.write(text + "\n")
