"""A Ball is a float64 array with a bound of its error, and the arithmetic that keeps the bound valid under rounding.

The ball (mid, rad) stands for every real array M with |M − mid| ≤ rad, entry by entry. An operation on balls returns a
ball that holds the exact result for all members of its operands. A formula that is written in balls is therefore a
theorem about the numbers that it computes, and needs no rounding analysis of its own.

Let u = 2⁻⁵³, ε = 2u and γ_k = k·u/(1 − k·u). In float64, and for any order of summation, with or without fused
multiply-add, |fl(a + b) − (a + b)| ≤ u |fl(a + b)|, and a sum of k products satisfies |fl(a b) − a b| ≤ γ_k |a||b| plus
what underflows. The radii use (k + 2)·ε, which is more than twice γ_k for all sizes that fit into a memory, and the
factor SAFETY makes up for the rounding of the radii themselves.

Source: Rump, Verification methods, Acta Numerica 19 (2010), section 9; Higham, Accuracy and Stability of Numerical
Algorithms, chapter 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from idl_ref.certificate import EPS, SAFETY

TINY = float(np.finfo(np.float64).tiny)
QUIET = np.errstate(over="ignore", invalid="ignore")  # Where numbers overflow, or inf and −inf meet, there is no bound.


@dataclass(frozen=True, eq=False, slots=True)
class Ball:
    """All arrays M with |M − mid| ≤ rad; the radius of an exact array is the number 0."""

    mid: np.ndarray
    rad: Any = 0.0

    __array_ufunc__ = None  # NumPy leaves `array @ ball` to this class.

    @property
    def T(self) -> Ball:
        """Mᵀ."""
        return Ball(self.mid.T, self.rad if np.ndim(self.rad) == 0 else self.rad.T)

    def __getitem__(self, index: Any) -> Ball:
        return Ball(self.mid[index], self.rad if np.ndim(self.rad) == 0 else self.rad[index])

    def __neg__(self) -> Ball:
        return Ball(-self.mid, self.rad)

    @QUIET
    def __add__(self, other: Any) -> Ball:
        other = ball(other)
        mid = self.mid + other.mid
        return Ball(mid, SAFETY * (self.rad + other.rad + EPS * np.abs(mid)))

    def __sub__(self, other: Any) -> Ball:
        return self + (-ball(other))

    @QUIET
    def __mul__(self, other: Any) -> Ball:
        """The product of each pair of entries."""
        other = ball(other)
        mid, size = self.mid * other.mid, np.abs(other.mid) + other.rad
        return Ball(mid, SAFETY * (np.abs(self.mid) * other.rad + self.rad * size + EPS * np.abs(mid)) + 4 * TINY)

    @QUIET
    def __matmul__(self, other: Any) -> Ball:
        """The matrix product; the radius takes one more product, and two if this factor is not exact."""
        other = ball(other)
        terms, size = self.mid.shape[1], np.abs(other.mid)
        rad = np.abs(self.mid) @ (other.rad + (terms + 2) * EPS * size)
        if np.ndim(self.rad):
            rad = rad + self.rad @ (size + other.rad)
        return Ball(self.mid @ other.mid, SAFETY * rad + 4 * terms * TINY)

    def __rmatmul__(self, other: Any) -> Ball:
        return ball(other) @ self

    @QUIET
    def sum(self, axis: int = 0) -> Ball:
        """The sum along an axis."""
        terms, rad = self.mid.shape[axis], np.broadcast_to(self.rad, self.mid.shape).sum(axis)
        return Ball(self.mid.sum(axis), SAFETY * (rad + (terms + 2) * EPS * np.abs(self.mid).sum(axis)))

    def parts(self) -> tuple[Ball, Ball]:
        """max(M, 0) and min(M, 0), whose sum is M; the two functions are 1-Lipschitz, so that the radius remains."""
        return Ball(np.maximum(self.mid, 0), self.rad), Ball(np.minimum(self.mid, 0), self.rad)

    def lower(self) -> np.ndarray:
        """A lower bound of every member, −inf where there is none."""
        return -(-self).upper()

    @QUIET
    def upper(self) -> np.ndarray:
        """An upper bound of every member, inf where there is none."""
        bound = np.nextafter(self.mid + self.rad, np.inf)
        return np.where(np.isfinite(self.mid) & ~np.isnan(bound), bound, np.inf)

    @QUIET
    def size(self) -> np.ndarray:
        """An upper bound of |M|."""
        return SAFETY * (np.abs(self.mid) + self.rad)


def ball(value: Any) -> Ball:
    """Return an array as the ball that holds only this array; a ball remains as it is."""
    return value if isinstance(value, Ball) else Ball(np.asarray(value, np.float64))


def span(M: Ball, low: np.ndarray, high: np.ndarray) -> tuple[Ball, Ball]:
    """Return the least and the largest value of M y for low ≤ y ≤ high.   M (k, n), low, high (n, m) -> (k, m) each

    The least value is M⁺ low + M⁻ high with M⁺ = max(M, 0) and M⁻ = min(M, 0), and it is attained.
    """
    positive, negative = M.parts()
    return positive @ low + negative @ high, positive @ high + negative @ low


def least(W: Ball, low: np.ndarray, high: np.ndarray) -> Ball:
    """Return the least value of wᵀy for low ≤ y ≤ high, for each column w of W.   W, low, high (n, m) -> (m,)"""
    positive, negative = W.parts()
    return (positive * low + negative * high).sum()
