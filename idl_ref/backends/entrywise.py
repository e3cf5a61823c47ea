"""This module bounds the error of every entry of an answer, |X − X*|, whichever program computed the answer.

Let g(X) = S ∘ f(F X + Z) be the map of the equation, x a column of the answer, x* the solution, and e = |x − x*|. With
the slopes s of f between F x + z and F x* + z, times |S|, the error satisfies, entry by entry,

    e ≤ |g(x) − x| + |g(x) − g(x*)| ≤ d + s ∘ (|F| e)        where d ≥ |g(x) − x|.

The residual g(x) − x is computed in float64, and d includes the rounding of this computation. From this inequality the
bounds follow in four steps, each of which can only lower the bound that the step before found:

range         If φ maps to [a, b], so does the equilibrium map, and e ≤ max(|x − a|, |b − x|).
resolvent     If c ≥ s, and if some v > 0 has u = v − c ∘ (|F| v) > 0, then e ≤ (I − c ∘ |F|)⁻¹ d. An approximation w of
              this vector is found by one LU decomposition, and e ≤ w + v·max((d − (w − c ∘ |F| w))/u, 0). If F is
              strictly triangular, substitution takes the place of the decomposition.
monotonicity  If no such v is found, but I − c (F + Fᵀ)/2 ⪰ μ I with μ > 0, then ‖e‖₂ ≤ ‖(2 I − c Fᵀ)(g(x) − x)‖₂ / μ.
slopes        e ≤ w confines F x* + z to an interval, on which s may be much smaller than Lip(φ): it is 0 where relu
              cannot become active. Therefore e ≤ d + s ∘ (|F| w), and this is repeated as long as it lowers w.

Nothing rests on the accuracy of a decomposition: every inequality is verified with its own rounding included.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from idl_ref import activations, certificate
from idl_ref import factors as fac
from idl_ref import monotone as mono
from idl_ref.activations import Activation, Mixed
from idl_ref.backends.equation import Equation
from idl_ref.certificate import SAFETY, Rounding
from idl_ref.solution import Solution
from idl_ref.sparse import dense

EPS, TINY = certificate.limits(np.dtype(np.float64))
# A system of at most LARGE unknowns is solved directly, which takes 0.6 s for 4096 unknowns on two cores. For larger
# ones, v is a partial sum of the Neumann series, with at most TERMS terms, and w = 0.
LARGE, TERMS = 4096, 200
# Up to this size, each column of an adjoint equation gets an LU decomposition of its own where the common one fails.
OWN = 1024
SWEEPS, FALL = 100, 0.99  # The sweeps end when no entry falls below FALL times its value before.
# The activations whose slope grows with the argument, and those whose slope falls with its absolute value. For any
# other activation, Lip(φ) bounds the slope on every interval.
RISING = ("identity", "relu", "leaky_relu", "softplus", "elu")
PEAKED = ("tanh", "sigmoid", "hardtanh", "softsign")


class Frame(NamedTuple):
    """All that the bounds of the columns of one answer are computed from, in float64."""

    equation: Equation
    size: fac.Factors  # the absolute values of the factors
    P: np.ndarray  # F x + z
    spread: np.ndarray  # a bound of the rounding error of P
    residual: np.ndarray  # g(x) − x
    D: np.ndarray  # a bound of |g(x) − x| that includes the rounding of the residual
    ceiling: np.ndarray  # a bound of the slopes s: Lip(φ), or |S| in the adjoint equation; (n, m)
    rounding: Rounding

    def take(self, columns: np.ndarray) -> Frame:
        """Return the same frame for the given columns only."""
        return self.at((slice(None), columns))._replace(equation=self.equation.take(columns))

    def at(self, index: Any) -> Frame:
        """Return the same frame with some entries of its (n, m) arrays only."""
        P, spread, residual, D, ceiling = (M[index] for M in self[2:7])
        return self._replace(P=P, spread=spread, residual=residual, D=D, ceiling=ceiling)

    def reach(self, W: np.ndarray, transposed: bool = False) -> np.ndarray:
        """Return an upper bound of |F| W, or of |F|ᵀ W, for W ≥ 0."""
        size = fac.transpose(self.size) if transposed else self.size
        return fac.apply(size, W) * (1 + 4 * self.rounding.gamma) + self.rounding.underflow

    def slopes(self, T: np.ndarray) -> np.ndarray:
        """Return an upper bound of the slopes s between arguments that differ by at most T from F x + z."""
        if self.equation.S is not None:
            return self.ceiling
        radius = SAFETY * (T + self.spread) + 4 * EPS * np.abs(self.P)
        return steepest(self.equation.activation, self.P - radius, self.P + radius)


def frame(equation: Equation, X: np.ndarray) -> Frame:
    """Compute the residual of an answer in float64, and bound its rounding.   X (n, m)"""
    factors: fac.Factors = tuple(F.astype(np.float64, copy=False) for F in equation.factors)
    activation, S = equation.activation, equation.S
    X, Z = X.astype(np.float64), equation.Z.astype(np.float64)
    size: fac.Factors = tuple(np.abs(F) for F in factors)
    r = certificate.rounding(factors, activation, X.dtype, 0.0)
    back = certificate.rounding(fac.transpose(factors), activation, X.dtype, 0.0)
    r = r._replace(underflow=max(r.underflow, back.underflow))  # `reach` multiplies by |F| and by |F|ᵀ.
    equation = Equation(factors, activation, None if S is None else S.astype(np.float64), Z)
    P, G = equation.apply(X)
    nothing = np.zeros_like(X)
    e = Frame(equation, size, P, nothing, G - X, nothing, nothing, r)
    spread = SAFETY * r.gamma * (e.reach(np.abs(X)) + np.abs(Z)) + r.underflow
    ceiling = np.full_like(X, activation.steepness) if equation.S is None else np.abs(equation.S)
    own = ceiling * spread + certificate.ULPS * EPS * np.abs(G) + r.underflow
    return e._replace(spread=spread, D=SAFETY * (np.abs(e.residual) + own), ceiling=ceiling)


def listed(activation: Activation) -> bool:
    """Tell whether an activation is one of the table, or a mix of them, of which more is known than Lip(φ)."""
    return all(activations.TABLE.get(row.name) is row for row, _ in activation.segments)


def steepest(activation: Activation, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return an upper bound of the Lipschitz constant of φ on the interval [low, high], for every entry."""
    if isinstance(activation, Mixed):
        result = np.empty_like(low)
        for row, rows in activation.segments:
            result[rows] = steepest(row, low[rows], high[rows])
        return result
    if not listed(activation) or activation.name not in RISING + PEAKED:
        return np.full_like(low, activation.lipschitz)
    peak = high if activation.name in RISING else np.minimum(np.maximum(low, 0), high)
    slope = activation.slope(peak) * (1 + 2 * certificate.ULPS * EPS) + TINY
    return np.minimum(slope, activation.lipschitz)


# --- the four steps ---------------------------------------------------------------------------------------------------


def of_range(equation: Equation, X: np.ndarray) -> np.ndarray:
    """Return max(|x − a|, |b − x|), where [a, b] holds the values of φ; inf in the adjoint equation."""
    low, high = equation.activation.range if equation.S is None else (-np.inf, np.inf)
    return SAFETY * np.maximum(np.abs(X - low), np.abs(high - X))


def by_substitution(e: Frame, W: np.ndarray, upper: bool) -> np.ndarray:
    """Lower the bounds W row by row, by e ≤ d + s ∘ (|F| e), where F is strictly triangular."""
    n = len(W)
    W = W.copy()
    for i in range(n - 1, -1, -1) if upper else range(n):
        F, known = fac.row(e.size[0], i, slice(i + 1, n) if upper else slice(0, i))
        row = slice(i, i + 1)
        own = e.equation._replace(activation=e.equation.activation.take(row))
        some = e.at(row)._replace(equation=own, size=(F,))
        W[row] = lower(some, W[row], some.reach(W[known]))
    return W


def lower(e: Frame, W: np.ndarray, T: np.ndarray) -> np.ndarray:
    """Return the smaller of W and d + s ∘ T, for T ≥ |F| e. Where T is not known, which makes it NaN, W remains."""
    return np.fmin(W, SAFETY * (e.D + e.slopes(T) * T))


def margin(e: Frame, c: np.ndarray, V: np.ndarray, D: np.ndarray | float = 0.0) -> np.ndarray:
    """Return a lower bound of v − c ∘ (|F| v) − d, with the rounding of this computation subtracted."""
    T = c * e.reach(V)
    return V - T - D - 4 * EPS * (V + T + D)


def resolvent(e: Frame, c: np.ndarray, largest: int) -> np.ndarray:
    """Return an upper bound of (I − c ∘ |F|)⁻¹ d, or inf if no v > 0 with v − c ∘ (|F| v) > 0 is found.   c (n, 1)

    Systems of more than `largest` unknowns are not solved: v is then a partial sum of the Neumann series of the
    inverse, applied to ones, and the bound is v·max(d/u), an error in the norm that v weights.
    """
    ones, W = np.ones_like(c), np.zeros_like(e.D)
    v, u = ones, margin(e, c, ones)
    if len(e.size[-1]) <= largest:
        try:
            solved = certificate.resolve((c * dense(e.size[0]), *e.size[1:]), np.concatenate([ones, e.D], axis=1))
        except np.linalg.LinAlgError:
            solved = np.full((len(c), 1 + W.shape[1]), np.nan)
        if np.isfinite(solved).all() and (solved[:, :1] > 0).all() and (margin(e, c, solved[:, :1]) > 0).all():
            v, W = solved[:, :1], np.maximum(solved[:, 1:], 0)
            u = margin(e, c, v)
    for _ in range(TERMS):
        if (u > 0).all() or not np.isfinite(v).all():
            break
        v = ones + c * e.reach(v)
        u = margin(e, c, v)
    if not (np.isfinite(v).all() and (u > 0).all()):
        return np.full_like(e.D, np.inf)
    lacking = (np.maximum(-margin(e, c, W, e.D), 0) / u).max(axis=0)
    return SAFETY * (W + v * lacking)


def monotone(e: Frame) -> np.ndarray:
    """Return ‖(2 I − c Fᵀ)(g(x) − x)‖₂ / μ for each column, where I − c (F + Fᵀ)/2 ⪰ μ I; inf if μ > 0 is not found.

    Here, let e = x − x* with its signs, r = g(x) − x, and f = g(x) − g(x*) = e + r. Because φ does not decrease and has
    slopes of at most c, fᵢ² ≤ c fᵢ (F e)ᵢ for every i, so that ⟨e + r, e + r − c F e⟩ ≤ 0. This inequality says that
    ⟨e, e − c F e⟩ ≤ −⟨e, (2 I − c Fᵀ) r⟩ − ‖r‖², and its left side is at least μ‖e‖². In the adjoint equation,
    f = S ∘ (F e) has the same property, with c = 1, if all slopes in S are between 0 and 1.
    """
    factors, activation, S, _ = e.equation
    c, known = activation.lipschitz, listed(activation) and min(factors[-1].shape) <= LARGE
    mu = mono.margin(factors, c) if known else -np.inf
    if not mu > 0:
        return np.full((1, e.D.shape[1]), np.inf)
    r, extra = e.residual, e.D - np.abs(e.residual)
    y = 2 * r - c * fac.apply(fac.transpose(factors), r)
    extra = extra + 4 * e.rounding.gamma * np.abs(r)
    rounded = 2 * extra + c * e.reach(extra, transposed=True) + EPS * np.abs(y)
    y = np.abs(y) + rounded
    largest = y.max(axis=0)  # It is positive. Without this scale, the squares of small entries would underflow.
    bound = SAFETY * largest * (np.linalg.norm(y / largest, axis=0, keepdims=True) / mu)
    return bound if S is None else np.where(((S >= 0) & (S <= 1)).all(axis=0), bound, np.inf)


def enclose(equation: Equation, X: np.ndarray) -> np.ndarray:
    """Return a bound of |X − X*|, entry by entry, in float64; inf where none is found.   X (n, m) -> (n, m)"""
    bound = np.full(X.shape, np.inf)
    with np.errstate(all="ignore"):  # A bound that overflows is inf.
        e = frame(equation, X)
        finite = np.isfinite(e.D).all(axis=0) & np.isfinite(e.ceiling).all(axis=0)
        if X.size and finite.any():
            W = confined(e.take(finite), X[:, finite].astype(np.float64))
            bound[:, finite] = np.where(np.isnan(W), np.inf, W)
    return bound


def confined(e: Frame, X: np.ndarray) -> np.ndarray:
    """Take the four steps for columns whose residual is finite."""
    W = of_range(e.equation, X)
    triangle = fac.triangle(e.equation.factors)
    if triangle is not None:
        return by_substitution(e, W, triangle == "upper")
    found = resolvent(e, e.ceiling.max(axis=1, keepdims=True), LARGE)
    if e.equation.S is not None:
        for j in np.flatnonzero(~np.isfinite(found).all(axis=0)):
            one = np.array([j])
            found[:, one] = resolvent(e.take(one), e.ceiling[:, one], OWN)
    if not np.isfinite(found).all():
        found = np.fmin(found, monotone(e))
    W = np.fmin(W, found)
    for _ in range(SWEEPS):
        before, W = W, lower(e, W, e.reach(W))
        if not (before * FALL > W).any():
            break
    return W


# --- the bounds of a solution -----------------------------------------------------------------------------------------


def sharpened(solution: Solution, equation: Equation, X: np.ndarray) -> Solution:
    """Return the solution with the norm of its entrywise bounds as `error_bound`, where that is smaller.

    X is the X of the solution, in the memory of the host.
    """
    bound = enclose(equation, X)
    norm = bound.max(axis=0, initial=0.0) if equation.S is None else SAFETY * bound.sum(axis=0)
    return replace(solution, error_bound=np.fmin(norm, solution.error_bound))


def exceeds_range(solution: Solution, equation: Equation) -> bool:
    """Tell whether an error bound is above the width of the range of φ, for a φ with a bounded range."""
    bound = solution.error_bound
    return bound.size > 0 and not bound.item(bound.argmax()) <= _width(equation)


def capped(solution: Solution, equation: Equation, X: np.ndarray) -> Solution:
    """Return the solution with no error bound above the width of the range of φ.

    A larger one becomes the largest distance of the column from the values of φ. Other bounds do not change, so that
    the bound of a column does not depend on its batch.
    """
    bound = solution.error_bound
    with np.errstate(invalid="ignore"):
        limit = of_range(equation, X.astype(np.float64)).max(axis=0, initial=0.0)
        return replace(solution, error_bound=np.where(bound <= _width(equation), bound, np.fmin(limit, bound)))


def _width(equation: Equation) -> float:
    """Return the width of the range of φ, the largest one if the rows have different φ."""
    low, high = equation.activation.range
    return float(np.max(high - low))
