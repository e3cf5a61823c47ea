"""Lesson 1, equilibrium: three exercises.

Write each function in the place of its last line, with NumPy. Then the grader says what is wrong:
python grade.py equilibrium.py
"""

import numpy as np  # noqa: F401 (for your code)


def equilibria(a, z):
    """All solutions x of x = max(a x + z, 0) for two numbers a ≠ 1 and z, as a sorted list, which may be empty."""
    raise NotImplementedError


def by_active_sets(A, z):
    """The x with x = max(A x + z, 0), by trying all 2ⁿ active sets.   (n, n), (n,) -> (n,)"""
    raise NotImplementedError


def as_implicit(W1, W2, W3):
    """The net y = W3 relu(W2 relu(W1 u)) as A, B, C, D, with the second layer on top: x = (x₂, x₁)."""
    raise NotImplementedError
