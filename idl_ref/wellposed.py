"""This module has the Perron root, and gathers what decides well-posedness and what keeps a matrix A well posed."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple, ParamSpec, TypeVar

import numpy as np

from idl_ref import balls, checks
from idl_ref.cycles import cyclic
from idl_ref.minors import PMatrix, unique_relu
from idl_ref.monotone import Monotone, monotone
from idl_ref.sparse import Sparse

__all__ = [
    "Monotone",
    "PMatrix",
    "PerronRoot",
    "monotone",
    "norm_inf",
    "perron_root",
    "project_rows",
    "project_rows_pullback",
    "scale_to_norm",
    "scale_to_norm_pullback",
    "unique_relu",
]

PATIENCE = 32  # Power steps for a sparse A end where so many of them have made the upper bound no smaller.
LEAST = 2.0**-1050  # Power steps keep their entries at this number at least, so that they divide.
SMALLEST = 2.0**-1074  # A product that underflows is wrong by less than this.

P = ParamSpec("P")
T = TypeVar("T")


def _checked(function: Callable[P, T]) -> Callable[P, T]:
    """Return a function of A, and perhaps κ and G, that refuses what is no matrix, and a κ below 0."""
    signature = inspect.signature(function)

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        bound = signature.bind(*args, **kwargs)
        given = bound.arguments
        given |= {name: _matrix(name, M) for name, M in given.items() if name != "kappa"}
        if "kappa" in given:
            checks.number("kappa", given["kappa"], 0.0)
        if "G" in given:
            checks.shape("G", given["G"], given["A"].shape, "that of A")
        return function(*bound.args, **bound.kwargs)

    return call


def _matrix(name: str, value: Any) -> np.ndarray:
    """Return a matrix in float32 or float64; a complex one is returned as it is, for the complex step."""
    if type(value) is not np.ndarray or value.dtype.kind != "c":
        value = checks.real_array(name, value)
        value = checks.real_array(name, value, checks.float_dtype(value))
    checks.matrix(name, value, "(n, k)")
    return value


norm_inf = _checked(balls.norm_inf)
scale_to_norm, scale_to_norm_pullback = _checked(balls.scale_to_norm), _checked(balls.scale_to_norm_pullback)
project_rows, project_rows_pullback = _checked(balls.project_rows), _checked(balls.project_rows_pullback)


class PerronRoot(NamedTuple):
    """Two bounds of a Perron root: lower ≤ λ_pf(|A|) ≤ upper.

    Attributes
    ----------
    lower, upper : float
        The bounds; (NaN, inf) if A is not finite.
    """

    lower: float
    upper: float


def perron_root(
    A: np.ndarray | Sparse | tuple[np.ndarray, np.ndarray], rtol: float = 1e-6, max_iter: int = 2000
) -> PerronRoot:
    """Return a lower and an upper bound of the Perron root of |A|, its largest eigenvalue.

    For every z > 0, Collatz and Wielandt's bounds hold: minᵢ (|A| z)ᵢ / zᵢ ≤ λ_pf(|A|) ≤ maxᵢ (|A| z)ᵢ / zᵢ.
    The equation X = φ(A X + Z) is well posed if λ_pf(|A|) < 1/Lip(φ), whatever ‖A‖∞ is.

    Parameters
    ----------
    A : (n, n) array or Sparse, or a pair (L, R) of (n, r) arrays
        For a pair, the bounds are those of |L||R|ᵀ, found in r dimensions. Because |L||R|ᵀ ≥ |L Rᵀ|, only `upper` then
        bounds λ_pf(|L Rᵀ|).
    rtol : float
        The iteration stops when upper − lower ≤ rtol · upper.
    max_iter : int
        Largest number of power steps.

    Returns
    -------
    PerronRoot
        The bounds lower and upper, which also hold if max_iter is reached.

    Raises
    ------
    ValueError, TypeError
        An A that is neither a square matrix of real numbers nor such a pair.

    Notes
    -----
    The Perron root of a reducible matrix is the largest one of its irreducible blocks, which are the strongly connected
    components of its graph. For each block, power steps with |A| + σI converge. A sparse A is taken as a whole, so that
    its bounds may stay apart.
    Cost: O(n²) operations to find the blocks of most matrices, and 2 n² flops per power step.
    Source: Seneta, Non-negative Matrices and Markov Chains, chapter 1.

    Examples
    --------
    >>> root = perron_root(np.array([[0.0, 2.0], [0.125, 0.0]]))
    >>> root.lower <= 0.5 <= root.upper, round(root.upper, 5)
    (True, 0.5)
    >>> perron_root(np.triu(np.ones((4, 4)), 1))
    PerronRoot(lower=0.0, upper=0.0)
    """
    M: Any
    lost: Any = 0.0  # the most that underflow may have taken from each entry of M
    if isinstance(A, Sparse):
        M = abs(A).astype(np.float64)
    elif isinstance(A, tuple):
        L, R = (np.abs(checks.real_array(name, F, np.float64)) for name, F in zip("LR", A, strict=True))
        M = R.T @ L
        lost = (len(L) + 2) * float(np.finfo(np.float64).tiny) * ((R.T != 0).astype(float) @ (L != 0) > 0)
    else:
        M = np.abs(checks.real_array("A", A, np.float64))
    checks.matrix("A", M, "(n, n)")
    checks.shape("A", M, (len(M), len(M)), "square")
    if not np.isfinite(M.data if isinstance(M, Sparse) else M).all():
        return PerronRoot(np.nan, np.inf)
    if isinstance(M, Sparse):
        roots = [_power_steps(M, rtol, max_iter, patience=PATIENCE)] if M.entries else []
    else:
        above = M + lost
        roots = _of_blocks(above, rtol, max_iter)
        if not np.array_equal(above, M):  # What was lost may be a part of a cycle, which counts for the upper bound.
            lower = max((r.lower for r in _of_blocks(M, rtol, max_iter)), default=0.0)
            roots = [PerronRoot(min(r.lower, lower), r.upper) for r in roots]
    # Outwards by the rounding of M = |R|ᵀ|L|, of M z and of the ratio: all terms are nonnegative, and none cancel.
    terms = len(M) + 2 + (L.shape[0] if isinstance(A, tuple) else 0)
    gamma = terms * float(np.finfo(np.float64).eps)
    lower = max((r.lower for r in roots), default=0.0) * (1 - gamma)
    return PerronRoot(lower, max((r.upper for r in roots), default=0.0) * (1 + gamma))


def _of_blocks(M: np.ndarray, rtol: float, max_iter: int) -> list[PerronRoot]:
    """Return the bounds of the Perron roots of the irreducible blocks of a dense M ≥ 0."""
    return [_power_steps(M[np.ix_(block, block)], rtol, max_iter) for block in cyclic(M > 0)]


def _power_steps(M: Any, rtol: float, max_iter: int, patience: int | None = None) -> PerronRoot:
    """Take power steps z ← (M + σI) z for an M ≥ 0, and return the best bounds that any z > 0 gave.

    They meet if M is irreducible. For other matrices, the upper bound alone comes near to the root; the steps end when
    it has become smaller by no more than rtol in so many steps as `patience` says.
    """
    z = np.ones(len(M))
    lower, upper, before = 0.0, np.inf, np.inf
    for step in range(max_iter):
        if patience and step % patience == 0:
            if not upper < (1 - rtol) * before and step:
                break
            before = upper
        with np.errstate(over="ignore"):
            Mz = M @ z
        if not np.isfinite(Mz).all():  # After an overflow, the bounds that were found before remain valid.
            break
        lost = len(z) * SMALLEST
        with np.errstate(over="ignore"):
            lower = max(lower, float(((Mz - lost) / z).min()))
            upper = min(upper, float(((Mz + lost) / z).max()))
        if upper - lower <= rtol * upper:
            break
        z = Mz + 0.5 * upper * z  # The shift σ = upper/2 keeps z > 0, and makes a cyclic M aperiodic.
        z = np.maximum(z / z.max(), LEAST)
    return PerronRoot(lower, upper)
