"""These tests check that other units of the states leave outputs as they are, bit for bit where that is promised."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_compose import EXACT, make, relative_error
from test_networks import layers

import idl_ref
from idl_ref import ImplicitFunction, ImplicitFunctionInf, ImplicitModel
from idl_ref.analysis import absorb_diagonal, network, rescale, residual, unrolled
from idl_ref.preprocessing import Standardise
from idl_ref.wellposed import norm_inf, perron_root

HOMOGENEOUS = ("relu", "leaky_relu", "identity")
BACKENDS = ("numpy", "numba")


def left_alone(model):
    """Tell whether f=ImplicitFunctionInf uses the raw A, or L and R, as they are."""
    assert model.f is ImplicitFunctionInf
    raw, used = model.parameters, model.effective()
    return all(np.array_equal(used[name], raw[name]) for name in "ALR" if name in raw)


def hidden_cycle(n=12, seed=0, root=0.8, dtype="float64", activation="relu", **settings):
    """Return a model with cycles whose Perron root is `root`, though its norm is far above 1."""
    rng = np.random.default_rng(seed)
    model = make(3, 2, n, ImplicitFunction, seed=seed, bias=True, dtype=dtype, activation=activation, **settings)
    A = rng.standard_normal((n, n))
    A *= root / perron_root(A).upper
    units = np.exp(rng.uniform(-4, 4, n))
    model.parameters["A"][...] = A * units / units[:, None]
    return model


@given(
    st.lists(st.integers(1, 7), min_size=2, max_size=7),
    st.sampled_from(HOMOGENEOUS),
    st.sampled_from(["float32", "float64"]),
    st.sampled_from(BACKENDS),
    st.floats(0.1, 20),
    st.floats(0.05, 0.99),
    st.integers(0, 2**31),
)
def test_a_net_gives_the_same_bits(widths, activation, dtype, backend, scale, kappa, seed):
    net = network(layers(*widths, seed=seed, scale=scale), activation, dtype=dtype, backend=backend)
    U = np.random.default_rng(seed).standard_normal((5, widths[0]))
    model = rescale(net, kappa)
    assert norm_inf(model.parameters["A"]) <= kappa == model.kappa
    assert left_alone(model)
    np.testing.assert_array_equal(model(U), net(U))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("net", ["wide", "residual", "unrolled", "cascade"])
def test_other_triangles_give_the_same_bits(net, dtype, backend):
    settings = {"dtype": dtype, "backend": backend}
    if net == "wide":  # large enough for blocks of products, and for several panels
        model = network(layers(20, 130, 90, 50, 5, scale=3), **settings)
    elif net == "residual":
        model = residual(*(network(layers(20, 9, 20, seed=seed, scale=3), **settings) for seed in range(4)))
    elif net == "cascade":
        model = network(layers(9, 8, 4), **settings) @ network(layers(20, 7, 9, scale=5), **settings)
    else:
        model = unrolled(make(20, 2, 9, bias=True, **{**EXACT, **settings}), 6)
        model.parameters["A"] *= 4
    scaled, U = rescale(model), np.random.default_rng(0).standard_normal((70, 20))
    assert norm_inf(scaled.parameters["A"]) <= 0.99 < norm_inf(model.effective()["A"])
    assert left_alone(scaled)
    for inputs in (U, U[:1]):
        np.testing.assert_array_equal(scaled(inputs), model(inputs))
    ours, theirs = scaled.equilibrium(U), model.equilibrium(U)
    ratio = model.effective_weights().B[:, -1] / scaled.effective_weights().B[:, -1]
    known = np.isfinite(ratio)
    np.testing.assert_array_equal(np.frexp(ratio[known])[0], 0.5)  # powers of two
    np.testing.assert_array_equal(ours.X[known] * ratio[known, None], theirs.X[known])


@pytest.mark.parametrize("activation", HOMOGENEOUS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("root", [0.3, 0.9])
def test_a_model_with_cycles(activation, dtype, root):
    model = hidden_cycle(root=root, dtype=dtype, activation=activation, tol=0.0 if dtype == "float64" else 1e-7)
    scaled, U = rescale(model, 0.99), np.random.default_rng(0).standard_normal((6, 3))
    assert norm_inf(model.parameters["A"]) > 10
    assert norm_inf(scaled.parameters["A"]) <= 0.99
    assert left_alone(scaled)
    assert relative_error(scaled(U), model(U)) <= (1e-12 if dtype == "float64" else 1e-4)


@given(st.integers(1, 6), st.integers(0, 2**31), st.floats(0.05, 0.9))
def test_every_perron_root_below_kappa_is_enough(n, seed, root):
    model = hidden_cycle(n, seed, root)
    assert perron_root(model.parameters["A"]).upper < root * 1.001
    scaled = rescale(model, min(root * 1.01, 0.99))
    assert left_alone(scaled)
    with pytest.raises(
        ValueError, match=r"the Perron root of \|A\| or \|L\| \|R\|ᵀ must be below kappa = .*raise kappa"
    ):
        rescale(model, root * 0.99)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("no_D", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_low_rank_model_stays_one(bias, no_D, dtype):
    tol = 0.0 if dtype == "float64" else 1e-7
    model = make(3, 2, 9, ImplicitFunction, 3, seed=4, bias=bias, no_D=no_D, dtype=dtype, tol=tol)
    rng = np.random.default_rng(0)
    L, R = model.parameters["L"], model.parameters["R"]
    units, inner = np.exp(rng.uniform(-3, 3, 9)), np.exp(rng.uniform(-3, 3, 3))
    L[...], R[...] = rng.standard_normal(L.shape), rng.standard_normal(R.shape)
    L *= 0.5 / perron_root((L, R)).upper
    L *= inner / units[:, None]
    R *= units[:, None] / inner
    scaled, U = rescale(model, 0.9), rng.standard_normal((6, 3))
    assert (scaled.rank, scaled.bias, scaled.no_D) == (3, bias, no_D)
    assert max(norm_inf(scaled.parameters["L"]), norm_inf(scaled.parameters["R"].T)) <= 0.9
    assert left_alone(scaled)
    assert relative_error(scaled(U), model(U)) <= (1e-12 if dtype == "float64" else 1e-4)
    with pytest.raises(ValueError, match=r"must be below kappa² = 0\.36"):
        rescale(model, 0.6)


def test_a_model_inside_the_ball_does_not_change():
    model = make(3, 2, 8, seed=3, bias=True, kappa=0.9)
    scaled = rescale(model)
    assert norm_inf(model.parameters["A"]) > 0.9 >= norm_inf(model.effective()["A"])
    for name, W in model.effective().items():
        np.testing.assert_array_equal(scaled.parameters[name], W)
        assert not np.shares_memory(scaled.parameters[name], W)


def test_settings_preprocessing_and_classes_stay():
    model = network(layers(4, 6, 2), mitr=17, tol=1e-9, on_failure="raise")
    model.preprocessing, model.classes = Standardise(1.0, 2.0), ["a", "b"]
    for result in (rescale(model, 0.5), absorb_diagonal(model)):
        f, kappa = (ImplicitFunctionInf, 0.5) if result.kappa == 0.5 else (ImplicitFunction, 0.99)
        assert result.settings == replace(model.settings, f=f, kappa=kappa)
        assert result.preprocessing == model.preprocessing
        np.testing.assert_array_equal(result.classes, model.classes)


def test_gradients_are_those_of_the_scaled_parameters():
    model = rescale(hidden_cycle(root=0.5), 0.9)
    rng = np.random.default_rng(0)
    report = idl_ref.check_gradients(model, rng.standard_normal((6, 3)), rng.integers(0, 2, 6))
    assert report.passed, str(report)


@pytest.mark.parametrize("activation", ["relu", "identity"])
@pytest.mark.parametrize("rank", [None, 3])
@pytest.mark.parametrize("flags", [(False, False), (True, True)])
def test_the_diagonal_is_absorbed(activation, rank, flags):
    model = make(3, 2, 6, ImplicitFunctionInf, rank, 2, bias=flags[0], no_D=flags[1], activation=activation, kappa=0.6)
    better, U = absorb_diagonal(model), np.random.default_rng(0).standard_normal((5, 3))
    assert not better.parameters["A"].diagonal().any()
    assert relative_error(better(U), model(U)) <= 1e-14
    assert relative_error(better.equilibrium(U).X, model.equilibrium(U).X) <= 1e-14
    assert (better.f, better.rank, better.bias, better.no_D) == (ImplicitFunction, None, *flags)


def test_a_negative_diagonal_becomes_harmless():
    """With a_ii = −6, x = φ(A x + z) is solved by Newton's method as it is, and by a contraction afterwards."""
    model = make(3, 2, 20, ImplicitFunction, seed=0, method="newton", bias=True)
    np.fill_diagonal(model.parameters["A"], -6.0)
    better, U = absorb_diagonal(model), np.random.default_rng(0).standard_normal((5, 3))
    assert norm_inf(better.parameters["A"]) < 0.2 < 6 < norm_inf(model.parameters["A"])
    assert relative_error(better(U), model(U)) <= 1e-13
    assert np.isinf(model.equilibrium(U).error_bound).all()
    assert (better.equilibrium(U).error_bound < 1e-12).all()
    assert left_alone(rescale(better))


@given(st.integers(1, 5), st.integers(0, 2**31))
def test_the_new_norm_is_below_one_where_the_matrix_measure_is(n, seed):
    rng = np.random.default_rng(seed)
    model = ImplicitModel(1, 1, n, f=ImplicitFunction, dtype="float64")
    A = model.parameters["A"]
    A[...] = rng.standard_normal((n, n)) * 0.6
    A[np.diag_indices(n)] = rng.uniform(-3, 0.95, n)
    a = A.diagonal()
    measure = (a + np.abs(A).sum(axis=1) - np.abs(a)).max()
    assert (norm_inf(absorb_diagonal(model).parameters["A"]) < 1) == (measure < 1)


def test_what_has_no_units_is_refused():
    deep = network(layers(*[4] * 60, scale=60), dtype="float32")
    slope = make(3, 2, 4, activation="tanh")
    ones = make(3, 2, 4, ImplicitFunction)
    ones.parameters["A"][2, 2] = 1.0
    for call, message in (
        (lambda: rescale(deep), 'differ by less than 2\\*\\*64 in float32.*use dtype="float64"'),
        (
            lambda: rescale(slope),
            "rescale needs a model with the activation relu or leaky_relu or identity.*got tanh: ",
        ),
        (lambda: absorb_diagonal(make(1, 1, 1, activation="leaky_relu")), "absorb_diagonal needs.*got leaky_relu"),
        (lambda: absorb_diagonal(ones), "every diagonal entry of A must be below 1.*got 1 in row 2: use an f"),
        (lambda: rescale(ones, 1.0), "kappa must be a number ≥ 0 and < 1; got 1.0"),
        (lambda: rescale(ones, 0), "kappa must be above 0.*pass kappa=0.99"),
        (lambda: rescale(ones), "the Perron root"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    for function in (rescale, absorb_diagonal):
        with pytest.raises(TypeError, match="model must be an ImplicitModel; got ndarray"):
            function(np.eye(2))
    net = network(layers(2, 3, 3, 1))
    net.parameters["A"][0, 4] = np.nan
    for function in (rescale, absorb_diagonal):
        with pytest.raises(ValueError, match="needs a model with a finite A; got NaN or inf in it"):
            function(net)
