"""The grader of the course: solutions are right; skeletons and typical wrong answers are not, with a reason."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

TEACHING = Path(__file__).parents[1] / "docs" / "teaching"
EXERCISES = TEACHING / "exercises"
LESSONS = [path.stem for path in sorted((TEACHING / "solutions").glob("*.py"))]


@pytest.fixture(scope="module")
def grade():
    sys.path.insert(0, str(EXERCISES))
    yield importlib.import_module("grade")
    sys.path[:] = [path for path in sys.path if path != str(EXERCISES)]
    for name in [name for name in sys.modules if name == "grade" or name.split(".")[0] == "checks"]:
        sys.modules.pop(name)


def solution(lesson):
    return (TEACHING / "solutions" / f"{lesson}.py").read_text(encoding="utf-8")


def graded(grade, folder, text):
    file = folder / "mine.py"
    file.write_text(text, encoding="utf-8")
    return grade.grade(grade.load(file))


@pytest.mark.parametrize("lesson", LESSONS)
def test_a_solution_is_right_and_a_skeleton_is_not(grade, tmp_path, lesson):
    found = graded(grade, tmp_path, solution(lesson))
    assert list(found) == re.findall(r"^def (\w+)\(", solution(lesson), flags=re.M)
    assert set(found.values()) == {"right"}
    empty = graded(grade, tmp_path, (EXERCISES / f"{lesson}.py").read_text(encoding="utf-8"))
    assert list(empty) == list(found)
    assert set(empty.values()) == {"it is not written yet"}


def test_a_loop_without_an_end_is_told(grade, tmp_path, monkeypatch):
    monkeypatch.setattr(grade, "SECONDS", 0.3)
    name, *others = re.findall(r"^def (\w+)\(", solution("equilibrium"), flags=re.M)
    endless = f"import time\n\n\ndef {name}(*arguments, **options):\n    while True:\n        time.sleep(0.01)\n"
    found = graded(grade, tmp_path, endless)
    assert found[name].startswith("it had not ended after 0 seconds")
    assert all(found[other] == f"the file defines no function {other}" for other in others)


def test_skeletons_are_the_solutions_without_their_bodies(grade):
    sys.path.insert(0, str(TEACHING.parent))
    course = importlib.import_module("course")
    for lesson in LESSONS:
        skeleton = (EXERCISES / f"{lesson}.py").read_text(encoding="utf-8")
        assert skeleton == course.skeleton(lesson), "run: python docs/course.py"
        bodies = [node.body for node in ast.parse(skeleton).body if isinstance(node, ast.FunctionDef)]
        assert [ast.unparse(body[1:]) for body in bodies] == ["raise NotImplementedError"] * 3
    sys.path.remove(str(TEACHING.parent))
    sys.modules.pop("course")


@pytest.mark.parametrize("lesson", LESSONS)
def test_solutions_and_checks_need_numpy_alone(lesson):
    allowed = {"numpy", "itertools", "fractions", "os", "tempfile", "tracemalloc", "checks"}
    for path in (TEACHING / "solutions" / f"{lesson}.py", EXERCISES / "checks" / f"{lesson}.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        assert {name.split(".")[0] for name in names} <= allowed


# --- typical wrong answers --------------------------------------------------------------------------------------------

WRONG = [  # lesson, exercise, what a student writes in the place of the right text, and a part of the verdict
    ("equilibrium", "equilibria", "if z <= 0:", "if z < 0 and a < 1:", "the number of equilibria is"),
    ("equilibrium", "equilibria", "found.append(z / (1 - a))", "found.append(z / (1 + a))", "no equilibrium"),
    ("equilibrium", "equilibria", "sorted(found)", "tuple(found)", "no list"),
    ("equilibrium", "equilibria", "if z / (1 - a) > 0:", "if z > 0:", "the number of equilibria is"),
    ("equilibrium", "by_active_sets", "D @ A, D @ z)", "A, z)", "it raises ValueError"),
    ("equilibrium", "by_active_sets", "np.eye(n) - D @ A", "np.eye(n) - A @ D", "it raises ValueError"),
    ("equilibrium", "as_implicit", "A[:n2, n2:] = W2", "A[n2:, :n2] = W2.T", "not strictly upper triangular"),
    ("equilibrium", "as_implicit", "np.vstack([np.zeros((n2, W1.shape[1])), W1])",
     "np.vstack([W1, np.zeros((n2, W1.shape[1]))])", "the outputs are not those of the net"),
    ("wellposed", "perron_bounds", "np.abs(A) @ z / z", "A @ z / z", "(|A| z)"),
    ("wellposed", "perron_bounds", "ratio.min(), ratio.max()", "ratio.max()", "should return 2 things"),
    ("wellposed", "rescaling", "np.eye(n) - np.abs(A)", "np.eye(n) - A", "d should hold"),
    ("wellposed", "rescaling", "return np.linalg.solve(np.eye(n) - np.abs(A), np.ones(n))",
     "return 1 / np.abs(A).sum(axis=1)", "not below 1"),
    ("wellposed", "rescaling", "return np.linalg.solve(np.eye(n) - np.abs(A), np.ones(n))",
     "return 1 / np.linalg.solve(np.eye(n) - np.abs(A), np.ones(n))", "absolute row sum"),
    ("wellposed", "project", "return np.sign(a) * np.maximum(size - t, 0)",
     "return a * kappa / size.sum()", "the one nearest"),
    ("wellposed", "project", "return np.sign(a) * np.maximum(size - t, 0)",
     "return np.clip(a, -kappa, kappa)", "outside of the ball"),
    ("wellposed", "project", "    if size.sum() <= kappa:\n        return a.copy()\n", "", "the one nearest"),
    ("wellposed", "project", "np.sign(a) * np.maximum", "np.maximum", "the one nearest"),
    ("solvers", "picard_steps", "first_step / (1 - kappa)", "first_step", "steps are enough and needed"),
    ("solvers", "picard_steps", "while bound > tol", "while kappa * bound > tol", "steps are enough and needed"),
    ("solvers", "picard", ".max(axis=0)", ".mean(axis=0)", "judge each by its largest entry"),
    ("solvers", "picard", "running[running] = moved > tol", "running[:] = (moved > tol).any()", "by itself"),
    ("solvers", "newton", "range(50)", "range(1)", "solve again until the active set stays"),
    ("solvers", "newton", "x_new = np.linalg.solve(np.eye(n) - S[:, None] * A, S * z)",
     "x_new = np.maximum(A @ x + z, 0)", "no equilibrium"),
    ("solvers", "newton", "S[:, None] * A, S * z", "A * S, S * z", "x = max(A x + z, 0) holds only up to"),
    ("certificates", "error_bound", "residual / (1 - kappa)", "residual", "the residual is 1/4"),
    ("certificates", "error_bound", " if kappa < 1 else np.full(Z.shape[1], np.inf)", "", "inf"),
    ("certificates", "error_bound", "np.abs(A).sum(axis=1).max()", "max(abs(np.linalg.eigvals(A)))", "by column"),
    ("certificates", "error_bound", ".max(axis=0)", ".mean(axis=0)", "bound"),
    ("certificates", "entrywise", "np.eye(n) - np.abs(A), r)", "np.eye(n) - A, r)", "(1/2, 1/2)"),
    ("certificates", "entrywise", "if v.min() <= 0:", "if False:", "Perron root is above 1"),
    ("certificates", "entrywise", "if v.min() <= 0:",
     "if np.abs(A).sum(axis=1).max() >= 1:", "‖A‖∞ = 5 does not matter"),
    ("certificates", "proved_class", "np.abs(C[top] - C) @ e", "(np.abs(C[top]) + np.abs(C)) @ e", "share x₁"),
    ("certificates", "proved_class", "> 0).all()", ">= 0).all()", "a lead that may become 0"),
    ("certificates", "proved_class", " if (np.delete(margins, top) > 0).all() else -1", "", "a lead that may become 0"),
    ("adjoint", "adjoint", "s[:, None] * A.T", "s[:, None] * A", "is A transposed?"),
    ("adjoint", "adjoint", "s[:, None] * A.T", "A.T * s", "S multiplies the rows"),
    ("adjoint", "adjoint", "s * G[:, j])", "G[:, j])", "V = S ∘ (Aᵀ V + G) does not hold"),
    ("adjoint", "gradients", ' + D.T @ G_Y', "", "∂U is not"),
    ("adjoint", "gradients", '"A": V @ X.T', '"A": X @ V.T', "∂A is not"),
    ("adjoint", "gradients", '"B": V @ U.T', '"b": V @ U.T', "with the names"),
    ("adjoint", "low_rank", "V @ (R.T @ X).T, X @ (L.T @ V).T", "X @ (L.T @ V).T, V @ (R.T @ X).T", "∂L should be"),
    ("adjoint", "low_rank", "V @ (R.T @ X).T, X @ (L.T @ V).T", "(V @ X.T) @ R, (V @ X.T).T @ L", "the size n × n"),
    ("gradient_checks", "central", "/ (2 * h)", "/ h", "for x³"),
    ("gradient_checks", "central", "(f(x + h * E) - f(x - h * E)) / (2 * h)", "(f(x + h * E) - f(x)) / h", "for x³"),
    ("gradient_checks", "central", "(f(x + h * E) - f(x - h * E)) / (2 * h)",
     "(f(x + h * E) - f(x - h * E)) / (2 * h * np.linalg.norm(E))", "for x³"),
    ("gradient_checks", "complex_step", "h = 1e-30", "h = 1e-3", "right to all digits"),
    ("gradient_checks", "complex_step", "f(x + 1j * h * E).imag / h",
     "(f(x + 1e-6 * E) - f(x - 1e-6 * E)) / 2e-6", "right to all digits"),
    ("gradient_checks", "wrong_gradients", "abs(np.sum(gradients[name] * E) - truth) > 1e-5 * max(1, abs(truth))",
     "abs(abs(np.sum(gradients[name] * E)) - abs(truth)) > 0.3", "∂A"),
    ("gradient_checks", "wrong_gradients", "> 1e-5 * max", "> 1e-15 * max", "all gradients are right"),
    ("gradient_checks", "wrong_gradients", "E = rng.standard_normal(W.shape)",
     "E = np.ones(W.shape)", "∂A is transposed"),
    ("training", "cross_entropy", "    Y = Y - Y.max(axis=0)  # exp cannot overflow\n",
     "", "no reason for exp to overflow"),
    ("training", "cross_entropy", "return loss, G_Y / m", "return loss, G_Y", "divided by the number of columns"),
    ("training", "cross_entropy", "    G_Y[labels, np.arange(m)] -= 1\n", "", "(3/4, −3/4)"),
    ("training", "pullback", "G - np.sum(G * A) / nu * s", "G", "for the example of the board"),
    ("training", "pullback", "    if nu <= kappa:\n        return G\n", "", "inside of the ball"),
    ("training", "pullback", "np.sign(A[sums.argmax()])", "1", "the norm moves with A"),
    ("training", "descend", "v = momentum * v + gradient(w)",
     "v = momentum * v + (1 - momentum) * gradient(w)", "for ℓ = w²/2"),
    ("training", "descend", "w = w - rate * v", "w -= rate * v", "changes an array of its caller"),
    ("training", "descend", "w = w - rate * v", "w = w + rate * v", "for ℓ = w²/2"),
    ("robustness", "sensitivity", "np.eye(len(A)) - np.abs(A), np.abs(B)",
     "np.eye(len(A)) - A, np.abs(B)", "the bound is 6"),
    ("robustness", "sensitivity", " + np.abs(D)", "", "D passes"),
    ("robustness", "radius", "return min(slack)", "return max(slack)", "nearest"),
    ("robustness", "radius", "[None]).sum()", "[None]).max()", "over all inputs at once"),
    ("robustness", "attack", "eps * np.sign(gradient)", "eps * gradient", "further from u than ε"),
    ("robustness", "attack", "np.clip(u + eps * np.sign(gradient), 0, 1)", "u + eps * np.sign(gradient)", "no pixel"),
    ("robustness", "attack", "u + eps * np.sign", "u - eps * np.sign", "can be larger"),
    ("composition", "cascade", "np.vstack([B2 @ D1, B1])", "np.vstack([0 * B2 @ D1, B1])", "does D of both"),
    ("composition", "cascade", "second, first):\n", "first, second):\n", "it raises ValueError"),
    ("composition", "cascade", "[[A2, B2 @ C1], [np.zeros((len(A1), len(A2))), A1]]",
     "[[A1, np.zeros((len(A1), len(A2)))], [B2 @ C1, A2]]", "stands on top"),
    ("composition", "feedback", "np.linalg.inv(np.eye(len(C)) - D @ K)", "np.eye(len(C))", "passes through D"),
    ("composition", "feedback", "A + B @ K @ E @ C, B + B @ K @ E @ D", "A + B @ K @ E @ C, B", "those of the loop"),
    ("composition", "in_units", "A / d[:, None] * d,", "A * d[:, None] / d,", "not its equilibrium"),
    ("composition", "in_units", "C * d, D", "C / d, D", "C has to take d in"),
    ("deployment", "steps_for_range", " / (1 - kappa)", "", "the bound needs"),
    ("deployment", "steps_for_range", "np.abs(B).sum(axis=1).max()", "np.abs(B).max()", "the bound needs"),
    ("deployment", "quantise", "    scale[scale == 0] = 1.0  # a row of zeros has q = 0 with any scale\n",
     "    with np.errstate(all='ignore'):\n        return (W / scale[:, None]).astype(np.int8), scale\n", "off by"),
    ("deployment", "quantise", "np.abs(W).max(axis=1) / 127",
     "np.full(len(W), np.abs(W).max() / 127)", "scale of its own"),
    ("deployment", "quantise", ".astype(np.int8)", "", "int8 is asked for"),
    ("deployment", "predict", "range(10_000)", "range(30)", "not converged"),
    ("deployment", "predict", "<= 1e-12", "<= 1e-3", "iterate until x stays"),
    ("deployment", "predict", " + D @ u", "", "not that of the equilibrium"),
]  # fmt: skip


def body(text, exercise):
    """The lines of one function of a file, as a pair of offsets."""
    (found,) = [node for node in ast.parse(text).body if getattr(node, "name", None) == exercise]
    starts = [0, *(match.end() for match in re.finditer("\n", text))]
    return starts[found.lineno - 1], starts[found.end_lineno]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # a wrong answer may divide by 0
@pytest.mark.parametrize(("lesson", "exercise", "right", "wrong", "says"), WRONG)
def test_a_wrong_answer_is_told_in_a_sentence(grade, tmp_path, lesson, exercise, right, wrong, says):
    text = solution(lesson)
    start, end = body(text, exercise)
    assert right in text[start:end]
    found = graded(grade, tmp_path, text[:start] + text[start:end].replace(right, wrong) + text[end:])
    assert says in found[exercise], found[exercise]
    uses = {"radius": "sensitivity"}.items()  # an exercise may stand on one that is wrong now
    assert {name for name, verdict in found.items() if verdict != "right"} <= {
        exercise,
        *(name for name, used in uses if used == exercise),
    }


def test_each_exercise_has_wrong_answers(grade):
    names = [check.__name__ for checks in grade.LESSONS.values() for check in checks]
    assert len(names) == len(set(names)) == 30
    assert all(sum(row[1] == name for row in WRONG) >= 2 for name in names)


# --- the program ------------------------------------------------------------------------------------------------------


def run(folder, *files):
    command = [sys.executable, "-X", "utf8", str(EXERCISES / "grade.py"), *map(str, files)]
    return subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8")


def test_the_program_grades_a_file_of_any_name(tmp_path):
    page = (TEACHING / "index.md").read_text(encoding="utf-8")
    empty, one = re.findall(r"```text\n(equilibria: .*?)```", page, flags=re.S)
    assert run(tmp_path, EXERCISES / "equilibrium.py").stdout == empty
    text = (EXERCISES / "equilibrium.py").read_text(encoding="utf-8")
    start, end = body(solution("equilibrium"), "equilibria")
    mine = solution("equilibrium")[start:end].replace("1 - a", "1 + a")
    (tmp_path / "homework.py").write_text(text.replace(text[slice(*body(text, "equilibria"))], mine), encoding="utf-8")
    result = run(tmp_path, "homework.py")
    assert (result.returncode, result.stdout) == (1, one)
    result = run(tmp_path, TEACHING / "solutions" / "equilibrium.py")
    assert result.returncode == 0
    assert result.stdout.count(": right\n") == 3


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def equilibria(a, z):\n    return 1 / 0\n", "it raises ZeroDivisionError: division by zero"),
        ("def equilibria(a, z):\n    x = [z]\n", "it returns None"),
        ("def equilibria(a, z):\n    return z\n", "no list but"),
        ("def by_active_sets(A, z):\n    return z", "the file defines no function equilibria"),
    ],
)
def test_what_is_no_answer_is_told_too(grade, tmp_path, text, says):
    assert says in graded(grade, tmp_path, text)["equilibria"]


@pytest.mark.parametrize("answer", ["{}", "'text'", "print", "[1, [2]]", "1j", "(None,) * 9"])
@pytest.mark.parametrize("lesson", LESSONS)
def test_an_answer_of_any_kind_gets_a_sentence(grade, tmp_path, lesson, answer):
    names = re.findall(r"^def (\w+)\(", solution(lesson), flags=re.M)
    text = "".join(f"def {name}(*arguments, **options):\n    return {answer}\n\n\n" for name in names)
    found = graded(grade, tmp_path, text)
    assert list(found) == names
    assert all(isinstance(said, str) and said and said != "right" for said in found.values())


@pytest.mark.parametrize(
    ("text", "words"),
    [(None, "FileNotFoundError"), ("def f(:\n", "SyntaxError"), ("import nothing_of_this_name\n", "No module named")],
    ids=["missing", "syntax", "import"],
)
def test_a_file_that_cannot_be_run_is_told(tmp_path, text, words):
    if text is not None:
        (tmp_path / "mine.py").write_text(text, encoding="utf-8")
    result = run(tmp_path, "mine.py")
    assert result.returncode == 1
    assert result.stderr.startswith("mine.py cannot be run: ")
    assert words in result.stderr
    assert "Traceback" not in result.stderr
