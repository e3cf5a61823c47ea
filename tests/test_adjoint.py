"""These tests check the adjoint equation against the truth, by identities, and for properties of all equations."""

from functools import cache

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from strategies import DTYPES, equations, matrix, pair, seeds, sizes

from idl_ref import (
    ConvergenceWarning,
    NotConvergedError,
    SolveOptions,
    Status,
    activations,
    solve_adjoint,
    solve_equilibrium,
)

ITERATIVE = ("auto", "picard", "anderson", "newton")
METHOD = pytest.mark.parametrize("method", ITERATIVE)


def options(**changes):
    return SolveOptions(**{"tol": 1e-12, "max_iter": 5000, "on_failure": "ignore", **changes})


def error_1(V, truth):
    return abs(V - truth).sum(axis=0)


@cache
def cases(dtype):
    """Return A, S, G, the true V and its error, for easy, hard and unbalanced matrices A with ‖A‖∞ ≤ 0.95."""
    rng = np.random.default_rng(6)
    heavy = np.zeros((6, 6))
    heavy[0], heavy[1, 0] = 0.158, 0.1
    matrices = [matrix("random", 6, 0.95, rng, dtype), matrix("hard", 6, 0.95, rng, dtype), heavy.astype(dtype)]
    rows = []
    for A in matrices:
        S, G = rng.uniform(0.5, 1, (6, 3)).astype(dtype), rng.standard_normal((6, 3)).astype(dtype)
        S[:, 0] = 1
        rows.append((A, S, G, *naive.adjoint_truth(A, S, G)))
    return rows


@METHOD
def test_every_method_finds_the_truth(backend, method):
    for A, S, G, V, slack in cases(backend.dtype):
        solution = solve_adjoint(A, S, G, options=options(method=method), backend=backend.name)
        assert solution.converged
        assert solution.X.dtype == backend.dtype
        error = error_1(solution.X, V)
        assert np.all(error <= solution.error_bound + slack)
        assert np.all(error <= 100 * backend.tolerance * np.maximum(1, abs(V).sum(axis=0)) + 120 * 1e-12)


@METHOD
@pytest.mark.parametrize("tol", [1.0, 1e-2, 1e-4])
def test_a_rough_answer_is_certified_too(backend, method, tol):
    for A, S, G, V, slack in cases(backend.dtype):
        solution = solve_adjoint(A, S, G, options=options(method=method, tol=tol), backend=backend.name)
        assert np.all(error_1(solution.X, V) <= solution.error_bound + slack)


@METHOD
@given(equation=equations())
def test_adjoint_identity(method, equation):
    """For every tangent Z̃, ⟨V, Z̃⟩ = ⟨G, X̃⟩, where X̃ = S ∘ (A X̃ + Z̃)."""
    A, S, G = (M.astype(float) for M in (equation.A, equation.S, equation.G))
    V = solve_adjoint(A, S, G, options=options(method=method, tol=1e-15)).X
    tangent = np.random.default_rng(0).standard_normal(G.shape)
    for j in range(G.shape[1]):
        X = np.linalg.solve(np.eye(len(A)) - S[:, j, None] * A, S[:, j] * tangent[:, j])
        scale = abs(V[:, j]) @ abs(tangent[:, j]) + abs(G[:, j]) @ abs(X)
        assert abs(V[:, j] @ tangent[:, j] - G[:, j] @ X) <= 1e-11 * scale + 1e-300


@given(equation=equations())
def test_V_is_the_gradient_by_Z(equation):
    """V is d⟨G, X(Z)⟩/dZ, here computed by the complex step through an unrolled forward solve."""
    A, Z, G = (M.astype(float) for M in (equation.A, equation.Z, equation.G))
    row, phi = activations.get(equation.activation), naive.VECTOR[equation.activation]
    X = solve_equilibrium(A, Z, activation=row.name, options=options(tol=1e-15)).X
    V = solve_adjoint(A, row.slope(A @ X + Z), G, options=options(tol=1e-15)).X
    steps = 1 if equation.kappa == 0 else int(np.ceil(np.log(1e-17) / np.log(equation.kappa)))
    for i in range(len(A)):
        moved, unrolled = Z.astype(complex), X.astype(complex)
        moved[i] += 1e-30j
        for _ in range(steps):
            unrolled = phi(A @ unrolled + moved)
        expected = (G * unrolled.imag).sum(axis=0) / 1e-30
        np.testing.assert_allclose(V[i], expected, rtol=1e-9, atol=1e-9 * abs(G).max() + 1e-12)


@given(equation=equations())
@settings(max_examples=30)
def test_rational_solution(equation):
    solution = solve_adjoint(equation.A, equation.S, equation.G, options=options())
    for j in range(equation.G.shape[1]):
        exact = naive.rational_adjoint(equation.A, equation.S[:, j], equation.G[:, j])
        errors = [abs(naive.Fraction(float(a)) - b) for a, b in zip(solution.X[:, j], exact, strict=True)]
        assert sum(errors) <= naive.Fraction(solution.error_bound[j])


@METHOD
@given(equation=equations(low_rank=True))
def test_low_rank_is_the_dense_product(method, equation):
    L, R = (F.astype(float) for F in equation.pair)
    S, G = equation.S.astype(float), equation.G.astype(float)
    low = solve_adjoint((L, R), S, G, options=options(method=method))
    dense = solve_adjoint(L @ R.T, S, G, options=options())
    assert low.converged
    assert np.all(error_1(low.X, dense.X) <= low.error_bound + dense.error_bound + 1e-13 * abs(G).sum(axis=0))


@pytest.mark.parametrize("r", [1, 64, 65])
def test_low_rank_of_any_rank(r):
    rng = np.random.default_rng(r)
    L, R = pair(80, r, 0.95, rng)
    S, G = rng.random((2, 80, 3))
    solution = solve_adjoint((L, R), S, G, options=options())
    for j in range(3):
        V = np.linalg.solve(np.eye(80) - S[:, j, None] * (R @ L.T), S[:, j] * G[:, j])
        np.testing.assert_allclose(solution.X[:, j], V, atol=1e-11)
    if r <= 64:  # An exact solve takes two applications, for the trial point and for its check.
        assert solution.iterations.max() <= 3


@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize("method", ["auto", "substitution"])
def test_strictly_triangular_is_one_exact_sweep(backend, method, lower):
    rng = np.random.default_rng(3)
    A = np.triu(rng.integers(-3, 4, (6, 6)), 1).astype(backend.dtype)
    A = A.T if lower else A
    S = rng.integers(0, 2, (6, 2)).astype(backend.dtype)
    G = rng.integers(-5, 6, (6, 2)).astype(backend.dtype)
    solution = solve_adjoint(A, S, G, options=options(method=method, max_iter=1), backend=backend.name)
    V = np.zeros((6, 2))
    for _ in range(6):
        V = S * (naive.product(A.T, V) + G)
    np.testing.assert_array_equal(solution.X, V)
    np.testing.assert_array_equal(solution.iterations, 1)
    np.testing.assert_array_equal(solution.status, Status.CONVERGED)
    assert np.isfinite(solution.error_bound).all()


@METHOD
def test_columns_permutations_and_tiles(backend, method):
    tol, atol = (1e-13, 2e-11) if backend.dtype is np.float64 else (1e-6, 2e-3)
    for A, S, G, _, _ in cases(backend.dtype):
        how = {"options": options(method=method, tol=tol), "backend": backend.name}
        whole = solve_adjoint(A, S, G, **how)
        for j in range(3):
            alone = solve_adjoint(A, S[:, [j]], G[:, [j]], **how)
            np.testing.assert_allclose(alone.X[:, 0], whole.X[:, j], atol=atol)
        turned = solve_adjoint(A, S[:, ::-1], G[:, ::-1], **how)
        np.testing.assert_allclose(turned.X[:, ::-1], whole.X, atol=atol)
        tiled = solve_adjoint(A, S, G, options=options(method=method, tol=tol, tile=2), backend=backend.name)
        np.testing.assert_allclose(tiled.X, whole.X, atol=atol)


@given(equation=equations())
def test_the_start_does_not_matter(equation):
    A, S, G = equation.A, equation.S, equation.G
    cold = solve_adjoint(A, S, G, options=options())
    warm = solve_adjoint(A, S, G, V0=equation.X0, options=options())
    assert cold.converged
    assert warm.converged
    assert np.all(error_1(cold.X, warm.X) <= cold.error_bound + warm.error_bound)


@pytest.mark.parametrize("method", ["auto", "anderson", "newton"])
@given(n=sizes, seed=seeds)
@settings(max_examples=20)
def test_whatever_picard_solves_the_others_solve(method, n, seed):
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((n, n)) * rng.choice([0.1, 0.3, 1.0])
    S, G = rng.random((2, n, 3))
    picard = solve_adjoint(A, S, G, options=options(method="picard", max_iter=1000))
    other = solve_adjoint(A, S, G, options=options(method=method, max_iter=1300))
    assert np.all(other.succeeded[picard.succeeded])


def test_zero_slopes_give_zero():
    solution = solve_adjoint(np.full((3, 3), 0.3), np.zeros((3, 2)), np.ones((3, 2)))
    assert not solution.X.any()
    assert solution.converged


@METHOD
@pytest.mark.parametrize("place", ["S", "G", "V0"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_nonfinite_input_stains_its_own_column_only(backend, method, place, bad):
    A, S, G, V, _ = cases(backend.dtype)[1]
    arrays = {"S": S.copy(), "G": G.copy(), "V0": np.zeros_like(G)}
    arrays[place][3, 1] = bad
    solution = solve_adjoint(
        A, arrays["S"], arrays["G"], V0=arrays["V0"], options=options(method=method, tol=1e-5), backend=backend.name
    )
    assert solution.succeeded.tolist() == [True, False, True]
    assert solution.status[1] == Status.NONFINITE
    assert solution.iterations[1] <= 1
    assert np.isnan(solution.X[:, 1]).all()
    assert solution.error_bound[1] == np.inf
    np.testing.assert_allclose(solution.X[:, ::2], V[:, ::2].astype(float), atol=1e-2)


@METHOD
@pytest.mark.parametrize("dtype", DTYPES)
def test_expanding_equations_have_no_bound(method, dtype):
    """For A ≥ 0 with Perron root 1.5, Picard diverges; a linear solve may find a fixed point, but without a bound."""
    A = matrix("hard", 4, 1.5, np.random.default_rng(0), dtype)
    S, G = np.ones((2, 4, 2), dtype)
    solution = solve_adjoint(A, S, G, options=options(method=method, max_iter=50, tol=1e-4))
    assert np.isposinf(solution.error_bound).all()
    if method == "picard":
        assert not solution.succeeded.any()
    for j in np.flatnonzero(solution.succeeded):
        V = np.linalg.solve(np.eye(4) - A.T.astype(float), G[:, j].astype(float))
        np.testing.assert_allclose(solution.X[:, j], V, rtol=1e-2)


def test_failures_are_those_of_the_adjoint():
    A, S, G, *_ = cases(np.float64)[1]
    limits = {"max_iter": 2, "method": "picard"}
    message = r"^adjoint: 3 of 3 samples not converged after 2 iterations .* Raise max_iter, try"
    with pytest.warns(ConvergenceWarning, match=message) as record:
        solve_adjoint(A, S, G, options=SolveOptions(**limits))
    assert len(record) == 1
    assert record[0].filename == __file__
    with pytest.raises(NotConvergedError, match=message) as error:
        solve_adjoint(A, S, G, options=SolveOptions(**limits, on_failure="raise"))
    assert (error.value.solution.status == Status.MAX_ITER).all()
    assert not solve_adjoint(A, S, G, options=SolveOptions(**limits, on_failure="ignore")).converged


def test_the_message_of_a_failure_names_the_norm_of_A():
    A = np.array([[0.4, 0.5], [0.1, 0.1]])
    with pytest.warns(ConvergenceWarning, match="‖A‖∞ = 0.9000"):
        solve_adjoint(A, np.ones((2, 1)), np.ones((2, 1)), options=SolveOptions(max_iter=2))


@pytest.mark.sampled(2)
def test_inputs_are_not_touched(backend):
    A, S, G, *_ = cases(backend.dtype)[0]
    how = {"options": options(tol=1e-5), "backend": backend.name}
    expected = solve_adjoint(A, S, G, **how).X
    for layout in (np.copy, np.asfortranarray, lambda M: np.repeat(M, 2, axis=1)[:, ::2]):
        views = [layout(M) for M in (A, S, G)]
        for view in views:
            view.flags.writeable = False
        solution = solve_adjoint(*views, V0=views[2], **how)
        np.testing.assert_allclose(solution.X, expected, atol=1e-3)
        for view, M in zip(views, (A, S, G), strict=True):
            np.testing.assert_array_equal(view, M)
            assert not np.shares_memory(view, solution.X)


@METHOD
def test_no_samples(backend, method):
    A = np.full((3, 3), 0.2, backend.dtype)
    empty = np.zeros((3, 0), backend.dtype)
    for factors in (A, (A[:, :1], A[:, :1])):
        solution = solve_adjoint(factors, empty, empty, options=SolveOptions(method=method), backend=backend.name)
        assert solution.X.shape == (3, 0)
        assert solution.converged


def test_wrong_inputs_are_refused():
    A, S = np.eye(2) / 2, np.ones((2, 3))
    with pytest.raises(ValueError, match=r"G must have shape \(2, 3\), that of S; got \(2, 1\)"):
        solve_adjoint(A, S, np.ones((2, 1)))
    with pytest.raises(ValueError, match=r"V0 must have shape \(2, 3\), that of S; got \(3, 2\)"):
        solve_adjoint(A, S, S, V0=np.ones((3, 2)))
    with pytest.raises(ValueError, match=r"S must have shape \(2, 2\), one row per row of A; got \(3, 2\)"):
        solve_adjoint(A, np.ones((3, 2)), np.ones((3, 2)))
    with pytest.raises(TypeError, match="G must hold real numbers of at most 64 bits; got dtype complex128"):
        solve_adjoint(A, S, S * 1j)
    with pytest.raises(TypeError, match="S must hold real numbers of at most 64 bits; got dtype object"):
        solve_adjoint(A, S.astype(object), S)
