"""These tests compare gradients of models with the complex step through an unrolled iteration, `naive.gradients`."""

import itertools

import naive
import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from strategies import ACTIVATIONS, DTYPES, batches, names, seeds

from idl_ref import (
    ImplicitFunction,
    ImplicitFunctionInf,
    ImplicitFunctionRows,
    ImplicitFunctionTriu,
    ImplicitModel,
    SolveOptions,
    activations,
    factors,
    solve_equilibrium,
)
from idl_ref.backends.numpy import Layer
from idl_ref.functions import FUNCTIONS
from idl_ref.weights import Options, Weights, as_factors

p, q, n, m, r = 3, 2, 5, 4, 2
KAPPA = 0.5
STEPS = 60  # After 60 steps with κ = 0.5, the error is below 0.5**60 < 1e-18.
KINKS = {"relu": (0.0,), "leaky_relu": (0.0,), "hardtanh": (-1.0, 1.0)}
LAYOUTS = [(f, low_rank) for f in FUNCTIONS for low_rank in (False, True) if FUNCTIONS[f].low_rank or not low_rank]
CASES = [
    (f, low_rank, bias, no_D, loss, activation)
    for ((f, low_rank), bias, no_D, loss), activation in zip(
        itertools.product(LAYOUTS, (False, True), (False, True), naive.LOSSES),
        itertools.cycle(ACTIVATIONS),
        strict=False,
    )
] + [(f, low_rank, True, False, "cross_entropy", activation) for (f, low_rank) in LAYOUTS for activation in ACTIVATIONS]


def make(f, low_rank=False, bias=False, no_D=False, activation="relu", kappa=KAPPA, size=8.0, seed=0, **settings):
    """Return a float64 model that solves to rounding, whose raw ‖A‖∞, or ‖L‖∞ and ‖Rᵀ‖∞, is size · kappa."""
    settings = {"dtype": "float64", "tol": 0, "grad_tol": 0, "mitr": 10_000, "grad_mitr": 10_000, **settings}
    sizes = [settings.pop(letter, default) for letter, default in (("p", p), ("q", q), ("n", n))]
    rank = settings.pop("r", r)
    model = ImplicitModel(
        *sizes, FUNCTIONS[f], no_D, bias, kappa=kappa, is_low_rank=low_rank, rank=rank if low_rank else None,
        activation=activation, seed=seed, on_failure="raise", **settings,
    )  # fmt: skip
    # The first f does not keep the model well posed, and the second one does not make the naive iteration converge.
    size = min(size, {"none": 0.9, "monotone": 0.2}.get(f, size))
    for F in as_factors(model.parameters):
        F *= size * kappa / max(np.abs(F).sum(axis=1).max(), 1e-30)
    return model


def data(loss, seed=1, m=m, p=p, q=q):
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, q, m) if loss == "cross_entropy" else rng.standard_normal((m, q))
    return rng.standard_normal((m, p)), targets


def expected(model, U, targets, loss, steps=STEPS, f=None, parameters=None):
    parameters = model.parameters if parameters is None else parameters
    return naive.gradients(
        {name: value.astype(np.float64) for name, value in parameters.items()}, np.asarray(U, np.float64), targets,
        f=f or model.f.name, kappa=model.kappa, activation=model.activation, loss=loss, bias=model.bias, steps=steps,
    )  # fmt: skip


def assert_close(gradients, truth, allowed):
    """Assert that every gradient has an error of at most `allowed`, relative to its largest entry."""
    assert gradients.keys() == truth.keys()
    for name, G in gradients.items():
        assert G.shape == truth[name].shape
        scale = np.abs(truth[name]).max(initial=0.0) or 1.0
        assert np.abs(G - truth[name]).max(initial=0.0) <= allowed * scale, name


def allowed_float32(n, kappa):
    """Return the float32 error that is allowed: n + 8 roundings in each of two solves, each amplified by 1/(1 − κ)."""
    return 4 * (n + 8) * float(np.finfo(np.float32).eps) / (1 - kappa) ** 2


@pytest.mark.sampled(9)
@pytest.mark.parametrize(("f", "low_rank", "bias", "no_D", "loss", "activation"), CASES)
def test_every_gradient_outside_the_ball(f, low_rank, bias, no_D, loss, activation):
    model = make(f, low_rank, bias, no_D, activation)
    U, targets = data(loss)
    value, G = model.loss_and_gradients(U, targets, loss)
    arguments = {"f": f, "kappa": KAPPA, "activation": activation, "loss": loss, "bias": bias, "steps": STEPS}
    assert value == pytest.approx(naive.loss(model.parameters, U, targets, **arguments), rel=1e-12)
    assert set(G) == set(model.parameters) | {"U"}
    assert_close(G, expected(model, U, targets, loss), 1e-9)


@pytest.mark.parametrize(("f", "low_rank"), LAYOUTS)
def test_every_gradient_inside_the_ball(f, low_rank):
    model = make(f, low_rank, bias=True, size=0.9)
    U, targets = data("cross_entropy")
    assert_close(model.loss_and_gradients(U, targets)[1], expected(model, U, targets, "cross_entropy"), 1e-9)


@pytest.mark.parametrize("f", ["inf", "rows"])
def test_some_rows_inside_and_some_outside(f):
    model = make(f, size=1.5)
    model.parameters["A"][:2] *= 0.1
    U, targets = data("mse")
    assert_close(model.loss_and_gradients(U, targets, "mse")[1], expected(model, U, targets, "mse"), 1e-9)


def test_negative_entries_keep_their_sign_through_the_ball():
    for f in ("inf", "rows"):
        model = make(f)
        model.parameters["A"][...] = -np.abs(model.parameters["A"])
        U, targets = data("mse")
        assert_close(model.loss_and_gradients(U, targets, "mse")[1], expected(model, U, targets, "mse"), 1e-9)


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("f", "size"), [("inf", 1.0), ("inf", 8.0), ("rows", 1.0), ("rows", 8.0), ("none", 0.999999)])
def test_hard_matrices(f, size):
    """For a nonnegative A whose row sums are all κ = 0.99, Picard's rate is κ, and 4,000 steps are needed."""
    n = 3
    A = np.random.default_rng(3).random((n, n)) + 0.2
    A *= size * 0.99 / A.sum(axis=1, keepdims=True)
    A[0] *= 1 + 1e-6 if f != "none" else 1  # A single row attains the norm.
    U, targets = data("mse", m=2, p=1, q=1)
    U = np.abs(U) + 0.1
    truth = None
    for method in ("auto", "picard", "anderson", "newton"):
        model = make(f, kappa=0.99, n=n, p=1, q=1, method=method)
        model.parameters["A"][...] = A
        model.parameters["B"][...] = np.abs(model.parameters["B"])
        truth = expected(model, U, targets, "mse", steps=4500) if truth is None else truth
        assert_close(model.loss_and_gradients(U, targets, "mse")[1], truth, 1e-9)


@pytest.mark.parametrize(("f", "low_rank"), LAYOUTS)
@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
def test_float32(f, low_rank, activation):
    model = make(f, low_rank, True, activation=activation, dtype="float32")
    U, targets = data("cross_entropy")
    U = U.astype(np.float32)
    _, G = model.loss_and_gradients(U, targets)
    assert {A.dtype for A in G.values()} == {np.dtype(np.float32)}
    assert_close(G, expected(model, U, targets, "cross_entropy"), allowed_float32(n, KAPPA))


@given(
    layout=st.sampled_from(LAYOUTS),
    activation=names,
    loss=st.sampled_from(sorted(naive.LOSSES)),
    kappa=st.sampled_from([0.0, 0.2, 0.5, 0.7]),
    size=st.sampled_from([0.5, 1.5, 8.0]),
    dtype=st.sampled_from(DTYPES),
    bias=st.booleans(),
    no_D=st.booleans(),
    sizes=st.tuples(*[st.integers(1, 4)] * 3),
    r=st.integers(1, 4),
    m=batches,
    seed=seeds,
)
@example(("inf", False), "relu", "mse", 0.5, 8.0, np.float64, False, False, (1, 1, 1), 1, 1, 0)
def test_any_model(layout, activation, loss, kappa, size, dtype, bias, no_D, sizes, r, m, seed):
    (f, low_rank), (p, q, n) = layout, sizes
    model = make(f, low_rank, bias, no_D, activation, kappa, size, seed, dtype=dtype, p=p, q=q, n=n, r=min(r, n))
    U, targets = data(loss, seed, m, p, q)
    U = U.astype(dtype)
    forward = model.forward_pass(U)
    P = forward.Z + factors.apply(forward.weights.factors, forward.solution.X)
    assume(all(np.abs(P - kink).min() > 1e-4 for kink in KINKS.get(activation, ())))
    _, G = model.loss_and_gradients(U, targets, loss)
    truth = expected(model, U, targets, loss, steps=max(n, 120 if kappa > 0.5 else STEPS))
    allowed = 1e-9 if dtype == np.float64 else allowed_float32(n, kappa)
    for name, value in G.items():
        scale = max(np.abs(truth[name]).max(), 0.1)  # The entries of the data are of order one.
        assert np.abs(value - truth[name]).max() <= allowed * scale, name


@pytest.mark.parametrize("no_D", [False, True])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_adjoint_identity_of_the_whole_model(no_D, activation):
    """For all tangents, ⟨G_Y, Ỹ⟩ = Σ ⟨∂θ, θ̃⟩ + ⟨∂U, Ũ⟩, where Ỹ comes from an exact solve."""
    model = make("none", no_D=no_D, activation=activation)
    U, _ = data("mse")
    W, X = model.parameters, model.equilibrium(U).X
    Y, pullback = model.vjp(U)
    rng = np.random.default_rng(5)
    t = {name: rng.standard_normal(value.shape) for name, value in {**W, "U": U}.items()}
    G_Y = rng.standard_normal(Y.shape)
    P = W["A"] @ X + W["B"] @ U.T
    S = (P > 0).astype(float) if activation == "relu" else 1 / np.cosh(P) ** 2
    P_t = t["A"] @ X + t["B"] @ U.T + W["B"] @ t["U"].T
    X_t = np.stack(
        [np.linalg.solve(np.eye(n) - s[:, None] * W["A"], s * b) for s, b in zip(S.T, P_t.T, strict=True)], 1
    )
    Y_t = t["C"] @ X + W["C"] @ X_t + (0 if no_D else t["D"] @ U.T + W["D"] @ t["U"].T)
    G = pullback(G_Y)
    assert G.keys() == t.keys()
    assert np.vdot(G_Y, Y_t.T) == pytest.approx(sum(np.vdot(G[name], t[name]) for name in t), rel=1e-12)


@pytest.mark.parametrize("f", ["inf", "rows"])
def test_straight_through_is_the_gradient_of_the_effective_weights(f):
    model = make(f, straight_through=True)
    U, targets = data("cross_entropy")
    W = model.effective()
    truth = expected(model, U, targets, "cross_entropy", f="none", parameters=W)
    _, G = model.loss_and_gradients(U, targets)
    assert_close(G, truth, 1e-9)
    _, exact = make(f).loss_and_gradients(U, targets)
    assert np.abs(exact["A"] - G["A"]).max() > 0.5 * np.abs(G["A"]).max()
    for name in ("B", "C", "D", "U"):
        np.testing.assert_array_equal(exact[name], G[name])


@pytest.mark.parametrize("f", ["inf", "rows"])
def test_straight_through_is_exact_inside_the_ball(f):
    U, targets = data("cross_entropy")
    _, G = make(f, size=0.9, straight_through=True).loss_and_gradients(U, targets)
    _, exact = make(f, size=0.9).loss_and_gradients(U, targets)
    for name in exact:
        np.testing.assert_array_equal(G[name], exact[name])


def test_the_scaling_takes_the_radial_part_out():
    """Where ‖A‖∞ > κ, the loss does not change if A is multiplied by a number, so that ⟨∂A, A⟩ = 0."""
    model = make("inf")
    U, targets = data("cross_entropy")
    G = model.loss_and_gradients(U, targets)[1]["A"]
    assert abs(np.vdot(G, model.parameters["A"])) <= 1e-12 * np.abs(G).max() * np.abs(model.parameters["A"]).sum()


@pytest.mark.parametrize(("f", "low_rank"), LAYOUTS)
def test_the_pullback_is_linear_and_reusable(f, low_rank):
    model = make(f, low_rank, bias=True)
    U, _ = data("mse")
    Y, pullback = model.vjp(U)
    G1, G2 = np.random.default_rng(2).standard_normal((2, *Y.shape))
    one, two, both = pullback(G1), pullback(G2), pullback(2 * G1 - 3 * G2)
    again = pullback(G1)
    for name in one:
        np.testing.assert_array_equal(again[name], one[name])
        np.testing.assert_allclose(both[name], 2 * one[name] - 3 * two[name], rtol=1e-10, atol=1e-12)
    assert not any(G.any() for G in pullback(np.zeros_like(Y)).values())


def test_vjp_and_loss_and_gradients_agree():
    model = make("inf")
    U, T = data("mse")
    Y, pullback = model.vjp(U)
    value, G = model.loss_and_gradients(U, T, "mse")
    assert value == pytest.approx(((Y - T) ** 2).mean(), rel=1e-14)
    for name, expected_G in pullback(2 * (Y - T) / Y.size).items():
        np.testing.assert_allclose(G[name], expected_G, rtol=1e-12, atol=1e-14)


def test_gradients_are_sums_over_samples():
    model = make("inf", bias=True)
    U, _ = data("mse")
    G_Y = np.random.default_rng(2).standard_normal((m, q))
    whole = model.vjp(U)[1](G_Y)
    parts = [model.vjp(U[j : j + 1])[1](G_Y[j : j + 1]) for j in range(m)]
    for name in ("A", "B", "C", "D"):
        np.testing.assert_allclose(whole[name], sum(part[name] for part in parts), rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(whole["U"], np.vstack([part["U"] for part in parts]), rtol=1e-10, atol=1e-13)


def test_the_flow_in_columns():
    """A layer can be used without a model, with samples as columns."""
    rng = np.random.default_rng(0)
    A, B, C, U, G_Y = (rng.standard_normal(s) for s in ((n, n), (n, p), (q, n), (p, m), (q, m)))
    A *= 0.5 / np.abs(A).sum(axis=1).max()
    options = SolveOptions(tol=0, on_failure="raise")
    layer = Layer(Weights((A,), B, C), activations.get("tanh"), Options(options, options))
    forward = layer.forward(U)
    alone = solve_equilibrium(A, B @ U, activation="tanh", options=options, backend="numpy")
    np.testing.assert_array_equal(forward.solution.X, alone.X)
    backward = layer.backward(forward, G_Y)
    V = backward.solution.X
    np.testing.assert_allclose(V, (1 - forward.solution.X**2) * (A.T @ V + C.T @ G_Y), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(layer.input_gradient(V, G_Y), B.T @ V, rtol=1e-14)
    assert backward.D is None


def test_custom_f_is_used():
    class Halved(ImplicitFunctionInf):
        name = "halved"

        def _map(self, F):
            return 0.5 * super()._map(F)

        def _pull(self, F, G):
            return 0.5 * super()._pull(F, G)

    U, targets = data("cross_entropy")
    custom = ImplicitModel(p, q, n, Halved, dtype="float64", tol=0, grad_tol=0, seed=0)
    plain = ImplicitModel(p, q, n, ImplicitFunction, dtype="float64", tol=0, grad_tol=0, seed=0)
    plain.parameters |= custom.effective()
    G, G_plain = (model.loss_and_gradients(U, targets)[1] for model in (custom, plain))
    np.testing.assert_allclose(custom(U), plain(U), rtol=1e-13)
    np.testing.assert_allclose(G["A"], 0.5 * G_plain["A"], rtol=1e-12)


def test_triu_has_no_gradient_on_and_below_the_diagonal():
    model = ImplicitModel(p, q, n, ImplicitFunctionTriu, seed=0)
    G = model.loss_and_gradients(*data("cross_entropy"))[1]["A"]
    assert not np.tril(G).any()
    assert np.triu(G, 1).any()


def test_rows_has_no_gradient_where_the_projection_is_zero():
    model = make("rows")
    G = model.loss_and_gradients(*data("cross_entropy"))[1]["A"]
    off = model.effective()["A"] == 0
    assert off.any()
    assert not G[off].any()
    assert model.f is ImplicitFunctionRows
