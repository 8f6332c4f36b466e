"""Fixtures of several files of this folder."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lowvram_core.files.store import ModelStore


@pytest.fixture
def small_views(monkeypatch: pytest.MonkeyPatch) -> None:
    """Delight and paint make 128 px instead of 512: the same operators, a sixteenth of the work."""
    from lowvram_core.stages import delight, paint

    for stage in (delight, paint):
        monkeypatch.setattr(stage, "VIEW_PX", 128)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with tiny checkpoints of every kind."""
    import tiny  # imports torch and diffusers, which many files do not need

    return tiny.make_all(tmp_path_factory.mktemp("models"))


@pytest.fixture(autouse=True)
def own_timings(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The command line's file of timings, away from the user's. A test that uses it gets its path."""
    path = tmp_path_factory.mktemp("cache") / "timings.json"
    if "lowvram_core.app.cli" in sys.modules:
        monkeypatch.setattr("lowvram_core.app.cli.cache_file", lambda: path)
    return path


@pytest.fixture(scope="module")
def store(models: Path) -> ModelStore:
    """The file's models; nothing is downloaded."""
    return ModelStore([models], offline=True)
