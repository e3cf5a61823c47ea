"""Solutions of lesson 1, equilibrium, for teachers."""

from itertools import product

import numpy as np


def equilibria(a, z):
    """All solutions x of x = max(a x + z, 0) for two numbers a ≠ 1 and z, as a sorted list, which may be empty."""
    found = []
    if z <= 0:  # not active: x = 0, and a·0 + z must not be positive
        found.append(0.0)
    if z / (1 - a) > 0:  # active: x = a x + z, and x must be positive
        found.append(z / (1 - a))
    return sorted(found)


def by_active_sets(A, z):
    """The x with x = max(A x + z, 0), by trying all 2ⁿ active sets.   (n, n), (n,) -> (n,)"""
    n = len(z)
    for active in product([0.0, 1.0], repeat=n):
        D = np.diag(active)
        x = np.linalg.solve(np.eye(n) - D @ A, D @ z)
        if np.allclose(np.maximum(A @ x + z, 0), x, rtol=0, atol=1e-12):
            return x
    raise ValueError("no active set gives an equilibrium")


def as_implicit(W1, W2, W3):
    """The net y = W3 relu(W2 relu(W1 u)) as A, B, C, D, with the second layer on top: x = (x₂, x₁)."""
    n1, n2 = len(W1), len(W2)
    A = np.zeros((n2 + n1, n2 + n1))
    A[:n2, n2:] = W2
    B = np.vstack([np.zeros((n2, W1.shape[1])), W1])
    C = np.hstack([W3, np.zeros((len(W3), n1))])
    return A, B, C, np.zeros((len(W3), W1.shape[1]))
