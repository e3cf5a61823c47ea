"""This module has monotone matrices, for which I − c (A + Aᵀ)/2 ⪰ m I with m > 0 and c = Lip(φ).

Let φ not decrease and have slopes of at most c; for c = 1, φ is then the proximal operator of a convex function. For
x* = φ(A x* + z) and any x, let r = x − φ(A x + z), e = x − x* and f = e − r = φ(A x + z) − φ(A x* + z). In every entry,
f has the sign of A e, and |f| ≤ c |A e|, so that f² ≤ c f (A e). The sum over all entries is

    ⟨e − r, e − r − c A e⟩ ≤ 0     or     ⟨e, (I − c A) e⟩ ≤ ⟨e, r + (I − c A)ᵀ r⟩ − ‖r‖².

The left side is at least m ‖e‖², so that

    ‖x − x*‖₂ ≤ (1 + ‖I − c A‖₂) / m · ‖r‖₂.

Two solutions have r = 0 and are therefore the same. One exists: it is the zero of φ⁻¹(x) − A x − z, which is maximal
monotone, because φ⁻¹ − I/c is monotone and I/c − A strongly so. Picard's iteration need not find it, as
c‖A‖ may exceed 1.

Sources: Winston and Kolter, Monotone operator equilibrium networks, NeurIPS 2020; for the rounding of the Cholesky
decomposition, Higham, Accuracy and Stability of Numerical Algorithms, theorem 10.3.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from idl_ref import checks
from idl_ref.sparse import dense

EPS, TINY = float(np.finfo(np.float64).eps), float(np.finfo(np.float64).tiny)
TRIALS = (1, 8, 64, 512)  # The shifts of a Cholesky decomposition, in units of its rounding error.


class Monotone(NamedTuple):
    """What shows that X = φ(A X + Z) has one solution, and bounds its error in the 2-norm.

    Attributes
    ----------
    m : float
        A lower bound of the largest m with I − c (A + Aᵀ)/2 ⪰ m I. The equation is well posed if it is positive.
    norm : float
        An upper bound of ‖I − c A‖₂.
    """

    m: float
    norm: float

    @property
    def factor(self) -> float:
        """(1 + ‖I − c A‖₂)/m, by which the residual r = x − φ(A x + z) bounds the error of x; inf unless m > 0."""
        return (1 + self.norm) / self.m * (1 + 4 * EPS) if self.m > 0 else np.inf


def monotone(A: np.ndarray | tuple[np.ndarray, np.ndarray], lipschitz: float = 1.0) -> Monotone:
    """Return bounds of the largest m with I − c (A + Aᵀ)/2 ⪰ m I, and of ‖I − c A‖₂.

    If m > 0, the equation x = φ(A x + z) has one solution x* for every z, however large ‖A‖ is, and for every x,
    ‖x − x*‖₂ ≤ (1 + ‖I − c A‖₂)/m · ‖x − φ(A x + z)‖₂.

    Parameters
    ----------
    A : (n, n) array, or a pair (L, R) of (n, r) arrays
        A = L Rᵀ for a pair, which is not multiplied out. Then m is at most 1.
    lipschitz : float
        The Lipschitz constant c of φ, 0 < c ≤ 1. φ must not decrease, which is true for every built-in activation:
        c is 1/4 for sigmoid and 1 for all others. For an activation that decreases somewhere, nothing follows.

    Returns
    -------
    Monotone
        The bounds m and norm, which hold in exact arithmetic for the numbers in A. Their product `factor` is
        (1 + norm)/m. If A is not finite, m is −inf, and the norm inf.

    Raises
    ------
    ValueError, TypeError
        An A that is neither a square matrix of real numbers nor such a pair; a lipschitz outside of its range.

    Notes
    -----
    The largest eigenvalue of the symmetric part is verified by a Cholesky decomposition whose rounding is subtracted.
    Cost: about 10 n³ flops; for a pair, about 30 n r².
    Source: Winston and Kolter, Monotone operator equilibrium networks, NeurIPS 2020.

    Examples
    --------
    >>> found = monotone(np.array([[0.5, -3.0], [3.0, 0.5]]))
    >>> round(found.m, 6), round(found.norm, 6), found.m <= 0.5
    (0.5, 3.041381, True)
    """
    c = checks.number("lipschitz", lipschitz, 0, why="It is a bound of the slopes of φ, 0 < Lip(φ) ≤ 1.")
    if not 0 < c <= 1:
        raise ValueError(f"lipschitz must be above 0 and at most 1; got {c:g}: pass the Lip(φ) of the activation.")
    if isinstance(A, tuple):
        L, R = (checks.real_array(name, F, np.float64) for name, F in zip("LR", A, strict=True))
        checks.matrix("L", L, "(n, r)")
        checks.shape("R", R, L.shape, "that of L, because A = L Rᵀ is square")
        return bounds((L, R.T), c)
    M = checks.real_array("A", A, np.float64)
    checks.matrix("A", M, "(n, n)")
    checks.shape("A", M, (len(M), len(M)), "square")
    return bounds((M,), c)


def bounds(factors: tuple[np.ndarray, ...], c: float) -> Monotone:
    """Return the bounds for factors (A,) or (L, Rᵀ)."""
    factors = tuple([dense(F) for F in factors])
    first, *others = [F.astype(np.float64, copy=False) for F in factors]
    if not all(np.isfinite(F).all() for F in factors):
        return Monotone(-np.inf, np.inf)
    with np.errstate(over="ignore", invalid="ignore"):
        top, norm = _of_product(first, others[0], c) if others else _of_matrix(first, c)
    m = 1 - top
    return Monotone(m - EPS * (1 + abs(m)) if np.isfinite(m) else -np.inf, norm if np.isfinite(norm) else np.inf)


def margin(factors: tuple[np.ndarray, ...], c: float) -> float:
    """Return a lower bound of the largest m with I − c (A + Aᵀ)/2 ⪰ m I, for factors (A,) or (L, Rᵀ)."""
    return bounds(factors, c).m


def _of_matrix(A: np.ndarray, c: float) -> tuple[float, float]:
    """Return upper bounds of the largest eigenvalue of c (A + Aᵀ)/2, and of ‖I − c A‖₂.   A (n, n)"""
    n, size = len(A), c * np.abs(A)
    rounded = 2 * EPS * float((size + size.T).sum(axis=1).max(initial=0.0)) + n * TINY
    top = largest_eigenvalue(c * (A / 2 + A.T / 2)) + rounded
    return top, spectral_norm(np.eye(n) - c * A) + 2 * EPS * (n**0.5 + _frobenius(size)) + n * TINY


def _of_product(L: np.ndarray, Rt: np.ndarray, c: float) -> tuple[float, float]:
    """Return the same for A = L Rᵀ, where the eigenvalues that are not 0 are those of a matrix of 2 r rows.

    With V = [L R] = Q T and J = [[0, I], [I, 0]], the symmetric part is V J Vᵀ/2 = Q (T J Tᵀ/2) Qᵀ. A computed Q has
    ‖QᵀQ − I‖ ≤ δ, and Q T differs from V by a matrix F with ‖F‖ ≤ ε, both of which are bounded here. They change the
    largest eigenvalue from λ to at most max(λ, 0)(1 + δ) + ε (‖V‖ + ε).
    """
    r, sizes = len(Rt), (_frobenius(L), _frobenius(Rt))
    if min(sizes) > 0 and max(sizes) < np.inf:  # L/a and R a have the same product, and a power of two rounds nothing.
        a = 2.0 ** round(float(np.log2(sizes[0]) - np.log2(sizes[1])) / 2)
        L, Rt = L / a, Rt * a
    V = np.hstack([L, Rt.T])
    Q, T = np.linalg.qr(V)
    n, k = Q.shape
    v, q, t = _frobenius(V), _frobenius(Q), _frobenius(T)
    delta = _frobenius(Q.T @ Q - np.eye(k)) + (n + 4) * EPS * (q * q + k)
    epsilon = _frobenius(V - Q @ T) + (k + 4) * EPS * (v + q * t) + V.size * TINY
    H = T[:, :r] @ T[:, r:].T
    top = largest_eigenvalue(H / 2 + H.T / 2) + (2 * r + 4) * EPS * t * t + k * TINY
    top = c * (max(top, 0.0) * (1 + delta) + epsilon * (v + epsilon)) * (1 + 8 * EPS)
    return top, (1 + c * spectral_norm(L) * spectral_norm(Rt)) * (1 + 8 * EPS)


def _frobenius(M: np.ndarray) -> float:
    """Return an upper bound of the Frobenius norm."""
    largest = float(np.abs(M).max(initial=0.0))
    if not 0 < largest < np.inf:
        return largest
    return largest * float(np.linalg.norm(M / largest)) * (1 + (M.size + 8) * EPS)


def largest_eigenvalue(H: np.ndarray) -> float:
    """Return an upper bound of the largest eigenvalue of a symmetric H; inf if none is found.   H (n, n)

    If the Cholesky decomposition of t I − H ends, then t I − H + E ⪰ 0 with ‖E‖₂ ≤ γ trace(t I − H), so that t + ‖E‖₂
    is a bound, whatever the accuracy of t is.
    """
    n, unit = len(H), float(np.abs(H).max(initial=0.0))
    if not 0 < unit < np.inf:
        return 0.0 if unit == 0 else np.inf
    unit = 2.0 ** (int(np.frexp(unit)[1]) - 1)  # A division by it is exact but for underflow, which TINY covers.
    H = H / unit
    try:
        found = float(np.linalg.eigvalsh(H)[-1])
    except np.linalg.LinAlgError:
        return np.inf
    loss = 2 * (n + 4) * EPS * (float(np.abs(H.diagonal()).sum()) + n * abs(found) + EPS) + n * TINY
    for trial in TRIALS:
        t = found + trial * loss
        try:
            np.linalg.cholesky(t * np.eye(n) - H)
        except np.linalg.LinAlgError:
            continue
        return (t + 2 * (1 + trial * EPS * n) * loss) * unit + n * TINY
    return np.inf


def spectral_norm(M: np.ndarray) -> float:
    """Return an upper bound of ‖M‖₂, the root of the largest eigenvalue of Mᵀ M.   M (n, k)"""
    largest, size = float(np.abs(M).max(initial=0.0)), sum(M.shape)
    if not 0 < largest < np.inf:
        return largest
    M = M / largest
    square = largest_eigenvalue(_symmetric(M.T @ M)) + (size + 4) * EPS * _frobenius(M) ** 2
    return largest * max(square, 0.0) ** 0.5 * (1 + 8 * EPS) + size * TINY


def _symmetric(M: np.ndarray) -> np.ndarray:
    """Return a computed Mᵀ M with the same entries on both sides of the diagonal."""
    return np.tril(M) + np.tril(M, -1).T


# --- the parametrisation ----------------------------------------------------------------------------------------------


def make_monotone(A: np.ndarray, kappa: float) -> np.ndarray:
    """Return W = κ I − Pᵀ P + Q − Qᵀ, with P = √κ I − triu(A) and Q = tril(A, −1).   A (n, n) -> (n, n)

    P is any upper triangular matrix, and Q any strictly lower one, so that W is any matrix with (W + Wᵀ)/2 ⪯ κ I, and
    A = 0 gives W = 0. So much is subtracted from the diagonal that this holds for the rounded W, too: an error E of the
    symmetric part has E ⪯ diag(|E| 1), by Gershgorin's circles. Complex A stay complex.
    """
    if not np.isfinite(A).all():
        return A
    s, T, Q = _root(kappa), np.triu(A), np.tril(A, -1)
    T, Q = (F if A.dtype.kind == "c" else F.astype(np.float64) for F in (T, Q))
    W = s * (T + T.T) - T.T @ T + (Q - Q.T)  # = κ I − Pᵀ P + Q − Qᵀ, where κ cancels.
    dtype = W.real.dtype if A.dtype.kind == "c" else A.dtype
    columns = np.sqrt((np.abs(T) ** 2).sum(axis=0))
    size = s * (np.abs(T) + np.abs(T.T)) + np.outer(columns, columns) + np.abs(Q) + np.abs(Q.T)
    unit, tiny = float(np.finfo(dtype).eps) / 2, float(np.finfo(dtype).tiny)
    E = (len(A) + 8) * EPS * size + unit * np.abs(W) + tiny
    delta = (1 + 8 * unit) * (E + E.T).sum(axis=1) / 2 + 2 * unit * np.abs(W.diagonal())
    W[np.diag_indices(len(W))] -= 1.01 * delta
    with np.errstate(over="ignore"):  # The status of a column reports a W that is not finite.
        return W if A.dtype.kind == "c" else W.astype(A.dtype)


def make_monotone_pullback(A: np.ndarray, kappa: float, G: np.ndarray) -> np.ndarray:
    """Return the pullback of `make_monotone`: the upper triangle of P (G + Gᵀ), and below it G − Gᵀ.   all (n, n)

    A change of P changes ⟨G, −Pᵀ P⟩ by −⟨P (G + Gᵀ), dP⟩, and dP = −dT.
    """
    P = _root(kappa) * np.eye(len(A), dtype=A.dtype) - np.triu(A)
    return (np.triu(P @ (G + G.T)) + np.tril(G - G.T, -1)).astype(A.dtype, copy=False)


def raw(P: np.ndarray, Q: np.ndarray, kappa: float) -> np.ndarray:
    """Return an A that `make_monotone` takes to κ I − Pᵀ P + Q − Qᵀ, for any P (k, n) with k ≥ n, and any Q (n, n).

    The triangle of P = (orthogonal)·(triangular) has the same Pᵀ P.
    """
    return _root(kappa) * np.eye(len(Q)) - np.linalg.qr(P)[1] + np.tril(Q - Q.T, -1)


def _root(kappa: float) -> float:
    """Return √κ, rounded so that its square is at most κ."""
    root = float(np.sqrt(kappa))
    return float(np.nextafter(root, 0)) if kappa > 0 else 0.0
