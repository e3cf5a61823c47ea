"""The one equation, X = S ∘ f(F₁ F₂ … X + Z), and its terms in NumPy."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from idl_ref import factors as fac
from idl_ref.activations import Activation


class Equation(NamedTuple):
    """X = S ∘ f(F₁ F₂ … X + Z): the one thing that crosses into a solver.

    Forward, S is None and stands for 1, f = φ, and Z = B U. The adjoint equation is the same one with the slopes S =
    φ′(A X + Z), f = identity, the factors of Aᵀ, and Z = Cᵀ G_Y. A forward solution is certified in the ∞-norm of its
    columns, an adjoint one in the 1-norm.

    Attributes
    ----------
    factors : tuple of arrays
        (A,) or (L, Rᵀ); for the adjoint (Aᵀ,) or (R, Lᵀ).
    activation : Activation
        f.
    S : (n, m) array or None
    Z : (n, m) array
        All arrays have one dtype, float32 or float64.
    """

    factors: fac.Factors
    activation: Activation
    S: np.ndarray | None
    Z: np.ndarray

    def apply(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """P = F₁ F₂ … X + Z,   G = S ∘ f(P).   X (n, m)"""
        P = fac.apply(self.factors, X) + self.Z
        G = self.activation.phi(P)
        return P, G if self.S is None else self.S * G

    def slopes(self, P: np.ndarray) -> np.ndarray:
        """S ∘ f′(P), the derivative of the right-hand side with respect to P."""
        slopes = self.activation.slope(P)
        return slopes if self.S is None else self.S * slopes

    def take(self, columns: np.ndarray | slice) -> Equation:
        """The same equation for some of the columns."""
        S = None if self.S is None else self.S[:, columns]
        return self._replace(S=S, Z=self.Z[:, columns])
