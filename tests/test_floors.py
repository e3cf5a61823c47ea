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
    "device": 1,
    "blas": 0,
    "sparse": 0,
    "cycles": 0,
    "quantised": 0,
    "choices": 0,
    "files": 1,
    "npz": 1,
    "classes": 1,
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
    "balls": 1,
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
    "backends.numba.signals": 1,
    "backends.numba.compiling": 6,
    "backends.numba.descent": 8,
    "backends.numba.functions": 7,
    "backends.numba.mixed": 8,
    "backends.numba.products": 9,
    "backends.numba.columns": 9,
    "backends.numba.dots": 9,
    "backends.numba.sparse": 9,
    "backends.numba.maps": 10,
    "backends.numba.trials": 10,
    "backends.numba.rounded": 10,
    "backends.numba.kernels": 11,
    "backends.numba.passes": 12,
    "backends.numba.substitution": 12,
    "backends.numba.levels": 13,
    "backends.numba.launches": 13,
    "backends.numba.preparing": 14,
    "backends.numba.sequences": 13,
    "backends.numba.recurrent": 14,
    "backends.numba.blocks": 14,
    "backends.numba.one_sample": 15,
    "backends.numba.parametrisation": 14,
    "backends.numba.losses": 14,
    "backends.numba.layer": 16,
    "backends.numba.workspace": 16,
    "backends.numba.trainer": 17,
    "backends.numba": 18,
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
    "backends": 19,
    "equilibrium": 20,
    "settings": 20,
    "torchidl": 20,
    "interface": 21,
    "composition": 21,
    "predictor": 21,
    "model": 22,
    # training
    "targets": 23,
    "training": 23,
    "training.history": 23,
    "training.progress": 23,
    "training.interrupts": 23,
    "training.rows": 23,
    "training.samples": 25,
    "training.tree": 23,
    "training.ranks": 24,
    "training.leaves": 25,
    "training.evaluation": 26,
    "training.checkpoint": 25,
    "training.epoch": 24,
    "training.rates": 26,
    "training.loop": 27,
    "train": 28,
    # scikit-learn's conventions, on top of the training
    "estimators.conventional": 23,
    "estimators.plain": 23,
    "estimators.base": 29,
    "estimators.classifier": 30,
    "estimators.regressor": 30,
    "estimators": 31,
    # leaves
    "derivatives": 23,
    "comparison": 24,
    "gradcheck": 25,
    "datasets": 23,
    "plots": 29,
    "report.markup": 28,
    "report.scores": 28,
    "report.charts": 29,
    "report.results": 30,
    "report.training": 30,
    "report": 31,
    # theory as code, on top of the model
    "analysis.compose": 23,
    "analysis.loops": 23,
    "analysis.networks": 24,
    "analysis.torch_layers": 23,
    "analysis.convert": 25,
    "analysis.rescaling": 23,
    "analysis.mondeq": 23,
    "analysis.wellposedness": 23,
    "analysis.through_time": 23,
    "analysis.time_steps": 23,
    "analysis.trajectory": 24,
    "analysis.recurrent_files": 23,
    "analysis.recurrent_check": 26,
    "analysis.recurrent": 29,
    "analysis.balls": 23,
    "analysis.boxes": 24,
    "analysis.compress": 23,
    "analysis.deviations": 25,
    "analysis.intervals": 25,
    "analysis.rivals": 26,
    "analysis.questions": 26,
    "analysis.crown": 27,
    "analysis.exact_margins": 28,
    "analysis.margins": 29,
    "analysis.attacks": 30,
    "analysis.accuracy": 31,
    "analysis.robust": 32,
    "analysis.lasso": 23,
    "analysis.teachers": 23,
    "analysis.regression": 24,
    "analysis.sim": 25,
    "analysis": 33,
    # the conformance kit, from the bottom: what is asked and true, the planted bugs, the judge, and what users enter by
    "conformance.truth": 23,
    "conformance.truth.problem": 23,
    "conformance.truth.flags": 23,
    "conformance.truth.backend": 24,
    "conformance.truth.files": 24,
    "conformance.truth.rational": 23,
    "conformance.truth.maps": 24,
    "conformance.truth.exact": 25,
    "conformance.truth.majorants": 24,
    "conformance.truth.copies": 26,
    "conformance.truth.bounds": 26,
    "conformance.truth.cases": 26,
    "conformance.truth.groups.blocks": 27,
    "conformance.truth.groups.equation": 27,
    "conformance.truth.groups.inputs": 27,
    "conformance.truth.groups.roots": 27,
    "conformance.truth.groups.rounding": 27,
    "conformance.truth.groups.sparse": 27,
    "conformance.truth.groups.sizes": 27,
    "conformance.truth.groups": 28,
    "conformance.truth.draws": 28,
    "conformance.truth.shrinking": 29,
    "conformance.truth.vectors": 29,
    "conformance.bugs.plain": 30,
    "conformance.bugs.reached": 30,
    "conformance.bugs.equivalent": 31,
    "conformance.bugs.mutants": 31,
    "conformance.bugs.batches": 31,
    "conformance.bugs.counts": 31,
    "conformance.bugs.entries": 31,
    "conformance.bugs.equation": 31,
    "conformance.bugs.functions": 31,
    "conformance.bugs.gradients": 31,
    "conformance.bugs.iteration": 31,
    "conformance.bugs.memory": 31,
    "conformance.bugs.precision": 31,
    "conformance.bugs.sizes": 31,
    "conformance.bugs.state": 31,
    "conformance.bugs.stopping": 31,
    "conformance.bugs.values": 31,
    "conformance.bugs.adjoint": 32,
    "conformance.bugs.slopes": 32,
    "conformance.bugs": 33,
    "conformance.judge.call": 32,
    "conformance.judge.subjects": 33,
    # what explains wrong numbers, which knows neither the planted bugs nor the runner
    "conformance.judge": 26,
    "conformance.judge.counting": 26,
    "conformance.judge.evidence": 27,
    "conformance.judge.steps": 27,
    "conformance.judge.features": 27,
    "conformance.judge.iterates": 28,
    "conformance.judge.transformations": 28,
    "conformance.judge.chunks": 29,
    "conformance.judge.curves": 29,
    "conformance.judge.entries": 29,
    "conformance.judge.maps": 29,
    "conformance.judge.quantities": 30,
    "conformance.judge.numbers": 30,
    "conformance.judge.terms": 29,
    "conformance.judge.places": 29,
    "conformance.judge.operands": 30,
    "conformance.judge.patterns": 31,
    "conformance.judge.precisions": 31,
    "conformance.judge.library": 32,
    "conformance.judge.text": 25,
    "conformance.judge.pages": 25,
    "conformance.judge.report": 34,
    "conformance.judge.finders": 0,
    "conformance.judge.counts": 33,
    "conformance.judge.relations": 34,
    "conformance.judge.diagnosis": 35,
    "conformance.judge.sequences": 34,
    "conformance.judge.protocols": 35,
    "conformance.judge.verdicts": 35,
    "conformance.judge.quick": 34,
    "conformance.judge.thresholds": 36,
    "conformance.judge.runner": 37,
    "conformance.judge.detection": 38,
    "conformance.judge.smallest": 38,
    "conformance.by_name": 38,
    "conformance.adapters": 38,
    "conformance.process": 25,
    "conformance.remote": 38,
    # what a right backend is worth
    "conformance.score": 26,
    "conformance.score.badge": 35,
    "conformance.score.words": 35,
    "conformance.score.compare": 36,
    "conformance.score.accuracy": 37,
    "conformance.score.iterations": 39,
    "conformance.score.speed": 39,
    "conformance.score.scored": 40,
    "conformance.command": 41,
    "conformance": 40,
    "conformance.testing": 42,
    "pytest_plugin": 43,
    # deployment
    "export.inputs": 26,
    "export.majorant": 26,
    "export.plan": 27,
    "export.c_text": 27,
    "export.js": 28,
    "export.numpy": 28,
    "export.c": 28,
    "export.onnx": 28,
    "export": 29,
    "bench": 31,
    # engines that people already have
    "parallel": 32,
    "parallel.tasks": 23,
    "parallel.progress": 23,
    "parallel.outputs": 23,
    "parallel.sources": 28,
    "parallel.workers": 29,
    "parallel.prediction": 30,
    "parallel.points": 23,
    "parallel.lazy": 24,
    "parallel.results": 24,
    "parallel.fits": 30,
    "parallel.sweeps": 31,
    # the command line
    "commands": 0,
    "commands.stopping": 27,
    "commands.data": 27,
    "commands.launched": 27,
    "commands.rows": 27,
    "commands.summary": 29,
    "commands.first_step": 40,
    "commands.train": 41,
    "commands.folder": 40,
    "commands.predict": 41,
    "commands.check": 41,
    "commands.program": 42,
    "": 41,  # The package itself imports its public names when they are first used.
    "__main__": 43,
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
