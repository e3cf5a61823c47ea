"""Solutions of lesson 8, robustness, for teachers."""

import numpy as np


def sensitivity(A, B, C, D):
    """M with |Δy| ≤ M |Δu| for every change of the input: |C| (I − |A|)⁻¹ |B| + |D|.   -> (q, p)"""
    return np.abs(C) @ np.linalg.solve(np.eye(len(A)) - np.abs(A), np.abs(B)) + np.abs(D)


def radius(A, B, C, D, y):
    """The largest ε that these bounds allow: with |Δuᵢ| < ε for all i, the largest entry of the outputs y stays so."""
    top = int(y.argmax())
    slack = []
    for k in range(len(y)):
        if k != top:
            lead = sensitivity(A, B, (C[top] - C[k])[None], (D[top] - D[k])[None]).sum()
            slack.append((y[top] - y[k]) / lead)
    return min(slack)


def attack(gradient, u, eps):
    """The u′ with |u′ − u| ≤ ε and 0 ≤ u′ ≤ 1 in every entry at which ⟨gradient, u′⟩ is largest; 0 ≤ u ≤ 1."""
    return np.clip(u + eps * np.sign(gradient), 0, 1)
