"""How far Ŷ can be from the truth: the certificate of the hidden state, carried from U through to the outputs.

The truth is the model in real arithmetic at its true equilibrium. In the ∞-norm, with κ = Lip(φ)‖A‖∞, and with
‖(I − Lip(φ)|A|)⁻¹‖∞ in the place of 1/(1 − κ) where κ ≥ 1,

    z = B u        is rounded by at most  ζ = γ ‖B‖ ‖u‖
    ‖x* − x̂‖  ≤   (κ·step + ρ + Lip(φ) ζ) / (1 − κ)             step and ρ as in `certificate`
    ‖y* − ŷ‖  ≤   ‖C‖ ‖x* − x̂‖ + γ (‖C‖ ‖x̂‖ + ‖D‖ ‖u‖)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from idl_ref import factors as fac
from idl_ref.activations import Activation
from idl_ref.certificate import SAFETY, Certifier, Rounding, excess, limits, resolvent_norm

Number = Any  # a float, or an array of them


@dataclass(frozen=True)
class OutputBound:
    """What the bound knows of a model: norms and relative errors, computed once."""

    rounding: Rounding
    amplification: float  # 1/(1 − κ) or the norm of the resolvent; inf where no contraction could be shown
    B: float  # ‖B‖∞, with the column of the bias
    C: float
    D: float  # 0 for no D
    gamma_z: float
    gamma_y: float
    underflow: float

    @classmethod
    def of(
        cls, factors: fac.Factors, B: np.ndarray, C: np.ndarray, D: np.ndarray | None, activation: Activation
    ) -> OutputBound:
        r = Certifier(factors, activation, False, B.dtype).rounding
        kappa = r.lipschitz * r.norm
        amplification = 1 / (1 - kappa) if kappa < 1 else resolvent_norm(factors, r.lipschitz)
        terms, (_, tiny) = (B.shape[1] + 2, sum(C.shape) + B.shape[1] + 3), limits(B.dtype)
        gamma_z, gamma_y = (k * r.unit / (1 - k * r.unit) for k in terms)
        norm_B, norm_C, norm_D = (0.0 if F is None else fac.norm_inf((F,)) * SAFETY for F in (B, C, D))
        return cls(r, amplification, norm_B, norm_C, norm_D, gamma_z, gamma_y, tiny * terms[1])

    def state(self, step: Number, x: Number, z: Number, g: Number, u: Number) -> Number:
        """‖x* − ĝ‖ from the norms of ĝ − x̂, x̂, z, ĝ and u."""
        r = self.rounding
        return self.amplification * excess(r.lipschitz * r.norm, r.lipschitz, step, x, z, g, 1, r) + self.of_input(u)

    def of_input(self, u: Number) -> Number:
        """What the rounding of z = B u adds to the error of the state."""
        return SAFETY * self.amplification * self.rounding.lipschitz * (self.gamma_z * self.B * u + self.underflow)

    def output(self, state: Number, g: Number, u: Number) -> Number:
        """‖y* − ŷ‖ from the bound of the state and the norms of ĝ and u."""
        return SAFETY * (self.C * state + self.gamma_y * (self.C * g + self.D * u) + self.underflow)
