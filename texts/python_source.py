"""The pack's Python source, parsed: what each module defines, imports and calls."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Module:
    """What a module defines and imports."""

    tree: ast.Module
    constants: dict[str, ast.expr] = field(default_factory=dict)
    functions: dict[str, Function] = field(default_factory=dict)
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)
    calls: list[tuple[ast.Call, Function | None]] = field(default_factory=list)


def read_all(root: Path = ROOT) -> Mapping[str, Module]:
    """The pack's modules by dotted name."""
    paths = [*(root / "lowvram_core").rglob("*.py"), *(root / "nodes").rglob("*.py")]
    found = {}
    for path in sorted(paths):
        name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        found[name] = read(name, path.read_text(encoding="utf-8"), package=path.name == "__init__.py")
    return found


def read(name: str, text: str, *, package: bool) -> Module:
    """Parses one module."""
    tree = ast.parse(text)
    module = Module(tree)
    for node in ast.walk(tree):
        if isinstance(node, Function):
            module.functions.setdefault(node.name, node)
        elif isinstance(node, ast.ImportFrom):
            source = _absolute(name, node, package=package)
            module.imports |= {alias.asname or alias.name: (source, alias.name) for alias in node.names}
    for statement in tree.body:
        if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
            module.constants |= {target.id: statement.value for target in _targets(statement)}
    _collect_calls(tree, None, module.calls)
    return module


def _absolute(name: str, node: ast.ImportFrom, *, package: bool) -> str:
    if not node.level:
        return node.module or ""
    parts = name.split(".") if package else name.split(".")[:-1]
    parts = parts[: len(parts) - node.level + 1]
    return ".".join([*parts, *([node.module] if node.module else [])])


def _targets(statement: ast.Assign | ast.AnnAssign) -> Iterator[ast.Name]:
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    yield from (target for target in targets if isinstance(target, ast.Name))


def _collect_calls(node: ast.AST, function: Function | None, found: list[tuple[ast.Call, Function | None]]) -> None:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Call):
            found.append((child, function))
        _collect_calls(child, child if isinstance(child, Function) else function, found)
