"""These tests check the forward equation against the truth for every backend, and for hard, odd and bad inputs."""

import warnings
from functools import cache

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.strategies import booleans
from strategies import ACTIVATIONS, DTYPES, equations, kappas, kinds, matrix, seeds, sizes

import idl_ref
from idl_ref import ConvergenceWarning, NotConvergedError, SolveOptions, Status, solve_equilibrium
from idl_ref.backends.methods import NEWTON_LIMIT
from idl_ref.backends.numpy import trials

ITERATIVE = ("auto", "picard", "anderson", "newton")
METHOD = pytest.mark.parametrize("method", ITERATIVE)


def options(**changes):
    return SolveOptions(**{"tol": 1e-12, "max_iter": 5000, "on_failure": "ignore", **changes})


def error_inf(X, truth):
    return abs(X - truth).max(axis=0, initial=0)


@cache
def easy_and_hard(dtype):
    """Return one matrix of each kind with ‖A‖∞ = 0.95, and inputs for it."""
    rng = np.random.default_rng(5)
    cases = [
        (matrix(kind, 6, 0.95, rng, dtype), rng.standard_normal((6, 3)).astype(dtype))
        for kind in ("random", "rank_one")
    ]
    return [*cases, (matrix("hard", 6, 0.95, rng, dtype), rng.uniform(0.1, 1, (6, 3)).astype(dtype))]


@cache
def truths(dtype, activation):
    return [naive.forward_truth(A, Z, activation) for A, Z in easy_and_hard(dtype)]


@METHOD
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_method_and_activation_finds_the_truth(backend, activation, method):
    for (A, Z), (X, slack) in zip(easy_and_hard(backend.dtype), truths(backend.dtype, activation), strict=True):
        solution = solve_equilibrium(A, Z, activation=activation, options=options(method=method), backend=backend.name)
        assert solution.converged
        assert solution.X.dtype == backend.dtype
        error = error_inf(solution.X, X)
        assert np.all(error <= solution.error_bound + slack)
        assert np.all(error <= 100 * backend.tolerance * np.maximum(1, abs(X).max(axis=0)) + 20 * 1e-12)


@given(equation=equations())
def test_the_equation_holds_and_the_start_does_not_matter(equation):
    A, Z, activation = equation.A, equation.Z, equation.activation
    tight = options(tol=1e-7 if Z.dtype == np.float32 else 1e-13)
    cold = solve_equilibrium(A, Z, activation=activation, options=tight)
    warm = solve_equilibrium(A, Z, X0=equation.X0, activation=activation, options=tight)
    assert cold.converged
    assert warm.converged
    assert np.all(error_inf(cold.X, warm.X) <= cold.error_bound + warm.error_bound)


# --- the hard case ----------------------------------------------------------------------------------------------------


@cache
def hard_512():
    """Return A ≥ 0 with all row sums 0.99, n = 512, and Z > 0: relu is linear, and Picard needs over 1,000 steps."""
    rng = np.random.default_rng(0)
    A = matrix("hard", 512, 0.99, rng) / (1 - 1e-6)
    Z = rng.uniform(0.1, 1, (512, 4))
    return A, Z


def linear_truth(A, Z):
    """Return (I − A)⁻¹ Z, refined with residuals in longdouble, and a bound of its error."""
    A, Z = A.astype(np.longdouble), Z.astype(np.longdouble)
    inverse = np.linalg.inv(np.eye(len(A)) - A.astype(float))
    X = (inverse @ Z.astype(float)).astype(np.longdouble)
    for _ in range(3):
        residual = Z + A @ X - X
        X = X + (inverse @ residual.astype(float))
    residual = abs(Z + A @ X - X) + 512 * naive.LONG_EPS * abs(X).max()
    return X, (residual.max(axis=0) / (1 - A.sum(axis=1).max())).astype(float)


@pytest.mark.parametrize("method", ["auto", "anderson"])
def test_hard_case_takes_few_steps_and_is_certified(method, backend):
    A, Z = (M.astype(backend.dtype) for M in hard_512())
    tol = 1e-9 if backend.dtype is np.float64 else 3e-6
    solution = solve_equilibrium(A, Z, options=options(tol=tol, max_iter=300, method=method), backend=backend.name)
    assert np.isin(solution.status, [Status.CONVERGED, Status.PRECISION_LIMIT]).all()
    X, slack = linear_truth(A, Z)
    error = error_inf(solution.X, X)
    assert np.all(error <= solution.error_bound + slack)
    if backend.dtype is np.float64:
        assert (solution.status == Status.CONVERGED).all()
        assert solution.iterations.max() <= 40
        assert solution.error_bound.max() <= 1e-6


@pytest.mark.parametrize("method", ["auto", "anderson"])
def test_active_sets_that_change_on_the_way_do_not_stop_anderson(method, backend):
    """For A ≥ 0 with row sums 0.99 and Z of both signs, trial points increase the step at first, then converge."""
    rng = np.random.default_rng(1)
    A = rng.random((256, 256))
    A *= 0.99 / A.sum(axis=1, keepdims=True)
    Z = rng.standard_normal((256, 32))
    A, Z = (M.astype(backend.dtype) for M in (A, Z))
    solution = solve_equilibrium(A, Z, options=options(tol=3e-6, method=method), backend=backend.name)
    assert solution.converged
    assert solution.iterations.max() <= 60  # Picard takes up to 1,000, and LEASH = 8 gave 400.
    assert solution.iterations.mean() <= 25


def test_anderson_begins_with_the_last_application_of_picard(backend):
    """For A = L Rᵀ of rank 1 and κ = 0.99, two points of f give the solution, and Picard leaves one of them behind."""
    A = np.full((6, 6), 0.99 / 6, backend.dtype)
    Z = np.linspace(0.5, 1.5, 18, dtype=backend.dtype).reshape(6, 3)
    for equation in (A, (A[:, :1], np.ones((6, 1), backend.dtype))):
        solution = solve_equilibrium(equation, Z, options=options(tol=1e-5), backend=backend.name)
        assert solution.converged
        # Four by Picard's method, three of them slow, and two by Anderson's; in float32 rounding may ask for one more.
        assert solution.iterations.min() == 6
        assert solution.iterations.max() <= (6 if backend.dtype is np.float64 else 7)


@pytest.mark.parametrize("low_rank", [False, True])
@pytest.mark.parametrize("activation", ["identity", "leaky_relu", "tanh"])
def test_newton_forgets_a_start_that_is_far_larger_than_the_solution(backend, activation, low_rank):
    """An error of eps relative to a start of 1e30 would leave nothing of a solution of 1e-30."""
    A = np.array([[-0.3, 2e-6], [-4e5, -0.5]], backend.dtype)  # The Perron root of |A| is 1.3.
    factors = (A, np.eye(2, dtype=backend.dtype)) if low_rank else A
    Z = np.array([[0, 1e-30, 0.7], [0, 3e-30, -0.2]], backend.dtype)
    X0 = np.full((2, 3), 1e30 if activation != "tanh" else 1e4, backend.dtype)
    solution = solve_equilibrium(
        factors, Z, activation=activation, X0=X0, options=options(tol=1e-6, method="newton"), backend=backend.name
    )
    assert solution.converged
    assert solution.iterations.max() <= (4 if activation == "identity" else 12)
    assert (solution.X[:, 0] == 0).all()
    if activation == "identity":
        truth = np.linalg.solve(np.eye(2) - A.astype(np.float64), Z.astype(np.float64))
        assert np.allclose(solution.X, truth, rtol=100 * np.finfo(backend.dtype).eps, atol=0)


def test_trial_points_are_not_rejected_while_their_steps_shrink(backend):
    """From 40, where the step is 40 (1 − κ), Newton's method goes to 0 and then gains about 1 per step, up to 18."""
    A = np.array([[1 - 2.0 ** (-30 if backend.dtype is np.float64 else -12)]], backend.dtype)
    Z, X0 = np.zeros((1, 1), backend.dtype), np.full((1, 1), 40, backend.dtype)
    for method, most in (("newton", 40), ("auto", 120)):
        chosen = options(tol=1e-12, method=method)
        solution = solve_equilibrium(A, Z, activation="softplus", X0=X0, options=chosen, backend=backend.name)
        assert solution.converged
        assert solution.iterations[0] < most
        assert np.exp(-solution.X[0, 0]) == pytest.approx((1 - A[0, 0]) * solution.X[0, 0], rel=0.01)


def test_picard_shows_its_larger_error_in_the_hard_case():
    A, Z = hard_512()
    solution = solve_equilibrium(A, Z[:, :1], options=options(tol=3e-6, method="picard"))
    error = error_inf(solution.X, linear_truth(A, Z[:, :1])[0])
    assert solution.iterations[0] > 800
    assert 50 * solution.step[0] < error[0] <= solution.error_bound[0]


# --- overflow and underflow -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["auto", "anderson", "newton"])
@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_a_trial_that_overflows_is_no_success(name, method):
    A, Z = np.array([[0.99, 0], [100, 0]], np.float32), np.array([[1e36], [-1e37]], np.float32)
    # The second entry of the solution exceeds the largest float32.
    solution = solve_equilibrium(A, Z, options=options(method=method), backend=name)
    assert solution.status.tolist() == [Status.NONFINITE]
    assert np.isnan(solution.X).all()


@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_finite_columns_near_the_largest_number_are_solved(name):
    A, Z = np.array([[-0.95, 0], [0, 0.01]]), np.array([[9.5e307], [0.0]])
    solution = solve_equilibrium(A, Z, activation="identity", X0=Z, options=options(), backend=name)
    assert solution.converged
    np.testing.assert_allclose(solution.X[:, 0], [9.5e307 / 1.95, 0], rtol=1e-6)


@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_substitution_does_not_hide_a_start_that_is_not_finite(name):
    A, X0 = np.array([[0, 0.5], [0, 0]]), np.array([[np.nan, 0], [0, 0]])
    solution = solve_equilibrium(A, np.ones((2, 2)), X0=X0, options=options(), backend=name)
    assert solution.status.tolist() == [Status.NONFINITE, Status.CONVERGED]
    assert solution.iterations.tolist() == [0, 1]


@pytest.mark.parametrize("name", ["numpy", "numba"])
@pytest.mark.parametrize("factors", [(1e-23, 1e-23, 0.0, 1e38), (1e20, 1e-21, 1e-25, 0.0)], ids=["norm", "product"])
def test_the_bound_holds_where_products_of_factors_underflow(name, factors):
    l, r, z, x0 = (np.full((1, 1), v, np.float32) for v in factors)  # noqa: E741
    how = {"activation": "identity", "options": options(method="picard", max_iter=1 if x0.any() else 300)}
    solution = solve_equilibrium((l, r), z, X0=x0, backend=name, **how)
    truth = naive.Fraction(z.item()) / (1 - naive.Fraction(l.item()) * naive.Fraction(r.item()))
    assert abs(naive.Fraction(solution.X.item()) - truth) <= naive.Fraction(float(solution.error_bound[0]))


@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_any_number_of_iterations_may_be_allowed(name):
    A, Z = np.eye(2) / 2, np.ones((2, 1))
    assert solve_equilibrium(A, Z, options=options(max_iter=1 << 70), backend=name).converged


# --- exact answers ----------------------------------------------------------------------------------------------------


@given(equation=equations())
@settings(max_examples=40)
def test_relu_agrees_with_the_rational_solution(equation):
    A, Z = equation.A, equation.Z
    solution = solve_equilibrium(A, Z, options=options())
    for j in range(Z.shape[1]):
        exact = naive.rational_relu(A, Z[:, j])
        errors = [abs(naive.Fraction(float(a)) - b) for a, b in zip(solution.X[:, j], exact, strict=True)]
        assert max(errors) <= naive.Fraction(solution.error_bound[j])


@pytest.mark.parametrize("turn", [lambda A: A, lambda A: A.T.copy()], ids=["upper", "lower"])
@pytest.mark.parametrize("method", ["auto", "substitution"])
def test_strictly_triangular_is_one_exact_sweep(backend, method, turn):
    """With whole numbers nothing is rounded, so that the sweep is exact, although the norm is far above 1."""
    rng = np.random.default_rng(2)
    A = turn(np.triu(rng.integers(-3, 4, (7, 7)), 1).astype(backend.dtype))
    Z = rng.integers(-5, 6, (7, 3)).astype(backend.dtype)
    solution = solve_equilibrium(A, Z, options=options(method=method, max_iter=1), backend=backend.name)
    X = np.zeros((7, 3))
    for _ in range(7):
        X = np.maximum(naive.product(A, X) + Z, 0)
    np.testing.assert_array_equal(solution.X, X)
    np.testing.assert_array_equal(solution.iterations, 1)
    np.testing.assert_array_equal(solution.step, 0)
    np.testing.assert_array_equal(solution.status, Status.CONVERGED)
    assert np.isfinite(solution.error_bound).all()


@given(n=sizes, seed=seeds)
def test_substitution_is_certified_for_every_triangular_matrix(n, seed):
    rng = np.random.default_rng(seed)
    A, Z = np.triu(3 * rng.standard_normal((n, n)), 1), rng.standard_normal((n, 2))
    solution = solve_equilibrium(A, Z, activation="tanh")
    X, _ = naive.forward_truth(A, Z, "tanh", steps=200)
    assert solution.converged
    assert np.all(error_inf(solution.X, X) <= solution.error_bound)
    assert np.isfinite(solution.error_bound).all()


# --- columns ----------------------------------------------------------------------------------------------------------


@METHOD
def test_columns_do_not_depend_on_their_batch_mates(backend, method):
    rng = np.random.default_rng(4)
    tol = 1e-13 if backend.dtype is np.float64 else 1e-6
    for A, Z in easy_and_hard(backend.dtype):
        Z = np.hstack([Z, 1e3 * Z, np.zeros_like(Z[:, :1])])
        how = {"options": options(method=method, tol=tol), "backend": backend.name}
        whole = solve_equilibrium(A, Z, **how)
        assert whole.converged
        scale = np.maximum(abs(whole.X).max(axis=0), 1e-30)
        atol = 200 * backend.tolerance
        for j in range(Z.shape[1]):
            alone = solve_equilibrium(A, Z[:, [j]], **how)
            np.testing.assert_allclose(alone.X[:, 0] / scale[j], whole.X[:, j] / scale[j], atol=atol)
            assert alone.succeeded[0]
        order = rng.permutation(Z.shape[1])
        shuffled = solve_equilibrium(A, Z[:, order], **how)
        np.testing.assert_allclose(shuffled.X / scale[order], whole.X[:, order] / scale[order], atol=atol)
        for tile in (1, 2, 100):
            tiled = solve_equilibrium(A, Z, options=options(method=method, tol=tol, tile=tile), backend=backend.name)
            np.testing.assert_allclose(tiled.X / scale, whole.X / scale, atol=atol)
            assert tiled.converged


def test_columns_that_turn_slow_at_different_times_keep_their_places():
    """With "auto", columns leave Picard's iteration for Anderson's at different times."""
    rng = np.random.default_rng(0)
    A = np.zeros((12, 12))
    A[:6, :6] = matrix("hard", 6, 0.97, rng)
    A[6:, 6:] = np.eye(6)[[1, 2, 3, 4, 5, 0]] * 0.3
    Z, X0 = rng.uniform(0.1, 1, (2, 12, 30))
    Z[:6] *= 10.0 ** -rng.integers(0, 6, 30)  # This determines when the slow part dominates.
    X0[:6] = 0
    X, slack = naive.forward_truth(A, Z, "relu")
    solution = solve_equilibrium(A, Z, X0=X0, options=options())
    assert solution.converged
    assert np.all(error_inf(solution.X, X) <= solution.error_bound + slack)
    assert error_inf(solution.X, X).max() <= 1e-9


class Hostile:
    """Always proposes trial points that are far from the solution, in all columns."""

    def propose(self, problem, X, P, G, good):
        return X + 1e3, np.ones(X.shape[1], bool)

    def keep(self, alive):
        pass


def test_a_hostile_proposal_costs_a_few_steps_and_is_never_the_answer(monkeypatch):
    monkeypatch.setattr(trials, "Newton", Hostile)
    A, Z = easy_and_hard(np.float64)[2]

    def steps(method, max_iter):
        how = options(method=method, max_iter=max_iter, tol=1e-10)
        return solve_equilibrium(A, Z, options=how, backend="numpy")

    for max_iter in range(1, 40):
        assert np.all(steps("newton", max_iter).step <= steps("picard", 1).step)
    picard, newton = steps("picard", 5000), steps("newton", 5000)
    assert newton.converged
    assert np.all(newton.iterations <= 1.3 * picard.iterations)


def test_a_zero_input_of_relu_is_done_at_once():
    solution = solve_equilibrium(np.full((2, 2), 0.49), np.zeros((2, 1)))
    assert solution.X.tolist() == [[0], [0]]
    assert solution.iterations[0] == 1
    assert solution.status[0] == Status.CONVERGED


@METHOD
@given(equation=equations(low_rank=True))
def test_low_rank_is_the_dense_product(method, equation):
    L, R = equation.pair
    tol = 1e-7 if L.dtype == np.float32 else 1e-13
    low = solve_equilibrium((L, R), equation.Z, activation=equation.activation, options=options(method=method, tol=tol))
    product = L.astype(float) @ R.T.astype(float)
    X, slack = naive.forward_truth(product, equation.Z, equation.activation)
    assert low.converged
    # The float64 product of float32 factors has an error of about 1e-15, which changes X by at most 1e-15/(1 − κ).
    assert np.all(error_inf(low.X, X) <= low.error_bound + slack + 1e-13 * np.maximum(1, abs(X).max(axis=0)))


@METHOD
@given(equation=equations())
def test_warm_restart_takes_one_step(method, equation):
    tol = 1e-4 if equation.Z.dtype == np.float32 else 1e-8
    how = {"activation": equation.activation, "options": options(tol=tol, method=method)}
    first = solve_equilibrium(equation.A, equation.Z, **how)
    again = solve_equilibrium(equation.A, equation.Z, X0=first.X, **how)
    np.testing.assert_array_equal(again.iterations, 1)
    tiled = {**how, "options": options(tol=tol, method=method, tile=1)}
    np.testing.assert_array_equal(solve_equilibrium(equation.A, equation.Z, X0=first.X, **tiled).iterations, 1)
    assert again.converged
    assert np.all(error_inf(first.X, again.X) <= first.error_bound + again.error_bound)


@pytest.mark.parametrize("method", ["auto", "anderson", "newton"])
@given(n=sizes, kind=kinds, kappa=kappas, seed=seeds)
@settings(max_examples=25)
def test_whatever_picard_solves_the_others_solve(method, n, kind, kappa, seed):
    """This also holds for matrices with ‖A‖∞ ≥ 1, stretched and expanding ones."""
    rng = np.random.default_rng(seed)
    A = matrix(kind, n, kappa, rng) * rng.choice([1, 1, 3]) * 10 ** rng.uniform(-1, 1, (n, 1))
    Z = rng.standard_normal((n, 3))
    for activation in ("relu", "tanh"):
        picard = solve_equilibrium(A, Z, activation=activation, options=options(method="picard", max_iter=1000))
        other = solve_equilibrium(A, Z, activation=activation, options=options(method=method, max_iter=1300))
        assert np.all(other.succeeded[picard.succeeded])


# --- columns that fail ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [*ITERATIVE, "substitution"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("activation", ["relu", "tanh", "softplus"])
def test_a_nonfinite_input_stains_its_own_column_only(backend, method, bad, activation):
    A, Z = easy_and_hard(backend.dtype)[2]
    A = np.triu(A, 1) if method == "substitution" else A
    stained = np.hstack([Z, Z])
    stained[2, 1] = stained[0, 4] = bad
    how = {"activation": activation, "options": options(method=method, tol=1e-5), "backend": backend.name}
    clean, solution = solve_equilibrium(A, Z, **how), solve_equilibrium(A, stained, **how)
    assert solution.status.tolist() == [*clean.status[:1], 3, *clean.status[2:], clean.status[0], 3, clean.status[2]]
    for j in (1, 4):
        assert np.isnan(solution.X[:, j]).all()
        assert solution.iterations[j] <= 1
        assert solution.error_bound[j] == np.inf
    good = [0, 2, 3, 5]
    np.testing.assert_allclose(solution.X[:, good], clean.X[:, [0, 2, 0, 2]], rtol=1e-3)


@METHOD
def test_a_nonfinite_start_or_matrix_is_reported(method):
    A, Z = easy_and_hard(np.float64)[0]
    X0 = np.zeros_like(Z)
    X0[1, 1] = np.nan
    assert solve_equilibrium(A, Z, X0=X0, options=options(method=method)).status.tolist() == [0, 3, 0]
    for bad in (np.nan, np.inf):
        broken = A.copy()
        broken[2, 3] = bad
        solution = solve_equilibrium(broken, Z + 1, X0=np.ones_like(Z), options=options(method=method))
        assert (solution.status == Status.NONFINITE).all()
        assert np.isnan(solution.X).all()
        assert solution.iterations.max() <= 1
        assert np.isposinf(solution.error_bound).all()


@METHOD
@pytest.mark.parametrize("dtype", DTYPES)
def test_overflow_is_a_status_and_not_a_warning(method, dtype):
    A = matrix("hard", 4, 0.97, np.random.default_rng(0), dtype)
    Z = np.ones((4, 2), dtype)
    Z[:, 1] = 0.9 * np.finfo(dtype).max
    solution = solve_equilibrium(A, Z, options=options(method=method, tol=1e-5))
    assert solution.succeeded[0]
    assert solution.status[1] == Status.NONFINITE
    assert np.isnan(solution.X[:, 1]).all()
    assert solution.error_bound[1] == np.inf


@METHOD
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("power", [-0.95, -0.5, 0.5, 0.9])
def test_columns_of_any_size_are_solved(method, dtype, power):
    """relu is homogeneous, so that scaled inputs have scaled solutions, as long as the dtype can represent them."""
    rng = np.random.default_rng(1)
    A, Z = matrix("hard", 5, 0.97, rng, dtype), rng.uniform(0.1, 1, (5, 3)).astype(dtype)
    size = dtype(float(np.finfo(dtype).max) ** power)
    tol = 10 * float(np.finfo(dtype).eps)
    how = {"options": options(method=method, tol=tol)}
    unit = solve_equilibrium(A, Z, **how)
    solution = solve_equilibrium(A, np.hstack([Z * size, Z]), **how)
    assert solution.converged
    np.testing.assert_allclose(solution.X[:, :3] / size, unit.X, rtol=2e-4 if dtype is np.float32 else 1e-11)
    np.testing.assert_allclose(solution.X[:, 3:], unit.X, rtol=2e-4 if dtype is np.float32 else 1e-11)


@METHOD
@given(n=sizes, seed=seeds, zero=booleans())
@settings(max_examples=40)
def test_columns_on_their_way_to_0_do_not_stop_the_others(method, n, seed, zero):
    """Differences whose squares underflow may make a system singular, which must not end the call."""
    rng = np.random.default_rng(seed)
    A, Z, X0 = matrix("random", n, 0.9, rng), rng.standard_normal((n, 2)), rng.standard_normal((n, 2))
    Z[:, 1] *= 0 if zero else 1e-158
    X0[:, 1] *= 1 if zero else 1e-158
    solution = solve_equilibrium(A, Z, X0=X0, activation="tanh", options=options(method=method, max_iter=1000))
    assert solution.succeeded[0]
    X, slack = naive.forward_truth(A, Z, "tanh")
    assert np.all(error_inf(solution.X, X) <= solution.error_bound + slack)


@METHOD
@pytest.mark.parametrize("dtype", DTYPES)
@given(n=sizes, seed=seeds)
@settings(max_examples=20)
def test_no_solution_is_never_taken_for_one(method, dtype, n, seed):
    """For A ≥ 0 with Perron root 1.5 and Z > 0, x = max(0, A x + z) has no solution."""
    rng = np.random.default_rng(seed)
    A, Z = matrix("hard", n, 1.5, rng, dtype), rng.uniform(0.1, 1, (n, 2)).astype(dtype)
    solution = solve_equilibrium(A, Z, options=options(method=method, max_iter=150, tol=3e-6))
    assert not solution.succeeded.any()
    assert np.isposinf(solution.error_bound).all()
    np.testing.assert_array_equal(np.isnan(solution.X).all(axis=0), solution.status == Status.NONFINITE)


@METHOD
def test_max_iter_1_is_one_application(backend, method):
    A, Z = easy_and_hard(backend.dtype)[0]
    X0 = np.full_like(Z, 0.5)
    solution = solve_equilibrium(A, Z, X0=X0, options=options(method=method, max_iter=1), backend=backend.name)
    expected = np.maximum(naive.product(A, X0) + Z, 0)
    np.testing.assert_allclose(solution.X, expected, atol=4 * backend.tolerance)
    np.testing.assert_allclose(solution.step, abs(expected - X0).max(axis=0), atol=4 * backend.tolerance)
    np.testing.assert_array_equal(solution.iterations, 1)
    np.testing.assert_array_equal(solution.status, Status.MAX_ITER)


@METHOD
@given(n=sizes, kind=kinds, kappa=kappas, max_iter=sizes, seed=seeds)
def test_the_answer_is_an_application_of_the_map_and_the_limit_is_kept(method, n, kind, kappa, max_iter, seed):
    """X is the result of the last application, and `step` its step: X is never a trial point."""
    rng = np.random.default_rng(seed)
    A, Z = matrix(kind, n, kappa, rng), rng.standard_normal((n, 3))
    solution = solve_equilibrium(A, Z, options=options(method=method, max_iter=max_iter))
    assert solution.iterations.max() <= max_iter
    assert (solution.X >= 0).all()
    next_step = abs(np.maximum(A @ solution.X + Z, 0) - solution.X).max(axis=0)
    assert np.all(next_step <= kappa * solution.step + 1e-13)


@METHOD
@given(equation=equations())
def test_tol_0_ends_at_the_rounding(method, equation):
    how = {"activation": equation.activation, "options": options(tol=0, method=method)}
    solution = solve_equilibrium(equation.A, equation.Z, **how)
    assert solution.converged
    eps = np.finfo(equation.Z.dtype).eps
    size = np.maximum(abs(equation.Z).max(axis=0), abs(solution.X).max(axis=0))
    assert np.all(solution.step <= 4 * eps * size)
    np.testing.assert_array_equal(solution.status == Status.CONVERGED, solution.step == 0)


@given(equation=equations())
def test_a_success_has_the_step_that_was_promised(equation):
    tol = 1e-5
    solution = solve_equilibrium(equation.A, equation.Z, activation=equation.activation, options=options(tol=tol))
    z = abs(equation.Z).max(axis=0)
    limit = np.maximum(
        tol * np.minimum(1, z), 4 * np.finfo(equation.Z.dtype).eps * np.maximum(z, abs(solution.X).max(axis=0))
    )
    if not np.triu(equation.A).any() or not np.tril(equation.A).any():
        return
    assert np.all(solution.step <= limit * (1 + 1e-6))
    np.testing.assert_array_equal(solution.status == Status.PRECISION_LIMIT, solution.step > tol)


# --- on_failure -------------------------------------------------------------------------------------------------------

SLOW = np.array([[0.0, 0.9], [0.9, 0.0]])
FAILURE = (
    r"^forward: 3 of 4 samples not converged after 5 iterations \(worst: sample 2, step 1\.3e\+00 > tol 3e-06\)\. "
    r"Raise max_iter, try method=\"auto\", or check ‖A‖∞ = 0\.9000\.$"
)
SLOW_Z = np.array([[1.0, 0.0, 2.0, 1.0]] * 2)


def test_failure_warns_once_at_the_callers_line():
    with pytest.warns(ConvergenceWarning, match=FAILURE) as record:
        solution = solve_equilibrium(SLOW, SLOW_Z, options=SolveOptions(max_iter=5, method="picard"))
    assert len(record) == 1
    assert record[0].filename == __file__
    assert solution.status.tolist() == [2, 0, 2, 2]


def test_failure_raises_and_carries_the_solution():
    with pytest.raises(NotConvergedError, match=FAILURE) as error:
        solve_equilibrium(SLOW, SLOW_Z, options=SolveOptions(max_iter=5, method="picard", on_failure="raise"))
    assert error.value.solution.status.tolist() == [2, 0, 2, 2]
    np.testing.assert_array_less(0, error.value.solution.error_bound)


def test_failure_is_ignored_only_where_that_is_asked_for():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solve_equilibrium(SLOW, SLOW_Z, options=SolveOptions(max_iter=5, method="picard", on_failure="ignore"))
        solve_equilibrium(SLOW, SLOW_Z)


def test_the_message_tells_of_nonfinite_samples_and_of_both():
    Z = SLOW_Z.copy()
    Z[0, 3] = np.nan
    with pytest.warns(
        ConvergenceWarning, match=r"^forward: 1 of 4 samples not finite \(first: sample 3\): an input is"
    ):
        solve_equilibrium(SLOW, Z)
    with pytest.warns(ConvergenceWarning, match=r"2 of 4 samples not converged .* 1 of 4 samples not finite") as record:
        solve_equilibrium(SLOW, Z, options=SolveOptions(max_iter=5))
    assert len(record) == 1
    L, R = np.array([[0.9], [0.9]]), np.array([[0.5], [0.5]])
    with pytest.warns(ConvergenceWarning, match="or check ‖A‖∞ ≤ 0.9000"):
        solve_equilibrium((L, R), SLOW_Z, options=SolveOptions(max_iter=5, method="picard"))


# --- inputs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [*ITERATIVE, "substitution"])
def test_no_samples(backend, method):
    A = np.triu(np.ones((3, 3), backend.dtype), 1)
    factors = [A] if method == "substitution" else [A, A.T + A, (A[:, :2] / 9, A[:, 1:] / 9)]
    for F in factors:
        empty = np.zeros((3, 0), backend.dtype)
        for X0 in (None, empty):
            solution = solve_equilibrium(
                F, empty, X0=X0, options=SolveOptions(method=method, tile=2), backend=backend.name
            )
            assert solution.X.shape == (3, 0)
            assert solution.X.dtype == backend.dtype
            assert solution.converged
            for array in (solution.status, solution.iterations, solution.step, solution.error_bound):
                assert array.shape == (0,)
            assert solution.require(0) is solution


@pytest.mark.sampled(2)
@pytest.mark.parametrize("method", [*ITERATIVE, "substitution"])
def test_layouts_do_not_matter_and_inputs_are_not_touched(backend, method):
    rng = np.random.default_rng(7)
    kind = "upper" if method == "substitution" else "random"
    A = matrix(kind, 5, 0.9, rng, backend.dtype)
    Z, X0 = rng.standard_normal((2, 5, 4)).astype(backend.dtype)
    how = {"options": options(method=method, tol=1e-5), "backend": backend.name}
    expected = solve_equilibrium(A, Z, X0=X0, **how).X

    def strided(M):
        big = np.full((2 * M.shape[0], 3 * M.shape[1]), np.nan, M.dtype)
        big[::2, ::-3] = M
        return big[::2, ::-3]

    for layout in (np.ascontiguousarray, np.asfortranarray, strided):
        views = [layout(M) for M in (A, Z, X0)]
        for view in views:
            view.flags.writeable = False
        solution = solve_equilibrium(views[0], views[1], X0=views[2], **how)
        np.testing.assert_allclose(solution.X, expected, atol=1e-4)
        assert solution.X.flags.writeable
        assert not any(np.shares_memory(solution.X, view) for view in views)
        for view, M in zip(views, (A, Z, X0), strict=True):
            np.testing.assert_array_equal(view, M)


def test_the_answer_never_aliases_an_input():
    Z = np.ones((2, 2))
    for activation in ("identity", "relu"):
        solution = solve_equilibrium(np.zeros((2, 2)), Z, X0=Z, activation=activation)
        assert not np.shares_memory(solution.X, Z)


def test_lists_and_whole_numbers_are_float64():
    solution = solve_equilibrium([[0, 0.5], [-0.5, 0]], [[1], [2]], options=SolveOptions(tol=1e-12))
    np.testing.assert_allclose(solution.X, [[1.6], [1.2]], rtol=1e-11)
    assert solution.X.dtype == np.float64
    assert solve_equilibrium(np.zeros((1, 1), np.float16), np.ones((1, 1), np.float32)).X.dtype == np.float32


EYE, ONES = np.eye(2) / 2, np.ones((2, 3))


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ((EYE * 1j, ONES), TypeError, "A must hold real numbers of at most 64 bits; got dtype complex128"),
        ((EYE, ONES * 1j), TypeError, "Z must hold real numbers of at most 64 bits; got dtype complex128"),
        ((EYE, ONES.astype(object)), TypeError, "Z must hold real numbers .* got dtype object"),
        ((EYE, [["a"], ["b"]]), TypeError, "Z must hold real numbers"),
        (((EYE, EYE * 1j), ONES), TypeError, "R must hold real numbers"),
        ((EYE, np.ones(2)), ValueError, r"Z must be a matrix of shape \(n, m\); got 1 dimensions, \(2,\)"),
        ((EYE, np.ones((2, 3, 1))), ValueError, r"Z must be a matrix of shape \(n, m\); got 3 dimensions"),
        ((EYE, np.ones((3, 2))), ValueError, r"Z must have shape \(2, 2\), one row per row of A; got \(3, 2\)"),
        ((np.ones((2, 3)), ONES), ValueError, r"A must have shape \(2, 2\), square; got \(2, 3\)"),
        (((EYE,), ONES), ValueError, r"A must be a matrix or a pair \(L, R\)"),
    ],
)
def test_wrong_inputs_are_refused(arguments, kind, message):
    with pytest.raises(kind, match=message):
        solve_equilibrium(*arguments)


def test_wrong_keywords_are_refused():
    with pytest.raises(ValueError, match=r"X0 must have shape \(2, 3\), that of Z; got \(2, 1\)"):
        solve_equilibrium(EYE, ONES, X0=np.ones((2, 1)))
    with pytest.raises(TypeError, match="X0 must hold real numbers"):
        solve_equilibrium(EYE, ONES, X0=ONES * 1j)
    with pytest.raises(ValueError, match="must be non-expansive; got 'gelu'"):
        solve_equilibrium(EYE, ONES, activation="gelu")
    with pytest.raises(ValueError, match="backend must be one of 'auto', 'numpy', 'numba', 'cuda'; got 'jax'"):
        solve_equilibrium(EYE, ONES, backend="jax")


def test_an_unavailable_backend_says_why():
    for name, reason in idl_ref.available_backends().items():
        if reason != "available":
            with pytest.raises(ValueError, match=f"backend '{name}' is not available: .* Available: numpy"):
                solve_equilibrium(EYE, ONES, backend=name)


def test_methods_that_do_not_fit_are_refused(backend):
    def refused(A, method, message):
        Z = np.ones((len(A[0]) if isinstance(A, tuple) else len(A), 1), backend.dtype)
        with pytest.raises(ValueError, match=message):
            solve_equilibrium(A, Z, options=SolveOptions(method=method), backend=backend.name)

    big = np.zeros((NEWTON_LIMIT + 1, NEWTON_LIMIT + 1), backend.dtype)
    message = (
        r'method "newton" solves an n × n system per sample and needs n ≤ 2048, .* got n = 2049: use method="auto"'
    )
    refused(big, "newton", message)
    triangular = 'method "substitution" needs a strictly triangular A; got '
    refused(
        np.eye(3, dtype=backend.dtype), "substitution", triangular + "entries on the diagonal or on both sides of it"
    )
    refused(np.ones((3, 3), backend.dtype), "substitution", triangular)
    refused((big[:, :1], big[:, :1]), "substitution", triangular + "a product of factors")
    solve_equilibrium((big[:, :1], big[:, :1]), big[:, :1], options=SolveOptions(method="newton"), backend=backend.name)
    fits = solve_equilibrium(
        big[:256, :256], big[:256, :1] + 1, options=SolveOptions(method="newton"), backend=backend.name
    )
    assert fits.converged


def test_newton_is_exact_where_the_map_is_linear():
    A, Z = easy_and_hard(np.float64)[2]
    solution = solve_equilibrium(A, Z, options=options(method="newton"))
    assert solution.iterations.max() <= 4


def test_a_singular_newton_system_is_not_the_end_of_its_neighbours():
    """Newton's system of column 0 is singular at its start; those of the other columns are not."""
    A = np.array([[1.0, 0.0], [0.0, 0.5]])
    Z = np.array([[-1.0, -1.0, -2.0], [1.0, 2.0, 3.0]])
    X0 = np.array([[5.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    solution = solve_equilibrium(A, Z, X0=X0, options=options(method="newton", max_iter=100))
    assert solution.converged
    np.testing.assert_allclose(solution.X, [[0, 0, 0], [2, 4, 6]], atol=1e-10)
