"""This module holds matrices in eight bits: row i is a number s_i times whole numbers from −127 to 127.

s_i has so few digits that all products s_i q are exact in the dtype of the matrix. A matrix that was rounded to such
rows is therefore an ordinary matrix, from which s and q can be read off again without any loss.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

LARGEST = 127  # The largest |q|; every row that is not 0 has an entry of this size.
DIGITS = 16  # The binary digits of s. A product with q has at most 7 more, and float32 has 24.


class Quantised(NamedTuple):
    """A matrix W with W_ij = s_i q_ij.

    Attributes
    ----------
    q : (n, k) array of int8
        The whole numbers.
    scale : (n,) array
        The numbers s, in the dtype of W; 1 for a row of zeros.
    """

    q: np.ndarray
    scale: np.ndarray

    @property
    def matrix(self) -> np.ndarray:
        """The matrix W."""
        return self.scale[:, None] * self.q.astype(self.scale.dtype)


def nearest(W: np.ndarray) -> Quantised:
    """Return the rows s_i q_i that are near to those of W, with absolute row sums that are at most those of W.

    s_i = max_j |W_ij| / 127, rounded to DIGITS digits, and q_ij = W_ij / s_i, rounded. Where the sum of a row has
    become larger, s_i is made smaller until it is not, so that ‖A‖∞ ≤ κ remains true. A row for which s_i is below the
    smallest normal number of the dtype, which has fewer digits, becomes zeros.

    Examples
    --------
    >>> found = nearest(np.array([[1.0, -0.25], [0.0, 0.0]]))
    >>> found.q
    array([[127, -32],
           [  0,   0]], dtype=int8)
    >>> print(found.matrix.round(4))
    [[ 0.9984 -0.2516]
     [ 0.      0.    ]]
    """
    wide = W.astype(np.float64)
    largest = np.abs(wide).max(axis=1, initial=0.0)
    s = _rounded(np.where(largest > 0, largest / LARGEST, 1.0), np.rint)
    q = np.clip(np.rint(wide / s[:, None]), -LARGEST, LARGEST)
    before, after = (
        np.abs(wide).sum(axis=1) * (1 - 2.0**-40),
        np.abs(q).sum(axis=1),
    )  # more than the sums are rounded by
    allowed = _rounded(before / np.maximum(after, 1), np.floor)
    changed = (s[:, None] * q != wide).any(axis=1)
    s = np.where(changed & (s * after > before), allowed, s)
    kept = (after > 0) & (s >= np.finfo(W.dtype).tiny)
    return Quantised(np.where(kept[:, None], q, 0).astype(np.int8), np.where(kept, s, 1.0).astype(W.dtype))


def exactly(W: np.ndarray) -> Quantised | None:
    """Return W in eight bits if that loses nothing and is smaller, as for a matrix of `nearest`; otherwise None.

    Examples
    --------
    >>> W = nearest(np.array([[1.0, -0.25, 0.75], [0.5, 0.0, 0.125]])).matrix
    >>> bool((exactly(W).matrix == W).all()), exactly(np.array([[1.0, 0.3, 0.2]]))
    (True, None)
    """
    if W.ndim != 2 or W.shape[1] * W.itemsize <= W.shape[1] + W.itemsize:
        return None
    largest = np.abs(W).max(axis=1, initial=0.0)
    s = np.where(largest > 0, largest / LARGEST, 1).astype(W.dtype)
    if not (s > 0).all():
        return None
    q = np.clip(np.rint(W / s[:, None]), -LARGEST, LARGEST)
    return Quantised(q.astype(np.int8), s) if np.array_equal(s[:, None] * q, W) else None


def _rounded(s: np.ndarray, way: np.ufunc) -> np.ndarray:
    """Return numbers with DIGITS binary digits, rounded in a given way."""
    mantissa, exponent = np.frexp(s)
    return np.ldexp(way(np.ldexp(mantissa, DIGITS)), exponent - DIGITS)
