"""The one equation, X = S ∘ f(F₁ F₂ … X + Z), and its slopes, in NumPy."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from idl_ref import factors as fac
from idl_ref.activations import Activation


@dataclass(frozen=True)
class Problem:
    """X = S ∘ f(F₁ F₂ … X + Z) for the columns that are still running."""

    factors: fac.Factors
    activation: Activation
    S: np.ndarray | None  # (n, m), None for S = 1
    Z: np.ndarray  # (n, m)

    def apply(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """P = F₁ F₂ … X + Z,   G = S ∘ f(P)."""
        P = fac.apply(self.factors, X) + self.Z
        G = self.activation.phi(P)
        return P, G if self.S is None else self.S * G

    def slopes(self, P: np.ndarray) -> np.ndarray:
        """S ∘ f′(P)."""
        slopes = self.activation.slope(P)
        return slopes if self.S is None else self.S * slopes

    def take(self, columns: np.ndarray | slice) -> Problem:
        """The same equation for some of the columns."""
        S = None if self.S is None else self.S[:, columns]
        return replace(self, S=S, Z=self.Z[:, columns])
