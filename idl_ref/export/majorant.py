"""A nonnegative matrix M = c|A|, and upper bounds of what it does to nonnegative vectors.

The bounds include the rounding of their own computation in float64.
"""

from __future__ import annotations

import sys
from functools import cached_property

import numpy as np

from idl_ref import factors as fac
from idl_ref.certificate import SAFETY

BLOCK = 64  # A power of M makes this many applications at once.
# For a sparse M, the inverse is a sum of at most TERMS terms, until the next one is ENOUGH times the first at most.
TERMS = 10_000
ENOUGH = 1e-3


class Majorant:
    """M = c|A| in float64, c (1, 1) or (n, 1); for A = L Rᵀ, the product |L||R|ᵀ takes the place of |A|."""

    def __init__(self, factors: fac.Factors, scale: np.ndarray) -> None:
        first, *others = [np.abs(F).astype(np.float64) for F in factors]
        self.factors: fac.Factors = (fac.scaled(first, np.broadcast_to(SAFETY * scale, (len(first), 1))), *others)
        self.sparse = fac.is_sparse(factors)  # Then neither a power nor an inverse is formed, which have no zeros.
        self.triangle = fac.triangle(self.factors)

    def __call__(self, v: np.ndarray) -> np.ndarray:
        """Bound M v."""
        return SAFETY * fac.apply(self.factors, v)

    @cached_property
    def _power(self) -> fac.Factors:
        """Factors of an upper bound of M to the power BLOCK."""
        first, *others = self.factors
        if not others:
            return (SAFETY * np.linalg.matrix_power(first, BLOCK),)
        return SAFETY * first @ np.linalg.matrix_power(others[0] @ first, BLOCK - 1), others[0]

    def first_below(self, w: np.ndarray, threshold: float, most: int) -> tuple[int, np.ndarray]:
        """Return the first k for which no entry of the bound of Mᵏ⁻¹ w exceeds the threshold, and that bound.

        A k above `most` is an estimate, and sys.maxsize says that the entries do not shrink.
        """
        k, step, rate, before = 1, 1 if self.triangle or self.sparse else BLOCK, 1.0, w
        with np.errstate(over="ignore", invalid="ignore"):
            while not w.max() <= threshold and k <= most and np.isfinite(w).all():
                if self.triangle and k > len(w):
                    return k, np.zeros_like(w)  # The power n of a strictly triangular matrix is 0.
                before = w
                w = self(before) if step == 1 else SAFETY * fac.apply(self._power, before)
                if step > 1 and not w.max() > threshold:  # The first k is inside this block.
                    w, step = before, 1
                    continue
                k, rate = k + step, (w.max() / before.max()) ** (1 / step)
        if w.max() <= threshold:
            return k, w
        return (k + int(np.log(threshold / w.max()) / np.log(rate)) if rate < 1 else sys.maxsize), w

    @cached_property
    def _inverse(self) -> np.ndarray:
        """An approximation of (I − M)⁻¹, or of (I − |R|ᵀ|L|)⁻¹ for two factors; NaN if there is none."""
        core = fac.apply(self.factors[1:], self.factors[0])
        try:
            return np.linalg.inv(np.eye(len(core)) - core)
        except np.linalg.LinAlgError:
            return np.full_like(core, np.nan)

    def _solve(self, r: np.ndarray) -> np.ndarray:
        """An approximation of (I − M)⁻¹ r, for a sparse M a partial sum of r + M r + M² r + …"""
        if self.sparse:
            total = term = r
            for _ in range(TERMS):
                term = fac.apply(self.factors, term)
                total = total + term
                if not term.max(initial=0.0) > ENOUGH * r.min(initial=np.inf):
                    break
            return total
        if len(self.factors) == 1:
            return self._inverse @ r
        L, Rt = self.factors
        return r + L @ (self._inverse @ (Rt @ r))

    def resolvent(self, r: np.ndarray) -> np.ndarray:
        """Bound (I − M)⁻¹ r for r > 0; all entries are inf unless the Perron root of M is proved to be below 1.

        If (I − M) v ≥ r > 0 for some v > 0, then the inverse is nonnegative, and v bounds (I − M)⁻¹ r. The vector v is
        computed for a right-hand side that is larger than r by the rounding of this check.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            v = self._substitute(r) if self.triangle else self._checked(r)
        return v if np.isfinite(v).all() else np.full_like(r, np.inf)

    def _substitute(self, r: np.ndarray) -> np.ndarray:
        """(I − M)⁻¹ r for a strictly triangular M, without a subtraction."""
        (M,), v = self.factors, np.zeros_like(r)
        for i in range(len(r)) if self.triangle == "lower" else reversed(range(len(r))):
            row, columns = fac.row(M, i, slice(None))
            v[i] = SAFETY * (r[i] + row[0] @ v[columns])
        return v

    def _checked(self, r: np.ndarray) -> np.ndarray:
        """(I − M)⁻¹ r, checked as `resolvent` says; inf if the check fails."""
        terms = sum(F.shape[1] for F in self.factors) + 4
        rounding = terms * sys.float_info.epsilon
        v = self._solve(r)
        for _ in range(2):
            v = self._solve(r + 4 * rounding * np.abs(v))
        Mv = fac.apply(self.factors, v)
        left = v - Mv - rounding * (v + Mv)
        if not (np.all(v > 0) and np.all(left > 0)):
            return np.full_like(r, np.inf)
        return SAFETY * max(1.0, float((r / left).max())) * v
