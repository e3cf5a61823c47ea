"""A as a tuple of factors, (A,) or (L, Rt) with A = L Rt: applied one after the other, never multiplied out."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from idl_ref import checks

__all__ = ["apply", "gradients", "norm_inf", "transpose"]

Factors = tuple[np.ndarray, ...]


def check_factors(A: Any) -> Factors:
    """What a user passes for A, a square matrix or a pair (L, R) with A = L Rᵀ, as factors."""
    if isinstance(A, tuple):
        if len(A) != 2:
            raise ValueError(f"A must be a matrix or a pair (L, R) with A = L Rᵀ; got a tuple of {len(A)}.")
        L, R = checks.real_array("L", A[0]), checks.real_array("R", A[1])
        checks.matrix("L", L, "(n, r)")
        checks.shape("R", R, L.shape, "that of L, because A = L Rᵀ is square")
        return L, R.T
    A = checks.real_array("A", A)
    checks.matrix("A", A, "(n, n)")
    checks.shape("A", A, (A.shape[0], A.shape[0]), "square")
    return (A,)


def check_equation(A: Any, **columns: Any) -> tuple[Factors, list[Any]]:
    """A as factors, and the (n, m) arrays that go with it, all in one dtype; a start, X0 or V0, may be None.

    The first array sets m. float32 if everything is, else float64.
    """
    factors = check_factors(A)
    given = {}
    for name, value in columns.items():
        if value is not None or name not in ("X0", "V0"):
            given[name] = checks.real_array(name, value)
    dtype = checks.float_dtype(*factors, *given.values())
    first = next(iter(given))
    leader = given[first]
    checks.matrix(first, leader, "(n, m)")
    checks.shape(first, leader, (factors[0].shape[0], leader.shape[1]), "one row per row of A")
    for name, array in given.items():
        checks.shape(name, array, leader.shape, f"that of {first}")
    factors = tuple([checks.real_array("A", F, dtype) for F in factors])
    return factors, [checks.real_array(name, given[name], dtype) if name in given else None for name in columns]


def apply(factors: Factors, X: np.ndarray) -> np.ndarray:
    """F₁ F₂ … X.   X (n, m) -> (n, m)."""
    for F in reversed(factors):
        X = F @ X
    return X


def transpose(factors: Factors) -> Factors:
    """(F₁ F₂ …)ᵀ = … F₂ᵀ F₁ᵀ, as views."""
    return tuple(F.T for F in reversed(factors))


def gradients(factors: Factors, X: np.ndarray, V: np.ndarray) -> Factors:
    """∂Fᵢ = (F₁ … Fᵢ₋₁)ᵀ V (Fᵢ₊₁ … X)ᵀ: for (A,) it is V Xᵀ.   X, V (n, m) -> the shapes of the factors."""
    return tuple(apply(transpose(factors[:i]), V) @ apply(factors[i + 1 :], X).T for i in range(len(factors)))


def row_sums(factors: Factors) -> np.ndarray:
    """|F₁| |F₂| … 1, in float64: the absolute row sums of A; for a product, an upper bound of them.   -> (n,)"""
    ones = np.ones(factors[-1].shape[1])
    return apply(tuple(np.abs(F).astype(np.float64, copy=False) for F in factors), ones)


def norm_inf(factors: Factors) -> float:
    """max |F₁| |F₂| … 1 ≥ ‖A‖∞, with equality for one factor."""
    return float(row_sums(factors).max(initial=0.0))


def triangle(factors: Factors) -> Literal["upper", "lower"] | None:
    """Which strict triangle holds all of A, if one does; a product of factors is never taken for one."""
    if len(factors) > 1:
        return None
    (A,) = factors
    # The corners and the first and last row decide nearly always: O(n) before O(n²).
    if A.size and A[-1, 0] != 0 and A[0, -1] != 0:
        return None
    if not A[-1:].any() and not np.tril(A).any():
        return "upper"
    if not A[:1].any() and not np.triu(A).any():
        return "lower"
    return None
