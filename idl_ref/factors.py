"""This module represents A as a tuple of factors, (A,) or (L, Rᵀ) with A = L Rᵀ, whose product is never formed."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from idl_ref import checks
from idl_ref.sparse import Sparse

__all__ = ["apply", "gradients", "norm_inf", "transpose"]

# A factor is an array. A sparse A, the only factor of its tuple, is a `Sparse`, which has the same products.
Factors = tuple[Any, ...]
STARTS = ("X0", "V0")  # The starts of the iterations, which may be None.


def check_factors(A: Any) -> Factors:
    """Convert what a user passes for A, a square matrix or a pair (L, R) with A = L Rᵀ, to factors, after checks."""
    if isinstance(A, tuple):
        if len(A) != 2:
            raise ValueError(f"A must be a matrix or a pair (L, R) with A = L Rᵀ; got a tuple of length {len(A)}.")
        L, R = checks.real_array("L", A[0]), checks.real_array("R", A[1])
        checks.matrix("L", L, "(n, r)")
        checks.shape("R", R, L.shape, "that of L, because A = L Rᵀ is square")
        return L, R.T
    A = from_scipy(A) if isinstance(A, Sparse) or hasattr(A, "tocsr") else checks.real_array("A", A)
    if A.ndim != 2 or A.shape[0] != A.shape[1]:
        checks.matrix("A", A, "(n, n)")
        checks.shape("A", A, (A.shape[0], A.shape[0]), "square")
    return (A,)


def from_scipy(A: Any) -> Sparse:
    """Return a sparse matrix of SciPy's in canonical form; repeated entries are added up, and zeros are kept.

    A `Sparse` is returned as it is.
    """
    if isinstance(A, Sparse):
        return A
    if len(A.shape) != 2:
        raise ValueError(f"A must have shape (n, n); got a sparse array of shape {A.shape}.")
    A = A.tocsr()
    if not A.has_canonical_format:
        A = A.copy()
        A.sum_duplicates()
    data = checks.real_array("A", A.data)
    return Sparse(data.astype(checks.float_dtype(data), copy=False), A.indices, A.indptr, A.shape)


def is_sparse(factors: Factors) -> bool:
    """Tell whether A is held by the entries of its pattern."""
    return isinstance(factors[0], Sparse)


def row(F: Any, i: int, known: slice) -> tuple[np.ndarray, Any]:
    """Return the entries of a row of F as a (1, k) matrix, and the columns in which they stand.

    These columns are `known`, which must have all nonzero entries of the row, or those of the pattern of a sparse F.
    """
    if not isinstance(F, Sparse):
        return F[i : i + 1, known], known
    entries, columns = F.row(i)
    nonzero = entries[0] != 0  # A zero of the pattern may stand where an entry is not known.
    return entries[:, nonzero], columns[nonzero]


def longest(F: Any) -> int:
    """Return the largest number of terms that a product with F or with its transpose adds up, but for known zeros."""
    return F.longest if isinstance(F, Sparse) else F.shape[1]


def is_finite(F: Any) -> bool:
    """Tell whether all entries of a factor are finite."""
    return bool(np.isfinite(F.data if isinstance(F, Sparse) else F).all())


def scaled(F: Any, c: np.ndarray) -> Any:
    """Return diag(c) F.   c (n, 1)"""
    return F.with_data(F.data * c[F.rows, 0]) if isinstance(F, Sparse) else c * F


def check_equation(A: Any, **columns: Any) -> tuple[Factors, list[Any]]:
    """Return A as factors, and the (n, m) arrays that belong to the same equation, all checked and in one dtype.

    The first of these arrays determines m. The start of the iteration, X0 or V0, may be None. The dtype is float32 if
    all arrays are float32, else float64.
    """
    if _fits(A, columns):
        return (A,), list(columns.values())
    factors = check_factors(A)
    given = {}
    for name, value in columns.items():
        if value is not None or name not in STARTS:
            given[name] = checks.real_array(name, value)
    dtype = checks.float_dtype(*factors, *given.values())
    first = next(iter(given))
    leader, n = given[first], factors[0].shape[0]
    if leader.ndim != 2 or leader.shape[0] != n:
        checks.matrix(first, leader, "(n, m)")
        checks.shape(first, leader, (n, leader.shape[1]), "one row per row of A")
    for name, array in given.items():
        if array.shape != leader.shape:
            checks.shape(name, array, leader.shape, f"that of {first}")
        if array.dtype != dtype:
            given[name] = checks.real_array(name, array, dtype)
    if factors[0].dtype != dtype or factors[-1].dtype != dtype:
        with np.errstate(over="ignore"):
            factors = tuple(
                [F.astype(dtype) if isinstance(F, Sparse) else checks.real_array("A", F, dtype) for F in factors]
            )
    return factors, [given.get(name) for name in columns]


def _fits(A: Any, columns: dict[str, Any]) -> bool:
    """Tell whether A and the columns of an equation fit together as they are, so that nothing needs to be converted."""
    if type(A) is not np.ndarray or A.dtype not in checks.FLOAT_DTYPES or A.ndim != 2:
        return False
    n, dtype, shape = len(A), A.dtype, None
    for name, array in columns.items():
        if type(array) is np.ndarray and array.dtype is dtype:
            shape = shape or array.shape
            if array.shape != shape:
                return False
        elif array is not None or name not in STARTS:
            return False
    return A.shape == (n, n) and shape is not None and len(shape) == 2 and shape[0] == n


def apply(factors: Factors, X: np.ndarray) -> np.ndarray:
    """Return F₁ F₂ … X, computed from right to left.   X (n, m) -> (n, m)"""
    for F in reversed(factors):
        X = F @ X
    return X


def transpose(factors: Factors) -> Factors:
    """Return the factors of (F₁ F₂ …)ᵀ = … F₂ᵀ F₁ᵀ, as views."""
    return tuple(F.T for F in reversed(factors))


def gradients(factors: Factors, X: np.ndarray, V: np.ndarray) -> Factors:
    """Return ∂Fᵢ = (F₁ … Fᵢ₋₁)ᵀ V (Fᵢ₊₁ … X)ᵀ for every factor; for (A,) this is ∂A = V Xᵀ.   X, V (n, m)

    For a sparse A, it is V Xᵀ on the pattern of A.
    """
    if is_sparse(factors):
        return (factors[0].gradient(V, X),)
    return tuple(apply(transpose(factors[:i]), V) @ apply(factors[i + 1 :], X).T for i in range(len(factors)))


def row_sums(factors: Factors) -> np.ndarray:
    """Return |F₁| |F₂| … 1 in float64: the absolute row sums of A, or upper bounds of them for a product.   -> (n,)"""
    ones = np.ones(factors[-1].shape[1])
    return apply(tuple(np.abs(F).astype(np.float64, copy=False) for F in factors), ones)


def norm_inf(factors: Factors) -> float:
    """Return the largest entry of |F₁| |F₂| … 1: ‖A‖∞ for one factor, and an upper bound of ‖A‖∞ for a product."""
    with np.errstate(over="ignore"):  # Sums that overflow are a norm of inf, which shows no contraction.
        return float(row_sums(factors).max(initial=0.0))


def triangle(factors: Factors) -> Literal["upper", "lower"] | None:
    """Tell which strict triangle holds all nonzero entries of A; None if neither does, or if A is a product."""
    if len(factors) > 1:
        return None
    (A,) = factors
    if isinstance(A, Sparse):
        above = (A.indices - A.rows)[A.data != 0]
        return "upper" if (above > 0).all() else "lower" if (above < 0).all() else None
    # For most matrices, the corners and the first or last row decide in O(n) operations, without all n² entries.
    if A.size and A.item(-1, 0) and A.item(0, -1):
        return None
    if not A[-1:].any() and not np.tril(A).any():
        return "upper"
    if not A[:1].any() and not np.triu(A).any():
        return "lower"
    return None
