"""This module defines the fixed-point equation that all solvers solve, X = S ∘ f(F₁ F₂ … X + Z), in NumPy."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from idl_ref import factors as fac
from idl_ref.activations import Activation
from idl_ref.certificate import ROUNDED, STALLED, Certifier, column_max


class Application(NamedTuple):
    """One application of the right-hand side to X: P = F₁ F₂ … X + Z and G = S ∘ f(P).   X, P, G (n, m)"""

    equation: Equation
    X: np.ndarray
    P: np.ndarray
    G: np.ndarray
    step: np.ndarray  # ‖G − X‖∞ of each column, which is NaN if the column contains NaN; (m,)

    def take(self, columns: np.ndarray | slice) -> Application:
        """Return the application to the given columns only."""
        return Application(self.equation.take(columns), *(M[..., columns] for M in self[1:]))

    def allowance(self, certifier: Certifier, stalled: np.ndarray) -> np.ndarray:
        """Return, entry by entry, the largest change ĝ − x̂ that rounding explains.   stalled (k,) -> (n, k)

        The computed p = A x̂ + z differs from the exact value by at most δ, which is γ(|A||x̂| + |z|) row by row, so that
        a large entry of z does not excuse the other rows. The mean slope of a built-in, monotone φ over the interval
        between p − δ and p + δ, times δ, is what δ does to ĝ; where φ saturates, this is nearly 0. For a user's φ, it
        is Lip(φ) δ. `stalled` says which columns make no progress any more.
        """
        (_, activation, S, Z), X, P, G, _ = self
        r = certifier.rounding
        gamma = np.where(stalled, STALLED * r.gamma, ROUNDED * 2 * r.unit)
        # A product that underflows is rounded by less than the smallest subnormal number, which is tiny·eps.
        underflow = 2 * r.unit * r.underflow
        delta = gamma * (fac.apply(certifier.sizes, np.abs(X).astype(np.float64)) + np.abs(Z)) + underflow
        changes = activation.change(P, delta) / 2
        allowed = (changes if S is None else np.abs(S) * changes) + ROUNDED * 2 * r.unit * np.abs(G)
        return np.where(np.isfinite(allowed), allowed, -1.0)  # An overflow explains nothing.


class Equation(NamedTuple):
    """The fixed-point equation X = S ∘ f(F₁ F₂ … X + Z), as it is passed to a solver.

    In the forward equation, S is None and means 1 everywhere, f = φ and Z = B U. The adjoint equation has the same form
    with the slopes S = φ′(A X + Z), f = identity, the factors of Aᵀ, and Cᵀ G_Y in the place of Z. The error of a
    forward solution is bounded in the ∞-norm of each column, the error of an adjoint solution in the 1-norm.

    Attributes
    ----------
    factors : tuple of arrays
        The factors F₁, F₂, …: (A,) or (L, Rᵀ); in the adjoint equation (Aᵀ,) or (R, Lᵀ).
    activation : Activation
        The function f.
    S : (n, m) array or None
        The slopes of the adjoint equation; None in the forward equation.
    Z : (n, m) array
        The constant term. All arrays have one dtype, float32 or float64.
    """

    factors: fac.Factors
    activation: Activation
    S: np.ndarray | None
    Z: np.ndarray

    def apply(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return P = F₁ F₂ … X + Z and G = S ∘ f(P).   X, P, G (n, m)"""
        P = fac.apply(self.factors, X) + self.Z
        G = self.activation.phi(P)
        return P, G if self.S is None else self.S * G

    def at(self, X: np.ndarray) -> Application:
        """Apply the right-hand side to X.   X (n, m)"""
        P, G = self.apply(X)
        return Application(self, X, P, G, column_max(G - X))

    def slopes(self, P: np.ndarray) -> np.ndarray:
        """Return S ∘ f′(P), the derivative of the right-hand side with respect to P.   (n, m)"""
        slopes = self.activation.slope(P)
        return slopes if self.S is None else self.S * slopes

    def take(self, columns: np.ndarray | slice) -> Equation:
        """Return the same equation for the given columns only."""
        S = None if self.S is None else self.S[:, columns]
        return self._replace(S=S, Z=self.Z[:, columns])
