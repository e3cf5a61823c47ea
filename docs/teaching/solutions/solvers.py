"""Solutions of lesson 3, solvers, for teachers."""

import numpy as np


def picard_steps(kappa, first_step, tol):
    """The smallest k with κᵏ/(1 − κ) · first_step ≤ tol: after k steps of Picard, the error is at most tol."""
    k, bound = 0, first_step / (1 - kappa)
    while bound > tol:
        k, bound = k + 1, kappa * bound
    return k


def picard(A, Z, tol):
    """X ← max(A X + Z, 0) from X = 0, each column until its own step is ≤ tol.   -> X (n, m), steps (m,)"""
    X, steps, running = np.zeros_like(Z), np.zeros(Z.shape[1], int), np.ones(Z.shape[1], bool)
    while running.any():
        new = np.maximum(A @ X[:, running] + Z[:, running], 0)
        moved = np.abs(new - X[:, running]).max(axis=0)
        X[:, running] = new
        steps[running] += 1
        running[running] = moved > tol
    return X, steps


def newton(A, z):
    """The x with x = max(A x + z, 0), to all digits, by Newton's method: solve (I − S A) x = S z, renew S, repeat."""
    x, n = np.zeros_like(z), len(z)
    for _ in range(50):
        S = (A @ x + z > 0).astype(float)
        x_new = np.linalg.solve(np.eye(n) - S[:, None] * A, S * z)
        if np.array_equal(x_new, x):
            break
        x = x_new
    return x
