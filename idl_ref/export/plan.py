"""What every export needs to know about a model: its effective weights, and a number of iterations that suffices.

Picard's iteration starts at x = 0, so its first step is φ(z), and the entries of later steps are bounded by

    |step k| ≤ Mᵏ⁻¹ w,   w = Lip(φ)|B||u| + |φ(0)|,   M = Lip(φ)|A|        for every |u| ≤ r, in every entry.

The number of iterations is the first k for which no entry of the bound exceeds a quarter of tol; the other three
quarters are left to rounding. Like the library, the exported code stops iterating a sample when

    step ≤ max(tol·min(1, s), 4·eps·max(‖z‖, ‖x‖)),   s = ‖z‖, or s = max(‖z‖, |φ(0)|) where φ(0) is not 0.

The first step is as large as s, and for s < 1 all steps are bounded by Mᵏ⁻¹ (Lip(φ) + 1) s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from idl_ref import activations, checks
from idl_ref import factors as fac
from idl_ref.activations import LEAK
from idl_ref.certificate import ROUNDED, SAFETY, OutputBound, excess, resolvent_norm
from idl_ref.model import ImplicitModel
from idl_ref.preprocessing import Standardise
from idl_ref.weights import by_name

MOST_ITERATIONS = 100_000
DEFAULT_RANGE = 8.0  # the largest |u| after preprocessing: eight standard deviations if the model standardises


class Formula(NamedTuple):
    """φ as text: in NumPy for an array P; in C99 for a number p, with {f} for the suffix of libm's float functions."""

    numpy: str
    c: str
    at_zero: float = 0  # φ(0)
    largest: float = float("inf")  # the supremum of |φ|
    libm: bool = False  # whether the C99 text calls functions of libm


FORMULAS = {
    "identity": Formula("P", "p"),
    "relu": Formula("np.maximum(P, 0)", "p < 0 ? 0 : p"),
    "leaky_relu": Formula(f"np.maximum(P, {LEAK} * P)", f"p < 0 ? (real){LEAK} * p : p"),
    "tanh": Formula("np.tanh(P)", "tanh{f}(p)", largest=1, libm=True),
    "sigmoid": Formula(
        "np.where(P >= 0, 1, np.exp(-np.abs(P))) / (1 + np.exp(-np.abs(P)))",
        "p < 0 ? exp{f}(p) / (1 + exp{f}(p)) : 1 / (1 + exp{f}(-p))",
        at_zero=0.5,
        largest=1,
        libm=True,
    ),
    "softplus": Formula(
        "np.maximum(P, 0) + np.log1p(np.exp(-np.abs(P)))",
        "(p < 0 ? 0 : p) + log1p{f}(exp{f}(p < 0 ? p : -p))",
        at_zero=0.6931471805599454,  # log 2, rounded up
        libm=True,
    ),
    "elu": Formula("np.where(P > 0, P, np.expm1(np.minimum(P, 0)))", "p < 0 ? expm1{f}(p) : p", libm=True),
    "hardtanh": Formula("np.clip(P, -1, 1)", "p < -1 ? -1 : p > 1 ? 1 : p", largest=1),
    "softsign": Formula("P / (1 + np.abs(P))", "p / (1 + (p < 0 ? -p : p))", largest=1),
}


@dataclass(frozen=True)
class Plan:
    """A model to be exported.

    B is (n, p), C is (q, n), and D is (q, p), or None for a model without D. The bias is b (n,) and d (q,), or None.
    """

    factors: fac.Factors
    B: np.ndarray
    C: np.ndarray
    D: np.ndarray | None
    b: np.ndarray | None
    d: np.ndarray | None
    activation: str
    tol: float
    preprocessing: Standardise | None
    low: float  # the declared range of the inputs, before preprocessing
    high: float
    triangle: str | None  # "upper" or "lower" if A is strictly triangular, so that one sweep is exact
    iterations: int  # the number of Picard iterations that suffices
    error_bound: float  # of every entry of Ŷ, for samples in the range that converged; inf if there is no proved bound

    @property
    def dtype(self) -> np.dtype:
        return self.B.dtype

    @property
    def sizes(self) -> tuple[int, int, int]:
        """n, p, q"""
        return *self.B.shape, len(self.C)

    @property
    def formula(self) -> Formula:
        return FORMULAS[self.activation]

    @property
    def weights(self) -> dict[str, np.ndarray]:
        """A, or L and R; B and C; and D, b and d where the model has them."""
        others = {"B": self.B, "C": self.C, "D": self.D, "b": self.b, "d": self.d}
        return by_name(self.factors) | {name: W for name, W in others.items() if W is not None}

    def equations(self, phi: str = "φ") -> str:
        """The equations that the exported code solves, as text."""
        D, b = "" if self.D is None else " + D U", "" if self.b is None else " + b"
        return f"Y = C X{D}, where X solves X = {phi}(A X + B U{b})"

    def promise(self, sweeps: bool = True) -> str:
        """What holds for inputs in the range, as text; `sweeps` says whether the target uses that A is triangular."""
        effort = "one sweep" if sweeps and self.triangle else f"at most {self.iterations} iterations"
        known = np.isfinite(self.error_bound)
        return f"{effort}, " + (f"to within {self.error_bound:.2g}" if known else "without a bound on the error")


def make(model: ImplicitModel, bounds: tuple[float, float] | None = None) -> Plan:
    """The plan for a model and the declared range of its inputs.

    ValueError if a weight is not finite, or if the number of iterations cannot be bounded.
    """
    s, P = model.settings, model.parameters
    factors, phi = model.effective_weights().factors, activations.get(s.activation)
    for name, F in [*(("A", F) for F in factors), *((name, P[name]) for name in "BCD" if name in P)]:
        if not np.isfinite(F).all():
            raise ValueError(f"{name} must be finite to be exported; got NaN or inf: the training has diverged.")
    low, high, u = _range(bounds, model.preprocessing)
    reach = _reach(model, factors, phi, u)
    (B, b), (D, d) = (_split(P.get(name), s.bias) for name in "BD")
    assert B is not None
    return Plan(
        factors, B, P["C"], D, b, d, s.activation, s.tol, model.preprocessing, low, high, fac.triangle(factors), *reach
    )


def _reach(model: ImplicitModel, factors: fac.Factors, phi: activations.Activation, u: float) -> tuple[int, float]:
    """The fields `iterations` and `error_bound` of the plan, valid for every input with |u| ≤ `u`."""
    P, formula, eps = model.parameters, FORMULAS[model.activation], float(np.finfo(model.dtype).eps)
    bound, triangle = OutputBound.of(factors, P["B"], P["C"], P.get("D"), phi), fac.triangle(factors) is not None
    largest = np.full(P["B"].shape[1], u)
    if model.bias:
        largest[-1] = 1
    Z = SAFETY * (1 + bound.gamma_z) * (np.abs(P["B"]).astype(np.float64) @ largest) + bound.underflow
    first, z, u = phi.lipschitz * Z + formula.at_zero, float(Z.max()), float(largest.max())
    w = np.maximum(first, phi.lipschitz + (formula.at_zero > 0))
    iterations = _iterations(factors, phi.lipschitz, w, max(model.tol, ROUNDED * eps) / 4, triangle)
    amplification, r = min(bound.amplification, resolvent_norm(factors, phi.lipschitz)), bound.rounding
    x = min(formula.largest, amplification * float(first.max()))
    if not np.isfinite([x, amplification]).all():
        return iterations, np.inf
    step = 0.0 if triangle else max(model.tol, ROUNDED * eps * max(z, x))
    x += step
    state = amplification * excess(r.lipschitz * r.norm, r.lipschitz, step, x, z, x, 1, r) + bound.of_input(u)
    error = float(bound.output(state, x, u))
    return iterations, error if np.isfinite(error) else np.inf


def _iterations(factors: fac.Factors, lipschitz: float, w: np.ndarray, threshold: float, triangular: bool) -> int:
    """The first k for which the largest entry of Mᵏ⁻¹ w is at most the threshold, where M = Lip(φ)|A|."""
    M = tuple(np.abs(F).astype(np.float64) for F in factors)
    n = len(w)
    for k in range(1, MOST_ITERATIONS + 1):
        if w.max(initial=0.0) <= threshold or (triangular and k > n):  # Mⁿ = 0 for a triangular A
            return k
        with np.errstate(over="ignore", invalid="ignore"):
            w = SAFETY * lipschitz * fac.apply(M, w)
        if not np.isfinite(w).all() and not triangular:
            break
    raise ValueError(
        f"a model can be exported if its iterations can be bounded, by {MOST_ITERATIONS} at most; got a model with "
        f"‖A‖∞ = {fac.norm_inf(factors):.4f} that may need more: train it with an f that keeps ‖A‖∞ below 1, "
        "or give it a larger tol."
    )


def _split(F: np.ndarray | None, bias: bool) -> tuple[np.ndarray | None, np.ndarray | None]:
    """F without its last column, and that column, if it is the bias; otherwise F, and None."""
    return (F, None) if F is None or not bias else (F[:, :-1], F[:, -1])


def _range(bounds: tuple[float, float] | None, pre: Standardise | None) -> tuple[float, float, float]:
    """The ends of the range before preprocessing, and the largest |u| after preprocessing."""
    if pre is not None and pre.mean.ndim:
        raise ValueError(
            "a model can be exported if its preprocessing has one mean and one scale for all features; got one per "
            "feature: fit it with Standardise.fit(x_train, per_feature=False)."
        )
    mean, scale = (0.0, 1.0) if pre is None else (float(pre.mean), float(pre.scale))
    if bounds is None:
        return mean - DEFAULT_RANGE * scale, mean + DEFAULT_RANGE * scale, DEFAULT_RANGE * (1 + 1e-6)
    low = checks.number("low end of the range", bounds[0], -np.inf)
    high = checks.number("high end of the range", bounds[1], low)
    return low, high, max(abs(low - mean), abs(high - mean)) / scale * (1 + 1e-6)
