"""Lesson 6, gradient checks: three exercises.

Write each function in the place of its last line, with NumPy. Then the grader says what is wrong:
python grade.py gradient_checks.py
"""

import numpy as np  # noqa: F401 (for your code)


def central(f, x, E, h):
    """The derivative of f at x in the direction E, by a central difference with the step h."""
    raise NotImplementedError


def complex_step(f, x, E):
    """The same to all digits, by one complex step; f takes complex arrays and is analytic."""
    raise NotImplementedError


def wrong_gradients(f, weights, gradients):
    """The sorted names of the wrong gradients: f(weights) is a number, both dicts hold an array for each name."""
    raise NotImplementedError
