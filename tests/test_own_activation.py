"""An activation of a user's: what its constructor refuses, what it computes, and who refuses it by name."""

import copy
import dataclasses
import pickle

import numpy as np
import pytest

from idl_ref import (
    Activation,
    ImplicitModel,
    SolveOptions,
    activation_checks,
    activations,
    certificate,
    check_gradients,
    export,
    fit,
    load,
    solve_adjoint,
    solve_equilibrium,
)
from idl_ref.settings import Settings

TABLE = activations.TABLE
U = np.random.default_rng(0).standard_normal((6, 4))
LABELS = np.arange(6) % 3


def arctan_slope(P):
    return 1 / (1 + P * P)


def swish(P):
    return P * TABLE["sigmoid"].phi(P) / P.dtype.type(1.1)


def swish_slope(P):
    sigmoid = TABLE["sigmoid"]
    return (sigmoid.phi(P) + P * sigmoid.slope(P)) / P.dtype.type(1.1)


ARCTAN = Activation("arctan", np.arctan, arctan_slope, 1.0)
SWISH = Activation("scaled_swish", swish, swish_slope, 1.0)  # It decreases for arguments below −1.28.
SINE = Activation("sine", np.sin, np.cos, 1.0)  # It oscillates.
RAMP = Activation("ramp", lambda P: np.maximum(P - 1, 0) / 2, lambda P: (P > 1).astype(P.dtype) / 2, 0.5, (1.0,))
# numpy.hypot takes no complex numbers.
ROOT = Activation("root", lambda P: P / np.hypot(1, P), lambda P: np.hypot(1, P) ** -3.0, 1.0)
OWN = [ARCTAN, SWISH, SINE, RAMP, ROOT]
names = pytest.mark.parametrize("own", OWN, ids=str)


def twin_of(name):
    row = TABLE[name]
    return Activation(f"my_{name}", row.phi, row.slope, row.lipschitz, row.kinks)


# --- the constructor --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TABLE)
def test_every_built_in_activation_passes_the_checks(name):
    own = twin_of(name)
    assert own.code == activations.OWN
    assert dataclasses.astuple(own)[3:5] == (TABLE[name].lipschitz, TABLE[name].kinks)


RELU = TABLE["relu"].phi, TABLE["relu"].slope
TANH = TABLE["tanh"].phi, TABLE["tanh"].slope
FALSE_CLAIMS = {
    "the name is that of a built-in": (("relu", *RELU, 1.0, (0.0,)), ValueError, "must not be that of a built-in"),
    "no name": (("", *TANH, 1.0), ValueError, "letters, digits and _; got ''"),
    "a name for a shell": (("a; rm", *TANH, 1.0), ValueError, "letters, digits and _"),
    "phi is a name": (("own", "tanh", TANH[1], 1.0), TypeError, "phi must be a function of an array; got 'tanh'"),
    "lipschitz too small": (("own", *TANH, 0.9), ValueError, r"the steepest slope of phi; got 0\.9, but .* is 1"),
    "lipschitz 0": (("own", *TANH, 0.0), ValueError, "lipschitz must be above 0"),
    "lipschitz 2": (("own", *TANH, 2.0), ValueError, "at most 1; got 2: divide phi and slope"),
    "lipschitz NaN": (("own", *TANH, np.nan), ValueError, "lipschitz must be"),
    "expansive": (("own", lambda P: 1.001 * P, lambda P: np.ones_like(P), 1.0), ValueError, "at least the steepest"),
    "a jump": (
        ("own", lambda P: np.where(np.isnan(P), P, P.dtype.type(0.1) * (P > 0.3)), np.zeros_like, 1.0),
        ValueError, "lipschitz must be at least",
    ),
    "a root": (
        ("own", lambda P: np.sqrt(np.abs(P)), np.zeros_like, 1.0), ValueError, "lipschitz must be at least",
    ),
    "the slope of another": (("own", TANH[0], arctan_slope, 1.0), ValueError, "slope must be the derivative of phi"),
    "a slope 1e-4 off": (("own", TANH[0], lambda P: 0.9999 * TANH[1](P), 1.0), ValueError, "slope must be the deriv"),
    "a slope with the wrong sign": (("own", TANH[0], lambda P: -TANH[1](P), 1.0), ValueError, "the derivative of phi"),
    "a kink is not listed": (("own", *RELU, 1.0), ValueError, r"kinks must list .*jumps from 0 to 1 at 0"),
    "another kink is listed": (("own", *RELU, 1.0, (1.0,)), ValueError, r"kinks must list .*got \(1\.0,\)"),
    "kinks is a number": (("own", *RELU, 1.0, 0.0), TypeError, r"kinks must be a tuple .*kinks=\(0\.0,\)"),
    "NaN becomes 0": (("own", lambda P: np.where(P > 0, P, 0), RELU[1], 1.0, (0.0,)), ValueError, "NaN to NaN"),
    "overflow": (
        ("own", lambda P: np.log1p(np.exp(P)), TABLE["sigmoid"].phi, 1.0), ValueError, "phi must be finite at",
    ),
    "cancellation": (
        ("own", lambda P: np.where(P > 0, P, np.exp(np.minimum(P, 0)) - 1), TABLE["elu"].slope, 1.0),
        ValueError, r"16 units of rounding, .*numpy\.expm1",
    ),
    "the slope cancels in float32": (
        ("own", np.arctan, lambda P: (1 + (P + 1e4) - 1e4 - P) / (1 + P * P), 1.0), ValueError, "slope must be",
    ),
    "float64 for float32": (
        ("own", RELU[0], lambda P: np.where(P > 0, 1.0, 0.0), 1.0, (0.0,)), TypeError, r"float64: .*astype\(P\.dtype\)",
    ),
    "one number": (("own", lambda P: P.sum(), np.ones_like, 1.0), TypeError, "array of the shape of its argument"),
    "numbers only": (("own", lambda P: P if P > 0 else 0 * P, RELU[1], 1.0), TypeError, "arrays of any shape"),
    "softmax": (
        ("own", lambda P: np.exp(P - P.max(initial=-1e9)) / np.exp(P - P.max(initial=-1e9)).sum(), np.zeros_like, 1.0),
        ValueError, "phi must act entry by entry",
    ),
    "it changes its argument": (
        ("own", lambda P: np.maximum(P, 0, out=P), RELU[1], 1.0, (0.0,)), TypeError, "not change them; got ValueError",
    ),
}  # fmt: skip


@pytest.mark.parametrize("claim", FALSE_CLAIMS)
def test_a_false_claim_is_refused_with_the_reason(claim):
    arguments, kind, message = FALSE_CLAIMS[claim]
    with pytest.raises(kind, match=message):
        Activation(*arguments)


def test_the_way_out_of_a_steep_function_works():
    steep = 1.13
    with pytest.raises(ValueError, match="divided by its steepest slope"):
        Activation("steep", lambda P: steep * np.tanh(P), lambda P: steep * TANH[1](P), 1.0)
    Activation("scaled", lambda P: steep * np.tanh(P) / steep, lambda P: steep * TANH[1](P) / steep, 1.0)


def test_the_checks_ask_for_what_the_certificate_relies_on():
    assert activation_checks.ULPS == certificate.ULPS


# --- what it computes -------------------------------------------------------------------------------------------------


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", ["relu", "tanh", "softplus"])
def test_it_computes_what_the_built_in_one_computes(name):
    arguments = {"dtype": "float64", "seed": 0, "tol": 1e-12}
    built_in = ImplicitModel(4, 3, 9, activation=name, backend="numpy", **arguments)
    own = ImplicitModel(4, 3, 9, activation=twin_of(name), **arguments)
    np.testing.assert_array_equal(own(U), built_in(U))
    (_, G), (_, expected) = (model.loss_and_gradients(U, LABELS) for model in (own, built_in))
    for parameter, gradient in expected.items():
        np.testing.assert_array_equal(G[parameter], gradient)
    for model in (own, built_in):
        fit(model, U, LABELS, epochs=2, progress=False)
    np.testing.assert_array_equal(own.freeze()(U), built_in.freeze()(U))


@pytest.mark.parametrize("method", ["auto", "picard", "anderson", "newton"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@names
def test_the_error_bound_holds(own, dtype, method):
    rng = np.random.default_rng(1)
    A = rng.standard_normal((8, 8))
    A = (0.9 / np.abs(A).sum(axis=1).max() * A).astype(dtype)
    Z = (2 * rng.standard_normal((8, 50))).astype(dtype)
    solution = solve_equilibrium(A, Z, activation=own, options=SolveOptions(tol=1e-6, method=method))
    exact = np.zeros(Z.shape)
    for _ in range(2000):
        exact = own.phi(A.astype(float) @ exact + Z)
    assert solution.converged
    assert (np.abs(solution.X - exact).max(axis=0) <= solution.error_bound + 1e-15).all()
    V = solve_adjoint(A, own.slope(A @ solution.X + Z), np.ones_like(Z), options=SolveOptions(tol=1e-6))
    assert V.converged


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_columns_that_end_at_the_rounding_error_are_solved(dtype):
    """With tol = 0, every column ends there. Where φ decreases, the slopes of the adjoint equation are negative."""
    shifted = Activation("shifted", lambda P: np.arctan(P) - 5, arctan_slope, 1.0)  # φ(0) is negative.
    rng = np.random.default_rng(2)
    A = rng.standard_normal((8, 8))
    A = (0.99 / np.abs(A).sum(axis=1).max() * A).astype(dtype)
    for own in (*OWN, shifted):
        Z, X0 = (size * rng.standard_normal((8, 200)).astype(dtype) for size in (100 if own is SINE else 2, 20))
        for method in ("auto", "picard"):
            options = SolveOptions(tol=0, max_iter=3000, method=method, on_failure="ignore")
            solution = solve_equilibrium(A, Z, X0=X0, activation=own, options=options)
            assert solution.converged, (own, method)
            S = own.slope(A @ solution.X + Z)
            assert solve_adjoint(A, S, np.ones_like(Z), options=options, backend="numpy").converged, (own, method)


@names
def test_gradients_are_right_and_checked(own):
    model = ImplicitModel(4, 3, 9, activation=own, dtype="float64", seed=3, bias=True)
    assert check_gradients(model, U, LABELS, entries=8).passed


def test_a_complex_argument_moves_phi_along_its_slope():
    P = np.linspace(-2, 2, 5)
    np.testing.assert_array_equal(SWISH.for_complex_step().phi(P + 1e-20j).imag, 1e-20 * SWISH.slope(P))
    assert TABLE["tanh"].for_complex_step() is TABLE["tanh"]


@names
def test_the_change_of_phi_is_bounded_over_an_interval(own):
    P, delta = np.linspace(-9, 9, 500), 0.3
    for activation in (own, *TABLE.values()):
        ends = [activation.phi(P + t * delta) for t in np.linspace(-1, 1, 41)]
        assert (np.ptp(ends, axis=0) <= activation.change(P, delta) + 1e-15).all()


@names
def test_a_nan_stains_its_own_sample_only(own):
    broken = U.copy()
    broken[2] = np.nan
    model = ImplicitModel(4, 3, 9, activation=own, seed=0, on_failure="ignore")
    assert (np.isnan(model(broken)).all(axis=1) == (np.arange(6) == 2)).all()
    assert model(U[:0]).shape == (0, 3)


# --- who takes it, and who refuses it ---------------------------------------------------------------------------------


def test_auto_is_numpy():
    model = ImplicitModel(4, 3, 9, activation=ARCTAN, seed=0)
    assert model.freeze().backend == "numpy"
    assert type(model.layer()).__module__ == "idl_ref.backends.numpy.layer"


@pytest.mark.parametrize("backend", ["numba", "cuda"])
def test_other_backends_refuse_it_by_name(backend):
    message = f"backend '{backend}' has the built-in activations only; got the activation 'arctan' of your own: use"
    with pytest.raises(ValueError, match=message):
        ImplicitModel(4, 3, 9, activation=ARCTAN, backend=backend)
    with pytest.raises(ValueError, match=message):
        solve_equilibrium([[0.5]], [[1.0]], activation=ARCTAN, backend=backend)


@pytest.mark.parametrize("to", ["numpy", "c", "onnx", "js"])
def test_exports_refuse_it_by_name_before_they_write(tmp_path, to):
    with pytest.raises(ValueError, match=r"got the activation 'arctan' of your own: serve this one in Python"):
        export.export(ImplicitModel(4, 3, 9, activation=ARCTAN, seed=0), to, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_refuses_it_and_the_way_out_works(tmp_path):
    model = ImplicitModel(4, 3, 9, activation=ARCTAN, seed=0)
    with pytest.raises(ValueError, match=r"got the activation 'arctan' of your own: store .* by numpy\.savez"):
        model.save(tmp_path / "model.npz")
    assert list(tmp_path.iterdir()) == []
    np.savez(tmp_path / "weights.npz", **model.parameters)
    with np.load(tmp_path / "weights.npz") as stored:
        again = ImplicitModel.from_parameters(Settings(4, 3, 9, activation=ARCTAN), dict(stored))
    np.testing.assert_array_equal(again(U), model(U))


def test_a_row_of_the_table_is_the_same_as_its_name(tmp_path):
    model = ImplicitModel(4, 3, 9, activation=TABLE["tanh"], seed=0)
    assert model.activation == "tanh"
    model.save(tmp_path / "model.npz")
    assert load(tmp_path / "model.npz").activation == "tanh"


def test_models_can_be_pickled_and_copied_where_the_functions_can():
    model = ImplicitModel(4, 3, 9, activation=ARCTAN, seed=0)
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert again.activation == ARCTAN
        np.testing.assert_array_equal(again(U), model(U))
    assert copy.deepcopy(RAMP) == RAMP
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        pickle.dumps(RAMP)


def test_two_activations_are_two_models():
    one, other = (ImplicitModel(4, 3, 9, activation=own, seed=0) for own in (ARCTAN, SWISH))
    assert not np.array_equal(one(U), other(U))
    assert ARCTAN != SWISH
    assert str(one).endswith('activation="arctan", dtype="float32")')


@pytest.mark.parametrize("value", [np.tanh, lambda P: P, Activation])
def test_a_bare_function_is_refused_with_the_way_out(value):
    for call in (
        lambda: ImplicitModel(4, 3, 9, activation=value),
        lambda: solve_equilibrium([[0.5]], [[1.0]], activation=value),
    ):
        with pytest.raises(TypeError, match=r"pass idl_ref\.Activation\(name, phi, slope, lipschitz\)"):
            call()
