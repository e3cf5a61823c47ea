"""A success is right in every row, and what cannot get better ends; "auto" solves what Newton's method solves."""

from fractions import Fraction

import numpy as np
import pytest

from idl_ref import SolveOptions, Status, solve_adjoint, solve_equilibrium
from idl_ref.backends import methods

TWINS = ("numpy", "numba")
CPU = pytest.mark.parametrize("twin", TWINS)
METHOD = pytest.mark.parametrize("method", ["auto", "picard", "anderson", "newton"])


def solve(A, Z, activation, twin, dtype="float32", X0=None, **options):
    A, Z = np.asarray(A, dtype), np.asarray(Z, dtype)
    X0 = None if X0 is None else np.asarray(X0, dtype)
    options = SolveOptions(on_failure="ignore", **options)
    return solve_equilibrium(A, Z, activation=activation, X0=X0, options=options, backend=twin)


# --- rows of different size -------------------------------------------------------------------------------------------


@CPU
@METHOD
def test_a_huge_row_does_not_excuse_the_others(twin, method):
    solution = solve([[0, 0.9], [0.9, 0]], [[-1e7], [0.5]], "tanh", twin, method=method)
    assert solution.converged
    np.testing.assert_allclose(solution.X[:, 0], [-1, np.tanh(0.5 - 0.9)], atol=1e-6)
    solution = solve([[0.9, 0], [0, 0.9]], [[1e4], [0.2]], "relu", twin, method=method, max_iter=1000)
    assert solution.converged
    np.testing.assert_allclose(solution.X[:, 0], [1e5, 2], rtol=3e-5)


@CPU
@METHOD
@pytest.mark.parametrize("huge", [1e3, 1e4, 1e5, -1e7])
def test_a_saturated_unit_does_not_excuse_those_that_it_feeds(twin, method, huge):
    rng = np.random.default_rng(0)
    A = rng.standard_normal((20, 20))
    A *= 0.99 / np.abs(A).sum(axis=1, keepdims=True)
    Z = 0.4 * rng.standard_normal((20, 3))
    Z[7] = huge
    solution = solve(A, Z, "tanh", twin, method=method)
    exact = solve(A.astype("float32"), Z.astype("float32"), "tanh", "numpy", "float64", tol=1e-15, method="newton")
    assert solution.converged
    assert np.abs(solution.X - exact.X).max() < 3e-6


@CPU
def test_large_cotangents_do_not_excuse_the_others(twin):
    """The adjoint equation of two units that do not meet, with cotangents of very different size."""
    A, S, G = (np.array(M, "float32") for M in ([[0.9, 0], [0, 0.9]], [[1], [1]], [[1e4], [0.2]]))
    options = SolveOptions(max_iter=1000, method="picard")
    np.testing.assert_allclose(solve_adjoint(A, S, G, options=options, backend=twin).X[:, 0], [1e5, 2], rtol=1e-4)


# --- what cannot get better -------------------------------------------------------------------------------------------


@CPU
@pytest.mark.parametrize("kappa", [0.99, 0.995])
def test_cycles_in_the_last_digits_are_recognised(twin, kappa):
    """Picard's iteration from z alternates between two numbers at the end, which differ by up to 138 eps·|x|."""
    Z = 1000 * (1 + 0.1 * np.random.default_rng(0).standard_normal((1, 300)))
    solution = solve([[-kappa]], Z, "identity", twin, method="picard", max_iter=5000)
    assert (solution.status == Status.PRECISION_LIMIT).all()
    a = np.float32(-kappa)
    exact = Z.astype("float32") / (1 - a.astype(float))
    allowed = 16 * 3 * np.finfo("float32").eps * np.abs(exact) / (1 - kappa)
    assert (np.abs(solution.X - exact) <= allowed).all()


@CPU
def test_a_cycle_far_from_rounding_is_no_success(twin):
    """A rotation by 90° returns to the same point after four steps, and never converges."""
    solution = solve([[0, -1], [1, 0]], [[1.0], [1.0]], "identity", twin, "float64", method="picard", max_iter=500)
    assert solution.status.tolist() == [Status.MAX_ITER]


@CPU
@METHOD
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("a", [0.25, 0.9])
def test_columns_that_decay_are_zero(twin, method, dtype, a):
    tiny = float(np.finfo(dtype).smallest_subnormal)
    solution = solve([[a]], [[0.0, 1000 * tiny]], "relu", twin, dtype, X0=[[1.0, 1.0]], method=method)
    assert solution.converged
    assert solution.X[0, 0] == 0
    np.testing.assert_allclose(solution.X[0, 1], 1000 * tiny / (1 - a), rtol=0.02)


@CPU
def test_a_start_that_is_farther_than_0_costs_nothing(twin):
    far = solve([[0.5]], [[1e-300]], "relu", twin, "float64", X0=[[1.0]], method="picard")
    near = solve([[0.5]], [[1e-300]], "relu", twin, "float64", method="picard")
    assert far.iterations.tolist() == near.iterations.tolist()
    np.testing.assert_array_equal(far.X, near.X)


# --- the answer that is judged ----------------------------------------------------------------------------------------


@CPU
def test_outside_of_the_ball_the_answer_is_the_point_that_was_judged(twin):
    A, Z = 1e5 * np.array([[0, -1.0], [1, 0]]), np.array([[1.0], [2.0]])
    solution = solve(A, Z, "identity", twin, "float64", tol=1e-6, method="newton")
    (a, b), (z_a, z_b) = ([Fraction(float(v)) for v in M[:, 0]] for M in (solution.X, Z))
    residual = [abs(-Fraction(10**5) * b + z_a - a), abs(Fraction(10**5) * a + z_b - b)]
    assert solution.converged
    assert max(residual) <= 1e-6


# --- "auto" -----------------------------------------------------------------------------------------------------------

N = 50
EYE = np.eye(N)
SHUFFLE = np.random.default_rng(1).permutation(N)
HARD = {
    "permutation": (0.99 * EYE[SHUFFLE], "relu"),
    "delay line": (0.99 * np.roll(EYE, 1, 0), "relu"),
    "cycle": (0.999 * np.roll(EYE, 1, 0), "relu"),
    "negative permutation": (-0.999 * EYE[SHUFFLE], "leaky_relu"),
    "diagonal": (np.diag(np.linspace(-0.999, 0.999, N)), "identity"),
    "path": (0.4999 * (np.eye(N, k=1) + np.eye(N, k=-1)), "relu"),
    "nonnormal": (0.5 * EYE + 0.49 * np.eye(N, k=1), "identity"),
    "low rank": ((EYE[:, :5], 0.999 * EYE[:, :5][:, ::-1]), "relu"),
}


@CPU
@pytest.mark.parametrize("max_iter", [40, 300])
@pytest.mark.parametrize("name", HARD)
def test_auto_solves_what_newton_solves(twin, name, max_iter):
    A, activation = HARD[name]
    Z = np.abs(np.random.default_rng(2).standard_normal((N, 4)))
    options = SolveOptions(max_iter=max_iter)
    solution = solve_equilibrium(A, Z, activation=activation, options=options, backend=twin)
    exact = solve_equilibrium(
        A, Z, activation=activation, options=SolveOptions(1e-13, method="newton"), backend="numpy"
    )
    np.testing.assert_allclose(solution.X, exact.X, rtol=1e-3, atol=3e-3)


@CPU
def test_columns_that_anderson_acceleration_solves_do_not_pay_for_newtons_method(twin):
    """Nonnegative rows at κ = 0.99 need 10 to 30 applications; Newton's method would cost hundreds."""
    A = np.random.default_rng(0).random((100, 100))
    A *= 0.99 / A.sum(axis=1, keepdims=True)
    Z = np.abs(np.random.default_rng(1).standard_normal((100, 8)))
    auto, newton = (
        solve_equilibrium(A, Z, options=SolveOptions(method=method), backend=twin).iterations
        for method in ("auto", "newton")
    )
    assert auto.max() < 40
    assert newton.max() < 10
    assert methods.newton_cost((A,)) > 1000


def test_the_estimate_of_newtons_cost_knows_sparse_matrices_and_limits():
    assert methods.newton_cost((EYE,)) < methods.newton_cost((np.ones_like(EYE),)) / 10
    big = np.empty((methods.NEWTON_LIMIT + 1, methods.NEWTON_LIMIT + 1))
    assert methods.newton_cost((big,)) == np.inf


@pytest.mark.parametrize(("method", "other"), [("picard", "auto"), ("anderson", "auto"), ("auto", "newton")])
def test_the_warning_recommends_another_method(method, other):
    A, Z = 1.5 * np.array([[0.0, 1.0], [1.0, 0.0]]), np.ones((2, 1))
    with pytest.warns(RuntimeWarning, match=f'try method="{other}"'):
        solve_equilibrium(A, Z, options=SolveOptions(max_iter=8, method=method))


@pytest.mark.parametrize(
    ("step", "before", "limit", "least", "most"),
    [
        (1.0, np.inf, 0.5, 0, 1),  # after an infinite step
        (1e-300, 1e300, 1e-301, 0, 1),  # a ratio below the smallest number
        (1e300, 2e300, 1e-300, 1000, np.inf),  # a limit that far below the step
        (0.5, 1.0, 0.125, 2, 2),
        (1.0, 1.0, 0.5, np.inf, np.inf),
        (1.0, 2.0, 0.0, np.inf, np.inf),
        (0.0, 1.0, 0.5, np.inf, np.inf),
        (np.nan, 1.0, 0.5, np.inf, np.inf),
    ],
)
def test_the_steps_that_are_left_can_be_estimated_at_the_ends_of_the_range(step, before, limit, least, most):
    assert least <= methods.steps_left(step, before, limit) <= most
