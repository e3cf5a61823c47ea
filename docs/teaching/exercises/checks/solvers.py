"""The checks of lesson 3."""

from fractions import Fraction

import numpy as np

from checks.common import Wrong, near, parts, weights


def picard_steps(f):
    for kappa, first, tol in [
        (0.5, 1.0, 1e-6),
        (0.99, 1.0, 1e-6),
        (0.9, 3.0, 1e-3),
        (0.25, 1e-9, 1e-6),
        (0.5, 1.0, 2.0),
    ]:
        k, bound = 0, Fraction(first) / (1 - Fraction(kappa))
        while bound > Fraction(tol):
            k, bound = k + 1, bound * Fraction(kappa)
        answer = f(kappa, first, tol)
        if answer != k:
            raise Wrong(f"for κ = {kappa}, a first step of {first} and tol = {tol}, {k} steps are enough and needed, "
                        f"and it returns {answer}")  # fmt: skip


def picard(f):
    A = np.array([[0.0, 0.5, 0.0], [-0.5, 0.0, 0.0], [0.0, 0.0, 0.95]])
    Z = np.array([[1.0, 0.0, 0.0, -1.0], [2.0, 0.0, 1.0, -2.0], [0.0, 0.0, 1.0, 0.0]])
    truth, counts = np.zeros_like(Z), np.zeros(4)
    for j in range(4):  # a column never depends on the others
        moved = np.inf
        while moved > 1e-6:
            x = np.maximum(A @ truth[:, j] + Z[:, j], 0)
            moved, truth[:, j] = np.abs(x - truth[:, j]).max(), x
            counts[j] += 1
    X, steps = parts(f(A, Z, 1e-6), 2)
    near(X, truth, "a column has not got as many steps as it needs by itself: judge each by its largest entry")
    near(steps, counts, "the number of steps of a column is counted until its own step is at most tol")


def newton(f):
    n = 24
    A = np.abs(np.random.default_rng(0).standard_normal((n, n)))
    A *= (1 - 1e-7) / A.sum(axis=1, keepdims=True)  # Picard needs some hundred million steps here
    examples = [(A, np.ones(n)), (A, np.linspace(-1, 2, n))]
    examples += [(weights(seed, 6, 1, 1)[0], weights(seed, 6, 1, 1)[1][:, 0]) for seed in range(4)]
    for A, z in examples:
        x = np.asarray(f(A, z), float)
        if x.shape != z.shape:
            raise Wrong(f"x has the shape {x.shape}, but {z.shape} is asked for")
        residual = np.abs(np.maximum(A @ x + z, 0) - x).max()
        if not residual <= 1e-13 * max(1, np.abs(x).max()):
            kappa = np.abs(A).sum(axis=1).max()
            raise Wrong(
                f"x = max(A x + z, 0) holds only up to {residual:.1e}, which at κ = {kappa:.7f} is no equilibrium: "
                "solve again until the active set stays"
            )
        active = A @ x + z > 0
        exact = np.zeros(len(z))
        exact[active] = np.linalg.solve(np.eye(active.sum()) - A[np.ix_(active, active)], z[active])
        near(x, exact, "the residual is small, but the error is not: steps of Picard are not enough", 1e-6)
