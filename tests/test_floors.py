"""A module may import only modules of lower floors; a new file must be added to the table of floors."""

import ast
from pathlib import Path

import pytest

import idl_ref

ROOT = Path(idl_ref.__file__).parent
FLOORS = {
    # words
    "_version": 0,
    "activation_checks": 0,
    "activation_names": 2,
    "slopes": 0,
    "checks": 0,
    "blas": 0,
    "sparse": 0,
    "cycles": 0,
    "quantised": 0,
    "choices": 0,
    "files": 1,
    "npz": 1,
    "classes": 0,
    "columns": 1,
    "delimited": 2,
    "tables": 3,
    # mathematics
    "activations": 1,
    "losses": 1,
    "factors": 1,
    "minors": 1,
    "monotone": 1,
    "preprocessing": 1,
    "io": 2,
    "optim": 1,
    "blocks": 1,
    "solution": 2,
    "certificate": 3,
    "wellposed": 2,
    "perron": 3,
    "functions": 4,
    "reasons": 4,
    # the border
    "weights": 5,
    "labels": 6,
    "systems": 6,
    "backends.equation": 5,
    "backends.methods": 5,
    "backends.entrywise": 6,
    # the twins, each from the bottom: the definition, compiled for the CPU, on a CUDA device
    "backends.numpy.trials": 6,
    "backends.numpy.one_sample": 6,
    "backends.numpy.ledger": 6,
    "backends.numpy.blocks": 7,
    "backends.numpy.solve": 7,
    "backends.numpy.layer": 8,
    "backends.numpy.trainer": 9,
    "backends.numpy": 10,
    "backends.numba.simd": 5,
    "backends.numba.simd_plain": 5,
    "backends.numba.threads": 7,
    "backends.numba.compiling": 6,
    "backends.numba.descent": 8,
    "backends.numba.maps": 8,
    "backends.numba.functions": 7,
    "backends.numba.mixed": 8,
    "backends.numba.products": 9,
    "backends.numba.columns": 9,
    "backends.numba.dots": 9,
    "backends.numba.sparse": 9,
    "backends.numba.trials": 10,
    "backends.numba.rounded": 10,
    "backends.numba.kernels": 11,
    "backends.numba.passes": 12,
    "backends.numba.levels": 13,
    "backends.numba.launches": 13,
    "backends.numba.sequences": 13,
    "backends.numba.recurrent": 14,
    "backends.numba.blocks": 14,
    "backends.numba.one_sample": 14,
    "backends.numba.parametrisation": 14,
    "backends.numba.losses": 14,
    "backends.numba.layer": 15,
    "backends.numba.workspace": 15,
    "backends.numba.trainer": 16,
    "backends.numba": 17,
    "backends.cuda.api": 6,
    "backends.cuda.plans": 6,
    "backends.cuda.columns": 7,
    "backends.cuda.states": 8,
    "backends.cuda.algebra": 8,
    "backends.cuda.trials": 9,
    "backends.cuda.rounded": 9,
    "backends.cuda.kernels": 10,
    "backends.cuda.newton": 11,
    "backends.cuda.layer": 12,
    "backends.cuda.trainer": 13,
    "backends.cuda": 14,
    # by name
    "backends": 18,
    "equilibrium": 19,
    "settings": 19,
    "torchidl": 19,
    "interface": 20,
    "composition": 20,
    "predictor": 20,
    "model": 21,
    # training
    "targets": 22,
    "training": 22,
    "training.history": 22,
    "training.progress": 22,
    "training.interrupts": 22,
    "training.rows": 22,
    "training.samples": 24,
    "training.tree": 22,
    "training.ranks": 23,
    "training.leaves": 24,
    "training.evaluation": 25,
    "training.checkpoint": 24,
    "training.epoch": 23,
    "training.rates": 25,
    "training.loop": 26,
    "train": 27,
    # scikit-learn's conventions, on top of the training
    "estimators.conventional": 22,
    "estimators.plain": 22,
    "estimators.base": 28,
    "estimators.classifier": 29,
    "estimators.regressor": 29,
    "estimators": 30,
    # leaves
    "derivatives": 22,
    "comparison": 23,
    "gradcheck": 24,
    "datasets": 22,
    "plots": 28,
    "report.markup": 27,
    "report.scores": 27,
    "report.charts": 28,
    "report.results": 29,
    "report.training": 29,
    "report": 30,
    # theory as code, on top of the model
    "analysis.compose": 22,
    "analysis.loops": 22,
    "analysis.networks": 23,
    "analysis.torch_layers": 22,
    "analysis.convert": 24,
    "analysis.rescaling": 22,
    "analysis.mondeq": 22,
    "analysis.wellposedness": 22,
    "analysis.through_time": 22,
    "analysis.time_steps": 22,
    "analysis.trajectory": 23,
    "analysis.recurrent_files": 22,
    "analysis.recurrent_check": 25,
    "analysis.recurrent": 28,
    "analysis.balls": 22,
    "analysis.boxes": 23,
    "analysis.compress": 22,
    "analysis.deviations": 24,
    "analysis.intervals": 24,
    "analysis.rivals": 25,
    "analysis.questions": 25,
    "analysis.crown": 26,
    "analysis.exact_margins": 27,
    "analysis.margins": 28,
    "analysis.attacks": 29,
    "analysis.accuracy": 30,
    "analysis.robust": 31,
    "analysis.lasso": 22,
    "analysis.teachers": 22,
    "analysis.regression": 23,
    "analysis.sim": 24,
    "analysis": 32,
    # the conformance kit, from the bottom: what is asked and true, the planted bugs, the judge, and what users enter by
    "conformance.truth": 22,
    "conformance.truth.problem": 22,
    "conformance.truth.flags": 22,
    "conformance.truth.backend": 23,
    "conformance.truth.files": 23,
    "conformance.truth.rational": 22,
    "conformance.truth.maps": 23,
    "conformance.truth.exact": 24,
    "conformance.truth.majorants": 23,
    "conformance.truth.copies": 25,
    "conformance.truth.bounds": 25,
    "conformance.truth.cases": 25,
    "conformance.truth.groups.blocks": 26,
    "conformance.truth.groups.equation": 26,
    "conformance.truth.groups.inputs": 26,
    "conformance.truth.groups.roots": 26,
    "conformance.truth.groups.rounding": 26,
    "conformance.truth.groups.sparse": 26,
    "conformance.truth.groups.sizes": 26,
    "conformance.truth.groups": 27,
    "conformance.truth.draws": 27,
    "conformance.truth.shrinking": 28,
    "conformance.truth.vectors": 28,
    "conformance.bugs.plain": 29,
    "conformance.bugs.reached": 29,
    "conformance.bugs.equivalent": 30,
    "conformance.bugs.mutants": 30,
    "conformance.bugs.batches": 30,
    "conformance.bugs.counts": 30,
    "conformance.bugs.entries": 30,
    "conformance.bugs.equation": 30,
    "conformance.bugs.functions": 30,
    "conformance.bugs.gradients": 30,
    "conformance.bugs.iteration": 30,
    "conformance.bugs.memory": 30,
    "conformance.bugs.precision": 30,
    "conformance.bugs.sizes": 30,
    "conformance.bugs.state": 30,
    "conformance.bugs.stopping": 30,
    "conformance.bugs.values": 30,
    "conformance.bugs.adjoint": 31,
    "conformance.bugs.slopes": 31,
    "conformance.bugs": 32,
    "conformance.judge.call": 31,
    "conformance.judge.subjects": 32,
    # what explains wrong numbers, which knows neither the planted bugs nor the runner
    "conformance.judge": 25,
    "conformance.judge.evidence": 26,
    "conformance.judge.steps": 26,
    "conformance.judge.features": 26,
    "conformance.judge.iterates": 27,
    "conformance.judge.transformations": 27,
    "conformance.judge.chunks": 28,
    "conformance.judge.curves": 28,
    "conformance.judge.entries": 28,
    "conformance.judge.maps": 28,
    "conformance.judge.quantities": 29,
    "conformance.judge.numbers": 29,
    "conformance.judge.terms": 28,
    "conformance.judge.places": 28,
    "conformance.judge.operands": 29,
    "conformance.judge.patterns": 30,
    "conformance.judge.precisions": 30,
    "conformance.judge.library": 31,
    "conformance.judge.text": 24,
    "conformance.judge.pages": 24,
    "conformance.judge.report": 33,
    "conformance.judge.finders": 0,
    "conformance.judge.counts": 32,
    "conformance.judge.relations": 33,
    "conformance.judge.diagnosis": 34,
    "conformance.judge.sequences": 33,
    "conformance.judge.protocols": 34,
    "conformance.judge.verdicts": 34,
    "conformance.judge.quick": 33,
    "conformance.judge.thresholds": 35,
    "conformance.judge.runner": 36,
    "conformance.judge.detection": 37,
    "conformance.judge.smallest": 37,
    "conformance.by_name": 37,
    "conformance.adapters": 37,
    "conformance.process": 24,
    "conformance.remote": 37,
    # what a right backend is worth
    "conformance.score": 25,
    "conformance.score.badge": 34,
    "conformance.score.words": 34,
    "conformance.score.compare": 35,
    "conformance.score.accuracy": 36,
    "conformance.score.iterations": 38,
    "conformance.score.speed": 38,
    "conformance.score.scored": 39,
    "conformance.command": 40,
    "conformance": 39,
    "conformance.testing": 41,
    "pytest_plugin": 42,
    # deployment
    "export.inputs": 25,
    "export.majorant": 25,
    "export.plan": 26,
    "export.c_text": 26,
    "export.js": 27,
    "export.numpy": 27,
    "export.c": 27,
    "export.onnx": 27,
    "export": 28,
    "bench": 30,
    # engines that people already have
    "parallel": 31,
    "parallel.tasks": 22,
    "parallel.progress": 22,
    "parallel.outputs": 22,
    "parallel.sources": 27,
    "parallel.workers": 28,
    "parallel.prediction": 29,
    "parallel.points": 22,
    "parallel.lazy": 23,
    "parallel.results": 23,
    "parallel.fits": 29,
    "parallel.sweeps": 30,
    # the command line
    "commands": 0,
    "commands.stopping": 26,
    "commands.data": 26,
    "commands.launched": 26,
    "commands.rows": 26,
    "commands.summary": 28,
    "commands.first_step": 39,
    "commands.train": 40,
    "commands.folder": 39,
    "commands.predict": 40,
    "commands.check": 40,
    "commands.program": 41,
    "": 40,  # The package itself imports its public names when they are first used.
    "__main__": 42,
}
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix("__init__").rstrip("."): path
    for path in sorted(ROOT.rglob("*.py"))
}


def imports(source, module=""):
    """The modules of idl_ref that a source imports, by their names in the table: lazily, or for types alone, too."""
    package = module if FILES[module].name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
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
        ("if TYPE_CHECKING:\n    from idl_ref import train", ["train"]),
    ],
)
def test_upward_imports_are_found(source, found):
    assert upward(source, "weights") == found


USERS_MODULE = "conformance.by_name"  # --backend MODULE:OBJECT names a module of the user's


def hidden(source):
    """The places where a source asks for modules, or for names in modules, that neither readers nor tools can see."""
    tree = ast.parse(source)
    modules = {
        (alias.asname or alias.name).partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
        if isinstance(node, ast.Import) or f"{node.module}.{alias.name}".removeprefix("idl_ref.") in FILES
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func).rpartition(".")[2]
            first = ast.unparse(node.args[0]) if node.args else ""
            literal = len(node.args) > 1 and isinstance(node.args[1], ast.Constant)
            if name in ("import_module", "__import__") or (name == "getattr" and first in modules and not literal):
                yield ast.unparse(node)


@pytest.mark.parametrize("module", [module for module in FILES if module != USERS_MODULE])
def test_dispatch_is_visible(module):
    assert list(hidden(FILES[module].read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "source",
    [
        "from importlib import import_module\nimport_module(f'idl_ref.{x}')",
        "import importlib\nimportlib.import_module('idl_ref.train')",
        "from idl_ref.backends.numba import kernels\ngetattr(kernels, name)",
        "import math\ngetattr(math, name)(1)",
    ],
)
def test_hidden_dispatch_is_found(source):
    assert len(list(hidden(source))) == 1


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
