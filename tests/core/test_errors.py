"""The errors' own names, and copies of them."""

from __future__ import annotations

import pickle

import pytest

from lowvram_core import errors

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.LowVramError)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_comfyui_shows_a_short_name(kind: type[errors.LowVramError]) -> None:
    """ComfyUI writes module.class in front of the message."""
    assert f"{kind.__module__}.{kind.__qualname__}" == f"hunyuan3d_lowvram.{kind.__name__}"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_pickled_errors_come_back(kind: type[errors.LowVramError]) -> None:
    error = kind("shape: met; wanted.")
    error.add_note("a note")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind and str(again) == str(error) and again.__notes__ == ["a note"]


def test_a_missing_package_keeps_its_name() -> None:
    error = errors.MissingDependency("shape: met; wanted.", name="einops")
    assert pickle.loads(pickle.dumps(error)).name == "einops"
