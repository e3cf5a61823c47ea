"""A module may import only modules of lower floors; a new file must be added to the table of floors."""

import ast
from pathlib import Path

import pytest

import idl_ref

ROOT = Path(idl_ref.__file__).parent
FLOORS = {
    # words
    "_version": 0,
    "checks": 0,
    "npz": 0,
    # mathematics
    "activations": 1,
    "losses": 1,
    "factors": 1,
    "preprocessing": 1,
    "io": 1,
    "optim": 1,
    "solution": 2,
    "certificate": 3,
    "wellposed": 3,
    "functions": 4,
    # the border
    "weights": 5,
    "backends.equation": 5,
    "backends.methods": 5,
    # the twins, each from the bottom: the definition, compiled for the CPU, on a CUDA device
    "backends.numpy.trials": 6,
    "backends.numpy.one_sample": 6,
    "backends.numpy.solve": 7,
    "backends.numpy.layer": 8,
    "backends.numpy.trainer": 9,
    "backends.numpy": 10,
    "backends.numba.simd": 5,
    "backends.numba.simd_plain": 5,
    "backends.numba.threads": 6,
    "backends.numba.compiling": 6,
    "backends.numba.functions": 7,
    "backends.numba.products": 8,
    "backends.numba.columns": 9,
    "backends.numba.trials": 9,
    "backends.numba.kernels": 10,
    "backends.numba.one_sample": 11,
    "backends.numba.layer": 12,
    "backends.numba.trainer": 13,
    "backends.numba": 14,
    "backends.cuda.api": 6,
    "backends.cuda.plans": 6,
    "backends.cuda.columns": 7,
    "backends.cuda.states": 8,
    "backends.cuda.algebra": 8,
    "backends.cuda.trials": 9,
    "backends.cuda.kernels": 10,
    "backends.cuda.newton": 11,
    "backends.cuda.layer": 12,
    "backends.cuda.trainer": 13,
    "backends.cuda": 14,
    # by name
    "backends": 15,
    "equilibrium": 16,
    "settings": 16,
    "torchidl": 16,
    "predictor": 17,
    "model": 18,
    # training
    "train": 19,
    # leaves
    "gradcheck": 20,
    "datasets": 20,
    "plots": 21,
    # theory as code, on top of the model
    "analysis.compose": 20,
    "analysis": 21,
    # the conformance kit, from the bottom: what is asked and true, the planted bugs, the judge, and what users enter by
    "conformance.truth": 20,
    "conformance.truth.problem": 20,
    "conformance.truth.flags": 20,
    "conformance.truth.backend": 21,
    "conformance.truth.files": 21,
    "conformance.truth.maps": 21,
    "conformance.truth.exact": 22,
    "conformance.truth.bounds": 23,
    "conformance.truth.cases": 23,
    "conformance.truth.groups.equation": 24,
    "conformance.truth.groups.inputs": 24,
    "conformance.truth.groups": 25,
    "conformance.truth.vectors": 26,
    "conformance.bugs.plain": 27,
    "conformance.bugs.equation": 28,
    "conformance.bugs.iteration": 28,
    "conformance.bugs.gradients": 28,
    "conformance.bugs.functions": 28,
    "conformance.bugs.adjoint": 29,
    "conformance.bugs": 30,
    "conformance.judge": 31,
    "conformance.judge.report": 31,
    "conformance.judge.call": 31,
    "conformance.judge.relations": 31,
    "conformance.judge.diagnosis": 32,
    "conformance.judge.verdicts": 32,
    "conformance.judge.runner": 33,
    "conformance.judge.detection": 34,
    "conformance.adapters": 35,
    "conformance.remote": 35,
    "conformance.command": 36,
    "conformance": 37,
    # deployment
    "export.plan": 24,
    "export.numpy": 25,
    "export.c": 25,
    "export.onnx": 25,
    "export": 26,
    "bench": 28,
    "": 38,  # The package itself imports its public names when they are first used.
    "__main__": 39,
}
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix("__init__").rstrip("."): path
    for path in sorted(ROOT.rglob("*.py"))
}


def only_for_types(node):
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def statements(tree):
    """Yield every node of the syntax tree, except those under `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if only_for_types(node):
            continue
        yield node
        yield from statements(node)


def imports(source, module=""):
    """Return the modules of idl_ref that a source imports at any place, by their names in the table."""
    package = module if FILES[module].name == "__init__.py" else module.rpartition(".")[0]
    for node in statements(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parent = node.module or ""
            if node.level:
                above = ["idl_ref", *filter(None, package.split("."))]
                parent = ".".join([*above[: len(above) - node.level + 1], *filter(None, [parent])])
            inside = [f"{parent}.{alias.name}" for alias in node.names]
            names = [name if name.removeprefix("idl_ref.") in FILES else parent for name in inside]
        else:
            continue
        yield from (
            name.removeprefix("idl_ref").lstrip(".")
            for name in names
            if name == "idl_ref" or name.startswith("idl_ref.")
        )


def upward(source, module):
    return [name for name in imports(source, module) if name not in FLOORS or FLOORS[name] >= FLOORS[module]]


def test_every_file_has_a_floor():
    assert set(FILES) == set(FLOORS)


@pytest.mark.parametrize("module", FLOORS)
def test_imports_go_down(module):
    assert upward(FILES[module].read_text(encoding="utf-8"), module) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from idl_ref import train", ["train"]),
        ("from idl_ref.train import fit", ["train"]),
        ("import idl_ref.train", ["train"]),
        ("import idl_ref.train as t, numpy", ["train"]),
        ("from . import train", ["train"]),
        ("from .train import fit", ["train"]),
        ("def f():\n    from idl_ref import plots", ["plots"]),
        ("import idl_ref", [""]),
        ("from idl_ref.backends.numpy import solve", ["backends.numpy.solve"]),
        ("from idl_ref import functions", []),
        ("from idl_ref.nowhere import x", ["nowhere"]),
        ("from idl_ref import checks\nimport numpy", []),
        ("from idl_ref import factors as fac", []),
        ("if TYPE_CHECKING:\n    from idl_ref import train", []),
        ("if TYPE_CHECKING:\n    pass\nelse:\n    x = 1\nfrom idl_ref import train", ["train"]),
    ],
)
def test_upward_imports_are_found(source, found):
    assert upward(source, "weights") == found


def test_relative_imports_in_a_package_are_found():
    assert upward("from . import solve", "backends.numpy.trials") == ["backends.numpy.solve"]
    assert upward("from ... import train", "backends.numpy.trials") == ["train"]
    assert upward("from ...train import fit", "backends.numpy.trials") == ["train"]


@pytest.mark.parametrize("module", FILES)
def test_files_are_short(module):
    assert len(FILES[module].read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize("module", FILES)
def test_function_bodies_are_short(module):
    for node in ast.walk(ast.parse(FILES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            assert lines <= 60, f"{module}.{node.name} has {lines} lines"
