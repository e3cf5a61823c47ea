"""These tests compare nets as implicit models with the nets, computed layer by layer in plain NumPy."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import ACTIVATIONS
from test_compose import EXACT, FUNCTIONS, make, relative_error

import idl_ref
from idl_ref import ImplicitFunctionInf, ImplicitFunctionTriu, ImplicitModel
from idl_ref.activations import TABLE
from idl_ref.analysis import network, residual, unrolled
from idl_ref.preprocessing import Standardise
from idl_ref.wellposed import perron_root

BAR = 1e-14


def layers(*widths, seed=0, scale=1.0):
    """Return random layers (W, b) between the given widths."""
    rng = np.random.default_rng(seed)
    return [(scale * rng.standard_normal((n, p)) / p**0.5, rng.standard_normal(n)) for p, n in pairwise(widths)]


def plain(net, U, activation="relu"):
    """Compute the outputs layer by layer.   U (m, p) -> (m, q)"""
    for W, b in net[:-1]:
        U = TABLE[activation].phi(U @ W.T + b)
    return U @ net[-1][0].T + net[-1][1]


@given(st.lists(st.integers(1, 6), min_size=2, max_size=6), st.sampled_from(ACTIVATIONS), st.integers(0, 2**31))
def test_a_net_is_its_layers(widths, activation, seed):
    net = layers(*widths, seed=seed)
    model, U = network(net, activation, **EXACT), np.random.default_rng(seed).standard_normal((4, widths[0]))
    assert relative_error(model(U), plain(net, U, activation)) <= BAR
    assert model.hidden_dim == max(sum(widths[1:-1]), 1)
    assert perron_root(model.effective()["A"]).upper == 0


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_weights_are_copied_as_they_are_and_solved_in_one_sweep(backend, dtype):
    net = [(W.astype(dtype), b.astype(dtype)) for W, b in layers(5, 9, 8, 7, 3, scale=10)]
    model = network(net, backend=backend)
    assert (model.f, model.dtype, model.bias, model.no_D) == (ImplicitFunctionTriu, dtype, True, False)
    P = model.parameters
    np.testing.assert_array_equal(P["A"][:7, 7:15], net[2][0])
    np.testing.assert_array_equal(P["A"][7:15, 15:], net[1][0])
    np.testing.assert_array_equal(P["B"][15:], np.column_stack(net[0]))
    np.testing.assert_array_equal(P["B"][:15, -1], np.concatenate([net[2][1], net[1][1]]))
    assert np.count_nonzero(P["A"]) == 7 * 8 + 8 * 9
    U = np.ones((3, 5), dtype)
    solution = model.equilibrium(U)
    assert (solution.iterations == 1).all()
    assert relative_error(model(U), plain(net, U)) <= (1e-5 if dtype == "float32" else BAR)


def test_one_layer_and_no_bias():
    (W, b), U = layers(4, 3)[0], np.ones((2, 4))
    for bias in (b, None):
        model = network([(W, bias)], **EXACT)
        assert model.hidden_dim == 1
        assert relative_error(model(U), U @ W.T + (0 if bias is None else b)) <= BAR
    assert network([([[1, 2]], None)]).dtype == "float64"  # integers become float64
    assert network([(W, b)], kappa=0.5, f=ImplicitFunctionInf, dtype="float32").settings.kappa == 0.5


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_a_residual_net_is_its_blocks(activation, depth):
    blocks = [layers(4, 6, 4, seed=seed) for seed in range(depth)]
    model = residual(*(network(block, activation, **EXACT) for block in blocks))
    U = truth = np.random.default_rng(9).standard_normal((5, 4))
    for block in blocks:
        truth = truth + plain(block, truth, activation)
    assert relative_error(model(U), truth) <= BAR
    assert model.hidden_dim == 6 * depth  # No state only hands U on.
    assert perron_root(model.effective()["A"]).upper == 0
    if depth == 2:  # W_l V_k stands in A.
        np.testing.assert_allclose(
            model.parameters["A"][:6, 6:], blocks[1][0][0] @ blocks[0][1][0], rtol=1e-13, atol=1e-15
        )


@pytest.mark.parametrize("f", FUNCTIONS)
@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize("flags", [(False, False), (True, False), (False, True), (True, True)])
def test_residual_keeps_what_the_model_is(f, rank, flags):
    rank = rank if f.low_rank else None
    one = make(3, 3, 5, f, rank, 1, bias=flags[0], no_D=flags[1], kappa=0.5)
    U, model = np.random.default_rng(0).standard_normal((4, 3)), residual(one)
    assert relative_error(model(U), U + one(U)) <= BAR
    assert (model.f, model.rank, model.bias, model.no_D) == (f, rank, flags[0], False)
    for name in set(one.parameters) - {"D"}:
        np.testing.assert_array_equal(model.parameters[name], one.parameters[name])
        assert not np.shares_memory(model.parameters[name], one.parameters[name])
    two = make(3, 3, 4, f, rank, 2, bias=flags[0], no_D=flags[1], kappa=0.5)
    inner = U + one(U)
    assert relative_error(residual(one, two)(U), inner + two(inner)) <= BAR


@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize("flags", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_unrolled_is_so_many_steps(rank, flags, steps):
    model = make(3, 2, 5, ImplicitFunctionInf, rank, 1, bias=flags[0], no_D=flags[1], activation="tanh", kappa=0.9)
    U, net = np.random.default_rng(0).standard_normal((4, 3)), unrolled(model, steps)
    P = model.effective()
    A = P["A"] if rank is None else P["L"] @ P["R"].T
    inputs = np.hstack([U, np.ones((4, 1))]) if flags[0] else U
    X = np.zeros((5, 4))
    for _ in range(steps):
        X = np.tanh(A @ X + P["B"] @ inputs.T)
    truth = (P["C"] @ X).T + (0 if flags[1] else inputs @ P["D"].T)
    assert relative_error(net(U), truth) <= BAR
    assert (net.hidden_dim, net.f, net.no_D, net.bias) == (5 * steps, ImplicitFunctionTriu, flags[1], flags[0])
    stopped = make(3, 2, 5, ImplicitFunctionInf, rank, 1, bias=flags[0], no_D=flags[1], activation="tanh", kappa=0.9,
                   mitr=steps, method="picard", on_failure="ignore")  # fmt: skip
    assert relative_error(net(U), stopped(U)) <= BAR


def test_unrolled_comes_near_the_equilibrium_as_fast_as_promised():
    model = make(3, 2, 5, seed=1, kappa=0.6)
    model.preprocessing, model.classes = Standardise(1.0, 2.0), ["a", "b"]
    U = np.random.default_rng(0).standard_normal((4, 3))
    A, X = model.effective()["A"], model.equilibrium(U).X
    kappa = np.abs(A).sum(axis=1).max()
    first = np.abs(unrolled(model, 1).equilibrium(U).X).max(axis=0)
    for steps in (1, 3, 9):
        net = unrolled(model, steps)
        error = np.abs(net.equilibrium(U).X[:5] - X).max(axis=0)
        assert (error <= kappa**steps / (1 - kappa) * first * (1 + 1e-12)).all()
    assert net.preprocessing == model.preprocessing
    np.testing.assert_array_equal(net.classes, model.classes)


def test_nets_train_on():
    rng = np.random.default_rng(0)
    U, labels = rng.standard_normal((60, 4)), rng.integers(0, 2, 60)
    for model in (network(layers(4, 8, 2)), residual(network(layers(4, 8, 4)), network(layers(4, 8, 4)))):
        before = model.loss_and_gradients(U, labels)[0]
        idl_ref.fit(model, U, labels, epochs=3, progress=False, optimizer=idl_ref.SGD(0.01))
        assert model.loss_and_gradients(U, labels)[0] < before


def test_what_is_no_net_is_refused():
    (W, b), scaled = layers(4, 3)[0], make(3, 3, 4)
    scaled.preprocessing = Standardise(0.0, 2.0)
    for call, message in (
        (lambda: network([]), "layers must have at least one pair"),
        (lambda: network([(W, b), (W, b)]), r"W of layer 2 must have 3 columns.*got the shape \(3, 4\).*transpose"),
        (lambda: network([(W, b[:2])]), r"b of layer 1 must have shape \(3,\)"),
        (lambda: network([(b, b)]), "W of layer 1 must be a matrix of shape"),
        (lambda: residual(make(3, 2, 4)), "model 1 must have as many outputs as inputs.*got 3 inputs and 2 outputs"),
        (lambda: residual(scaled), "model 1 must have no preprocessing"),
        (lambda: unrolled(make(3, 2, 4), 0), "steps must be a whole number, at least 1; got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    for call, message in (
        (lambda: network([W]), r"layer 1 must be a pair \(W, b\); got ndarray"),
        (lambda: network([(W, b)], bias=True), "the layers determine bias; got a setting for it: leave it out"),
        (lambda: residual(), "got none"),
        (lambda: residual(ImplicitModel), "model 1 must be an ImplicitModel; got type"),
        (lambda: unrolled(W, 3), "model must be an ImplicitModel; got ndarray"),
    ):
        with pytest.raises(TypeError, match=message):
            call()
