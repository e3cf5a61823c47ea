"""Lesson 9, composition: three exercises. A model is a tuple (A, B, C, D).

Write each function in the place of its last line, with NumPy. Then the grader says what is wrong:
python grade.py composition.py
"""

import numpy as np  # noqa: F401 (for your code)


def cascade(second, first):
    """The model of second(first(u)), with the state of the second one on top.   -> (A, B, C, D)"""
    raise NotImplementedError


def feedback(model, K):
    """The model from v to y where the input is u = v + K y: a loop around a model whose D need not be 0."""
    raise NotImplementedError


def in_units(model, d):
    """The model of the states x′ = x/d, entry by entry with d > 0, which has the same outputs for relu."""
    raise NotImplementedError
