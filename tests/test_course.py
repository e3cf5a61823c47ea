"""The course: its parts are there, what stands on the board is true, and scripts print what their pages show."""

import ast
import importlib
import os
import re
import subprocess
import sys
from fractions import Fraction as Q
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
TEACHING = ROOT / "docs" / "teaching"
LESSONS = [path.stem for path in sorted((TEACHING / "scripts").glob("*.py"))]
ALONE = [
    "numba",
    "scipy",
    "matplotlib",
    "sklearn",
    "pandas",
    "tqdm",
    "threadpoolctl",
    "onnx",
    "torch",
    "jax",
]  # no script needs them


@pytest.fixture(scope="module")
def course():
    sys.path.insert(0, str(TEACHING.parent))
    yield importlib.import_module("course")
    sys.path.remove(str(TEACHING.parent))
    sys.modules.pop("course", None)


def page(lesson):
    return (TEACHING / f"{lesson}.md").read_text(encoding="utf-8")


# --- pages and scripts ------------------------------------------------------------------------------------------------


def test_each_lesson_has_all_its_parts(course):
    assert sorted(course.LESSONS) == LESSONS
    assert len(LESSONS) == 10
    index = (TEACHING / "index.md").read_text(encoding="utf-8")
    order = re.findall(r"^\| \[(\d+)\. [^\]]*\]\((\w+)\.md\)", index, flags=re.M)
    assert order == [(str(k), lesson) for k, lesson in enumerate(course.LESSONS, start=1)]
    for k, lesson in enumerate(course.LESSONS, start=1):
        text = page(lesson)
        assert text.startswith(f"# {k}. ")
        assert re.findall(r"^(## .*|\*\*Aim\.\*\*)", text, flags=re.M) == [
            "**Aim.**",
            "## On the board",
            "## Run",
            "## Exercises",
        ]
        named = re.findall(r"^\d\. `(\w+)\(", text.split("## Exercises")[1], flags=re.M)
        tree = ast.parse((TEACHING / "solutions" / f"{lesson}.py").read_text(encoding="utf-8"))
        assert named == [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
        assert len(named) == 3


def same(printed, shown):
    """The same words, and numbers that differ by no more than one unit of the last digit that is shown."""
    number = r"-?\d+(?:\.\d*)?(?:e[-+]?\d+)?"
    if re.sub(number, "#", printed).split() != re.sub(number, "#", shown).split():
        return False
    pairs = zip(re.findall(number, printed), re.findall(number, shown), strict=True)
    return all(a == b or abs(float(a) - float(b)) <= 1.01 * unit(b) for a, b in pairs)


def unit(number):
    mantissa, _, exponent = number.partition("e")
    digits = len(mantissa.partition(".")[2])
    return 10.0 ** (int(exponent or 0) - digits) if digits or exponent else 0.0  # counts are exact


@pytest.mark.parametrize(
    ("printed", "shown", "equal"),
    [("x = 0.31", "x = 0.32", True), ("x = 0.31", "x = 0.33", False), ("y = 0.31", "x = 0.31", False),
     ("12 steps", "13 steps", False), ("error 2e-07", "error 3e-07", True), ("error 2e-07", "error 2e-06", False),
     ("1 2", "1", False), ("−1", "1", False)],
)  # fmt: skip
def test_outputs_are_compared_by_words_and_digits(printed, shown, equal):
    assert same(printed, shown) == equal


@pytest.mark.sampled(3)
@pytest.mark.parametrize("lesson", LESSONS)
def test_a_script_prints_what_its_page_shows_with_numpy_alone(lesson):
    program = f"import runpy, sys; sys.modules.update(dict.fromkeys({ALONE})); runpy.run_path(sys.argv[1])"
    command = [sys.executable, "-W", "error", "-c", program, str(TEACHING / "scripts" / f"{lesson}.py")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    result = subprocess.run(command, env=environment, capture_output=True, check=True)
    (shown,) = re.findall(r"^It prints:\n\n```text\n(.*?)```", page(lesson), flags=re.S | re.M)
    assert same(result.stdout.decode(), shown), result.stdout.decode()


# --- the board --------------------------------------------------------------------------------------------------------


def inverse(a, b, c, d):
    """The inverse of [[a, b], [c, d]] in fractions."""
    size = Q(a) * d - Q(b) * c
    return [[d / size, -b / size], [-c / size, a / size]]


def times(M, x):
    return [sum(a * b for a, b in zip(row, x, strict=True)) for row in M]


def relu_step(A, x, z):
    return [max(a + b, 0) for a, b in zip(times(A, x), z, strict=True)]


def steps(kappa, tol, first=1):
    k, bound = 0, Q(first) / (1 - Q(kappa))
    while bound > Q(tol):
        k, bound = k + 1, bound * Q(kappa)
    return k


HALF = Q(1, 2)
A, ABS, z = [[0, HALF], [-HALF, 0]], [[0, HALF], [HALF, 0]], [1, 2]
x, v = [Q(8, 5), Q(6, 5)], [Q(2, 5), Q(6, 5)]
BOUND = inverse(1, -HALF, -HALF, 1)  # (I − |A|)⁻¹
BOARD = {  # What a page says, and whether fractions agree.
    "equilibrium": [
        ("| 1/2 | 1 | $x = 2$ |", max(Q(2) / 2 + 1, 0) == 2),
        ("| −1/2 | 1 | $x = 2/3$ |", max(-Q(2, 3) / 2 + 1, 0) == Q(2, 3)),
        ("| 3/2 | −1 | $x = 0$ and $x = 2$ |", [max(Q(3, 2) * t - 1, 0) for t in (0, 2)] == [0, 2]),
        ("| 3/2 | 1 | none |", 1 / (1 - Q(3, 2)) < 0 < 1),
        ("| −3/2 | 1 | $x = 2/5$ | jumps between 0 and 1", max(-Q(3, 2) * Q(2, 5) + 1, 0) == Q(2, 5)),
        ("jumps between 0 and 1 for ever", [max(1 - Q(3, 2) * t, 0) for t in (0, 1)] == [1, 0]),
        (
            r"\tfrac45 \begin{pmatrix} 1 & 1/2 \\ -1/2 & 1",
            inverse(1, -HALF, HALF, 1) == [[Q(4, 5), Q(2, 5)], [-Q(2, 5), Q(4, 5)]],
        ),
        (
            r"= \begin{pmatrix} 8/5 \\ 6/5 \end{pmatrix}, \qquad \hat y = 14/5",
            relu_step(A, x, z) == x and sum(x) == Q(14, 5),
        ),
        ("$x_2 = \\max(u, 0)$, $x_1 = \\max(2 x_2 - u, 0)$", relu_step([[0, 2], [0, 0]], [1, 1], [-1, 1]) == [1, 1]),
    ],
    "wellposed": [
        (r"0 & 1/2 \\ 1/2 & 0", [[0, Q(4) * 1 / 8], [Q(1, 16) * 8 / 1, 0]] == ABS),
        (r"(8, 1)^\top = (4, 1/2)^\top = \frac12 (8, 1)^\top", times([[0, 4], [Q(1, 16), 0]], [8, 1]) == [4, HALF]),
        (
            "For $z = (1, 1)$ the bounds are 1/16 and 4, for $(4, 1)$ they are 1/4 and 1",
            [t / 4 for t in times([[0, 4], [Q(1, 16), 0]], [4, 4])] == [4, Q(1, 16)]
            and [Q(4) / 4, Q(4, 16)] == [1, Q(1, 4)],
        ),
        (r"3/4 & 1/4 \\ 0 & 1/4", [t / 2 for t in (Q(3, 2), HALF, HALF)] == [Q(3, 4), Q(1, 4), Q(1, 4)]),
        ("gives $t = 1/2$", Q(3, 2) - HALF + HALF - HALF == 1),
    ],
    "solvers": [
        (r"21 for $\kappa = 1/2$, 153 for 0.9,", (steps(HALF, Q(1, 10**6)), steps(Q(9, 10), Q(1, 10**6))) == (21, 153)),
        (
            "1,833 for 0.99, 20,713 for 0.999",
            (steps(Q(99, 100), Q(1, 10**6)), steps(Q(999, 1000), Q(1, 10**6))) == (1833, 20713),
        ),
        ("$x^* = 0 - 1/(-1/2) = 2$", 0 - 1 / (Q(3, 2) - 2 + 0) == 2),
        ("already has the solution $(8/5, 6/5)$", times(inverse(1, -HALF, HALF, 1), z) == x),
    ],
    "certificates": [
        (
            "the step is 1/2, the bound is 1/2, and the\nerror is $2 - 3/2 = 1/2$",
            2 - Q(3, 2) == HALF / (1 - HALF) * HALF,
        ),
        (r"At $\kappa = 0.99$, the factor is 99", Q(99, 100) / (1 - Q(99, 100)) == 99),
        (r"$g(\hat x) = (17/10, 6/5)$", relu_step(A, [Q(8, 5), Q(7, 5)], z) == [Q(17, 10), Q(6, 5)]),
        (r"\tfrac43 \begin{pmatrix} 1 & 1/2 \\ 1/2 & 1", [[Q(4, 3), Q(2, 3)], [Q(2, 3), Q(4, 3)]] == BOUND),
        (r"\begin{pmatrix} 4/15 \\ 1/3 \end{pmatrix}", times(BOUND, [Q(1, 10), Q(1, 5)]) == [Q(4, 15), Q(1, 3)]),
        ("$(1/5)/(1/2) = 2/5$. The true error is $(0, 1/5)$", Q(1, 5) / HALF == Q(2, 5) and Q(7, 5) - x[1] == Q(1, 5)),
        ("it is $-1$", 1 / (1 - Q(2)) == -1),
    ],
    "adjoint": [
        (r"v = \begin{pmatrix} 2/5 \\ 6/5 \end{pmatrix}", [1 - v[1] / 2, 1 + v[0] / 2] == v),
        (
            r"16/25 & 12/25 \\ 48/25 & 36/25",
            [a * b for a in v for b in x] == [Q(16, 25), Q(12, 25), Q(48, 25), Q(36, 25)],
        ),
        (r"$\partial u = B^\top v = 2/5 + 12/5 = 14/5$", v[0] + 2 * v[1] == Q(14, 5)),
        (r"$v$ would be $(6/5, 2/5)$", times(inverse(1, -HALF, HALF, 1), [1, 1]) == [Q(6, 5), Q(2, 5)]),
    ],
    "gradient_checks": [
        (
            "forward 3.31, central 3.01, complex 2.99",
            [(Q(11, 10) ** 3 - 1) * 10, (Q(11, 10) ** 3 - Q(9, 10) ** 3) * 5, 3 - Q(1, 100)]
            == [Q(331, 100), Q(301, 100), Q(299, 100)],
        ),
        (r"= (4/5, -2/5)$, and both sides are $2/5$", times(inverse(1, -HALF, HALF, 1), [1, 0]) == [Q(4, 5), -Q(2, 5)]),
        ("the central difference of relu is 1/2", (max(Q(1, 8), 0) - max(-Q(1, 8), 0)) / Q(1, 4) == HALF),
        (r"$h \approx \sqrt[3]\epsilon \approx 6 \cdot 10^{-6}$", round(np.finfo(float).eps ** (1 / 3) * 1e6) == 6),
    ],
    "training": [
        (
            r"softmax is $(3/4, 1/4)$, $\ell = \ln\,4$, and $G_Y = (3/4, -3/4)$",
            [Q(3, 4), Q(1, 4) - 1] == [Q(3, 4), -Q(3, 4)],
        ),
        (r"= \begin{pmatrix} -1/8 & -1/8 \\ 1/2 & 1/2 \end{pmatrix}", HALF * (1 - Q(5, 4)) == -Q(1, 8)),
        ("$-3/16 - 1/16 + 1/4 = 0$", -Q(1, 8) * Q(3, 2) - Q(1, 8) * HALF + HALF * HALF == 0),
        ("$w = 3/4 - 5/16 = 7/16$", Q(3, 4) - Q(1, 4) * (HALF + Q(3, 4)) == Q(7, 16)),
    ],
    "robustness": [
        (r"= \begin{pmatrix} 8/3 \\ 10/3 \end{pmatrix}$, so $M = 6$", times(BOUND, [1, 2]) == [Q(8, 3), Q(10, 3)]),
        (
            r"| derivative $\partial\hat y/\partial u$ | 14/5 |",
            sum(times(inverse(1, -HALF, HALF, 1), [1, 2])) == Q(14, 5),
        ),
        (r"$ | 8 |", 2 * 2 / (1 - HALF) == 8),
        ("a lead of 3 and a sum of 6 give the radius 1/2", Q(3, 6) == HALF),
    ],
    "composition": [
        ("For $u = 1$: $x_1 = 2$ and $x_2 = 16$", relu_step([[HALF, 4], [0, HALF]], [16, 2], [0, 1]) == [16, 2]),
        (r"\begin{pmatrix} 1/2 & 1/4 \\ 0 & 1/2 \end{pmatrix}$, whose norm is 3/4", HALF + Q(4, 16) == Q(3, 4)),
        ("$K = 1/4$ gives $x = 4$", max((HALF + Q(1, 4)) * 4 + 1, 0) == 4),
    ],
    "deployment": [
        (
            "the bound is $4/2^k$, and 12 steps give $4/4096 = 1/1024",
            steps(HALF, Q(1, 1000), 2) == 12 and Q(4, 2**12) == Q(1, 1024),
        ),
        (r"floor is $2^{-19} \approx 1.9 \cdot 10^{-6}$", 4 * Q(1, 2**24) * (HALF * 4 + 2) / HALF == Q(1, 2**19)),
        ("$s = 0.01$, $q = (127, -50)$", [Q(127, 100) / 127 * q for q in (127, -50)] == [Q(127, 100), -HALF]),
    ],
}


@pytest.mark.parametrize(("lesson", "says", "true"), [(k, *each) for k, rows in BOARD.items() for each in rows])
def test_a_number_on_the_board_is_true(lesson, says, true):
    assert says in page(lesson)
    assert true


def test_every_lesson_has_checked_numbers():
    assert sorted(BOARD) == LESSONS
