"""Lesson 10, deployment: three exercises.

Write each function in the place of its last line, with NumPy. Then the grader says what is wrong:
python grade.py deployment.py
"""

import numpy as np  # noqa: F401 (for your code)


def steps_for_range(A, B, largest, tol):
    """A number of steps of Picard from x = 0 after which the error is ≤ tol for every |uᵢ| ≤ largest; κ = ‖A‖∞ < 1."""
    raise NotImplementedError


def quantise(W):
    """Rows in eight bits: integers q (int8, −127 … 127) and a scale per row with W ≈ scale · q.   -> (n, p), (n,)"""
    raise NotImplementedError


def predict(path, u):
    """The outputs of a saved relu model for one input: its file has A, B, C, D, as they stand in the equations."""
    raise NotImplementedError
