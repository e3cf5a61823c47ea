"""Pruned and truncated models: what is kept, bounds that hold and are attained, and what is refused."""

from fractions import Fraction

import numpy as np
import pytest
from test_compose import make

import idl_ref
from idl_ref import Activation, ImplicitFunction, ImplicitFunctionRows, ImplicitFunctionTriu, ImplicitModel
from idl_ref.analysis import deviation, prune, truncate
from idl_ref.preprocessing import Standardise
from idl_ref.wellposed import norm_inf

PHI = {"relu": lambda P: np.maximum(P, 0), "tanh": np.tanh, "hardtanh": lambda P: np.clip(P, -1, 1)}


def hard(seed, n=12, kappa=0.99, **settings):
    """Return a model whose rows of A are nonnegative and have the sum κ."""
    model = make(3, 2, n, ImplicitFunctionRows, seed=seed, bias=True, kappa=kappa, **settings)
    A = np.random.default_rng(seed).random((n, n))
    model.parameters["A"][...] = kappa * A / A.sum(axis=1, keepdims=True)
    return model


@pytest.mark.parametrize("density", [0, 0.1, 0.5, 1])
def test_the_largest_entries_are_kept(density):
    model = make(3, 2, 12, seed=0)
    A, kept = model.effective()["A"], prune(model, density).effective()["A"]
    count = round(density * A.size)
    assert np.count_nonzero(kept) == count
    np.testing.assert_array_equal(kept[kept != 0], A[kept != 0])
    if 0 < count < A.size:
        assert np.abs(kept[kept != 0]).min() >= np.abs(A[kept == 0]).max()


def test_of_equal_entries_the_first_ones_are_kept():
    model = make(3, 2, 4, ImplicitFunction, dtype="float64")
    model.parameters["A"][...] = 0.2
    np.testing.assert_array_equal(prune(model, 0.5).effective()["A"].ravel(), [0.2] * 8 + [0] * 8)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_truncated_model_has_the_nearest_matrix_and_no_larger_norm(dtype):
    for seed, rank in ((0, 1), (1, 5), (2, 12)):
        model = make(3, 2, 12, ImplicitFunctionRows, seed=seed, bias=True, dtype=dtype)
        A = model.effective()["A"].astype(float)
        small = truncate(model, rank)
        product = small.parameters["L"].astype(float) @ small.parameters["R"].astype(float).T
        sigma = np.linalg.svd(A, compute_uv=False)
        assert np.linalg.matrix_rank(product, tol=1e-5) <= rank
        assert norm_inf(product) <= norm_inf(A) * (1 + 1e-6)
        scale = min(1, norm_inf(A) / norm_inf(product)) if rank == 12 else 1
        assert np.linalg.norm(A - product / scale, 2) >= (sigma[rank] if rank < 12 else 0) * (1 - 1e-6)
        if rank == 12:
            np.testing.assert_allclose(product, A, atol=1e-6)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("activation", PHI)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_output_moves_further_than_its_bound(activation, dtype):
    """The truth is Picard's iteration in extended precision, on hard models, with preprocessing and low rank."""
    rng = np.random.default_rng(1)
    for seed, kappa in enumerate((0.5, 0.9, 0.99)):
        for low_rank in (False, True):
            if low_rank:
                model = make(3, 2, 12, rank=3, seed=seed, bias=True, kappa=kappa, dtype=dtype, activation=activation)
            else:
                model = hard(seed, kappa=kappa, dtype=dtype, activation=activation, no_D=seed == 1)
            model.preprocessing = Standardise(rng.standard_normal(3), rng.uniform(1, 2, 3)) if seed else None
            U = rng.standard_normal((4, 3)).astype(dtype)
            weights = model.effective_weights()
            A = weights.A if not low_rank else weights.factors[0].astype(np.longdouble) @ weights.factors[1]
            A, B, C, D = (None if F is None else F.astype(np.longdouble) for F in (A, weights.B, weights.C, weights.D))
            u = U.astype(np.longdouble)
            if seed:
                u = (u - model.preprocessing.mean) / model.preprocessing.scale
            u = np.vstack([u.T, np.ones((1, 4))])
            X = np.zeros((12, 4), np.longdouble)
            for _ in range(5000):
                X = PHI[activation](A @ X + B @ u)
            Y = (C @ X + (0 if D is None else D @ u)).T
            for other in (prune(model, 0.6), truncate(model, 2), model):
                bound = deviation(model, other, U)
                assert (np.abs(other(U) - Y) <= bound).all()
                assert np.isfinite(bound).all()


def test_the_bound_is_attained():
    """In one nonnegative unit whose a is taken away, every inequality of the derivation is an equality."""
    model = ImplicitModel(1, 1, 1, f=ImplicitFunction, dtype="float64", seed=0)
    for name, value in (("A", 0.75), ("B", 1), ("C", 2), ("D", 0)):
        model.parameters[name][...] = value
    other = prune(model, 0)
    true = 2 * (1 / (1 - Fraction(3, 4)) - 1)
    assert true <= deviation(model, other, [[1.0]])[0, 0] <= float(true) * (1 + 1e-8)


def test_the_rounding_of_the_inputs_to_float32_counts():
    """The exact output for 0.1 is 0.1; the model computes that of the nearest float32, which is 1.5e-9 larger."""
    model = ImplicitModel(1, 1, 1, activation="identity", dtype="float32", seed=0, kappa=0.5)
    for name, value in {"A": 0, "B": 1, "C": 1, "D": 0}.items():
        model.parameters[name][...] = value
    other = prune(model, 1.0)
    true = abs(Fraction(0.1) - Fraction(float(other([[0.1]])[0, 0])))
    assert 1e-9 < true <= deviation(model, other, [[0.1]])[0, 0] <= float(true) * (1 + 1e-6)


def test_an_offset_of_raw_inputs_belongs_to_the_bound():
    """Raw inputs that float32 cannot hold: the preprocessing subtracts the mean before it rounds."""
    model, other = (ImplicitModel(4, 2, 3, kappa=0.5, seed=0) for _ in range(2))
    for name in "BCD":
        model.parameters[name][...], other.parameters[name][...] = 1, 0
    model.preprocessing = other.preprocessing = Standardise(1.7e9, 10.0)
    for U in (np.full((2, 4), 1.7e9 + 60), np.full((2, 2, 2), 1_700_000_060)):  # a table, and images
        bound = deviation(model, other, U)
        assert (np.abs(model(U).astype(float) - other(U)) <= bound).all()
        assert (bound < 2 * np.abs(model(U))).all()
        assert (deviation(model, model, U) < 1e-3).all()


@pytest.mark.parametrize("method", ["blocks", "substitution"])
def test_a_truncated_model_is_solved_by_another_method_where_its_own_needs_a_dense_A(method):
    model = ImplicitModel(2, 3, 4, f=ImplicitFunctionTriu, method=method, seed=0)
    other = truncate(model, 2)
    assert other.method == "auto"
    assert np.isfinite(other(np.ones((2, 2)))).all()
    with pytest.raises(ValueError, match=f'method "{method}" needs a dense A; got is_low_rank=True'):
        ImplicitModel(2, 3, 4, is_low_rank=True, rank=2, method=method)


def test_any_change_of_the_weights_is_bounded():
    model, other = hard(0, dtype="float64"), hard(0, dtype="float64")
    for name in "ABCD":
        other.parameters[name] *= 0.999
    U = np.ones((2, 3))
    assert (np.abs(model(U) - other(U)) <= deviation(model, other, U)).all()


def test_bounds_that_do_not_exist_are_infinite():
    model, other = (make(2, 1, 3, ImplicitFunction, dtype="float64", on_failure="ignore") for _ in range(2))
    model.parameters["A"][...], other.parameters["A"][...] = 2, 0
    assert np.isinf(deviation(model, other, np.ones((1, 2)))).all()
    model.parameters["A"][...] = 0.1
    bound = deviation(model, other, [[1, 2], [np.nan, 1], [1, np.inf]])
    assert np.isfinite(bound[0]).all()
    assert np.isinf(bound[1:]).all()


def test_all_else_is_that_of_the_model():
    model = ImplicitModel(3, 2, 6, bias=True, seed=0)
    model.preprocessing, model.classes = Standardise(np.ones(3), np.full(3, 2.0)), ["a", "b"]
    for other in (prune(model, 0.5), truncate(model, 2)):
        assert other.classes.tolist() == ["a", "b"]
        assert other.preprocessing == model.preprocessing
        for name in "BCD":
            np.testing.assert_array_equal(other.parameters[name], model.parameters[name])
            assert other.parameters[name] is not model.parameters[name]
        assert (other.dtype, other.bias) == (model.dtype, True)
        assert other.kappa == (model.kappa**0.5 if other.is_low_rank else model.kappa)  # that of a factor, or of A


def monotone():
    model = make(2, 1, 2, ImplicitFunction, dtype="float64")
    model.parameters["A"][...] = [[-4, 4.6], [4.4, -4]]
    return model


OWN = Activation("own", np.tanh, lambda P: 1 / np.cosh(P) ** 2, 1.0)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: prune(hard(0), 1.5), ValueError, "density must be.*1.5"),
        (lambda: prune(hard(0), "half"), TypeError, "density"),
        (lambda: prune(np.eye(2), 0.5), TypeError, "model must be an ImplicitModel; got ndarray"),
        (lambda: truncate(hard(0), 0), ValueError, "rank must be.*0"),
        (lambda: truncate(hard(0), 13), ValueError, "rank must be.*13"),
        (lambda: truncate(None, 1), TypeError, "model must be an ImplicitModel; got NoneType"),
        (lambda: prune(monotone(), 0.5), ValueError, "well posed as model is.*keep more entries"),
        (
            lambda: deviation(hard(0), hard(0, n=13), [[0, 0, 0]]),
            ValueError,
            r"same numbers.*\(3, 12, 2\) and \(3, 13, 2\)",
        ),
        (lambda: deviation(hard(0), None, [[0, 0, 0]]), TypeError, "other must be an ImplicitModel"),
        (lambda: deviation(hard(0, activation=OWN), hard(0), [[0, 0, 0]]), ValueError, "built-in activation.*'own'"),
        (lambda: deviation(hard(0), hard(0), [[0, 0]]), ValueError, "U must"),
    ],
)
def test_what_cannot_be_done_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_a_model_of_the_digits_keeps_its_accuracy():
    x, y, x_test, y_test = idl_ref.datasets.digits()
    model = ImplicitModel(64, 10, 24, kappa=0.5, bias=True, seed=0)
    idl_ref.fit(model, x, y, optimizer=idl_ref.SGD(0.1), epochs=4, batch_size=32, progress=False)
    accuracy = [(m(x_test).argmax(axis=1) == y_test).mean() for m in (model, prune(model, 0.3), truncate(model, 8))]
    assert min(accuracy[1:]) > accuracy[0] - 0.01


@pytest.mark.parametrize("f", ["inf", "rows", "perron"])
def test_kappa_becomes_that_of_the_matrix_or_of_its_factors(f):
    """κ bounds L and R each, so that ‖L Rᵀ‖∞ may be as large as κ²: up to 4 for the sigmoid."""
    f = idl_ref.functions.FUNCTIONS[f]
    low = ImplicitModel(
        2, 2, 8, f=f, is_low_rank=True, rank=4, activation="sigmoid", kappa=1.9, dtype="float64", seed=3
    )
    for name in "LR":
        low.parameters[name][...] = 3 * np.abs(low.parameters[name])
    factors, U = low.effective(), np.random.default_rng(0).standard_normal((5, 2))
    sparse = prune(low, 1.0, sparse=True)
    np.testing.assert_allclose(sparse.effective()["A"].dense(), factors["L"] @ factors["R"].T, rtol=1e-12)
    np.testing.assert_allclose(sparse(U), low(U), rtol=1e-5)
    wide = ImplicitModel(2, 2, 8, activation="sigmoid", kappa=3.9, dtype="float64", seed=3)
    np.testing.assert_allclose(truncate(wide, 8)(U), wide(U), rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: idl_ref.analysis.reasons(3), "model must be an ImplicitModel; got int"),
        (lambda: idl_ref.analysis.sim.objective(3, None), "model must be an ImplicitModel; got int"),
        (lambda: idl_ref.analysis.sim.objective(ImplicitModel(1, 1, 1), 3), "states must be what sim.states returns"),
        (lambda: idl_ref.analysis.network(3), r"layers must be pairs \(W, b\); got int"),
    ],
)
def test_what_is_no_model_is_refused_by_name(call, words):
    with pytest.raises(TypeError, match=words):
        call()
