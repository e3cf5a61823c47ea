"""The CUDA twin against the NumPy twin: when a column stops, which answer it gets, and which method continues.

As in test_cuda_kernels, IDL_REF_CUDA=sim or IDL_REF_CUDA=ptx chooses how the kernels run.
"""

import numpy as np
import pytest
from conftest import CUDA
from strategies import DTYPES

from idl_ref import SolveOptions, Status, solve_adjoint, solve_equilibrium
from idl_ref.backends.numpy import solve as definition
from idl_ref.backends.numpy import trials

pytestmark = pytest.mark.cuda
if not CUDA:
    pytest.skip("set IDL_REF_CUDA=sim or IDL_REF_CUDA=ptx", allow_module_level=True)
from idl_ref.backends.cuda import layer as cuda_  # noqa: E402
from idl_ref.backends.cuda import plans as cuda_plans  # noqa: E402
from idl_ref.backends.cuda.states import SLOW  # noqa: E402

KINDS = ("shared", "streamed", "low_rank", "large", "large low_rank")
METHODS = ("picard", "anderson", "newton")
CASES = [(kind, method) for kind in KINDS for method in METHODS if method != "newton" or kind.startswith("large")]
TWINS = ("cuda", "numpy")


@pytest.fixture
def only(monkeypatch):
    """Return a function that leaves only one kind of kernel in TABLE."""

    def leave(kind):
        rows = tuple(row for row in cuda_plans.TABLE if row.kind == kind.split()[0])
        monkeypatch.setattr(cuda_plans, "TABLE", rows)

    return leave


def factors(A, kind):
    """Return A, or for a low-rank kind its factors A and I."""
    return (A, np.eye(len(A), dtype=A.dtype)) if kind.endswith("low_rank") else A


def quiet(**changes):
    """Return options that neither warn nor raise."""
    return SolveOptions(on_failure="ignore", **changes)


@pytest.mark.parametrize(("kind", "method"), CASES)
def test_a_large_entry_does_not_excuse_other_rows(only, kind, method):
    only(kind)
    A = factors(np.array([[0, 0.9], [0.9, 0]], np.float32), kind)
    Z = np.array([[-1e7, 1e7, 0.25], [0.5, 0.5, 0.5]], np.float32)
    how = {"activation": "tanh", "options": quiet(method=method)}
    ours, theirs = (solve_equilibrium(A, Z, **how, backend=backend) for backend in TWINS)
    assert ours.converged
    np.testing.assert_allclose(ours.X[:, :2], [[-1, 1], np.tanh([-0.4, 1.4])], atol=1e-5)
    np.testing.assert_allclose(ours.X, theirs.X, atol=1e-5)
    np.testing.assert_array_equal(ours.status, theirs.status)
    assert abs(ours.iterations - theirs.iterations).max() <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_decoupled_rows_are_judged_one_by_one(only, kind):
    only(kind)
    A, Z = factors(np.diag([0.5, 0.9]).astype(np.float32), kind), np.array([[1e4, 0], [0.2, 0.2]], np.float32)
    for method in ("picard", "anderson"):
        ours, theirs = (solve_equilibrium(A, Z, options=quiet(method=method), backend=backend) for backend in TWINS)
        np.testing.assert_allclose(ours.X, [[2e4, 0], [2, 2]], rtol=2e-5)
        np.testing.assert_array_equal(ours.status, theirs.status)
        assert ours.converged


@pytest.mark.parametrize(("kind", "method"), CASES)
def test_steps_below_the_rounding_of_every_row_are_the_precision_limit(only, kind, method):
    only(kind)
    rng = np.random.default_rng(0)
    A = (rng.standard_normal((5, 5)) / 12).astype(np.float32)
    Z = (10.0 ** rng.integers(-3, 8, (5, 5)) * rng.standard_normal((5, 5))).astype(np.float32)
    S = rng.uniform(0.1, 1, Z.shape).astype(np.float32)
    how = quiet(method=method, tol=0)
    for solve, more in ((solve_equilibrium, ()), (solve_adjoint, (S,))):
        ours, theirs = (solve(factors(A, kind), *more, Z, options=how, backend=backend) for backend in TWINS)
        assert set(ours.status) <= {Status.CONVERGED, Status.PRECISION_LIMIT}
        assert Status.PRECISION_LIMIT in ours.status
        assert ours.iterations.max() < 60
        np.testing.assert_allclose(ours.X, theirs.X, rtol=1e-3, atol=1e-5)


def test_a_cycle_in_the_last_digits_is_recognised():
    A = np.array([[-0.9]], np.float32)
    Z = np.linspace(990, 1010, 16, dtype=np.float32)[None]
    how = quiet(method="picard", tol=1e-9, max_iter=600)
    for picked in (slice(None), slice(3, 4)):
        ours, theirs = (
            solve_equilibrium(A, Z[:, picked], activation="identity", options=how, backend=b) for b in TWINS
        )
        np.testing.assert_allclose(ours.X, Z[:, picked] / 1.9, rtol=2e-6)
        np.testing.assert_array_equal(ours.status, theirs.status)
        assert ours.converged
        assert ours.iterations.max() < 300


@pytest.mark.parametrize("kind", KINDS)
def test_a_return_to_an_earlier_iterate_is_recognised(only, kind):
    """Near the solution, −0.999 x + z alternates between two numbers whose distance is above the rounding of a step."""
    only(kind)
    A, Z = -0.999 * np.eye(3, dtype=np.float32), np.linspace(900, 1000, 15, dtype=np.float32).reshape(3, 5)
    how = {"X0": (Z / 1.999 * (1 + 1e-5)).astype(np.float32), "activation": "identity"}
    options = quiet(method="picard", tol=1e-9)
    ours, theirs = (solve_equilibrium(factors(A, kind), Z, **how, options=options, backend=b) for b in TWINS)
    np.testing.assert_array_equal(ours.status, [Status.PRECISION_LIMIT] * 5)
    np.testing.assert_array_equal(ours.status, theirs.status)
    assert ours.iterations.max() <= 150
    np.testing.assert_allclose(ours.X, Z / 1.999, rtol=2e-5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", ["auto", *METHODS])
def test_a_start_far_away_is_replaced_by_0(method, dtype):
    tiny = np.finfo(dtype).tiny
    A = np.array([[0.5, -0.25], [0.25, 0.5]], dtype)
    Z = np.array([[0, tiny / 4, 1, 1], [0, 0, 2, 2]], dtype)
    X0 = np.array([[3, -1, 1e20, 1], [1, 1e-3, 0, 3]], dtype)
    for solve, more in ((solve_equilibrium, ()), (solve_adjoint, (np.ones_like(Z) * dtype(0.9),))):
        start = {"X0": X0} if solve is solve_equilibrium else {"V0": X0}
        ours, theirs = (solve(A, *more, Z, **start, options=quiet(method=method), backend=b) for b in TWINS)
        np.testing.assert_array_equal(ours.status, theirs.status)
        assert ours.converged
        assert ours.iterations[0] == theirs.iterations[0] == 1
        assert abs(ours.iterations - theirs.iterations).max() <= 2
        np.testing.assert_allclose(ours.X[:, 1] / tiny, theirs.X[:, 1] / tiny, atol=16 * np.finfo(dtype).eps)
        assert ours.X[:, 0].tolist() == [0, 0]
        np.testing.assert_allclose(ours.X, theirs.X, rtol=1e-4, atol=1e-5)
        bounds = (solution.error_bound for solution in (ours, theirs))
        np.testing.assert_allclose(*bounds, rtol=0.5, atol=4 * tiny)


@pytest.mark.parametrize("low_rank", [False, True])
def test_where_g_is_no_contraction_the_answer_is_the_judged_iterate(low_rank):
    A, Z = 1e5 * np.array([[0.0, -1], [1, 0]]), np.array([[1.0, -3], [2, 0.5]])
    F = (A, np.eye(2)) if low_rank else A
    how = {"activation": "identity", "options": quiet(method="newton", tol=1e-6)}
    ours, theirs = (solve_equilibrium(F, Z, **how, backend=backend) for backend in TWINS)
    assert ours.converged
    np.testing.assert_array_equal(ours.status, theirs.status)
    residual = abs(A @ ours.X + Z - ours.X).max(axis=0)
    np.testing.assert_allclose(residual, ours.step, atol=1e-9)
    assert (residual <= 1e-6).all()


@pytest.mark.parametrize("method", ["picard", "anderson"])
@pytest.mark.parametrize("kind", KINDS)
def test_kappa_decides_per_column_which_iterate_is_the_answer(only, kind, method):
    only(kind)
    A, G = np.array([[0, 1.0], [0.5, 0]]), np.array([[1.0, 1, 1], [2, 2, 2]])
    S = np.array([[0.5, 1, 0.5], [0.5, 1, 1]])  # ‖A‖∞ = 1: g is known to be a contraction only for the first column
    how = quiet(method=method, tol=1e-2)
    ours, theirs = (solve_adjoint(factors(A, kind), S, G, options=how, backend=backend) for backend in TWINS)
    np.testing.assert_allclose(ours.X, theirs.X, rtol=1e-12)
    np.testing.assert_array_equal(ours.status, theirs.status)
    np.testing.assert_allclose(ours.error_bound, theirs.error_bound, rtol=0.5)


def test_the_kernels_know_exactly_where_the_certificate_sees_a_contraction():
    rng = np.random.default_rng(2)
    norms = [0.0, 0.99, 1.0, 1.0 + 1e-16, 1e300, 1e-310, 5e-324, np.inf, np.nan, *(10.0 ** rng.uniform(-50, 50, 200))]
    for dtype in map(np.dtype, DTYPES):
        for norm in norms:
            s = cuda_.steepest(norm, dtype)
            assert s.dtype == dtype
            if not norm < np.inf:
                assert s == -1
                continue
            assert float(s) * norm < 1
            assert s == np.finfo(dtype).max or not float(np.nextafter(s, dtype.type(np.inf))) * norm < 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["dense", "low_rank", "large"])
def test_auto_turns_to_newton_where_anderson_does_not_help(only, kind, dtype):
    if kind == "large":
        only(kind)
    n = 8
    A, Z = (0.999 * np.roll(np.eye(n), 1, 0)).astype(dtype), np.zeros((n, 3), dtype)
    Z[0, 0], Z[:, 1], Z[3, 2] = 1, np.arange(n), -1
    how = {"activation": "identity", "options": quiet(max_iter=40)}
    ours, theirs = (solve_equilibrium(factors(A, kind), Z, **how, backend=backend) for backend in TWINS)
    np.testing.assert_array_equal(ours.status, theirs.status)
    assert ours.converged
    assert abs(ours.iterations - theirs.iterations).max() <= 2
    exact = np.linalg.solve(np.eye(n) - A.astype(np.float64), Z)
    np.testing.assert_allclose(ours.X, exact, rtol=2e-3 if dtype is np.float32 else 1e-8)


@pytest.mark.parametrize("max_iter", [1, 2, 5, 20])
def test_every_method_of_auto_gets_its_share_of_the_iterations(monkeypatch, max_iter):
    tried, solve_columns = [], cuda_.solve_columns

    def noted(method, *arguments):
        tried.append(method)
        solve_columns(method, *arguments)

    monkeypatch.setattr(cuda_, "solve_columns", noted)
    A, Z = 0.4 * np.roll(np.eye(4), 1, 0), np.ones((4, 2))  # Picard's steps shrink by 0.4, which is not slow.
    Z[:, 1] = 0
    how = {"activation": "tanh", "options": quiet(max_iter=max_iter, tol=1e-12)}
    ours, theirs = (solve_equilibrium(A, Z, **how, backend=backend) for backend in TWINS)
    np.testing.assert_array_equal(ours.status, theirs.status)
    np.testing.assert_array_equal(ours.iterations, theirs.iterations)
    assert tried == ["auto", "anderson", "newton"][: {1: 1, 2: 2}.get(max_iter, 3)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_next_method_starts_at_the_last_good_point(monkeypatch, only, kind):
    only(kind)
    solve_columns, safeguarded, started = cuda_.solve_columns, definition.safeguarded, []

    def without_newton(method, *arguments):
        if method != "newton":
            solve_columns(method, *arguments)

    def noted(equation, X, ledger, proposal, *other):
        if isinstance(proposal, trials.Newton):
            started.append((ledger.index, X))
            return ledger.index, X
        return safeguarded(equation, X, ledger, proposal, *other)

    monkeypatch.setattr(cuda_, "solve_columns", without_newton)
    monkeypatch.setattr(definition, "safeguarded", noted)
    A, Z = 0.999 * np.roll(np.eye(6), 1, 0), np.random.default_rng(0).standard_normal((6, 12))
    how = {"activation": "relu", "options": quiet(max_iter=40, tol=1e-13)}
    ours, _ = (solve_equilibrium(factors(A, kind), Z, **how, backend=backend) for backend in TWINS)
    ((index, X),) = started
    np.testing.assert_array_equal(np.flatnonzero(ours.status == SLOW), index)
    assert index.size > 5  # They leave at trial points that are not good.
    np.testing.assert_allclose(ours.X[:, index], X, atol=1e-9)


@pytest.mark.parametrize("method", ["picard", "anderson", "auto"])
def test_nasty_columns_end_with_right_answers(method):
    rng = np.random.default_rng(5)
    for n, dtype in ((2, np.float32), (4, np.float64), (4, np.float32)):
        A = rng.standard_normal((n, n))
        A = (0.9 * A / abs(A).sum(axis=1).max()).astype(dtype)
        Z = (rng.standard_normal((n, 8)) * 10.0 ** rng.integers(-6, 7, (n, 8))).astype(dtype)
        Z[:, 7] *= np.finfo(dtype).tiny
        X0 = (rng.standard_normal((n, 8)) * 10.0 ** rng.integers(-6, 7, 8)).astype(dtype)
        how = {"activation": "tanh", "options": quiet(method=method)}
        ours = solve_equilibrium(A, Z, X0=X0, **how, backend="cuda")
        A, Z = A.astype(np.float64), Z.astype(np.float64)
        exact = solve_equilibrium(A, Z, activation="tanh", options=quiet(method="newton", tol=1e-14))
        assert ours.converged
        error, exact = abs(ours.X - exact.X), exact.X
        assert (error.max(axis=0) <= ours.error_bound).all()
        P, delta = A @ exact + Z, np.finfo(dtype).eps * (abs(A) @ abs(exact) + abs(Z))
        asked = np.maximum(3e-6 * np.minimum(1, abs(Z).max(axis=0)), np.finfo(dtype).tiny)
        rounding = np.tanh(P + delta) - np.tanh(P - delta) + np.finfo(dtype).eps * abs(exact)
        assert (error <= np.linalg.solve(np.eye(n) - abs(A), 2 * asked + 16 * rounding)).all()
