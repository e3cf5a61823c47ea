"""This module proposes trial points for the solution of an Equation, by Anderson acceleration or by Newton's method.

A proposal takes x, p = A x + z and g = g(x), and estimates the equilibrium. The estimate may be wrong, so that
`solve.safeguarded` rejects it if it does not reduce the step.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from idl_ref import factors as fac
from idl_ref.backends.equation import Equation
from idl_ref.backends.methods import DAMPING, DEPTH
from idl_ref.certificate import column_max
from idl_ref.sparse import dense

CHUNK = 1 << 22  # The largest number of entries of the stacked matrices that one call of Newton's solver holds.


class Proposal(Protocol):
    """The interface of a method that proposes trial points."""

    def propose(
        self, equation: Equation, X: np.ndarray, P: np.ndarray, G: np.ndarray, good: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return trial points (n, m), and a bool (m,) that tells which columns have one.

        `good` (m,) is False in the columns whose last trial points were rejected.
        """
        ...

    def keep(self, alive: np.ndarray) -> None:
        """Delete the history of the columns that left the iteration, which are those where `alive` is False."""
        ...


class Anderson:
    """Proposes x⁺ = g − ΔG γ with γ = argmin ‖f − ΔF γ‖₂ and f = g − x, separately for each column.

    ΔF and ΔG hold the last DEPTH differences of f and of g. Where the start X is g of an earlier point, F is f of that
    point, so that the first difference is known as soon as f(X) is. In other columns, F is NaN.
    Source: Walker and Ni, Anderson acceleration for fixed-point iterations, SIAM J. Numer. Anal. 49 (2011), type II.
    """

    def __init__(self, X: np.ndarray, F: np.ndarray | None = None) -> None:
        n, m = X.shape
        self.damping = DAMPING * float(np.finfo(X.dtype).eps)  # relative to the diagonal of ΔFᵀΔF
        # The first axis is that of the columns, so that the history of each column is a matrix with contiguous rows.
        self.dF = np.zeros((m, DEPTH, n), X.dtype)
        self.dG = np.zeros((m, DEPTH, n), X.dtype)
        self.gram = np.zeros((m, DEPTH, DEPTH))
        self.last = np.full((2, m, n), np.nan, X.dtype)  # f and g of the previous point, or NaN if there is none
        if F is not None:
            self.last[:] = F.T, X.T
        self.slot = 0  # the index of the oldest difference, which the next one replaces

    def propose(
        self, equation: Equation, X: np.ndarray, P: np.ndarray, G: np.ndarray, good: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return Anderson's trial points; a column without differences has none."""
        F, G = (G - X).T, G.T
        self._remember(F, G, good)
        # The normal equations are (H + damping·diag H) γ = ΔFᵀ f with H = ΔFᵀΔF. An empty slot has a zero row in H; a 1
        # on its diagonal makes γ = 0 there.
        diagonal = np.einsum("mdd->md", self.gram)
        H = self.gram + np.where(diagonal > 0, self.damping * diagonal, 1.0)[:, :, None] * np.eye(DEPTH)
        size = _size(F)
        rhs = (self.dF @ (F / size)[:, :, None]).astype(np.float64)
        gamma = np.linalg.solve(H, rhs).astype(F.dtype)  # (m, d, 1)
        candidate = G - size * (np.swapaxes(gamma, 1, 2) @ self.dG)[:, 0]
        return candidate.T, (diagonal > 0).any(axis=1)

    def _remember(self, F: np.ndarray, G: np.ndarray, good: np.ndarray) -> None:
        """Replace the oldest differences by the newest, and delete all differences where trial points were rejected.

        Both differences are divided by ‖ΔF‖∞. This changes no trial point, and it prevents overflow and underflow of
        squares.
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
        """Delete the history of the columns that left the iteration."""
        self.dF, self.dG, self.gram, self.last = self.dF[alive], self.dG[alive], self.gram[alive], self.last[:, alive]


def _size(F: np.ndarray) -> np.ndarray:
    """Return ‖f‖∞ of each row, or 1 for a row of zeros.   (m, n) -> (m, 1)"""
    size = np.abs(F).max(axis=1, keepdims=True, initial=0)
    return np.where(size > 0, size, 1)


class Newton:
    """Proposes the solution x⁺ of the linearised equation x⁺ = g + T F₁ F₂ … (x⁺ − x), T = diag(S ∘ f′(p)).

    With J = I − T F₁ F₂ …, this is J δ = g − x for δ = x⁺ − x, and it is J x⁺ = g − T F₁ F₂ … x. Elimination makes an
    error that is relative to the vector that it solves for. The equation with the smaller right-hand side is taken: δ
    near the solution, and x⁺ where the solution is far smaller than x.
    This is the semismooth Newton method. If f is linear, the first step gives the exact solution.
    """

    def propose(
        self, equation: Equation, X: np.ndarray, P: np.ndarray, G: np.ndarray, good: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return Newton's trial points; a column with a singular matrix has none."""
        S = equation.slopes(P)
        F, R = G - X, G - S * P + S * equation.Z
        direct = column_max(R) < column_max(F)
        rhs, base = np.where(direct, R, F), np.where(direct, 0, X)
        chunk = max(1, CHUNK // max(1, equation.factors[0].size))
        factors = tuple(dense(F) for F in equation.factors)
        solve = _solve_dense if len(equation.factors) == 1 else _solve_low_rank
        change = np.empty_like(X)
        for j in range(0, X.shape[1], chunk):
            columns = slice(j, j + chunk)
            change[:, columns] = solve(factors, S[:, columns].T, rhs[:, columns].T).T
        return base + change, np.isfinite(change).all(axis=0)

    def keep(self, alive: np.ndarray) -> None:
        """Do nothing, because a Newton step depends on the current point only."""


def _solve_dense(factors: fac.Factors, S: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Solve (I − diag(s) A) y = b for each row s of S and b of B.   A (n, n), S, B (k, n) -> (k, n)

    Where sᵢ = 0, the equation is yᵢ = bᵢ. Elimination may round that, and then no rounding of g would explain the step.
    """
    (A,) = factors
    Y = _solve_each(np.eye(A.shape[0], dtype=A.dtype) - S[:, :, None] * A, B)
    return np.where((S == 0) & np.isfinite(Y), B, Y)


def _solve_low_rank(factors: fac.Factors, S: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Solve (I − diag(s) L Rᵀ) y = b for each row s of S and b of B.   S, B (k, n) -> (k, n)

    With w = Rᵀy, the system (I − Rᵀ diag(s) L) w = Rᵀb has r dimensions, and y = b + s ∘ L w.
    """
    L, Rt = factors
    w = _solve_each(np.eye(L.shape[1], dtype=L.dtype) - (Rt * S[:, None, :]) @ L, B @ Rt.T)
    return B + S * (w @ L.T)


def _solve_each(J: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Solve J y = b for each of k systems, and return NaN where J is singular.   J (k, r, r), B (k, r) -> (k, r)"""
    try:
        return np.linalg.solve(J, B[:, :, None])[:, :, 0]
    except np.linalg.LinAlgError:
        if len(J) == 1:
            return np.full_like(B, np.nan)
        return np.concatenate([_solve_each(J[j : j + 1], B[j : j + 1]) for j in range(len(J))])
