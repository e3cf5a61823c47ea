"""What the checks share: how a student's function is called and compared, and linear equations in fractions."""

from fractions import Fraction

import numpy as np


class Wrong(Exception):  # noqa: N818 (it is a verdict, not an error of the program)
    """What is wrong with an answer, in a sentence."""


def called(function):
    """The function, with a verdict in the place of an exception, and arguments that it may not change."""

    def call(*arguments):
        copies = [np.array(each) if isinstance(each, np.ndarray) else each for each in arguments]
        try:
            answer = function(*copies)
        except NotImplementedError:
            raise Wrong("it is not written yet") from None
        except Exception as error:
            raise Wrong(f"it raises {type(error).__name__}: {error}") from error
        if answer is None:
            raise Wrong("it returns None: the last line of a function has to return the answer")
        for before, after in zip(arguments, copies, strict=True):
            if isinstance(before, np.ndarray) and not np.array_equal(before, after):
                raise Wrong("it changes an array of its caller: compute with a copy")
        return answer

    return call


def near(answer, truth, otherwise, tol=1e-9):
    """Compare an answer with the truth, an array or a number; `otherwise` says what is wrong where they differ."""
    truth = np.asarray(truth, float)
    try:
        answer = np.asarray(answer, float)
    except (TypeError, ValueError):
        raise Wrong(f"it should return numbers, but returns {answer!r}") from None
    if answer.shape != truth.shape:
        raise Wrong(f"the answer has the shape {answer.shape}, but {truth.shape} is asked for")
    within = tol * np.maximum(1, np.abs(np.where(np.isfinite(truth), truth, 0)))  # inf is right for inf alone
    with np.errstate(invalid="ignore"):  # inf − inf, which the first comparison has answered
        equal = (answer == truth) | (np.abs(answer - truth) <= within)
    if not equal.all():
        where = tuple(int(i) for i in np.argwhere(~equal)[0])
        entry = f"entry {where if len(where) > 1 else where[0]} is" if where else "it is"
        raise Wrong(f"{otherwise} ({entry} {answer[where]:.9g}, and should be {truth[where]:.9g})")


def parts(answer, count):
    """The parts of a tuple of `count` arrays."""
    if not isinstance(answer, tuple | list) or len(answer) != count:
        raise Wrong(f"it should return {count} things, as in `return a, b`")
    return answer


def exact(M):
    """The entries of a matrix or vector as fractions."""
    return [[Fraction(float(v)) for v in row] for row in np.asarray(M, float).reshape(len(M), -1)]


def solve(M, B):
    """M⁻¹ B in fractions, by the elimination of Gauss, and only then rounded."""
    rows = [left + right for left, right in zip(exact(M), exact(B), strict=True)]
    n = len(rows)
    for k in range(n):
        pivot = next(i for i in range(k, n) if rows[i][k] != 0)
        rows[k], rows[pivot] = rows[pivot], rows[k]
        rows[k] = [v / rows[k][k] for v in rows[k]]
        for i in range(n):
            if i != k and rows[i][k]:
                rows[i] = [v - rows[i][k] * w for v, w in zip(rows[i], rows[k], strict=True)]
    return np.array([[float(v) for v in row[n:]] for row in rows]).reshape(np.shape(B))


def states(A, Z, steps=500):
    """The X = max(A X + Z, 0) with ‖A‖∞ ≤ 0.9, by so many steps that no more than rounding is missing."""
    X = np.zeros_like(Z, dtype=float)
    for _ in range(steps):
        X = np.maximum(A @ X + Z, 0)
    return X


def weights(seed, n, p, q, norm=0.75):
    """A, B, C, D with signs and fractions of a power of two, so that no entry is rounded; ‖A‖∞ ≤ norm."""
    rng = np.random.default_rng(seed)
    draw = lambda *shape: rng.integers(-8, 9, shape) / 8.0  # noqa: E731
    return draw(n, n) * norm / n, draw(n, p), draw(q, n), draw(q, p)
