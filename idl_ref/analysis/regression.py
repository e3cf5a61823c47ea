"""This module finds the A and B that explain the states of a teacher best, with a dense A or with A = L Rᵀ."""

from __future__ import annotations

import numpy as np

from idl_ref.analysis import lasso
from idl_ref.analysis.teachers import States

RANK_TOLERANCE = 1e-12  # Singular values below this part of the largest one count as 0.


class Free:
    """The rows of U (p, m) and of ones, or of U alone, whose weights have no penalty: least squares gives them.

    The rows of U are divided by their norms, and centred before, if there is a row of ones. Otherwise a unit in which U
    is large, or a large mean, as that of a timestamp, would hide what other directions explain. Directions in which the
    rows vary by less than `tolerance` count as 0. Q (m, ·) is an orthonormal basis of all that the rows explain.
    """

    def __init__(self, U: np.ndarray, tolerance: float = RANK_TOLERANCE, ones: bool = True) -> None:
        p, m = U.shape
        self.ones = ones
        self.mean = U.mean(axis=1, keepdims=True) if ones else np.zeros((p, 1))
        centred = U - self.mean
        norms = np.linalg.norm(centred, axis=1, keepdims=True)
        self.norms = np.where(norms > tolerance * np.abs(self.mean) * m**0.5, norms, np.inf)  # inf: constant rows
        rows = np.vstack([centred / self.norms, np.full((int(ones), m), m**-0.5)])
        Q, sizes, P = np.linalg.svd(rows.T, full_matrices=False)
        kept = sizes > tolerance * sizes[:1]
        self.Q, self.inverse = Q[:, kept], P[kept] / sizes[kept, None]

    def without(self, M: np.ndarray) -> np.ndarray:
        """Return M (·, m) without what V explains; the second time, only the rounding of the first is left."""
        M = M - (M @ self.Q) @ self.Q.T
        return M - (M @ self.Q) @ self.Q.T

    def weights(self, M: np.ndarray) -> np.ndarray:
        """Return W (·, p + 1) for which ‖W (U; 1) − M‖ is smallest, or (·, p) without ones.

        Of several, it is the smallest one for the rows of norm 1.
        """
        scaled, p = (M @ self.Q) @ self.inverse, len(self.mean)
        W = scaled[:, :p] / self.norms.T
        return np.hstack([W, scaled[:, p:] * len(self.Q) ** -0.5 - W @ self.mean]) if self.ones else W

    def noise(self, Z: np.ndarray, U: np.ndarray, unit: float) -> float:
        """Return ½‖·‖² of what the rounding of Z may be: `unit` times |Z|, and times the terms that it is a sum of."""
        W = self.weights(Z)
        return float(0.5 * np.square(unit * (np.abs(Z) + np.abs(W[:, :-1]) @ np.abs(U) + np.abs(W[:, -1:]))).sum())


def dense(
    data: States, kappa: float, penalties: tuple[float, float], limits: tuple[float, int], unit: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return A (n, n), B (n, p + 1) and the relative gap. The entries of Z are known to `unit`.

    What has no penalty, V or only the constant feature, is eliminated. What has one, X or (X, U), are the features.
    """
    n = len(data.X)
    if penalties[1] == 0:
        free, features, sizes = data.U, data.X, np.full(n, penalties[0])
    else:
        free, features = data.U[:0], np.vstack([data.X, data.U])
        sizes = np.repeat(penalties, [n, len(data.U)])
    rest = Free(free)
    noise = rest.noise(data.Z, free, unit)
    J, Z = rest.without(features), rest.without(data.Z)
    problem = lasso.Problem(J @ J.T, Z @ J.T, np.square(Z).sum(axis=1), kappa, sizes, n, noise)
    answer = lasso.solve(problem, *limits)
    B = np.hstack([answer.W[:, n:], rest.weights(data.Z - answer.W @ features)])
    return answer.W[:, :n], B, answer.relative_gap(problem)


def low_rank(
    data: States, kappa: float, rank: int, limits: tuple[float, int], unit: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Return L (n, r), R (n, r), B (n, p + 1) and the relative gap, with ‖L‖∞ ≤ √κ and ‖Rᵀ‖∞ ≤ √κ; see `dense`.

    Let X = P S Qᵀ and Z Q = G T Hᵀ be singular value decompositions, without what V explains. Without the ball, the
    best A of rank r is G_r G_rᵀ Z Q S⁻¹ Pᵀ, whose rows are combinations of those of Rᵀ = H_rᵀ S⁻¹ Pᵀ. If the rows of Rᵀ
    have the norm 1, then ‖|L||R|ᵀ‖∞ is ‖L‖∞, so that L solves a problem of the same form with the features Rᵀ X. This
    norm depends on the basis of the rows, so that the better one of two is taken: this one, and its echelon form.
    """
    rest = Free(data.U)
    noise = rest.noise(data.Z, data.U, unit)
    X, Z = rest.without(data.X), rest.without(data.Z)
    P, S, Qt = np.linalg.svd(X, full_matrices=False)
    kept = RANK_TOLERANCE * S[:1] < S
    Ht = np.linalg.svd(Z @ Qt[kept].T, full_matrices=False)[2][:rank]
    best = np.zeros((rank, len(X)))
    best[: len(Ht)] = (Ht / S[kept]) @ P[:, kept].T
    found, root = [], kappa**0.5
    for Rt in (best, _reduced(best)):
        norms = np.abs(Rt).sum(axis=1, keepdims=True)
        Rt = Rt / np.where(norms > 0, norms, 1)
        J = Rt @ X
        problem = lasso.Problem(J @ J.T, Z @ J.T, np.square(Z).sum(axis=1), kappa, np.zeros(rank), rank, noise)
        found.append((lasso.solve(problem, *limits), Rt, problem))
    answer, Rt, problem = min(found, key=lambda one: float(one[0].objective.sum()))
    B = rest.weights(data.Z - answer.W @ (Rt @ data.X))
    return answer.W / (root or 1), root * Rt.T, B, answer.relative_gap(problem)


def _reduced(M: np.ndarray) -> np.ndarray:
    """Return the reduced echelon form of M (r, n), in which r columns are those of the identity, the pivots largest."""
    M, free = M.copy(), np.ones(len(M), bool)
    for _ in M:
        size = np.where(free[:, None], np.abs(M), -1)
        i, j = np.unravel_index(size.argmax(), M.shape)
        if not size[i, j] > RANK_TOLERANCE * np.abs(M).max():
            break
        M[i] /= M[i, j]
        rest = np.arange(len(M)) != i
        M[rest] -= M[rest, j, None] * M[i]
        free[i] = False
    return M
