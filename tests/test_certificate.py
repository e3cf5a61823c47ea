"""The true error is at most the error bound, whatever the method, the tolerance and the iteration limit are."""

from fractions import Fraction

import naive
import numpy as np
import pytest
from hypothesis import given
from strategies import ACTIVATIONS, DTYPES, KINDS, fit, kinds, matrix, pair, ranks, seeds, sizes

from idl_ref import SolveOptions, activations, certificate, solve_adjoint, solve_equilibrium

METHODS = ("auto", "picard", "anderson", "newton")
SCALES = (1e-40, 1e-6, 1.0, 1.0, 1e3, 1e30)  # The magnitudes of columns; 1e-40 is subnormal in float32.


def draw(rng):
    """Draw A with κ ≤ 0.99, options, and a function that draws (n, m) arrays with columns of different magnitudes."""
    n, m, dtype = rng.integers(1, 9), 2, DTYPES[rng.integers(2)]
    kappa = rng.choice([0.1, 0.6, 0.9, 0.99])
    if rng.random() < 0.2:
        A = L, R = pair(n, rng.integers(1, 4), kappa, rng, dtype)
        dense = L.astype(np.longdouble) @ R.T.astype(np.longdouble)
    else:
        A = dense = matrix(KINDS[rng.integers(len(KINDS))], n, kappa, rng, dtype)
    options = SolveOptions(
        tol=10.0 ** -rng.integers(0, 16),
        max_iter=int(rng.choice([1, 2, 4, 300])),
        method=METHODS[rng.integers(len(METHODS))],
        on_failure="ignore",
    )

    def columns():
        sparse = rng.random((n, m)) < rng.choice([0.3, 1.0])
        return (rng.standard_normal((n, m)) * sparse * rng.choice(SCALES, m)).astype(dtype)

    return A, dense, options, columns


def padded(arrays, shape):
    """Stack arrays after padding them with zeros to one shape, which does not change the solutions of equations."""
    stack = np.zeros((len(arrays), *shape), np.longdouble)
    for big, small in zip(stack, arrays, strict=True):
        big[: small.shape[0], : small.shape[1]] = small
    return stack


def assert_certified(solutions, truth, truth_error, norm):
    for solution, X, slack in zip(solutions, truth, truth_error, strict=True):
        finite = np.isfinite(solution.X).all(axis=0)
        error = norm(solution.X[:, finite] - X[: len(solution.X), finite])
        assert np.all(error <= solution.error_bound[finite] + slack[finite]), (error, solution)
        assert np.isfinite(solution.error_bound[finite]).all()


@pytest.mark.sampled(3)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_forward_error_is_below_the_bound(activation):
    """117 equations are drawn for each of the 9 activations, which makes 1053 cases."""
    rng = np.random.default_rng(ACTIVATIONS.index(activation))
    matrices, inputs, solutions = [], [], []
    for _ in range(117):
        A, dense, options, columns = draw(rng)
        Z, X0 = columns(), columns()
        matrices.append(dense)
        inputs.append(Z)
        solutions.append(solve_equilibrium(A, Z, X0=X0, activation=activation, options=options))
    truth, slack = naive.forward_truth(padded(matrices, (8, 8)), padded(inputs, (8, 2)), activation)
    assert_certified(solutions, truth, slack, lambda E: abs(E).max(axis=0))


def test_adjoint_error_is_below_the_bound():
    """1053 cases are drawn, with arbitrary G, and with slopes S that are 0, 1 or between."""
    rng = np.random.default_rng(9)
    matrices, slopes, inputs, solutions = [], [], [], []
    for _ in range(1053):
        A, dense, options, columns = draw(rng)
        G, V0 = columns(), columns()
        S = (rng.random(G.shape) * (rng.random(G.shape) < 0.8)).astype(G.dtype)
        S[:, 0] = S[:, 0] > 0.3  # The slopes of relu are 0 and 1.
        matrices.append(dense)
        slopes.append(S)
        inputs.append(G)
        solutions.append(solve_adjoint(A, S, G, V0=V0, options=options))
    truth, slack = naive.adjoint_truth(padded(matrices, (8, 8)), padded(slopes, (8, 2)), padded(inputs, (8, 2)))
    assert_certified(solutions, truth, slack, lambda E: abs(E).sum(axis=0))


def test_adjoint_bound_uses_the_norm_of_A_not_that_of_its_transpose():
    """Here ‖A‖∞ = 0.96 and ‖Aᵀ‖∞ = 0.12, and after one application the error is almost κ/(1 − κ) in the 1-norm."""
    A = np.zeros((8, 8))
    A[0] = 0.12
    A[1, 0] = 1e-3  # This entry makes A not triangular.
    S, G = np.ones((8, 1)), np.eye(8, 1)
    solution = solve_adjoint(A, S, G, options=SolveOptions(max_iter=1, method="picard", on_failure="ignore"))
    V = np.linalg.solve(np.eye(8) - A.T, G)
    assert abs(solution.X - V).sum() > 1
    assert abs(solution.X - V).sum() <= solution.error_bound[0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_exact_rational_truth_is_within_the_bound(dtype):
    """The truth of relu equations and their adjoints comes from exact arithmetic with Fraction alone."""
    rng = np.random.default_rng(3)
    for trial in range(30):
        n = rng.integers(2, 8)
        A = matrix(KINDS[trial % len(KINDS)], n, 0.97, rng, dtype)
        z, g = rng.standard_normal((2, n, 1)).astype(dtype)
        s = (rng.random((n, 1)) < 0.7).astype(dtype)
        options = SolveOptions(tol=10.0 ** -rng.integers(1, 16), max_iter=20, on_failure="ignore")
        forward, adjoint = solve_equilibrium(A, z, options=options), solve_adjoint(A, s, g, options=options)
        x = naive.rational_relu(A, z[:, 0])
        v = naive.rational_adjoint(A, s[:, 0], g[:, 0])
        errors = [abs(naive.Fraction(float(a)) - b) for a, b in zip(forward.X[:, 0], x, strict=True)]
        assert max(errors) <= naive.Fraction(forward.error_bound[0])
        errors = [abs(naive.Fraction(float(a)) - b) for a, b in zip(adjoint.X[:, 0], v, strict=True)]
        assert sum(errors) <= naive.Fraction(adjoint.error_bound[0])


def stretched(n, rng, spread=1.5):
    """Return D A D⁻¹ with ‖A‖∞ = 0.7, whose Perron root is at most 0.7, although its norm may be large."""
    d = 10 ** rng.uniform(-spread, spread, n)
    return d[:, None] * fit(rng.standard_normal((n, n)), 0.7) / d


@given(n=sizes, seed=seeds)
def test_perron_root_below_1_gives_a_finite_bound_that_holds(n, seed):
    rng = np.random.default_rng(seed)
    A, Z = stretched(n, rng), rng.standard_normal((n, 2))
    options = SolveOptions(tol=10.0 ** -rng.integers(0, 14), max_iter=int(rng.choice([2, 300])), on_failure="ignore")
    inverse = np.linalg.inv(np.eye(n) - abs(A))
    for activation in ("relu", "tanh"):
        solution = solve_equilibrium(A, Z, activation=activation, options=options)
        X, _ = naive.forward_truth(A, Z, activation)
        slack = (inverse @ (abs(naive.VECTOR[activation](A @ X + Z) - X) + 1e-17 * (1 + abs(X)))).max(axis=0)
        assert np.all(abs(solution.X - X).max(axis=0) <= solution.error_bound + slack)
        assert np.isfinite(solution.error_bound).all()
    S = (rng.random((n, 2)) < 0.8) * 1.0
    solution = solve_adjoint(A, S, Z, options=options)
    V, _ = naive.adjoint_truth(A, S, Z)
    slack = (inverse.T @ (abs(S * (A.T @ V + Z) - V) + 1e-17 * (1 + abs(V)))).sum(axis=0)
    assert np.all(abs(solution.X - V).sum(axis=0) <= solution.error_bound + slack)
    assert np.isfinite(solution.error_bound).all()


def test_perron_root_of_1_or_more_has_no_bound():
    Z = np.ones((2, 1))
    for A in (np.eye(2), np.array([[0.0, 4.0], [0.25, 0.0]]), np.array([[3.0, 1.0], [0.0, 0.1]])):
        options = SolveOptions(max_iter=5, on_failure="ignore")
        assert solve_equilibrium(A, Z, options=options).error_bound == np.inf
        assert solve_adjoint(A, Z, Z, options=options).error_bound == np.inf


def test_sigmoid_allows_norms_up_to_4():
    rng = np.random.default_rng(0)
    A, Z = fit(rng.uniform(0, 1, (6, 6)), 3.9), rng.standard_normal((6, 3))
    solution = solve_equilibrium(A, Z, activation="sigmoid", options=SolveOptions(tol=1e-12))
    X, slack = naive.forward_truth(A, Z, "sigmoid")
    assert np.all(abs(solution.X - X).max(axis=0) <= solution.error_bound + slack)
    assert solution.error_bound.max() < 1e-9


@given(kind=kinds, n=sizes, r=ranks, seed=seeds)
def test_bound_is_not_idle(kind, n, r, seed):
    """In float64, with a step of 1e-15 and κ = 0.5, the error bound is also small."""
    rng = np.random.default_rng(seed)
    for A in (matrix(kind, n, 0.5, rng), pair(n, r, 0.5, rng)):
        Z = rng.uniform(-1, 1, (n, 2))
        assert solve_equilibrium(A, Z, options=SolveOptions(tol=1e-14)).error_bound.max() < 1e-13 * (n + 10)


@given(n=sizes, r=ranks, seed=seeds)
def test_resolvent_norm_is_the_norm_of_the_inverse(n, r, seed):
    rng = np.random.default_rng(seed)
    A, (L, R) = stretched(n, rng), pair(n, r, 0.9, rng)
    for factors, M, c in (((A,), abs(A), 1.0), ((A,), abs(A), 0.25), ((L, R.T), abs(L) @ abs(R).T, 1.0)):
        truth = abs(np.linalg.inv(np.eye(n) - c * M)).sum(axis=1).max()
        bound = certificate.resolvent_norm(factors, c)
        assert truth * (1 - 1e-10) <= bound <= truth * (1 + 1e-10)


NEARLY_SINGULAR = np.array([[0.5025815960154333, 0.49741840398456705], [0.9120042571609923, 0.08799574283900682]])


def test_resolvent_norm_is_not_below_the_truth_where_the_perron_root_is_nearly_1():
    """By rational inverses: rounding of the check itself must not make the bound too small."""
    rng, matrices = np.random.default_rng(0), [NEARLY_SINGULAR]
    for _ in range(500):
        A = rng.random((2, 2))
        matrices.append(A / np.abs(np.linalg.eigvals(A)).max() * (1 - 10.0 ** -rng.uniform(3, 16)))
    finite = 0
    for A in matrices:
        bound = certificate.resolvent_norm((A,), 1.0)
        if np.isfinite(bound):
            finite += 1
            (a, b), (c, d) = [[Fraction(float(entry)) for entry in row] for row in A]
            determinant = (1 - a) * (1 - d) - b * c
            assert determinant > 0
            assert max(1 - d + b, 1 - a + c) / determinant <= Fraction(bound)
    assert finite > 400


@pytest.mark.parametrize(
    "A", [np.eye(3), 2 * np.ones((3, 3)), np.full((2, 2), np.nan), np.full((1, 1), np.inf), -np.eye(1)]
)
def test_resolvent_norm_is_infinite_for_perron_roots_of_1_and_more(A):
    with np.errstate(invalid="ignore"):
        assert certificate.resolvent_norm((A,), 1.0) == np.inf


def test_the_asked_step_is_tightened_for_small_inputs():
    z = np.array([10.0, 1e-3, 1.0, 0.0])
    np.testing.assert_array_equal(certificate.asked_step(1e-6, z), [1e-6, 1e-3 * 1e-6, 1e-6, 0])


def test_column_max_keeps_nan():
    np.testing.assert_array_equal(certificate.column_max(np.array([[1.0, np.nan, -3], [-2, 5, 0]])), [2, np.nan, 3])
    assert certificate.column_max(np.zeros((0, 2))).tolist() == [0, 0]


def test_columns_of_slopes_above_1_are_certified_only_where_they_contract():
    A, G = np.full((2, 2), 0.2), np.ones((2, 2))
    S = np.array([[2.0, 3.0], [2.0, 3.0]])  # The two columns have κ = 0.8 and κ = 1.2.
    solution = solve_adjoint(A, S, G, options=SolveOptions(max_iter=500, on_failure="ignore"))
    V, slack = naive.adjoint_truth(A, S[:, :1], G[:, :1])
    assert abs(solution.X[:, :1] - V).sum() <= solution.error_bound[0] + slack[0] < 1e-3
    assert solution.error_bound[1] == np.inf


def test_certifier_of_the_forward_map_is_the_formula():
    """The bound is (κ step + ρ)/(1 − κ), where ρ is a few units of rounding."""
    rng = np.random.default_rng(1)
    A = fit(rng.standard_normal((5, 5)), 0.8)
    X, Z = rng.standard_normal((2, 5, 3))
    row = activations.get("tanh")
    G = row.phi(A @ X + Z)
    bound = certificate.Certifier((A,), row, False, np.dtype(float)).bound(X, G, None, Z)
    kappa = abs(A).sum(axis=1).max()
    np.testing.assert_allclose(bound, kappa * abs(G - X).max(axis=0) / (1 - kappa), rtol=1e-8)
