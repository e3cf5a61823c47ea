"""This module defines, for every backend, when an iteration stops and how large the error of its answer can be.

Let g be the map of the equation, x* its fixed point, x̂ the last argument of g, ĝ = fl(g(x̂)) the computed answer, and
step = ‖ĝ − x̂‖. If g is a contraction with factor κ, and rounding changes one application by at most ρ, then::

    ‖x* − ĝ‖ ≤ κ ‖x* − x̂‖ + ρ ≤ κ (‖x* − ĝ‖ + step) + ρ      so      ‖x* − ĝ‖ ≤ (κ step + ρ) / (1 − κ).

For the forward equation, this holds in the ∞-norm with κ = Lip(φ) ‖A‖∞; for the adjoint equation, it holds in the
1-norm with κ = max(S) ‖A‖∞. If κ ≥ 1, the factor 1/(1 − κ) is replaced by ‖(I − Lip(φ)|A|)⁻¹‖∞. This norm bounds the
error whenever the Perron root of Lip(φ)|A| is below 1, as it is for every strictly triangular A.

The bound of the state x gives a bound of the output y. Here the exact output y* is that of the model in real
arithmetic, at its true equilibrium. In the ∞-norm::

    z = B u        is rounded by at most  ζ = γ ‖B‖ ‖u‖
    ‖x* − x̂‖  ≤   (κ·step + ρ + Lip(φ) ζ) / (1 − κ)
    ‖y* − ŷ‖  ≤   ‖C‖ ‖x* − x̂‖ + γ (‖C‖ ‖x̂‖ + ‖D‖ ‖u‖)

If u itself is computed, as (U − mean)/scale in float64 and then rounded, it differs from the exact u by at most
(ε + 3·2⁻⁵³)|u|, where ε is the unit roundoff of the dtype. The number ε + 3·2⁻⁵³ is then added to γ.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from decimal import ROUND_CEILING, Context
from functools import cache, cached_property
from typing import Any, NamedTuple

import numpy as np

from idl_ref import factors as fac
from idl_ref.activations import Activation, Mixed

__all__ = ["Certifier", "asked_step", "resolvent_norm"]

ULPS = 16  # The computed value of every activation differs from the exact value by at most 16 units of rounding.
# A change of an entry is due to rounding if ROUNDED·eps relative to |A||x̂| + |z| and to |ĝ| explains it.
ROUNDED = 4
# Where an iteration makes no progress any more, a change is also due to rounding if STALLED·γ relative to |A||x̂| + |z|
# explains it, where γ bounds the rounding of every order of summation.
STALLED = 2
Number = Any  # A float, or an array of floats.
EPS = sys.float_info.epsilon
# For a sparse A, the vector v that bounds the inverse has at most TERMS terms, fewer if (I − c|A|) v > SHARE before.
TERMS, SHARE = 1000, 0.5
SAFETY = 1 + 1e-9  # This factor covers the rounding of this module's own float64 arithmetic.


def column_max(X: np.ndarray) -> np.ndarray:
    """Return ‖x‖∞ of each column, which is NaN if the column contains NaN.   (n, m) -> (m,)"""
    return np.abs(X).max(axis=0, initial=0.0)


def asked_step(tol: Number, z_norm: Number) -> Number:
    """Return the step at which a column is CONVERGED: tol·min(1, ‖z‖∞)."""
    return tol * np.minimum(1.0, z_norm)


def largest_term(z: Number, g: Number, norm: float) -> Number:
    """Return max(‖z‖∞, ‖g‖∞, ‖A‖∞‖g‖∞), a size of the terms of A x + z and of g, of which rounding leaves a share."""
    return np.maximum(z, max(1.0, norm) * g)


def upward(value: float, digits: int) -> str:
    """Return a bound ≥ 0 in decimal, rounded up to some digits, so that the text is a bound, too."""
    if not np.isfinite(value):
        return str(float(value))
    above = Context(prec=digits, rounding=ROUND_CEILING).create_decimal_from_float(value)
    return f"{float(above):.{digits - 1}e}"


def resolvent_norm(factors: fac.Factors, lipschitz: float) -> float:
    """Return an upper bound of ‖(I − c|A|)⁻¹‖∞ for c = Lip(φ); inf unless the Perron root of c|A| is below 1.

    If (I − c|A|) v ≥ w > 0 for some v > 0, then the inverse is nonnegative, and its norm is at most max v / min w. Any
    v > 0 will do, because w makes up for every rounding of this check: an inaccurate v makes the bound larger, or inf.
    For A = L Rᵀ, |L||R|ᵀ takes the place of |A|, and v is found by a solve in r dimensions.
    """
    if fac.is_sparse(factors):
        return sparse_resolvent_norm(factors, lipschitz)
    F = [np.abs(F).astype(np.float64) for F in factors]
    F[0] = lipschitz * F[0]
    if not all(np.isfinite(f).all() for f in F):
        return np.inf
    side = fac.triangle(factors)
    if side is not None:
        return triangular_resolvent_norm(F[0], side == "upper")
    ones = np.ones(F[0].shape[0])
    try:
        v = resolve(tuple(F), ones[:, None])[:, 0]
    except np.linalg.LinAlgError:
        return np.inf
    Fv = fac.apply(tuple(F), v)
    terms = sum(f.shape[1] for f in F) + 4  # The terms of the products, the factor c, and the subtraction.
    w = v - Fv - terms * EPS * (v + Fv)  # A lower bound of (I − c|A|) v, its rounding included.
    if not (np.all(v > 0) and np.all(w > 0)):
        return np.inf
    return float(v.max(initial=1.0) / w.min(initial=1.0)) * (1 + 2 * EPS)


def resolve(factors: fac.Factors, E: np.ndarray) -> np.ndarray:
    """Return (I − F₁ F₂ …)⁻¹ E, computed in r dimensions for two factors.   E (n, m) -> (n, m)"""
    if len(factors) == 1:
        return np.linalg.solve(np.eye(len(E)) - factors[0], E)
    L, Rt = factors
    return E + L @ np.linalg.solve(np.eye(len(Rt)) - Rt @ L, Rt @ E)


def sparse_resolvent_norm(factors: fac.Factors, lipschitz: float) -> float:
    """Return what `resolvent_norm` does, for a sparse A, which is not filled up with zeros.

    v is a partial sum of the Neumann series of the inverse, 1 + c|A| 1 + (c|A|)² 1 + …, until (I − c|A|) v > 0.
    """
    F = abs(factors[0]).astype(np.float64)
    F = F.with_data(lipschitz * F.data)
    if not np.isfinite(F.data).all():
        return np.inf
    side = fac.triangle(factors)
    if side is not None:
        return triangular_resolvent_norm(F, side == "upper")
    ones = np.ones(len(F))
    v, terms = ones, F.shape[1] + 4
    for _ in range(TERMS):
        Fv = F @ v
        w = v - Fv - terms * EPS * (v + Fv)  # A lower bound of (I − c|A|) v, its rounding included.
        if not np.isfinite(Fv).all() or (w > SHARE).all():
            break
        v = ones + Fv
    if not (np.isfinite(w).all() and (w > 0).all()):
        return np.inf
    return float(v.max(initial=1.0) / w.min(initial=1.0)) * (1 + 2 * EPS)


def triangular_resolvent_norm(F: Any, upper: bool) -> float:
    """Return an upper bound of ‖(I − F)⁻¹‖∞ for a strictly triangular F ≥ 0, the largest vᵢ = 1 + Σⱼ F_ij vⱼ.

    All terms are nonnegative, so that each row multiplies the relative error of v by at most 1 + γ.
    """
    n = len(F)
    v = np.ones(n)
    for i in range(n - 1, -1, -1) if upper else range(n):
        row, known = fac.row(F, i, slice(i + 1, n) if upper else slice(0, i))
        v[i] += row[0] @ v[known]
    norm = float(v.max(initial=1.0)) * SAFETY * float(np.exp(n * (n + 4) * EPS))
    return norm if np.isfinite(norm) else np.inf


def contracting(factors: fac.Factors, activation: Activation) -> fac.Factors:
    """Return the factors of A, whose row i is multiplied by Lip(φᵢ)/Lip(φ), if the rows have different φ.

    Lip(φ) times its norm is maxᵢ Lip(φᵢ) Σⱼ |A_ij|, by which φ(A x + z) contracts. Ratios are rounded up to powers of
    two, so that the products are exact.
    """
    if not isinstance(activation, Mixed):
        return factors
    each, largest = activation.steepness, activation.lipschitz
    if (each == largest).all():
        return factors
    ratios = np.exp2(np.ceil(np.log2(each / largest)))
    return fac.scaled(factors[0].astype(np.float64), ratios), *factors[1:]


class Rounding(NamedTuple):
    """The constants by which the rounding error of one application of the map is bounded."""

    norm: float  # an upper bound of ‖A‖∞
    lipschitz: float  # Lip(φ); in the adjoint equation, max(S) of each column takes its place
    gamma: float  # a bound of the relative error of the inner products, for any order of summation
    unit: float  # the unit roundoff, half the distance from 1 to the next number
    underflow: float  # a bound of the absolute error of a sum whose terms underflow
    tiny: float  # the smallest normal number
    largest: float  # the largest number


def limits(dtype: np.dtype) -> tuple[float, float]:
    """Return the distance from 1 to the next number of a dtype, and its smallest normal number."""
    return numbers(dtype)[:2]


@cache
def numbers(dtype: np.dtype) -> tuple[float, float, float]:
    """Return eps, the smallest normal number and the largest number of a dtype."""
    info = np.finfo(dtype)
    return float(info.eps), float(info.tiny), float(info.max)


def rounding(factors: fac.Factors, activation: Activation, dtype: np.dtype, norm: float) -> Rounding:
    """Return the constants for one application; `norm` is ‖A‖∞, also in the adjoint equation, as ‖Aᵀ‖₁ = ‖A‖∞."""
    eps, tiny, largest = numbers(dtype)
    sums, enlarged = fac.longest(factors[0]), 1.0  # the total length of the inner products of one application
    if len(factors) > 1:
        sums += factors[1].shape[1]
        # F₁ multiplies an underflow error of F₂ x by at most ‖F₁‖, in either norm at most the sum of all |F₁|.
        with np.errstate(over="ignore"):
            enlarged = max(1.0, float(np.abs(factors[0]).sum(dtype=np.float64)))
    unit, k = eps / 2, sums + 2
    norm *= 1 + sums * EPS
    gamma = k * unit / (1 - k * unit)
    return Rounding(norm, activation.lipschitz, gamma, unit, k * tiny * enlarged, tiny, largest)


def norms_rounding(entries: int, unit: float) -> float:
    """The factor that makes up for the rounding of the norms in an excess, where a kernel summed them in its dtype."""
    return 1 + 4 * (entries + 1) * unit


def excess(
    kappa: Number, lipschitz: Number, step: Number, x: Number, z: Number, g: Number, entries: int, r: Rounding
) -> Number:
    """Return κ·step + ρ for one column or for many columns.

    `step`, `x`, `z` and `g` are the norms of ĝ − x̂, x̂, z and ĝ. `entries` is n for the 1-norm, which adds up the
    underflow errors of n entries, and 1 for the ∞-norm.
    """
    rho = r.gamma * (kappa * x + lipschitz * z) + ULPS * r.unit * g + r.underflow * (1 + lipschitz) * entries
    return SAFETY * (kappa * step + rho)


class Certifier:
    """Computes error bounds for the columns of one equation; everything that depends on A alone is computed once.

    Parameters
    ----------
    factors : tuple of arrays
        The factors of the equation, those of Aᵀ for the adjoint equation.
    activation : Activation
    adjoint : bool
        Bound the error in the 1-norm, with the slopes S as Lipschitz constants; otherwise in the ∞-norm, with Lip(φ).
    dtype : numpy.dtype
        The dtype in which the equation is solved.
    """

    def __init__(self, factors: fac.Factors, activation: Activation, adjoint: bool, dtype: np.dtype) -> None:
        # The adjoint equation needs ‖Aᵀ‖₁, which is ‖A‖∞, so that the factors of A are kept in both cases.
        self.forward_factors: fac.Factors = fac.transpose(factors) if adjoint else contracting(factors, activation)
        self.adjoint: bool = adjoint
        self.activation: Activation = activation
        self.factors: fac.Factors = factors
        self.rounding: Rounding = rounding(factors, activation, dtype, fac.norm_inf(self.forward_factors))

    @cached_property
    def sizes(self) -> fac.Factors:
        """The absolute values of the factors in double precision, for columns that end where rounding stops them."""
        return tuple(np.abs(F).astype(np.float64) for F in self.factors)

    @cached_property
    def spoiled(self) -> bool:
        """Whether A has an entry NaN or inf, which is looked for only where ‖A‖∞ is not finite either."""
        return not math.isfinite(self.rounding.norm) and not all(fac.is_finite(F) for F in self.factors)

    def kappa(self, S: np.ndarray | None, m: int) -> np.ndarray:
        """Return the contraction factor of each column: Lip(φ)‖A‖∞, or max(S)‖A‖∞ in the adjoint equation.   -> (m,)"""
        return self.lipschitz(S, m) * self.rounding.norm

    def lipschitz(self, S: np.ndarray | None, m: int) -> np.ndarray:
        """Return the Lipschitz constant of each column's function: Lip(φ), or max(S) in the adjoint equation.   (m,)"""
        return np.full(m, self.rounding.lipschitz) if S is None else column_max(S).astype(np.float64)

    def start(self, X0: np.ndarray, S: np.ndarray | None, Z: np.ndarray) -> np.ndarray:
        """Return X0 with zeros in the columns in which 0 is nearer to the solution than X0 is.   all (n, m)

        A solution of a contraction has ‖x*‖ ≤ ‖g(0)‖/(1 − κ). If ‖x₀‖ is more than twice as large, then 0 is nearer.
        For z = 0 and φ(0) = 0, for example, the solution is 0, and Picard's iteration from another start would decay
        for ever.
        """
        lipschitz, at_zero = self.lipschitz(S, Z.shape[1]), self.activation.at_zero
        sizes = (np.abs(M).astype(np.float64) for M in (X0, Z))
        with np.errstate(over="ignore", invalid="ignore"):
            x, z = (M.sum(axis=0) if self.adjoint else M.max(axis=0, initial=0.0) for M in sizes)
            kappa = lipschitz * self.rounding.norm
            far = (kappa < 1) & ((1 - kappa) * x > 2 * SAFETY * (lipschitz * z + at_zero)) & (x < np.inf)
        return np.where(far, 0, X0) if far.any() else X0

    def bound(self, X: np.ndarray, G: np.ndarray, S: np.ndarray | None, Z: np.ndarray) -> np.ndarray:
        """Return (κ·step + ρ) / (1 − κ) for each column, with x̂ in X and ĝ in G.   all (n, k) -> (k,)"""
        X, G, Z = (M.astype(np.float64, copy=False) for M in (X, G, Z))
        if self.adjoint:
            step, x, z, g = (np.abs(M).sum(axis=0) for M in (G - X, X, Z, G))
        else:
            step, x, z, g = (column_max(M) for M in (G - X, X, Z, G))
        lipschitz = self.lipschitz(S, X.shape[1])
        kappa = lipschitz * self.rounding.norm
        entries = X.shape[0] if self.adjoint else 1
        numerator = excess(kappa, lipschitz, step, x, z, g, entries, self.rounding)
        return divide(numerator, kappa, lipschitz, self.forward_factors, self.adjoint)


def divide(
    numerator: np.ndarray, kappa: np.ndarray, lipschitz: np.ndarray, forward_factors: fac.Factors, adjoint: bool
) -> np.ndarray:
    """Return numerator / (1 − κ), or numerator · ‖(I − Lip|A|)⁻¹‖∞ where κ ≥ 1.   all (k,) -> (k,)"""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # A bound that overflows is reported as inf.
        bound = np.where(kappa < 1, numerator / (1 - kappa), np.inf)
        weak = ~(kappa < 1) & (lipschitz <= 1)
        if weak.any():
            # In the adjoint equation, `weak` selects only columns whose slopes are at most 1.
            bound[weak] = numerator[weak] * resolvent_norm(forward_factors, 1.0 if adjoint else float(lipschitz[0]))
    return np.where(np.isfinite(bound), bound, np.inf)


@dataclass(frozen=True)
class OutputBound:
    """The constants by which the errors of a model's states and outputs are bounded, computed once per model."""

    rounding: Rounding  # the constants of one application of the map
    amplification: float  # 1/(1 − κ), or ‖(I − Lip|A|)⁻¹‖∞; inf where neither bounds the error
    B: float  # ‖B‖∞, with the column of the bias
    C: float  # ‖C‖∞
    D: float  # ‖D‖∞, 0 for a model without D
    gamma_z: float  # a bound of the relative error of z = B u
    gamma_y: float  # a bound of the relative error of y = C x + D u
    underflow: float  # a bound of the absolute error of these sums, if their terms underflow
    width: float  # the largest possible error of a state, by the range of φ; inf if φ is not bounded

    @classmethod
    def of(
        cls,
        factors: fac.Factors,
        B: np.ndarray,
        C: np.ndarray,
        D: np.ndarray | None,
        activation: Activation,
        preprocessed: bool = False,
    ) -> OutputBound:
        """Compute the constants from the effective weights of a model; `preprocessed` tells that u is computed too."""
        certifier = Certifier(factors, activation, False, B.dtype)
        r = certifier.rounding
        kappa = r.lipschitz * r.norm
        amplification = 1 / (1 - kappa) if kappa < 1 else resolvent_norm(certifier.forward_factors, r.lipschitz)
        terms, (_, tiny) = (B.shape[1] + 2, sum(C.shape) + B.shape[1] + 3), limits(B.dtype)
        gamma_z, gamma_y = (k * r.unit / (1 - k * r.unit) for k in terms)
        norm_B, norm_C, norm_D = (0.0 if F is None else fac.norm_inf((F,)) * SAFETY for F in (B, C, D))
        underflow = tiny * terms[1]
        if preprocessed:
            of_u = r.unit + 3 * 2.0**-53
            gamma_z, gamma_y, underflow = gamma_z + of_u, gamma_y + of_u, underflow + tiny * (norm_B + norm_D)
        low, high = activation.range
        width = float(np.max(high - low)) * (1 + ULPS * r.unit)  # ĝ has the rounding of φ.
        return cls(r, amplification, norm_B, norm_C, norm_D, gamma_z, gamma_y, underflow, width)

    def state(self, step: Number, x: Number, z: Number, g: Number, u: Number) -> Number:
        """Bound ‖x* − ĝ‖ from the norms of ĝ − x̂, x̂, z, ĝ and u."""
        r = self.rounding
        return self.amplification * excess(r.lipschitz * r.norm, r.lipschitz, step, x, z, g, 1, r) + self.of_input(u)

    def of_input(self, u: Number) -> Number:
        """Return what the rounding of z = B u adds to the bound of the state's error."""
        return SAFETY * self.amplification * self.rounding.lipschitz * (self.gamma_z * self.B * u + self.underflow)

    def output(self, state: Number, g: Number, u: Number) -> Number:
        """Bound ‖y* − ŷ‖ from the bound of the state's error and the norms of ĝ and u."""
        state = np.minimum(state, self.width)
        return SAFETY * (self.C * state + self.gamma_y * (self.C * g + self.D * u) + self.underflow)
