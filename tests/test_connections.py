"""These tests compare sums, stacks, parallel models and loops with their parts, called one after the other."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from test_compose import FUNCTIONS, make, relative_error

import idl_ref
from idl_ref import ImplicitFunction, ImplicitModel
from idl_ref.activations import TABLE
from idl_ref.analysis import add, cascade, feedback, parallel, stack
from idl_ref.columns import Columns
from idl_ref.preprocessing import Standardise
from idl_ref.wellposed import norm_inf, perron_root

BAR = 1e-14  # what every composition of float64 models keeps to
FLAGS = list(itertools.product((False, True), repeat=4))
U = np.random.default_rng(0).standard_normal((7, 3))


def pair(f=ImplicitFunction, rank=None, flags=(True, False, False, False), q=2, p=3, **settings):
    """Return two models from (3, p) inputs to (2, q) outputs, whose flags are bias and no_D of both."""
    settings = {"kappa": 0.5, "activation": "tanh", **settings}
    one = make(3, 2, 4, f, rank, 1, bias=flags[0], no_D=flags[1], **settings)
    return one, make(p, q, 5, f, rank, 2, bias=flags[2], no_D=flags[3], **settings)


@pytest.mark.parametrize("f", FUNCTIONS)
@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize("flags", FLAGS)
def test_every_kind_of_weights(f, rank, flags):
    one, two = pair(f, rank if f.low_rank else None, flags)
    three = make(2, 1, 6, f, None, 3, bias=flags[2], no_D=flags[3], activation="tanh", kappa=0.5)
    V = np.random.default_rng(1).standard_normal((7, 2))
    for model, inputs, truth in (
        (add(one, two), U, one(U) + two(U)),
        (stack(one, two), U, np.hstack([one(U), two(U)])),
        (parallel(one, three), np.hstack([U, V]), np.hstack([one(U), three(V)])),
        (cascade(three, one), U, three(one(U))),
    ):
        assert relative_error(model(inputs), truth) <= BAR
        assert ("D" in model.parameters) != model.no_D
        assert model.bias == (flags[0] or flags[2])


@pytest.mark.parametrize("activation", list(TABLE))
def test_every_activation(activation):
    one, two = pair(activation=activation)
    back = make(2, 3, 4, ImplicitFunction, None, 3, activation=activation, kappa=0.3)
    for name in "BCD":
        back.parameters[name] *= 0.1
    assert relative_error(add(one, two)(U), one(U) + two(U)) <= BAR
    Y = feedback(one, back)(U)
    assert relative_error(Y, one(U + back(Y))) <= BAR


@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize("flags", FLAGS)
def test_a_loop_is_closed(rank, flags):
    forward, back = pair(idl_ref.ImplicitFunctionInf, rank, flags, q=3, p=2)
    for name in set("BC") & set(back.parameters):
        back.parameters[name] *= 0.2
    model = feedback(forward, back)
    solution = model.equilibrium(U)
    assert solution.converged
    Y = model(U)
    assert relative_error(Y, forward(U + back(Y))) <= BAR
    V = back(Y)
    states = np.vstack([forward.equilibrium(U + V).X, back.equilibrium(Y).X])
    assert relative_error(solution.X, states) <= 2 * BAR
    assert model.no_D == flags[1]


def test_a_loop_of_linear_models_is_that_of_transfer_functions():
    """For φ = identity, a model is the matrix G = C (I − A)⁻¹ B + D, and a loop is (I − G₁G₂)⁻¹ G₁."""
    forward, back = pair(flags=(False,) * 4, q=3, p=2, activation="identity")
    G1, G2 = (
        P["C"] @ np.linalg.solve(np.eye(len(P["A"])) - P["A"], P["B"]) + P["D"]
        for P in (forward.parameters, back.parameters)
    )
    loop = feedback(forward, back).parameters
    G = loop["C"] @ np.linalg.solve(np.eye(9) - loop["A"], loop["B"]) + loop["D"]
    np.testing.assert_allclose(G, np.linalg.solve(np.eye(2) - G1 @ G2, G1), rtol=1e-11)


def test_several_models_are_those_of_two_and_two():
    models = [make(3, 2, n, seed=n, bias=n == 5, kappa=0.5) for n in (4, 5, 6)]
    assert relative_error(add(*models)(U), sum(model(U) for model in models)) <= BAR
    assert relative_error(stack(*models)(U), np.hstack([model(U) for model in models])) <= BAR
    wide = np.hstack([U, 2 * U, -U])
    truth = np.hstack([models[0](U), models[1](2 * U), models[2](-U)])
    assert relative_error(parallel(*models)(wide), truth) <= BAR
    assert relative_error(add(models[0])(U), models[0](U)) <= BAR


def test_operators():
    first, second = pair(q=2, p=2)
    same = make(3, 2, 6, ImplicitFunction, None, 5, activation="tanh", kappa=0.5)
    for model, other in ((second @ first, cascade(second, first)), (first + same, add(first, same))):
        assert type(model) is ImplicitModel
        assert model.settings == other.settings
        for name, W in model.parameters.items():
            np.testing.assert_array_equal(W, other.parameters[name])
    for wrong in (lambda: first @ U, lambda: first + 1.0, lambda: 1.0 + first):
        with pytest.raises((TypeError, ValueError)):
            wrong()
    with pytest.raises(
        ValueError, match=r"second.input_dim must be.*the order is cascade\(second, first\), which is sec"
    ):
        first @ second


@pytest.mark.parametrize("compose", [add, stack])
def test_norm_and_perron_root_are_the_largest_ones(compose):
    one, two = pair(activation="relu")
    A = compose(one, two).parameters["A"]
    parts = [model.parameters["A"] for model in (one, two)]
    assert norm_inf(A) == max(map(norm_inf, parts))
    assert perron_root(A).upper == pytest.approx(max(perron_root(P).upper for P in parts), rel=1e-5)


def closed(one, two):
    """Return a loop of two models that is well posed."""
    for name in "BC":
        two.parameters[name] *= 0.2
    return feedback(one, two)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("compose", [add, stack, parallel, closed])
def test_gradients(compose):
    sizes = {"q": 3, "p": 2} if compose is closed else {}
    model, rng = compose(*pair(flags=(True, False, True, False), **sizes)), np.random.default_rng(0)
    V = rng.standard_normal((6, model.input_dim))
    report = idl_ref.check_gradients(model, V, rng.integers(0, model.output_dim, 6))
    assert report.passed, str(report)


def test_float32_is_rounded_once():
    one, two = (ImplicitModel(3, 2, 5, seed=seed) for seed in (1, 0))
    model = add(one, two)
    D = one.parameters["D"].astype(np.float64) + two.parameters["D"]
    np.testing.assert_array_equal(model.parameters["D"], D.astype(np.float32))
    assert {W.dtype for W in model.parameters.values()} == {np.dtype("float32")}
    assert relative_error(model(U), one(U) + two(U)) <= 1e-5
    for each in (one, two):
        each.parameters["D"][...] = 7.0
    assert not (model.parameters["D"] == 14.0).any()  # The weights are copies.


def test_settings():
    one, two = (ImplicitModel(3, 2, n, mitr=n, grad_mitr=2 * n, tol=10.0**-n, kappa=n / 10, seed=0) for n in (4, 6))
    for model in (add(one, two), stack(one, two), parallel(one, two)):
        assert (model.mitr, model.grad_mitr, model.tol, model.kappa, model.hidden_dim) == (6, 12, 1e-6, 0.6, 10)
    assert feedback(one, ImplicitModel(2, 3, 4, mitr=100)).mitr == 104


def test_preprocessing_columns_and_classes():
    one, two = pair()
    first, columns = Standardise([1.0, 2.0, 3.0], 2.0 * np.ones(3)), Columns(("a", "b", "c"), (None,) * 3, (None,) * 3)
    for model in (one, two):
        model.preprocessing, model.columns = first, columns
    two.classes = ["no", "yes"]
    total, joined, aside = add(one, two), stack(one, two), parallel(one, two)
    assert total.preprocessing == joined.preprocessing == first
    assert total.columns == joined.columns == columns
    assert aside.columns is None
    np.testing.assert_array_equal(total.classes, ["no", "yes"])
    assert joined.classes is aside.classes is None
    assert relative_error(total(U), one(U) + two(U)) <= BAR
    two.preprocessing = None
    aside = parallel(one, two)
    np.testing.assert_array_equal(aside.preprocessing.mean, [1, 2, 3, 0, 0, 0])
    truth = np.hstack([one(U), two(2 * U)])
    assert relative_error(aside(np.hstack([U, 2 * U])), truth) <= BAR


def test_a_singular_or_badly_conditioned_loop_is_refused():
    forward, back = pair(q=3, p=2)
    forward.parameters["D"][:, :3], back.parameters["D"][...] = np.eye(2, 3), np.eye(3, 2)
    with pytest.raises(ValueError, match=r"I − D₁D₂ must be regular.*got the condition number (inf|\d).*no_D=True"):
        feedback(forward, back)
    back.parameters["D"] *= 1 - 1e-4  # E = 10⁴, which costs four digits and no more
    for model, name in itertools.product((forward, back), "BC"):
        model.parameters[name] *= 1e-3
    Y = feedback(forward, back)(U)
    assert relative_error(Y, forward(U + back(Y))) <= 1e4 * BAR
    back.parameters["D"][0, 0] = np.nan
    with pytest.raises(ValueError, match="condition number inf"):
        feedback(forward, back)


def test_what_does_not_fit_is_refused():
    one, two = pair(q=3, p=2)
    other = replace(one.settings, dtype="float32")
    single = ImplicitModel.from_parameters(other, {name: W.astype("f") for name, W in one.parameters.items()})
    scaled = make(3, 2, 4, ImplicitFunction, activation="tanh", kappa=0.5)
    scaled.preprocessing = Standardise(0.0, 2.0)
    names, others = make(3, 2, 4, activation="tanh"), make(3, 2, 4, activation="tanh")
    names.classes, others.classes = ["a", "b"], ["b", "a"]
    for call, message in (
        (lambda: add(one, two), "model 1 and model 2 must have the same number of inputs.*got 3 and 2: "),
        (lambda: add(one, make(3, 1, 4, activation="tanh")), "same number of outputs.*got 2 and 1: "),
        (lambda: stack(one, two), "same number of inputs"),
        (lambda: parallel(one, single), "same dtype.*got 'float64' and 'float32': "),
        (lambda: add(one, scaled), "same preprocessing.*got None and Standardise.*set model.preprocessing = None"),
        (lambda: add(names, others), r"the same classes.*got \['a', 'b'\] and \['b', 'a'\]"),
        (
            lambda: feedback(one, one),
            "back must take the q outputs of forward.*make back with input_dim=2 and output_dim=3",
        ),
        (lambda: feedback(scaled, two), "forward must have no preprocessing.*set forward.preprocessing = None"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    for call, message in (
        (lambda: add(), "models must be one or more ImplicitModels; got none"),
        (lambda: stack(one, None), "model 2 must be an ImplicitModel; got NoneType"),
        (lambda: feedback(one, abs), "back must be an ImplicitModel; got builtin"),
    ):
        with pytest.raises(TypeError, match=message):
            call()
