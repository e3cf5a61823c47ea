"""Upper bounds of (I − S M)⁻¹ r for nonnegative M, S and r: how far residuals move a solution.

Small matrices are inverted. For large ones the series r + S M r + (S M)² r + … is summed until a bound of what is left,
from a norm of M below 1, no longer matters, and that bound is added.
"""

from __future__ import annotations

import numpy as np

INVERTED = 32  # up to this many units the inverse is taken
TERMS = 5000  # of the series, at most
CHUNK = 256  # columns whose inverses are held at once


def resolvent(M: np.ndarray) -> np.ndarray:
    """(I − M)⁻¹ for M ≥ 0, or for a stack of them; ValueError unless the Perron root of M is below 1.   (…, n, n)"""
    inverse = np.linalg.inv(np.eye(M.shape[-1]) - M)
    if not (inverse > -1e-12).all():
        raise ValueError("the Perron root is not below 1: there is no bound")
    return np.maximum(inverse, 0)


def above(M: np.ndarray, r: np.ndarray, S: np.ndarray | None = None) -> np.ndarray:
    """An upper bound of the E with E = r + S ∘ (M E), where 0 ≤ S ≤ 1; S = 1 if it is None.   (n, n), (n, m) -> (n, m)

    Up to INVERTED units it is that E, but for rounding.
    """
    across, along = M.sum(axis=1).max(initial=0.0), M.sum(axis=0).max(initial=0.0)
    if len(M) > INVERTED and min(across, along) < 1 and np.isfinite(r).all():
        return _series(M, r, S, across, along)
    if S is None:
        return resolvent(M) @ r
    E = np.empty_like(r)
    for j in range(0, r.shape[1], CHUNK):
        part = S[:, j : j + CHUNK].T[:, :, None] * M
        E[:, j : j + CHUNK] = (resolvent(part) @ r.T[j : j + CHUNK, :, None])[:, :, 0].T
    return E


def _series(M: np.ndarray, r: np.ndarray, S: np.ndarray | None, across: float, along: float) -> np.ndarray:
    """The sum of the series and a bound of the rest: κ‖t‖/(1 − κ) after the term t, in the ∞-norm and in the 1-norm."""
    passes, E, term = np.ones_like(r) if S is None else S, r.copy(), r
    for _ in range(TERMS):
        term = passes * (M @ term)
        E += term
        rests = [np.full(r.shape[1], np.inf)]
        rests += [across / (1 - across) * term.max(axis=0)] if across < 1 else []
        rests += [along / (1 - along) * term.sum(axis=0)] if along < 1 else []
        rest = np.minimum.reduce(rests)
        smallest = np.where((E > 0) & (passes > 0), E, np.inf).min(axis=0, initial=np.inf)
        if (rest <= np.maximum(0.01 * smallest, 1e-8 * E.max(axis=0))).all():
            break
    return E + rest * (passes > 0)
