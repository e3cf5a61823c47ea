"""This module maps matrices into the ball ‖A‖∞ ≤ κ: all of A by one number, or each row to the nearest one.

Each map has an exact pullback, which takes G = ∂ℓ/∂(result) to ∂ℓ/∂(argument). The functions of these names in
`wellposed` check their arguments, and then call these.
"""

from __future__ import annotations

import math

import numpy as np


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

    Raises
    ------
    TypeError, ValueError
        A is no matrix of real or complex numbers.

    Notes
    -----
    Cost: n k flops.

    Examples
    --------
    >>> norm_inf(np.array([[1.0, -2.0], [0.5, 0.0]]))
    3.0
    """
    return float(np.abs(A).sum(axis=1, dtype=np.float64).max(initial=0.0))


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

    Raises
    ------
    TypeError, ValueError
        A is no matrix of real or complex numbers, or κ is no number ≥ 0.

    Notes
    -----
    Cost: 2 n k flops.

    Examples
    --------
    >>> print(scale_to_norm(np.array([[1.0, -1.0], [0.0, 0.5]]), 0.5).round(3))
    [[ 0.25  -0.25 ]
     [ 0.     0.125]]
    """
    if not A.size:
        return A
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

    Raises
    ------
    TypeError, ValueError
        A or G is no matrix of real or complex numbers, their shapes differ, or κ is no number ≥ 0.

    Notes
    -----
    The page on theory in the documentation derives this formula. Cost: 4 n k flops.

    Examples
    --------
    >>> A, G = np.array([[1.0, -1.0], [0.0, 0.5]]), np.ones((2, 2))
    >>> float(np.vdot(scale_to_norm_pullback(A, 0.5, G), A).round(12))
    0.0
    """
    if not A.size:
        return G
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

    Raises
    ------
    TypeError, ValueError
        A is no matrix of real or complex numbers, or κ is no number ≥ 0.

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

    Raises
    ------
    TypeError, ValueError
        A or G is no matrix of real or complex numbers, their shapes differ, or κ is no number ≥ 0.

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
