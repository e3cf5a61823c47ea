"""Trial points for the solution of an Equation, in NumPy: those of Anderson and those of Newton.

A proposal looks at x, at p = A x + z and at g = g(x), and guesses where the equilibrium is. The guess may be wrong:
`solve.safeguarded` keeps it only if it shortens the step.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from idl_ref import factors as fac
from idl_ref.backends.equation import Equation
from idl_ref.backends.methods import DAMPING, DEPTH

CHUNK = 1 << 22  # entries of the stacked matrices that Newton solves at once


class Proposal(Protocol):
    def propose(
        self, equation: Equation, X: np.ndarray, P: np.ndarray, G: np.ndarray, good: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Trial points (n, m), and in which columns there is one (m,). Where not `good`, the last were given up."""
        ...

    def keep(self, alive: np.ndarray) -> None:
        """Forget the columns that have left the iteration."""
        ...


class Anderson:
    """x⁺ = g − ΔG γ with γ = argmin ‖f − ΔF γ‖₂, f = g − x, over the last DEPTH differences of f and g, per column.

    Source: Walker and Ni, Anderson acceleration for fixed-point iterations, SIAM J. Numer. Anal. 49 (2011), type II.
    """

    def __init__(self, X: np.ndarray) -> None:
        n, m = X.shape
        self.damping = DAMPING * float(np.finfo(X.dtype).eps)  # relative, on the diagonal of ΔFᵀΔF
        # Columns first: each column's history is a small matrix of contiguous rows.
        self.dF = np.zeros((m, DEPTH, n), X.dtype)
        self.dG = np.zeros((m, DEPTH, n), X.dtype)
        self.gram = np.zeros((m, DEPTH, DEPTH))
        self.last = np.full((2, m, n), np.nan, X.dtype)  # f and g of the point before; NaN for none
        self.slot = 0

    def propose(
        self, equation: Equation, X: np.ndarray, P: np.ndarray, G: np.ndarray, good: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        F, G = (G - X).T, G.T
        self._remember(F, G, good)
        # (H + damping·diag H) γ = ΔFᵀ f; an empty slot has a zero row in H, and gets γ = 0 from a 1 on the diagonal.
        diagonal = np.einsum("mdd->md", self.gram)
        H = self.gram + np.where(diagonal > 0, self.damping * diagonal, 1.0)[:, :, None] * np.eye(DEPTH)
        size = _size(F)
        rhs = (self.dF @ (F / size)[:, :, None]).astype(np.float64)
        gamma = np.linalg.solve(H, rhs).astype(F.dtype)  # (m, d, 1)
        candidate = G - size * (np.swapaxes(gamma, 1, 2) @ self.dG)[:, 0]
        return candidate.T, (diagonal > 0).any(axis=1)

    def _remember(self, F: np.ndarray, G: np.ndarray, good: np.ndarray) -> None:
        """Put the newest differences in place of the oldest; where the way was given up, forget them all.

        Both are divided by the size of ΔF, which changes no trial point and keeps squares from over- and underflowing.
        """
        slot, self.slot = self.slot, (self.slot + 1) % DEPTH
        if not good.all():
            self.dF[~good], self.dG[~good], self.gram[~good], self.last[:, ~good] = 0, 0, 0, np.nan
        known = np.isfinite(self.last[0]).all(axis=1, keepdims=True)
        dF = np.where(known, F - self.last[0], 0)
        size = _size(dF)
        self.dF[:, slot] = dF / size
        self.dG[:, slot] = np.where(known, G - self.last[1], 0) / size
        products = (self.dF @ self.dF[:, slot, :, None])[:, :, 0]
        self.gram[:, slot, :] = products
        self.gram[:, :, slot] = products
        self.last[:, good] = F[good], G[good]

    def keep(self, alive: np.ndarray) -> None:
        self.dF, self.dG, self.gram, self.last = self.dF[alive], self.dG[alive], self.gram[alive], self.last[:, alive]


def _size(F: np.ndarray) -> np.ndarray:
    """‖f‖∞ of each row, 1 for a row of zeros.   (m, n) -> (m, 1)"""
    size = np.abs(F).max(axis=1, keepdims=True, initial=0)
    return np.where(size > 0, size, 1)


class Newton:
    """x⁺ = x + δ with (I − S F₁ F₂ …) δ = g − x, S = S ∘ f′(p): semismooth Newton, exact at once where f is linear."""

    def propose(
        self, equation: Equation, X: np.ndarray, P: np.ndarray, G: np.ndarray, good: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        S = equation.slopes(P)
        chunk = max(1, CHUNK // max(1, equation.factors[0].size))
        solve = _solve_dense if len(equation.factors) == 1 else _solve_low_rank
        delta = np.empty_like(X)
        for j in range(0, X.shape[1], chunk):
            columns = slice(j, j + chunk)
            delta[:, columns] = solve(equation.factors, S[:, columns].T, (G - X)[:, columns].T).T
        return X + delta, np.isfinite(delta).all(axis=0)

    def keep(self, alive: np.ndarray) -> None:
        """There is nothing to forget: each Newton step starts from X alone."""


def _solve_dense(factors: fac.Factors, S: np.ndarray, F: np.ndarray) -> np.ndarray:
    """(I − diag(s) A) δ = f.   A (n, n), S, F (k, n) -> (k, n)"""
    (A,) = factors
    return _solve_each(np.eye(A.shape[0], dtype=A.dtype) - S[:, :, None] * A, F)


def _solve_low_rank(factors: fac.Factors, S: np.ndarray, F: np.ndarray) -> np.ndarray:
    """(I − diag(s) L Rᵀ) δ = f through w = Rᵀδ: (I − Rᵀ diag(s) L) w = Rᵀf, δ = f + s ∘ L w.   S, F (k, n) -> (k, n)"""
    L, Rt = factors
    w = _solve_each(np.eye(L.shape[1], dtype=L.dtype) - (Rt * S[:, None, :]) @ L, F @ Rt.T)
    return F + S * (w @ L.T)


def _solve_each(J: np.ndarray, F: np.ndarray) -> np.ndarray:
    """J δ = f for each column; NaN where J is singular, which is no trial point.   J (k, r, r), F (k, r) -> (k, r)"""
    try:
        return np.linalg.solve(J, F[:, :, None])[:, :, 0]
    except np.linalg.LinAlgError:
        if len(J) == 1:
            return np.full_like(F, np.nan)
        return np.concatenate([_solve_each(J[j : j + 1], F[j : j + 1]) for j in range(len(J))])
