"""Lesson 7, training: three exercises.

Write each function in the place of its last line, with NumPy. Then the grader says what is wrong:
python grade.py training.py
"""

import numpy as np  # noqa: F401 (for your code)


def cross_entropy(Y, labels):
    """The mean over columns j of log Σᵢ exp Y_ij − Y_tⱼj, and its gradient by Y.   (q, m), (m,) -> number, (q, m)"""
    raise NotImplementedError


def pullback(A, kappa, G):
    """From G, the gradient by κ A/max(κ, ‖A‖∞), to the gradient by A.   (n, n), number, (n, n) -> (n, n)"""
    raise NotImplementedError


def descend(gradient, w, rate, momentum, steps):
    """w after some steps of v ← μ v + ∂ℓ(w), w ← w − η v from v = 0; the array w of the caller does not change."""
    raise NotImplementedError
