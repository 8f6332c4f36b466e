"""Weights stream in ComfyUI: its real model management, on a card that counts its bytes.

tests/core/test_residency.py checks the same for the stand-alone host. With dynamic VRAM on, ComfyUI's settings for it
are set, but no GPU memory is mapped: that needs NVIDIA's driver.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE.parent / "core"), str(HERE.parents[1] / "benchmarks"), str(HERE.parents[1] / "texts")]

import order_of_peaks  # noqa: E402  (needs the path above)
import readme_tables  # noqa: E402

from lowvram_core.files.manifest import MODELS  # noqa: E402

DYNAMIC = pytest.mark.parametrize("flags", [(), ("dynamic",)], ids=["dynamic VRAM off", "dynamic VRAM on"])


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import tiny

    return tiny.make_all(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of the published sizes that take no disk space."""
    import full_size

    folder = tmp_path_factory.mktemp("published")
    full_size.write_shape(folder / MODELS["shape/v2-0"].folder, sparse=True)
    full_size.write_delight(folder / MODELS["delight"].folder, sparse=True)
    full_size.write_paint(folder / MODELS["paint"].folder, sparse=True)
    return folder


def play(models: Path, scene: str, *flags: str) -> dict[str, Any]:
    python = os.environ.get("COMFYUI_PYTHON", sys.executable)
    done = subprocess.run(
        [python, "-W", "ignore", str(HERE / "streaming.py"), os.environ["COMFYUI_PATH"], str(models), scene, *flags],
        capture_output=True, text=True, timeout=400, env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return seen


@DYNAMIC
def test_streamed_equals_resident_and_takes_less(models: Path, flags: tuple[str, ...]) -> None:
    seen = play(models, "compare", *flags)  # asserts equality and the order of the peaks
    assert {stage: set(found["peaks"]) for stage, found in seen.items()} == order_of_peaks.COMPONENTS
    for stage, found in seen.items():
        assert found["left"] == [0, 0], f"{stage}: bytes on the card and loaded models"
        assert found["worst"] == 0, f"{stage}: the same kernels ran, so every bit is the same"


def test_weights_come_once_for_both_halves_of_guidance(models: Path) -> None:
    for stage, (together, in_halves) in play(models, "traffic").items():
        assert in_halves == together > 0, stage


def test_full_quality_at_the_published_sizes(published: Path) -> None:
    seen = play(published, "published")
    (whole, whole_reserved), (streamed, streamed_reserved) = seen["free"], seen["stream"]
    peaks_mib = readme_tables.peaks_mib()
    assert whole <= peaks_mib["4 GB"] + 1 and whole_reserved <= 2.5 * 1024
    assert streamed <= peaks_mib["2 GB"] + 8 and streamed_reserved <= 1024


@DYNAMIC
def test_nothing_stays_after_an_error_an_interrupt_and_a_full_card(models: Path, flags: tuple[str, ...]) -> None:
    errors = {"error": "ZeroDivisionError", "interrupt": "InterruptProcessingException", "full card": "OutOfMemory"}
    expected = {
        f"{case}, {residency}": [name, 0, 0] for case, name in errors.items() for residency in ("free", "stream")
    }
    assert play(models, "stop", *flags) == expected


def test_our_budget_decides_what_stays_resident(models: Path) -> None:
    seen = play(models, "threshold")
    largest = max(seen["needs"], key=seen["needs"].get)
    whole, missing_a_byte = seen["streamed"]
    assert whole == ["another pack's model stays"], "as a whole where it just fits, and nobody else leaves for it"
    assert missing_a_byte == [largest, "it left"], "alone streamed where a byte is missing"
    assert seen["needs"][largest] < seen["comfyui"], "below what ComfyUI would keep free beside the weights"
    assert seen["left"] == [0, 0]
