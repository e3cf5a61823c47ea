"""Lesson 8, robustness: three exercises.

Write each function in the place of its last line, with NumPy. Then the grader says what is wrong:
python grade.py robustness.py
"""

import numpy as np  # noqa: F401 (for your code)


def sensitivity(A, B, C, D):
    """M with |Δy| ≤ M |Δu| for every change of the input: |C| (I − |A|)⁻¹ |B| + |D|.   -> (q, p)"""
    raise NotImplementedError


def radius(A, B, C, D, y):
    """The largest ε that these bounds allow: with |Δuᵢ| < ε for all i, the largest entry of the outputs y stays so."""
    raise NotImplementedError


def attack(gradient, u, eps):
    """The u′ with |u′ − u| ≤ ε and 0 ≤ u′ ≤ 1 in every entry at which ⟨gradient, u′⟩ is largest; 0 ≤ u ≤ 1."""
    raise NotImplementedError
