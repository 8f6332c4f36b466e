"""Feeds inputs to the pack, and judges how each ends.

    make fuzz                                    1,000 inputs and more
    python tests/fuzz/runner.py --count 100 --family "glTF documents" --seed 7
    python tests/fuzz/runner.py --only "glTF documents" 7 123      one input again, with its traceback

An input may end with a result, with a LowVramError, or at the first network that it asks for. Anything else is a
failure: another exception, a warning, more than 10 s, more than 2 GB of RAM, or a file outside its output folder.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
for folder in (ROOT, ROOT / "benchmarks", HERE.parent / "core", HERE):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from families import Borrowed, Case, Families  # noqa: E402  (needs the path above)
from resident import reset_peak, resident_mib  # noqa: E402

from lowvram_core.errors import LowVramError  # noqa: E402

LONGEST_S = 10
LARGEST_MIB = 2000


class TooLong(Exception):
    """An input took more than LONGEST_S."""


@dataclass
class Report:
    """How the inputs ended."""

    ends: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By family and kind of end."""
    failures: list[dict[str, Any]] = field(default_factory=list)
    slowest: float = 0.0
    largest_mib: float = 0.0

    def summary(self) -> str:
        """A line for each family, and the failures."""
        kinds = ("result", "refused", "accepted", "failure")
        lines = [f"{'family':<18}" + "".join(f"{kind:>10}" for kind in kinds)]
        for family in dict.fromkeys(family for family, _ in self.ends):
            lines.append(f"{family:<18}" + "".join(f"{self.ends[family, kind]:>10}" for kind in kinds))
        lines.append(f"{sum(self.ends.values())} inputs; the longest took {self.slowest:.1f} s, the largest "
                     f"{self.largest_mib:.0f} MiB of RAM; {len(self.failures)} failures")  # fmt: skip
        lines += [f"  {row['family']} {row['seed']} {row['index']}: {row['error']}" for row in self.failures]
        return "\n".join(lines)


def fuzz(names: list[str], count: int, seed: int, scratch: Path) -> Report:
    """Feeds `count` inputs of each family. The same seed gives the same inputs."""
    families, report = Families(scratch), Report()
    families._store  # noqa: B018  (made before the clock runs)
    for name in names:
        for index in range(count):
            with _folder(scratch) as folder:
                end, error = judge(make(families, name, seed, index, folder), folder, report)
            report.ends[name, end] += 1
            if end == "failure":
                report.failures.append({"family": name, "seed": seed, "index": index, "error": error})
    return report


def make(families: Families, name: str, seed: int, index: int, folder: Path) -> Case:
    """One input."""
    return families.all[name](random.Random(f"{name} {seed} {index}"), folder)


def judge(case: Case, folder: Path, report: Report) -> tuple[str, str]:
    """How an input ends, and the error if that is a failure."""
    before = {path for path in folder.parent.rglob("*") if folder not in path.parents}
    gc.collect()
    reset_peak()
    resident, start = resident_mib("VmRSS"), time.perf_counter()
    try:
        with _limited(), _strict():
            case()
        end, error = "result", ""
    except Exception as caught:
        end, error = _end_of(caught)
    seconds, used = time.perf_counter() - start, resident_mib("VmHWM") - resident
    report.slowest, report.largest_mib = max(report.slowest, seconds), max(report.largest_mib, used)
    if used > LARGEST_MIB:
        end, error = "failure", f"{used:.0f} MiB of RAM"
    added = {path for path in folder.parent.rglob("*") if folder not in path.parents} - before
    if added:
        end, error = "failure", f"it wrote {', '.join(str(path) for path in sorted(added)[:3])}"
    return end, error


def _end_of(error: Exception) -> tuple[str, str]:
    if isinstance(error, Borrowed):
        return "accepted", ""
    if any(cls.__name__ == LowVramError.__name__ for cls in type(error).__mro__):  # ComfyUI imports a second one
        return "refused", ""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return "failure", f"{type(error).__name__}: {str(error)[:200]} ({Path(place.filename).name}:{place.lineno})"


@contextmanager
def _strict() -> Iterator[None]:
    """Makes warnings errors, as pyproject.toml does for the tests."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "__array__ implementation doesn't accept a copy", DeprecationWarning)
        yield


@contextmanager
def _folder(scratch: Path) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(dir=scratch))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _limited() -> Iterator[None]:
    """Ends what takes more than LONGEST_S. Linux and macOS only; in the main thread."""

    def stop(*_: object) -> None:
        raise TooLong(f"more than {LONGEST_S} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LONGEST_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def main(arguments: list[str] | None = None) -> int:
    """Runs the fuzzer; returns 1 if an input failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=125, help="inputs of each family")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--family", action="append", help="one family; may be given several times")
    parser.add_argument("--only", nargs=3, metavar=("FAMILY", "SEED", "INDEX"), help="one input, with its traceback")
    parser.add_argument("--out", type=Path, help="also write the summary as JSON")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as made:
        scratch = Path(made)
        if options.only:
            name, seed, index = options.only
            with _folder(scratch) as folder, _strict():
                make(Families(scratch), name, int(seed), int(index), folder)()
            return 0
        names = options.family or list(Families(scratch).all)
        report = fuzz(names, options.count, options.seed, scratch)
    sys.stdout.write(report.summary() + "\n")
    if options.out:
        rows = [{"family": family, "end": end, "inputs": count} for (family, end), count in report.ends.items()]
        found = {"seed": options.seed, "rows": rows, "slowest_s": round(report.slowest, 2),
                 "largest_mib": round(report.largest_mib), "failures": report.failures}  # fmt: skip
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
