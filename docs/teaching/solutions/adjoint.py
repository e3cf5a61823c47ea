"""Solutions of lesson 5, the adjoint, for teachers."""

import numpy as np


def adjoint(A, S, G):
    """V with V = S ∘ (Aᵀ V + G), column by column and to all digits.   (n, n), (n, m), (n, m) -> (n, m)"""
    V = np.empty_like(G)
    for j in range(G.shape[1]):
        s = S[:, j]
        V[:, j] = np.linalg.solve(np.eye(len(A)) - s[:, None] * A.T, s * G[:, j])
    return V


def gradients(B, D, U, X, V, G_Y):
    """A dict with the gradients of "A", "B", "C", "D" and "U", from V = ∂ℓ/∂Z and G_Y = ∂ℓ/∂Y."""
    return {"A": V @ X.T, "B": V @ U.T, "C": G_Y @ X.T, "D": G_Y @ U.T, "U": B.T @ V + D.T @ G_Y}


def low_rank(L, R, X, V):
    """The gradients of L and R (n, r) where A = L Rᵀ, without any array of the size n × n."""
    return V @ (R.T @ X).T, X @ (L.T @ V).T
