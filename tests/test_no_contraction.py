"""Where the map is no contraction, "auto" solves what Newton's method solves, and says so.

(A + Aᵀ)/2 ≤ 4/5 has one equilibrium for every monotone φ that is 1-Lipschitz, however large A is. Picard's steps then
grow until they overflow.
"""

import numpy as np
import pytest
from conftest import CUDA

from idl_ref import SolveOptions, solve_equilibrium
from idl_ref.solution import Status


def monotone(seed, dtype, scale=None, n=None, m=5):
    """Return A with (A + Aᵀ)/2 ≤ 4/5, of a size between 1 and 1e4, and Z of a size between 1e-3 and 1e3."""
    rng = np.random.default_rng(seed)
    n, scale = n or int(rng.integers(2, 20)), scale or 10 ** rng.uniform(0, 4)
    W, S = rng.standard_normal((2, n, n)) * scale / np.sqrt(n)
    A = 0.8 * np.eye(n) - W.T @ W / scale + S - S.T
    return A.astype(dtype), (rng.standard_normal((n, m)) * 10 ** rng.uniform(-3, 3)).astype(dtype)


def solve(backend, A, Z, activation, method="auto", X0=None, **changes):
    options = SolveOptions(method=method, on_failure="ignore", **changes)
    return solve_equilibrium(A, Z, activation=activation, X0=X0, backend=backend.name, options=options)


def assert_solved(A, Z, activation, solution):
    """Every column is a success, and tol or the rounding of its terms explains its residual, row by row."""
    assert (solution.status <= Status.PRECISION_LIMIT).all()
    A, Z, X = (M.astype(np.longdouble) for M in (A, Z, solution.X))
    P = A @ X + Z
    G = {"relu": np.maximum(P, 0), "identity": P, "tanh": np.tanh(P)}[activation]
    rounding = 4 * (len(A) + 4) * np.finfo(solution.X.dtype).eps * (abs(A) @ abs(X) + abs(Z))
    assert (abs(X - G) <= rounding + 3e-6 * np.minimum(1, abs(Z).max(axis=0))).all()


def seeds(backend, count):
    """Fewer of them where kernels are simulated."""
    return range(3 if backend.name == "cuda" and CUDA else count)


@pytest.mark.parametrize("activation", ["relu", "identity"])
@pytest.mark.parametrize("tol", [0.0, 3e-6])
def test_auto_solves_monotone_equations(backend, activation, tol):
    for seed in seeds(backend, 30):
        A, Z = monotone(seed, backend.dtype, n=5 if CUDA else None)
        assert_solved(A, Z, activation, solve(backend, A, Z, activation, tol=tol))


def test_auto_solves_linear_equations_that_overflow_at_once(backend):
    """After two or four steps, Picard's or Anderson's iteration overflows."""
    for exponent in (0.3, 0.45):
        scale = np.finfo(backend.dtype).max ** exponent
        for seed in seeds(backend, 10):
            A, Z = monotone(seed, backend.dtype, scale=scale, n=4)
            assert_solved(A, Z, "identity", solve(backend, A, Z, "identity"))


def test_large_terms_that_cancel(backend):
    """What rounding adds to A x may be more than √eps of x, because the terms of A x are much larger than x."""
    for seed in seeds(backend, 10):
        rng = np.random.default_rng(seed)
        w, Z = rng.standard_normal((2, 4, 5)).astype(backend.dtype)
        A = (0.8 * np.eye(4) - 30 / np.sqrt(np.finfo(backend.dtype).eps) * w[:, :2] @ w[:, :2].T).astype(backend.dtype)
        assert_solved(A, Z, "identity", solve(backend, A, Z, "identity", tol=0.0))


def test_a_column_that_was_led_away_returns_to_its_start(backend):
    """Where tanh is saturated, its slope is 0, and Newton's step is Picard's. At X0 = 0, it is not."""
    solved = 0
    for seed in seeds(backend, 12):
        A, Z = monotone(seed, backend.dtype, scale=3.0, n=4)
        by_newton = solve(backend, A, Z, "tanh", "newton").status <= Status.PRECISION_LIMIT
        assert (solve(backend, A, Z, "tanh").status[by_newton] <= Status.PRECISION_LIMIT).all()
        solved += by_newton.sum()
    assert solved > 5


def averaged(A, Z):
    """The equilibrium for tanh, by x ← x + α (g(x) − x), which converges for every monotone equation and a small α."""
    A, X, alpha = A.astype(np.float64), np.zeros_like(Z, dtype=np.float64), 0.2 / (1 + np.linalg.norm(A, 2)) ** 2
    for _ in range(100_000):
        X += alpha * (np.tanh(A @ X + Z) - X)
    assert abs(np.tanh(A @ X + Z) - X).max() < 1e-6
    return X


def test_a_column_that_was_led_away_returns_to_a_start_of_ones_own(backend):
    """Newton's method fails from 0 here. It does not from a start near the solution, from which Picard leads away."""
    A, Z = monotone(9, backend.dtype, scale=10.0, n=4)
    X0 = (averaged(A, Z) * 1.001).astype(backend.dtype)
    assert (solve(backend, A, Z, "tanh", max_iter=100).status == Status.MAX_ITER).any()
    assert_solved(A, Z, "tanh", solve(backend, A, Z, "tanh", X0=X0))
