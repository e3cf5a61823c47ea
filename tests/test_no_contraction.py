"""Where the map is no contraction, "auto" solves what Newton's method solves, and says so.

(A + Aᵀ)/2 ≤ 4/5 has one equilibrium for every monotone φ that is 1-Lipschitz, however large A is. Picard's steps then
grow until they overflow.
"""

import numpy as np
import pytest
from conftest import CUDA

from idl_ref import SolveOptions, solve_adjoint, solve_equilibrium
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
    """Fewer of them where kernels run in the simulator, and fewest where each instruction is interpreted."""
    return range({"sim": 3, "ptx": 1}.get(CUDA, count) if backend.name == "cuda" else count)


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
    solved, some = 0, seeds(backend, 12)
    for seed in some:
        A, Z = monotone(seed, backend.dtype, scale=3.0, n=4)
        by_newton = solve(backend, A, Z, "tanh", "newton").status <= Status.PRECISION_LIMIT
        assert (solve(backend, A, Z, "tanh").status[by_newton] <= Status.PRECISION_LIMIT).all()
        solved += by_newton.sum()
    assert solved > 4 * len(some)


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


# --- what an attack from outside found --------------------------------------------------------------------------------


def test_a_start_whose_first_step_overflows(backend):
    """No entry of memory that nobody has written becomes a start: the answer is the same alone and in a batch."""
    A, big = np.array([[-1.01]], backend.dtype), np.finfo(backend.dtype).max * backend.dtype(0.9)
    Z = np.ones((1, 6), backend.dtype)
    X0 = np.array([[big, 0, 1, big, 2, big]], backend.dtype)
    batch = solve(backend, A, Z, "identity", X0=X0)
    assert (batch.status[[0, 3, 5]] == Status.NONFINITE).all()
    for j in range(6):
        alone = solve(backend, A, Z[:, j : j + 1], "identity", X0=X0[:, j : j + 1])
        assert (alone.status, alone.iterations) == (batch.status[j], batch.iterations[j])


@pytest.mark.parametrize("method", ["anderson", "auto"])
def test_a_trial_point_that_overflows_is_no_success(backend, method):
    A = np.array([[5e5, -1e5], [-2e5, -8e5]], backend.dtype)
    S, G = np.array([[600.0], [700.0]], backend.dtype), np.array([[5.0], [2.0]], backend.dtype)
    options = SolveOptions(method=method, on_failure="ignore")
    solution = solve_adjoint(A, S, G, backend=backend.name, options=options)
    exact = np.linalg.solve(np.eye(2) - S.astype(float) * A.T.astype(float), S.astype(float) * G)
    succeeded = solution.status[0] <= Status.PRECISION_LIMIT
    assert succeeded or method == "anderson"
    assert not succeeded or np.allclose(solution.X, exact, rtol=1e-3)


@pytest.mark.parametrize("activation", ["relu", "identity"])
def test_the_second_step_of_anderson_may_overflow(backend, activation):
    """One step leads from X0 to a point of which nothing is known but that its own step overflows."""
    big = np.sqrt(np.finfo(backend.dtype).max) * 1e11
    A, Z = np.array([[-big]], backend.dtype), np.array([[big / 1e20]], backend.dtype)
    assert_solved(A, Z, activation, solve(backend, A, Z, activation))


def test_the_point_that_is_handed_over_is_the_one_that_was_judged(backend):
    """g of a good point may be a bad one where g is no contraction: here hardtanh is saturated there."""
    A = np.array([[-376.3259582519531, 204.2900848388672], [240.87460327148438, -161.24583435058594]], backend.dtype)
    Z = np.array([[-0.11946886032819748], [-0.11621224880218506]], backend.dtype)
    assert solve(backend, A, Z, "hardtanh").status[0] <= Status.PRECISION_LIMIT


def test_the_bound_of_a_column_with_a_bounded_range_does_not_depend_on_its_batch(backend):
    A = np.array([[-0.51, 0.48], [0.62, -0.37]], backend.dtype)
    Z = np.array([[-0.0164, -0.0147], [-0.1726, 0.0191]], backend.dtype)
    batch = solve(backend, A, Z, "hardtanh", "picard", max_iter=3).error_bound
    alone = [solve(backend, A, Z[:, j : j + 1], "hardtanh", "picard", max_iter=3).error_bound[0] for j in (0, 1)]
    np.testing.assert_allclose(batch, alone, rtol=1e-5)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("low_rank", [False, True])
def test_a_norm_that_overflows_warns_of_nothing(backend, low_rank):
    A = np.full((2, 2), -0.95 * np.finfo(backend.dtype).max, backend.dtype)
    factors = (A, np.ones((2, 2), backend.dtype)) if low_rank else A
    Z = np.ones((2, 1), backend.dtype)
    for method in ("auto", "picard", "anderson", "newton"):
        options = SolveOptions(method=method, max_iter=10, on_failure="ignore")  # the norms come before and after
        solve_equilibrium(factors, Z, backend=backend.name, options=options)
        solve_adjoint(factors, Z, Z, backend=backend.name, options=options)


@pytest.mark.parametrize("A", [[[np.inf, 0.0], [0.0, 0.5]], [[0.0, 0.0], [-np.inf, 0.0]], [[0.5, np.nan], [0.0, 0.5]]])
@pytest.mark.parametrize("X0", [None, np.ones((2, 1))], ids=["from 0", "from 1"])
@pytest.mark.parametrize("method", ["auto", "picard", "anderson", "newton"])
def test_an_entry_of_A_that_is_not_finite_is_no_success_under_a_bounded_activation(backend, method, X0, A):
    """sigmoid(∞) = 1 looked like a solution from a start of ones, and from every start for a triangular A."""
    A = np.array(A, backend.dtype)
    X0 = None if X0 is None else X0.astype(backend.dtype)
    options = SolveOptions(method=method, on_failure="ignore")
    arguments = {"activation": "sigmoid", "options": options, "backend": backend.name}
    solution = solve_equilibrium(A, np.ones((2, 1), backend.dtype), X0=X0, **arguments)
    assert solution.status.tolist() == [Status.NONFINITE]
    assert np.isnan(solution.X).all()
