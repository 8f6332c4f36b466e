"""What ComfyUI's Registry reads, and what it publishes."""

from __future__ import annotations

import tomllib
from fnmatch import fnmatch

from comfy_pack import ROOT, Pack
from node_texts import HELP, LOCALES
from PIL import Image

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_metadata(pack: Pack) -> None:
    project, comfy = PROJECT["project"], PROJECT["tool"]["comfy"]
    assert "comfyui" not in project["name"].lower() and project["version"].count(".") == 2
    assert project["license"] == "Apache-2.0" and project["urls"]["Repository"]
    assert comfy["requires-comfyui"] == f">={pack.package.WANTED_VERSION}"
    assert {"PublisherId", "DisplayName", "Icon"} <= comfy.keys()
    assert f"## {project['version']}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_an_install_has_every_package_of_the_core() -> None:
    """As a library: `pip install .` takes the folders below lowvram_core along, and the files that are no Python."""
    settings = PROJECT["tool"]["setuptools"]
    files = [
        file for file in (ROOT / "lowvram_core").rglob("*") if file.is_file() and file.parent.name != "__pycache__"
    ]
    assert len({file.parent for file in files}) > 5 and {file.suffix for file in files} == {".py", ".toml", ".txt"}
    for file in files:
        package = ".".join(file.parent.relative_to(ROOT).parts)
        assert any(fnmatch(package, pattern) for pattern in settings["packages"]["find"]["include"]), package
        assert (file.parent / "__init__.py").is_file(), package
        taken = ["*.py", *settings["package-data"].get(package, [])]
        assert any(fnmatch(file.name, pattern) for pattern in taken), file


def test_icon() -> None:
    with Image.open(ROOT / "icon.png") as icon:
        assert icon.size == (400, 400)


def test_what_is_published() -> None:
    """The pack needs these where it runs; demo checkpoints and tests stay in the repository."""
    lines = (ROOT / ".comfyignore").read_text(encoding="utf-8").splitlines()
    left_out = {line.rstrip("/") for line in lines if line and not line.startswith("#")}
    needed = {
        "__init__.py", "nodes", "lowvram_core", "locales", "web", "workflows", "subgraphs", "requirements.txt",
        "NOTICE",
    }  # fmt: skip
    assert not needed & left_out and {"demo", "tests", "texts", "benchmarks"} <= left_out
    assert HELP.is_relative_to(ROOT / "web") and LOCALES == ROOT / "locales"
    for name in left_out - {".venv", ".cache", "output", "docs/pictures"}:
        assert (ROOT / name).exists(), f".comfyignore names {name}, which is not there"
