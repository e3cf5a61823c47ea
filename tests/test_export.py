"""Exported NumPy files and C sources give the answers of the library, up to the error bounds."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from strategies import ACTIVATIONS

from idl_ref import ImplicitFunction, ImplicitFunctionInf, ImplicitFunctionRows, ImplicitFunctionTriu, ImplicitModel
from idl_ref.__main__ import main
from idl_ref.export import export, plan
from idl_ref.preprocessing import Standardise

CC = (shutil.which("gcc") or shutil.which("clang")) if os.name == "posix" else None  # MinGW lacks sanitizers.
STRICT = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic"]
SANITIZED = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
MAIN = Path(__file__).parents[1] / "examples" / "deploy_c" / "main.c"
needs_cc = pytest.mark.skipif(CC is None, reason="there is no C compiler, or none with sanitizers")

LOW_RANK = {"is_low_rank": True, "rank": 3}
CASES = [
    *({"activation": name} for name in ACTIVATIONS),
    *({"activation": name, "dtype": "float64", "bias": True, "tol": 1e-10} for name in ACTIVATIONS),
    *({"f": f, "bias": True, "no_D": True} for f in (ImplicitFunctionRows, ImplicitFunctionTriu, ImplicitFunction)),
    {**LOW_RANK, "no_D": True},
    {**LOW_RANK, "f": ImplicitFunctionRows, "bias": True, "dtype": "float64", "activation": "sigmoid"},
    {"f": ImplicitFunctionTriu, "dtype": "float64", "activation": "softplus"},
    {"f": ImplicitFunctionTriu, "hidden_dim": 1},
    {"hidden_dim": 1, "input_dim": 1, "output_dim": 1, "kappa": 0.0},
    {"hidden_dim": 40, "input_dim": 9, "output_dim": 17, "method": "anderson", "backend": "numpy"},
    {"preprocessing": Standardise(3.0, 2.5)},
    {"preprocessing": Standardise(-0.1, 0.3), "bias": True, "dtype": "float64", "activation": "elu"},
    {"preprocessing": Standardise([1e3, -5, 0, 1e-3, 7], [1, 2, 1e-3, 1e-4, 50]), "no_D": True},
]


BOUNDED = [{}, *({"activation": "hardtanh", "no_D": True, "f": f} for f in (ImplicitFunctionInf, ImplicitFunctionTriu))]


def name_of(case):
    return "-".join(getattr(value, "__name__", str(value)) for value in case.values())


def make(case):
    settings = {"input_dim": 5, "output_dim": 3, "hidden_dim": 13, "seed": 1, "mitr": 3000, "kappa": 0.9, **case}
    preprocessing = settings.pop("preprocessing", None)
    model = ImplicitModel(**settings)
    model.preprocessing = preprocessing
    return model


def lower(model):
    """Replace A of a model by its strict lower triangle, and return the model."""
    model.parameters["A"][...] = np.tril(model.parameters["A"], -1)
    return model


def samples(model, m=7):
    rng = np.random.default_rng(0)
    U = rng.standard_normal((m, model.input_dim)) * 10.0 ** rng.integers(-2, 1, (m, 1))
    pre = model.preprocessing
    return (U if pre is None else pre.inverse(U)).astype(model.dtype)


def allowed(model, U):
    """Return how far an export may be from the library: the sum of the library's bound and the export's bound."""
    prediction = model.freeze().certified(U)
    return prediction.Y, prediction.error_bound + plan.make(model, "onnx").error_bound  # the largest of the targets


def check(model, U, Y):
    expected, error = allowed(model, U)
    assert Y.shape == expected.shape
    assert (np.abs(Y - expected).max(axis=1) <= error).all()
    scale = 1 + np.abs(expected).max()
    np.testing.assert_allclose(Y, expected, rtol=0, atol=max(3e2 * model.tol, 1e3 * np.finfo(model.dtype).eps) * scale)


def imported(directory):
    spec = importlib.util.spec_from_file_location("predict", directory / "predict.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- NumPy ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_numpy(tmp_path, case):
    model = make(case)
    files = export(model, "numpy", tmp_path).files
    assert [path.name for path in files] == ["predict.py", "weights.npz"]
    text = files[0].read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 120
    assert max(map(len, text.splitlines())) <= 120
    assert set(re.findall(r"^(?:import|from) (\w+)", text, re.M)) == {"pathlib", "numpy"}
    predict = imported(tmp_path).predict
    U = samples(model)
    check(model, U, predict(U))
    check(model, U[:1], predict(U[:1].tolist()))
    assert predict(U[:0]).shape == (0, model.output_dim)
    with pytest.raises(ValueError, match="U must be samples as rows"):
        predict(U[:, :-1] if model.input_dim > 1 else U[0])


def test_numpy_of_a_lower_triangle(tmp_path):
    model = lower(make({"f": ImplicitFunction}))
    export(model, "numpy", tmp_path)
    check(model, samples(model), imported(tmp_path).predict(samples(model)))


@pytest.mark.parametrize("case", BOUNDED, ids=name_of)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_numpy_row_that_is_not_finite_fails_alone(tmp_path, case, value):
    model = make(case)
    export(model, "numpy", tmp_path)
    U = samples(model)
    U[2, 0] = value
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Y, good = imported(tmp_path).predict(U), np.arange(len(U)) != 2
    assert np.isnan(Y[2]).all()
    check(model, U[good], Y[good])


def test_masked_rows_are_refused_by_the_numpy_export(tmp_path):
    """numpy.asarray would bring the hidden values back."""
    model = make(CASES[0])
    export(model, "numpy", tmp_path)
    U, predict = samples(model), imported(tmp_path).predict
    with pytest.raises(ValueError, match="U must have a value in every entry"):
        predict(np.ma.masked_array(U, mask=np.arange(U.size).reshape(U.shape) == 1))
    np.testing.assert_array_equal(predict(np.ma.masked_array(U)), predict(U))


def test_numpy_needs_nothing_else_and_is_formatted(tmp_path):
    model = make({"preprocessing": Standardise(3.0, 2.5), "bias": True})
    export(model, "numpy", tmp_path)
    code = "import sys, numpy, predict; predict.predict(numpy.ones((2, 5))); print('idl_ref' in sys.modules)"
    command = [sys.executable, "-c", code]
    answer = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True, timeout=600).stdout
    assert answer.strip() == "False"
    if shutil.which("ruff"):
        for case in CASES:
            export(make(case), "numpy", tmp_path)
            format = ["ruff", "format", "--diff", "--line-length", "120", "predict.py"]
            assert subprocess.run(format, cwd=tmp_path, capture_output=True, text=True).stdout == "", case


# --- C ----------------------------------------------------------------------------------------------------------------


def build(directory, *flags):
    """Compile the program of the example with an exported model."""
    program = directory / "predict"
    command = [CC, *STRICT, *flags, "-I", str(directory), "-o", str(program), str(MAIN)]
    subprocess.run([*command, str(directory / "idl_model.c"), "-lm"], check=True, capture_output=True, timeout=600)
    return program


def run(program, U):
    """Run the program, and return its outputs, its largest number of iterations, and its exit status."""
    text = "\n".join(" ".join(f"{value:.17g}" for value in row) for row in U.tolist())
    done = subprocess.run([program], input=text, capture_output=True, text=True, timeout=600)
    Y = np.array([[float(value) for value in line.split()] for line in done.stdout.splitlines()])
    return Y, int(re.search(r"at most (\d+) of", done.stderr)[1]), done.returncode


TWO = """
#include <stdio.h>
#include "first_model.h"
#include "second_model.h"
int main(void)
{
    first_real u[FIRST_INPUTS] = {1, 2}, y[FIRST_OUTPUTS];
    second_real v[SECOND_INPUTS] = {1, 2, 3}, w[SECOND_OUTPUTS];
    if (first_predict(u, 1, y) < 0 || second_predict(v, 1, w) < 0)
        return 1;
    printf("%.9g %.17g\\n", (double)y[0], (double)w[0]);
    return 0;
}
"""


@needs_cc
def test_two_models_in_one_program(tmp_path):
    first = ImplicitModel(2, 1, 5, seed=0, bias=True)
    second = ImplicitModel(3, 1, 4, seed=1, activation="tanh", dtype="float64")
    files = [*export(first, "c", tmp_path, name="first").files, *export(second, "c", tmp_path, name="second").files]
    assert [path.name for path in files] == ["first_model.h", "first_model.c", "second_model.h", "second_model.c"]
    for path in files:
        text = path.read_text(encoding="ascii").replace("idl_ref", "")
        assert "idl_" not in text.lower()
    (tmp_path / "main.c").write_text(TWO, encoding="ascii")
    sources = [str(path) for path in (tmp_path / "main.c", files[1], files[3])]
    program = tmp_path / "two"
    subprocess.run([CC, *STRICT, "-I", str(tmp_path), "-o", str(program), *sources, "-lm"], check=True, timeout=600)
    printed = subprocess.run([program], capture_output=True, text=True, check=True, timeout=600).stdout.split()
    expected = first(np.array([[1.0, 2.0]])).item(), second(np.array([[1.0, 2.0, 3.0]])).item()
    np.testing.assert_allclose([float(value) for value in printed], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("to", "name", "message"),
    [
        ("numpy", "mine", r'name is for to="c", .*; got to=\'numpy\': leave name out'),
        ("c", "My-model", r"name must be small letters, digits and _, a letter first; got 'My-model'"),
        ("c", "", r"name must be small letters"),
    ],
)
def test_a_name_that_c_cannot_use_is_refused(tmp_path, to, name, message):
    with pytest.raises(ValueError, match=message):
        export(ImplicitModel(2, 1, 3, seed=0), to, tmp_path, name=name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@needs_cc
@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_c(tmp_path, case):
    """The export is strict C99 and gives right answers; address and undefined-behaviour sanitizers find nothing."""
    model = make(case)
    written = export(model, "c", tmp_path)
    text = (tmp_path / "idl_model.c").read_text(encoding="ascii")
    assert "malloc" not in text
    assert ("math.h" in text) == (model.activation in ("tanh", "sigmoid", "softplus", "elu"))
    U = samples(model)
    Y, iterations, status = run(build(tmp_path, *SANITIZED), U)
    assert status == 0
    assert iterations <= (1 if written.plan.triangle else written.plan.iterations)
    check(model, U, Y)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_small_inputs_converge_too(tmp_path, activation, dtype):
    """The tolerance is relative to small inputs, or to φ(0) if φ(0) is not 0."""
    model = make({"activation": activation, "dtype": dtype, "no_D": True})
    model.parameters["A"][...] = 1  # Such an A needs all iterations.
    for high in (8.0, 1e-3):
        export(model, "numpy", tmp_path, (-high, high))
        predict = imported(tmp_path).predict
        for size in (8.0, 1.0, 1e-3, 1e-9, 1e-30, 0.0):
            U = np.full((1, model.input_dim), min(size, high))
            check(model, U.astype(dtype), predict(U))


@needs_cc
def test_c_of_a_lower_triangle(tmp_path):
    model = lower(make({"f": ImplicitFunction}))
    export(model, "c", tmp_path)
    Y, iterations, status = run(build(tmp_path, *SANITIZED), samples(model))
    assert (iterations, status) == (1, 0)
    check(model, samples(model), Y)


@pytest.mark.slow
@needs_cc
@pytest.mark.parametrize("flags", [["-O0"], ["-Os"], ["-O3"], ["-O3", "-march=native"]], ids=" ".join)
@pytest.mark.parametrize("case", [{}, {**LOW_RANK, "bias": True}, {"f": ImplicitFunctionTriu}], ids=name_of)
def test_c_compiles_without_a_warning_at_every_level(tmp_path, flags, case):
    model = make(case)
    export(model, "c", tmp_path)
    check(model, samples(model), run(build(tmp_path, *flags), samples(model))[0])


@needs_cc
@pytest.mark.parametrize("case", BOUNDED, ids=name_of)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_c_tells_which_calls_failed(tmp_path, case, value):
    model = make(case)
    export(model, "c", tmp_path)
    program = build(tmp_path, *SANITIZED)
    U = samples(model)
    U[3, 1] = value
    Y, _, status = run(program, U)
    assert status == 2
    good = np.arange(len(U)) != 3
    check(model, U[good], Y[good])
    assert run(program, U[good])[2] == 0
    assert run(program, U[:0])[1:] == (0, 0)


@needs_cc
@pytest.mark.parametrize(
    ("case", "parameter", "value", "u"),
    [
        ({}, "C", 1e30, 1e10),  # The outputs overflow.
        ({"activation": "hardtanh", "no_D": True}, "B", 1e5, 1e35),  # B u overflows, which hardtanh would hide.
        ({"f": ImplicitFunctionTriu}, "B", 1e20, 1e20),
    ],
)
def test_c_notices_overflow(tmp_path, case, parameter, value, u):
    model = make(case)
    model.parameters[parameter][...] = value
    export(model, "c", tmp_path)
    assert run(build(tmp_path, "-O2"), np.full((1, 5), u))[2] == 2


@needs_cc
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_bound_on_the_iterations_is_enough_and_nearly_needed(tmp_path, dtype):
    """For A ≥ 0 with equal rows and the largest input, Picard takes the largest possible number of steps."""
    model = make({"kappa": 0.97, "dtype": dtype, "tol": 1e-5, "no_D": True})
    for name, value in (("A", 1.0), ("B", 0.1), ("C", 0.1)):
        model.parameters[name][...] = value
    written = export(model, "c", tmp_path, (-2.0, 2.0))
    program = build(tmp_path, "-O2")
    Y, iterations, status = run(program, np.full((1, 5), 2.0))
    assert status == 0
    assert 0.75 * written.plan.iterations <= iterations <= written.plan.iterations
    exact = 0.1 * 13 * 1.0 / (1 - 0.97)
    assert np.abs(Y - exact).max() <= written.plan.error_bound
    assert written.plan.error_bound < (1.0 if dtype == "float64" else 10.0)
    if dtype == "float64":  # Far outside the range, convergence is neither guaranteed nor reported.
        assert run(program, np.full((1, 5), 2e4))[2] == 2


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_the_header_says_what_the_arena_needs(tmp_path, case):
    plan = export(make(case), "c", tmp_path).plan
    text = (tmp_path / "idl_model.h").read_text(encoding="ascii")
    macros = dict(re.findall(r"#define IDL_(\w+) \(?([^ )\n]+)", text))
    lengths = [int(length) for length in re.findall(r"\[(\d+)\]", re.search(r"idl_real (.*);\n}", text)[1])]
    assert int(macros["ARENA_BYTES"]) == plan.dtype.itemsize * sum(lengths)
    assert int(macros["MAX_ITERATIONS"]) == (1 if plan.triangle else plan.iterations)
    assert ("LOW" not in macros) if plan.inputs.low.ndim else float(macros["LOW"]) == plan.inputs.low
    n, r = plan.sizes[0], 3 if len(plan.factors) == 2 else None
    if r:  # The model keeps its low rank.
        assert int(macros["WEIGHT_BYTES"]) < plan.dtype.itemsize * (2 * 16 * n + 16 * 16 + 2 * 16 * n)


def test_numbers_are_exact():
    from idl_ref.export.c import number

    rng = np.random.default_rng(0)
    for dtype in (np.dtype("float32"), np.dtype("float64")):
        for value in [
            0.0,
            -0.0,
            1.0,
            np.finfo(dtype).smallest_subnormal,
            np.finfo(dtype).max,
            *rng.standard_normal(99),
        ]:
            text = number(value, dtype)
            assert float.fromhex(text.removesuffix("f")) == dtype.type(value)
            assert text.endswith("f") == (dtype == np.float32 and value != 0)


# --- models that cannot be exported, and the command ------------------------------------------------------------------


@pytest.mark.parametrize("to", ["numpy", "c"])
def test_refusals(tmp_path, to):
    model = make({"f": ImplicitFunction})
    model.parameters["A"][...] = 1
    for activation in ("relu", ["relu"] * 12 + ["tanh"]):
        model.settings = replace(model.settings, activation=activation)
        with pytest.raises(ValueError, match=r"its iterations can be bounded.*‖A‖∞ = 13\.0000"):
            export(model, to, tmp_path)
    model = make({})
    with pytest.raises(ValueError, match="high end of the range must be a number ≥ 2"):
        export(model, to, tmp_path, (2, 1))
    model.parameters["C"][0, 0] = np.inf
    with pytest.raises(ValueError, match="C must be finite to be exported"):
        export(model, to, tmp_path)
    with pytest.raises(ValueError, match="to must be one of 'numpy', 'c', 'onnx', 'js'; got 'tflite'"):
        export(model, "tflite", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_perron_root_below_one_is_enough(tmp_path):
    """A model with ‖A‖∞ = 2 can be exported, because |A| has the Perron root 1/2."""
    model = make({"f": ImplicitFunction, "hidden_dim": 2, "dtype": "float64"})
    model.parameters["A"][...] = [[0.0, 2.0], [0.125, 0.0]]
    plan = export(model, "numpy", tmp_path).plan
    assert plan.iterations < 60
    assert np.isfinite(plan.error_bound)
    check(replace_seed(model), samples(model), imported(tmp_path).predict(samples(model)))


def replace_seed(model):
    return ImplicitModel.from_parameters(replace(model.settings), model.parameters)


@pytest.mark.parametrize(("to", "words"), [("numpy", "iterations, to within"), ("c", "arena [0-9,]+ bytes, weights")])
def test_the_command(tmp_path, capsys, to, words):
    model = make({"preprocessing": Standardise(3.0, 2.5)})
    model.save(tmp_path / "model.npz")
    command = ["export", str(tmp_path / "model.npz"), "--to", to, "-o", str(tmp_path / "out")]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert re.search(words, text)
    assert "for inputs in [-17, 23]" in text
    assert all(path.name in text for path in (tmp_path / "out").iterdir())
    assert main([*command, "--range", "0", "16"]) == 0
    assert "for inputs in [0, 16]" in capsys.readouterr().out
    assert main([*command, "--range", "16", "0"]) == 2
    assert "high end of the range" in capsys.readouterr().err


# --- the files of an export belong together ---------------------------------------------------------------------------


def test_files_of_two_exports_do_not_run_together(tmp_path):
    """A full disk or a killed copy can leave the code of one model beside the weights of another one."""
    one, two = (ImplicitModel(3, 2, 5, seed=seed) for seed in (0, 1))
    for to in ("numpy", "c"):
        for name, model in (("one", one), ("two", two)):
            export(model, to, tmp_path / to / name)
    shutil.copy(tmp_path / "numpy/one/weights.npz", tmp_path / "numpy/two/weights.npz")
    program = [sys.executable, "-c", "import predict"]
    ran = [
        subprocess.run(program, cwd=tmp_path / "numpy" / name, capture_output=True, text=True)
        for name in ("one", "two")
    ]
    assert ran[0].returncode == 0
    assert "ImportError: weights.npz belongs to another export than predict.py" in ran[1].stderr
    compiler = shutil.which("cc") or pytest.skip("no C compiler")
    shutil.copy(tmp_path / "c/one/idl_model.h", tmp_path / "c/two/idl_model.h")
    ran = [
        subprocess.run(
            [compiler, "-c", "idl_model.c", "-o", "idl.o"], cwd=tmp_path / "c" / name, capture_output=True, text=True
        )
        for name in ("one", "two")
    ]
    assert ran[0].returncode == 0
    assert "belongs to another export" in ran[1].stderr


def test_an_export_that_fails_leaves_the_old_files(tmp_path, monkeypatch):
    written = export(ImplicitModel(3, 2, 5, seed=0), "c", tmp_path).files
    before = [path.read_bytes() for path in written]
    fsync, calls = os.fsync, []

    def full(descriptor):
        calls.append(1)
        if len(calls) == 1:
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        export(ImplicitModel(3, 2, 5, seed=1), "c", tmp_path)
    assert [path.read_bytes() for path in written] == before
    assert len(os.listdir(tmp_path)) == 2
