"""Rules for the layout: imports go only downwards; files and functions are small; arguments are annotated."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "lowvram_core"
SOURCES = sorted(CORE.rglob("*.py")) + sorted((ROOT / "nodes").rglob("*.py"))

GROUND = {"errors", "host", "plans", "presets", "progress", "report", "stage_values", "types"}
"""The files that lie directly in lowvram_core."""
FLOORS: list[set[str]] = [
    GROUND,
    {"pictures"},
    {"checks"},
    {"geometry"},
    {"files"},
    {"networks", "render", "fitting", "lending"},
    {"stages"},
    {"app", "nodes"},
]
"""From the bottom to the top. A part may import itself and the parts of lower floors."""
SIBLINGS = {("fitting", "lending")}
"""Pairs on one floor: the first may import the second. The ladder must recognise the errors of a full device."""

COMFYUI = {"comfy", "comfy_api", "comfy_execution", "comfy_extras", "folder_paths", "server", "execution", "app",
           "node_helpers", "latent_preview"}  # fmt: skip
"""ComfyUI's modules. Its `nodes` is not among them: our own folder has the same name."""

LINES_PER_FILE = 400
LINES_PER_FUNCTION = 80


def part_of(module: str) -> str:
    """`a` of the module `lowvram_core.a.b`: a folder of the core, or a file on the ground floor."""
    return module.split(".")[1] if "." in module else "app"


def floor(part: str) -> int:
    """The number of the part's floor; 0 is the ground floor."""
    return next(index for index, parts in enumerate(FLOORS) if part in parts)


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imported(path: Path, tree: ast.AST) -> Iterator[str]:
    """Full names of all modules that a file imports, anywhere in the file."""
    here = module_name(path).split(".")
    package = here if path.name == "__init__.py" else here[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *(node.module or "").split(".")]).rstrip(".")
            yield name
            yield from (f"{name}.{alias.name}" for alias in node.names)


def ours(path: Path) -> set[str]:
    return {name for name in imported(path, parsed(path)) if name.startswith("lowvram_core.")}


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def test_every_folder_has_a_floor() -> None:
    folders = {path.name for path in CORE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    files = {path.stem for path in CORE.glob("*.py")} - {"__init__", "__main__"}
    assert folders | files | {"nodes"} == set.union(*FLOORS)


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_imports_go_only_downwards(path: Path) -> None:
    if path == CORE / "__main__.py" or path == CORE / "__init__.py":
        return
    part = part_of(module_name(path)) if path.is_relative_to(CORE) else "nodes"
    for name in ours(path):
        other = part_of(name)
        known = other == part or {part, other} <= GROUND or (part, other) in SIBLINGS
        allowed = known or floor(other) < floor(part)
        assert allowed, f"{module_name(path)} ({part}) imports {name} ({other})"


def test_the_ground_floor_is_flat() -> None:
    """Its files may import each other, but not in a circle."""
    known = {name: {part_of(other) for other in ours(CORE / f"{name}.py")} - {name} for name in GROUND}
    while known:
        free = {name for name, others in known.items() if not others & known.keys()}
        assert free, f"a circle among {sorted(known)}"
        known = {name: others for name, others in known.items() if name not in free}


@pytest.mark.parametrize("path", [path for path in SOURCES if path.is_relative_to(CORE / "stages")], ids=module_name)
def test_a_stage_knows_no_other_stage(path: Path) -> None:
    others = {name.split(".")[2] for name in ours(path) if name.startswith("lowvram_core.stages.")}
    assert not others - {path.stem}


@pytest.mark.parametrize("path", [path for path in SOURCES if path.is_relative_to(CORE)], ids=module_name)
def test_the_core_knows_no_comfyui_and_no_nodes(path: Path) -> None:
    first = {name.split(".")[0] for name in imported(path, parsed(path))}
    assert not first & (COMFYUI | {"nodes"})


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_one_file_takes_private_names_from_comfyui(path: Path) -> None:
    """All others use its node API only."""
    public = {"comfy_api.latest", *(f"comfy_api.latest.{name}" for name in ("io", "ui", "Types", "ComfyExtension"))}
    names = set(imported(path, parsed(path))) - public
    private = {name for name in names if name.split(".")[0] in COMFYUI}
    assert module_name(path) == "nodes._comfy" or not private


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_what_must_not_be_there(path: Path) -> None:
    tree = parsed(path)
    calls = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert not calls & {"print", "eval", "exec"}
    at_import = {
        name
        for node in tree.body
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in imported(path, node)
    }  # fmt: skip
    assert not {name for name in at_import if name.split(".")[0] in {"rembg", "onnxruntime", "pymeshlab", "hy3dgen"}}


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_files_and_functions_are_small(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LINES_PER_FILE
    for function in functions(parsed(path)):
        assert function.end_lineno is not None
        assert function.end_lineno - function.lineno < LINES_PER_FUNCTION, function.name


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_public_functions_are_annotated_and_documented(path: Path) -> None:
    tree = parsed(path)
    assert ast.get_docstring(tree) or not tree.body, "the module says nothing of itself"
    public = [body for body in (tree, *(node for node in tree.body if isinstance(node, ast.ClassDef)))]
    for owner in public:
        if isinstance(owner, ast.ClassDef) and owner.name.startswith("_"):
            continue
        for function in (node for node in owner.body if isinstance(node, ast.FunctionDef)):
            if function.name.startswith("_") and function.name != "__init__":
                continue
            arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
            bare = [one.arg for one in arguments if one.annotation is None and one.arg not in {"self", "cls"}]
            assert not bare, f"{function.name}: {bare}"
            assert function.returns is not None, function.name
            if function.name != "__init__":
                assert ast.get_docstring(function), f"{function.name} says nothing of itself"
