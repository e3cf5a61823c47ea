"""The checks of lesson 10."""

import os
import tempfile
from fractions import Fraction

import numpy as np

from checks.common import Wrong, near, parts, states, weights


def steps_for_range(f):
    A, B = np.array([[0.0, 0.5], [-0.5, 0.0]]), np.array([[1.0], [2.0]])
    examples = [(A, B, 1.0, 1e-3), (A, B, 0.0, 1e-3)]
    examples += [(*weights(seed, 4, 3, 1)[:2], 2.0, 1e-6) for seed in range(4)]
    for A, B, largest, tol in examples:
        kappa = max(sum(Fraction(abs(a)) for a in row) for row in A.tolist())
        bound = max(sum(Fraction(abs(b)) for b in row) for row in B.tolist()) * Fraction(largest) / (1 - kappa)
        k = 0
        while bound > Fraction(tol):
            k, bound = k + 1, bound * kappa
        answer = f(A, B, largest, tol)
        if answer != k:
            raise Wrong(f"for κ = {float(kappa):.4g}, |u| ≤ {largest} and tol = {tol} the bound needs {k} steps, "
                        f"and it returns {answer}")  # fmt: skip


def quantise(f):
    W = np.array([[1.27, -0.5, 0.001], [0.0, 0.0, 0.0], [-400.0, 3.0, 200.0], [1e-3, 2e-3, -1e-3]])
    q, scale = parts(f(W), 2)
    q, scale = np.asarray(q), np.asarray(scale, float)
    if q.dtype != np.int8:
        raise Wrong(f"q has the type {q.dtype}, but int8 is asked for")
    if q.shape != W.shape or scale.shape != (4,):
        raise Wrong(f"q and scale have the shapes {q.shape} and {scale.shape}, but {W.shape} and (4,) are asked for")
    if not np.isfinite(scale).all():
        raise Wrong("a row of zeros has no finite scale: do not divide by 0")
    error, least = np.abs(scale[:, None] * q - W), np.abs(W).max(axis=1) / 127
    if (error.max(axis=1) > least / 2 * (1 + 1e-9)).any():
        i = int((error.max(axis=1) - least / 2).argmax())
        raise Wrong(f"row {i} is off by {error[i].max():.3g}, more than half of the step {least[i]:.3g}: round to the "
                    "nearest integer, and give each row a scale of its own")  # fmt: skip


def predict(f):
    rng = np.random.default_rng(0)
    slow = np.diag(np.full(4, 0.96875)), np.ones((4, 3)), np.ones((2, 4)), np.zeros((2, 3))
    with tempfile.TemporaryDirectory() as folder:
        for k, (A, B, C, D) in enumerate([weights(1, 4, 3, 2), weights(2, 4, 3, 2), slow]):
            path, u = os.path.join(folder, f"model{k}.npz"), rng.random(3)
            np.savez(path, A=A, B=B, C=C, D=D)
            active = A @ states(A, B @ u) + B @ u > 0  # the active set, and then the states by one linear system
            x = np.zeros(4)
            x[active] = np.linalg.solve(np.eye(active.sum()) - A[np.ix_(active, active)], (B @ u)[active])
            near(f(path, u), C @ x + D @ u, "the output is not that of the equilibrium: iterate until x stays", 1e-8)
