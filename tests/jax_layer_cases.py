"""Tests of examples/backends/jax_layer.py, which test_layers.py runs in a process of their own."""

import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from jax.test_util import check_grads

import idl_ref

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "backends"))
import jax_layer
from jax_layer import equilibrium, layer

EXACT = idl_ref.SolveOptions(1e-13, on_failure="ignore")
LOW = {"is_low_rank": True, "rank": 2}
SETTINGS = [{}, LOW, {"kappa": 0.3}, {"kappa": 0.3, **LOW}, {"activation": "tanh"}, {"activation": "elu", **LOW}]


@pytest.fixture(autouse=True)
def _x64():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def calls(monkeypatch):
    """The shapes of Z in the calls of the solver."""
    shapes, solve = [], jax_layer.solve_equilibrium
    monkeypatch.setattr(jax_layer, "solve_equilibrium", lambda A, Z, **k: shapes.append(Z.shape) or solve(A, Z, **k))
    return shapes


def problem(dtype="float64", **settings):
    """A model with the outputs X, the parameters and inputs of the same layer, and how to call it."""
    model = idl_ref.ImplicitModel(3, 6, 6, no_D=True, tol=1e-13, grad_tol=1e-13, seed=1, dtype=dtype, **settings)
    model.parameters["C"][...] = np.eye(6)
    W = {name: jnp.asarray(M) for name, M in model.parameters.items() if name != "C"}
    U = jnp.asarray(np.random.default_rng(2).standard_normal((5, 3)).astype(dtype))
    options = EXACT if dtype == "float64" else jax_layer.OPTIONS
    return model, W, U, partial(layer, kappa=model.kappa, activation=model.activation, options=options)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize(("dtype", "rtol"), [("float64", 1e-10), ("float32", 1e-4)])
@pytest.mark.parametrize("compiled", [False, True])
def test_outputs_and_gradients_are_those_of_a_model(settings, dtype, rtol, compiled):
    model, W, U, apply = problem(dtype, **settings)
    G = np.random.default_rng(3).standard_normal((5, 6)).astype(dtype)
    Y, pullback = model.vjp(np.asarray(U))

    def both(W, U):
        X, pull = jax.vjp(apply, W, U)
        return X, pull(jnp.asarray(G))

    X, (found, G_U) = (jax.jit(both) if compiled else both)(W, U)
    assert X.dtype == G_U.dtype == dtype
    np.testing.assert_allclose(X, Y, rtol, rtol)
    expected = pullback(G)
    for name, gradient in {**found, "U": G_U}.items():
        np.testing.assert_allclose(gradient, expected[name], rtol, rtol, err_msg=name)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_check_grads(settings):
    _, W, U, apply = problem(**settings)
    check_grads(apply, (W, U), order=1, modes=["rev"], rtol=1e-6)
    check_grads(jax.jit(apply), (W, U), order=1, modes=["rev"], rtol=1e-6)


@pytest.mark.parametrize("settings", [{}, LOW])
def test_vmap_over_samples_is_one_solve(settings, calls):
    _, W, U, apply = problem(**settings)
    one_by_one = jnp.stack([apply(W, u) for u in U])
    calls.clear()
    np.testing.assert_allclose(jax.vmap(apply, (None, 0))(W, U), one_by_one, atol=1e-12)
    np.testing.assert_allclose(jax.jit(jax.vmap(apply, (None, 0)))(W, U), one_by_one, atol=1e-12)
    assert calls == [(6, 5)] * 2


@pytest.mark.parametrize("settings", [{}, LOW])
def test_vmap_over_weights_and_nested(settings, calls):
    _, W, U, apply = problem(**settings)
    several = jax.tree.map(lambda M: jnp.stack([M, M / 2, -M]), W)
    each = [jax.tree.map(lambda M, i=i: M[i], several) for i in range(3)]
    expected = jnp.stack([apply(W, U) for W in each])
    calls.clear()
    np.testing.assert_allclose(jax.vmap(apply, (0, None))(several, U), expected, atol=1e-12)
    nested = jax.vmap(jax.vmap(apply, (None, 0)), (0, None))
    np.testing.assert_allclose(nested(several, U), expected, atol=1e-12)
    assert calls == [(6, 5)] * 6
    other_order = jax.vmap(jax.vmap(apply, (0, None)), (None, 0))
    np.testing.assert_allclose(other_order(several, U), expected.swapaxes(0, 1), atol=1e-12)


def test_one_factor_of_a_pair_is_mapped():
    _, W, U, _ = problem(**LOW)
    L, Z = jnp.stack([W["L"], W["L"] / 2]), U @ W["B"].T
    X = jax.vmap(lambda L: equilibrium((L, W["R"]), Z, "relu", EXACT))(L)
    np.testing.assert_allclose(X[1], equilibrium((L[1], W["R"]), Z, "relu", EXACT), atol=1e-12)


@pytest.mark.parametrize("settings", [{}, LOW])
def test_gradients_of_each_sample(settings):
    _, W, U, apply = problem(activation="tanh", **settings)
    loss = lambda W, u: (apply(W, u) ** 2).sum()  # noqa: E731
    each = jax.jit(jax.vmap(jax.grad(loss), (None, 0)))(W, U)
    for name in W:
        one = jnp.stack([jax.grad(loss)(W, u)[name] for u in U])
        np.testing.assert_allclose(each[name], one, atol=1e-11)
        np.testing.assert_allclose(each[name].sum(0), jax.grad(loss)(W, U)[name], atol=1e-11)


def test_a_layer_twice_in_one_graph_and_in_a_loop():
    _, W, U, apply = problem(activation="tanh")

    def loss(W):
        body = lambda U, _: (apply(W, U)[:, :3], None)  # noqa: E731
        return (apply(W, jax.lax.scan(body, U, None, 3)[0]) ** 2).sum()

    check_grads(loss, (W,), order=1, modes=["rev"], rtol=1e-6)


def test_a_sample_that_does_not_converge_is_nan_and_so_are_its_gradients():
    _, W, U, apply = problem()
    U = U.at[2, 0].set(jnp.inf)
    X = jax.jit(apply)(W, U)
    assert jnp.isnan(X).all(axis=1).tolist() == [False, False, True, False, False]
    G = jax.grad(lambda U: jnp.nansum(apply(W, U)))(U)
    assert jnp.isnan(G).all(axis=1).tolist() == [False, False, True, False, False]
    few = idl_ref.SolveOptions(1e-13, 2, "picard", on_failure="ignore")
    assert jnp.isnan(layer(W, U, options=few)).all()


def test_shapes():
    _, W, U, apply = problem()
    for shape in ((3,), (0, 3), (2, 5, 3)):
        rows = jnp.broadcast_to(U[0], shape)
        X, G = jax.value_and_grad(lambda U: apply(W, U).sum())(rows)
        assert apply(W, rows).shape == (*shape[:-1], 6)
        assert G.shape == shape
        assert jnp.isfinite(X)


def test_other_dtypes_are_refused_before_anything_runs():
    _, W, U, apply = problem()
    with pytest.raises(TypeError, match=r"got \['float32', 'float64'\]: call \.astype"):
        jax.eval_shape(equilibrium, W["A"].astype("float32"), U @ W["B"].T)
    half = jax.tree.map(lambda M: M.astype("bfloat16"), W)
    with pytest.raises(TypeError, match="both be float32, or both float64; got"):
        jax.jit(apply)(half, U.astype("bfloat16"))


def test_forward_mode_is_refused():
    _, W, U, apply = problem()
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(partial(apply, W), (U,), (U,))


def test_large_arrays_do_not_hang():
    """Issue 24255 of JAX: a callback that gives JAX's threads work can wait for itself."""
    with jax.enable_x64(False):
        A, Z = jnp.full((400, 400), 1e-3), jnp.ones((1000, 400))
        gradient = jax.jit(jax.grad(lambda A, Z: equilibrium(jnp.sin(A), Z).mean()))
        for _ in range(5):
            G = gradient(A, Z)
        assert jnp.isfinite(G).all()
