"""These tests check the map of ImplicitFunctionPerron against eigenvalues, differences and exact arithmetic."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import DTYPES, ranks, seeds, sizes

import idl_ref
from idl_ref import ImplicitFunctionPerron, ImplicitModel, perron
from idl_ref.sparse import Sparse
from idl_ref.wellposed import norm_inf, perron_root

KINDS = ("dense", "sparse", "triangular", "blocks", "cycle", "scaled", "zero")
kinds = st.sampled_from(KINDS)


def matrix(kind, n, rng):
    """Return a matrix (n, n), reducible or not, without ties between the roots of its blocks."""
    A = rng.standard_normal((n, n))
    if kind == "sparse":
        return A * (rng.random((n, n)) < 0.3)
    if kind == "triangular":
        return np.triu(A, 1)[rng.permutation(n)[:, None], rng.permutation(n)] if n == 1 else np.triu(A, 1)
    if kind == "blocks":
        k, order = (n + 1) // 2, rng.permutation(n)
        A[k:, :k] = 0
        A[:k, :k] *= 5
        return A[order][:, order]
    if kind == "cycle":
        return np.roll(np.diag(np.diag(A)), 1, axis=0)
    if kind == "scaled":
        d = 10.0 ** rng.uniform(-20, 20, n)
        return A * d / d[:, None]
    return 0 * A if kind == "zero" else A


def largest_root(A):
    return float(np.abs(np.linalg.eigvals(np.abs(A))).max())


def exactly_below(A, limit):
    """Tell, in exact arithmetic, whether the Perron root of |A| is below the limit: I − |A|/limit is an M-matrix.

    It is one if and only if elimination without pivoting leaves only positive pivots.
    """
    n = len(A)
    M = [[Fraction(i == j) - Fraction(float(abs(A[i, j]))) / limit for j in range(n)] for i in range(n)]
    for k in range(n):
        if M[k][k] <= 0:
            return False
        for i in range(k + 1, n):
            q = M[i][k] / M[k][k]
            M[i] = [a - q * b for a, b in zip(M[i], M[k], strict=True)]
    return True


@given(kinds, sizes, seeds, st.sampled_from([1e-3, 0.5, 0.99]), st.sampled_from(DTYPES))
def test_the_root_of_the_result_is_at_most_kappa_in_exact_arithmetic(kind, n, seed, kappa, dtype):
    A = matrix(kind, n, np.random.default_rng(seed)).astype(dtype)
    f = ImplicitFunctionPerron(kappa)
    (E,) = f.effective((A,))
    assert E.dtype == dtype
    assert exactly_below(E, Fraction(kappa) * (1 + Fraction(1, 10**30)))
    if exactly_below(A, Fraction(kappa) * (1 - Fraction(1, 10**12))):
        assert E is A
    np.testing.assert_array_equal(f.effective((E,))[0], E)


@given(kinds, sizes, seeds)
def test_the_root_is_the_largest_eigenvalue(kind, n, seed):
    A = matrix(kind, n, np.random.default_rng(seed))
    found = perron.root((A,))
    if kind == "scaled":  # Eigenvalues of such a matrix are inaccurate, but its root does not depend on the scale.
        assert perron_root(A).lower * (1 - 1e-12) <= found.value <= perron_root(A, max_iter=50_000).upper * (1 + 1e-9)
    elif kind == "triangular" or kind == "zero":
        assert found.value == 0
    else:
        assert found.value == pytest.approx(largest_root(A), rel=1e-9, abs=1e-12)
    (E,) = ImplicitFunctionPerron(0.5).effective((A,))
    if found.value > 0.5:
        np.testing.assert_allclose(E, A * 0.5 / found.value, rtol=1e-12, atol=1e-300)


def same_piece(f, one, other):
    return all(np.array_equal(a, b) for a, b in zip(f.active_set(one), f.active_set(other), strict=True))


def check_by_differences(f, factors, G, rng, tolerance=2e-7):
    """Compare ⟨pullback(G), direction⟩ with a central difference of ⟨G, f(F)⟩, in directions without a kink between."""
    pulled = f.pullback(factors, G)
    for _ in range(3):
        E = tuple(rng.standard_normal(F.shape) * np.abs(F) for F in factors)  # Zeros stay 0.
        h = 1e-6
        above, below = (tuple(F + side * h * d for F, d in zip(factors, E, strict=True)) for side in (1, -1))
        if not (same_piece(f, above, factors) and same_piece(f, below, factors)):
            continue
        values = [sum(np.vdot(g, e) for g, e in zip(G, f.effective(F), strict=True)) for F in (above, below)]
        found = sum(np.vdot(p, d) for p, d in zip(pulled, E, strict=True))
        size = sum(np.abs(g * e * d).sum() for g, e, d in zip(G, f.effective(factors), [1.0] * len(G), strict=True))
        assert found == pytest.approx((values[0] - values[1]) / (2 * h), rel=tolerance, abs=tolerance * (size + 1e-12))


@given(kinds, sizes, seeds, st.sampled_from([0.1, 0.9]))
def test_the_pullback_is_the_difference(kind, n, seed, kappa):
    rng = np.random.default_rng(seed)
    check_by_differences(ImplicitFunctionPerron(kappa), (matrix(kind, n, rng),), (rng.standard_normal((n, n)),), rng)


@given(sizes, ranks, seeds, st.sampled_from([0.1, 0.9]))
def test_the_pullback_of_low_rank_is_the_difference(n, r, seed, kappa):
    rng = np.random.default_rng(seed)
    factors = rng.standard_normal((n, r)), rng.standard_normal((r, n))
    G = rng.standard_normal((n, r)), rng.standard_normal((r, n))
    check_by_differences(ImplicitFunctionPerron(kappa), factors, G, rng)


@given(sizes, ranks, seeds, st.sampled_from(DTYPES))
def test_low_rank_has_a_root_of_at_most_kappa_squared(n, r, seed, dtype):
    rng = np.random.default_rng(seed)
    factors = tuple((3 * rng.standard_normal(shape)).astype(dtype) for shape in ((n, r), (r, n)))
    f = ImplicitFunctionPerron(0.9)
    L, Rt = f.effective(factors)
    exact = [[sum(Fraction(float(abs(x))) * Fraction(float(abs(y))) for x, y in zip(row, column, strict=True))
              for row in L.T] for column in Rt]  # fmt: skip
    bound = np.array(exact, dtype=object)
    assert exactly_below_object(bound, Fraction(0.9) ** 2 * (1 + Fraction(1, 10**15)))
    for again, once in zip(f.effective((L, Rt)), (L, Rt), strict=True):
        np.testing.assert_array_equal(again, once)


def exactly_below_object(M, limit):
    """Tell the same for a matrix of fractions, by the same elimination."""
    n = len(M)
    rows = [[Fraction(i == j) - M[i, j] / limit for j in range(n)] for i in range(n)]
    for k in range(n):
        if rows[k][k] <= 0:
            return False
        for i in range(k + 1, n):
            q = rows[i][k] / rows[k][k]
            rows[i] = [a - q * b for a, b in zip(rows[i], rows[k], strict=True)]
    return True


@given(sizes, seeds, st.sampled_from([1e-3, 0.5]))
def test_the_pullback_is_orthogonal_to_a(n, seed, kappa):
    rng = np.random.default_rng(seed)
    A, G = rng.standard_normal((2, n, n))
    if perron.root((A,)).value > kappa:
        (pulled,) = ImplicitFunctionPerron(kappa).pullback((A,), (G,))
        assert abs(np.vdot(pulled, A)) <= 1e-11 * (1 + np.abs(pulled * A).sum())


def test_zeros_outside_of_the_block_have_the_scaled_gradient_only():
    A, G = np.array([[0.0, 4, 7], [1, 0, 5], [0, 0, 0.5]]), np.ones((3, 3))
    (pulled,) = ImplicitFunctionPerron(1.0).pullback((A,), (G,))
    np.testing.assert_allclose(pulled[2], 0.5, rtol=1e-12)  # λ = 2, so that the scale is ½.
    np.testing.assert_allclose(pulled[:2, 2], 0.5, rtol=1e-12)
    # ⟨G, A⟩ = 17.5 and u vᵀ/uᵀv = [[½, ¼], [1, ½]], and sign(A) is 0 on the diagonal.
    np.testing.assert_allclose(pulled[:2, :2], [[0.5, 0.5 - 17.5 / 16], [0.5 - 17.5 / 4, 0.5]], rtol=1e-12)


def test_two_blocks_of_one_root_are_scaled_and_differentiated_as_one_of_them():
    A, G = np.diag([2.0, 2.0]), np.eye(2)
    f = ImplicitFunctionPerron(0.5)
    np.testing.assert_allclose(f.effective((A,))[0], 0.5 * np.eye(2), rtol=1e-12)
    (pulled,) = f.pullback((A,), (G,))
    assert np.isclose(np.sort(np.diag(pulled)), [0.25 - 0.5, 0.25]).all()


def test_the_extremes():
    f = ImplicitFunctionPerron(0.5)
    for A in (np.array([[0.0, 1e300], [1e-300, 0.0]]), np.array([[0, 3e38], [1e-44, 0]], np.float32)):
        (E,) = f.effective((A,))
        assert exactly_below(E, Fraction(1, 2) * (1 + Fraction(1, 10**30)))
    for bad in (np.nan, np.inf):
        A = np.full((2, 2), bad)
        assert f.effective((A,))[0] is A
        assert f.pullback((A,), (A,))[0] is A
    (E,) = f.effective((np.full((3, 3), 1e308),))
    assert exactly_below(E, Fraction(1, 2))
    np.testing.assert_allclose(E, 1 / 6, rtol=1e-12)
    assert not ImplicitFunctionPerron(0.0).effective((np.ones((2, 2)),))[0].any()
    assert f.effective((np.zeros((0, 0)),))[0].shape == (0, 0)


@pytest.mark.sampled(6)
@pytest.mark.parametrize("settings", [{}, {"bias": True, "no_D": True}, {"is_low_rank": True, "rank": 2, "bias": True}])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_model_has_right_gradients_files_and_a_certificate(settings, activation, dtype, tmp_path):
    model = ImplicitModel(
        3, 2, 7, f=ImplicitFunctionPerron, kappa=0.8, activation=activation, dtype=dtype, seed=0, **settings
    )
    for name in "ALR":
        if name in model.parameters:
            model.parameters[name] *= 6
    if "A" in model.parameters:
        model.parameters["A"][0] *= 50  # A row of a large norm, which the Perron root hardly notices.
        assert norm_inf(model.effective()["A"]) > 1
    rng = np.random.default_rng(0)
    U, labels = rng.standard_normal((6, 3)), rng.integers(0, 2, 6)
    report = idl_ref.check_gradients(model, U, labels)
    assert report.passed, str(report)
    solution = model.equilibrium(U)
    assert solution.converged
    assert np.isfinite(solution.error_bound).all()
    model.save(tmp_path / "model.npz")
    loaded = idl_ref.load(tmp_path / "model.npz")
    assert loaded.f is ImplicitFunctionPerron
    np.testing.assert_array_equal(loaded(U), model(U))


@pytest.mark.parametrize("method", ["auto", "picard", "anderson", "newton"])
@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_the_bound_holds_though_the_norm_is_above_one(method, backend):
    model = ImplicitModel(
        3, 2, 20, f=ImplicitFunctionPerron, kappa=0.95, dtype="float64", seed=0, method=method, backend=backend,
        mitr=5000, activation="identity",
    )  # fmt: skip
    model.parameters["A"][:] = np.abs(model.parameters["A"]) * np.logspace(2, -2, 20)
    U = np.random.default_rng(0).standard_normal((5, 3))
    W, solution = model.effective_weights(), model.equilibrium(U)
    exact = np.linalg.solve(np.eye(20) - W.A, W.B @ U.T)
    assert norm_inf(W.A) > 1
    assert solution.converged
    assert (np.abs(solution.X - exact).max(axis=0) <= solution.error_bound + 1e-12).all()


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_training_keeps_the_root_below_kappa(backend):
    model = ImplicitModel(2, 2, 12, f=ImplicitFunctionPerron, kappa=0.5, bias=True, seed=0, backend=backend)
    x, y = idl_ref.datasets.two_moons(100)
    history = idl_ref.fit(model, x, y, optimizer=idl_ref.SGD(0.2), epochs=20, batch_size=20, progress=False)
    assert history.accuracy[-1] > 0.85
    assert perron_root(model.effective()["A"]).upper <= 0.5 * (1 + 1e-5)
    assert perron_root(model.parameters["A"]).upper > 0.5


def test_exports_and_the_frozen_model_agree(tmp_path):
    model = ImplicitModel(3, 2, 6, f=ImplicitFunctionPerron, kappa=0.5, bias=True, seed=0, dtype="float64", tol=1e-10)
    model.parameters["A"] *= 5
    U = np.random.default_rng(0).standard_normal((4, 3))
    np.testing.assert_allclose(model.freeze()(U), model(U), rtol=1e-12)
    idl_ref.export.export(model, "numpy", tmp_path)
    namespace = {"__file__": str(tmp_path / "predict.py"), "__name__": "predict"}
    exec(compile((tmp_path / "predict.py").read_text(encoding="utf-8"), "predict.py", "exec"), namespace)
    np.testing.assert_allclose(namespace["predict"](U), model(U), atol=1e-8)


def test_a_p_matrix_has_one_state_that_no_norm_shows():
    """The example of docs/perron.md: all minors of I − A are positive, λ(|A|) = 2.5, and A is not monotone."""
    A = np.array([[0.5, -4.0], [1.0, 0.5]])
    assert idl_ref.wellposed.monotone(A).m == pytest.approx(-1, rel=1e-12)
    assert perron.root((A,)).value == pytest.approx(2.5, rel=1e-12)
    for z, x in (((1.0, 0.0), (2 / 17, 4 / 17)), ((1.0, 1.0), (0.0, 2.0))):
        Z = np.array(z)[:, None]
        solution = idl_ref.solve_equilibrium(A, Z, options=idl_ref.SolveOptions(method="newton", tol=1e-12))
        np.testing.assert_allclose(solution.X[:, 0], x, rtol=1e-12)
        assert solution.error_bound[0] == np.inf
        states = []  # Each set of positive entries gives one candidate; exactly one of the four is a state.
        for on in ((False, False), (True, False), (False, True), (True, True)):
            S = np.diag(np.array(on, float))
            candidate = np.linalg.solve(np.eye(2) - S @ A, S @ Z)
            if np.allclose(candidate, np.maximum(A @ candidate + Z, 0)):
                states.append(candidate)
        assert len(states) == 1
    picard = idl_ref.SolveOptions(method="picard", on_failure="ignore")
    assert not idl_ref.solve_equilibrium(A, np.array([[1.0], [0.0]]), options=picard).converged


def test_straight_through():
    A, G = 3 * np.ones((2, 2)), np.arange(4.0).reshape(2, 2)
    assert ImplicitFunctionPerron(0.9, straight_through=True).pullback((A,), (G,))[0] is G


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in (1, 2))])
def test_spirals(seed):
    """The Perron root leaves A more freedom than the norm does, and the spirals are learnt."""
    x, y = idl_ref.datasets.spirals(300)
    model = ImplicitModel(2, 2, 40, f=ImplicitFunctionPerron, bias=True, kappa=0.99, seed=seed)
    optimizer = idl_ref.SGD(0.2, schedule="cosine")
    history = idl_ref.fit(model, x, y, optimizer=optimizer, epochs=320, batch_size=32, seed=seed, progress=False)
    assert max(history.accuracy[-5:]) >= 0.98
    assert history.norm[-1] > 1 > history.perron_root[-1]
    assert model.equilibrium(x).converged


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", [np.asarray, Sparse.of])
def test_bounds_of_badly_scaled_matrices_are_close(kind):
    """The eigenvector of the first one has the entries 1 and 1e-308; the root of the second one is 1e300."""
    found = perron_root(kind(np.array([[0, 1e308], [1e-308, 0]])))
    assert 0.999 < found.lower <= 1 <= found.upper < 1.001
    found = perron_root(kind(np.array([[1e300, 1.0], [1e-300, 0.0]])))
    assert found.lower <= 1e300 <= found.upper < 1.001e300
