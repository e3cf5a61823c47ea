"""Every import goes down: a module may import only modules of lower floors. A new file needs a floor first."""

import ast
from pathlib import Path

import pytest

import idl_ref

ROOT = Path(idl_ref.__file__).parent
FLOORS = {
    # words
    "checks": 0,
    # mathematics without iteration
    "activations": 1,
    "losses": 1,
    "factors": 1,
    "preprocessing": 1,
    "npz": 0,
    "io": 1,
    "solution": 2,
    # well-posedness and the twins
    "certificate": 3,
    "wellposed": 3,
    "backends": 3,
    "backends.methods": 4,
    "backends.proposals": 5,
    "backends.numpy_": 6,
    # the compiled twin, from the bottom
    "backends.vectors": 4,
    "backends.columns": 5,
    "backends.trials": 6,
    "backends.kernels": 7,
    "backends.numba_": 8,
    # the one-sample twins
    "backends.one_numpy": 5,
    "backends.one_numba": 9,
    # the twin on a CUDA device, from the bottom
    "backends.cuda_api": 4,
    "backends.cuda_plans": 4,
    "backends.cuda_columns": 6,
    "backends.cuda_states": 7,
    "backends.cuda_algebra": 7,
    "backends.cuda_trials": 8,
    "backends.cuda_kernels": 9,
    "backends.cuda_newton": 10,
    "backends.cuda_": 11,
    # the equations by name
    "functions": 7,
    "equilibrium": 9,
    # the model
    "settings": 11,
    "torchidl": 11,
    "gradients": 11,
    "predictor": 11,
    "model": 12,
    # training
    "optim": 13,
    "cuda_training": 14,
    "train": 14,
    # leaves
    "gradcheck": 15,
    "datasets": 15,
    "plots": 16,
    # the conformance kit, from the bottom
    "conformance.problem": 15,
    "conformance.exact": 16,
    "conformance.cases": 17,
    "conformance.bounds": 17,
    "conformance.adapters": 17,
    "conformance.groups": 18,
    "conformance.bugs": 18,
    "conformance.relations": 18,
    "conformance.report": 18,
    "conformance.vectors": 19,
    "conformance.bugs_gradients": 19,
    "conformance.verdicts": 21,
    "conformance.runner": 22,
    "conformance.remote": 20,
    "conformance.command": 24,
    "conformance": 25,
    "": 17,  # the package itself
    # deployment
    "export.plan": 19,
    "export.numpy_": 20,
    "export.c_": 20,
    "export.onnx_": 20,
    "export": 21,
    "bench": 23,
    "__main__": 26,
}
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix("__init__").rstrip("."): path
    for path in sorted(ROOT.rglob("*.py"))
}


def only_for_types(node):
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def statements(tree):
    """Every node but those under `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if only_for_types(node):
            continue
        yield node
        yield from statements(node)


def imports(source, module=""):
    """The modules of idl_ref that a source imports, by their names in the table, anywhere in it."""
    package = module if module in ("", "backends", "export") else module.rpartition(".")[0]
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
        ("from idl_ref.backends import numpy_", []),
        ("from idl_ref.nowhere import x", ["nowhere"]),
        ("from idl_ref import checks\nimport numpy", []),
        ("from idl_ref import factors as fac", []),
        ("if TYPE_CHECKING:\n    from idl_ref import train", []),
        ("if TYPE_CHECKING:\n    pass\nelse:\n    x = 1\nfrom idl_ref import train", ["train"]),
    ],
)
def test_upward_imports_are_found(source, found):
    assert upward(source, "gradients") == found


def test_relative_imports_in_a_package_are_found():
    assert upward("from . import numpy_", "backends.proposals") == ["backends.numpy_"]
    assert upward("from .. import train", "backends.proposals") == ["train"]
    assert upward("from ..train import fit", "backends.proposals") == ["train"]


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
