"""Solutions of lesson 2, well-posedness, for teachers."""

import numpy as np


def perron_bounds(A, z):
    """Two numbers between which the Perron root of the absolute values of A lies, from a vector z > 0."""
    ratio = np.abs(A) @ z / z
    return ratio.min(), ratio.max()


def rescaling(A):
    """Some d > 0 so that D⁻¹ A D has all absolute row sums below 1, for an A whose Perron root is below 1.   -> (n,)"""
    n = len(A)
    return np.linalg.solve(np.eye(n) - np.abs(A), np.ones(n))  # d − |A| d = 1 > 0, so (|A| d)_i < d_i in every row


def project(a, kappa):
    """The nearest point of the ball with Σ |pᵢ| ≤ κ to the row a, in the Euclidean distance.   (n,) -> (n,)"""
    size = np.abs(a)
    if size.sum() <= kappa:
        return a.copy()
    sizes = np.sort(size)[::-1]
    excess = (np.cumsum(sizes) - kappa) / np.arange(1, len(a) + 1)  # the t for which the k largest entries fit
    t = excess[np.flatnonzero(sizes > excess)[-1]]
    return np.sign(a) * np.maximum(size - t, 0)
