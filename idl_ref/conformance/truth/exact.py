"""Exact answers: rational numbers for piecewise linear φ, decimals with a proved error bound for smooth φ.

The arithmetic is Python's own, `fractions.Fraction` and `decimal.Decimal` in object arrays, so the results have the
same bits on every machine. Floats only give the starting point; an answer that cannot be proved raises an error.
"""

from __future__ import annotations

import decimal
from collections.abc import Callable
from contextlib import AbstractContextManager
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from idl_ref import activations
from idl_ref.conformance.truth.maps import effective, pullback
from idl_ref.conformance.truth.problem import Arrays, Problem
from idl_ref.conformance.truth.rational import product, solve
from idl_ref.weights import as_factors, by_name

DIGITS = 120
# The proved bound of the error of every entry. The bound that is computed is smaller, but it depends on the floats from
# which the iteration starts, and they may differ between machines; this constant does not.
PROVED = "1e-40"
LEAK = Fraction(1, 100)
# One piece of φ: φ(p) = slope p + offset for p from the first number to the second; None is infinity.
Piece = tuple[Fraction | None, Fraction | None, Fraction, Fraction]
ZERO, ONE = Fraction(0), Fraction(1)

PIECES: dict[str, tuple[Piece, ...]] = {
    "identity": ((None, None, ONE, ZERO),),
    "relu": ((None, ZERO, ZERO, ZERO), (ZERO, None, ONE, ZERO)),
    "leaky_relu": ((None, ZERO, LEAK, ZERO), (ZERO, None, ONE, ZERO)),
    "hardtanh": ((None, -ONE, ZERO, -ONE), (-ONE, ONE, ONE, ZERO), (ONE, None, ZERO, ONE)),
}


class Smooth(NamedTuple):
    """φ and φ′ of a Decimal, and a Lipschitz constant of φ′."""

    phi: Callable[[Decimal], Decimal]
    slope: Callable[[Decimal], Decimal]
    curvature: float


def _sigmoid(p: Decimal) -> Decimal:
    return 1 / (1 + (-p).exp())


def _tanh(p: Decimal) -> Decimal:
    if abs(p) < Decimal(
        "1e-25"
    ):  # (1 − e)/(1 + e) would lose digits; the next term of the series is too small to matter
        return p - p * p * p / 3
    e = (-2 * abs(p)).exp()
    return ((1 - e) / (1 + e)).copy_sign(p)


SMOOTH = {
    "tanh": Smooth(_tanh, lambda p: 1 - _tanh(p) ** 2, 1),
    "sigmoid": Smooth(_sigmoid, lambda p: _sigmoid(p) * _sigmoid(-p), 1),
    "softplus": Smooth(lambda p: max(p, Decimal(0)) + (1 + (-abs(p)).exp()).ln(), _sigmoid, 1),
    "elu": Smooth(lambda p: p if p > 0 else p.exp() - 1, lambda p: Decimal(1) if p > 0 else p.exp(), 1),
    "softsign": Smooth(lambda p: p / (1 + abs(p)), lambda p: 1 / (1 + abs(p)) ** 2, 2),
}


class Answer(NamedTuple):
    """Correctly rounded arrays, the smallest distance of a preactivation from a kink of φ, and how they are known."""

    arrays: Arrays
    kink_margin: float
    provenance: str


def numbers(array: np.ndarray, kind: Callable[[float], Any]) -> np.ndarray:
    """An object array of exact copies of floats."""
    return np.frompyfunc(kind, 1, 1)(array.astype(object))


def _minus(M: np.ndarray) -> np.ndarray:
    """I − M."""
    return np.eye(len(M), dtype=int).astype(object) - M


# --- the equilibrium --------------------------------------------------------------------------------------------------


def guess(A: np.ndarray, Z: np.ndarray, activation: str) -> np.ndarray:
    """X by Picard iteration in float64, accurate enough to tell which piece of φ each preactivation lies on."""
    phi, X = activations.get(activation).phi, np.zeros_like(Z)
    for _ in range(40_000):
        X, last = phi(A @ X + Z), X
        if np.abs(X - last).max(initial=0.0) <= 1e-13 * np.abs(X).max(initial=0.0):
            break
    return X


def piece(p: Fraction, activation: str) -> Piece:
    """The piece of φ that p lies on; at a kink, the left one of the two."""
    for candidate in PIECES[activation]:
        if candidate[1] is None or p <= candidate[1]:
            return candidate
    raise AssertionError("the last piece has no end")


def slopes_and_offsets(p: np.ndarray, activation: str) -> tuple[np.ndarray, np.ndarray]:
    """The slope and the offset of the piece that each entry of p lies on."""
    pieces = [piece(v, activation) for v in p]
    return np.array([slope for _, _, slope, _ in pieces], object), np.array([last for *_, last in pieces], object)


def rational_column(A: np.ndarray, z: np.ndarray, start: np.ndarray, activation: str) -> np.ndarray:
    """The x with x = φ(A x + z), exactly.

    With every preactivation on a given piece of φ the equation is linear. It is solved on the pieces of the start, then
    on those of the solution, until the solution lies on the pieces on which it was computed.
    """
    slopes, offsets = slopes_and_offsets(A @ start + z, activation)
    for _ in range(50):
        x = solve(_minus(slopes[:, None] * A), slopes * z + offsets)
        p = A @ x + z
        slopes, offsets = slopes_and_offsets(p, activation)
        if (slopes * p + offsets == x).all():
            return x
    raise ArithmeticError("no active set was found")


def rational_slope(p: Fraction, activation: str, phi0: Fraction) -> Fraction:
    """φ′(p); at a kink, the mean of the one-sided slopes in which the larger one has the weight `phi0`."""
    left = piece(p, activation)
    if left[1] is None or p != left[1]:
        return left[2]
    right = PIECES[activation][PIECES[activation].index(left) + 1]
    low, high = sorted((left[2], right[2]))
    return low + phi0 * (high - low)


def decimal_column(A: np.ndarray, z: np.ndarray, start: np.ndarray, activation: str) -> np.ndarray:
    """The x that solves x = φ(A x + z) to all but eight of the DIGITS, by Newton's method from the start."""
    smooth, x = SMOOTH[activation], start
    for _ in range(60):
        p = A @ x + z
        residual = np.array([smooth.phi(v) for v in p], object) - x
        if max(map(abs, residual)) <= Decimal(f"1e-{DIGITS - 8}") * max(map(abs, x)):
            return x
        slopes = np.array([smooth.slope(v) for v in p], object)
        x = x + solve(_minus(slopes[:, None] * A), residual)
    raise ArithmeticError("Newton's method did not converge")


# --- everything that follows from X -----------------------------------------------------------------------------------


def gradients(P: dict[str, np.ndarray], X: np.ndarray, S: np.ndarray, G_Y: np.ndarray) -> dict[str, np.ndarray]:
    """X, Y, V = S ∘ (Aᵀ V + Cᵀ G_Y) and the gradients of the effective weights, as object arrays."""
    A, G = P["A*"], product(P["C"].T, G_Y)
    V = np.empty_like(X)
    for j in range(X.shape[1]):
        V[:, j] = solve(_minus(S[:, j : j + 1] * A.T), S[:, j] * G[:, j])
    out = {"X": X, "V": V, "Y": product(P["C"], X)}
    out |= {"B": product(V, P["U"].T), "C": product(G_Y, X.T), "U": product(P["B"].T, V)}
    if "D" in P:
        out["Y"], out["U"] = out["Y"] + product(P["D"], P["U"]), out["U"] + product(P["D"].T, G_Y)
        # In fractions in any case: short numbers may lie between two floats, where no error is small enough.
        out["D"] = product(numbers(G_Y, Fraction), numbers(P["U"].T, Fraction))
    if "L" in P:
        return out | {"L": product(V, product(P["R*"].T, X).T), "R": product(X, product(P["L*"].T, V).T)}
    return out | {"A": product(V, X.T)}


class Unrounded(NamedTuple):
    """The arrays of an answer before they are rounded to float64.

    `P` holds the inputs and effective weights, `out` the results with the gradients of the effective weights, both in
    numbers of the given `kind`; `radius` bounds the error of every entry of `out`, and is None where there is none.
    """

    P: dict[str, np.ndarray]
    out: dict[str, np.ndarray]
    kind: Callable[[float], Any]
    radius: Decimal | None
    kink_margin: float
    provenance: str


def digits() -> AbstractContextManager[decimal.Context]:
    """The context in which decimal answers are computed."""
    return decimal.localcontext(decimal.Context(prec=DIGITS, Emin=-999_999, Emax=999_999))


def answer(problem: Problem, G_Y: np.ndarray, phi0: float = 0.0) -> Answer:
    """The exact answer to a problem; `phi0` is the weight of the larger one-sided slope in φ′ at a kink."""
    with digits():
        P, out, _, radius, margin, provenance = unrounded(problem, G_Y, phi0)
        pulled = pullback(as_factors(P), as_factors(out), problem)
        return Answer(rounded(out | by_name(pulled), radius), margin, provenance)


def unrounded(problem: Problem, G_Y: np.ndarray, phi0: float = 0.0) -> Unrounded:
    """The exact answer in fractions, or in decimals, for which the caller opens the context `digits`."""
    if problem.activation in PIECES:
        return _rational(problem, G_Y, Fraction(phi0))
    return _decimal(problem, G_Y)


def _equilibrium(problem: Problem, kind: Any, column: Callable[..., np.ndarray]) -> tuple[dict, np.ndarray, np.ndarray]:
    """The exact inputs, the effective weights among them as A*, L* and R*; X; and the preactivations A X + B U."""
    P = {name: numbers(array, kind) for name, array in problem.arrays.items()}
    P |= {f"{name}*": F for name, F in by_name(effective(as_factors(P), problem)).items()}
    if "L" in P:
        P["A*"] = product(P["L*"], P["R*"].T)
    A, Z = P["A*"], product(P["B"], P["U"])
    X = numbers(guess(A.astype(float), Z.astype(float), problem.activation), kind)
    for j in range(Z.shape[1]):
        X[:, j] = column(A, Z[:, j], X[:, j], problem.activation)
    return P, X, product(A, X) + Z


def _rational(problem: Problem, G_Y: np.ndarray, phi0: Fraction) -> Unrounded:
    phi = problem.activation
    P, X, pre = _equilibrium(problem, Fraction, rational_column)
    S = np.frompyfunc(lambda p: rational_slope(p, phi, phi0), 1, 1)(pre)
    kinks = [edge for _, edge, _, _ in PIECES[phi] if edge is not None]
    margin = min((float(abs(p - kink)) for p in pre.ravel() for kink in kinks), default=np.inf)
    out = gradients(P, X, S, numbers(G_Y, Fraction))
    return Unrounded(P, out, Fraction, None, margin, "rational, verified on its active set")


def _decimal(problem: Problem, G_Y: np.ndarray) -> Unrounded:
    smooth = SMOOTH[problem.activation]
    P, X, pre = _equilibrium(problem, Decimal, decimal_column)
    residual = max(map(abs, (np.frompyfunc(smooth.phi, 1, 1)(pre) - X).ravel()), default=Decimal(0))
    G = numbers(G_Y, Decimal)
    out = gradients(P, X, np.frompyfunc(smooth.slope, 1, 1)(pre), G)
    radius = _radius(P, out, G, residual, activations.get(problem.activation).lipschitz, smooth.curvature)
    provenance = f"decimal, {DIGITS} digits, error proved to be at most {PROVED}"
    return Unrounded(P, out, Decimal, radius, np.inf, provenance)


def _radius(P: dict, out: dict, G_Y: np.ndarray, residual: Decimal, lipschitz: float, curvature: float) -> Decimal:
    """A bound of the error of every entry of `out`.

    ‖δX‖ ≤ r/(1 − κ) for the residual r, ‖δS‖ ≤ c ‖A‖ ‖δX‖ for the Lipschitz constant c of φ′, and
    ‖δV‖₁ ≤ n (‖δS‖ ‖Aᵀ V + G‖ + rounding)/(1 − κ). All other results are sums of products of X, V and data. Each norm
    is bounded by the sum of all magnitudes, which loses about twenty of the DIGITS.
    """
    size = {name: sum(abs(v) for v in M.ravel()) + 1 for name, M in (*out.items(), *P.items()) if M is not out.get("D")}
    G = sum(abs(v) for v in G_Y.ravel()) + 1
    kappa = Decimal(lipschitz) * max((sum(map(abs, row)) for row in P["A*"]), default=0)
    if kappa >= 1:
        raise ValueError("a smooth case must contract in the ∞-norm, or its error is not proved")
    unit = Decimal(10) ** (4 - DIGITS)
    x = (residual + unit * (size["A*"] * size["X"] + size["B"] * size["U"])) / (1 - kappa)
    s = Decimal(curvature) * size["A*"] * x + unit
    v = size["X"] * (s * (size["A*"] * size["V"] + size["C"] * G) + unit * size["V"]) / (1 - kappa)
    every = size["A*"] + size["B"] + size["C"] + size["U"] + size.get("D", 0) + size.get("L", 0) + size.get("R", 0) + G
    return (x * (size["V"] + 1) + v * (size["X"] + 1) + unit * size["X"] * size["V"]) * every**2


def rounded(arrays: dict[str, np.ndarray], radius: Decimal | None) -> Arrays:
    """Each entry rounded to float64; ArithmeticError if an error of `radius` could change the rounding.

    Entries of magnitude up to 1e-30 are exempt from this proof.
    """
    if radius is not None and radius > Decimal(PROVED):
        raise ArithmeticError(f"the error is only proved to be at most {radius:.0e}")
    for name, M in arrays.items():
        proved = [v for v in M.ravel() if isinstance(v, Decimal) and abs(v) > 1e-30]
        if radius is not None and not all(float(v - radius) == float(v + radius) for v in proved):
            raise ArithmeticError(f"the error of {name} is not below the rounding to float64")
    return {name: M.astype(float) for name, M in arrays.items()}
