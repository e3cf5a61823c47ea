"""Lesson 4, certificates: three exercises.

Write each function in the place of its last line, with NumPy. Then the grader says what is wrong:
python grade.py certificates.py
"""

import numpy as np  # noqa: F401 (for your code)


def error_bound(A, Z, X):
    """For any X: a bound of the largest error of each column, by its residual and κ = ‖A‖∞; inf if κ ≥ 1.   -> (m,)"""
    raise NotImplementedError


def entrywise(A, z, x):
    """For any x: a bound of the error of every entry, e = (I − |A|)⁻¹ |r|; all inf if that proves nothing.   -> (n,)"""
    raise NotImplementedError


def proved_class(C, x, e):
    """The class with the largest output at every x′ with |x′ − x| ≤ e entry by entry, or −1 if there is none."""
    raise NotImplementedError
