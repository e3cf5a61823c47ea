"""This module has the map that keeps the Perron root of |A| below a number, and its pullback.

The Perron root λ of a matrix M ≥ 0 is its largest eigenvalue. If M is irreducible, its left and right eigenvectors u
and v are positive and unique but for their lengths, and λ is a smooth function of M: ∂λ/∂M = u vᵀ / uᵀv. A reducible M
has the largest root of its irreducible blocks, which are the strongly connected components of its graph. An M without
cycles has no such block, and λ = 0.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from idl_ref import balls
from idl_ref.cycles import cyclic
from idl_ref.factors import Factors

STEPS = 100  # Largest number of Noda's steps, of which a few suffice, because they converge quadratically.
CLOSED = 4 * float(np.finfo(np.float64).eps)  # The bounds of λ are closed if their relative distance is this, times n.
NEAR = 1e-9  # … and near if it is this; then no balancing is needed.
TINY = float(np.finfo(np.float64).tiny)
EPS = float(np.finfo(np.float64).eps)


class Root(NamedTuple):
    """An upper bound of the Perron root that is certain, and where the root comes from.

    Attributes
    ----------
    value : float or complex
        The bound. It exceeds the root by rounding only, unless the block is scaled so badly that float64 cannot hold v.
        For complex factors, its imaginary part is the derivative in the direction of theirs.
    block : (k,) array of int
        The rows of the irreducible block that has the largest root; empty if λ = 0.
    """

    value: Any
    block: np.ndarray


def product(factors: Factors) -> tuple[np.ndarray, float]:
    """Return |A|/c, or |Rᵀ||L|/c (r, r), which has the Perron root of |L||Rᵀ|/c, and c, by which no sum overflows.

    What may be lost by underflow is added, so that no entry is too small, and no cycle disappears. Complex factors stay
    complex.
    """
    sizes, units = [balls.magnitude(F) for F in factors], [_unit(F) for F in factors]
    M, *others = (size / unit for size, unit in zip(sizes, units, strict=True))
    links, terms = (sizes[0] != 0).astype(np.float64), 1
    for other, size in zip(others, sizes[1:], strict=True):
        links, terms = (size != 0) @ links, len(M) + 2
        M = other @ M
    return M + terms * TINY * (links != 0), float(np.prod(units))


def _unit(F: np.ndarray) -> float:
    """Return a power of two near the largest entry if products of such entries could overflow, else 1."""
    largest = float(np.abs(F).max(initial=0.0))
    return 2.0 ** min(int(np.frexp(largest)[1]), 1000) if largest > 1e100 else 1.0


def root(factors: Factors) -> Root:
    """Return an upper bound of the Perron root of |A|, or of |L||Rᵀ|, and its block."""
    M, unit = product(factors)
    bounds = [(_pair(M.real[np.ix_(block, block)]), block) for block in cyclic(M.real != 0)]
    if not bounds:
        return Root(0.0, np.empty(0, int))
    (upper, v), block = max(bounds, key=lambda bound: bound[0][0])
    terms = len(M) + 4 + (factors[0].shape[0] if len(factors) > 1 else 0)
    value: Any = upper * (1 + terms * EPS) * unit
    if M.dtype.kind == "c":
        value = value + 1j * unit * _slope(M[np.ix_(block, block)], upper, v)
    return Root(value, block)


def _pair(M: np.ndarray) -> tuple[float, np.ndarray]:
    """Return an upper bound of the root of an irreducible M ≥ 0, and its right vector v > 0.

    Where the bound is not close, because the rows of M have very different sizes, M is balanced before.
    """
    upper, v, distance = _noda(M)
    if distance <= NEAR * upper:
        return upper, v
    B, d = _balanced(M)
    other, w, nearer = _noda(B)
    return (other, d * w) if nearer < distance else (upper, v)


def _noda(M: np.ndarray) -> tuple[float, np.ndarray, float]:
    """Return an upper bound of the root of an irreducible M ≥ 0, its vector v, and upper bound − lower bound.

    Noda's steps v ← (μI − M)⁻¹ v, with Collatz's bound μ = maxᵢ (M v)ᵢ / vᵢ, keep v positive, and μ falls to the root
    quadratically. Any v > 0 gives a bound that holds, so that rounding in the solution can only make it less close.
    """
    n, v = len(M), np.ones(len(M))
    best, kept, least = np.inf, v, np.inf
    for _ in range(STEPS):
        ratio = (M @ v + n * TINY) / v  # A term that underflows changes a sum by less than TINY.
        upper, distance = float(ratio.max()), float(ratio.max() - ratio.min())
        if not distance < least:
            break
        best, kept, least = min(best, upper), v, distance
        if distance <= CLOSED * n * upper:
            break
        try:
            v = np.linalg.solve(upper * (1 + EPS) * np.eye(n) - M, v)
        except np.linalg.LinAlgError:
            break
        v = v / np.abs(v).max()
        if not (v > 1e-250).all():
            break
    return best, kept, least


def _balanced(M: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return D⁻¹ M D, whose rows and columns have sums of the same size, and the powers of two on the diagonal of D.

    Source: Osborne, On pre-conditioning of matrices, J. ACM 7 (1960).
    """
    B, exponents = M * (1 - np.eye(len(M))), np.zeros(len(M), int)
    for _ in range(STEPS):
        before = exponents.copy()
        for i in range(len(M)):
            row, column = float(B[i].sum()), float(B[:, i].sum())
            if row > 0 and column > 0:
                k = round(float(np.log2(row) - np.log2(column)) / 2)
                B[i], B[:, i] = np.ldexp(B[i], -k), np.ldexp(B[:, i], k)
                exponents[i] += k
        if (exponents == before).all() or np.abs(exponents).max() > 1000:
            break
    B = np.where((M > 0) & (B == 0), TINY, B)  # No entry may be too small for an upper bound.
    np.fill_diagonal(B, M.diagonal())
    return B, np.ldexp(1.0, np.clip(exponents, -1000, 1000))


def _slope(M: np.ndarray, value: float, v: np.ndarray) -> float:
    """Return the imaginary part of the root of a complex M, by one of Newton's steps for (M − λI) v = 0 and Σ v."""
    n = len(M)
    K = np.block([[M - value * np.eye(n), -v[:, None]], [np.ones((1, n)), np.zeros((1, 1))]])
    return float(np.linalg.solve(K, np.append(value * v - M @ v, 0))[-1].imag)


def slopes(factors: Factors, block: np.ndarray) -> Factors:
    """Return ∂λ/∂|F| for every factor, which for A is u vᵀ/uᵀv.

    For M = |Rᵀ||L|, it is (|Rᵀ|ᵀu) vᵀ/uᵀv for L, and u (|L|v)ᵀ/uᵀv for Rᵀ. Entries outside of the block have slope 0.
    """
    M = product(factors)[0][np.ix_(block, block)]
    u, v = np.zeros(len(factors[-1])), np.zeros(len(factors[-1]))
    v[block], u[block] = _pair(M)[1], _pair(M.T)[1]
    u = u / (u @ v)
    if len(factors) == 1:
        return (np.outer(u, v),)
    sizes = [balls.magnitude(F) for F in factors]
    return np.outer(sizes[1].T @ u, v), np.outer(u, sizes[0] @ v)


def scale(factors: Factors, kappa: float) -> Factors:
    """Return the factors times min(1, κ/λ), or L and Rᵀ times min(1, κ/√λ), so that the root is at most κ or κ².

    Factors that are not finite are returned as they are.
    """
    if not all(np.isfinite(F).all() for F in factors):
        return factors
    size = root(factors).value ** (1 / len(factors))
    if np.isinf(size.real):  # The root overflows, but not that of a multiple, whose result is the same.
        return scale(_divided(factors), kappa)
    return tuple(_scaled(F, size, kappa) for F in factors) if size.real > kappa else factors


def _largest(factors: Factors) -> float:
    """Return the largest |F_ij| of all factors."""
    return max(float(np.abs(F).max(initial=0.0)) for F in factors)


def _divided(factors: Factors) -> Factors:
    """Return the factors, all divided by the largest entry."""
    largest = _largest(factors)
    return tuple((F / largest).astype(F.dtype) for F in factors)


def _scaled(F: np.ndarray, size: Any, kappa: float) -> np.ndarray:
    """Return F κ/size, reduced by some units of rounding; what would be rounded up among the subnormal numbers is 0."""
    info = np.finfo(F.dtype)
    slack = 4 * float(info.eps) + 16 * sum(F.shape) * EPS  # The root of the result is not found above κ again.
    factor = kappa / size * (1 - slack)
    if isinstance(factor, complex) or F.dtype.kind == "c":
        return F * factor
    result = F * F.dtype.type(factor)
    return np.where(np.abs(result) < info.tiny, 0, result)


def pullback(factors: Factors, kappa: float, gradients: Factors) -> Factors:
    """Return the pullback of `scale`.

    With p factors, s = κ λ^(−1/p) and g = Σ ⟨G_F, F⟩, it is s (G_F − g/(pλ) sign(F) ∘ ∂λ/∂|F|) for every factor F.
    """
    if not all(np.isfinite(F).all() for F in factors):
        return gradients
    found, p = root(factors), len(factors)
    size = float(found.value) ** (1 / p)
    if np.isinf(size):
        largest = _largest(factors)
        return tuple(G / G.dtype.type(largest) for G in pullback(_divided(factors), kappa, gradients))
    if kappa == 0:  # The scaled A is 0, but for an A without cycles, where the map is not continuous.
        return tuple(np.zeros_like(G) for G in gradients)
    if not size > kappa:
        return gradients
    along = sum(float(np.vdot(G.astype(np.float64), F)) for G, F in zip(gradients, factors, strict=True))
    parts = zip(factors, gradients, slopes(factors, found.block), strict=True)
    return tuple(
        (kappa / size * (G - along / (p * found.value) * np.sign(F) * slope)).astype(F.dtype) for F, G, slope in parts
    )


def active_set(factors: Factors, kappa: float) -> tuple[np.ndarray, ...]:
    """Return the signs on the block that decides, if the map scales; arrays of another content if it does not."""
    shapes = tuple(F.shape for F in factors)
    found = root(factors) if all(np.isfinite(F).all() for F in factors) else Root(0.0, np.empty(0, int))
    if not found.value.real ** (1 / len(factors)) > kappa:
        return tuple(np.full(shape, 2.0) for shape in shapes)
    inside = slopes(factors, found.block)
    return tuple(np.where(slope > 0, np.sign(F), 0.0) for F, slope in zip(factors, inside, strict=True))
