"""The teaching file agrees with the library; each lab is wrong as it stands, and right after its bug is fixed."""

import ast
import importlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import idl_ref

ROOT = Path(__file__).parents[1]
TEACHING = ROOT / "docs" / "teaching"
LESSON = TEACHING / "idl_in_200_lines.py"
LABS = TEACHING / "labs"
DIGITS = Path(idl_ref.__file__).parent / "data" / "digits.npz"


def module(path, source=None):
    """Load a file, or a changed source of it, as a separate module."""
    spec = importlib.util.spec_from_file_location(f"teaching_{path.stem}", path)
    loaded = importlib.util.module_from_spec(spec)
    exec(compile(source or path.read_text(encoding="utf-8"), path.name, "exec"), loaded.__dict__)
    return loaded


@pytest.fixture(scope="module")
def lesson():
    return module(LESSON)


def pair(lesson, size=1.0, n=12):
    """Return a model of the lesson and a model of the library with the same weights."""
    ours = lesson.Model(p=5, q=3, n=n, seed=1)
    ours.weights["A"] *= size
    theirs = idl_ref.ImplicitModel(4, 3, n, bias=True, dtype="float64", tol=1e-12, grad_tol=1e-12, mitr=10_000)
    for name, W in ours.weights.items():
        theirs.parameters[name][...] = W
    rng = np.random.default_rng(0)
    return ours, theirs, rng.standard_normal((20, 4)), rng.integers(0, 3, 20)


def columns(U):
    return np.vstack([U.T, np.ones(len(U))])


def test_the_file_is_short_and_imports_numpy_alone():
    text = LESSON.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 200
    imports = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert [ast.unparse(node) for node in imports] == ["import numpy as np"]


@pytest.mark.parametrize("size", [1.0, 20.0])  # The weights are inside or outside the ball.
def test_outputs_and_gradients_are_the_librarys(lesson, size):
    ours, theirs, U, labels = pair(lesson, size)
    assert (lesson.norm_inf(ours.weights["A"]) > 0.99) == (size > 1)
    np.testing.assert_allclose(ours(columns(U)).T, theirs(U), rtol=1e-8, atol=1e-9)
    loss, gradients = ours.loss_and_gradients(columns(U), labels)
    expected_loss, expected = theirs.loss_and_gradients(U, labels)
    assert abs(loss - expected_loss) < 1e-9
    for name in "ABCD":
        np.testing.assert_allclose(gradients[name], expected[name], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(gradients["U"][:4].T, expected["U"], rtol=1e-6, atol=1e-9)


def test_training_is_the_librarys(lesson, capsys):
    ours, theirs, U, labels = pair(lesson)
    lesson.train(ours, columns(U), labels, epochs=3, batch=8)
    optimizer = idl_ref.SGD(0.1, momentum=0.9)
    history = idl_ref.fit(theirs, U, labels, optimizer=optimizer, epochs=3, batch_size=8, progress=False)
    for name, W in ours.weights.items():
        np.testing.assert_allclose(W, theirs.parameters[name], rtol=1e-6, atol=1e-8)
    assert f"‖A‖∞ {history.norm[-1]:.3f}" in capsys.readouterr().out.splitlines()[-1]


def test_digits_to_96_percent(lesson, capsys):
    U, labels = lesson.digits(DIGITS)
    model = lesson.Model(p=65, q=10, n=64)
    assert lesson.check(model, U[:, :16], labels[:16]) < 1e-6
    lesson.train(model, U[:, :1437], labels[:1437])
    assert (model(U[:, 1437:]).argmax(axis=0) == labels[1437:]).mean() > 0.96
    assert len(capsys.readouterr().out.splitlines()) == 10


def test_its_gradient_check_sees_a_bug():
    text = LESSON.read_text(encoding="utf-8")
    assert "S * (A.T @ V + G)" in text
    broken = module(LESSON, text.replace("S * (A.T @ V + G)", "S * (A @ V + G)"))
    ours, _, U, labels = pair(broken)
    assert broken.check(ours, columns(U), labels) > 1e-3


# --- labs -------------------------------------------------------------------------------------------------------------

FIXES = {  # For each lab, its wrong line and the correct one. These are the solutions of the exercises.
    1: ("S * (times(problem, V) + G)", "S * (common.times_transposed(problem, V) + G)"),
    2: ("slope(problem.activation, X)", "slope(problem.activation, times(problem, X) + problem.B @ U)"),
    3: ("np.abs(X - before).mean()", "np.abs(X - before).max(initial=0)"),
    4: (
        'gradients["L"] = X @ (problem.L.T @ V).T\n        gradients["R"] = V @ (problem.R.T @ X).T',
        'gradients["L"] = V @ (problem.R.T @ X).T\n        gradients["R"] = X @ (problem.L.T @ V).T',
    ),
    5: (
        'gradients["D"] = G_Y @ U.T\n',
        'gradients["D"] = G_Y @ U.T\n        gradients["U"] = gradients["U"] + problem.D.T @ G_Y\n',
    ),
}


@pytest.fixture
def lab(monkeypatch):
    monkeypatch.syspath_prepend(str(LABS))
    yield lambda k, source=None: module(LABS / f"lab{k}.py", source)
    for name in ("common", "grade"):
        sys.modules.pop(name, None)


def fixed(k):
    text, (wrong, right) = (LABS / f"lab{k}.py").read_text(encoding="utf-8"), FIXES[k]
    assert text.count(wrong) == 1
    return text.replace(wrong, right).replace("import numpy as np", "import common\nimport numpy as np", 1)


NAMED = {  # The cause that the conformance kit reports for each lab.
    1: "adjoint not transposed",
    2: "φ′ taken at X in place of A X + Z",
    3: "",
    4: "∂L and ∂R swapped",
    5: "Dᵀ G_Y left out of ∂U",
}


@pytest.mark.slow
@pytest.mark.parametrize("k", FIXES)
def test_the_grader_tells_which_labs_are_fixed(lab, k):
    grade = importlib.import_module("grade")
    wrong, right = grade.report(lab(k)), grade.report(lab(k, fixed(k)))
    assert grade.verdict(wrong).startswith("still wrong, ")
    assert NAMED[k] in grade.verdict(wrong, hint=True)
    assert not NAMED[k] or NAMED[k] not in grade.verdict(wrong)
    assert grade.verdict(right).startswith("fixed, ")
    assert len(right.passed) > 25


@pytest.mark.slow
def test_the_grader_runs_from_anywhere(tmp_path):
    command = [sys.executable, str(LABS / "grade.py")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=True)
    lines = result.stdout.decode().splitlines()
    assert [line.split(":")[0] for line in lines] == [f"lab{k}" for k in FIXES]
    assert all("still wrong" in line for line in lines)
