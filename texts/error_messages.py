"""Every message of an error that the pack raises, as a template: the f-strings of the source with numbered holes.

`models: {0} cannot be read ({1}); wanted the published file.` A hole is a value that only a run knows. Where the source
itself says what a hole can hold, such as "the RAM" or "the disk is full", these texts are parts. They are translated by
themselves. A hole with such texts is filled in here if the template would be ambiguous with a hole in that place.

A message's first line says what was met, what is wanted and what to do. Further lines are lists, and no part of a
template.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product

from python_source import Function, Module, read_all

from lowvram_core.types import SIDES

ERRORS = "lowvram_core.errors"
MOST_ALTERNATIVES = 64
FEWEST_WORDS = 3
"""A template with fewer words of its own is not translated as such, but once for each use."""
BOILERPLATE = {"wanted"}

Template = tuple[str | None, ...]
"""Literal text, and None for each hole."""
UNKNOWN: list[Template] = [(None,)]


@dataclass(frozen=True)
class Scope:
    """Where an expression stands, and what the parameters of its function are at one call."""

    module: str
    function: Function | None = None
    given: Mapping[str, tuple[ast.expr, Scope]] = field(default_factory=dict)


class Messages:
    """Reads the messages out of the source.

    Attributes:
        whole: the templates of messages.
        parts: the templates of texts that holes can hold.
    """

    def __init__(self, modules: Mapping[str, Module] | None = None) -> None:
        self.modules = modules if modules is not None else read_all()
        self.whole: set[str] = set()
        self.parts: set[str] = set()
        self._depth = 0
        self._by_name: dict[str, list[tuple[str, ast.Call, Function | None]]] = {}
        for name, module in self.modules.items():
            for call, function in module.calls:
                called = getattr(call.func, "id", getattr(call.func, "attr", ""))
                self._by_name.setdefault(called, []).append((name, call, function))
        for name, module in self.modules.items():
            for call, function in module.calls:
                if call.args and self._is_error(name, call):
                    self._add_message(call.args[0], Scope(name, function))
        self._add_parts([(side,) for side in SIDES])  # they follow the stage: "paint, left"
        self.parts -= self.whole

    def _is_error(self, module: str, call: ast.Call) -> bool:
        if not isinstance(call.func, ast.Name):
            return False
        return self.modules[module].imports.get(call.func.id, ("", ""))[0] == ERRORS

    def _add_message(self, expr: ast.expr, scope: Scope) -> None:
        for one in self._at_each_call(scope):
            self.whole |= {numbered(template) for template in self._texts_of(expr, one) if _has_words(template)}

    def _at_each_call(self, scope: Scope) -> list[Scope]:
        """The scope once for each call of its function, with the arguments of that call."""
        calls = [] if scope.function is None else list(self._calls_of(scope.module, scope.function))
        return [Scope(scope.module, scope.function, given) for given in calls] or [scope]

    def _calls_of(self, module: str, function: Function) -> Iterator[dict[str, tuple[ast.expr, Scope]]]:
        names = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
        is_method = names[:1] in (["self"], ["cls"])
        for other, call, caller in self._by_name.get(function.name, []):
            if self._names(other, call.func, module, function, is_method=is_method):
                scope = Scope(other, caller)
                values = dict(zip(names[is_method:], call.args, strict=False))
                values |= {word.arg: word.value for word in call.keywords if word.arg}
                yield {name: (value, scope) for name, value in (_defaults(function) | values).items()}

    def _names(self, module: str, called: ast.expr, home: str, function: Function, *, is_method: bool) -> bool:
        if isinstance(called, ast.Attribute):
            return is_method and called.attr == function.name
        if not isinstance(called, ast.Name) or is_method:
            return False
        if module == home:
            return called.id == function.name
        return self.modules[module].imports.get(called.id) == (home, function.name)

    def _texts_of(self, expr: ast.expr, scope: Scope) -> list[Template]:
        """What an expression can be as text. A template that is one hole stands for what is not known."""
        self._depth += 1
        try:
            found = self._read(expr, scope) if self._depth < 12 else UNKNOWN
        finally:
            self._depth -= 1
        return list(dict.fromkeys(found))[:MOST_ALTERNATIVES]

    def _read(self, expr: ast.expr, scope: Scope) -> list[Template]:
        match expr:
            case ast.Constant(value=str(text)):
                return [(text,)]
            case ast.JoinedStr():
                return self._formatted(expr, scope)
            case ast.BinOp(op=ast.Add(), left=left, right=right):
                return _products([self._texts_of(left, scope), self._texts_of(right, scope)])
            case ast.IfExp(body=body, orelse=orelse):
                return self._texts_of(body, scope) + self._texts_of(orelse, scope)
            case ast.BoolOp(op=ast.And(), values=values):
                return [("",), *self._texts_of(values[-1], scope)]
            case ast.BoolOp(values=values):
                return [template for value in values for template in self._texts_of(value, scope)]
            case ast.Subscript(value=ast.Name(id=name)):
                return self._of_table(name, scope)
            case ast.Name(id=name):
                return self._of_name(name, scope)
            case ast.Attribute(attr="label"):
                return self._labels()
            case ast.Call():
                return self._of_call(expr, scope)
        return UNKNOWN

    def _formatted(self, expr: ast.JoinedStr, scope: Scope) -> list[Template]:
        own = " ".join(str(part.value) for part in expr.values if isinstance(part, ast.Constant))
        few = len(set(re.findall("[A-Za-z]{2,}", own)) - BOILERPLATE) < FEWEST_WORDS
        pieces: list[list[Template]] = []
        for index, part in enumerate(expr.values):
            if not isinstance(part, ast.FormattedValue):
                pieces.append(self._texts_of(part, scope))
                if "\n" in str(part.value):  # type: ignore[attr-defined]
                    break
                continue
            plain = part.conversion == -1 and part.format_spec is None
            known = self._texts_of(part.value, scope) if plain else UNKNOWN
            filled = index > 0 and known != UNKNOWN and (few or _is_ambiguous(expr.values, index))
            if filled or self._is_constant(part.value, known, scope):
                pieces.append(known)
            else:
                self._add_parts(known)
                pieces.append(UNKNOWN)
        return _products(pieces)

    def _is_constant(self, expr: ast.expr, known: list[Template], scope: Scope) -> bool:
        """Whether an expression is one text, wherever its function is called from."""
        own = scope.function is None or not isinstance(expr, ast.Name) or expr.id not in _names_of(scope.function)
        return own and len(known) == 1 and None not in known[0]

    def _add_parts(self, templates: list[Template]) -> None:
        self.parts |= {numbered(template) for template in templates if _has_words(template)}

    def _of_table(self, name: str, scope: Scope) -> list[Template]:
        """A value of a module's dict, such as `_REFUSED[extension]`."""
        table = self.modules[scope.module].constants.get(name)
        if not isinstance(table, ast.Dict):
            return UNKNOWN
        return [template for value in table.values for template in self._texts_of(value, scope)]

    def _labels(self) -> list[Template]:
        """What components and needs are called: the arguments `label` of all calls."""
        given = [
            (word.value, Scope(name, function))
            for name, module in self.modules.items()
            for call, function in module.calls
            for word in call.keywords
            if word.arg == "label"
        ]
        for name, module in self.modules.items():
            for function in module.functions.values():
                if "label" in _names_of(function):
                    given += [call["label"] for call in self._calls_of(name, function) if "label" in call]
        return [template for expr, scope in given for template in self._texts_of(expr, scope)]

    def _of_name(self, name: str, scope: Scope) -> list[Template]:
        if name in scope.given:
            expr, where = scope.given[name]
            return self._texts_of(expr, where)
        function = scope.function
        if function is not None:
            bound = [template for expr in _bound(function, name) for template in self._texts_of(expr, scope)]
            if bound:
                return bound
            if name in _names_of(function):
                calls = [given for given in self._calls_of(scope.module, function) if name in given]
                found = [template for given in calls for template in self._texts_of(*given[name])]
                return found or UNKNOWN
        return self._of_constant(name, scope.module)

    def _of_constant(self, name: str, module: str) -> list[Template]:
        known = self.modules[module]
        if name in known.constants:
            return self._texts_of(known.constants[name], Scope(module))
        home, original = known.imports.get(name, ("", ""))
        return self._of_constant(original, home) if home in self.modules else UNKNOWN

    def _of_call(self, call: ast.Call, scope: Scope) -> list[Template]:
        if isinstance(call.func, ast.Attribute) and call.func.attr == "join":
            self._add_items(call, scope)
            return UNKNOWN
        is_own = isinstance(call.func, ast.Attribute) and getattr(call.func.value, "id", "") == "self"
        if not isinstance(call.func, ast.Name) and not is_own:
            return UNKNOWN
        home, name = scope.module, getattr(call.func, "id", getattr(call.func, "attr", ""))
        home, name = self.modules[home].imports.get(name, (home, name))
        function = self.modules[home].functions.get(name) if home in self.modules else None
        if function is None:
            return UNKNOWN
        returned = [node.value for node in ast.walk(function) if isinstance(node, ast.Return) and node.value]
        return [template for value in returned for template in self._texts_of(value, Scope(home, function))] or UNKNOWN

    def _add_items(self, call: ast.Call, scope: Scope) -> None:
        """Adds the texts of a list that is joined to one text: those with a space in what builds the list."""
        names = {node.id for node in ast.walk(call) if isinstance(node, ast.Name)}
        builders: list[ast.AST] = [node for node in _statements(scope.function) if names & _built(node)]
        tables = self.modules[scope.module].constants
        builders += [
            tables[node.id] for one in tuple(builders) for node in ast.walk(one)
            if isinstance(node, ast.Name) and isinstance(tables.get(node.id), ast.Tuple)
        ]  # fmt: skip
        for node in builders:
            for text in _strings(node):
                self._add_parts([one for one in self._texts_of(text, scope) if " " in numbered(one)])


def _defaults(function: Function) -> dict[str, ast.expr]:
    arguments = function.args
    plain = [*arguments.posonlyargs, *arguments.args]
    found = dict(zip([one.arg for one in plain[::-1]], arguments.defaults[::-1], strict=False))
    keyword = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    return found | {one.arg: value for one, value in keyword if value is not None}


def _names_of(function: Function) -> set[str]:
    arguments = function.args
    return {one.arg for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)}


def _bound(function: Function, name: str) -> Iterator[ast.expr]:
    """What a function assigns to a name of its own, also in a loop over literals."""
    for node in ast.walk(function):
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            yield from _unpacked(node.target, node.value, name)
        elif isinstance(node, ast.Assign):
            yield from (value for target in node.targets for value in _unpacked(target, node.value, name))
        elif isinstance(node, ast.NamedExpr):
            yield from _unpacked(node.target, node.value, name)
        elif isinstance(node, ast.For):
            rows = _rows(node.iter, function)
            yield from (value for row in rows for value in _unpacked(node.target, row, name))


def _unpacked(target: ast.expr, value: ast.expr, name: str) -> Iterator[ast.expr]:
    if isinstance(target, ast.Name):
        if target.id == name:
            yield value
    elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
        for one, part in zip(target.elts, value.elts, strict=True):
            yield from _unpacked(one, part, name)


def _rows(iterated: ast.expr, function: Function) -> list[ast.expr]:
    """The rows of a literal that a loop runs over: a tuple or list, or the items of a dict of the function."""
    match iterated:
        case ast.Tuple(elts=rows) | ast.List(elts=rows):
            return list(rows)
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="items")):
            nodes = [node for node in ast.walk(function) if isinstance(node, ast.Assign | ast.AnnAssign)]
            tables = [node.value for node in nodes if name in _built(node) and isinstance(node.value, ast.Dict)]
            return [
                ast.Tuple([key, value], ast.Load())
                for table in tables for key, value in zip(table.keys, table.values, strict=True) if key is not None
            ]  # fmt: skip
    return []


def _statements(function: Function | None) -> list[ast.AST]:
    return [] if function is None else [node for node in ast.walk(function) if isinstance(node, ast.stmt | ast.Call)]


def _built(node: ast.AST) -> set[str]:
    """The names of the lists that a statement makes or lengthens."""
    match node:
        case ast.Assign(targets=targets):
            return {target.id for target in targets if isinstance(target, ast.Name)}
        case ast.AugAssign(target=ast.Name(id=name)) | ast.AnnAssign(target=ast.Name(id=name)):
            return {name}
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="append")):
            return {name}
    return set()


def _strings(node: ast.AST) -> Iterator[ast.expr]:
    """The texts in an expression; an f-string as a whole."""
    if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str)):
        yield node
        return
    for child in ast.iter_child_nodes(node):
        yield from _strings(child)


def _is_ambiguous(values: list[ast.expr], index: int) -> bool:
    """Whether no word stands between a hole and the hole before or after it."""
    for step in (-1, 1):
        gap, place = "", index + step
        while 0 <= place < len(values) and isinstance(values[place], ast.Constant):
            gap += str(values[place].value)  # type: ignore[attr-defined]
            place += step
        if 0 <= place < len(values) and place > 0 and not re.search("[A-Za-z]", gap):
            return True
    return False


def _products(pieces: list[list[Template]]) -> list[Template]:
    return [tuple(part for template in chosen for part in template) for chosen in product(*pieces)][:MOST_ALTERNATIVES]


def _has_words(template: Template) -> bool:
    return bool(re.search("[A-Za-z]{2}", "".join(part or "" for part in template)))


def numbered(template: Template) -> str:
    """The template's first line, its holes as {0}, {1} and so on; neighbouring holes are one."""
    text = "".join("\0" if part is None else part for part in template).partition("\n")[0].strip()
    pieces = re.split("\0+", text)
    return pieces[0] + "".join(f"{{{index}}}{piece}" for index, piece in enumerate(pieces[1:]))
