"""Linear algebra in object arrays of rational numbers: solutions, products, and the Perron root."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import NamedTuple

import numpy as np

PLACES = 2**20  # Perron roots are found if they are multiples of 1/PLACES.


def solve(M: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The x with M x = b, by Gauss–Jordan elimination with partial pivoting.   (n, n), (n,) -> (n,)"""
    rows = np.concatenate([M, b[:, None]], axis=1)
    if all(isinstance(v, Fraction | int) for v in rows.flat):
        return _solve_integers(rows)
    for i in range(len(b)):
        pivot = max(range(i, len(b)), key=lambda k: abs(rows[k, i]))
        rows[[i, pivot]] = rows[[pivot, i]]
        rows[i] = rows[i] / rows[i, i]
        for k in range(len(b)):
            if k != i and rows[k, i]:
                rows[k] = rows[k] - rows[k, i] * rows[i]
    return rows[:, -1]


def _solve_integers(rows: np.ndarray) -> np.ndarray:
    """The same for fractions, by Bareiss's elimination: integers, of which each division leaves no remainder."""
    n, before = len(rows), 1
    for i in range(n):
        denominator = math.lcm(*(v.denominator for v in rows[i]))
        rows[i] = [v.numerator * (denominator // v.denominator) for v in rows[i]]
    for i in range(n):
        pivot = next((k for k in range(i, n) if rows[k, i]), None)
        if pivot is None:
            raise ZeroDivisionError("the equation has no unique solution")
        rows[[i, pivot]] = rows[[pivot, i]]
        for k in range(n):
            if k != i:
                rows[k] = (rows[i, i] * rows[k] - rows[k, i] * rows[i]) // before
        before = rows[i, i]
    return np.array([Fraction(rows[i, n], rows[i, i]) for i in range(n)], object)


def product(M: np.ndarray, N: np.ndarray) -> np.ndarray:
    """M N for object arrays; fractions are multiplied as integers over common denominators, which is much faster."""
    if not all(isinstance(v, Fraction) for v in (*M.flat[:1], *N.flat[:1])) or not (M.size and N.size):
        return M @ N
    m, n = (math.lcm(*{v.denominator for v in K.flat}) for K in (M, N))
    whole = [np.frompyfunc(lambda v, d=d: v.numerator * (d // v.denominator), 1, 1)(K) for K, d in ((M, m), (N, n))]
    return np.frompyfunc(lambda v: Fraction(v, m * n), 1, 1)(whole[0] @ whole[1])


class Perron(NamedTuple):
    """The Perron root λ of a matrix M ≥ 0, and its vectors: M v = λ v, uᵀM = λ uᵀ, and uᵀv = 1."""

    root: Fraction
    u: np.ndarray
    v: np.ndarray


def perron(M: np.ndarray) -> Perron:
    """The Perron root of a matrix M ≥ 0 of fractions, and its vectors; those of one that is reducible have zeros.

    Floats only say which number the root may be; ArithmeticError where it is not a multiple of 1/PLACES, or not simple.
    The vectors of a simple one are ≥ 0, and the diagonal of adj(λ I − M), a multiple of v uᵀ, shows that uᵀv > 0.
    """
    root = Fraction(round(float(np.abs(np.linalg.eigvals(M.astype(float))).max()) * PLACES), PLACES)
    v, u = _null(M, root), _null(M.T, root)
    return Perron(root, u / (u @ v), v)


def _null(M: np.ndarray, root: Fraction) -> np.ndarray:
    """The v ≠ 0 with M v = root v, which is unique but for its length."""
    rows = root * np.eye(len(M), dtype=int).astype(object) - M
    for one in range(len(M)):
        rest = [j for j in range(len(M)) if j != one]
        try:
            found = solve(rows[np.ix_(rest, rest)], -rows[rest, one])
        except ZeroDivisionError:
            continue
        v = np.array([*found[:one], Fraction(1), *found[one:]], object)
        if not (rows @ v).any():
            return v
    raise ArithmeticError(f"{float(root):g} is no simple eigenvalue, or the Perron root is no multiple of 1/{PLACES}")
