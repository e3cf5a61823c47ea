"""Sparse A: products, gradients on the pattern, and equations agree with those of the dense matrix, in both twins."""

import sys
from fractions import Fraction

import numpy as np
import pytest

from idl_ref import NotConvergedError, SolveOptions, certify, solve_adjoint, solve_equilibrium, sparse
from idl_ref import factors as fac
from idl_ref.backends import methods
from idl_ref.certificate import resolvent_norm
from idl_ref.sparse import Sparse

sp = pytest.importorskip("scipy.sparse")


def hard(n, kappa, seed=0, density=0.2, dtype=np.float64):
    """A nonnegative matrix whose rows have the sum kappa, except for rows without entries."""
    rng = np.random.default_rng(seed)
    A = np.where(rng.random((n, n)) < density, rng.random((n, n)), 0)
    A[n // 2] = 0
    sums = A.sum(axis=1, keepdims=True)
    return (kappa * A / np.where(sums > 0, sums, 1)).astype(dtype)


def drawn(n, m, seed=1, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return rng.uniform(-0.5, 1, (n, m)).astype(dtype), rng.uniform(0, 1, (n, m)).astype(dtype)


# --- the matrix -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("m", [0, 1, 2, 33])
def test_all_products_agree(dtype, m, monkeypatch):
    A = hard(40, 0.9, dtype=dtype)
    A[:, 3], A[-1], A[0] = 0, 0, 0
    S, X = Sparse.of(A), drawn(40, m, dtype=dtype)[0]
    numba = pytest.importorskip("idl_ref.backends.numba.sparse")
    monkeypatch.setattr(sparse, "TERMS", 3 * max(m, 1))  # several groups of rows
    close = {"rtol": 1e-5 if dtype == "float32" else 1e-14, "atol": 1e-6 if dtype == "float32" else 1e-15}
    for product in (S @ X, S.sums(X), numba.CompiledSparse.compiled(S) @ X):
        assert product.dtype == dtype
        np.testing.assert_allclose(product, A @ X, **close)
    np.testing.assert_allclose(S.T @ X, A.T @ X, **close)
    np.testing.assert_array_equal(S.T.dense(), A.T)
    np.testing.assert_array_equal(abs(S.with_data(-S.data)).dense(), np.abs(A))


def test_a_gradient_has_the_entries_of_the_pattern(monkeypatch):
    A, (V, X) = Sparse.of(hard(30, 0.9)), drawn(30, 5)
    monkeypatch.setattr(sparse, "TERMS", 35)
    G = sparse.gradient(A, V, X)
    np.testing.assert_allclose(G.dense(), np.where(A.dense() != 0, V @ X.T, 0), rtol=1e-13)


def test_compiled_products_have_the_same_bits(monkeypatch):
    numba = pytest.importorskip("idl_ref.backends.numba.sparse")
    A = numba.CompiledSparse.compiled(Sparse.of(hard(70, 0.9, dtype=np.float32)))
    X = drawn(70, 37, dtype=np.float32)[0]
    whole = A @ X
    for some in (slice(0, 1), slice(3, 20), slice(36, 37)):
        np.testing.assert_array_equal(whole[:, some], A @ X[:, some])
    monkeypatch.setattr(numba, "PARALLEL_FLOPS", 0)
    np.testing.assert_array_equal(whole, A @ X)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (([1], [0], [0, 1, 1]), "data must be one row"),
        (([1.0], [2], [0, 1, 1]), "columns from 0 to 1; got 2"),
        (([1.0], [-1], [0, 1, 1]), "columns from 0 to 1; got -1"),
        (([1.0], [0], [0, 1]), r"shape \(3,\)"),
        (([1.0], [0], [0, 2, 1]), "must ascend from 0 to 1"),
        (([1.0], [0], [0, 0, 0]), "must ascend from 0 to 1"),
        (([1.0, 2.0], [0], [0, 1, 2]), "one per entry"),
        (([1.0, 2.0], [1, 0], [0, 2, 2]), "without a repetition"),
        (([1.0, 2.0], [1, 1], [0, 2, 2]), "without a repetition"),
        (([1.0], [0.0], [0, 1, 1]), "integers"),
    ],
)
def test_wrong_patterns_are_refused(arrays, message):
    with pytest.raises(ValueError, match=message):
        Sparse(*(np.array(array) for array in arrays), (2, 2))


def test_numpy_does_not_fill_a_matrix_up():
    with pytest.raises(TypeError, match=r"use A.dense\(\)"):
        np.exp(Sparse.of(np.eye(2)))


# --- equations --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("method", ["auto", "picard", "anderson", "newton"])
def test_equations_have_the_answers_of_the_dense_matrix(backend, dtype, method):
    A = hard(30, 0.99, dtype=dtype)
    Z, S = drawn(30, 6, dtype=dtype)
    options = SolveOptions(tol=1e-12 if dtype == "float64" else 1e-7, max_iter=5000, method=method)
    for solution, truth in (
        (solve_equilibrium(sp.csr_array(A), Z, options=options, backend=backend), certify(A, Z, Z * 0)),
        (solve_adjoint(sp.csr_array(A), S, Z, options=options, backend=backend), certify(A, Z, Z * 0, S=S)),
    ):
        assert solution.converged
        assert np.isfinite(truth).all()
    forward = solve_equilibrium(sp.csr_array(A), Z, options=options, backend=backend)
    adjoint = solve_adjoint(sp.csr_array(A), S, Z, options=options, backend=backend)
    assert (certify(A, Z, forward.X).max(axis=0) <= forward.error_bound * 1.01 + 1e-11).all()
    assert (certify(A, Z, adjoint.X, S=S).max(axis=0) <= adjoint.error_bound * 1.01 + 1e-11).all()
    exact = [[Fraction(float(v)) for v in row] for row in A]
    x = forward.X[:, 0].astype(float)
    residual = [
        float(
            max(sum(a * Fraction(b) for a, b in zip(row, x, strict=True)) + Fraction(float(z)), Fraction(0))
            - Fraction(b)
        )
        for row, z, b in zip(exact, Z[:, 0], x, strict=True)
    ]
    assert np.abs(residual).max() <= (1e-10 if dtype == "float64" else 1e-3)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("k", [1, -1])
def test_triangles_are_substituted(backend, k):
    A = 3 * (np.triu(hard(20, 0.9), 1) if k > 0 else np.tril(hard(20, 0.9), -1))
    Z, S = drawn(20, 4)
    for method in ("auto", "substitution"):
        options = SolveOptions(method=method)
        x, v = (
            f(sp.csc_array(A), *a, options=options, backend=backend)
            for f, a in ((solve_equilibrium, (Z,)), (solve_adjoint, (S, Z)))
        )
        np.testing.assert_allclose(x.X, solve_equilibrium(A, Z, options=options).X, rtol=1e-12)
        np.testing.assert_allclose(v.X, solve_adjoint(A, S, Z, options=options).X, rtol=1e-12)
        assert x.iterations.max() == 1
        assert np.isfinite(x.error_bound).all()


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_an_answer_does_not_depend_on_batch_mates(backend):
    A, (Z, _) = sp.csr_array(hard(40, 0.99)), drawn(40, 17)
    options = SolveOptions(method="picard", max_iter=5000)
    whole = solve_equilibrium(A, Z, activation="tanh", options=options, backend=backend)
    for j in (0, 5, 16):
        one = solve_equilibrium(A, Z[:, [j]], activation="tanh", options=options, backend=backend)
        np.testing.assert_array_equal(one.X[:, 0], whole.X[:, j])
        assert one.iterations[0] == whole.iterations[j]


def test_starts_sharp_bounds_and_bad_columns():
    A = hard(30, 0.99)
    Z, _ = drawn(30, 5)
    Z[3, 1] = np.nan
    options = SolveOptions(certificate="sharp", on_failure="ignore")
    cold, dense = (solve_equilibrium(M, Z, options=options) for M in (sp.csr_array(A), A))
    assert np.isinf(cold.error_bound[1])
    assert (cold.status == dense.status).all()
    np.testing.assert_allclose(cold.error_bound, dense.error_bound, rtol=0.5)
    warm = solve_equilibrium(sp.csr_array(A), Z, X0=np.nan_to_num(cold.X), options=options)
    assert (np.delete(warm.iterations, 1) <= 2).all()
    A[4, 5] = np.inf
    assert (solve_equilibrium(sp.csr_array(A), Z, options=options).status == 3).all()


@pytest.mark.parametrize("kappa", [0.99, 1.0, 1.5])
def test_the_resolvent_of_a_sparse_matrix_is_an_upper_bound(kappa):
    A = hard(30, kappa)
    A[20:], A[:, 20:] = A[20:] * 0.1, A[:, 20:] * 0.1
    root = np.abs(np.linalg.eigvals(A)).max()
    exact = np.abs(np.linalg.inv(np.eye(30) - A)).sum(axis=1).max() if root < 1 else np.inf
    bound = resolvent_norm((Sparse.of(A),), 1.0)
    assert exact <= bound
    assert bound <= 3 * exact or not np.isfinite(exact)


def test_explicit_zeros_repeated_and_unsorted_entries():
    coo = sp.coo_array((np.array([0.25, 0.25, 0.0, 0.3]), (np.array([0, 0, 1, 1]), np.array([1, 1, 0, 1]))), (2, 2))
    for A in (coo, coo.tocsc(), coo.todok(), sp.csr_matrix(coo)):
        np.testing.assert_allclose(solve_equilibrium(A, np.ones((2, 1))).X[:, 0], [1 + 0.5 / 0.7, 1 / 0.7], rtol=1e-5)
    unsorted = sp.csr_array((np.array([0.1, 0.2]), np.array([1, 0]), np.array([0, 2, 2], np.int64)), shape=(2, 2))
    kept = unsorted.indices.copy()
    np.testing.assert_allclose(solve_equilibrium(unsorted, np.ones((2, 1))).X[:, 0], [1.1 / 0.8, 1], rtol=1e-5)
    np.testing.assert_array_equal(unsorted.indices, kept)  # The input is not changed.
    assert fac.triangle((fac.from_scipy(sp.csr_array(np.triu(np.ones((3, 3)), 1))),)) == "upper"
    zero = Sparse(np.array([0.0, 0.5]), np.array([0, 1]), np.array([0, 2, 2]), (2, 2))
    assert solve_equilibrium(zero, np.ones((2, 1)), options=SolveOptions(method="substitution")).X[0, 0] == 1.5
    assert np.isfinite(certify(zero, np.ones((2, 1)), np.array([[1.4], [1.0]]))).all()  # 0 times a bound not known yet


def test_what_a_sparse_matrix_cannot_do_is_refused():
    A, Z = sp.csr_array(hard(10, 0.9)), np.ones((10, 1))
    with pytest.raises(ValueError, match='"blocks" needs a dense A; got a sparse one: use method="auto"'):
        solve_equilibrium(A, Z, options=SolveOptions(method="blocks"))
    with pytest.raises(ValueError, match='a sparse A needs backend="numba" or "numpy"'):
        solve_equilibrium(A, Z, backend="cuda")
    with pytest.raises(ValueError, match="strictly triangular"):
        solve_equilibrium(A, Z, options=SolveOptions(method="substitution"))
    with pytest.raises(TypeError, match="real numbers"):
        solve_equilibrium(A.astype(complex), Z)
    with pytest.raises(TypeError, match="dense"):
        solve_equilibrium((A, A), Z)
    with pytest.raises(ValueError, match="square"):
        solve_equilibrium(sp.csr_array(np.ones((10, 9))), Z)
    with pytest.raises(NotConvergedError):
        solve_equilibrium(A, Z, options=SolveOptions(max_iter=1, method="picard", on_failure="raise"))
    big = sp.eye_array(methods.NEWTON_LIMIT + 1, format="csr") * 0.5
    with pytest.raises(ValueError, match="needs n ≤"):
        solve_equilibrium(big, np.ones((big.shape[0], 1)), options=SolveOptions(method="newton"))


def test_without_scipy_a_product_is_numpys(monkeypatch):
    A, X = Sparse.of(hard(20, 0.9)), drawn(20, 3)[0]
    monkeypatch.setitem(sys.modules, "scipy.sparse", None)
    np.testing.assert_array_equal(A @ X, A.sums(X))
    assert solve_equilibrium(A, X, backend="numpy").converged


def test_memory_stays_near_the_entries():
    import tracemalloc

    A = sp.random_array((3000, 3000), density=0.01, rng=0, format="csr", dtype=np.float32)
    A.data *= 0.02
    tracemalloc.start()
    solution = solve_equilibrium(A, np.ones((3000, 1), np.float32), backend="numpy")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert solution.converged
    assert peak <= 4 * 3000**2 / 10


@pytest.mark.parametrize("method", ["auto", "picard", "anderson", "newton", "substitution"])
@pytest.mark.parametrize("scale", [0.5, 1.5])
@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_a_sparse_matrix_and_an_activation_per_row_go_together(backend, scale, method):
    """The answers and the bounds are those of the same matrix with all its zeros."""
    rng, names = np.random.default_rng(0), ["relu", "tanh", "sigmoid", "hardtanh", "identity"]
    A, Z = rng.standard_normal((40, 40)) * (rng.random((40, 40)) < 0.1), rng.standard_normal((40, 3))
    A = np.tril(A, -1) if method == "substitution" else A
    A *= scale / np.abs(A).sum(axis=1).max()
    for certificate in ("fast", "sharp"):
        options = SolveOptions(tol=1e-12, max_iter=5000, method=method, certificate=certificate, on_failure="raise")
        how = {"activation": [names[i % 5] for i in range(40)], "backend": backend, "options": options}
        ours, dense = solve_equilibrium(sp.csr_array(A), Z, **how), solve_equilibrium(A, Z, **how)
        np.testing.assert_allclose(ours.X, dense.X, rtol=0, atol=1e-10)
        assert (ours.error_bound <= 10 * dense.error_bound).all()
