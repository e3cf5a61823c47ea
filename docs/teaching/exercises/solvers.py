"""Lesson 3, solvers: three exercises.

Write each function in the place of its last line, with NumPy. Then the grader says what is wrong:
python grade.py solvers.py
"""

import numpy as np  # noqa: F401 (for your code)


def picard_steps(kappa, first_step, tol):
    """The smallest k with κᵏ/(1 − κ) · first_step ≤ tol: after k steps of Picard, the error is at most tol."""
    raise NotImplementedError


def picard(A, Z, tol):
    """X ← max(A X + Z, 0) from X = 0, each column until its own step is ≤ tol.   -> X (n, m), steps (m,)"""
    raise NotImplementedError


def newton(A, z):
    """The x with x = max(A x + z, 0), to all digits, by Newton's method: solve (I − S A) x = S z, renew S, repeat."""
    raise NotImplementedError
