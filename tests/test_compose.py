"""These tests check that a cascade is the composition of its models, in outputs, gradients, statuses and files."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import ACTIVATIONS

import idl_ref
from idl_ref import (
    ImplicitFunction,
    ImplicitFunctionInf,
    ImplicitFunctionRows,
    ImplicitFunctionTriu,
    ImplicitModel,
)
from idl_ref.analysis import cascade
from idl_ref.preprocessing import Standardise
from idl_ref.wellposed import norm_inf, perron_root

FUNCTIONS = (ImplicitFunctionInf, ImplicitFunctionRows, ImplicitFunctionTriu, ImplicitFunction)
EXACT = {"dtype": "float64", "tol": 0.0, "grad_tol": 0.0, "mitr": 2000, "grad_mitr": 2000, "backend": "numpy"}


def relative_error(Y, truth):
    return np.abs(Y - truth).max(initial=0.0) / max(np.abs(truth).max(initial=0.0), np.finfo(float).tiny)


def make(p, q, n, f=ImplicitFunctionInf, rank=None, seed=0, **settings):
    """Return a float64 model that solves to rounding, whose raw weights lie outside the ball of `f`, if `f` has one."""
    settings = {**EXACT, "kappa": 0.8, **settings}
    model = ImplicitModel(p, q, n, f=f, is_low_rank=rank is not None, rank=rank, seed=seed, **settings)
    if f is not ImplicitFunction:
        for name in "ALR":
            if name in model.parameters:
                model.parameters[name] *= 3
    return model


@st.composite
def models(draw, p, q, activation, seed):
    n, f = draw(st.integers(1, 6)), draw(st.sampled_from(FUNCTIONS))
    low_rank = f.low_rank and draw(st.booleans())
    rank = draw(st.integers(1, n)) if low_rank else None
    flags = {"bias": draw(st.booleans()), "no_D": draw(st.booleans())}
    return make(p, q, n, f, rank, seed, activation=activation, **flags)


@st.composite
def pairs(draw):
    sizes, activation = [draw(st.integers(1, 4)) for _ in range(3)], draw(st.sampled_from(ACTIVATIONS))
    seed = draw(st.integers(0, 2**31))
    first = draw(models(sizes[0], sizes[1], activation, seed))
    return draw(models(sizes[1], sizes[2], activation, seed + 1)), first, draw(st.integers(0, 4))


@given(pairs())
def test_it_is_the_composition(drawn):
    second, first, m = drawn
    model, U = cascade(second, first), np.random.default_rng(m).standard_normal((m, first.input_dim))
    solution = model.equilibrium(U)
    assert solution.converged
    assert relative_error(model(U), second(first(U))) <= 1e-12
    inner = first.equilibrium(U).X, second.equilibrium(first(U)).X
    assert relative_error(solution.X, np.concatenate(inner[::-1])) <= 1e-12


@pytest.mark.parametrize("f", FUNCTIONS)
@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize("flags", list(itertools.product((False, True), repeat=4)))
def test_every_kind_of_weights(f, rank, flags):
    rank = rank if f.low_rank else None
    second = make(2, 3, 4, f, rank, 1, bias=flags[0], no_D=flags[1], activation="tanh")
    first = make(3, 2, 5, f, rank, 0, bias=flags[2], no_D=flags[3], activation="tanh")
    model, U = cascade(second, first), np.random.default_rng(0).standard_normal((7, 3))
    assert relative_error(model(U), second(first(U))) <= 1e-12
    assert ("D" in model.parameters) != model.no_D


def test_the_blocks_are_those_of_the_equation():
    second, first = make(2, 3, 4, seed=1), make(3, 2, 5, seed=0)
    P, two, one = cascade(second, first).parameters, second.effective(), first.effective()
    np.testing.assert_array_equal(P["A"][:4, :4], two["A"])
    np.testing.assert_array_equal(P["A"][4:, 4:], one["A"])
    assert not P["A"][4:, :4].any()
    np.testing.assert_allclose(P["A"][:4, 4:], two["B"] @ one["C"], rtol=1e-14)
    np.testing.assert_allclose(P["B"], np.vstack([two["B"] @ one["D"], one["B"]]), rtol=1e-14)
    np.testing.assert_allclose(P["C"], np.hstack([two["C"], two["D"] @ one["C"]]), rtol=1e-14)
    np.testing.assert_allclose(P["D"], two["D"] @ one["D"], rtol=1e-14)


@pytest.mark.parametrize(
    ("second", "first", "no_D"),
    [
        ({"no_D": True, "bias": True}, {"bias": True}, True),
        ({}, {"no_D": True, "bias": True}, True),
        ({"bias": True}, {"no_D": True}, False),  # The bias of the outputs of `first` affects Ŷ.
        ({}, {}, False),
    ],
)
def test_d_is_left_out_where_it_is_zero_by_construction(second, first, no_D):
    model = cascade(make(2, 3, 4, **second), make(3, 2, 5, **first))
    assert model.no_D == no_D
    assert model.bias == (second.get("bias", False) or first.get("bias", False))


@pytest.mark.parametrize("settings", [{}, {"bias": True}, {"no_D": True}])
def test_gradients(settings):
    model = cascade(make(2, 3, 4, seed=1, **settings), make(3, 2, 5, rank=2, seed=0, **settings))
    rng = np.random.default_rng(0)
    report = idl_ref.check_gradients(model, rng.standard_normal((6, 3)), rng.integers(0, 3, 6))
    assert report.passed, str(report)


def test_the_gradient_of_the_input_is_that_of_the_chain_rule():
    second, first = make(2, 3, 4, seed=1, bias=True), make(3, 2, 5, seed=0)
    rng = np.random.default_rng(0)
    U, G_Y = rng.standard_normal((6, 3)), rng.standard_normal((6, 3))
    Y, inner = first.vjp(U)
    chained = inner(second.vjp(Y)[1](G_Y)["U"])["U"]
    assert relative_error(cascade(second, first).vjp(U)[1](G_Y)["U"], chained) <= 1e-12


def test_three_models_and_a_tie_of_brackets():
    one, two, three = (make(2, 2, n, seed=n, bias=n == 4) for n in (3, 4, 5))
    U = np.random.default_rng(0).standard_normal((6, 2))
    left, right = cascade(cascade(three, two), one), cascade(three, cascade(two, one))
    for model in (left, right):
        assert relative_error(model(U), three(two(one(U)))) <= 1e-12
    assert left.settings == right.settings


def test_the_perron_root_is_the_larger_of_the_two_and_the_norm_is_not():
    second, first = make(2, 3, 4, seed=1, kappa=0.6), make(3, 2, 5, seed=0)
    second.parameters["B"] *= 100
    A = cascade(second, first).parameters["A"]
    roots = [perron_root(model.effective()["A"]).upper for model in (second, first)]
    assert perron_root(A).upper == pytest.approx(max(roots), rel=1e-5)
    assert perron_root(A).upper < 1 < norm_inf(A)


def test_outputs_are_certified_though_the_norm_is_above_one():
    second, first = make(2, 3, 4, seed=1), make(3, 2, 5, seed=0)
    second.parameters["B"] *= 100
    solution = cascade(second, first).equilibrium(np.ones((3, 3)))
    assert solution.converged
    assert (solution.error_bound < 1e-6).all()  # The bound is finite, because the Perron root is below 1.


def test_a_cascade_of_triangles_is_a_triangle():
    second, first = (make(2, 2, 4, ImplicitFunctionTriu, seed=seed, method="substitution") for seed in (1, 0))
    model = cascade(second, first)
    assert model.method == "auto"
    assert (model.equilibrium(np.ones((3, 2))).iterations == 1).all()


def test_float32_is_rounded_once():
    pair = [ImplicitModel(2, 2, 5, seed=seed) for seed in (1, 0)]
    model = cascade(*pair)
    assert {W.dtype for W in model.parameters.values()} == {np.dtype("float32")}
    B, C = (W.astype(np.float64) for W in (pair[0].parameters["B"], pair[1].parameters["C"]))
    np.testing.assert_array_equal(model.parameters["A"][:5, 5:], (B @ C).astype(np.float32))


def test_settings():
    second = ImplicitModel(2, 3, 4, mitr=10, grad_mitr=20, tol=1e-3, grad_tol=1e-6, kappa=0.5, method="picard")
    first = ImplicitModel(5, 2, 6, mitr=1, grad_mitr=2, tol=1e-4, grad_tol=1e-5, kappa=0.7, on_failure="raise")
    model = cascade(second, first)
    assert (model.input_dim, model.output_dim, model.hidden_dim, model.rank) == (5, 3, 10, None)
    assert (model.mitr, model.grad_mitr, model.tol, model.grad_tol, model.kappa) == (11, 22, 1e-4, 1e-6, 0.7)
    assert (model.f, model.method, model.backend, model.on_failure) == (ImplicitFunction, "auto", "auto", "warn")
    for each in (second, first):
        each.settings = replace(each.settings, method="anderson", backend="numpy", on_failure="ignore")
    model = cascade(second, first)
    assert (model.method, model.backend, model.on_failure) == ("anderson", "numpy", "ignore")


def test_the_weights_are_copies():
    second, first = make(2, 3, 4, ImplicitFunction, seed=1), make(3, 2, 5, ImplicitFunction, seed=0)
    model, kept = cascade(second, first), [W.copy() for W in (*second.parameters.values(), *first.parameters.values())]
    for W in model.parameters.values():
        W[...] = 7.0
    for W, copy in zip((*second.parameters.values(), *first.parameters.values()), kept, strict=True):
        np.testing.assert_array_equal(W, copy)


def test_preprocessing_of_the_first_goes_along(tmp_path):
    second, first = make(2, 3, 4, seed=1), make(3, 2, 5, seed=0)
    first.preprocessing = Standardise(1.0, 2.0)
    model, U = cascade(second, first), np.random.default_rng(0).standard_normal((6, 3))
    assert model.preprocessing == first.preprocessing
    model.save(tmp_path / "cascade.npz")
    loaded = idl_ref.load(tmp_path / "cascade.npz", backend=model.settings.backend)
    assert loaded.settings == model.settings
    assert loaded.preprocessing == first.preprocessing
    np.testing.assert_array_equal(loaded(U), model(U))


@pytest.mark.parametrize(
    ("second", "first", "message"),
    [
        (ImplicitModel(3, 2, 4), ImplicitModel(5, 2, 4), r"second.input_dim must be first.output_dim.*got 3 and 2: "),
        (
            ImplicitModel(2, 2, 4, dtype="float64"),
            ImplicitModel(5, 2, 4),
            "second and first must have the same dtype.*got 'float64' and 'float32': call",
        ),
    ],
)
def test_models_that_do_not_fit_are_refused(second, first, message):
    with pytest.raises(ValueError, match=message):
        cascade(second, first)


def test_preprocessing_in_between_is_refused():
    second, first = ImplicitModel(2, 2, 4), ImplicitModel(5, 2, 4)
    second.preprocessing = Standardise(0.0, 2.0)
    with pytest.raises(ValueError, match=r"second must have no preprocessing.*got Standardise.*: set second.prepr"):
        cascade(second, first)


@pytest.mark.parametrize(
    ("arguments", "name"), [((None, ImplicitModel(1, 1, 1)), "second"), ((ImplicitModel(1, 1, 1), abs), "first")]
)
def test_what_is_no_model_is_refused(arguments, name):
    with pytest.raises(TypeError, match=f"{name} must be an ImplicitModel; got "):
        cascade(*arguments)
