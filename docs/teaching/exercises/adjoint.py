"""Lesson 5, the adjoint: three exercises.

Write each function in the place of its last line, with NumPy. Then the grader says what is wrong:
python grade.py adjoint.py
"""

import numpy as np  # noqa: F401 (for your code)


def adjoint(A, S, G):
    """V with V = S ∘ (Aᵀ V + G), column by column and to all digits.   (n, n), (n, m), (n, m) -> (n, m)"""
    raise NotImplementedError


def gradients(B, D, U, X, V, G_Y):
    """A dict with the gradients of "A", "B", "C", "D" and "U", from V = ∂ℓ/∂Z and G_Y = ∂ℓ/∂Y."""
    raise NotImplementedError


def low_rank(L, R, X, V):
    """The gradients of L and R (n, r) where A = L Rᵀ, without any array of the size n × n."""
    raise NotImplementedError
