"""How far a correct answer may be from the truth: a bound from the dtype, norms, conditioning and the stopping rule.

A correct backend stops when each entry of a step is at most

    stop = max(tol·min(1, ‖z‖∞), noise),   noise = max(4 eps, 2γ_{n+2}) φ̄′ (|A||x| + |z|) + 4 eps |x|

where ‖z‖∞ belongs to the column, and all else to the row, so that a large entry of z excuses no other row. φ̄′ is the
mean slope of φ between the preactivations that rounding cannot tell apart: nearly 0 where φ saturates. A backend that
stops as soon as 4 eps explains a step does so earlier or later than one that waits until no step gets smaller, which is
where 2γ_{n+2} does. Every entry of the residual of its X is then at most r = stop + rounding, and with
M = (I − Lip(φ) |A|)⁻¹ ≥ 0

    |X − X*| ≤ M r,   ‖M‖∞ ≤ 1/(1 − κ).

An iteration in the last digits may also end in a cycle: x ← g(x) + ρ that returns to where it was is at most M ρ away
from X*, and its residual is at most (I + Lip(φ)|A|) M ρ. The certificate grants this as well.

The adjoint equation has N = (I − diag(s) |A|ᵀ)⁻¹ per column in place of M, and its r also contains the change of
S = φ′(A X + Z) that an error of X causes. The gradients are products of these quantities, and so are their bounds.
γ_k = k u / (1 − k u) bounds the relative rounding error of a sum of k terms in any order, where u is half the distance
from 1 to the next number.
"""

from __future__ import annotations

from functools import reduce
from typing import NamedTuple

import numpy as np

from idl_ref import activations, perron
from idl_ref import factors as fac
from idl_ref.conformance.truth.exact import SMOOTH
from idl_ref.conformance.truth.majorants import above as above
from idl_ref.conformance.truth.majorants import resolvent as resolvent
from idl_ref.conformance.truth.problem import COLUMNS, Arrays, Case, Problem, spread
from idl_ref.weights import by_name

# A Perron root, its vectors, and what is added so that it is a bound, may be off by so many roundings for each row.
ROOT = 96
SAFETY = 2.0  # the factor by which residuals and results are allowed to exceed their derived bounds


class Unit(NamedTuple):
    """Constants of one dtype: u, half of eps; floor, 4 eps; and eta, the smallest positive number.

    Where the dtype is one of storage, sums are due in float32, whose u is `inside`, and two roundings to the dtype.
    """

    u: float
    floor: float
    eta: float
    inside: float | None = None

    def gamma(self, k: int) -> float:
        u = self.u if self.inside is None else self.inside
        return k * u / (1 - k * u) + (0 if self.inside is None else 2 * self.u)


def unit(dtype: np.dtype | str, flushes: bool = False) -> Unit:
    """The constants of a dtype, which may be named; "bfloat16" has the range of float32 and 8 significant bits.

    eta is the smallest normal number where smaller ones are flushed to zero.
    """
    if dtype == "bfloat16":
        return Unit(2.0**-8, 2.0**-7, 2.0**-126 if flushes else 2.0**-133, 2.0**-24)
    info = np.finfo(dtype)
    u, eta = float(info.eps) / 2, float(info.tiny if flushes else info.smallest_subnormal)
    return Unit(u, 8 * u, eta) if u < 2.0**-20 else Unit(u, 2 * u, eta, 2.0**-24)


class Equation(NamedTuple):
    """A problem in float64.

    `factors` are the effective A, or L and Rᵀ; `size` is |A|, or |L||R|ᵀ; `Z_size` is |B||U|; `terms` is the number of
    terms in all sums of one application of A; `un` has the constants of the dtype; `lost` is what flushing subnormal
    numbers takes from |U|; `residual` is that of the style.
    """

    factors: tuple[np.ndarray, ...]
    size: np.ndarray
    Z: np.ndarray
    Z_size: np.ndarray
    terms: int
    lipschitz: float
    un: Unit
    lost: np.ndarray
    residual: bool


class Style(NamedTuple):
    """What a backend declares that changes its bounds.

    Attributes
    ----------
    flushes : bool
        Whether it replaces subnormal numbers by 0.
    residual : bool
        Whether it stops by the residual of what it returns. No application of the map follows, which would make up for
        a Lipschitz constant in place of the slope of φ in what rounding explains of a residual.
    """

    flushes: bool = False
    residual: bool = False


ORDINARY = Style()


def equation(problem: Problem, style: Style = ORDINARY) -> Equation:
    raw = tuple(F.astype(np.float64) for F in problem.factors)
    factors = problem.function.effective(raw)
    B, U = problem.B.astype(np.float64), problem.U.astype(np.float64)
    with np.errstate(invalid="ignore"):
        Z, Z_size = B @ U, np.abs(B) @ np.abs(U)
    size = reduce(np.matmul, map(np.abs, factors))
    terms = sum(F.shape[1] for F in factors)
    un, lipschitz = unit(problem.storage, style.flushes), activations.get(problem.activation).lipschitz
    lost = np.where(style.flushes & (np.abs(U) < un.eta), np.abs(U), 0)
    return Equation(factors, size, Z, Z_size, terms, lipschitz, un, lost, style.residual)


def stopping(tol: float, z: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """The largest step at which each row may stop, given what rounding explains of it.   (n, m), (n, m) -> (n, m)"""
    return np.maximum(tol * np.minimum(1, np.abs(z).max(axis=0, initial=0.0)), noise)


def stalled(un: Unit, terms: int) -> float:
    """The relative size of a change of A x + z that rounding explains: max(4 eps, 2γ)."""
    return max(un.floor, 2 * un.gamma(terms + 2))


def _allowances(problem: Problem, eq: Equation, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For the forward equation, row by row: the largest step with which X may stop, and the rounding of φ(A X + Z).

    A change δ of a preactivation P changes φ by at most (φ(P + δ) − φ(P − δ))/2, but for the curvature of φ.
    """
    un, phi, (_, p, _, _) = eq.un, activations.get(problem.activation), problem.sizes
    mapped = eq.terms + 2 if problem.f == "none" else 2 * eq.terms + 8 + _found(problem)
    smooth = 1.0 if problem.activation in SMOOTH else 0.0
    P, aX = fac.apply(eq.factors, X) + eq.Z, np.abs(X)
    AX = eq.size @ aX
    with np.errstate(over="ignore", invalid="ignore"):
        explained = stalled(un, eq.terms) * (AX + np.abs(eq.Z))
        noise = (eq.lipschitz * explained if eq.residual else phi.change(P, explained) / 2) + un.floor * aX
        inside = un.gamma(mapped) * AX + un.gamma(p + 2) * eq.Z_size + (eq.terms + p + 2) * un.eta
        inside += np.abs(problem.B) @ eq.lost
        rounding = phi.change(P, inside) / 2 + 4 * un.u * (aX + smooth) + (eq.terms + p + 2) * un.eta
    # Where φ(0) is not 0, no solution is smaller than about that, however small z is.
    return stopping(problem.tol, np.maximum(np.abs(eq.Z), abs(float(phi.phi(np.zeros(1))[0]))), noise), rounding


def _found(problem: Problem) -> int:
    """How many roundings a correct backend may lose in finding the Perron root; 0 for every other f."""
    return ROOT * len(problem.B) if problem.f == "perron" else 0


def residual_bound(problem: Problem, eq: Equation, X: np.ndarray, strict: bool) -> np.ndarray:
    """The largest magnitude r that each entry of φ(A X + Z) − X may have.   (n, m)"""
    stop, rounding = _allowances(problem, eq, X)
    return SAFETY * ((eq.lipschitz * eq.size @ stop if strict else stop) + rounding)


def certificate(
    problem: Problem, X: np.ndarray, strict: bool = False, style: Style = ORDINARY
) -> tuple[np.ndarray, np.ndarray]:
    """|φ(A X + B U) − X| for the X of a backend, in float64, and its bound.   (n, m), (n, m)"""
    eq, X = equation(problem, style), X.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        G = activations.get(problem.activation).phi(fac.apply(eq.factors, X) + eq.Z)
        allowed, slopes = residual_bound(problem, eq, X, strict), eq.lipschitz * eq.size
        if slopes.sum(axis=1).max(initial=0.0) < 1:  # Only a contraction is known to cycle near its fixed point.
            rounding = SAFETY * _allowances(problem, eq, X)[1]
            cycle = above(slopes, rounding)
            allowed = np.maximum(allowed, cycle + slopes @ cycle)
        return np.abs(G - X), allowed


def bounds(case: Case, truth: Arrays, style: Style = ORDINARY) -> Arrays:
    """The largest error that each entry of a correct answer may have, under the names of the truth.

    Beside the largest entry of a gradient, one of u² times its size is nothing: the derivative of an iteration passes
    such numbers on from units that are inactive at the equilibrium, but were active on the way to it.
    """
    problem, good = case.problem, case.good
    eq = equation(problem, style)
    un, lost = eq.un, eq.lost[:, good]
    X, V = truth["X"][:, good], truth["V"][:, good]
    B, C, U, G_Y = (np.abs(M, dtype=np.float64) for M in (problem.B, problem.C, problem.U[:, good], case.G_Y[:, good]))
    D = np.zeros((len(C), len(U))) if problem.D is None else np.abs(problem.D, dtype=np.float64)
    (n, p), (q, m) = B.shape, G_Y.shape
    eq = eq._replace(Z=eq.Z[:, good], Z_size=eq.Z_size[:, good], lost=lost)
    moving = np.ones((n, 1))
    moving[case.facts.get("still", [])] = 0  # φ′ = 0 in every column: these units pass no error on
    E_X = above(eq.lipschitz * moving * eq.size, residual_bound(problem, eq, X, case.strict))
    E_V = _adjoint(case, eq, X, V, E_X)
    X, V = np.abs(X), np.abs(V)
    E: Arrays = {
        "X": E_X,
        "V": E_V,
        "Y": C @ E_X + D @ lost + un.gamma(n + p + 2) * (C @ X + D @ U),
        "B": E_V @ U.T + V @ lost.T + un.gamma(m + 2) * V @ U.T,
        "C": G_Y @ E_X.T + un.gamma(m + 2) * G_Y @ X.T,
        "D": G_Y @ lost.T + un.gamma(m + 2) * G_Y @ U.T,
        "U": B.T @ E_V + un.gamma(n + q + 2) * (B.T @ V + D.T @ G_Y),
    }
    E |= _factor_gradients(problem, eq, truth, good, E_X, E_V)
    result = {}
    for name, value in E.items():
        if name not in truth:
            continue
        size = np.abs(truth[name][:, good] if name in COLUMNS else truth[name])
        trace = 0.0 if name in ("X", "Y", "V") else un.u**2 * size.max(initial=0.0)
        result[name] = SAFETY * (value + 2 * un.u * size + trace + (n + p + q + m) * un.eta)
    return spread(result, good)


def _adjoint(case: Case, eq: Equation, X: np.ndarray, V: np.ndarray, E_X: np.ndarray) -> np.ndarray:
    """|V − V*| ≤ N (|δS| ∘ (|A|ᵀ|V| + |G|) + S ∘ (stop + rounding)), column by column."""
    problem, phi = case.problem, case.problem.activation
    un, good, V = eq.un, case.good, np.abs(V)
    S = activations.get(phi).slope(fac.apply(eq.factors, X) + eq.Z)
    if case.expect == "acceptable":
        S = np.ones_like(S)  # φ′ ≤ 1 under every convention
    E_P = eq.size @ E_X + un.gamma(eq.terms + 2) * (eq.size @ np.abs(X)) + un.gamma(problem.B.shape[1] + 2) * eq.Z_size
    E_S = SMOOTH[phi].curvature * E_P + 8 * un.u if phi in SMOOTH else 2 * un.u * S
    C, G_Y = (np.abs(M, dtype=np.float64) for M in (problem.C, case.G_Y[:, good]))
    G, pulled = C.T @ G_Y, eq.size.T @ V
    cotangent = problem.C.T.astype(np.float64) @ case.G_Y[:, good]
    noise = stalled(un, eq.terms) * S * (pulled + np.abs(cotangent)) + un.floor * V
    stop = stopping(problem.tol, cotangent, noise)
    stop = eq.size.T @ stop if case.strict else stop
    inside = un.gamma(2 * eq.terms + 8 + _found(problem)) * pulled + un.gamma(len(C) + 4) * G
    r = E_S * (pulled + G) + S * inside + SAFETY * np.where(S > 0, stop, 0) + (eq.terms + 4) * un.eta
    return above(eq.size.T, r, S)


def _factor_gradients(
    problem: Problem, eq: Equation, truth: Arrays, good: np.ndarray, E_X: np.ndarray, E_V: np.ndarray
) -> Arrays:
    """Bounds of the errors of ∂A, or of ∂L and ∂R, for the raw weights."""
    un, m = eq.un, int(good.sum())
    X, V = truth["X"][:, good], truth["V"][:, good]
    aX, aV = np.abs(X), np.abs(V)
    if len(eq.factors) == 1:
        G: fac.Factors = (V @ X.T,)
        E: fac.Factors = (E_V @ aX.T + aV @ E_X.T + E_V @ E_X.T + un.gamma(m + 2) * aV @ aX.T,)
    else:
        L, Rt = (np.abs(F) for F in eq.factors)
        k = un.gamma(len(L) + m + 4 + _found(problem))
        E_L = (aV + E_V) @ (Rt @ E_X).T + E_V @ (Rt @ aX).T + k * aV @ (Rt @ aX).T
        E_R = (aX + E_X) @ (L.T @ E_V).T + E_X @ (L.T @ aV).T + k * aX @ (L.T @ aV).T
        G = V @ (eq.factors[1] @ X).T, (X @ (eq.factors[0].T @ V).T).T
        E = E_L, E_R.T
    if problem.f == "perron":
        return by_name(_pulled_by_root(problem, G, E))
    return by_name(tuple(_pulled(problem, *of) for of in zip(problem.factors, G, E, strict=True)))


def _pulled(problem: Problem, raw: np.ndarray, G: np.ndarray, E: np.ndarray) -> np.ndarray:
    """The error of the gradient of the raw weights, for an error E of the gradient G of the effective weights."""
    raw, un = np.abs(raw, dtype=np.float64), unit(problem.storage)
    if problem.f == "none" or raw.size == 0:
        return E
    E = E + un.gamma(raw.shape[1] + 8) * np.abs(G)
    if problem.f == "triu":
        return np.triu(E, 1)
    norms = raw.sum(axis=1)
    if problem.f == "inf":
        norm = max(norms.max(), problem.kappa)
        inner = (E * raw).sum() + un.gamma(raw.size + 4) * (np.abs(G) * raw).sum()
        return (E + (norms == norms.max())[:, None] * inner / norm) * (problem.kappa / norm)
    return E + (E.sum(axis=1, keepdims=True) + un.gamma(raw.shape[1] + 4) * np.abs(G).sum(axis=1, keepdims=True))


def _pulled_by_root(problem: Problem, G: fac.Factors, E: fac.Factors) -> fac.Factors:
    """The same for all factors and f = perron, whose pullback takes away g/(kλ) sign(F) ∘ ∂λ/∂|F|, g = Σ ⟨G, F⟩."""
    raw = tuple(F.astype(np.float64) for F in problem.factors)
    root, off = perron.root(raw), unit(problem.storage).gamma(_found(problem))
    E = tuple(e + off * np.abs(g) for e, g in zip(E, G, strict=True))
    size = root.value ** (1 / len(raw))
    if size <= problem.kappa:
        return E
    inner = sum((e * np.abs(F)).sum() for e, F in zip(E, raw, strict=True)) / (len(raw) * root.value)
    slopes = perron.slopes(raw, root.block)
    return tuple((e + inner * slope) * (problem.kappa / size) for e, slope in zip(E, slopes, strict=True))


def ratio(got: np.ndarray, truth: np.ndarray, bound: np.ndarray) -> float:
    """The largest ratio of error to bound over the entries whose truth is known; inf if such an entry is not finite."""
    known = ~np.isnan(truth)
    if not known.any():
        return 0.0
    error, allowed = np.abs(got[known].astype(np.float64) - truth[known]), bound[known]
    if not np.isfinite(error).all():
        return float("inf")
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return float(np.where(error == 0, 0.0, error / allowed).max())
