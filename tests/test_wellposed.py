from fractions import Fraction

import naive
import numpy as np
import pytest
from hypothesis import given
from strategies import DTYPES, equations, kappas, matrix, pair, ranks, seeds, sizes

from idl_ref import wellposed
from idl_ref.wellposed import perron_root, project_rows, scale_to_norm, scale_to_norm_pullback

MAPS = {"inf": scale_to_norm, "rows": project_rows}
PULLBACKS = {"inf": wellposed.scale_to_norm_pullback, "rows": wellposed.project_rows_pullback}
MAP = pytest.mark.parametrize("name", MAPS)


def raw(n, k, seed, dtype=np.float64):
    """Draw rows inside and outside the ball, with some zeros and some ties."""
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((n, k)) * 10.0 ** rng.uniform(-2, 1, (n, 1))
    A[rng.random((n, k)) < 0.2] = 0
    return (np.round(A, 1) if seed % 3 == 0 else A).astype(dtype)


# --- the Perron root --------------------------------------------------------------------------------------------------


def assert_bracket(A, root, rtol=1e-12):
    bracket = perron_root(A)
    assert bracket.lower * (1 - rtol) <= root <= bracket.upper * (1 + rtol)
    assert bracket.upper - bracket.lower <= 1e-6 * bracket.upper
    return bracket


@given(equations())
def test_bracket_holds_the_largest_eigenvalue(equation):
    A = equation.A
    assert_bracket(A, abs(np.linalg.eigvals(abs(A).astype(float))).max(), rtol=1e-6 if not A.all() else 1e-10)


@given(n=sizes, seed=seeds)
def test_equal_row_sums_are_the_root(n, seed):
    A = matrix("hard", n, 0.97, np.random.default_rng(seed))
    assert_bracket(A * np.random.default_rng(seed).choice([-1, 1], A.shape), 0.97 * (1 - 1e-6))


@given(n=sizes, seed=seeds)
def test_permutation_has_root_1(n, seed):
    rng = np.random.default_rng(seed)
    root = perron_root(np.eye(n)[rng.permutation(n)])
    assert 1 - 1e-13 <= root.lower <= 1 <= root.upper <= 1 + 1e-13  # rounded outwards
    assert_bracket(-0.3 * np.eye(n)[rng.permutation(n)], 0.3)


@given(n=sizes, seed=seeds)
def test_weighted_cycle_has_the_geometric_mean(n, seed):
    """Power steps without a shift would cycle for this matrix."""
    weights = np.random.default_rng(seed).uniform(0.1, 2, n)
    assert_bracket(np.roll(np.diag(weights), 1, axis=1), np.exp(np.log(weights).mean()))


@given(n=sizes, seed=seeds)
def test_nilpotent_has_root_0_in_any_order(n, seed):
    rng = np.random.default_rng(seed)
    order = rng.permutation(n)
    A = np.triu(rng.standard_normal((n, n)), 1)[np.ix_(order, order)]
    assert perron_root(A) == (0, 0)


@given(first=sizes, second=sizes, seed=seeds)
def test_reducible_matrix_has_the_largest_root_of_its_blocks(first, second, seed):
    rng = np.random.default_rng(seed)
    n = first + second
    A = np.zeros((n, n))
    A[:first, :first] = matrix("hard", first, 0.5, rng)
    A[first:, first:] = matrix("hard", second, 0.9, rng)
    # The edges of this block lead in one direction only, and form no cycle.
    A[:first, first:] = 100 * rng.standard_normal((first, second))
    order = rng.permutation(n)
    assert_bracket(A[np.ix_(order, order)], 0.9 * (1 - 1e-6))


@given(n=sizes, seed=seeds)
def test_diagonal_rescaling_keeps_the_root(n, seed):
    rng = np.random.default_rng(seed)
    d = 10 ** rng.uniform(-6, 6, n)
    A = matrix("hard", n, 0.8, rng)
    assert_bracket(d[:, None] * A / d, 0.8 * (1 - 1e-6))


@pytest.mark.parametrize(
    ("A", "root"),
    [
        ([[0, 1e-12], [1, 0]], 1e-6),
        ([[0.5, 1e-20], [1e-20, 0.5]], 0.5),
        ([[0.5, 1], [1e-20, 0.25]], 0.5),
        ([[1e-300]], 1e-300),
        ([[0, 1e200], [1e-200, 0]], 1.0),
    ],
)
def test_bracket_of_badly_scaled_matrices(A, root):
    bracket = perron_root(np.array(A))
    assert bracket.lower * (1 - 1e-12) <= root <= bracket.upper * (1 + 1e-12)


def test_bracket_holds_when_the_steps_run_out():
    A = np.abs(np.random.default_rng(0).standard_normal((6, 6))) ** 6
    root = abs(np.linalg.eigvals(A)).max()
    widths = []
    for steps in (1, 2, 3, 10):
        bracket = perron_root(A, rtol=0, max_iter=steps)
        assert bracket.lower <= root * (1 + 1e-12)
        assert bracket.upper >= root * (1 - 1e-12)
        widths.append(bracket.upper - bracket.lower)
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > widths[-1]


@given(n=sizes, r=ranks, seed=seeds)
def test_pair_bounds_the_root_of_the_product(n, r, seed):
    L, R = pair(n, r, 0.9, np.random.default_rng(seed))
    bracket = perron_root((L, R))
    assert bracket.upper >= abs(np.linalg.eigvals(abs(L @ R.T))).max() * (1 - 1e-7)
    assert bracket.upper <= 0.9 * (1 + 1e-6)


def test_perron_root_of_odd_inputs():
    assert perron_root(np.zeros((0, 0))) == (0, 0)
    assert perron_root(np.zeros((3, 3))) == (0, 0)
    assert perron_root([[2]]) == pytest.approx((2, 2), rel=1e-15)
    for bad in (np.nan, np.inf):
        lower, upper = perron_root(np.array([[0.1, bad], [0, 0]]))
        assert np.isnan(lower)
        assert upper == np.inf
    with pytest.raises(ValueError, match=r"A must have shape \(2, 2\), square; got \(2, 3\)"):
        perron_root(np.zeros((2, 3)))
    with pytest.raises(TypeError, match="A must hold real numbers"):
        perron_root(np.eye(2) * 1j)


# --- norms, scalings, projections -------------------------------------------------------------------------------------


@given(n=sizes, k=sizes, seed=seeds)
def test_norm_inf_is_the_largest_row_sum(n, k, seed):
    A = raw(n, k, seed)
    assert wellposed.norm_inf(A) == pytest.approx(max(sum(abs(a) for a in row) for row in A), rel=1e-14)
    assert wellposed.norm_inf(np.zeros((0, 0))) == 0


@MAP
@pytest.mark.parametrize("dtype", DTYPES)
@given(n=sizes, k=sizes, kappa=kappas, seed=seeds)
def test_maps_are_feasible_idempotent_and_leave_the_inside_alone(name, dtype, n, k, kappa, seed):
    A = raw(n, k, seed, dtype)
    A.flags.writeable = False
    once = MAPS[name](A, kappa)
    assert once.dtype == dtype
    assert np.all(np.abs(once).sum(axis=1, dtype=np.longdouble) <= kappa)
    np.testing.assert_array_equal(MAPS[name](once, kappa), once)
    sums = np.abs(A).sum(axis=1, dtype=np.longdouble)
    inside = sums <= kappa if name == "rows" else np.full(n, sums.max() <= kappa)
    np.testing.assert_array_equal(once[inside], A[inside])


@MAP
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [64, 513, 2000])
def test_wide_rows_are_feasible_and_idempotent(name, dtype, k):
    for seed in range(5):
        A = np.random.default_rng(seed).standard_normal((40, k)).astype(dtype)
        for kappa in (0.99, 0.5, 30.0):
            once = MAPS[name](A, kappa)
            assert wellposed.norm_inf(once) <= kappa
            assert wellposed.norm_inf(once) >= kappa * (1 - 1e-6)
            np.testing.assert_array_equal(MAPS[name](once, kappa), once)


@given(n=sizes, k=sizes, kappa=kappas, seed=seeds)
def test_scaling_is_the_naive_one(n, k, kappa, seed):
    A = raw(n, k, seed)
    np.testing.assert_allclose(scale_to_norm(A, kappa), naive.scale_to_norm(A, kappa), rtol=1e-14)


@pytest.mark.parametrize("dtype", DTYPES)
@given(n=sizes, k=sizes, kappa=kappas, seed=seeds)
def test_projection_is_the_nearest_point(dtype, n, k, kappa, seed):
    A = raw(n, k, seed, dtype)
    P = project_rows(A, kappa)
    truth = np.array([naive.project_l1(a, kappa) for a in A])
    np.testing.assert_allclose(P, truth.astype(float), atol=4 * np.finfo(dtype).eps * max(1, abs(A).max()))
    np.testing.assert_allclose(
        naive.project_rows(A.astype(float), kappa), truth.astype(float), atol=1e-14 * abs(A).max()
    )


@MAP
@pytest.mark.parametrize("kappa", [0.5, 0.99, 5.0])
@given(n=sizes, k=sizes, seed=seeds)
def test_pullbacks_are_complex_steps(name, kappa, n, k, seed):
    """Pullbacks agree with complex steps of the map and of the naive map; random entries avoid the kinks."""
    rng = np.random.default_rng(seed)
    A, G = rng.standard_normal((2, n, k))
    expected, own = np.zeros((2, n, k))
    for entry in np.ndindex(n, k):
        moved = A.astype(complex)
        moved[entry] += 1e-30j
        expected[entry] = (G * naive.CONSTRAINTS[name](moved, kappa).imag).sum() / 1e-30
        own[entry] = (G * MAPS[name](moved, kappa).imag).sum() / 1e-30
    pulled = PULLBACKS[name](A, kappa, G)
    np.testing.assert_allclose(pulled, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(own, expected, rtol=1e-12, atol=1e-12)
    single = PULLBACKS[name](A.astype(np.float32), kappa, G.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, expected, rtol=1e-4, atol=1e-4)


@MAP
def test_pullback_inside_the_ball_is_the_identity_and_arguments_stay(name):
    A, G = np.full((2, 3), 0.1), np.arange(6.0).reshape(2, 3)
    A.flags.writeable = G.flags.writeable = False
    np.testing.assert_array_equal(PULLBACKS[name](A, 0.9, G), G)
    PULLBACKS[name](A, 0.2, G)
    MAPS[name](A, 0.2)


def test_one_scale_for_the_matrix_but_one_threshold_per_row():
    A = np.array([[3.0, -1.0], [0.25, 0.25]])
    np.testing.assert_allclose(scale_to_norm(A, 0.5), A / 8, rtol=1e-14)
    np.testing.assert_allclose(project_rows(A, 0.5), [[0.5, 0], [0.25, 0.25]], rtol=1e-14)


# --- where float64 itself is at its limits ----------------------------------------------------------------------------


def exact_sum(row):
    return sum(Fraction(float(abs(entry))) for entry in row)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([1e17, 1.0], [0.99, 0.0]),
        ([1e8, 1.0], [0.99, 0.0]),
        ([1e300, -1e300], [0.495, -0.495]),
        ([1e308, 1e308, -1e308], [0.33, 0.33, -0.33]),
        ([1e16, 1e16 - 2, 5.0], [0.99, 0.0, 0.0]),
    ],
)
def test_kappa_is_not_lost_beside_large_entries(row, expected):
    np.testing.assert_allclose(project_rows(np.array([row]), 0.99), [expected], rtol=1e-14, atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_projected_rows_lie_inside_the_ball_exactly(dtype):
    """By rational sums: rows far outside, and rows a few roundings away from the sphere on either side."""
    rng = np.random.default_rng(0)
    for _ in range(1500):
        kappa = float(rng.choice([0.99, 0.9, 0.5, 1 / 3, 0.1]))
        a = rng.standard_normal((1, rng.integers(1, 40)))
        near = (a / np.abs(a).sum() * kappa * (1 + 1e-16 * rng.integers(-3, 4))).astype(dtype)
        for A in (near, (a * 10.0 ** rng.integers(-2, 6)).astype(dtype)):
            P = project_rows(A, kappa)
            assert exact_sum(P[0]) <= Fraction(kappa)
            np.testing.assert_array_equal(project_rows(P, kappa), P)
            if exact_sum(A[0]) <= Fraction(kappa):
                np.testing.assert_array_equal(P, A)


def test_a_norm_beyond_float64_is_scaled_all_the_same():
    A = np.array([[1e308, -1e308], [0.0, 5e307]])
    np.testing.assert_allclose(scale_to_norm(A, 0.9), [[0.45, -0.45], [0.0, 0.225]], rtol=1e-14)
    G = np.array([[1.0, 2.0], [3.0, 4.0]])
    expected = scale_to_norm_pullback(A / 1e308, 0.9, G) / 1e308
    np.testing.assert_allclose(scale_to_norm_pullback(A, 0.9, G), expected, rtol=1e-12)


@given(seed=seeds)
def test_the_bracket_of_the_perron_root_holds_exactly(seed):
    """The sign of det(tI − |A|), by rational elimination, on both ends of the bracket."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 6))
    # If all rows are equal, both ends of the bracket are one rounded sum, which is seldom the exact root.
    M = np.tile(rng.random(n), (n, 1)) if seed % 2 else rng.random((n, n))
    root = perron_root(M)
    exact = [[Fraction(float(entry)) for entry in row] for row in M]

    def determinant(t):
        B = [[(Fraction(t) if i == j else 0) - exact[i][j] for j in range(n)] for i in range(n)]
        value = Fraction(1)
        for k in range(n):
            pivot = next((i for i in range(k, n) if B[i][k] != 0), None)
            if pivot is None:
                return Fraction(0)
            if pivot != k:
                B[k], B[pivot], value = B[pivot], B[k], -value
            value *= B[k][k]
            for i in range(k + 1, n):
                ratio = B[i][k] / B[k][k]
                B[i] = [b - ratio * c for b, c in zip(B[i], B[k], strict=True)]
        return value

    assert determinant(root.upper) >= 0
    assert determinant(root.lower) <= 0


def test_what_underflows_in_a_product_of_factors_is_not_lost():
    """|R|ᵀ|L| has an entry 1e-400 in a cycle whose other entries are 1e150."""
    L, R = np.diag([1e-200, *4 * [1e150]]), np.roll(np.diag([1e-200, 1, 1, 1, 1]), 1, axis=1)
    root = 10 ** ((4 * 150 - 400) / 5)
    found = perron_root((L, R))
    assert found.lower <= root <= found.upper < np.inf
    assert perron_root((np.diag([0.0, 1.0]), np.eye(2)[::-1])).upper == 0


# --- arguments --------------------------------------------------------------------------------------------------------

MASKED = np.ma.array(np.eye(2), mask=[[0, 1], [0, 0]])
CALLS = {
    "norm_inf": lambda A, kappa: wellposed.norm_inf(A),
    "scale_to_norm": scale_to_norm,
    "project_rows": project_rows,
    "scale_to_norm_pullback": lambda A, kappa: scale_to_norm_pullback(A, kappa, np.eye(2)),
    "project_rows_pullback": lambda A, kappa: wellposed.project_rows_pullback(A, kappa, np.eye(2)),
    "the pullback of G": lambda A, kappa: scale_to_norm_pullback(np.eye(2), kappa, A),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("A", "rule"),
    [
        (np.ones(2), "must be a matrix of shape"),
        (MASKED, "1 masked entries"),
        ([["a", "b"], ["c", "d"]], "must hold real numbers"),
        (None, "must hold real numbers"),
    ],
)
def test_what_is_no_matrix_is_refused_by_name(call, A, rule):
    with pytest.raises((TypeError, ValueError), match=rf"^{'G' if 'G' in call else 'A'} .*{rule}"):
        CALLS[call](A, 0.9)


@pytest.mark.parametrize("call", [call for call in CALLS if call != "norm_inf"])
@pytest.mark.parametrize("kappa", [-1, np.nan, "0.9", None])
def test_a_kappa_below_0_is_refused(call, kappa):
    with pytest.raises((TypeError, ValueError), match=r"^kappa must be a number ≥ 0; got"):
        CALLS[call](np.eye(2), kappa)


def test_a_gradient_has_the_shape_of_its_matrix():
    for pullback in (scale_to_norm_pullback, wellposed.project_rows_pullback):
        with pytest.raises(ValueError, match=r"^G must have shape \(2, 2\), that of A; got \(2, 3\)"):
            pullback(np.eye(2), 0.9, np.ones((2, 3)))


@pytest.mark.parametrize("call", CALLS)
def test_lists_and_whole_numbers_are_matrices(call):
    A = [[3, -1], [0, 2]]
    expected = CALLS[call](np.array(A, float), 0.9)
    assert np.array_equal(CALLS[call](A, 0.9), expected)
    assert np.array_equal(CALLS[call](np.array(A), 0.9), expected)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_a_matrix_without_entries_stays_as_it_is(shape):
    A = np.zeros(shape)
    assert wellposed.norm_inf(A) == 0
    for mapped in (scale_to_norm(A, 0.9), project_rows(A, 0.9), scale_to_norm_pullback(A, 0.9, A)):
        assert mapped.shape == shape
