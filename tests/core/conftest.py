"""Fixtures of several files of this folder."""

from __future__ import annotations

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


@pytest.fixture(scope="module")
def store(models: Path) -> ModelStore:
    """The file's models; nothing is downloaded."""
    return ModelStore([models], offline=True)
