"""Installing the pack changes nothing that is installed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from install_report import REQUIREMENTS, NoIndex, report


@pytest.mark.parametrize("python", [sys.executable, os.environ.get("COMFYUI_PYTHON", "")], ids=["this", "ComfyUI's"])
def test_no_installed_version_changes(python: str, capsys: pytest.CaptureFixture[str]) -> None:
    if not python:
        pytest.skip("COMFYUI_PYTHON names no interpreter of an environment that runs ComfyUI")
    try:
        result = report(python)
    except NoIndex as error:
        pytest.skip(f"pip cannot reach a package index: {error}")
    with capsys.disabled():
        sys.stdout.write(f"\nrequirements.txt in {python}:\n{result}\n")
    assert not result.changed, f"requirements.txt would change what is installed:\n{result}"


def test_a_change_is_seen(tmp_path: Path) -> None:
    """A requirement that the environment does not meet shows as changed, and cannot be met where versions are kept."""
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("tqdm<4.67\n", encoding="utf-8")
    try:
        result = report(sys.executable, requirements)
    except NoIndex as error:
        pytest.skip(f"pip cannot reach a package index: {error}")
    assert list(result.changed) == ["tqdm"] and str(result).startswith("changed  tqdm ")
    with pytest.raises(RuntimeError, match="conflicting dependencies"):
        report(sys.executable, requirements, keep=True)


def test_no_requirement_has_an_upper_bound() -> None:
    """What ComfyUI has stays, as long as it is new enough."""
    lines = [line.split("#")[0].strip() for line in REQUIREMENTS.read_text(encoding="utf-8").splitlines()]
    for line in filter(None, lines):
        name, _, bound = line.partition(";")[0].partition(">=")
        assert bound and not set("<=!~,") & set(bound), line
        assert name not in {"torch", "torchvision", "torchaudio", "hy3dgen"}
