"""What docs/architecture.md says: the way of one U, what an addition touches, and how large functions are."""

import ast
import collections
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from statistics import median

import numpy as np
import pytest
from test_floors import FILES

import idl_ref
from idl_ref import ImplicitModel

ROOT = Path(idl_ref.__file__).parent
PAGE = (ROOT.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
U, LABELS = np.ones((5, 4), np.float32), np.array([0, 1, 2, 0, 1])


def section(title):
    """The text of the page under a heading, up to the next heading of the same rank or a higher one."""
    level, _, rest = PAGE.partition(f"# {title}\n")
    rank = len(level) - len(level.rstrip("#")) + 1
    return re.split(rf"^#{{1,{rank}}} ", rest, maxsplit=1, flags=re.M)[0]


def files_named(title):
    """The files that a numbered list of the page names first in its lines."""
    return re.findall(r"^\d+\. `([\w/.]+\.py)`", section(title), re.M)


# --- the way of one U -------------------------------------------------------------------------------------------------


COMPILED = (
    "kernels.py",
    "passes.py",
    "levels.py",
    "products.py",
    "descent.py",
)  # what has entry points of compiled code


def entered(call):
    """How often each file of the package is entered: called from another file of it, or from outside."""
    call()  # the second call finds a layer that is prepared, and kernels that are compiled
    counts, kernels = collections.Counter(), []

    def profile(frame, event, _):
        name = frame.f_code.co_filename
        if event != "call" or not name.startswith(str(ROOT)):
            return
        caller = frame.f_back
        while caller is not None and not caller.f_code.co_filename.startswith((str(ROOT), __file__)):
            caller = caller.f_back
        if caller is None or caller.f_code.co_filename != name:
            file = Path(name).relative_to(ROOT).as_posix()
            (kernels.append(file) if file.endswith(COMPILED) else counts.update([file]))

    sys.setprofile(profile)  # some versions of Numba report calls of kernels, and some do not
    try:
        call()
    finally:
        sys.setprofile(None)
    return counts


@pytest.fixture(scope="module")
def model():
    if idl_ref.available_backends()["numba"] != "available":
        pytest.skip("the way is that through the Numba twin")
    return ImplicitModel(4, 3, 20, seed=0, backend="numba")


def test_a_call_enters_at_most_six_files_on_the_way_to_the_kernel(model):
    counts = entered(lambda: model(U))
    assert len(counts) <= 6
    assert max(counts.values()) == 1
    named = files_named("The way of one U")
    assert set(named) - set(counts) == {"backends/numba/passes.py", "backends/numba/kernels.py"}
    assert set(counts) <= set(named)


def test_gradients_enter_no_file_more_than_twice(model):
    counts = entered(lambda: model.loss_and_gradients(U, LABELS))
    assert max(counts.values()) <= 2
    flow = set(counts) - {"checks.py", "solution.py"}  # the check of the input, and the report of failures
    assert len(flow) <= 9
    compiled = {f"backends/numba/{name}.py" for name in ("passes", "kernels", "descent")}
    assert flow | {"checks.py", "solution.py"} | compiled == set(files_named("And the way back"))


# --- what an addition touches -----------------------------------------------------------------------------------------


def edited(tmp_path, edits):
    """A copy of the package in which each file has text put in front of, or in the place of, a line of it."""
    copy = tmp_path / "idl_ref"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for file, changes in edits.items():
        path = copy / file
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        for old, new in changes:
            assert text.count(old) == 1 or not text, f"{old!r} stands {text.count(old)} times in {file}"
            text = text.replace(old, new) if old else new
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path


def run(folder, script):
    environment = {**os.environ, "PYTHONPATH": str(folder), "NUMBA_CACHE_DIR": str(folder / "cache"), "NUMBA_OPT": "1"}
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(script)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


ACTIVATION = {
    "choices.py": [('"hardtanh", "softsign"', '"hardtanh", "softsign", "half_relu"')],
    "activations.py": [
        ("HARDTANH, SOFTSIGN = range(9)", "HARDTANH, SOFTSIGN, HALF_RELU = range(10)"),
        (
            '        _row("softsign",',
            '        _row("half_relu", HALF_RELU, lambda P: np.maximum(P, 0) / 2,\n'
            "                   lambda P: step(P > 0, P) / 2, lipschitz=0.5, kinks=(0.0,)),\n"
            '        _row("softsign",',
        ),
    ],
    "backends/numba/functions.py": [
        ("    HARDTANH,\n", "    HALF_RELU,\n    HARDTANH,\n"),
        (
            "        return vec.divide(p, vec.add(one, vec.magnitude(p)))\n",
            "        return vec.divide(p, vec.add(one, vec.magnitude(p)))\n    if code == HALF_RELU:\n"
            "        return vec.multiply(vec.splat(p, 0.5), vec.select(nonpositive, zero, p))\n",
        ),
        (
            "        return vec.divide(one, vec.multiply(size, size))\n",
            "        return vec.divide(one, vec.multiply(size, size))\n    if code == HALF_RELU:\n"
            "        return vec.select(positive, vec.splat(p, 0.5), zero)\n",
        ),
    ],
    "backends/cuda/columns.py": [
        ("import ELU, HARDTANH", "import ELU, HALF_RELU, HARDTANH"),
        (
            "        return p / (one + abs(p))\n",
            "        return p / (one + abs(p))\n    if code == HALF_RELU:\n"
            "        return zero if p <= zero else p / 2\n",
        ),
        (
            "        return one / ((one + abs(p)) * (one + abs(p)))\n",
            "        return one / ((one + abs(p)) * (one + abs(p)))\n    if code == HALF_RELU:\n"
            "        return one / 2 if p > zero else zero\n",
        ),
    ],
    "export/plan.py": [
        (
            '    "softsign": Formula(',
            '    "half_relu": Formula("np.maximum(P, 0) / 2", "p < 0 ? 0 : p / 2"),\n    "softsign": Formula(',
        )
    ],
    "export/onnx.py": [
        (
            "        return self.add(result, NATIVE[activation], P)\n",
            '        if activation == "half_relu":\n            return self.add(result, "Mul", '
            'self.add(f"{result}_relu", "Relu", P), self.constant("half", 0.5))\n'
            "        return self.add(result, NATIVE[activation], P)\n",
        )
    ],
}


@pytest.mark.slow
def test_an_activation_touches_these_files_and_no_others(tmp_path):
    named = set(files_named("An activation"))
    assert named - {"tests/naive.py"} == {f"idl_ref/{file}" for file in ACTIVATION}
    pytest.importorskip("numba")
    script = """
        import importlib.util, numpy as np, idl_ref
        from idl_ref.export import export
        U = np.random.default_rng(0).standard_normal((6, 4))
        outputs = []
        for backend in ("numpy", "numba"):
            model = idl_ref.ImplicitModel(
                4, 3, 9, activation="half_relu", dtype="float64", seed=0, backend=backend, tol=1e-12
            )
            assert idl_ref.check_gradients(model, U, np.arange(6) % 3).passed
            outputs.append(model(U))
        assert abs(outputs[0] - outputs[1]).max() < 1e-10
        assert not np.array_equal(outputs[0], idl_ref.ImplicitModel(4, 3, 9, dtype="float64", seed=0)(U))
        for to in ("c", "numpy", "js") + (("onnx",) if importlib.util.find_spec("onnx") else ()):
            export(model, to, f"out-{to}")
        spec = importlib.util.spec_from_file_location("predict", "out-numpy/predict.py")
        predict = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(predict)
        assert abs(predict.predict(U) - outputs[0]).max() < 1e-9
        print("ok")
    """
    folder = edited(tmp_path, ACTIVATION)
    assert run(folder, script).split()[-1] == "ok"
    for file in ACTIVATION:  # the CUDA twin needs a package that may not be here
        compile((folder / "idl_ref" / file).read_text(encoding="utf-8"), file, "exec")


METHOD = {
    "choices.py": [('"substitution", "blocks"]', '"substitution", "blocks", "halfway"]')],
    "backends/numpy/solve.py": [
        (
            '        elif method == "newton":\n',
            '        elif method == "halfway":\n            halfway(running, X, ledger)\n'
            '        elif method == "newton":\n',
        ),
        (
            "def substitution(",
            '''def halfway(equation: Equation, X: np.ndarray, ledger: Ledger) -> None:
    """X ← (X + g(X)) / 2 until each column is done."""
    while ledger.index.size:
        application = equation.at(X)
        alive = ledger.settle(application)
        equation, X = equation.take(alive), ((X + application.G) / 2)[:, alive]


def substitution(''',
        ),
    ],
}


@pytest.mark.slow
def test_a_method_touches_these_files_and_no_others(tmp_path):
    assert set(files_named("A method")) == {f"idl_ref/{file}" for file in METHOD}
    script = """
        import numpy as np, idl_ref
        A, Z = np.full((3, 3), 0.3), np.ones((3, 2))
        options = idl_ref.SolveOptions(tol=1e-9, max_iter=1000, method="halfway")
        for backend in ("numpy", "auto"):  # a compiled twin takes the method over from the definition
            solution = idl_ref.solve_equilibrium(A, Z, options=options, backend=backend).require(1e-6)
            assert abs(solution.X - 10).max() < 1e-6
        model = idl_ref.ImplicitModel(4, 3, 9, method="halfway", seed=0)
        idl_ref.fit(model, np.ones((8, 4)), np.zeros(8, int), epochs=1, progress=False)
        model.freeze()(np.ones((2, 4)))
        print("ok")
    """
    assert run(edited(tmp_path, METHOD), script).split()[-1] == "ok"


TWIN = {
    "choices.py": [('Literal["numpy", "numba", "cuda"]', 'Literal["numpy", "numba", "cuda", "exact"]')],
    "backends/__init__.py": [
        (
            '    if name == "numpy":\n        return AVAILABLE\n',
            '    if name in ("numpy", "exact"):\n        return AVAILABLE\n',
        ),
        (
            '    if name == "cuda":\n        from idl_ref.backends import cuda\n',
            '    if name == "exact":\n        from idl_ref.backends import exact\n\n'
            "        return Twin(exact.Layer, exact.Trainer, exact.warmup)\n"
            '    if name == "cuda":\n        from idl_ref.backends import cuda\n',
        ),
    ],
    "backends/exact/__init__.py": [
        (
            "",
            '''"""A twin that solves in float64, whatever the dtype of the model is."""

import numpy as np

from idl_ref.backends import numpy as definition
from idl_ref.backends.numpy import warmup as warmup


class Layer(definition.Layer):
    def solve(self, equation, X0=None, options=None):
        wide = [None if array is None else array.astype(np.float64) for array in (equation.S, equation.Z, X0)]
        factors = tuple(F.astype(np.float64) for F in equation.factors)
        inner = definition.Layer(self.weights._replace(factors=self.weights.factors), self.activation, self.options)
        solution = inner.solve(equation._replace(factors=factors, S=wide[0], Z=wide[1]), wide[2], options)
        object.__setattr__(solution, "X", solution.X.astype(equation.Z.dtype))
        return solution


class Trainer(definition.Trainer):
    layer_class = Layer
''',
        )
    ],
}


@pytest.mark.slow
def test_a_twin_touches_these_files_and_no_others(tmp_path):
    assert set(files_named("A twin")) == {f"idl_ref/{file}".replace("exact", "NAME") for file in TWIN}
    script = """
        import numpy as np, idl_ref
        assert idl_ref.available_backends()["exact"] == "available"
        U, y = np.random.default_rng(0).standard_normal((8, 4)), np.arange(8) % 3
        models = [idl_ref.ImplicitModel(4, 3, 9, seed=0, backend=name) for name in ("numpy", "exact")]
        assert abs(models[0](U) - models[1](U)).max() < 1e-4
        assert models[1].loss_and_gradients(U, y)[1]["A"].dtype == np.float32
        assert idl_ref.fit(models[1], U, y, epochs=2, progress=False).loss[1] < 2
        models[1].freeze()(U)
        adapter = idl_ref.conformance.adapters.IdlRef("exact")
        report = idl_ref.conformance.check_backend(adapter, groups=["ranks", "kinks"])
        assert report.ok, str(report)
        print("ok")
    """
    assert run(edited(tmp_path, TWIN), script).split()[-1] == "ok"


# --- sizes ------------------------------------------------------------------------------------------------------------

CONTRACTS = {
    "model.ImplicitModel.__init__",
    "train.fit",
    "estimators.base.Implicit.__init__",
    "estimators.classifier.ImplicitClassifier.__init__",
    "conformance.judge.runner.check_backend",
}  # the parameters that design and users rely on
KERNELS = re.compile(
    r"backends\.(numba\.(columns|descent|dots|functions|kernels|levels|maps|one_sample|passes|products|rounded|sequences|simd\w*|substitution|trials)|cuda\.)"
)


def functions(module):
    """Every function of a module: its dotted name, its lines without the docstring, its parameters without self."""

    def visit(node, path):
        for child in ast.iter_child_nodes(node):
            inside = path
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                inside = f"{path}.{child.name}".lstrip(".")
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                body = child.body[1:] if ast.get_docstring(child) is not None else child.body
                lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
                arguments = child.args.posonlyargs + child.args.args + child.args.kwonlyargs
                yield inside, lines, len([a for a in arguments if a.arg not in ("self", "cls")])
            yield from visit(child, inside)

    yield from visit(ast.parse(FILES[module].read_text(encoding="utf-8")), module)


EVERY = [function for module in FILES for function in functions(module)]


def test_function_bodies_have_five_lines_in_the_median_and_sixty_at_most():
    assert median(lines for _, lines, _ in EVERY) <= 5
    assert [name for name, lines, _ in EVERY if lines > 60] == []


def test_no_function_outside_of_kernels_has_more_than_eight_parameters():
    assert {name for name, _, parameters in EVERY if parameters > 8 and not KERNELS.match(name)} <= CONTRACTS


def test_kernels_have_at_most_twelve_parameters():
    assert [name for name, _, parameters in EVERY if parameters > 12 and KERNELS.match(name)] == []
