"""`certify` bounds the error of every entry, and `certificate="sharp"` puts its bounds into solutions."""

from fractions import Fraction

import naive
import numpy as np
import pytest
from hypothesis import given
from strategies import ACTIVATIONS, DTYPES, KINDS, fit, matrix, pair, seeds

from idl_ref import ImplicitModel, SolveOptions, activations, certificate, certify
from idl_ref import solve_adjoint as adjoint
from idl_ref import solve_equilibrium as forward
from idl_ref.activations import RANGES
from idl_ref.backends import entrywise
from idl_ref.backends.equation import Equation
from idl_ref.certificate import resolvent_norm

SHARP = SolveOptions(certificate="sharp", on_failure="ignore", max_iter=2000)
ENDS = (0.5, 0.99, 0.999, 1 - 1e-9, 1 - 1e-12)


def equal_rows(A, kappa):
    """Scale every row of A to the absolute sum κ."""
    return A * (kappa / np.abs(A).sum(axis=1, keepdims=True))


def nasty_matrix(rng, n):
    """Draw a matrix, or a pair (L, R), of a kind for which bounds are easily too small, too large, or infinite."""
    kappa, kind = rng.choice(ENDS), rng.integers(7)
    A = rng.standard_normal((n, n))
    if kind == 0:
        return equal_rows(A, kappa)
    if kind == 1:
        d = 10 ** rng.uniform(-4, 4, n)
        return d[:, None] * equal_rows(A, kappa) / d
    if kind == 2:
        return np.triu(A, 1) * 4 if rng.random() < 0.5 else np.tril(A, -1) * 4
    if kind == 3:  # The Perron root is nearly 1.
        return A * ((1 - 10.0 ** -rng.integers(2, 16)) / np.abs(np.linalg.eigvals(np.abs(A))).max())
    if kind == 4:
        return pair(n, rng.integers(1, 4), 0.99, rng)
    if kind == 5:  # The equation is monotone, and its Perron root may exceed 1.
        return 0.9 * np.eye(n) - A.T @ A + (A - A.T)
    return matrix(KINDS[rng.integers(len(KINDS))], n, 0.97, rng)


def nasty_column(rng, n, dtype):
    """Draw a column with one huge entry, graded entries, subnormal entries, zeros, or with none of these."""
    z, kind = rng.standard_normal(n), rng.integers(6)
    if kind == 0:
        z[rng.integers(n)] = rng.choice([1e3, 1e7, -1e7])
    elif kind == 1:
        z *= 10.0 ** -np.arange(n)
    elif kind == 2:
        z *= 1e-40 if dtype == np.float32 else 1e-312
    elif kind == 3:
        z *= rng.random(n) < 0.5
    elif kind == 4:
        z *= 1e20
    return z[:, None].astype(dtype)


def rational(A):
    """Return the entries of A, or of L Rᵀ, as Fractions."""
    L, R = A if isinstance(A, tuple) else (A, np.eye(len(A)))
    rows = [[Fraction(float(a)) for a in row] for row in L], [[Fraction(float(a)) for a in row] for row in R]
    return [[sum(a * b for a, b in zip(row, other, strict=True)) for other in rows[1]] for row in rows[0]]


def rational_forward(A, z, start):
    """Return the exact solution of x = max(0, A x + z) as Fractions, from a guess; None if no guess leads to it."""
    p = [sum(a * Fraction(float(v)) for a, v in zip(row, start, strict=True)) + b for row, b in zip(A, z, strict=True)]
    for _ in range(50):
        try:
            x = naive._solve_positive(A, z, [i for i, value in enumerate(p) if value > 0])
        except StopIteration:  # The matrix is singular.
            return None
        p = [sum(a * v for a, v in zip(row, x, strict=True)) + b for row, b in zip(A, z, strict=True)]
        if x == [max(Fraction(0), value) for value in p]:
            return x
    return None


def answers(rng, solution, truth):
    """Return the answer of the solver, rounded truths, a truth with an error, and an unrelated answer, as columns."""
    exact = np.array([float(v) for v in truth])
    scale = 10.0 ** -rng.integers(0, 12)
    with np.errstate(over="ignore"):
        rounded = exact.astype(np.float32).astype(float)
    return np.stack(
        [solution, exact, rounded, exact + scale * rng.standard_normal(exact.size), rng.standard_normal(exact.size)], 1
    )


def assert_bounded(X, truth, bound):
    """Compare |X − X*| with the bound in exact arithmetic, entry by entry."""
    assert bound.shape == X.shape
    assert bound.dtype == np.float64
    for i, j in np.argwhere(np.isfinite(bound)):
        assert abs(Fraction(float(X[i, j])) - truth[i]) <= Fraction(float(bound[i, j])), (i, j, X, bound)


def sweep(seed, count):
    """Compare bounds with rational truths, forward with relu and adjoint, and return how many columns had a bound."""
    rng, finite = np.random.default_rng(seed), 0
    for _ in range(count):
        n, dtype = int(rng.integers(1, 6)), DTYPES[rng.integers(2)]
        A = nasty_matrix(rng, n)
        A = tuple(F.astype(dtype) for F in A) if isinstance(A, tuple) else A.astype(dtype)
        z, exact = nasty_column(rng, n, dtype), rational(A)
        options = SolveOptions(max_iter=int(rng.choice([1, 300])), on_failure="ignore", certificate="sharp")
        solution = forward(A, z, options=options)
        start = np.nan_to_num(solution.X[:, 0], posinf=0, neginf=0)
        truth = rational_forward(exact, [Fraction(float(v)) for v in z[:, 0]], start)
        if truth is not None:
            X = answers(rng, solution.X[:, 0].astype(float), truth)
            bound = certify(A, np.repeat(z, X.shape[1], axis=1), X)
            assert_bounded(X, truth, bound)
            finite += np.isfinite(bound[:, 0]).all()
        s = ((rng.random((n, 1)) < 0.6) * rng.choice([1.0, 0.7, -1.2])).astype(dtype)
        slopes, g = ([Fraction(float(v)) for v in column[:, 0]] for column in (s, z))
        M = [[int(i == j) - slopes[i] * exact[j][i] for j in range(n)] for i in range(n)]
        try:
            truth = naive.rational_solve(M, [a * b for a, b in zip(slopes, g, strict=True)])
        except StopIteration:  # The matrix is singular.
            continue
        solution = adjoint(A, s, z, options=options)
        X = answers(rng, solution.X[:, 0].astype(float), truth)
        S, G = (np.repeat(M, X.shape[1], axis=1) for M in (s, z))
        bound = certify(A, G, X, S=S)
        assert_bounded(X, truth, bound)
        finite += np.isfinite(bound[:, 0]).all()
    return finite


def test_no_bound_is_below_the_rational_truth():
    assert sweep(0, 100) > 180


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 4))
def test_no_bound_is_below_the_rational_truth_in_many_cases(seed):
    assert sweep(seed, 600) > 1000


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_no_bound_is_below_the_truth_of_any_activation(activation, dtype):
    rng = np.random.default_rng(ACTIVATIONS.index(activation))
    for kappa in (0.3, 0.97):
        A = equal_rows(rng.standard_normal((6, 6)), kappa).astype(dtype)
        Z = np.concatenate([nasty_column(rng, 6, dtype) for _ in range(20)], axis=1)
        X = forward(A, Z, activation=activation, options=SHARP).X
        truth, slack = naive.forward_truth(A, Z, activation)
        for answer in (X, X + 1e-3 * rng.standard_normal(X.shape).astype(dtype)):
            bound = certify(A, Z, answer, activation=activation)
            assert np.isfinite(bound).all()
            assert (abs(answer - truth) <= bound + slack).all()


def relu_truth(A, Z, X):
    """Return the equilibria of relu in float64, by solving for the positive entries of X again and again."""
    A, Z, X = (M.astype(float) for M in (A, Z, X))
    for j in range(X.shape[1]):
        for _ in range(6):
            on = A @ X[:, j] + Z[:, j] > 0
            X[:, j] = 0
            X[on, j] = np.linalg.solve(np.eye(on.sum()) - A[np.ix_(on, on)], Z[on, j])
    return X


@pytest.mark.parametrize(("n", "kappa"), [(100, 0.99), (100, 0.999), (200, 0.999)])
def test_sharp_bounds_are_near_the_error_of_float32(n, kappa):
    """The median of bound / error is about 1.2 here; that of the fast bound is 3e4 to 6e5."""
    rng = np.random.default_rng(n)
    A = equal_rows(rng.standard_normal((n, n)), kappa).astype(np.float32)
    Z = rng.standard_normal((n, 8)).astype(np.float32)
    solution = forward(A, Z, options=SolveOptions(max_iter=2000, certificate="sharp"))
    error = abs(solution.X - relu_truth(A, Z, solution.X)).max(axis=0)
    assert (error <= solution.error_bound).all()
    assert np.median(solution.error_bound / error) < 2
    fast = forward(A, Z, options=SolveOptions(max_iter=2000)).error_bound
    assert np.median(fast / error) > 1e3


def test_a_rescaled_equation_has_the_bound_of_the_weighted_norm():
    """The issue is D A D⁻¹ with entries of D between 1e-4 and 1e4: an error of about 1e-12 had a bound of 4.6."""
    rng = np.random.default_rng(2)
    d = 10 ** rng.uniform(-4, 4, 40)
    A, Z = d[:, None] * equal_rows(rng.standard_normal((40, 40)), 0.9) / d, rng.standard_normal((40, 4))
    X = forward(A, Z, options=SolveOptions(tol=1e-12, method="newton")).X
    error, bound = abs(X - relu_truth(A, Z, X)), certify(A, Z, X)
    assert (error <= bound + 1e-15).all()
    assert bound.max() < 1e-3 * forward(A, Z, options=SolveOptions(tol=1e-12, method="newton")).error_bound.max()


# --- triangular A -----------------------------------------------------------------------------------------------------


def test_strictly_triangular_equations_have_finite_bounds(backend):
    (name, dtype, _), rng = backend, np.random.default_rng(3)
    # The bound from norms is too large by a factor that grows with n.
    n, gap = (8, 0.1) if name == "cuda" else (200, 1e-3)
    A = np.triu(rng.standard_normal((n, n)) * 4 / np.sqrt(n), 1).astype(dtype)
    Z = rng.standard_normal((n, 2)).astype(dtype)
    for M, side in ((A, np.triu), (A.T, np.tril)):
        assert (side(M) == M).all()
        for solve in (lambda M, **more: forward(M, Z, **more), lambda M, **more: adjoint(M, abs(Z) < 1, Z, **more)):
            fast = solve(M, options=SolveOptions(on_failure="ignore"), backend=name).error_bound
            sharp = solve(M, options=SHARP, backend=name).error_bound
            assert np.isfinite(fast).all()
            assert (sharp < gap * fast).all()


@given(n=seeds.map(lambda seed: seed % 7), seed=seeds)
def test_the_norm_of_a_triangular_resolvent_is_exact_up_to_rounding(n, seed):
    rng = np.random.default_rng(seed)
    A = np.triu(rng.standard_normal((n, n)) * 10 ** rng.uniform(-3, 3), 1)
    for M, c in ((A, 1.0), (A.T, 0.25)):
        identity = [
            [Fraction(int(i == j)) - Fraction(c) * Fraction(abs(float(M[i, j]))) for j in range(n)] for i in range(n)
        ]
        truth = max(naive.rational_solve(identity, [1] * n), default=Fraction(1))
        assert truth <= Fraction(resolvent_norm((M,), c)) <= truth * Fraction(1 + 1e-8)


# --- the range of φ ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", RANGES)
def test_no_bound_exceeds_the_range_of_phi(backend, activation):
    (name, dtype, _), (low, high) = backend, RANGES[activation]
    A, Z = np.full((3, 3), 9, dtype), np.array([[0.3, np.nan], [1e6, 0], [0.1, 0]], dtype)
    for options in (SolveOptions(max_iter=2, on_failure="ignore"), SHARP):
        bound = forward(A, Z, activation=activation, options=options, backend=name).error_bound
        assert bound[0] <= (high - low) * (1 + 1e-5)
        assert bound[1] == np.inf
    # The answer may be the start of the iteration, which need not be a value of φ.
    Z, start = np.zeros((3, 1), dtype), np.full((3, 1), -80, dtype)
    once = SolveOptions(max_iter=1, method="picard", on_failure="ignore")
    solution = forward(A, Z, activation=activation, X0=start, options=once, backend=name)
    assert abs(solution.X).max() <= solution.error_bound[0]  # One of the equilibria is 0, or in [0, 1] for sigmoid.
    # An adjoint equation has no such limit.
    assert adjoint(A, np.ones_like(Z), Z, options=SHARP, backend=name).error_bound[0] == np.inf


def test_saturated_units_have_sharp_bounds_whatever_A_is():
    A, Z = np.full((4, 4), 0.5), np.full((4, 1), 20.0)
    assert certify(A, Z, np.tanh(A @ np.ones((4, 1)) + Z), activation="tanh").max() < 1e-13
    assert certify(A, Z, np.full((4, 1), 7.0), activation="tanh").max() < 7


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_steepest_slope_of_an_interval_is_an_upper_bound(activation):
    row = activations.get(activation)
    rng = np.random.default_rng(0)
    low = rng.standard_normal(300) * 10.0 ** rng.integers(-3, 3, 300)
    low[:8], width = [-1, 1, 0, -2, 0.5, -0.5, -1, -800], 10.0 ** rng.integers(-3, 3, 300)
    width[:8] = [0.5, 1, 1, 2, 0.5, 0.5, 2, 1]
    steepest = entrywise.steepest(row, low, low + width)
    inside = low + width * np.linspace(0, 1, 400)[:, None]
    assert (row.slope(inside).max(axis=0) <= steepest).all()
    assert (steepest <= row.lipschitz).all()
    at = np.array([-3.0, -0.5, 0.7, 3.0])  # An interval of one point has the slope of that point.
    np.testing.assert_allclose(entrywise.steepest(row, at, at), row.slope(at), rtol=1e-13, atol=1e-300)


def test_an_activation_that_is_not_in_the_table_counts_with_its_lipschitz_constant():
    other = activations._row("tanh", activations.TANH, np.sin, np.cos)
    assert entrywise.steepest(other, np.full(2, 5.0), np.full(2, 6.0)).tolist() == [1, 1]
    equation = Equation((np.full((1, 1), 0.5),), other, None, np.ones((1, 1)))
    X = np.full((1, 1), 40.0)
    assert entrywise.enclose(equation, X)[0, 0] == pytest.approx(2 * abs(np.sin(21) - 40))


# --- monotone equations -----------------------------------------------------------------------------------------------


def monotone_matrix(rng, n, m):
    """Return A with (A + Aᵀ)/2 ⪯ (1 − m) I, whose Perron root exceeds 1."""
    B, C = rng.standard_normal((2, n, n))
    return (1 - m) * np.eye(n) - B.T @ B / n + (C - C.T)


def test_monotone_equations_have_a_bound():
    rng = np.random.default_rng(5)
    for m in (0.01, 0.3):
        for dtype in DTYPES:
            A, Z = monotone_matrix(rng, 8, m).astype(dtype), rng.standard_normal((8, 1)).astype(dtype)
            assert resolvent_norm((A,), 1.0) == np.inf
            solution = forward(A, Z, options=SolveOptions(method="newton", on_failure="ignore", certificate="sharp"))
            truth = rational_forward(rational(A), [Fraction(float(v)) for v in Z[:, 0]], solution.X[:, 0])
            X = answers(rng, solution.X[:, 0].astype(float), truth)
            bound = certify(A, np.repeat(Z, X.shape[1], axis=1), X)
            assert_bounded(X, truth, bound)
            residual = np.maximum(A @ X + Z, 0) - X
            formula = (1 + np.linalg.norm(np.eye(8) - A, 2)) / m * np.linalg.norm(residual, axis=0)
            assert (bound <= formula * (1 + 1e-3) + 1e-10).all()
            assert (solution.error_bound < 1e-2).all()


def test_the_bound_of_a_monotone_equation_is_nearly_attained():
    """Here e and (2 I − Aᵀ) r have about the same direction, and the Perron root of |A| is 1.001."""
    A, Z = np.array([[0.99, 0.011], [-0.011, 0.99]]), np.array([[3.0], [5.0]])
    X = np.linalg.solve(np.eye(2) - A, Z)
    error = np.array([[3e-3], [4e-3]])
    assert resolvent_norm((A,), 1.0) == np.inf
    bound = certify(A, Z, X + error, activation="identity")
    assert (bound >= error).all()
    assert (bound <= 1.6 * np.linalg.norm(error)).all()


def test_adjoints_of_monotone_equations_have_a_bound_for_slopes_up_to_1():
    rng = np.random.default_rng(6)
    A, G = monotone_matrix(rng, 6, 0.2), rng.standard_normal((6, 3))
    S = rng.random((6, 3))
    S[0, 2] = 1.5
    V = np.stack([np.linalg.solve(np.eye(6) - s[:, None] * A.T, s * g) for s, g in zip(S.T, G.T, strict=True)], axis=1)
    bound = certify(A, G, V + 1e-3, S=S)
    assert (bound[:, :2] >= 1e-3).all()
    assert (bound[:, :2] < 1).all()
    assert np.isinf(bound[:, 2]).all()


def test_expansive_equations_have_no_bound():
    for A in (np.array([[1.0]]), np.array([[1.0 + 1e-15]]), np.array([[2.0, 5.0], [-1.0, 0.3]]), np.ones((2, 2))):
        Z = np.zeros((len(A), 1))
        assert np.isinf(certify(A, Z, Z)).all()
    assert np.isfinite(certify(np.array([[1.0 - 1e-12]]), np.ones((1, 1)), np.ones((1, 1)))).all()


def test_tiny_numbers_do_not_underflow_in_the_euclidean_norm():
    A = monotone_matrix(np.random.default_rng(7), 5, 0.3)
    z = np.full((5, 1), 1e-310)
    assert (certify(A, z, np.zeros((5, 1))) > 1e-310).all()


# --- the ways to a bound ----------------------------------------------------------------------------------------------


def test_large_systems_need_no_decomposition(monkeypatch):
    rng = np.random.default_rng(8)
    A = 10 ** rng.uniform(-2, 2, (30, 1)) * rng.standard_normal((30, 30))
    A *= 0.9 / np.abs(np.linalg.eigvals(abs(A))).max()  # Its norm is above 1.
    L, R = pair(30, 4, 0.9, rng)
    Z = rng.standard_normal((30, 3))
    for weights in (A, (L, R)):
        X = forward(weights, Z, options=SolveOptions(tol=1e-3, on_failure="ignore")).X
        direct = certify(weights, Z, X)
        with monkeypatch.context() as patch:
            patch.setattr(entrywise, "LARGE", 0)
            patch.setattr(np.linalg, "solve", None)
            series = certify(weights, Z, X)
        assert (direct < 10 * series).all()
        assert (series < 100 * direct).all()


def test_columns_of_an_adjoint_have_their_own_slopes():
    """With all slopes 1 the equation is not well posed; with the slopes of either column it is."""
    A, G = np.full((2, 2), 0.6), np.ones((2, 3))
    S = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
    V = np.array([[1.0 / 0.4, 0, 9.0], [0, 1.0 / 0.4, 9.0]])
    bound = certify(A, G, V + np.array([[1e-3], [0]]), S=S)
    np.testing.assert_allclose(bound[:, :2], [[1e-3, 1e-3], [0, 3e-3]], atol=1e-12)
    assert np.isinf(bound[:, 2]).all()


@given(n=seeds.map(lambda seed: 1 + seed % 6), seed=seeds)
def test_every_product_and_difference_is_rounded_to_the_safe_side(n, seed):
    """By exact arithmetic: `reach` is not below |F| w or |F|ᵀ w, and `margin` is not above v − c ∘ (|F| v) − d."""
    rng = np.random.default_rng(seed)
    A = pair(n, 2, 0.9, rng) if seed % 3 == 0 else rng.standard_normal((n, n)) * 10.0 ** rng.integers(-9, 1, (n, n))
    V, D = rng.random((2, n, 1)) * 10.0 ** rng.choice([-310, -12, 0], (2, n, 1))
    c = rng.random((n, 1))
    factors = (A[0], A[1].T) if isinstance(A, tuple) else (A,)
    e = entrywise.frame(Equation(factors, activations.get("relu"), None, D), D)
    size = rational(tuple(abs(F) for F in A) if isinstance(A, tuple) else abs(A))
    v, d, slope = ([Fraction(float(entry)) for entry in column[:, 0]] for column in (V, D, c))
    product = [sum(a * b for a, b in zip(row, v, strict=True)) for row in size]
    transposed = [sum(a * b for a, b in zip(row, v, strict=True)) for row in zip(*size, strict=True)]
    reach, back, margin = e.reach(V), e.reach(V, transposed=True), entrywise.margin(e, c, V, D)
    for i in range(n):
        assert product[i] <= Fraction(reach[i, 0])
        assert transposed[i] <= Fraction(back[i, 0])
        assert v[i] - slope[i] * product[i] - d[i] >= Fraction(margin[i, 0])


def test_a_nearly_singular_resolvent_is_not_below_the_truth():
    """The Perron root of these matrices is within 1e-14 of 1, so that the verification itself must not round down."""
    rng = np.random.default_rng(9)
    for _ in range(60):
        A = rng.random((2, 2))
        A *= (1 - 10.0 ** -rng.uniform(12, 16)) / np.abs(np.linalg.eigvals(A)).max()
        Z = np.ones((2, 1))
        X = forward(A, Z, options=SolveOptions(max_iter=1, on_failure="ignore", method="picard")).X
        M = [[int(i == j) - Fraction(float(A[i, j])) for j in range(2)] for i in range(2)]
        assert_bounded(X, naive.rational_solve(M, [1, 1]), certify(A, Z, X))


# --- inputs -----------------------------------------------------------------------------------------------------------


def test_columns_that_are_not_finite_have_no_bound_and_do_not_stain_others():
    A, Z = np.full((2, 2), 0.25), np.ones((2, 4))
    X = np.full((2, 4), 2.0)
    X[0, 1], X[1, 2] = np.nan, np.inf
    bound = certify(A, Z, X)
    assert np.isinf(bound[:, 1:3]).all()
    np.testing.assert_array_equal(bound[:, [0, 3]], certify(A, Z[:, :2], X[:, [0, 3]]))
    assert bound[:, 0].max() < 1e-13
    Z[0, 0] = np.nan
    assert np.isinf(certify(A, Z, X)[:, 0]).all()
    for entry in (np.nan, np.inf):
        assert np.isinf(certify(np.full((2, 2), entry), np.ones((2, 1)), np.ones((2, 1)))).all()
    assert np.isinf(certify([[1e308, 1e308]] * 2, [[1e308]] * 2, [[1e308]] * 2)).all()


def test_any_library_and_dtype_will_do():
    A, Z = [[0, 0.5], [-0.5, 0]], [[1], [2]]
    for X in ([[1.6], [1.2]], np.array([[1.6], [1.2]], np.float16), np.array([[2], [1]], np.int8)):
        bound, error = certify(A, Z, X), abs(np.asarray(X, float) - [[1.6], [1.2]])
        assert (error <= bound + 1e-15).all()
        assert (bound <= 3 * error.max() + 1e-13).all()
    for shape in ((0, 3), (2, 0), (0, 0)):
        assert certify(np.zeros((shape[0], shape[0])), np.zeros(shape), np.zeros(shape)).shape == shape


class Device:
    """An array that claims to be on a CUDA device."""

    __cuda_array_interface__ = {"shape": (2, 1), "typestr": "<f8", "data": (0, False), "version": 3}  # noqa: RUF012


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"X": np.ones((2, 2))}, r"X must have shape \(2, 1\), that of Z; got \(2, 2\)"),
        ({"X": np.ones((2, 1), complex)}, "X must hold real numbers"),
        ({"A": np.ones((2, 3))}, "A must have shape"),
        ({"S": np.ones((1, 1))}, "S must have shape"),
        ({"activation": "gelu"}, "activation must be non-expansive"),
        ({"X": Device()}, "host"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    given = {"A": np.eye(2) / 2, "Z": np.ones((2, 1)), "X": np.ones((2, 1))} | change
    with pytest.raises((ValueError, TypeError), match=message):
        certify(**given)


# --- solutions --------------------------------------------------------------------------------------------------------


def test_the_sharp_bound_of_a_solution_is_the_norm_of_the_entrywise_bounds(backend):
    (name, dtype, _), rng = backend, np.random.default_rng(10)
    dense, low_rank = equal_rows(rng.standard_normal((8, 8)), 0.99), pair(8, 2, 0.99, rng)
    Z, S = rng.standard_normal((8, 3)).astype(dtype), rng.random((8, 3)).astype(dtype)
    for weights in (dense.astype(dtype), tuple(F.astype(dtype) for F in low_rank)):
        for activation in ("relu", "tanh"):
            solution = forward(weights, Z, activation=activation, options=SHARP, backend=name)
            bound = certify(weights, Z, solution.X, activation=activation)
            np.testing.assert_array_equal(solution.error_bound, bound.max(axis=0))
            fast = forward(weights, Z, activation=activation, options=SolveOptions(max_iter=2000), backend=name)
            np.testing.assert_array_equal(fast.X, solution.X)
            assert (solution.error_bound < fast.error_bound).all()
        solution = adjoint(weights, S, Z, options=SHARP, backend=name)
        bound = certify(weights, Z, solution.X, S=S)
        np.testing.assert_allclose(solution.error_bound, bound.sum(axis=0), rtol=1e-8)
        assert (solution.error_bound < adjoint(weights, S, Z, backend=name).error_bound).all()


def test_a_layer_takes_the_option_too():
    model = ImplicitModel(3, 2, 9, seed=0)
    layer = model.layer()
    U = np.ones((3, 4), np.float32)
    equation = layer.equation(layer.weights.B @ U)
    sharp = layer.solve(equation, options=SHARP)
    assert (sharp.error_bound < layer.solve(equation).error_bound / 10).all()
    assert sharp.error_bound.max() == certify(model.effective()["A"], equation.Z, sharp.X).max()


def test_an_unknown_certificate_is_refused():
    with pytest.raises(ValueError, match="certificate must be one of 'fast', 'sharp'; got 'exact'"):
        SolveOptions(certificate="exact")


def test_a_bound_of_the_fast_kind_is_still_the_default():
    assert SolveOptions().certificate == "fast"
    A, Z = fit(np.ones((3, 3)), 0.5), np.ones((3, 1))
    solution = forward(A, Z)
    r = certificate.Certifier((A,), activations.get("relu"), False, np.dtype(float))
    assert solution.error_bound[0] >= r.bound(solution.X, solution.X, None, Z)[0]
