"""When a column is done, and how far its answer can be from the truth.

Both are written once, here, for every backend. Let g be the map, x̂ its last argument, ĝ = fl(g(x̂)) the answer, and
step = ‖ĝ − x̂‖. If g contracts with κ and one application is rounded by at most ρ, then

    ‖x* − ĝ‖ ≤ κ ‖x* − x̂‖ + ρ ≤ κ (‖x* − ĝ‖ + step) + ρ      so      ‖x* − ĝ‖ ≤ (κ step + ρ) / (1 − κ).

Forward, this holds in the ∞-norm with κ = Lip(φ) ‖A‖∞; for the adjoint, in the 1-norm with κ = max(S) ‖A‖∞. Where
κ ≥ 1, 1/(1 − κ) gives way to ‖(I − Lip(φ)|A|)⁻¹‖∞, which is finite exactly when the Perron root of Lip(φ)|A| is
below 1, as it is for every strictly triangular A.

The bound of the state is carried through to the outputs. The truth is then the model in real arithmetic at its true
equilibrium; in the ∞-norm,

    z = B u        is rounded by at most  ζ = γ ‖B‖ ‖u‖
    ‖x* − x̂‖  ≤   (κ·step + ρ + Lip(φ) ζ) / (1 − κ)
    ‖y* − ŷ‖  ≤   ‖C‖ ‖x* − x̂‖ + γ (‖C‖ ‖x̂‖ + ‖D‖ ‖u‖)
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from idl_ref import factors as fac
from idl_ref.activations import Activation

__all__ = ["Certifier", "resolvent_norm", "stopping_step"]

ULPS = 16  # no activation of the table is further from the exact one than 16 units of rounding
ROUNDED = 4  # a step of so many times eps·max(‖z‖∞, ‖x‖∞) is as small as rounding allows
Number = Any  # a float, or an array of them
SAFETY = 1 + 1e-9  # for the rounding of this module's own float64 arithmetic


def column_max(X: np.ndarray) -> np.ndarray:
    """‖x‖∞ of each column, NaN where it holds one.   (n, m) -> (m,)"""
    return np.abs(X).max(axis=0, initial=0.0)


def stopping_step(tol: float, z_norm: np.ndarray, x_norm: np.ndarray, eps: float) -> np.ndarray:
    """max(tol·min(1, ‖z‖∞), 4·eps·max(‖z‖∞, ‖x‖∞)) per column."""
    return np.maximum(tol * np.minimum(1.0, z_norm), ROUNDED * eps * np.maximum(z_norm, x_norm))


def resolvent_norm(factors: fac.Factors, lipschitz: float) -> float:
    """‖(I − c|A|)⁻¹‖∞ for c = Lip(φ), an upper bound; inf unless the Perron root of c|A| is below 1.

    With (I − c|A|) v ≥ w > 0 for some v > 0, the inverse is nonnegative, and its norm is ≤ max v / min w. Any v > 0
    will do; w makes up for every rounding of the check, so that an inaccurate v only makes the bound larger, or inf.
    For A = L Rᵀ the same with |L||R|ᵀ in the place of |A|, solved in r dimensions.
    """
    F = [np.abs(F).astype(np.float64) for F in factors]
    F[0] = lipschitz * F[0]
    if not all(np.isfinite(f).all() for f in F):
        return np.inf
    ones = np.ones(F[0].shape[0])
    try:
        if len(F) == 1:
            v = np.linalg.solve(np.eye(ones.size) - F[0], ones)
        else:
            L, Rt = F
            v = ones + L @ np.linalg.solve(np.eye(Rt.shape[0]) - Rt @ L, Rt @ ones)
    except np.linalg.LinAlgError:
        return np.inf
    Fv = fac.apply(tuple(F), v)
    terms = sum(f.shape[1] for f in F) + 4  # of the products, the factor c and the subtraction
    w = v - Fv - terms * sys.float_info.epsilon * (v + Fv)  # a lower bound of (I − c|A|) v, its rounding included
    if not (np.all(v > 0) and np.all(w > 0)):
        return np.inf
    return float(v.max(initial=1.0) / w.min(initial=1.0)) * (1 + 2 * sys.float_info.epsilon)


class Rounding(NamedTuple):
    """What the bound knows of one application of the map."""

    norm: float  # an upper bound of ‖A‖∞
    lipschitz: float  # Lip(φ); for the adjoint, max(S) of the column takes its place
    gamma: float  # relative error of the inner products, for any order of their terms
    unit: float  # half the distance from 1 to the next number
    underflow: float  # absolute error of a sum whose terms underflow


@cache
def limits(dtype: np.dtype) -> tuple[float, float]:
    """The distance from 1 to the next number, and the smallest normal number."""
    return float(np.finfo(dtype).eps), float(np.finfo(dtype).tiny)


def rounding(factors: fac.Factors, activation: Activation, dtype: np.dtype, norm: float) -> Rounding:
    """The roundings of one application. `norm` is that of A, also for the adjoint, because ‖Aᵀ‖₁ = ‖A‖∞."""
    eps, tiny = limits(dtype)
    sums = sum([F.shape[1] for F in factors])  # lengths of the inner products of one application
    unit, k = eps / 2, sums + 2
    norm *= 1 + sums * sys.float_info.epsilon
    # What underflows in F₂ x is multiplied by F₁: by at most ‖F₁‖ in either norm, which is at most the sum of all |F₁|.
    enlarged = max(1.0, float(np.abs(factors[0]).sum(dtype=np.float64))) if len(factors) > 1 else 1.0
    return Rounding(norm, activation.lipschitz, k * unit / (1 - k * unit), unit, k * tiny * enlarged)


def norms_rounding(entries: int, unit: float) -> float:
    """The factor that makes up for the rounding of the norms in an excess, where a kernel summed them in its dtype."""
    return 1 + 4 * (entries + 1) * unit


def excess(
    kappa: Number, lipschitz: Number, step: Number, x: Number, z: Number, g: Number, entries: int, r: Rounding
) -> Number:
    """κ·step + ρ for one column or for many, from the norms of ĝ − x̂, x̂, z and ĝ; the 1-norm sums `entries` numbers."""
    rho = r.gamma * (kappa * x + lipschitz * z) + ULPS * r.unit * g + r.underflow * (1 + lipschitz) * entries
    return SAFETY * (kappa * step + rho)


class Certifier:
    """Error bounds for the columns of one solve; what depends on A alone is computed once."""

    def __init__(self, factors: fac.Factors, activation: Activation, adjoint: bool, dtype: np.dtype) -> None:
        # The adjoint's factors are those of Aᵀ; what counts is ‖Aᵀ‖₁ = ‖A‖∞.
        self.forward_factors: fac.Factors = fac.transpose(factors) if adjoint else factors
        self.adjoint: bool = adjoint
        self.rounding: Rounding = rounding(factors, activation, dtype, fac.norm_inf(self.forward_factors))

    def bound(self, X: np.ndarray, G: np.ndarray, S: np.ndarray | None, Z: np.ndarray) -> np.ndarray:
        """(κ·step + ρ) / (1 − κ) per column, for x̂ in X and ĝ in G.   all (n, k) -> (k,)"""
        X, G, Z = (M.astype(np.float64, copy=False) for M in (X, G, Z))
        if self.adjoint:
            lipschitz = np.ones(X.shape[1]) if S is None else column_max(S).astype(np.float64)
            step, x, z, g = (np.abs(M).sum(axis=0) for M in (G - X, X, Z, G))
        else:
            lipschitz = np.full(X.shape[1], self.rounding.lipschitz)
            step, x, z, g = (column_max(M) for M in (G - X, X, Z, G))
        kappa = lipschitz * self.rounding.norm
        entries = X.shape[0] if self.adjoint else 1
        numerator = excess(kappa, lipschitz, step, x, z, g, entries, self.rounding)
        return divide(numerator, kappa, lipschitz, self.forward_factors, self.adjoint)


def divide(
    numerator: np.ndarray, kappa: np.ndarray, lipschitz: np.ndarray, forward_factors: fac.Factors, adjoint: bool
) -> np.ndarray:
    """numerator / (1 − κ), with ‖(I − Lip|A|)⁻¹‖∞ instead of 1/(1 − κ) where κ ≥ 1.   all (k,) -> (k,)"""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # what overflows is no bound: inf
        bound = np.where(kappa < 1, numerator / (1 - kappa), np.inf)
        weak = ~(kappa < 1) & (lipschitz <= 1)
        if weak.any():
            # the adjoint's slopes are at most 1 here
            bound[weak] = numerator[weak] * resolvent_norm(forward_factors, 1.0 if adjoint else float(lipschitz[0]))
    return np.where(np.isfinite(bound), bound, np.inf)


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
