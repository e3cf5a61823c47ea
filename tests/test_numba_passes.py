"""Passes and training steps of the Numba twin: those of the definition to rounding, and always the same bits."""

import itertools
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("numba")

import idl_ref
from idl_ref import SGD, Adam, ImplicitModel, fit, losses
from idl_ref.backends.numba import Trainer, launches, maps, parametrisation
from idl_ref.backends.numpy import Trainer as Definition
from idl_ref.functions import FUNCTIONS

ROOT = Path(idl_ref.__file__).parents[1]
SHAPES = [  # n, p, q, rank, bias, no_D
    (45, 37, 7, None, False, False),
    (45, 37, 7, 5, True, False),
    (16, 64, 1, None, True, True),
    (3, 2, 2, 2, False, True),
    (130, 1100, 3, None, True, False),
]
DTYPES = ("float32", "float64")


def make(shape, dtype="float32", backend="numba", **more):
    n, p, q, rank, bias, no_D = shape
    low = {} if rank is None else {"is_low_rank": True, "rank": rank}
    return ImplicitModel(p, q, n, bias=bias, no_D=no_D, dtype=dtype, backend=backend, seed=1, **low, **more)


def data(shape, m, dtype="float32", loss="cross_entropy"):
    rng = np.random.default_rng(m)
    U = rng.standard_normal((m, shape[1])).astype(dtype)
    return U, rng.integers(0, shape[2], m) if loss == "cross_entropy" else rng.standard_normal((m, shape[2]))


def gradients(model, U, T, loss="cross_entropy"):
    value, found = model.loss_and_gradients(U, T, loss)
    return {"loss": np.array(value), **found}


def equal(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


# --- the definition ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_outputs_and_gradients_are_those_of_the_definition(shape, dtype, loss):
    exact = 1e-4 if dtype == "float32" else 1e-11
    tols = {"tol": exact / 100, "grad_tol": exact / 100, "on_failure": "ignore"}
    compiled, defined = (make(shape, dtype, backend, **tols) for backend in ("numba", "numpy"))
    for m in (1, 5, 64, 200):
        U, T = data(shape, m, dtype, loss)
        np.testing.assert_allclose(compiled(U), defined(U), rtol=exact, atol=exact)
        expected = gradients(defined, U, T, loss)
        for name, G in gradients(compiled, U, T, loss).items():
            np.testing.assert_allclose(
                G, expected[name], rtol=0, atol=exact * np.abs(expected[name]).max(), err_msg=name
            )


@pytest.mark.parametrize("method", ["auto", "picard", "anderson", "newton"])
def test_every_method_and_start_goes_through_the_same_passes(method):
    compiled, defined = (
        make(SHAPES[0], "float64", b, method=method, tol=1e-13, grad_tol=1e-13) for b in ("numba", "numpy")
    )
    U, T = data(SHAPES[0], 9, "float64")
    X0 = np.random.default_rng(0).standard_normal((9, 45))
    np.testing.assert_allclose(compiled(U), defined(U), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(compiled(U, X0), defined(U, X0), rtol=1e-10, atol=1e-12)
    expected = gradients(defined, U, T)
    for name, G in gradients(compiled, U, T).items():
        np.testing.assert_allclose(G, expected[name], rtol=1e-9, atol=1e-12, err_msg=name)


def test_slow_columns_end_with_the_outputs_of_their_last_method():
    """Columns that leave Picard's iteration get X, and then Y, from Anderson's or Newton's steps."""
    compiled, defined = (make(SHAPES[0], "float64", b, tol=1e-12, kappa=0.9999) for b in ("numba", "numpy"))
    for model in (compiled, defined):
        A = np.abs(model.parameters["A"])
        model.parameters["A"][...] = 0.9999 * A / A.sum(axis=1, keepdims=True)
    U, _ = data(SHAPES[0], 8, "float64")
    forward = compiled.forward_pass(U)
    assert forward.solution.converged
    np.testing.assert_allclose(forward.Y, defined.forward_pass(U).Y, rtol=1e-6)
    C, D = compiled.parameters["C"], compiled.parameters["D"]
    np.testing.assert_allclose(forward.Y, C @ forward.solution.X + D @ U.T, rtol=1e-10, atol=1e-10)


def test_parameters_that_change_in_place_count_at_the_next_call():
    for name, backend in itertools.product("ABCD", ("numba", "numpy")):
        model, (U, _) = make(SHAPES[0], backend=backend), data(SHAPES[0], 5)
        before = model(U)
        model.parameters[name][...] *= 0.5
        assert not np.array_equal(model(U), before)
        np.testing.assert_array_equal(model(U), ImplicitModel.from_parameters(model.settings, model.parameters)(U))


def test_parameters_and_inputs_may_lie_in_memory_as_they_like():
    model, (U, T) = make(SHAPES[0]), data(SHAPES[0], 20)
    expected, Y = gradients(model, U, T), model(U)
    wide = np.zeros((40, 74), np.float32)
    wide[::2, ::2] = U
    U.flags.writeable = False
    for other in (np.asfortranarray(U), wide[::2, ::2], U):
        np.testing.assert_array_equal(model(other), Y)
        equal(gradients(model, other, T), expected)
    for name in ("B", "C", "D"):
        model.parameters[name] = np.asfortranarray(model.parameters[name])
    np.testing.assert_array_equal(model(U), Y)
    equal(gradients(model, U, T), expected)


# --- losses -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_compiled_losses_are_those_of_the_definition(dtype):
    from idl_ref.backends.numba import losses as compiled_losses

    rng, eps = np.random.default_rng(0), float(np.finfo(dtype).eps)
    for q, m, size in itertools.product((1, 2, 10), (1, 7), (1.0, 50.0, 1e4)):
        Y, T = (size * rng.standard_normal((2, q, m))).astype(dtype)
        for compiled, defined, targets in (
            (compiled_losses.cross_entropy, losses.cross_entropy, rng.integers(0, q, m)),
            (compiled_losses.mse, losses.mse, T),
        ):
            value, G_Y = compiled(Y, targets)
            expected, exact = defined(Y.astype(np.float64), targets)
            assert value == pytest.approx(expected, rel=20 * eps)
            np.testing.assert_allclose(G_Y, exact, rtol=2e2 * eps, atol=np.finfo(dtype).tiny)
            assert G_Y.dtype == dtype


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_loss_of_outputs_that_are_not_finite_is_not_finite(bad):
    from idl_ref.backends.numba import losses as compiled_losses

    Y = np.array([[0.0, 1.0], [bad, 2.0]])
    for loss, targets in ((compiled_losses.cross_entropy, np.array([0, 1])), (compiled_losses.mse, np.zeros((2, 2)))):
        assert not np.isfinite(loss(Y, targets)[0])


# --- training ---------------------------------------------------------------------------------------------------------


def trainers(f, loss, low_rank, **rule):
    """Return the trainers of both twins for equal models in float64."""
    made = []
    for kind, backend in ((Trainer, "numba"), (Definition, "numpy")):
        rank = {"is_low_rank": True, "rank": 3} if low_rank else {}
        model = ImplicitModel(
            6,
            3,
            12,
            f=f,
            bias=True,
            dtype="float64",
            backend=backend,
            seed=0,
            tol=1e-14,
            grad_tol=1e-14,
            kappa=0.9,
            **rank,
        )
        optimizer, s = SGD(0.1, **rule), model.settings
        optimizer.start(100)
        activation = idl_ref.activations.get(s.activation)
        made.append(kind(model.parameters, s.parametrisation, activation, s.options, loss, optimizer))
    return made


RULES = [
    {"momentum": 0.0},
    {"momentum": 0.9, "weight_decay": 1e-3},
    {"momentum": 0.8, "nesterov": True, "schedule": "cosine"},
]


@pytest.mark.sampled(18)
@pytest.mark.parametrize("rule", RULES, ids=range(len(RULES)))
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_a_hundred_steps_agree_step_by_step(name, loss, rule):
    f, rng = FUNCTIONS[name], np.random.default_rng(0)
    for low_rank in {False, f.low_rank}:
        compiled, defined = trainers(f, loss, low_rank, **rule)
        for _ in range(100):
            U = rng.standard_normal((8, 6))
            T = rng.integers(0, 3, 8) if loss == "cross_entropy" else rng.standard_normal((3, 8))
            a, b = compiled.step(U, T, None, rng.permutation(8)), defined.step(U, T)
            assert a.counts[:2] == b.counts[:2]  # Rounding decides when some samples are done.
            assert a.loss == pytest.approx(b.loss, rel=1e-9)
            for name, w in compiled.parameters.items():
                np.testing.assert_allclose(w, defined.parameters[name], rtol=1e-8, atol=1e-10, err_msg=name)


def trained(in_place, monkeypatch, f, loss="cross_entropy", U=None, optimizer=None, scale=3.0, **settings):
    """Return the weights and the history of a training whose steps are taken in place, or in arrays of their own."""
    model, taken = make((45, 37, 7, None, True, settings.pop("no_D", False)), f=f, **settings), []
    model.parameters["A"] *= scale
    own, T = data((45, 37, 7), 150, model.dtype, loss)
    weights = np.arange(1, 151) if in_place is not None and loss == "mse" else None
    right = Trainer.step_in_place
    with monkeypatch.context() as patch:

        def step_in_place(*arguments):
            taken.append(right(*arguments) if in_place else None)
            return taken[-1]

        patch.setattr(Trainer, "step_in_place", step_in_place)
        U, optimizer = own if U is None else U(own), optimizer or SGD(0.1, nesterov=True)
        history = fit(
            model, U, T, loss=loss, epochs=2, batch_size=64, optimizer=optimizer, sample_weight=weights, progress=False
        )
    return model.parameters, history, sum(step is not None for step in taken)


def assert_same_training(one, other):
    equal(one[0], other[0])
    for name in ("loss", "accuracy", "forward_iterations", "adjoint_iterations", "unconverged"):
        assert getattr(one[1], name) == getattr(other[1], name), name


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("name", ["inf", "rows"])
def test_steps_in_place_have_the_bits_of_steps_in_arrays_of_their_own(name, loss, monkeypatch):
    for more in ({}, {"no_D": True, "optimizer": Adam(0.01, clip=0.1)}, {"activation": "tanh", "dtype": "float64"}):
        one, other = (trained(k, monkeypatch, FUNCTIONS[name], loss, **more) for k in (True, False))
        assert (one[2], other[2]) == (6, 0)
        assert_same_training(one, other)


@pytest.mark.parametrize(
    ("name", "scale", "settings"),
    [
        ("triu", 1.0, {}),  # Substitution solves the equations.
        ("none", 4.0, {"on_failure": "ignore"}),  # The norm of A shows no contraction.
        ("inf", None, {"kappa": 0.999, "on_failure": "ignore"}),  # Some columns are slow, and leave Picard's iteration.
    ],
)
def test_steps_that_are_not_simple_are_taken_in_arrays_of_their_own(name, scale, settings, monkeypatch):
    scale = np.sign(make((45, 37, 7, None, True, False)).parameters["A"]) * 10 if scale is None else scale
    one, other = (trained(k, monkeypatch, FUNCTIONS[name], scale=scale, **settings) for k in (True, False))
    assert one[2] < 6
    assert_same_training(one, other)


def test_samples_may_lie_in_memory_as_they_like(monkeypatch):
    def read_only(U):
        U.flags.writeable = False
        return U

    expected = trained(True, monkeypatch, FUNCTIONS["inf"])
    for U in (np.asfortranarray, read_only, lambda U: np.repeat(U, 2, axis=1)[:, ::2], lambda U: U.astype("f8")):
        assert_same_training(trained(True, monkeypatch, FUNCTIONS["inf"], U=U), expected)


def test_a_step_whose_samples_are_all_has_arrays_of_its_own():
    compiled, _ = trainers(FUNCTIONS["inf"], "mse", False)
    U, T = data((12, 6, 3), 9, "float64", "mse")
    first = compiled.step(U, T.T)
    arrays = [first.forward.Y, first.forward.solution.X, first.backward.solution.X, first.backward.B]
    copies = [array.copy() for array in arrays]
    compiled.step(2 * U, T.T, None, np.arange(9))
    compiled.step(3 * U, T.T)
    for array, copy in zip(arrays, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_parameters_that_are_replaced_between_steps_count():
    made = trainers(FUNCTIONS["inf"], "mse", False)
    U, T = data((12, 6, 3), 9, "float64", "mse")
    for step in range(4):
        for trainer in made:
            trainer.step(U, T.T, None, np.arange(9))
            if step == 1:
                trainer.parameters["B"], trainer.parameters["A"] = (trainer.parameters[k].copy() for k in "BA")
    for name, w in made[0].parameters.items():
        np.testing.assert_allclose(w, made[1].parameters[name], rtol=1e-9, atol=1e-11, err_msg=name)


def test_a_function_that_changes_one_of_ours_is_its_own():
    class Half(idl_ref.ImplicitFunctionInf):
        """Keeps the name of its base, which no registered function has to have."""

        def _map(self, F):
            return super()._map(F) / 2

        def _pull(self, F, G):
            return super()._pull(F, G) / 2

    made, (U, T) = trainers(Half, "mse", False), data((12, 6, 3), 9, "float64", "mse")
    for trainer in made:
        trainer.parameters["A"] *= 10
        trainer.step(U, T.T, None, np.arange(9))
    for name, w in made[0].parameters.items():
        np.testing.assert_allclose(w, made[1].parameters[name], rtol=1e-9, atol=1e-11, err_msg=name)


def test_a_sample_with_an_output_of_minus_inf_has_no_class():
    """The loss and the gradients are finite, because the softmax of −inf is 0."""
    made, (U, _) = trainers(FUNCTIONS["none"], "cross_entropy", False), data((12, 6, 3), 9, "float64", "mse")
    steps = []
    for trainer in made:
        for name, value in {"A": 0.01, "B": 1, "C": 0, "D": 0}.items():
            trainer.parameters[name][...] = value
        trainer.parameters["C"][1] = -1e308
        steps.append(trainer.step(U, np.zeros(9, int), None, np.arange(9)))
    assert all(np.isfinite(step.loss) for step in steps)
    assert steps[0].counts[:3] == steps[1].counts[:3]
    assert 0 < steps[1].counts.right < 9


@pytest.mark.parametrize("parameter", ["A", "B", "C", "D"])
def test_a_gradient_that_is_not_finite_changes_nothing(parameter):
    compiled, _ = trainers(FUNCTIONS["rows"], "mse", False, momentum=0.9)
    U, T = np.ones((4, 6)), np.ones((3, 4))
    backward = compiled.step(U, T).backward
    before = {name: w.copy() for name, w in compiled.parameters.items()}
    velocity = {name: compiled.optimizer.moments(name, w)[0].copy() for name, w in before.items()}
    rate = compiled.optimizer.rate()
    bad = backward.factors[0] if parameter == "A" else getattr(backward, parameter)
    bad[-1, -1] = np.inf
    with pytest.raises(FloatingPointError, match=f"the gradient of {parameter} is not finite"):
        compiled.descend(backward)
    equal(compiled.parameters, before)
    equal({name: compiled.optimizer.moments(name, w)[0] for name, w in before.items()}, velocity)
    assert compiled.optimizer.rate() == rate


def test_an_optimizer_of_ones_own_goes_through_gradients():
    class Signs(SGD):
        def step(self, parameters, gradients):
            for name, w in parameters.items():
                w -= 0.01 * np.sign(gradients[name])

    model, (U, T) = make(SHAPES[0]), data(SHAPES[0], 32)
    before = model.parameters["B"].copy()
    fit(model, U, T, optimizer=Signs(0.1), epochs=1, batch_size=32, progress=False)
    np.testing.assert_allclose(np.abs(model.parameters["B"] - before), 0.01, rtol=1e-4)


def pulled_to(shape):
    """Return a class of functions f that pull every gradient back to zeros of a shape that broadcasts."""

    def pull(self, F, G):
        zeros = np.zeros(shape)
        zeros.flags.writeable = False
        return zeros

    return type("Constant", (idl_ref.ImplicitFunction,), {"name": "constant", "_pull": pull})


@pytest.mark.parametrize("shape", [(), (1, 1), (1, 6), (6, 6)])
def test_a_gradient_of_a_users_f_may_broadcast_and_be_read_only(shape):
    U, T = np.random.default_rng(0).standard_normal((6, 4)), np.random.default_rng(1).standard_normal((6, 3))
    made = []
    for backend in ("numba", "numpy"):
        model = ImplicitModel(4, 3, 6, f=pulled_to(shape), dtype="float64", seed=1, backend=backend)
        fit(model, U, T, loss="mse", epochs=3, optimizer=SGD(0.01, weight_decay=0.1), progress=False)
        made.append(model.parameters)
    for name, w in made[0].items():
        np.testing.assert_allclose(w, made[1][name], rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_a_loss_that_overflows_in_the_dtype_of_the_model_changes_nothing(backend):
    U, T = data((6, 4, 3, None, False, False), 6, loss="mse")
    model = make((6, 4, 3, None, False, False), backend=backend)
    before = {name: w.copy() for name, w in model.parameters.items()}
    with pytest.raises(FloatingPointError, match="the loss is inf"):
        fit(model, U, 1e20 * T, loss="mse", epochs=1, optimizer=SGD(0.01), progress=False)
    equal(model.parameters, before)


def test_what_a_user_changes_in_an_optimizer_counts():
    class Slower(SGD):
        def advance(self):
            return 0.1 * super().advance()

    def own_step():
        optimizer = SGD(0.05)
        step = optimizer.step
        optimizer.step = lambda parameters, G: step(parameters, {name: 0.1 * g for name, g in G.items()})
        return optimizer

    U, T = data(SHAPES[0], 32)
    for optimizer in (lambda: Slower(0.05), own_step):
        made = [make(SHAPES[0], backend=backend) for backend in ("numba", "numpy")]
        for model in made:
            fit(model, U, T, optimizer=optimizer(), epochs=2, batch_size=16, progress=False)
        for name, w in made[0].parameters.items():
            np.testing.assert_allclose(w, made[1].parameters[name], rtol=1e-3, atol=1e-5, err_msg=name)


def test_a_weight_that_is_inf_stays_inf_without_decay():
    model = ImplicitModel(4, 3, 6, f=idl_ref.ImplicitFunctionTriu, seed=1, backend="numba")
    model.parameters["A"][5, 0] = np.inf  # below the diagonal, where the equation does not see it
    fit(model, np.ones((6, 4)), np.zeros(6, int), epochs=1, optimizer=SGD(0.01), progress=False)
    assert model.parameters["A"][5, 0] == np.inf


@pytest.mark.parametrize("activation", sorted(idl_ref.activations.TABLE))
def test_a_sample_that_is_not_finite_has_the_gradients_of_the_definition(activation):
    for low_rank in (None, 2):
        found = []
        for backend in ("numba", "numpy"):
            settings = {"activation": activation, "dtype": "float64", "on_failure": "ignore"}
            model = make((3, 2, 1, low_rank, False, False), backend=backend, **settings)
            _, pull = model.vjp(np.array([[1.0, 2.0], [np.inf, 1.0], [np.nan, 1.0]]))
            with np.errstate(invalid="ignore"):
                found.append(pull(np.ones((3, 1))))
        for name, G in found[0].items():
            np.testing.assert_allclose(G, found[1][name], rtol=1e-4, atol=1e-6, err_msg=name)


# --- the maps f ------------------------------------------------------------------------------------------------------


def matrices(dtype):
    """Return matrices with rows inside and outside the ball of radius 0.5, zeros, ties, and extreme entries."""
    rng = np.random.default_rng(0)
    F = rng.standard_normal((7, 5)) * np.array([1e-3, 0.05, 0.2, 1, 30, 1e6, 1e-20])[:, None]
    ties = np.tile([0.5, -0.5, 0.0, 0.5, 0.25], (4, 1))
    large = np.full((3, 2), np.finfo(dtype).max, dtype)
    return [M.astype(dtype) for M in (F, F.T, ties, 0 * F, np.eye(6) / 2, large, np.array([[np.nan, 1], [2, 3]]))]


@pytest.mark.parametrize("kappa", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", sorted(maps.KINDS))
def test_compiled_maps_are_those_of_the_definition(name, dtype, kappa):
    f, eps = FUNCTIONS[name](kappa), float(np.finfo(dtype).eps)
    for F in matrices(dtype):
        for M in (F, np.asfortranarray(F)):
            G = np.random.default_rng(1).standard_normal(M.shape).astype(dtype)
            with np.errstate(all="ignore"):
                (expected,), (pulled,) = f.effective((F,)), f.pullback((F,), (G,))
                found = parametrisation.effective(f, M, np.empty_like(M))
                back = parametrisation.pulled_back(f, M, G, np.empty_like(M))
            np.testing.assert_allclose(found, expected, rtol=20 * eps, atol=20 * eps * kappa)
            pulled[np.isnan(pulled) & np.isfinite(back)] = 0  # ⟨G, A⟩ overflows in the definition, which has float32.
            np.testing.assert_allclose(back, pulled, rtol=50 * eps, atol=50 * eps)
            if name == "rows" and np.isfinite(F).all():
                assert np.abs(found).sum(axis=1, dtype=np.float64).max() <= kappa
                np.testing.assert_array_equal(parametrisation.effective(f, found, np.empty_like(found)), found)
            if name == "inf" and np.isfinite(F).all():
                assert np.abs(found).sum(axis=1, dtype=np.float64).max() <= kappa


# --- bits -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_an_output_does_not_depend_on_the_batch(shape, dtype):
    for activation in ("relu", "tanh"):
        model = make(shape, dtype, activation=activation)
        predictor = model.freeze()
        U, _ = data(shape, 70, dtype)
        whole = model(U)
        for j in (0, 1, 33, 68, 69):
            np.testing.assert_array_equal(model(U[[j]])[0], whole[j])
            np.testing.assert_array_equal(predictor(U[[j]])[0], whole[j])
        for first, last in ((0, 2), (3, 10), (5, 70)):
            np.testing.assert_array_equal(model(U[first:last]), whole[first:last])
        np.testing.assert_array_equal(predictor(U), whole)


@pytest.mark.parametrize("rank", [1, 8, 9, 16, 20])
def test_a_frozen_model_of_any_rank_has_the_outputs_of_the_model(rank):
    """Large inputs let rounding end the iteration, so that it is judged row by row, which needs more memory."""
    model = make((20, 10, 3, rank, False, False))
    predictor, U = model.freeze(), 30 * data((20, 10, 3), 50)[0]
    for u, y in zip(U, model(U), strict=True):
        np.testing.assert_array_equal(predictor(u[None])[0], y)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_threads_do_not_change_a_bit(shape, dtype, monkeypatch):
    def everything():
        model = make(shape, dtype)
        U, T = data(shape, 150, dtype)
        found = {"Y": model(U), **gradients(model, U, T)}
        fit(model, U, T, epochs=1, batch_size=50, optimizer=SGD(0.01), progress=False)
        return found | {f"trained {name}": w.copy() for name, w in model.parameters.items()}

    monkeypatch.setattr(launches.numba, "get_num_threads", lambda: 1)
    expected = everything()
    monkeypatch.setattr(launches, "PARALLEL_FLOPS", 0)
    for threads in (2, 3):
        monkeypatch.setattr(launches.numba, "get_num_threads", lambda threads=threads: threads)
        equal(everything(), expected)
    monkeypatch.setattr(launches, "TILE", 8)
    equal(everything(), expected)


TRAINING = textwrap.dedent("""
    import hashlib, numpy as np, idl_ref
    rng = np.random.default_rng(0)
    U, T = rng.standard_normal((700, 300)).astype(np.float32), rng.integers(0, 10, 700)
    model = idl_ref.ImplicitModel(300, 10, 64, bias=True, seed=0, backend="numba")
    model.parameters["A"] *= 3  # ‖A‖∞ > κ, so that gradients go through the scaling of A
    idl_ref.fit(model, U, T, epochs=2, optimizer=idl_ref.SGD(0.01), progress=False)
    digest = hashlib.sha256(b"".join(w.tobytes() for w in model.parameters.values()))
    digest.update(model(U).tobytes())
    print(digest.hexdigest())
""")


@pytest.mark.slow
def test_training_has_the_same_bits_whatever_blas_and_threads_do():
    hashes = set()
    for blas, threads in (("1", "1"), ("2", "2"), ("2", "1")):
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OPENBLAS_NUM_THREADS": blas,
            "NUMBA_NUM_THREADS": threads,
        }
        environment["OPENBLAS_CORETYPE"] = "Haswell" if blas == "1" else "SkylakeX"
        done = subprocess.run(
            [sys.executable, "-c", TRAINING], env=environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stderr
        hashes.add(done.stdout.strip())
    assert len(hashes) == 1
