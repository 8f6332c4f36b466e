"""Installing the pack changes nothing that is installed."""

from __future__ import annotations

import os
import re
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from install_report import REQUIREMENTS, NoIndex, report
from resolver import HY3DGEN, TARGETS, Resolution, comfyuis, of_the_pack


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


Target = tuple[str, str]
WITH_COMFYUI = comfyuis() is not None
ASKED = TARGETS if WITH_COMFYUI else TARGETS[::4]
"""Every target beside ComfyUI's own requirements; without those, each platform and each Python version once."""


@pytest.fixture(scope="module")
def resolutions() -> dict[Target, Resolution]:
    """All targets, asked at once: most of the time is spent waiting for the index."""
    if find_spec("uv") is None:
        pytest.skip("uv is not installed")
    return {target: of_the_pack(target) for target in ASKED}


def found(resolution: Resolution) -> dict[str, str]:
    """The versions; skips where there is no index."""
    try:
        return resolution.versions()
    except NoIndex as error:
        pytest.skip(f"uv cannot reach a package index: {str(error).splitlines()[-1]}")


@pytest.mark.parametrize("target", ASKED, ids=", Python ".join)
def test_every_platform_has_wheels_that_go_together(target: Target, resolutions: dict[Target, Resolution]) -> None:
    versions = found(resolutions[target])
    lines = [line.split("#")[0].strip() for line in REQUIREMENTS.read_text(encoding="utf-8").splitlines()]
    wanted = {re.split(r"[>;]", line)[0].lower().replace("_", "-") for line in filter(None, lines)}
    assert wanted | {"torch", "torchvision", "dracopy", "numba"} <= versions.keys()


@pytest.mark.skipif(not WITH_COMFYUI, reason="COMFYUI_PATH is not set: resolved without ComfyUI's own requirements")
def test_comfyuis_own_requirements_were_met_too(resolutions: dict[Target, Resolution]) -> None:
    for target in ASKED:
        assert {"comfyui-frontend-package", "av", "torchaudio"} <= found(resolutions[target]).keys(), target


def test_a_conflict_and_a_missing_wheel_are_told(resolutions: dict[Target, Resolution]) -> None:
    """And hy3dgen, which is installed with --no-deps, has a wheel."""
    target = ("Windows", "3.13")
    hy3dgen = Resolution(target, [HY3DGEN], alone=True)
    conflict, no_wheel = (Resolution(target, [], names) for names in (("einops<0.8", "einops>=0.8"), ("uvloop",)))
    assert list(found(hy3dgen)) == ["hy3dgen"]
    with pytest.raises(RuntimeError, match="unsatisfiable"):
        conflict.versions()
    with pytest.raises(RuntimeError, match="no usable wheels"):
        no_wheel.versions()
