"""Lesson 2, well-posedness: three exercises.

Write each function in the place of its last line, with NumPy. Then the grader says what is wrong:
python grade.py wellposed.py
"""

import numpy as np  # noqa: F401 (for your code)


def perron_bounds(A, z):
    """Two numbers between which the Perron root of the absolute values of A lies, from a vector z > 0."""
    raise NotImplementedError


def rescaling(A):
    """Some d > 0 so that D⁻¹ A D has all absolute row sums below 1, for an A whose Perron root is below 1.   -> (n,)"""
    raise NotImplementedError


def project(a, kappa):
    """The nearest point of the ball with Σ |pᵢ| ≤ κ to the row a, in the Euclidean distance.   (n,) -> (n,)"""
    raise NotImplementedError
