"""This module has what decides well-posedness, norms and the Perron root, and maps that keep A well posed.

Each map has an exact pullback, which takes G = ∂ℓ/∂(result) to ∂ℓ/∂(argument).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from idl_ref import checks
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


class PerronRoot(NamedTuple):
    """Two bounds of a Perron root: lower ≤ λ_pf(|A|) ≤ upper.

    Attributes
    ----------
    lower, upper : float
        The bounds; (NaN, inf) if A is not finite.
    """

    lower: float
    upper: float


def magnitude(A: np.ndarray) -> np.ndarray:
    """Return |A| in float64. For complex A, return A where its real part is ≥ 0, else −A, for the complex step."""
    if A.dtype.kind == "c":
        return np.where(A.real >= 0, A, -A)
    return np.abs(A).astype(np.float64, copy=False)


def norm_inf(A: np.ndarray) -> float:
    """Return ‖A‖∞ = maxᵢ Σⱼ |A_ij|, the largest absolute row sum, computed in float64.

    Parameters
    ----------
    A : (n, k) array
        A real or complex matrix.

    Returns
    -------
    float
        ‖A‖∞, and 0 for an empty matrix.

    Notes
    -----
    Cost: n k flops.

    Examples
    --------
    >>> norm_inf(np.array([[1.0, -2.0], [0.5, 0.0]]))
    3.0
    """
    return float(np.abs(A).sum(axis=1, dtype=np.float64).max(initial=0.0))


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


def scale_to_norm(A: np.ndarray, kappa: float) -> np.ndarray:
    """Return κ A / max(κ, ‖A‖∞), which scales the whole matrix by one number, and is A itself if ‖A‖∞ ≤ κ.

    Parameters
    ----------
    A : (n, k) array
        The matrix to scale.
    kappa : float
        The largest ∞-norm κ ≥ 0 that the result may have.

    Returns
    -------
    (n, k) array
        A matrix whose ∞-norm is at most κ, including rounding.

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
    if np.isinf(nu.real) and np.isfinite(A).all():  # The sum overflows, but not that of A / max |A|.
        return scale_to_norm(A / np.abs(A).max(), kappa)
    return A * _scale(A, nu, kappa) if nu.real > kappa else A


def scale_to_norm_pullback(A: np.ndarray, kappa: float, G: np.ndarray) -> np.ndarray:
    """Return the pullback of `scale_to_norm`: (κ/ν)(G − (⟨G, A⟩/ν) s) if ν = ‖A‖∞ > κ, else G.

    The matrix s is sign(A) on the row that attains ν, and 0 on all other rows. For κ = 0, the pullback is 0.

    Parameters
    ----------
    A : (n, k) array
        The argument of `scale_to_norm`.
    kappa : float
        The κ of `scale_to_norm`.
    G : (n, k) array
        ∂ℓ/∂(scaled A).

    Returns
    -------
    (n, k) array
        ∂ℓ/∂A. If ν > κ, it is orthogonal to A, ⟨∂ℓ/∂A, A⟩ = 0, because the scaled A does not change when A is
        multiplied by a number.

    Notes
    -----
    The page on theory in the documentation derives this formula. Cost: 4 n k flops.

    Examples
    --------
    >>> A, G = np.array([[1.0, -1.0], [0.0, 0.5]]), np.ones((2, 2))
    >>> float(np.vdot(scale_to_norm_pullback(A, 0.5, G), A).round(12))
    0.0
    """
    sums = _row_sums(A)
    row = sums.argmax()
    nu = sums[row]
    if kappa == 0:  # The scaled A is 0 for every A.
        return np.zeros_like(G)
    if not nu > kappa:
        return G
    if np.isinf(nu) and np.isfinite(A).all():  # κ A / ‖A‖∞ is the same for a multiple of A.
        largest = np.abs(A).max()
        return scale_to_norm_pullback(A / largest, kappa, G) / largest
    result = G.copy()
    result[row] -= ((G * A).sum() / nu) * np.sign(A[row])
    result *= _scale(A, nu, kappa)
    return result


def _row_sums(A: np.ndarray) -> np.ndarray:
    """Return Σⱼ |A_ij| in float64, inf where the sum overflows.   A (n, k) -> (n,)"""
    size = magnitude(A)
    if A.dtype == np.float32:  # The sum cannot overflow.
        return np.add.reduce(size, axis=1)
    with np.errstate(over="ignore"):
        if (
            size.dtype.kind == "c"
        ):  # NumPy adds complex numbers in another order; the real parts decide which row is taken.
            return size.real.sum(axis=1) + 1j * size.imag.sum(axis=1)
        return size.sum(axis=1)


def _scale(A: np.ndarray, nu: float, kappa: float) -> np.number:
    """Return κ/ν in the dtype of A, reduced by a few units of rounding so that the scaled norm does not exceed κ."""
    return A.dtype.type(kappa / nu * (1 - 4 * float(np.finfo(A.dtype).eps)))


def project_rows(A: np.ndarray, kappa: float) -> np.ndarray:
    """Project each row on the ℓ1 ball of radius κ: return the nearest rows, in the Euclidean norm, with Σⱼ |A_ij| ≤ κ.

    A row inside the ball does not change, not even by rounding. A row a outside the ball becomes
    sign(a) max(|a| − θ, 0), where θ is the number for which the absolute row sum is κ.

    Parameters
    ----------
    A : (n, k) array
        The matrix whose rows are projected.
    kappa : float
        The radius κ ≥ 0.

    Returns
    -------
    (n, k) array
        A matrix whose ∞-norm is at most κ, including rounding.

    Notes
    -----
    Cost: each row is sorted, O(n k log k) operations.
    Source: Duchi et al., Efficient projections onto the ℓ1-ball for learning in high dimensions, ICML 2008.

    Examples
    --------
    >>> print(project_rows(np.array([[1.0, -0.75], [0.0, 0.25]]), 0.5).round(3))
    [[ 0.375 -0.125]
     [ 0.     0.25 ]]
    """
    size, outside, theta = _thresholds(A, kappa)
    shrunk = np.where(size.real > theta.real, size - theta, 0)
    # Rounding must not leave a row outside the ball, because a second projection would then change it again.
    slack = 2 * max(float(np.finfo(A.dtype).eps), _margin(A))
    total = shrunk.sum(axis=1, keepdims=True)
    over = total.real > kappa * (1 - slack)
    shrunk = shrunk * np.where(over, kappa * (1 - slack) / np.where(over, total, 1), 1)
    result = A.copy()
    result[outside] = np.sign(A[outside].real) * shrunk
    return result


def project_rows_pullback(A: np.ndarray, kappa: float, G: np.ndarray) -> np.ndarray:
    """Return the pullback of `project_rows`.

    For a row inside the ball, the pullback is the row of G. For a row a outside the ball, let S be the support of its
    projection and σ = sign(a). The pullback is G_S − σ_S (σ_Sᵀ G_S)/|S| on S, and 0 elsewhere. For κ = 0, it is 0.

    Parameters
    ----------
    A : (n, k) array
        The argument of `project_rows`.
    kappa : float
        The κ of `project_rows`.
    G : (n, k) array
        ∂ℓ/∂(projected A).

    Returns
    -------
    (n, k) array
        ∂ℓ/∂A.

    Notes
    -----
    Cost: each row is sorted, O(n k log k) operations. Source: the derivative of the formula of Duchi et al., ICML 2008.

    Examples
    --------
    >>> A, G = np.array([[1.0, -0.75], [0.0, 0.25]]), np.array([[1.0, 0.0], [2.0, 3.0]])
    >>> print(project_rows_pullback(A, 0.5, G))
    [[0.5 0.5]
     [2.  3. ]]
    """
    if kappa == 0:  # The projection is 0 for every A.
        return np.zeros_like(G)
    size, outside, theta = _thresholds(A, kappa)
    support = size > theta
    sigma = np.where(support, np.sign(A[outside]), 0)
    along = (sigma * G[outside]).sum(axis=1, keepdims=True) / np.maximum(support.sum(axis=1, keepdims=True), 1)
    result = G.copy()
    result[outside] = np.where(support, G[outside], 0) - sigma * along
    return result


def _thresholds(A: np.ndarray, kappa: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return |a| − t and θ of the k rows outside the ball, with Σⱼ max(|a_j| − t − θ, 0) = κ, and which rows these are.

    t is the largest |a_j| of the row. A difference from the largest entry is at least −κ where it matters, so that κ is
    not lost beside large entries. The results are |a| − t (k, n), a bool for each row of A, and θ (k, 1).
    """
    size = magnitude(A)
    outside = _outside(A, size, kappa)
    size = size[outside]
    size = size - np.take_along_axis(size, size.real.argmax(axis=1)[:, None], axis=1) if size.size else size
    descending = -np.sort(-size, axis=1)
    with np.errstate(over="ignore"):  # Sums of very large differences overflow; their entries become 0 anyway.
        excess = np.cumsum(descending, axis=1) - kappa
    count = np.arange(1, A.shape[1] + 1)
    support = np.maximum((descending.real * count > excess.real).sum(axis=1, keepdims=True), 1)  # number of nonzeros
    return size, outside, np.take_along_axis(excess, support - 1, axis=1) / support


def _margin(A: np.ndarray) -> float:
    """Return a bound of the relative rounding error of a row sum of |A|."""
    return A.shape[1] * float(np.finfo(np.float64).eps)


def _outside(A: np.ndarray, size: np.ndarray, kappa: float) -> np.ndarray:
    """Tell which rows have Σⱼ |A_ij| > κ; an exact sum decides where rounding could.   A (n, k) -> (n,) bool"""
    sums = _row_sums(A).real
    outside = sums > kappa
    for i in np.flatnonzero(np.abs(sums - kappa) <= _margin(A) * kappa):
        outside[i] = math.fsum([*size[i].real, -kappa]) > 0  # fsum rounds the exact sum once, which keeps its sign.
    return outside
