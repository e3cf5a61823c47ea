"""Mutants: the plain backend with one operator, index, transpose, comparison, constant or statement changed by machine.

Sites are visited in the order of the source, and each gives the same mutants every time. A mutant that changes an
answer on some case by more than its bound must be found; one that does not is equivalent as far as the kit can see.
"""

from __future__ import annotations

import ast
import copy
import inspect
from collections import Counter
from collections.abc import Iterator
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

from idl_ref import factors
from idl_ref.conformance.bugs import plain

BINARY: dict[type, type] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr, ast.Mod: ast.FloorDiv, ast.MatMult: ast.Mult,
}  # fmt: skip
COMPARED: dict[type, tuple[type, ...]] = {
    ast.Lt: (ast.LtE, ast.Gt), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.Lt), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,),
}  # fmt: skip
NAMED = {
    "maximum": "minimum", "minimum": "maximum", "all": "any", "any": "all", "max": "min", "sum": "max",
    "zeros_like": "ones_like", "ones_like": "zeros_like", "ones": "zeros", "transpose": "apply",
}  # fmt: skip
SHARED = ("apply", "transpose", "gradients")  # functions of `idl_ref.factors` that the plain backend consists of


class Mutant(NamedTuple):
    """One change: where it is, and how the source reads before and after it."""

    module: str
    function: str
    before: str
    after: str
    node: ast.AST
    other: ast.AST

    @property
    def diagnosis(self) -> str:
        """The change in one line."""
        return f"{self.module}.{self.function}: {self.before} → {self.after}"

    def make(self) -> plain.Plain:
        """The plain backend with this change."""
        changed = ModuleType(f"mutant of {self.module}")
        tree = _replaced({"plain": plain, "factors": factors}[self.module], self.node, self.other)
        exec(compile(tree, changed.__name__, "exec"), changed.__dict__)
        if self.module == "plain":
            return changed.Plain()
        whole = ModuleType("plain backend on a mutant")
        exec(compile(_source(plain), whole.__name__, "exec"), whole.__dict__)
        whole.__dict__["fac"] = changed
        return whole.Plain()


@cache
def _source(module: ModuleType) -> ast.Module:
    return ast.parse(inspect.getsource(module))


@cache
def mutants() -> dict[str, Mutant]:
    """Every mutant, by a name that does not depend on line numbers."""
    found: dict[str, Mutant] = {}
    seen: Counter[str] = Counter()
    for mutant in (*_of(plain, None), *_of(factors, SHARED)):
        seen[mutant.diagnosis] += 1
        again = f" ({seen[mutant.diagnosis]})" if seen[mutant.diagnosis] > 1 else ""
        found[f"{mutant.diagnosis}{again}"] = mutant
    return found


def _of(module: ModuleType, only: tuple[str, ...] | None) -> Iterator[Mutant]:
    """The mutants of all methods and functions of a module, or of some of its functions."""
    name = module.__name__.rpartition(".")[2]
    for function in ast.walk(_source(module)):
        if not isinstance(function, ast.FunctionDef) or not (function.name in only if only else _is_method(function)):
            continue
        body = function.body[1:] if ast.get_docstring(function) else function.body
        for statement in body:
            for node in ast.walk(statement):
                for other in _variants(node):
                    if not hasattr(other, "lineno"):
                        ast.copy_location(other, node)
                    yield Mutant(name, function.name, _text(node), _text(other), node, other)


def _is_method(function: ast.FunctionDef) -> bool:
    return bool(function.args.args) and function.args.args[0].arg == "self"


def _text(node: ast.AST) -> str:
    """The source of a node on one line."""
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 40 else f"{text[:39]}…"


def _replaced(module: ModuleType, node: ast.AST, other: ast.AST) -> ast.Module:
    """The source of a module with another node in the place of one."""

    class Replace(ast.NodeTransformer):
        def visit(self, at: ast.AST) -> Any:
            return other if at is node else self.generic_visit(at)

    # Fields are visited in place, so that the original tree is copied with its nodes remembered by identity.
    memo = {id(node): node}
    tree: ast.Module = copy.deepcopy(_source(module), memo)
    return ast.fix_missing_locations(Replace().visit(tree))


# --- what a node is changed to ----------------------------------------------------------------------------------------


def _variants(node: ast.AST) -> Iterator[ast.AST]:
    """Every change of one node."""
    rule = _RULES.get(type(node))
    if rule is not None:
        yield from rule(node)


def _binary(node: ast.BinOp) -> Iterator[ast.AST]:
    if type(node.op) in BINARY:
        yield ast.BinOp(node.left, BINARY[type(node.op)](), node.right)
    yield node.left
    yield node.right
    if isinstance(node.op, ast.MatMult | ast.Sub | ast.Div):
        yield ast.BinOp(node.right, node.op, node.left)


def _compare(node: ast.Compare) -> Iterator[ast.AST]:
    for op in COMPARED.get(type(node.ops[0]), ()) if len(node.ops) == 1 else ():
        yield ast.Compare(node.left, [op()], node.comparators)


def _boolean(node: ast.BoolOp) -> Iterator[ast.AST]:
    yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    yield from node.values


def _unary(node: ast.UnaryOp) -> Iterator[ast.AST]:
    yield node.operand


def _constant(node: ast.Constant) -> Iterator[ast.AST]:
    if isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node.value, int):
        yield ast.Constant(node.value + 1)
        if node.value:
            yield ast.Constant(node.value - 1)
    elif isinstance(node.value, float):
        yield ast.Constant(node.value + 1.0)


def _attribute(node: ast.Attribute) -> Iterator[ast.AST]:
    if node.attr == "T":
        yield node.value


def _call(node: ast.Call) -> Iterator[ast.AST]:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
    if name in NAMED and isinstance(node.func, ast.Attribute):
        yield ast.Call(ast.Attribute(node.func.value, NAMED[name], ast.Load()), node.args, node.keywords)
    if name in ("abs", "isfinite") and node.args:
        yield node.args[0]
    if name in ("maximum", "minimum", "where"):
        yield node.args[-1]
        yield node.args[-2]
    if name == "astype" and isinstance(node.func, ast.Attribute):
        yield node.func.value
    for i in range(len(node.args) - 1):
        swapped = [*node.args[:i], node.args[i + 1], node.args[i], *node.args[i + 2 :]]
        yield ast.Call(node.func, swapped, node.keywords)
    for i in range(len(node.keywords)):
        yield ast.Call(node.func, node.args, node.keywords[:i] + node.keywords[i + 1 :])


def _choice(node: ast.IfExp) -> Iterator[ast.AST]:
    yield node.body
    yield node.orelse


def _condition(node: ast.If) -> Iterator[ast.AST]:
    for value in (True, False):
        yield ast.If(ast.Constant(value), node.body, node.orelse)


def _assigned(node: ast.Assign) -> Iterator[ast.AST]:
    yield ast.Pass()
    if isinstance(node.value, ast.Tuple) and len(node.value.elts) == 2:
        yield ast.Assign(node.targets, ast.Tuple(node.value.elts[::-1], ast.Load()))


def _broken(node: ast.Break) -> Iterator[ast.AST]:
    yield ast.Pass()


def _mapping(node: ast.Dict) -> Iterator[ast.AST]:
    for i in range(len(node.keys)):
        yield ast.Dict(node.keys[:i] + node.keys[i + 1 :], node.values[:i] + node.values[i + 1 :])


_RULES: dict[type, Any] = {
    ast.BinOp: _binary, ast.Compare: _compare, ast.BoolOp: _boolean, ast.UnaryOp: _unary, ast.Constant: _constant,
    ast.Attribute: _attribute, ast.Call: _call, ast.IfExp: _choice, ast.If: _condition, ast.Assign: _assigned,
    ast.Break: _broken, ast.Dict: _mapping,
}  # fmt: skip
