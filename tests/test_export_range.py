"""Inside its declared range, no exported model fails, and no output is further from the exact one than its bound."""

import ctypes
import json
import re
from importlib.util import find_spec

import numpy as np
import pytest
from c_export_backend import COMPILER
from hard_exports import compiled, exact, outputs, trial
from js_export_backend import NODE
from test_export import imported

from idl_ref import ImplicitFunction, ImplicitModel
from idl_ref.export import export
from idl_ref.preprocessing import Standardise

TARGETS = [
    pytest.param("c", marks=pytest.mark.skipif(COMPILER is None, reason="there is no C compiler")),
    "numpy",
    pytest.param("onnx", marks=pytest.mark.skipif(not find_spec("onnxruntime"), reason="onnxruntime is missing")),
    pytest.param("js", marks=pytest.mark.skipif(NODE is None, reason="Node.js is not installed")),
]


@pytest.mark.sampled(3)
@pytest.mark.parametrize("to", TARGETS)
def test_no_sample_inside_the_range_fails(to):
    known = []
    for seed in range(0, 90, 9):
        _, failed, quotient, share = trial(seed, to, 100, 5)
        assert failed == 0, seed
        assert quotient <= 1, seed
        known.append(share)
    assert np.mean(known) > 0.9


def of(A, activation="identity", dtype="float32", **settings):
    """A model with B = C = I, so that z = u and y = x."""
    A = np.atleast_2d(A)
    n = len(A)
    model = ImplicitModel(
        n, n, n, ImplicitFunction, activation=activation, dtype=dtype, no_D=True, backend="numpy", seed=0, **settings
    )
    for name, W in {"A": A, "B": np.eye(n), "C": np.eye(n)}.items():
        model.parameters[name][...] = W
    return model


def answered(folder, model, to, U, bounds=None):
    made = export(model, to, folder, bounds).plan
    return outputs(folder, to, made, np.asarray(U, model.dtype)), made


CYCLES = {
    "identity": (-0.99, "identity"),
    "identity, κ = 0.997": (-0.997, "identity"),
    "relu": (0.99, "relu"),
    "tanh": (-0.99, "tanh"),
    "leaky_relu": (-0.99 * np.eye(20)[np.random.default_rng(0).permutation(20)], "leaky_relu"),
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CYCLES, ids=str)
@pytest.mark.parametrize("to", TARGETS)
def test_an_iteration_that_cycles_in_the_last_digits_is_an_answer(tmp_path, to, case, dtype):
    A, activation = CYCLES[case]
    model = of(A, activation, dtype)
    U = np.random.default_rng(1).uniform(-1000, 1000, (60, model.input_dim)).astype(dtype)
    U[:5] = [[0.0], [1e-3], [1e-40], [-1e-310], [1000.0]]
    Y, made = answered(tmp_path, model, to, U, (-1000, 1000))
    assert np.isfinite(Y).all()
    assert np.abs(Y - exact(model, U)[0]).max() <= made.error_bound


@pytest.mark.parametrize("to", TARGETS)
@pytest.mark.parametrize(
    ("A", "activation", "z", "x"),
    [
        ([[0, 0.9], [0.9, 0]], "tanh", [-1e7, 0.5], [-1, np.tanh(0.5 - 0.9)]),
        ([[0.9, 0], [0, 0.9]], "relu", [1e4, 0.2], [1e5, 2]),
        ([[0.5, 0, 0], [0, 0, 0.9], [0, 0.9, 0]], "identity", [1e7, 0.5, -1], [2e7, -0.4 / 0.19, -0.55 / 0.19]),
    ],
    ids=["tanh", "relu", "identity"],
)
def test_a_huge_row_does_not_excuse_the_others(tmp_path, to, A, activation, z, x):
    Y, _ = answered(tmp_path, of(A, activation), to, [z], (-1e7, 1e7))
    np.testing.assert_allclose(Y[0], x, rtol=1e-4)


@pytest.mark.parametrize("to", TARGETS)
def test_the_bound_of_a_triangular_model_is_that_of_what_runs(tmp_path, to):
    """A sweep has no step; the Loop of ONNX stops at a step of tol."""
    A = np.tril(np.random.default_rng(0).standard_normal((12, 12)), -1) / 3
    model = of(A, "tanh", "float64")
    U = np.random.default_rng(1).uniform(-1, 1, (300, 12))
    Y, made = answered(tmp_path, model, to, U, (-1, 1))
    error = np.abs(Y - exact(model, U)[0]).max()
    assert error <= made.error_bound
    assert (made.iterations > 1) == (to == "onnx")
    assert (made.error_bound > 3e-6) == (to == "onnx")
    assert ("sweep" in made.promise()) == (to != "onnx")


@pytest.mark.parametrize("to", TARGETS)
def test_batch_mates_do_not_change_whether_a_sample_converges(tmp_path, to):
    """A sample that has converged stays as it is while others go on."""
    model = of(0.99)
    U = np.array([[8.0], [1e-3], [0.0], [np.nan], [-7.5]])
    Y, _ = answered(tmp_path, model, to, U)
    alone = np.vstack([answered(tmp_path, model, to, u[None])[0] for u in U])
    np.testing.assert_array_equal(Y, alone)
    assert np.isnan(Y).ravel().tolist() == [False, False, False, True, False]


@pytest.mark.parametrize("mean", [1000000.3, [1000000.3, -0.5, 20]], ids=["one", "per feature"])
@pytest.mark.parametrize("to", TARGETS)
def test_a_large_mean_costs_no_digits(tmp_path, to, mean):
    """In float32, u is the exact (U − mean)/scale to its last digit, because the difference is taken in float64."""
    model = ImplicitModel(3, 2, 9, dtype="float32", seed=0, backend="numpy")
    model.preprocessing = Standardise(mean, np.ones(np.shape(mean)))
    U = (mean + np.random.default_rng(0).uniform(-7.9, 7.9, (50, 3))).astype(np.float32)
    Y, made = answered(tmp_path, model, to, U)
    error = np.abs(Y - exact(model, U)[0]).max()
    assert error <= made.error_bound
    assert error < 2e-5
    np.testing.assert_allclose(Y, model(U), atol=2e-5)


def test_a_range_between_two_neighbours_is_refused(tmp_path):
    """NumPy code takes U in float64, in which the same range holds many numbers."""
    model = of(0.5)
    model.preprocessing = Standardise(1.7e9 + 50, 1.0)
    for to in ("c", "onnx"):
        with pytest.raises(ValueError, match=r"must hold a number of the dtype of U; got .*neighbours in float32"):
            export(model, to, tmp_path)
    export(model, "numpy", tmp_path)
    u = imported(tmp_path).predict([[1.7e9 + 53]]).item() / 2
    assert abs(u - 3) < 1e-5


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_rounding_of_the_preprocessing_belongs_to_the_bound(tmp_path, dtype):
    """With A = 0 and B = C = 1, the output is u, which is rounded where it is computed."""
    model = of(0.0, dtype=dtype)
    given = export(model, "numpy", tmp_path, (-8, 8)).plan.error_bound
    model.preprocessing = Standardise(0.0, 1.0)
    computed = export(model, "numpy", tmp_path, (-8, 8)).plan.error_bound
    assert computed >= given + 8 * (np.finfo(dtype).eps / 2 + 3 * 2.0**-53) * (1 - 1e-6)


@pytest.mark.skipif(COMPILER is None, reason="there is no C compiler")
def test_ranges_per_feature_are_arrays_in_c(tmp_path):
    model = ImplicitModel(2, 1, 3, seed=0)
    model.preprocessing = Standardise([1e6, 0.25], [1, 2])
    header = export(model, "c", tmp_path, name="my").files[0].read_text(encoding="ascii")
    assert "extern const double my_low[MY_INPUTS], my_high[MY_INPUTS];" in header
    assert "MY_LOW" not in header
    assert "For inputs in [my_low[j], my_high[j]]" in header
    library, pair = compiled(tmp_path, "my"), ctypes.c_double * 2
    assert list(pair.in_dll(library, "my_low")) == [999992.0, -15.75]
    assert list(pair.in_dll(library, "my_high")) == [1000008.0, 16.25]


@pytest.mark.parametrize("labels", [["IDL_idl_", 'é "\\n"?!', "*/ 9"], [1990, -5, 0]], ids=["names", "numbers"])
@pytest.mark.parametrize("to", TARGETS)
def test_the_labels_of_the_outputs_are_exported(tmp_path, to, labels):
    model = ImplicitModel(2, 3, 4, seed=0)
    model.classes = labels
    export(model, to, tmp_path, name="my" if to == "c" else None)
    if to == "numpy":
        found = imported(tmp_path).CLASSES.tolist()
    elif to == "onnx":
        import onnx

        (prop,) = onnx.load(tmp_path / "model.onnx").metadata_props
        found = json.loads(prop.value)
    elif to == "js":
        text = (tmp_path / "model.mjs").read_text(encoding="utf-8")
        found = json.loads(re.search("^export const CLASSES = (.*);", text, re.M)[1])
    else:
        strings = (ctypes.c_char_p * 3).in_dll(compiled(tmp_path, "my"), "my_classes")
        found, labels = [text.decode() for text in strings], [str(label) for label in labels]
    assert found == labels


@pytest.mark.parametrize(
    ("A", "settings", "message"),
    [
        (0.9999, {}, r"at most; got a model with ‖A‖∞ = 0\.9999, for which about 1[56]\d{4} would be needed"),
        ([[0.0, 40.0], [0.024995, 0.0]], {"method": "newton"}, r"‖A‖∞ = 40.*for which about 1\d{5} would be needed"),
        (1.5, {"method": "newton"}, r"‖A‖∞ = 1\.5000, for which no number is known to suffice"),
    ],
)
def test_a_model_that_needs_too_many_iterations_is_refused_with_their_number(tmp_path, A, settings, message):
    with pytest.raises(ValueError, match=message):
        export(of(A, **settings), "c", tmp_path)


@pytest.mark.parametrize(
    ("model", "bounds", "message"),
    [
        (of(0.5, tol=1e39), None, "tol must be 0 or of a size between .*; got 1e[+]39: use other units"),
        (of(0.5, tol=1e-310, dtype="float64"), None, "tol must be 0 or of a size between .*; got 1e-310"),
        (of(0.5), (-np.inf, 1), "low end of the range must be finite; got -inf"),
        (of(0.5), (0, np.inf), "high end of the range must be finite; got inf"),
        (of(0.5), (np.nan, 1), "low end of the range must be finite; got nan"),
        (of(0.5), ([0, 0], 1), r"low end of the range must have shape \(1,\), one number per feature"),
        (of(0.5), (0, 1e39), "high end of the range must be 0 or of a size"),
        (of(0.5), (1e-42, 1), "low end of the range must be 0 or of a size"),
        (of(0.5), (1, 0), "high end of the range must be a number ≥ 1"),
        (of(0.99), (0, 1e37), r"numbers must stay below 8\.5e[+]37 inside the range .*; the bound is 2\.0e[+]39"),
    ],
)
@pytest.mark.parametrize("to", ["c", "numpy", "onnx", "js"])
def test_constants_that_the_dtype_cannot_hold_are_refused(tmp_path, to, model, bounds, message):
    with pytest.raises(ValueError, match=message):
        export(model, to, tmp_path, bounds)
    assert list(tmp_path.iterdir()) == []
