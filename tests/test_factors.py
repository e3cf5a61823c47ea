import naive
import numpy as np
import pytest
from hypothesis import given
from strategies import DTYPES, batches, pair, ranks, seeds, sizes

from idl_ref import factors as fac


def draw(n, r, m, seed):
    rng = np.random.default_rng(seed)
    L, R = pair(n, r, 0.9, rng)
    return L, R, *rng.standard_normal((2, n, m)), rng.standard_normal((n, n))


@given(n=sizes, r=ranks, m=batches, seed=seeds)
def test_apply_transpose_and_norms_are_those_of_the_product(n, r, m, seed):
    L, R, X, _, A = draw(n, r, m, seed)
    LR = naive.product(L, R.T)
    for factors, dense in (((A,), A), ((L, R.T), LR)):
        np.testing.assert_allclose(fac.apply(factors, X), naive.product(dense, X), rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(
            fac.apply(fac.transpose(factors), X), naive.product(dense.T, X), rtol=1e-12, atol=1e-13
        )
    sums = [sum(abs(a) for a in row) for row in A]
    np.testing.assert_allclose(fac.row_sums((A,)), sums, rtol=1e-14)
    assert fac.norm_inf((A,)) == pytest.approx(max(sums), rel=1e-14)
    bound = naive.product(abs(L), abs(R).T).sum(axis=1)
    np.testing.assert_allclose(fac.row_sums((L, R.T)), bound, rtol=1e-13)
    assert np.all(fac.row_sums((L, R.T)) >= abs(LR).sum(axis=1) * (1 - 1e-13))


@given(n=sizes, r=ranks, m=batches, seed=seeds)
def test_gradients_are_directional_derivatives(n, r, m, seed):
    """⟨V, F X⟩ is linear in each factor, so that a finite change of a factor gives its exact gradient."""
    L, R, X, V, A = draw(n, r, m, seed)
    (G_A,) = fac.gradients((A,), X, V)
    np.testing.assert_allclose(G_A, naive.product(V, X.T), rtol=1e-12, atol=1e-13)
    G_L, G_Rt = fac.gradients((L, R.T), X, V)
    np.testing.assert_allclose(G_L, naive.product(V, naive.product(R.T, X).T), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(G_Rt.T, naive.product(X, naive.product(L.T, V).T), rtol=1e-12, atol=1e-13)


def test_transpose_is_a_view():
    A, L, R = np.ones((3, 3)), np.ones((3, 2)), np.ones((3, 2))
    assert np.shares_memory(fac.transpose((A,))[0], A)
    first, second = fac.transpose((L, R.T))
    assert np.shares_memory(first, R)
    assert np.shares_memory(second, L)


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_triangle(n):
    ones = np.ones((n, n))
    assert fac.triangle((np.zeros((n, n)),)) == "upper"
    assert fac.triangle((np.triu(ones),)) is None
    assert fac.triangle((ones, ones)) is None
    if n > 1:
        assert fac.triangle((np.triu(ones, 1),)) == "upper"
        assert fac.triangle((np.tril(ones, -1),)) == "lower"
        assert fac.triangle((ones,)) is None
    for i, j in np.ndindex(n, n):  # A has a single nonzero entry, at each place in turn.
        A = np.zeros((n, n))
        A[i, j] = np.nan if i + j == 2 else -1e-300
        assert fac.triangle((A,)) == ("upper" if i < j else "lower" if i > j else None)


def test_norm_of_float32_is_summed_in_float64():
    A = np.full((1, 4096), 0.1, np.float32)
    assert fac.norm_inf((A,)) == pytest.approx(4096 * float(np.float32(0.1)), rel=1e-14)


@pytest.mark.parametrize("dtype", DTYPES)
def test_check_equation_meets_in_one_dtype(dtype):
    A, Z = np.eye(2, dtype=dtype), np.ones((2, 3), dtype)
    factors, (checked, X0) = fac.check_equation(A, Z=Z, X0=None)
    assert X0 is None
    assert factors[0] is A
    assert checked is Z
    for wider in (np.ones((2, 3)), np.ones((2, 3), int), [[1, 2, 3], [4, 5, 6]]):
        factors, (checked,) = fac.check_equation(A, Z=wider)
        assert factors[0].dtype == checked.dtype == np.float64
    (L, Rt), _ = fac.check_equation((np.ones((2, 1), dtype), [[1.0], [2.0]]), Z=Z)
    assert (L.shape, Rt.shape) == ((2, 1), (1, 2))
    assert L.dtype == Rt.dtype == np.float64


Z23 = np.zeros((2, 3))


@pytest.mark.parametrize(
    ("A", "columns", "message"),
    [
        (np.zeros((2, 3)), {"Z": Z23}, r"A must have shape \(2, 2\), square; got \(2, 3\)"),
        (np.zeros(2), {"Z": Z23}, r"A must be a matrix of shape \(n, n\); got 1 dimensions, \(2,\)"),
        (np.zeros((2, 2, 2)), {"Z": Z23}, r"A must be a matrix of shape \(n, n\); got 3 dimensions"),
        (
            (np.zeros((2, 1)),),
            {"Z": Z23},
            r"A must be a matrix or a pair \(L, R\) with A = L Rᵀ; got a tuple of length 1",
        ),
        ((np.zeros((2, 1)), np.zeros((1, 2))), {"Z": Z23}, r"R must have shape \(2, 1\), that of L"),
        ((np.zeros(2), np.zeros(2)), {"Z": Z23}, r"L must be a matrix of shape \(n, r\)"),
        (np.eye(2), {"Z": np.zeros(2)}, r"Z must be a matrix of shape \(n, m\); got 1 dimensions"),
        (np.eye(2), {"Z": np.zeros((3, 2))}, r"Z must have shape \(2, 2\), one row per row of A; got \(3, 2\)"),
        (np.eye(2), {"Z": Z23, "X0": np.zeros((2, 1))}, r"X0 must have shape \(2, 3\), that of Z; got \(2, 1\)"),
        (np.eye(2), {"S": Z23, "G": np.zeros((2, 2))}, r"G must have shape \(2, 3\), that of S; got \(2, 2\)"),
        ([[1.0], [1.0, 2.0]], {"Z": Z23}, r"A must be a rectangular array of numbers"),
    ],
)
def test_shapes_are_refused(A, columns, message):
    with pytest.raises(ValueError, match=message):
        fac.check_equation(A, **columns)
