"""These tests check monotone matrices: the parametrisation, the certificate in exact arithmetic, and their models."""

from fractions import Fraction

import naive
import numpy as np
import pytest
import rational
from hypothesis import given
from hypothesis import strategies as st
from strategies import ACTIVATIONS, DTYPES, ranks, seeds, sizes

import idl_ref
from idl_ref import ImplicitFunctionMonotone, ImplicitModel, activations, monotone
from idl_ref.wellposed import norm_inf, perron_root

KAPPAS = st.sampled_from([0.0, 0.25, 0.99])
SCALES = st.sampled_from([1e-8, 0.3, 1.0, 30.0, 1e5])


def draw(n, seed, scale=1.0):
    """Return a matrix (n, n) whose rows have different sizes."""
    rng = np.random.default_rng(seed)
    return scale * rng.standard_normal((n, n)) * 10.0 ** rng.uniform(-1, 1, (n, 1))


def hard(n, m, rng):
    """Return a matrix with (A + Aᵀ)/2 ⪯ (1 − m) I, whose largest eigenvalue is reached, and a norm far above 1."""
    Q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    skew = rng.standard_normal((n, n))
    return (Q * np.append(1 - m, rng.uniform(-5, 1 - m, n - 1))) @ Q.T + 3 * (skew - skew.T)


# --- the map ----------------------------------------------------------------------------------------------------------


@given(sizes, seeds, KAPPAS, SCALES, st.sampled_from(DTYPES))
def test_the_symmetric_part_is_at_most_kappa_in_exact_arithmetic(n, seed, kappa, scale, dtype):
    A = draw(n, seed, scale).astype(dtype)
    (W,) = ImplicitFunctionMonotone(kappa).effective((A,))
    assert W.dtype == dtype
    S = rational.symmetric_part(rational.matrix(W))
    assert rational.is_positive_semidefinite(rational.combine(1, rational.identity(n, Fraction(kappa)), -1, S))


@given(sizes, seeds, KAPPAS, SCALES, st.sampled_from(DTYPES))
def test_the_map_is_the_naive_one(n, seed, kappa, scale, dtype):
    A = draw(n, seed, scale).astype(dtype)
    (W,) = ImplicitFunctionMonotone(kappa).effective((A,))
    expected = naive.monotone(A.astype(float), kappa)
    largest = 1 + np.abs(A).max() ** 2
    np.testing.assert_allclose(W, expected, rtol=0, atol=40 * n**2 * np.finfo(dtype).eps * largest)


@given(sizes, seeds, KAPPAS)
def test_the_pullback_is_the_complex_step(n, seed, kappa):
    A, G = draw(n, seed), draw(n, seed + 1)
    f = ImplicitFunctionMonotone(kappa)
    (pulled,) = f.pullback((A,), (G,))
    for one in (naive.monotone, lambda A, kappa: f.effective((A,))[0]):
        expected = np.zeros((n, n))
        for entry in np.ndindex(n, n):
            moved = A.astype(complex)
            moved[entry] += 1e-30j
            expected[entry] = (G * np.imag(one(moved, kappa))).sum() / 1e-30
        np.testing.assert_allclose(pulled, expected, rtol=1e-10, atol=1e-10 * np.abs(pulled).max())
    assert f.active_set((A,)) == ()


@given(sizes, seeds, st.sampled_from([0.0, 0.5, 0.9]))
def test_every_monotone_matrix_has_raw_weights(n, seed, kappa):
    rng = np.random.default_rng(seed)
    P, Q = rng.standard_normal((2, n, n))
    A = monotone.raw(P, Q, kappa)
    W = kappa * np.eye(n) - P.T @ P + Q - Q.T
    np.testing.assert_allclose(monotone.make_monotone(A, kappa), W, atol=1e-12 * (1 + np.abs(W).max()) * n)


def test_the_extremes_of_the_map():
    f = ImplicitFunctionMonotone(0.5)
    assert not f.effective((np.zeros((3, 3)),))[0].any() or np.abs(f.effective((np.zeros((3, 3)),))[0]).max() < 1e-300
    assert f.effective((np.zeros((0, 0)),))[0].shape == (0, 0)
    A = np.full((2, 2), np.nan)
    assert f.effective((A,))[0] is A
    with np.errstate(over="ignore", invalid="ignore"):
        assert not np.isfinite(f.effective((np.full((2, 2), 1e30, np.float32),))[0]).all()


# --- the certificate --------------------------------------------------------------------------------------------------


@given(sizes, seeds, SCALES, st.sampled_from([1.0, 0.25]))
def test_the_bounds_hold_in_exact_arithmetic(n, seed, scale, c):
    check_bounds(draw(n, seed, scale), rational.matrix(draw(n, seed, scale)), c)


@given(sizes, ranks, seeds, SCALES, st.sampled_from([1.0, 0.25]))
def test_the_bounds_of_low_rank_hold_in_exact_arithmetic(n, r, seed, scale, c):
    L, R = np.random.default_rng(seed).standard_normal((2, n, r))
    L = L * scale
    check_bounds((L, R), rational.product(rational.matrix(L), rational.transpose(rational.matrix(R))), c)


def check_bounds(A, exact, c):
    n, found, c = len(exact), idl_ref.wellposed.monotone(A, c), Fraction(c)
    S = rational.symmetric_part(exact)
    left = rational.combine(1, rational.identity(n, 1 - Fraction(found.m)), -c, S)
    assert rational.is_positive_semidefinite(left)
    K = rational.combine(1, rational.identity(n), -c, exact)
    square = rational.identity(n, Fraction(found.norm) ** 2)
    assert rational.is_positive_semidefinite(
        rational.combine(1, square, -1, rational.product(rational.transpose(K), K))
    )
    numbers = np.array(exact, dtype=float)
    top = np.linalg.eigvalsh(float(c) * (numbers + numbers.T) / 2)[-1]
    size = 1 + np.abs(numbers).sum()
    if not isinstance(A, tuple):  # For a pair, 0 counts as an eigenvalue, and ‖L‖‖R‖ bounds the norm.
        assert found.m == pytest.approx(1 - top, abs=1e-12 * size)
        assert found.norm == pytest.approx(np.linalg.norm(np.eye(n) - float(c) * numbers, 2), abs=1e-7 * size)
    else:
        assert found.m == pytest.approx(1 - max(top, 0), abs=1e-11 * size)


@given(sizes, seeds, st.sampled_from([1e-280, 1.0, 1e300]))
def test_no_eigenvalue_exceeds_its_bound_in_exact_arithmetic(n, seed, scale):
    """LAPACK's largest eigenvalue alone is too small about every second time."""
    H = np.random.default_rng(seed).standard_normal((n, n))
    H = scale * (H + H.T)
    bound = monotone.largest_eigenvalue(H)
    left = rational.combine(1, rational.identity(n, Fraction(bound)), -1, rational.matrix(H))
    assert rational.is_positive_semidefinite(left)
    assert bound <= (np.linalg.eigvalsh(H / scale)[-1] + 1e-12 * n) * scale


def test_low_rank_agrees_with_the_product_where_it_is_large():
    rng = np.random.default_rng(0)
    L, R = rng.standard_normal((2, 200, 5)) / 20
    pair, whole = idl_ref.wellposed.monotone((L, R)), idl_ref.wellposed.monotone(L @ R.T)
    assert pair.m == pytest.approx(whole.m, abs=1e-9)
    assert pair.norm >= whole.norm


@pytest.mark.parametrize("m", [1e-3, 0.1, 0.7])
def test_m_is_the_largest(m):
    A = hard(30, m, np.random.default_rng(0))
    found = idl_ref.wellposed.monotone(A)
    assert m - 1e-10 < found.m <= m * (1 + 1e-12)
    assert norm_inf(A) > 10


def test_the_extremes_of_the_certificate():
    check = idl_ref.wellposed.monotone
    assert check(np.zeros((3, 3))).m == pytest.approx(1, rel=1e-14)
    assert check(np.zeros((0, 0))).m == pytest.approx(1, rel=1e-14)
    assert check(np.full((2, 2), np.nan)) == (-np.inf, np.inf)
    assert check(np.full((2, 2), 1e308)).m == -np.inf or check(np.full((2, 2), 1e308)).m < -1e308
    assert check(np.full((2, 2), 5e-324)).m == pytest.approx(1, rel=1e-14)
    assert check(np.eye(2)).factor == np.inf
    for bad, message in (
        ((np.eye(2), 0.0), "above 0"),
        ((np.ones((2, 3)),), "square"),
        ((np.eye(2), 2.0), "at most 1"),
    ):
        with pytest.raises(ValueError, match=message):
            check(*bad)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_residual_bounds_the_error(activation):
    phi, rng = activations.get(activation), np.random.default_rng(1)
    for _ in range(20):
        n = rng.integers(1, 9)
        A = hard(n, rng.uniform(0.01, 1), rng) / phi.lipschitz
        P, E = 2 * rng.standard_normal((2, n, 4))
        X = phi.phi(P)
        Z = P - A @ X  # so that X is the solution
        found = idl_ref.wellposed.monotone(A, phi.lipschitz)
        assert found.m > 0
        for scale in (1e-3, 1.0, 100.0):
            Y = X + scale * E
            residual = np.linalg.norm(Y - phi.phi(A @ Y + Z), axis=0)
            assert (np.linalg.norm(Y - X, axis=0) <= found.factor * residual + 1e-9).all()


def test_the_bound_is_attained_up_to_a_factor():
    """For φ = identity and A = (1 − m) I, the residual is m e, and the bound (1 + m)/m · m ‖e‖."""
    found = idl_ref.wellposed.monotone(0.9 * np.eye(3))
    assert found.factor * 0.1 == pytest.approx(1.1, rel=1e-9)


# --- models -----------------------------------------------------------------------------------------------------------


def model_of(scale=20.0, **settings):
    """Return a model whose A has a norm and a Perron root above 1."""
    settings = {"kappa": 0.8, "bias": True, "seed": 0, "dtype": "float64", "tol": 1e-9, **settings}
    model = ImplicitModel(3, 2, 15, f=ImplicitFunctionMonotone, **settings)
    model.parameters["A"] *= scale
    return model


@pytest.mark.sampled(3)
@pytest.mark.parametrize("settings", [{}, {"bias": False, "no_D": True}, {"activation": "tanh", "scale": 8.0}])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_model_has_right_gradients_and_files(settings, dtype, tmp_path):
    model = model_of(**{**settings, "dtype": dtype, "tol": 3e-6})
    A = model.effective()["A"]
    assert min(norm_inf(A), perron_root(A).lower) > 1
    rng = np.random.default_rng(0)
    U, labels = rng.standard_normal((6, 3)), rng.integers(0, 2, 6)
    report = idl_ref.check_gradients(model, U, labels)
    assert report.passed, str(report)
    model.save(tmp_path / "model.npz")
    loaded = idl_ref.load(tmp_path / "model.npz")
    assert loaded.f is ImplicitFunctionMonotone
    np.testing.assert_array_equal(loaded(U), model(U))
    np.testing.assert_allclose(model.freeze()(U), model(U), rtol=1e-5, atol=1e-5)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "softplus"])
@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_the_gradients_are_those_of_the_unrolled_model(activation, backend):
    """The weights are small, so that Picard's iteration, which the naive model makes, converges."""
    model = model_of(scale=0.7, activation=activation, backend=backend, tol=1e-13, grad_tol=1e-13)
    rng = np.random.default_rng(0)
    U, labels = rng.standard_normal((6, 3)), rng.integers(0, 2, 6)
    arguments = {"f": "monotone", "kappa": 0.8, "activation": activation, "loss": "cross_entropy", "bias": True}
    _, found = model.loss_and_gradients(U, labels)
    for name, expected in naive.gradients(model.parameters, U, labels, steps=120, **arguments).items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("method", ["auto", "anderson", "newton"])
@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_the_methods_find_the_state_that_picard_does_not(method, backend):
    model = model_of(method=method, backend=backend, mitr=2000, scale=12.0)
    U = np.random.default_rng(0).standard_normal((10, 3))
    forward = model.forward_pass(U)
    assert forward.solution.converged
    exact = by_splitting(forward.weights.A, forward.Z)
    np.testing.assert_allclose(forward.solution.X, exact, atol=1e-7)
    model.settings = idl_ref.settings.Settings(
        **{**vars_of(model.settings), "method": "picard", "on_failure": "ignore", "mitr": 300}
    )
    assert not model.equilibrium(U).converged


def vars_of(settings):
    return {name: getattr(settings, name) for name in settings.__dataclass_fields__}


def by_splitting(W, Z, steps=3000):
    """Return the solution of x = relu(W x + z) by Peaceman and Rachford's splitting of two monotone operators.

    The resolvents are relu, and (I + α (I − W))⁻¹ (· + α z); monDEQs are solved by it (Winston and Kolter, 2020).
    """
    alpha = 1 / np.linalg.norm(np.eye(len(W)) - W, 2)
    V = np.linalg.inv(np.eye(len(W)) + alpha * (np.eye(len(W)) - W))
    X = U = np.zeros_like(Z)
    for _ in range(steps):
        half = 2 * X - U
        Y = V @ (half + alpha * Z)
        U = 2 * Y - half
        X = np.maximum(U, 0)
    return X


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_training_keeps_the_model_monotone(backend):
    x, y = idl_ref.datasets.two_moons(100)
    model = ImplicitModel(2, 2, 12, f=ImplicitFunctionMonotone, bias=True, kappa=0.5, seed=0, backend=backend)
    history = idl_ref.fit(model, x, y, optimizer=idl_ref.SGD(0.2), epochs=20, batch_size=20, progress=False)
    assert history.accuracy[-1] > 0.85
    assert idl_ref.wellposed.monotone(model.effective()["A"]).m >= 0.5 - 1e-9


def test_what_does_not_fit_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"ImplicitFunctionMonotone needs a dense A.*ImplicitFunctionPerron"):
        ImplicitModel(3, 2, 5, f=ImplicitFunctionMonotone, is_low_rank=True, rank=2)
    with pytest.raises(ValueError, match="straight_through needs an f that maps A into a ball"):
        ImplicitModel(3, 2, 5, f=ImplicitFunctionMonotone, straight_through=True)
    for to in ("numpy", "c", "onnx", "js"):
        with pytest.raises(ValueError, match=r"its state is unique \(monotone\).*Picard.*model\.freeze\(\)"):
            idl_ref.export.export(model_of(), to, tmp_path)
    idl_ref.export.export(model_of(scale=0.5), "numpy", tmp_path)  # This one contracts, whatever its f is.


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in (1, 2))])
def test_spirals(seed):
    x, y = idl_ref.datasets.spirals(300)
    model = ImplicitModel(2, 2, 40, f=ImplicitFunctionMonotone, bias=True, kappa=0.9, seed=seed)
    optimizer = idl_ref.SGD(0.1, schedule="cosine")
    history = idl_ref.fit(model, x, y, optimizer=optimizer, epochs=120, batch_size=32, seed=seed, progress=False)
    assert max(history.accuracy[-5:]) >= 0.98
    assert history.perron_root[-1] > 1
    assert model.equilibrium(x).converged
