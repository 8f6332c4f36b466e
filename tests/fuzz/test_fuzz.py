"""A short run of the fuzzer. `make fuzz` runs it for minutes."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
for folder in (HERE.parent / "core", HERE):
    if str(folder) not in sys.path:
        sys.path.append(str(folder))

from families import Borrowed  # noqa: E402  (needs the path above)
from mutate import damaged_bytes, damaged_text, damaged_values  # noqa: E402
from runner import Report, fuzz, judge  # noqa: E402

from lowvram_core.errors import BadInput  # noqa: E402

COUNT = 6
"""Inputs of each family. The first ones of `make fuzz`."""


def test_the_first_inputs_end_well(tmp_path: Path) -> None:
    report = fuzz(["pictures", "glTF documents", "mesh files", "meshes", "cutouts", "views", "presets", "checkpoints",
                   "command lines"], COUNT, 0, tmp_path)  # fmt: skip
    assert report.failures == [] and sum(report.ends.values()) == 9 * COUNT
    assert {end for _, end in report.ends} == {"result", "refused", "accepted"}


def test_the_first_values_of_workflows_end_well() -> None:
    """In a process of its own: it changes the pack, so that no network is lent."""
    command = [sys.executable, str(HERE / "runner.py"), "--family", "workflow values", "--count", "25"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0 and "25 inputs" in said and " 0 failures" in said, said


def test_bad_ends_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors of other kinds, warnings, files outside of the folder, and what never ends."""
    monkeypatch.setattr("runner.LONGEST_S", 1)
    folder = tmp_path / "case"
    folder.mkdir()

    def end(code: str) -> str:
        return judge(
            lambda: exec(code, {"BadInput": BadInput, "Borrowed": Borrowed, "folder": folder}), folder, Report()
        )[0]

    assert (
        end("pass") == "result" and end("raise BadInput('x')") == "refused" and end("raise Borrowed('x')") == "accepted"
    )
    for code in ("1 / 0", "import warnings; warnings.warn('x')", "while True: pass", "[0][3]"):
        assert end(code) == "failure", code
    assert end("(folder / 'inside').touch()") == "result"
    assert end("(folder.parent / 'outside').touch()") == "failure"


@pytest.mark.parametrize("damage", [damaged_bytes, damaged_text, damaged_values])
def test_damage_is_the_same_for_one_seed(damage: object) -> None:
    whole = {
        damaged_bytes: b"0123456789" * 20,
        damaged_text: "a b c\nd e f\n" * 9,
        damaged_values: {"a": [1, {"b": 2}]},
    }
    made = [[damage(random.Random(seed), whole[damage]) for seed in range(20)] for _ in range(2)]  # type: ignore[operator,index]
    assert repr(made[0]) == repr(made[1])  # NaN differs from itself
    assert any(result != whole[damage] for result in made[0])  # type: ignore[index]
