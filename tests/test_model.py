import copy
import dataclasses
import inspect
import pickle
import re
import tracemalloc
import warnings

import numpy as np
import pytest

import idl_ref
from idl_ref import (
    ConvergenceWarning,
    ImplicitFunction,
    ImplicitFunctionInf,
    ImplicitFunctionRows,
    ImplicitFunctionTriu,
    ImplicitModel,
    NotConvergedError,
    Status,
)
from idl_ref.settings import Configured, Setting, Settings
from idl_ref.weights import as_factors

FUNCTIONS = (ImplicitFunctionInf, ImplicitFunctionRows, ImplicitFunctionTriu, ImplicitFunction)

SEED_API = {
    "input_dim": inspect.Parameter.empty,
    "output_dim": inspect.Parameter.empty,
    "hidden_dim": inspect.Parameter.empty,
    "f": ImplicitFunctionInf,
    "no_D": False,
    "bias": False,
    "mitr": 300,
    "grad_mitr": 300,
    "tol": 3e-6,
    "grad_tol": 3e-6,
    "kappa": 0.99,
    "is_low_rank": False,
    "rank": None,
}
KEYWORDS = {
    "activation": "relu",
    "dtype": "float32",
    "seed": None,
    "backend": "auto",
    "method": "auto",
    "on_failure": "warn",
    "straight_through": False,
}


def draw(m=6, p=4, seed=1, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal((m, p)).astype(dtype)


def hard(m=5, **settings):
    """Return a nonnegative model whose row sums are all 0.99, which takes thousands of Picard steps, and inputs U."""
    model = ImplicitModel(3, 2, 6, seed=0, **settings)
    A = np.random.default_rng(0).random((6, 6)) + 0.1
    model.parameters["A"][...] = 0.99 * A / A.sum(axis=1, keepdims=True)
    model.parameters["B"][...] = np.abs(model.parameters["B"])
    return model, np.abs(draw(m, 3)) + 1


# --- the constructor --------------------------------------------------------------------------------------------------


def test_signature_is_the_seed_api_and_our_keywords():
    signature = inspect.signature(ImplicitModel)
    positional = {
        name: p.default for name, p in signature.parameters.items() if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    }
    keywords = {name: p.default for name, p in signature.parameters.items() if p.kind is p.KEYWORD_ONLY}
    assert list(positional.items()) == list(SEED_API.items())
    assert list(keywords.items()) == list(KEYWORDS.items())


def test_settings_are_what_the_constructor_was_given():
    model = ImplicitModel(3, 2, 5, ImplicitFunctionRows, True, True, 7, 8, 1e-3, 1e-4, 0.5, True, 2, activation="tanh")
    assert dataclasses.asdict(model.settings) == {
        **dict(zip(SEED_API, (3, 2, 5, ImplicitFunctionRows, True, True, 7, 8, 1e-3, 1e-4, 0.5, True, 2), strict=True)),
        **{name: value for name, value in KEYWORDS.items() if name != "seed"},
        "activation": "tanh",
        "dtype": np.dtype("float32"),
        "pattern": None,
    }
    assert model.kappa == 0.5
    assert model.dtype == np.float32


@pytest.mark.parametrize("name", ["input_dim", "output_dim", "hidden_dim", "mitr", "grad_mitr", "rank", "seed"])
@pytest.mark.parametrize("value", [True, 2.0, "2", np.float32(2), [2]])
def test_whole_numbers_are_whole_numbers(name, value):
    arguments = {"input_dim": 3, "output_dim": 2, "hidden_dim": 5, "is_low_rank": name == "rank", name: value}
    with pytest.raises(TypeError, match=f"{name} must be a whole number.*got "):
        ImplicitModel(**arguments)


@pytest.mark.parametrize("name", ["input_dim", "output_dim", "hidden_dim", "mitr", "grad_mitr"])
@pytest.mark.parametrize("value", [0, -1])
def test_sizes_and_limits_are_positive(name, value):
    arguments = {"input_dim": 3, "output_dim": 2, "hidden_dim": 5, name: value}
    with pytest.raises(ValueError, match=f"{name} must be a whole number, at least 1.*got {value}"):
        ImplicitModel(**arguments)


@pytest.mark.parametrize("name", ["tol", "grad_tol", "kappa"])
@pytest.mark.parametrize("value", [-1e-9, np.nan, np.inf, -np.inf])
def test_numbers_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must be a number ≥ 0"):
        ImplicitModel(3, 2, 5, **{name: value})


@pytest.mark.parametrize("name", ["tol", "grad_tol", "kappa"])
@pytest.mark.parametrize("value", [True, "0.5", None, 0.5j, [0.5]])
def test_numbers_are_numbers(name, value):
    with pytest.raises(TypeError, match=f"{name} must be a number"):
        ImplicitModel(3, 2, 5, **{name: value})


@pytest.mark.parametrize("name", ["no_D", "bias", "is_low_rank", "straight_through"])
@pytest.mark.parametrize("value", [0, 1, "False", None])
def test_flags_are_flags(name, value):
    with pytest.raises(TypeError, match=f"{name} must be True or False"):
        ImplicitModel(3, 2, 5, **{name: value})


@pytest.mark.parametrize(
    ("activation", "low_rank", "limit"),
    [("relu", False, 1), ("tanh", True, 1), ("sigmoid", False, 4), ("sigmoid", True, 2)],
)
@pytest.mark.parametrize("f", [ImplicitFunctionInf, ImplicitFunction])
def test_kappa_times_lipschitz_is_below_one(activation, low_rank, limit, f):
    rank = 2 if low_rank else None
    arguments = {"activation": activation, "is_low_rank": low_rank, "rank": rank, "f": f}
    for kappa in (limit, 1.5 * limit):
        with pytest.raises(ValueError, match=f"kappa must be a number ≥ 0 and < {limit}; got"):
            ImplicitModel(3, 2, 5, kappa=kappa, **arguments)
    assert ImplicitModel(3, 2, 5, kappa=0.99 * limit, **arguments).kappa == 0.99 * limit
    assert ImplicitModel(3, 2, 5, kappa=0, **arguments).kappa == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"is_low_rank": True}, "rank is needed with is_low_rank=True"),
        ({"rank": 2}, "rank is used with is_low_rank=True only"),
        ({"is_low_rank": True, "rank": 0}, "rank must be .* at least 1 and at most 5; got 0"),
        ({"is_low_rank": True, "rank": 6}, "rank must be .* at least 1 and at most 5; got 6"),
        ({"is_low_rank": True, "rank": 2, "f": ImplicitFunctionTriu}, "ImplicitFunctionTriu needs a dense A"),
        ({"is_low_rank": True, "rank": 2, "straight_through": True}, "straight_through is for a dense A"),
        ({"f": ImplicitFunction, "straight_through": True}, "straight_through needs an f that maps A"),
        ({"f": ImplicitFunctionTriu, "straight_through": True}, "straight_through needs an f that maps A"),
        ({"activation": "gelu"}, "activation must be non-expansive"),
        ({"activation": "nonsense"}, "activation must be one of 'identity', 'relu'"),
        ({"activation": None}, "activation must be one of"),
        ({"backend": "jax"}, "backend must be one of 'auto', 'numpy', 'numba', 'cuda'; got 'jax'"),
        ({"method": "broyden"}, "method must be one of"),
        ({"on_failure": "shout"}, "on_failure must be one of 'warn', 'raise', 'ignore'; got 'shout'"),
        ({"seed": -1}, "seed must be a whole number, at least 0"),
    ],
)
def test_settings_that_do_not_fit_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        ImplicitModel(3, 2, 5, **arguments)


@pytest.mark.parametrize("rank", [1, 5])
def test_rank_may_be_one_or_all(rank):
    model = ImplicitModel(3, 2, 5, is_low_rank=True, rank=rank)
    assert model.parameters["L"].shape == model.parameters["R"].shape == (5, rank)


@pytest.mark.parametrize("f", [ImplicitFunctionInf(), int, "inf", None, ImplicitFunctionInf.effective])
def test_f_is_one_of_our_classes(f):
    with pytest.raises(TypeError, match=r"f must be a subclass of idl_ref.ImplicitFunction; got .*: pass the class"):
        ImplicitModel(3, 2, 5, f)


@pytest.mark.parametrize("dtype", ["float16", "complex128", "int32", object, "nonsense", ">f4", np.longdouble, None, 7])
def test_dtype_is_float32_or_float64(dtype):
    with pytest.raises(ValueError, match='dtype must be "float32" or "float64"; got '):
        ImplicitModel(3, 2, 5, dtype=dtype)


@pytest.mark.parametrize("dtype", ["float64", np.float64, np.dtype("float64"), float, "f8"])
def test_dtype_is_read_as_numpy_reads_it(dtype):
    model = ImplicitModel(3, 2, 5, dtype=dtype)
    assert model.dtype == np.float64
    assert all(value.dtype == np.float64 for value in model.parameters.values())


def test_numpy_numbers_are_numbers():
    model = ImplicitModel(
        np.int64(3), np.int8(2), np.uint16(5), kappa=np.float32(0.5), mitr=np.int32(9), seed=np.int64(1)
    )
    assert type(model.input_dim) is type(model.mitr) is int
    assert type(model.kappa) is float


# --- inputs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "way_out"),
    [
        ((10, 5), "samples are rows."),
        ((4,), "one sample is U.reshape(1, -1)."),
        ((5,), "samples are rows."),
        ((10, 2, 2), "flatten each sample, U.reshape(len(U), -1)."),
        ((10, 1, 2, 2), "flatten each sample, U.reshape(len(U), -1)."),
        ((10, 2, 3), "samples are rows."),
        ((4, 10), "samples are rows, so U.T may be what was meant."),
        ((), "samples are rows."),
        ((0, 5), "samples are rows."),
    ],
)
def test_shape_of_U(shape, way_out):
    model = ImplicitModel(4, 2, 5)
    message = f"U must have shape (m, p) with p = 4; got {shape}: {way_out}"
    for call in (model, model.forward, model.equilibrium, model.vjp):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            call(np.zeros(shape))


def test_shape_of_U_does_not_count_the_bias():
    with pytest.raises(ValueError, match=r"U must have shape \(m, p\) with p = 4; got \(3, 5\)"):
        ImplicitModel(4, 2, 5, bias=True)(np.zeros((3, 5)))


@pytest.mark.parametrize("shape", [(6,), (6, 4), (5, 5), (5, 6), (1, 5), (6, 5, 1)])
def test_shape_of_X0(shape):
    with pytest.raises(ValueError, match=r"X0 must have shape .*; got "):
        ImplicitModel(4, 2, 5)(draw(6, 4), np.zeros(shape))


def test_X0_is_where_the_solver_starts():
    model, U = hard(dtype="float64", method="picard", mitr=10_000, tol=1e-9)
    cold = model.equilibrium(U)
    warm = model.equilibrium(U, cold.X.T)
    assert warm.iterations.max() == 1 < cold.iterations.min()
    np.testing.assert_allclose(model(U, cold.X.T), model(U), rtol=1e-6)
    np.testing.assert_allclose(model.vjp(U, cold.X.T)[0], model(U), rtol=1e-6)


@pytest.mark.parametrize(
    "value", [[["a", "b"]], [[1j, 0]], [[None, 1]], [[1, 2], [3]], np.zeros((1, 2), "M8[s]"), "ab"]
)
def test_what_is_not_real_is_refused(value):
    model = ImplicitModel(2, 2, 3)
    for call in (model, lambda U: model(np.zeros((1, 2)), U), model.vjp(np.zeros((1, 2)))[1]):
        with pytest.raises((TypeError, ValueError), match="must"):
            call(value)


@pytest.mark.parametrize(
    "change",
    [
        lambda U: U.tolist(),
        lambda U: U.astype(np.int8),
        lambda U: U.astype(np.uint64),
        lambda U: U.astype(np.float16),
        lambda U: U.astype(np.float64),
        lambda U: U > 0,
        np.asfortranarray,
        lambda U: np.repeat(np.repeat(U, 2, axis=0), 3, axis=1)[::2, ::3],
        lambda U: U[::-1].copy()[::-1],
        lambda U: U.astype(">f4"),
    ],
)
def test_inputs_of_every_kind_are_cast_and_left_alone(change):
    whole = np.random.default_rng(0).integers(0, 2, (6, 4)).astype(np.float32)
    U = change(whole)
    if isinstance(U, np.ndarray):
        U.flags.writeable = False
    kept = copy.deepcopy(U)
    model = ImplicitModel(4, 2, 5, bias=True, seed=0)
    np.testing.assert_array_equal(model(U), model(whole))
    loss, gradients = model.loss_and_gradients(U, [0, 1, 0, 1, 1, 0])
    expected = model.loss_and_gradients(whole, np.array([0, 1, 0, 1, 1, 0]))
    assert loss == pytest.approx(expected[0], rel=1e-6)
    for name, G in gradients.items():
        assert G.dtype == np.float32
        np.testing.assert_allclose(G, expected[1][name], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(U, kept)


def test_nothing_that_is_passed_is_modified():
    U, X0, G_Y, T = draw(6, 4), draw(6, 5), draw(6, 2), draw(6, 2)
    kept = [a.copy() for a in (U, X0, G_Y, T)]
    for array in (U, X0, G_Y, T):
        array.flags.writeable = False
    model = ImplicitModel(4, 2, 5, seed=0)
    model.vjp(U, X0)[1](G_Y)
    model.loss_and_gradients(U, T, "mse")
    for array, copied in zip((U, X0, G_Y, T), kept, strict=True):
        np.testing.assert_array_equal(array, copied)


@pytest.mark.parametrize(
    ("loss", "targets", "words"),
    [
        ("cross_entropy", [0, 1, 2], r"labels in 0 … 1.*got 0 … 2"),
        ("cross_entropy", [0, 1, -1], r"labels in 0 … 1.*got -1"),
        ("cross_entropy", [0.0, 1.0, 1.0], "whole-number class labels; got dtype float64"),
        ("cross_entropy", [0, 1], r"targets must have shape \(3,\), one label per sample; got \(2,\)"),
        ("cross_entropy", [[0, 1], [1, 0], [1, 0]], r"targets must have shape \(3,\)"),
        ("mse", np.zeros(3), r"targets must have shape \(m, q\) with q = 2"),
        ("mse", np.zeros((2, 2)), r"targets must have shape \(3, 2\)"),
        ("hinge", [0, 1, 1], "loss must be one of 'mse', 'cross_entropy'; got 'hinge'"),
    ],
)
def test_targets_that_do_not_fit_are_refused(loss, targets, words):
    with pytest.raises((ValueError, TypeError), match=words):
        ImplicitModel(4, 2, 5).loss_and_gradients(draw(3, 4), targets, loss)


@pytest.mark.parametrize("shape", [(6,), (2, 6), (5, 2), (6, 3)])
def test_shape_of_G_Y(shape):
    _, pullback = ImplicitModel(4, 2, 5).vjp(draw(6, 4))
    with pytest.raises(ValueError, match="G_Y must have shape"):
        pullback(np.zeros(shape))


# --- outputs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("f", FUNCTIONS)
@pytest.mark.parametrize("low_rank", [False, True])
@pytest.mark.parametrize(("bias", "no_D"), [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("m", [0, 1, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_shapes_and_dtypes_batch_first(f, low_rank, bias, no_D, m, dtype):
    if low_rank and not f.low_rank:
        return
    rank = 2 if low_rank else None
    model = ImplicitModel(4, 3, 5, f, no_D, bias, is_low_rank=low_rank, rank=rank, dtype=dtype, seed=0)
    U = draw(m, 4)
    p = 5 if bias else 4
    shapes = {"L": (5, 2), "R": (5, 2)} if low_rank else {"A": (5, 5)}
    shapes |= {"B": (5, p), "C": (3, 5)} | ({} if no_D else {"D": (3, p)})
    assert {name: value.shape for name, value in model.parameters.items()} == shapes
    assert {name: value.shape for name, value in model.effective().items()} == shapes
    assert model.input_dim == 4
    Y, pullback = model.vjp(U)
    np.testing.assert_array_equal(Y, model(U))
    solution = model.equilibrium(U)
    assert Y.shape == (m, 3)
    assert Y.dtype == dtype
    assert solution.X.shape == (5, m)
    assert solution.X.dtype == dtype
    assert solution.status.shape == solution.iterations.shape == solution.error_bound.shape == (m,)
    assert solution.converged
    for loss, targets in (("cross_entropy", np.zeros(m, int)), ("mse", np.zeros((m, 3)))):
        value, gradients = model.loss_and_gradients(U, targets, loss)
        assert type(value) is float
        assert np.isfinite(value)
        assert {name: G.shape for name, G in gradients.items()} == {**shapes, "U": (m, 4)}
        assert {G.dtype for G in gradients.values()} == {np.dtype(dtype)}
        assert all(np.isfinite(G).all() for G in gradients.values())
    assert m > 0 or not any(G.any() for G in gradients.values())
    assert {name: G.shape for name, G in pullback(np.ones((m, 3))).items()} == {**shapes, "U": (m, 4)}


def test_m_0_is_a_loss_of_zero():
    model = ImplicitModel(4, 3, 5)
    assert model.loss_and_gradients(np.zeros((0, 4)), [])[0] == 0
    assert model.loss_and_gradients(np.zeros((0, 4)), np.zeros((0, 3)), "mse")[0] == 0
    assert model(np.zeros((0, 4)), np.zeros((0, 5))).shape == (0, 3)


def test_bias_is_a_constant_feature():
    U = draw(7, 4)
    plain = ImplicitModel(5, 3, 6, seed=0)
    biased = ImplicitModel(4, 3, 6, bias=True, seed=0)
    for name, value in plain.parameters.items():
        biased.parameters[name][...] = value
    ones = np.hstack([U, np.ones((7, 1), U.dtype)])
    np.testing.assert_array_equal(biased(U), plain(ones))
    _, with_bias = biased.loss_and_gradients(U, np.arange(7) % 3)
    _, with_ones = plain.loss_and_gradients(ones, np.arange(7) % 3)
    for name in "ABCD":
        np.testing.assert_array_equal(with_bias[name], with_ones[name])
    np.testing.assert_array_equal(with_bias["U"], with_ones["U"][:, :4])


def test_no_D_is_D_of_zeros():
    without, zeros = ImplicitModel(4, 3, 6, no_D=True, seed=0), ImplicitModel(4, 3, 6, seed=0)
    assert "D" not in without.parameters
    zeros.parameters["D"][...] = 0
    np.testing.assert_array_equal(without(draw()), zeros(draw()))


def test_outputs_solve_the_two_equations():
    model = ImplicitModel(4, 3, 6, bias=True, dtype="float64", tol=0, seed=0)
    U = draw(7, 4, dtype=np.float64)
    W = model.effective()
    V = np.hstack([U, np.ones((7, 1))])
    X = model.equilibrium(U).X
    np.testing.assert_allclose(X, np.maximum(W["A"] @ X + W["B"] @ V.T, 0), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(model(U), (W["C"] @ X + W["D"] @ V.T).T, rtol=1e-12, atol=1e-13)


# --- each model has its own settings and parameters -------------------------------------------------------------------


def test_two_models_share_nothing():
    one = ImplicitModel(3, 2, 4, kappa=0.5, tol=1e-2, mitr=7, seed=0)
    before = one(draw(5, 3))
    two = ImplicitModel(3, 2, 4, kappa=0.99, tol=1e-6, mitr=300, seed=0)
    for value in two.parameters.values():
        value[...] = 0
    assert (one.kappa, one.tol, one.mitr) == (0.5, 1e-2, 7)
    np.testing.assert_array_equal(one(draw(5, 3)), before)
    assert not any(np.shares_memory(a, b) for a in one.parameters.values() for b in two.parameters.values())


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
@pytest.mark.parametrize("f", FUNCTIONS)
def test_models_pickle_and_deepcopy(clone, f):
    model = ImplicitModel(3, 2, 4, f, seed=0, tol=1e-4, activation="tanh")
    model.preprocessing = idl_ref.preprocessing.Standardise(1.0, 2.0)
    other = clone(model)
    assert other.settings == model.settings
    assert other.preprocessing == model.preprocessing
    np.testing.assert_array_equal(other(draw(5, 3)), model(draw(5, 3)))
    other.parameters["B"] += 1
    assert not np.array_equal(other.parameters["B"], model.parameters["B"])


def test_errors_and_solutions_pickle():
    model, U = hard(mitr=3, method="picard", on_failure="raise")
    with pytest.raises(NotConvergedError) as caught:
        model(U)
    error = pickle.loads(pickle.dumps(caught.value))
    assert str(error) == str(caught.value)
    np.testing.assert_array_equal(error.solution.X, caught.value.solution.X)


def test_parameters_are_live():
    model = ImplicitModel(3, 2, 4, seed=0)
    before = model(draw(5, 3))
    model.parameters["C"] *= 2
    model.parameters["D"][...] *= 2
    np.testing.assert_allclose(model(draw(5, 3)), 2 * before, rtol=1e-6)
    model.parameters["C"] = np.zeros((2, 4), np.float32)
    model.parameters["D"] = np.zeros((2, 3), np.float32)
    assert not model(draw(5, 3)).any()


@pytest.mark.parametrize(
    "value", [np.zeros((4, 2), np.float32), np.zeros((4, 3)), np.zeros(3, np.float32), [[0.0] * 3] * 4, 0.0, None]
)
def test_a_parameter_of_another_shape_or_dtype_is_refused(value):
    model = ImplicitModel(3, 2, 4)
    model.parameters["B"] = value
    for call in (lambda: model(draw(5, 3)), lambda: model.loss_and_gradients(draw(5, 3), [0] * 5), model.effective):
        with pytest.raises((ValueError, TypeError), match=r"parameter B must be \(4, 3\) float32; got "):
            call()


def test_a_lost_parameter_is_missed():
    model = ImplicitModel(3, 2, 4)
    del model.parameters["C"]
    with pytest.raises(ValueError, match=r"parameter C must be \(2, 4\) float32; got none"):
        model(draw(5, 3))


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(ImplicitModel(1, 1, 1).settings)])
def test_settings_are_read_but_not_set(name):
    model = ImplicitModel(3, 2, 4)
    assert getattr(model, name) == getattr(model.settings, name)
    with pytest.raises(AttributeError, match=rf"{name} is a frozen setting: use .*replace\(model.settings, {name}="):
        setattr(model, name, getattr(model, name))
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(model.settings, name, 1)


def test_every_setting_is_an_attribute_with_the_type_of_its_field():
    fields = {field.name: field.type for field in dataclasses.fields(Settings)}
    shown = {name: value for name, value in vars(Configured).items() if isinstance(value, Setting)}
    assert list(shown) == list(fields)
    assert fields.keys() <= set(dir(ImplicitModel(3, 2, 4)))
    source = inspect.getsource(Configured)
    for name, type_ in fields.items():
        # Two fields take more than the attributes give: a name for the dtype, and a list with an activation per row.
        type_ = {"dtype": "np.dtype", "activation": "ActivationName | Activation"}.get(name, type_)
        assert f"    {name}: Setting[{type_}] = Setting()\n" in source


def test_settings_are_replaced_whole():
    model = ImplicitModel(3, 2, 4, seed=0)
    model.settings = dataclasses.replace(model.settings, tol=0.25, kappa=0.1)
    assert (model.tol, model.kappa) == (0.25, 0.1)
    assert np.abs(model.effective()["A"]).sum(axis=1).max() <= 0.1
    with pytest.raises(ValueError, match="kappa must be"):
        dataclasses.replace(model.settings, kappa=1.0)
    model.settings = dataclasses.replace(model.settings, hidden_dim=5)
    with pytest.raises(ValueError, match=r"parameter A must be \(5, 5\)"):
        model(draw(5, 3))


def test_unknown_attributes_are_unknown():
    model = ImplicitModel(3, 2, 4)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = model.nonsense
    empty = ImplicitModel.__new__(ImplicitModel)
    assert not hasattr(empty, "kappa")
    with pytest.raises(AttributeError, match="no attribute 'settings'"):
        _ = empty.settings


def test_seed():
    one, same, other = (ImplicitModel(3, 2, 4, seed=s) for s in (7, 7, 8))
    for name, value in one.parameters.items():
        np.testing.assert_array_equal(value, same.parameters[name])
        assert not np.array_equal(value, other.parameters[name])
    free, freer = ImplicitModel(3, 2, 4), ImplicitModel(3, 2, 4)
    assert not np.array_equal(free.parameters["A"], freer.parameters["A"])


def test_seed_leaves_the_global_generator_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    ImplicitModel(3, 2, 4)
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


# --- samples that do not converge -------------------------------------------------------------------------------------


def pattern(equation, m, limit):
    return (
        rf"^{equation}: {m} of {m} samples not converged after {limit} iterations \(worst: sample \d+, step "
        r"\d\.\de[-+]\d\d > tol 3e-06\)\. "
        rf"Raise .*{'mitr' if equation == 'forward' else 'grad_mitr'}.*, try method=\"auto\", or check "
        r"‖A‖∞ = 0\.99\d\d\.$"
    )


def test_warn_once_per_call():
    model, U = hard(mitr=4, method="picard")
    for call in (model, model.equilibrium, model.vjp):
        with pytest.warns(ConvergenceWarning, match=pattern("forward", 5, 4)) as caught:
            call(U)
        assert len(caught) == 1
    with pytest.warns(ConvergenceWarning) as caught:
        Y = model(U)
    assert np.isfinite(Y).all()


def test_warn_about_the_adjoint():
    model, U = hard(grad_mitr=4, method="picard", mitr=10_000)
    _, pullback = model.vjp(U)
    with pytest.warns(ConvergenceWarning, match=pattern("adjoint", 5, 4)) as caught:
        gradients = pullback(np.ones((5, 2)))
    assert len(caught) == 1
    assert all(np.isfinite(G).all() for G in gradients.values())


def test_raise_carries_the_solution():
    model, U = hard(mitr=4, method="picard", on_failure="raise")
    for call in (model, model.equilibrium, model.vjp, lambda U: model.loss_and_gradients(U, [0] * 5)):
        with pytest.raises(NotConvergedError, match=pattern("forward", 5, 4)) as caught:
            call(U)
        assert (caught.value.solution.status == Status.MAX_ITER).all()
        assert caught.value.solution.X.shape == (6, 5)
    model, U = hard(grad_mitr=4, method="picard", mitr=10_000, on_failure="raise")
    with pytest.raises(NotConvergedError, match=pattern("adjoint", 5, 4)):
        model.loss_and_gradients(U, [0] * 5)


def test_ignore_is_silent_but_not_in_the_status():
    model, U = hard(mitr=4, grad_mitr=4, method="picard", on_failure="ignore")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.loss_and_gradients(U, [0] * 5)
        assert (model.equilibrium(U).status == Status.MAX_ITER).all()


def test_hard_matrices_converge_by_default():
    model, U = hard(on_failure="raise")
    solution = model.equilibrium(U)
    assert solution.converged
    assert solution.iterations.max() < 100


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39])
@pytest.mark.parametrize("bias", [False, True])
def test_a_broken_sample_stains_only_itself(value, bias):
    model = ImplicitModel(4, 2, 5, seed=0, on_failure="ignore", bias=bias)
    U = draw(6, 4).astype(np.float64)
    clean = model(U)
    U[2, 1] = value
    Y, solution = model(U), model.equilibrium(U)
    assert not np.isfinite(Y[2]).any()
    others = [0, 1, 3, 4, 5]
    np.testing.assert_allclose(Y[others], clean[others], rtol=1e-5, atol=1e-6)
    assert solution.status[2] == Status.NONFINITE
    assert solution.iterations[2] <= 1
    assert (solution.status[others] <= Status.PRECISION_LIMIT).all()
    _, pullback = model.vjp(U)
    G_U = pullback(np.ones((6, 2)))["U"]
    assert np.isfinite(G_U[others]).all()


def test_a_broken_sample_is_reported():
    model = ImplicitModel(4, 2, 5, seed=0)
    U = draw(6, 4)
    U[2, 1] = np.nan
    with pytest.warns(ConvergenceWarning, match=r"^forward: 1 of 6 samples not finite \(first: sample 2\)"):
        model(U)


def test_nan_in_a_weight_is_reported():
    model = ImplicitModel(4, 2, 5, seed=0, on_failure="raise")
    model.parameters["B"][0, 0] = np.nan
    with pytest.raises(NotConvergedError, match="6 of 6 samples not finite"):
        model(draw())
    model = ImplicitModel(4, 2, 5, seed=0, on_failure="raise")
    model.parameters["A"][0, 0] = np.nan
    with pytest.raises(NotConvergedError, match="6 of 6 samples not finite"):
        model(draw())


def test_an_unavailable_backend_names_the_others():
    with pytest.raises(ValueError, match=r"backend 'cuda' is not available: .*\. Available: .*numpy"):
        ImplicitModel(4, 2, 5, backend="cuda")(draw())


# --- weights ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "rank"), [(1, None), (3, None), (20, None), (300, None), (100, 1), (100, 4), (100, 30)])
def test_initial_weights_lie_inside_the_ball(n, rank):
    for seed in range(10):
        model = ImplicitModel(3, 2, n, is_low_rank=rank is not None, rank=rank, seed=seed)
        for F in as_factors(model.parameters):
            assert np.abs(F).sum(axis=1, dtype=np.float64).max() <= model.kappa


@pytest.mark.parametrize("p", [1, 10, 1000])
@pytest.mark.parametrize("rank", [None, 3])
@pytest.mark.parametrize("bias", [False, True])
def test_initial_states_and_outputs_are_of_order_one(p, rank, bias):
    model = ImplicitModel(p, 30, 60, bias=bias, is_low_rank=rank is not None, rank=rank, seed=0)
    U = draw(200, p)
    X, Y = model.equilibrium(U).X, model(U)
    assert 0.3 < np.sqrt((X**2).mean()) < 3
    assert 0.3 < np.sqrt((Y**2).mean()) < 3


@pytest.mark.parametrize("f", FUNCTIONS)
@pytest.mark.parametrize("rank", [None, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [0.0, 0.1, 8.0, 1e6])
def test_effective_obeys_f(f, rank, dtype, size):
    if rank and not f.low_rank:
        return
    model = ImplicitModel(4, 3, 40, f, kappa=0.9, is_low_rank=rank is not None, rank=rank, dtype=dtype, seed=0)
    for name in ("A",) if rank is None else ("L", "R"):
        model.parameters[name] *= model.dtype.type(size)
    kept = copy.deepcopy(model.parameters)
    effective = model.effective()
    factors = as_factors(effective)
    if f in (ImplicitFunctionInf, ImplicitFunctionRows):
        assert all(np.abs(F).sum(axis=1, dtype=np.float64).max() <= 0.9 for F in factors)
    if f is ImplicitFunctionTriu:
        np.testing.assert_array_equal(effective["A"], np.triu(kept["A"], 1))
    if f is ImplicitFunction or size <= 0.1:
        for name in kept.keys() - ({"A"} if f is ImplicitFunctionTriu else set()):
            np.testing.assert_array_equal(effective[name], kept[name])
    for name, value in kept.items():
        np.testing.assert_array_equal(model.parameters[name], value)
        assert effective[name].dtype == dtype
    for name in "BCD":
        np.testing.assert_array_equal(effective[name], kept[name])


@pytest.mark.parametrize("f", [ImplicitFunctionInf, ImplicitFunctionRows])
@pytest.mark.parametrize("size", [1, 20])
def test_low_rank_is_the_dense_model_of_the_product(f, size):
    low = ImplicitModel(4, 3, 9, f, is_low_rank=True, rank=2, dtype="float64", tol=0, seed=0)
    low.parameters["L"] *= size
    W = low.effective()
    dense = ImplicitModel(4, 3, 9, ImplicitFunction, dtype="float64", tol=0, seed=0)
    dense.parameters |= {"A": W["L"] @ W["R"].T, "B": W["B"], "C": W["C"], "D": W["D"]}
    np.testing.assert_allclose(low(draw()), dense(draw()), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("f", [ImplicitFunctionInf, ImplicitFunctionRows, ImplicitFunction])
def test_low_rank_never_forms_the_product(f):
    n = 20_000  # An n × n array of float32 would have 1,600 MB.
    model = ImplicitModel(10, 3, n, f, is_low_rank=True, rank=4, seed=0)
    U = draw(4, 10)
    tracemalloc.start()
    try:
        model(U)
        model.loss_and_gradients(U, [0, 1, 2, 0])
        model.effective()
        model.project()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100e6


def test_project_writes_back_rows_and_nothing_else():
    for f in FUNCTIONS:
        model = ImplicitModel(4, 3, 8, f, seed=0)
        A = model.parameters["A"]
        A *= 8
        kept = A.copy()
        model.project()
        assert model.parameters["A"] is A
        if f is ImplicitFunctionRows:
            assert np.abs(A).sum(axis=1, dtype=np.float64).max() <= 0.99
            np.testing.assert_array_equal(A, model.effective()["A"])
        else:
            np.testing.assert_array_equal(A, kept)


def test_from_parameters_takes_these_very_arrays():
    model = ImplicitModel(4, 3, 8, seed=0)
    other = ImplicitModel.from_parameters(model.settings, model.parameters)
    assert other.parameters["A"] is model.parameters["A"]
    assert other.preprocessing is None


def test_repr_is_one_line_that_names_the_sizes():
    assert repr(ImplicitModel(4, 3, 8)) == (
        'ImplicitModel(4, 3, 8, f=ImplicitFunctionInf, kappa=0.99, activation="relu", dtype="float32")'
    )
    assert "rank=2" in repr(ImplicitModel(4, 3, 8, is_low_rank=True, rank=2))


def test_a_pullback_remembers_the_parameters_it_was_made_with():
    model, U = ImplicitModel(3, 2, 4, dtype="float64", seed=0), np.ones((5, 3))
    _, pullback = model.vjp(U)
    before = pullback(np.ones((5, 2)))
    for W in model.parameters.values():
        W *= -3
    for name, G in pullback(np.ones((5, 2))).items():
        np.testing.assert_array_equal(G, before[name])


def test_warnings_point_at_the_caller():
    model = ImplicitModel(3, 2, 4, mitr=1, tol=0, seed=0)
    for call in (model, model.forward, model.equilibrium, model.vjp):
        with pytest.warns(ConvergenceWarning) as caught:
            call(np.ones((2, 3)))
        assert caught[0].filename == __file__


# --- the effective weights are cached while nothing changes -----------------------------------------------------------


@pytest.mark.parametrize("low_rank", [False, True])
def test_a_layer_is_prepared_once_until_something_changes(low_rank):
    model = ImplicitModel(3, 2, 6, seed=0, **({"is_low_rank": True, "rank": 2} if low_rank else {}))
    U = np.random.default_rng(0).standard_normal((4, 3))
    first, layer = model(U), model.layer()
    assert model.layer() is layer
    for name in model.parameters:
        changed = copy.deepcopy(model)
        changed(U)
        changed.parameters[name][0, 0] += 0.25  # The array is changed in place.
        fresh = ImplicitModel.from_parameters(changed.settings, copy.deepcopy(changed.parameters))
        np.testing.assert_array_equal(changed(U), fresh(U))
        assert not np.array_equal(changed(U), first)
        changed.parameters[name] = model.parameters[name].copy()  # The array is replaced.
        np.testing.assert_array_equal(changed(U), first)
    model.settings = dataclasses.replace(model.settings, kappa=0.3)
    assert model.layer() is not layer
    A = model.effective_weights().A
    assert np.abs(A if not low_rank else A[0] @ A[1].T).sum(axis=1).max() <= 0.3


def test_a_query_of_the_weights_prepares_nothing():
    model = ImplicitModel(3, 2, 6, seed=0)
    before = len(pickle.dumps(model))
    state = {name: id(value) for name, value in vars(model._kept).items()}
    model.effective()
    model.effective_weights()
    assert {name: id(value) for name, value in vars(model._kept).items()} == state
    assert len(pickle.dumps(model)) == before


def test_a_kept_layer_is_left_out_of_pickles():
    model = ImplicitModel(3, 2, 6, seed=0)
    before = len(pickle.dumps(model))
    model(np.ones((4, 3)))
    assert len(pickle.dumps(model)) == before
