"""The checks of lesson 1."""

from fractions import Fraction
from itertools import pairwise

import numpy as np

from checks.common import Wrong, near, states, weights


def equilibria(f):
    for a, z in [(0.5, 1), (-0.5, 1), (2, -1), (2, 1), (-2, 1), (0.5, -1), (-3, -1), (4, -1.5), (3, 0)]:
        h = lambda x: max(Fraction(a) * x + Fraction(z), 0) - x  # noqa: B023, E731 — linear between the points below
        points = sorted({Fraction(0), Fraction(-z) / Fraction(a), Fraction(-100), Fraction(100)})
        truth = set()
        for left, right in pairwise(points):  # a root lies where the sign changes
            if h(left) == 0 or h(right) == 0:
                truth |= {x for x in (left, right) if h(x) == 0}
            elif h(left) * h(right) < 0:
                truth.add(left - h(left) * (right - left) / (h(right) - h(left)))
        answer = f(float(a), float(z))
        if not isinstance(answer, list) or len(answer) != len(truth):
            count = len(answer) if isinstance(answer, list) else f"no list but {answer!r}"
            raise Wrong(f"for a = {a} and z = {z} the number of equilibria is {len(truth)}, and it returns {count}")
        near(answer, sorted(map(float, truth)), f"for a = {a} and z = {z}, this is no equilibrium, or out of order")


def by_active_sets(f):
    for seed in range(6):
        A, B, _, _ = weights(seed, 4, 1, 1)
        truth = states(A, B[:, 0])
        near(f(A, B[:, 0]), truth, "x = max(A x + z, 0) does not hold for every active set that may occur")
    A, z = np.array([[0.0, 4.0], [-0.5, 0.0]]), np.array([1.0, 1.0])  # x₁ = 4 x₂ + 1, x₂ = 1 − x₁/2: x = (5/3, 1/6)
    near(f(A, z), [5 / 3, 1 / 6], "with ‖A‖∞ = 4 steps of an iteration lead nowhere, but one active set fits")


def as_implicit(f):
    rng = np.random.default_rng(0)
    W1, W2, W3 = rng.standard_normal((3, 2)), rng.standard_normal((4, 3)), rng.standard_normal((2, 4))
    answer = f(W1, W2, W3)
    if not isinstance(answer, tuple | list) or len(answer) != 4:
        raise Wrong("it should return four matrices: A, B, C, D")
    A, B, C, D = (np.asarray(W, float) for W in answer)
    for name, W, shape in zip("ABCD", (A, B, C, D), [(7, 7), (7, 2), (2, 7), (2, 2)], strict=True):
        if W.shape != shape:
            raise Wrong(f"{name} has the shape {W.shape}, but {shape} is asked for: there are 4 + 3 hidden units")
    if np.tril(A).any():
        raise Wrong("A is not strictly upper triangular: with the second layer on top, it reads from below")
    for u in rng.standard_normal((5, 2)):
        z, x = B @ u, np.zeros(7)
        for i in reversed(range(7)):  # back substitution: row i needs the rows below it only
            x[i] = max(A[i] @ x + z[i], 0)
        y = W3 @ np.maximum(W2 @ np.maximum(W1 @ u, 0), 0)
        near(C @ x + D @ u, y, "the outputs are not those of the net")
