"""Solutions of lesson 9, composition, for teachers. A model is a tuple (A, B, C, D)."""

import numpy as np


def cascade(second, first):
    """The model of second(first(u)), with the state of the second one on top.   -> (A, B, C, D)"""
    A2, B2, C2, D2 = second
    A1, B1, C1, D1 = first
    A = np.block([[A2, B2 @ C1], [np.zeros((len(A1), len(A2))), A1]])
    return A, np.vstack([B2 @ D1, B1]), np.hstack([C2, D2 @ C1]), D2 @ D1


def feedback(model, K):
    """The model from v to y where the input is u = v + K y: a loop around a model whose D need not be 0."""
    A, B, C, D = model
    E = np.linalg.inv(np.eye(len(C)) - D @ K)  # y = C x + D (v + K y), so y = E (C x + D v)
    return A + B @ K @ E @ C, B + B @ K @ E @ D, E @ C, E @ D


def in_units(model, d):
    """The model of the states x′ = x/d, entry by entry with d > 0, which has the same outputs for relu."""
    A, B, C, D = model
    return A / d[:, None] * d, B / d[:, None], C * d, D
