"""The map f from raw to effective weights and its pullback, in rational numbers."""

from __future__ import annotations

from fractions import Fraction
from functools import reduce

import numpy as np

from idl_ref.conformance.truth.problem import Problem
from idl_ref.conformance.truth.rational import Perron, perron, product
from idl_ref.factors import Factors

ZERO = Fraction(0)


def effective(factors: Factors, problem: Problem) -> Factors:
    """f of A, or of L and Rᵀ.

    "inf": F κ/max(κ, ‖F‖∞) for each factor F. "rows": rows projected on the ℓ1 ball. "triu": the strict upper triangle.
    "perron": A min(1, κ/λ) for the Perron root λ of |A|, or L and Rᵀ times min(1, κ/√λ) for that of |L||Rᵀ|.
    """
    if problem.f == "none":
        return factors
    if problem.f == "triu":
        return tuple(F * _above(F) for F in factors)
    kappa = Fraction(problem.kappa)
    if problem.f == "perron":
        size = _size(factors, _perron(factors))
        return tuple(F * (kappa / size) for F in factors) if size > kappa else factors
    return tuple((_to_norm if problem.f == "inf" else _to_ball)(F, kappa) for F in factors)


def pullback(factors: Factors, gradients: Factors, problem: Problem) -> Factors:
    """∂ℓ/∂F for every raw factor F, from G = ∂ℓ/∂f(F)."""
    if problem.f == "none" or problem.straight_through:
        return gradients
    if problem.f == "triu":
        return tuple(G * _above(G) for G in gradients)
    kappa = Fraction(problem.kappa)
    if problem.f == "perron":
        return _of_perron(factors, gradients, kappa)
    pull = _of_norm if problem.f == "inf" else _of_ball
    return tuple(pull(F, G, kappa) for F, G in zip(factors, gradients, strict=True))


def _above(F: np.ndarray) -> np.ndarray:
    """1 above the diagonal."""
    return np.triu(np.ones(F.shape, int), 1)


def _sign(F: np.ndarray) -> np.ndarray:
    """The sign of every entry."""
    signs: np.ndarray = np.frompyfunc(lambda a: (a > 0) - (a < 0), 1, 1)(F)
    return signs


# --- the scaling to ‖F‖∞ ≤ κ, and the projection of rows --------------------------------------------------------------


def _to_norm(M: np.ndarray, kappa: Fraction) -> np.ndarray:
    """κ M / max(κ, ‖M‖∞)."""
    norm = max(sum(map(abs, row)) for row in M)
    return M * (kappa / norm) if norm > kappa else M


def _of_norm(M: np.ndarray, G: np.ndarray, kappa: Fraction) -> np.ndarray:
    """The pullback of `_to_norm`: the norm changes with the first row that attains it."""
    norms = [sum(map(abs, row)) for row in M]
    norm = max(norms)
    if norm <= kappa:
        return G
    s, top = np.full(M.shape, ZERO, object), norms.index(norm)
    s[top] = _sign(M[top])
    return (G - s * ((G * M).sum() / norm)) * (kappa / norm)


def _to_ball(M: np.ndarray, kappa: Fraction) -> np.ndarray:
    """Each row projected on the ℓ1 ball of radius κ."""
    return np.array([_on_ball(row, kappa)[0] for row in M], object)


def _of_ball(M: np.ndarray, G: np.ndarray, kappa: Fraction) -> np.ndarray:
    """The pullback of `_to_ball`: a projected row moves along the face of the ball on which it lies."""
    result = G.copy()
    for i, row in enumerate(M):
        support = _on_ball(row, kappa)[1]
        if support is not None:
            signs = {j: 1 if row[j] > 0 else -1 for j in support}
            mean = sum(signs[j] * G[i, j] for j in support) / len(support)
            result[i] = [G[i, j] - signs[j] * mean if j in signs else ZERO for j in range(len(row))]
    return result


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


# --- the scaling to a Perron root ≤ κ ---------------------------------------------------------------------------------


def _perron(factors: Factors) -> Perron:
    """The Perron root of |A|, or of |L||Rᵀ|, and its vectors."""
    return perron(reduce(product, map(abs, factors)))


def _size(factors: Factors, found: Perron) -> Fraction:
    """λ, or √λ for two factors, which must be a multiple of 1/2¹⁰."""
    if len(factors) == 1:
        return found.root
    size = Fraction(round(float(found.root) ** 0.5 * 1024), 1024)
    if size * size != found.root:
        raise ArithmeticError("the square root of the Perron root is no multiple of 1/1024")
    return size


def _of_perron(factors: Factors, gradients: Factors, kappa: Fraction) -> Factors:
    """s (G − g/(k λ) sign(F) ∘ ∂λ/∂|F|) for each of k factors, with s = κ λ^(−1/k) and g = Σ ⟨G, F⟩.

    With M = |L||Rᵀ|, ∂λ/∂M = u vᵀ gives ∂λ/∂|L| = u (|Rᵀ|v)ᵀ and ∂λ/∂|Rᵀ| = (|L|ᵀu) vᵀ.
    """
    root, u, v = found = _perron(factors)
    size = _size(factors, found)
    if size <= kappa:
        return gradients
    sizes = [abs(F) for F in factors]
    slopes = (np.outer(u, v),) if len(factors) == 1 else (np.outer(u, sizes[1] @ v), np.outer(sizes[0].T @ u, v))
    along = sum((G * F).sum() for G, F in zip(gradients, factors, strict=True)) / (len(factors) * root)
    return tuple(
        (G - along * _sign(F) * slope) * (kappa / size) for F, G, slope in zip(factors, gradients, slopes, strict=True)
    )
