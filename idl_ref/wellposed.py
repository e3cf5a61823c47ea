"""Well-posedness: norms, the Perron root, and what keeps A well posed — each map with its exact pullback.

A pullback takes G = ∂ℓ/∂(result) to ∂ℓ/∂(argument).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from idl_ref import checks

__all__ = [
    "PerronRoot",
    "norm_inf",
    "perron_root",
    "project_rows",
    "project_rows_pullback",
    "scale_to_norm",
    "scale_to_norm_pullback",
]


class PerronRoot(NamedTuple):
    """lower ≤ λ_pf(|A|) ≤ upper."""

    lower: float
    upper: float


def magnitude(A: np.ndarray) -> np.ndarray:
    """|A| in float64. For complex A the branch of its real part, analytic, as the complex step needs it."""
    if A.dtype.kind == "c":
        return np.where(A.real >= 0, A, -A)
    return np.abs(A).astype(np.float64, copy=False)


def norm_inf(A: np.ndarray) -> float:
    """‖A‖∞ = maxᵢ Σⱼ |A_ij|, the largest absolute row sum, in float64.

    Parameters
    ----------
    A : (n, k) array

    Returns
    -------
    float

    Examples
    --------
    >>> norm_inf(np.array([[1.0, -2.0], [0.5, 0.0]]))
    3.0
    """
    return float(np.abs(A).sum(axis=1, dtype=np.float64).max(initial=0.0))


def perron_root(A: np.ndarray | tuple[np.ndarray, np.ndarray], rtol: float = 1e-6, max_iter: int = 2000) -> PerronRoot:
    """The Perron root of |A|, between two bounds that both hold.

    For every z > 0:  minᵢ (|A| z)ᵢ / zᵢ  ≤  λ_pf(|A|)  ≤  maxᵢ (|A| z)ᵢ / zᵢ   (Collatz and Wielandt).
    A matrix whose Perron root is below 1/Lip(φ) is well posed, whatever its norm.

    Parameters
    ----------
    A : (n, n) array, or (L, R)
        For a pair, the root of |L||R|ᵀ ≥ |L Rᵀ|, found in r dimensions: only `upper` then bounds λ_pf(|L Rᵀ|).
    rtol : float
        Stop when upper − lower ≤ rtol · upper.
    max_iter : int
        Largest number of power steps.

    Returns
    -------
    PerronRoot
        lower, upper. They hold even when the power steps run out.

    Notes
    -----
    The root of a reducible matrix is the largest root of its irreducible blocks, the strongly connected components of
    its graph; on each, power steps with |A| + σI converge. Cost: n³ log n for the blocks, n² per step.
    Source: Seneta, Non-negative Matrices and Markov Chains, chapter 1.

    Examples
    --------
    >>> root = perron_root(np.array([[0.0, 2.0], [0.125, 0.0]]))
    >>> root.lower <= 0.5 <= root.upper, round(root.upper, 5)
    (True, 0.5)
    >>> perron_root(np.triu(np.ones((4, 4)), 1))
    PerronRoot(lower=0.0, upper=0.0)
    """
    if isinstance(A, tuple):
        L, R = (np.abs(checks.real_array(name, F, np.float64)) for name, F in zip("LR", A, strict=True))
        M = R.T @ L
    else:
        M = np.abs(checks.real_array("A", A, np.float64))
    checks.matrix("A", M, "(n, n)")
    checks.shape("A", M, (len(M), len(M)), "square")
    if not np.isfinite(M).all():
        return PerronRoot(np.nan, np.inf)
    roots = [_irreducible_root(M[np.ix_(block, block)], rtol, max_iter) for block in _blocks(M)]
    # Outwards by the rounding of M = |R|ᵀ|L|, of M z and of the ratio: all terms are nonnegative, and none cancel.
    terms = len(M) + 2 + (L.shape[0] if isinstance(A, tuple) else 0)
    gamma = terms * float(np.finfo(np.float64).eps)
    lower = max((r.lower for r in roots), default=0.0) * (1 - gamma)
    return PerronRoot(lower, max((r.upper for r in roots), default=0.0) * (1 + gamma))


def _blocks(M: np.ndarray) -> list[np.ndarray]:
    """Strongly connected components that hold a cycle.   M (n, n) ≥ 0 -> index arrays"""
    reach = (M > 0).astype(np.float32)
    for _ in range(max(len(M) - 1, 1).bit_length()):  # paths of length ≤ 1, 2, 4, …
        longer = ((reach + reach @ reach) > 0).astype(np.float32)
        if np.array_equal(longer, reach):
            break
        reach = longer
    mutual = (reach * reach.T) > 0
    cyclic = np.flatnonzero(mutual.diagonal())
    firsts = [i for i in cyclic if mutual[i].argmax() == i]
    return [np.flatnonzero(mutual[i]) for i in firsts]


def _irreducible_root(M: np.ndarray, rtol: float, max_iter: int) -> PerronRoot:
    """Power steps z ← (M + σI) z on an irreducible M ≥ 0, with the bracket of each z."""
    z = np.ones(len(M))
    lower, upper = 0.0, np.inf
    for _ in range(max_iter):
        with np.errstate(over="ignore"):
            Mz = M @ z
        if not np.isfinite(Mz).all():  # overflow: the bracket so far holds
            break
        ratio = Mz / z
        lower, upper = max(lower, float(ratio.min())), min(upper, float(ratio.max()))
        if upper - lower <= rtol * upper:
            break
        z = Mz + 0.5 * upper * z  # σ = upper/2 keeps z > 0 and breaks cycles
        z /= z.max()
        if not z.min() > 0:  # underflow, in a very badly scaled M: the bracket so far holds
            break
    return PerronRoot(lower, upper)


def scale_to_norm(A: np.ndarray, kappa: float) -> np.ndarray:
    """κ A / max(κ, ‖A‖∞): one scale for the whole matrix, and A itself where ‖A‖∞ ≤ κ.

    Parameters
    ----------
    A : (n, k) array
    kappa : float
        κ ≥ 0.

    Returns
    -------
    (n, k) array
        With ‖·‖∞ ≤ κ, rounding included.

    Notes
    -----
    Cost: 2 n k flops.

    Examples
    --------
    >>> print(scale_to_norm(np.array([[1.0, -1.0], [0.0, 0.5]]), 0.5).round(3))
    [[ 0.25  -0.25 ]
     [ 0.     0.125]]
    """
    sums = _row_sums(A)
    nu = sums[sums.real.argmax()]
    if np.isinf(nu.real) and np.isfinite(A).all():  # ‖A‖∞ is no number of float64, but that of A divided by max |A| is
        return scale_to_norm(A / np.abs(A).max(), kappa)
    return A * _scale(A, nu, kappa) if nu.real > kappa else A


def scale_to_norm_pullback(A: np.ndarray, kappa: float, G: np.ndarray) -> np.ndarray:
    """(κ/ν)(G − (⟨G, A⟩/ν) s) with ν = ‖A‖∞ > κ and s = sign(A) on the row that attains ν, 0 elsewhere; else G.

    Parameters
    ----------
    A : (n, k) array
    kappa : float
    G : (n, k) array
        ∂ℓ/∂(scaled A).

    Returns
    -------
    (n, k) array
        ∂ℓ/∂A. It has no part along A, where the scaled A does not change: ⟨∂ℓ/∂A, A⟩ = 0.

    Notes
    -----
    Derived in the page on theory. Cost: 4 n k flops.

    Examples
    --------
    >>> A, G = np.array([[1.0, -1.0], [0.0, 0.5]]), np.ones((2, 2))
    >>> float(np.vdot(scale_to_norm_pullback(A, 0.5, G), A).round(12))
    0.0
    """
    sums = _row_sums(A)
    row = sums.argmax()
    nu = sums[row]
    if np.isinf(nu) and np.isfinite(A).all():  # κ A / ‖A‖∞ does not change when A is divided by a number
        largest = np.abs(A).max()
        return scale_to_norm_pullback(A / largest, kappa, G) / largest
    if not nu > kappa:
        return G
    result = G.copy()
    result[row] -= (np.vdot(G, A) / nu) * np.sign(A[row])
    result *= _scale(A, nu, kappa)
    return result


def _row_sums(A: np.ndarray) -> np.ndarray:
    """Σⱼ |A_ij| in float64; inf where it is no number of float64.   -> (n,)"""
    with np.errstate(over="ignore"):
        return magnitude(A).sum(axis=1)


def _scale(A: np.ndarray, nu: float, kappa: float) -> np.number:
    """κ/ν in the dtype of A, a few roundings smaller: the scaled norm must not come out above κ."""
    return A.dtype.type(kappa / nu * (1 - 4 * float(np.finfo(A.dtype).eps)))


def project_rows(A: np.ndarray, kappa: float) -> np.ndarray:
    """Each row's nearest point, in the Euclidean norm, with Σⱼ |A_ij| ≤ κ.

    Rows inside the ball stay as they are, bit for bit. Outside, entries shrink by θ and stop at 0:
    sign(a) max(|a| − θ, 0), with θ such that the row sum is κ.

    Parameters
    ----------
    A : (n, k) array
    kappa : float
        κ ≥ 0.

    Returns
    -------
    (n, k) array
        With ‖·‖∞ ≤ κ, rounding included.

    Notes
    -----
    Cost: a sort per row, n k log k. Source: Duchi et al., Efficient projections onto the ℓ1-ball, ICML 2008.

    Examples
    --------
    >>> print(project_rows(np.array([[1.0, -0.75], [0.0, 0.25]]), 0.5).round(3))
    [[ 0.375 -0.125]
     [ 0.     0.25 ]]
    """
    size, outside, theta = _thresholds(A, kappa)
    shrunk = np.where(size.real > theta.real, size - theta, 0)
    # Rounding must not leave a row outside: then a second projection would move it again.
    slack = 2 * max(float(np.finfo(A.dtype).eps), _margin(A))
    total = shrunk.sum(axis=1, keepdims=True)
    over = total.real > kappa * (1 - slack)
    shrunk = shrunk * np.where(over, kappa * (1 - slack) / np.where(over, total, 1), 1)
    result = A.copy()
    result[outside] = np.sign(A[outside].real) * shrunk
    return result


def project_rows_pullback(A: np.ndarray, kappa: float, G: np.ndarray) -> np.ndarray:
    """Rows inside the ball: G. Outside: G_S − σ_S (σ_Sᵀ G_S)/|S| on the support S, σ = sign(a), and 0 off it.

    Parameters
    ----------
    A : (n, k) array
    kappa : float
    G : (n, k) array
        ∂ℓ/∂(projected A).

    Returns
    -------
    (n, k) array
        ∂ℓ/∂A.

    Notes
    -----
    Cost: a sort per row, n k log k.

    Examples
    --------
    >>> A, G = np.array([[1.0, -0.75], [0.0, 0.25]]), np.array([[1.0, 0.0], [2.0, 3.0]])
    >>> print(project_rows_pullback(A, 0.5, G))
    [[0.5 0.5]
     [2.  3. ]]
    """
    size, outside, theta = _thresholds(A, kappa)
    support = size > theta
    sigma = np.where(support, np.sign(A[outside]), 0)
    along = (sigma * G[outside]).sum(axis=1, keepdims=True) / np.maximum(support.sum(axis=1, keepdims=True), 1)
    result = G.copy()
    result[outside] = np.where(support, G[outside], 0) - sigma * along
    return result


def _thresholds(A: np.ndarray, kappa: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """|a| − t, which rows lie outside the ball, and θ with Σⱼ max(|a_j| − t − θ, 0) = κ, for t the largest |a_j|.

    The difference from the largest entry is small where κ is felt, so that κ is not lost beside large entries.
    -> (k, n), (rows of A,), (k, 1)
    """
    size = magnitude(A)
    outside = _outside(A, size, kappa)
    size = size[outside]
    size = size - np.take_along_axis(size, size.real.argmax(axis=1)[:, None], axis=1) if size.size else size
    descending = -np.sort(-size, axis=1)
    with np.errstate(over="ignore"):  # the sum of differences of very large entries; those stay 0 in any case
        excess = np.cumsum(descending, axis=1) - kappa
    count = np.arange(1, A.shape[1] + 1)
    support = np.maximum((descending.real * count > excess.real).sum(axis=1, keepdims=True), 1)  # entries that stay
    return size, outside, np.take_along_axis(excess, support - 1, axis=1) / support


def _margin(A: np.ndarray) -> float:
    """How far a computed row sum of |A| can be from the exact one, relative to it."""
    return A.shape[1] * float(np.finfo(np.float64).eps)


def _outside(A: np.ndarray, size: np.ndarray, kappa: float) -> np.ndarray:
    """Which rows have Σⱼ |A_ij| > κ, decided exactly where rounding could decide.   -> (n,) bool"""
    sums = _row_sums(A).real
    outside = sums > kappa
    for i in np.flatnonzero(np.abs(sums - kappa) <= _margin(A) * kappa):
        outside[i] = math.fsum([*size[i].real, -kappa]) > 0  # fsum rounds the exact sum, which keeps its sign
    return outside
