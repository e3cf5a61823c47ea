"""Solutions of lesson 4, certificates, for teachers."""

import numpy as np


def error_bound(A, Z, X):
    """For any X: a bound of the largest error of each column, by its residual and κ = ‖A‖∞; inf if κ ≥ 1.   -> (m,)"""
    kappa = np.abs(A).sum(axis=1).max()
    residual = np.abs(np.maximum(A @ X + Z, 0) - X).max(axis=0)
    return residual / (1 - kappa) if kappa < 1 else np.full(Z.shape[1], np.inf)


def entrywise(A, z, x):
    """For any x: a bound of the error of every entry, e = (I − |A|)⁻¹ |r|; all inf if that proves nothing.   -> (n,)"""
    n = len(z)
    r = np.abs(np.maximum(A @ x + z, 0) - x)
    v = np.linalg.solve(np.eye(n) - np.abs(A), np.ones(n))
    if v.min() <= 0:  # (I − |A|)⁻¹ ≥ 0 exactly when the Perron root is below 1, and then v ≥ 1
        return np.full(n, np.inf)
    return np.linalg.solve(np.eye(n) - np.abs(A), r)


def proved_class(C, x, e):
    """The class with the largest output at every x′ with |x′ − x| ≤ e entry by entry, or −1 if there is none."""
    top = int((C @ x).argmax())
    margins = (C[top] - C) @ x - np.abs(C[top] - C) @ e  # the least that the first class leads by
    return top if (np.delete(margins, top) > 0).all() else -1
