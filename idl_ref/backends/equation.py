"""This module defines the fixed-point equation that all solvers solve, X = S ∘ f(F₁ F₂ … X + Z), in NumPy."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from idl_ref import factors as fac
from idl_ref.activations import Activation


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

    def slopes(self, P: np.ndarray) -> np.ndarray:
        """Return S ∘ f′(P), the derivative of the right-hand side with respect to P.   (n, m)"""
        slopes = self.activation.slope(P)
        return slopes if self.S is None else self.S * slopes

    def take(self, columns: np.ndarray | slice) -> Equation:
        """Return the same equation for the given columns only."""
        S = None if self.S is None else self.S[:, columns]
        return self._replace(S=S, Z=self.Z[:, columns])
