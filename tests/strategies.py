"""This module has Hypothesis strategies for small equations of every kind, which are well posed with a drawn κ.

Hypothesis draws and shrinks sizes, kinds and κ. Entries come from a seeded generator, which makes examples cheap.
"""

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

ACTIVATIONS = ("identity", "relu", "leaky_relu", "tanh", "sigmoid", "softplus", "elu", "hardtanh", "softsign")
DTYPES = (np.float32, np.float64)
KINDS = ("random", "hard", "permutation", "upper", "zero_rows", "rank_one")

sizes = st.integers(1, 8)
batches = st.integers(1, 4)
ranks = st.integers(1, 3)
seeds = st.integers(0, 2**32 - 1)
kappas = st.sampled_from([0.0, 0.3, 0.5, 0.9, 0.97])
names = st.sampled_from(ACTIVATIONS)
dtypes = st.sampled_from(DTYPES)
kinds = st.sampled_from(KINDS)


def matrix(kind, n, kappa, rng, dtype=np.float64):
    """Return a matrix (n, n) with ‖A‖∞ = κ up to rounding, or a matrix of zeros."""
    A = {
        "random": lambda: rng.standard_normal((n, n)),
        "hard": lambda: _equal_rows(rng.uniform(0.1, 1, (n, n))),
        "permutation": lambda: np.eye(n)[rng.permutation(n)],
        "upper": lambda: np.triu(rng.standard_normal((n, n)), 1),
        "zero_rows": lambda: rng.standard_normal((n, n)) * (rng.random((n, 1)) < 0.5),
        "rank_one": lambda: np.outer(rng.standard_normal(n), rng.standard_normal(n)),
    }[kind]()
    return fit(A, kappa).astype(dtype)


def fit(A, kappa):
    """Scale A to ‖A‖∞ = κ, reduced by a few units of float32 rounding."""
    norm = np.abs(A).sum(axis=1).max()
    return A * (kappa / norm * (1 - 1e-6)) if norm > 0 else A


def _equal_rows(A):
    return A / A.sum(axis=1, keepdims=True)


def pair(n, r, kappa, rng, dtype=np.float64):
    """Return L and R (n, r) with max |L||R|ᵀ1 ≤ κ."""
    L, R = rng.standard_normal((2, n, r))
    norm = (np.abs(L) @ np.abs(R).T).sum(axis=1).max()
    return (L * (kappa / norm * (1 - 1e-6))).astype(dtype), R.astype(dtype)


@dataclass(frozen=True)
class Equation:
    """The equation X = φ(A X + Z) with a start X0, and S and G for its adjoint; A = L Rᵀ if `pair` is (L, R)."""

    A: np.ndarray
    pair: tuple[np.ndarray, np.ndarray] | None
    Z: np.ndarray
    X0: np.ndarray
    S: np.ndarray
    G: np.ndarray
    kappa: float
    activation: str


@st.composite
def equations(draw, kinds=kinds, dtypes=dtypes, activations=names, kappas=kappas, low_rank=False, positive_Z=False):
    """Draw an equation of float32 or float64 arrays, whose columns have different magnitudes."""
    n, m, kind, kappa = draw(sizes), draw(batches), draw(kinds), draw(kappas)
    dtype, activation = draw(dtypes), draw(activations)
    r = draw(ranks) if low_rank else None
    rng = np.random.default_rng(draw(seeds))
    factors = pair(n, r, kappa, rng, dtype) if low_rank else None
    A = (factors[0] @ factors[1].T) if low_rank else matrix(kind, n, kappa, rng, dtype)
    Z, X0, G = rng.standard_normal((3, n, m)) * 10.0 ** rng.integers(-2, 2, m)
    S = rng.random((n, m)) * (rng.random((n, m)) < 0.8)
    Z = np.abs(Z) if positive_Z else Z
    return Equation(A, factors, *(M.astype(dtype) for M in (Z, X0, S, G)), kappa, activation)
