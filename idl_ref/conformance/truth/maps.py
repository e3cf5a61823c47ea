"""The map f from raw to effective weights and its pullback, in rational numbers."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from idl_ref.conformance.truth.problem import Problem

ZERO = Fraction(0)


def effective(M: np.ndarray, problem: Problem) -> np.ndarray:
    """f(M): κ M / max(κ, ‖M‖∞) for "inf"; rows projected on the ℓ1 ball; the strict upper triangle; or M itself."""
    if problem.f == "none":
        return M
    if problem.f == "triu":
        return M * np.triu(np.ones(M.shape, int), 1)
    kappa = Fraction(problem.kappa)
    if problem.f == "inf":
        norm = max(sum(map(abs, row)) for row in M)
        return M * (kappa / norm) if norm > kappa else M
    return np.array([_on_ball(row, kappa)[0] for row in M], object)


def _on_ball(row: np.ndarray, kappa: Fraction) -> tuple[list, list[int] | None]:
    """The nearest point with Σ|a| ≤ κ, and the indices of its nonzero entries, or None for a row inside the ball."""
    if sum(map(abs, row)) <= kappa:
        return list(row), None
    total = theta = ZERO
    for k, size in enumerate(sorted(map(abs, row), reverse=True), 1):
        total += size
        if size > (total - kappa) / k:
            theta = (total - kappa) / k
    moved = [(1 if a > 0 else -1) * max(abs(a) - theta, ZERO) for a in row]
    return moved, [j for j, a in enumerate(row) if abs(a) > theta]


def pullback(M: np.ndarray, G: np.ndarray, problem: Problem) -> np.ndarray:
    """∂ℓ/∂M from G = ∂ℓ/∂f(M)."""
    if problem.f == "none" or problem.straight_through:
        return G
    if problem.f == "triu":
        return G * np.triu(np.ones(M.shape, int), 1)
    kappa = Fraction(problem.kappa)
    if problem.f == "inf":
        norms = [sum(map(abs, row)) for row in M]
        norm = max(norms)
        if norm <= kappa:
            return G
        s, top = np.full(M.shape, ZERO, object), norms.index(norm)
        s[top] = [(a > 0) - (a < 0) for a in M[top]]
        return (G - s * ((G * M).sum() / norm)) * (kappa / norm)
    result = G.copy()
    for i, row in enumerate(M):
        support = _on_ball(row, kappa)[1]
        if support is not None:
            signs = {j: 1 if row[j] > 0 else -1 for j in support}
            mean = sum(signs[j] * G[i, j] for j in support) / len(support)
            result[i] = [G[i, j] - signs[j] * mean if j in signs else ZERO for j in range(len(row))]
    return result
