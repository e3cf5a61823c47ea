"""Inside its declared range, no exported model fails, and no output is further from the exact one than its bound says.

This holds for models that are hard on rounding: κ up to 0.999, cycles in the last digits, rows of very different size,
A outside the ball with a Perron root below 1, and any tolerance. As a program, the file tries more of them:

    python tests/test_export_range.py --models 600 --samples 10000 --targets c numpy onnx
"""

import argparse
import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from c_export_backend import COMPILER
from strategies import ACTIVATIONS
from test_export import imported

from idl_ref import ImplicitFunction, ImplicitFunctionRows, ImplicitFunctionTriu, ImplicitModel
from idl_ref.activations import get
from idl_ref.export import export
from idl_ref.preprocessing import Standardise

KAPPAS = (0.5, 0.9, 0.99, 0.997, 0.999)
FLAGS = ["-O1"]  # The program for many samples compiles with more.
TOLERANCES = (3e-6, 3e-6, 1e-3, 1e-9, 1e-13, 0.0)
TARGETS = [
    pytest.param("c", marks=pytest.mark.skipif(COMPILER is None, reason="there is no C compiler")),
    "numpy",
    pytest.param("onnx", marks=pytest.mark.skipif(not find_spec("onnxruntime"), reason="onnxruntime is missing")),
]


# --- models and samples -----------------------------------------------------------------------------------------------


def random(rng, n, kappa):
    A = rng.standard_normal((n, n))
    return kappa * A / np.abs(A).sum(axis=1).max()


def rows(rng, n, kappa):
    """Every row has the norm κ."""
    A = rng.standard_normal((n, n))
    return kappa * A / np.abs(A).sum(axis=1, keepdims=True)


def positive(rng, n, kappa):
    return np.full((n, n), kappa / n)


def permutation(rng, n, kappa):
    return -kappa * np.eye(n)[rng.permutation(n)]


def cycle(rng, n, kappa):
    return kappa * np.roll(np.eye(n), 1, axis=0) * rng.choice([-1, 1], n)


def diagonal(rng, n, kappa):
    return np.diag(kappa * rng.choice([-1, 1], n) * (1 - rng.random(n) ** 3))


def graded(rng, n, kappa):
    """A norm far above 1, and a Perron root of |A| of at most κ."""
    D = 10.0 ** rng.uniform(-2, 2, n)
    return D[:, None] * rows(rng, n, kappa) / D


def triangle(rng, n, kappa):
    return np.triu(rng.standard_normal((n, n)) * 2 / np.sqrt(n), 1)


def lower(rng, n, kappa):
    return triangle(rng, n, kappa).T


KINDS = (random, rows, positive, permutation, cycle, diagonal, graded, triangle, lower, "low rank")


def make(seed):
    """Return a model, and the bounds of its inputs, which may be None."""
    rng = np.random.default_rng(seed)
    kind, kappa = KINDS[seed % len(KINDS)], float(rng.choice(KAPPAS))
    n, p, q = int(rng.choice([1, 2, 3, *range(4, 51)])), int(rng.integers(1, 6)), int(rng.integers(1, 4))
    settings = {
        "activation": ACTIVATIONS[seed // len(KINDS) % len(ACTIVATIONS)],
        "dtype": ("float32", "float64")[int(rng.integers(2))],
        "tol": float(rng.choice(TOLERANCES)),
        "bias": bool(rng.integers(2)),
        "no_D": bool(rng.integers(2)),
        "backend": "numpy",
    }
    if kind == "low rank":
        f = ImplicitFunctionRows if rng.integers(2) else ImplicitFunction
        model = ImplicitModel(p, q, n, f, is_low_rank=True, rank=int(rng.integers(1, n + 1)), seed=seed, **settings)
        for name in "LR":
            F = rng.standard_normal(model.parameters[name].shape)
            axis = 1 if name == "L" else 0
            model.parameters[name][...] = np.sqrt(kappa) * F / np.abs(F).sum(axis=axis, keepdims=True)
    else:
        f = ImplicitFunctionTriu if kind is triangle else ImplicitFunction
        model = ImplicitModel(p, q, n, f, seed=seed, **settings)
        model.parameters["A"][...] = kind(rng, n, kappa)
    model.parameters["B"][...] *= 10.0 ** rng.uniform(-3, 3, (n, 1) if rng.integers(2) else ())
    mean, scale = 0.0, 1.0
    if rng.integers(3) == 0:
        mean, scale = preprocessing(rng, p)
        model.preprocessing = Standardise(mean, scale)
    if rng.integers(2):
        return model, None
    ends = np.sort(rng.choice([-1, 1], 2) * 10.0 ** rng.uniform(-3, 3, 2))
    return model, tuple(mean + scale * end for end in ends)


def preprocessing(rng, p):
    """A mean and a scale, one for all features or one per feature."""
    shape = p if rng.integers(2) else None
    return 10.0 ** rng.uniform(-3, 5, shape), 10.0 ** rng.uniform(-2, 3, shape)


def samples(made, m, seed):
    """Samples inside the range: spread, at its corners, near 0, subnormal, and along a ray."""
    rng, dtype, p = np.random.default_rng(seed), made.dtype, made.B.shape[1]
    low, high = (np.broadcast_to(end, (p,)) for end in (made.low, made.high))
    U = low + (high - low) * rng.random((m, p))
    corners = rng.random((m, p)) < 0.5
    kind = rng.integers(5, size=(m, 1))
    U = np.where(kind == 1, np.where(corners, low, high), U)
    U = np.where(kind == 2, U * 10.0 ** rng.uniform(-12, 0, (m, 1)), U)
    U = np.where(kind == 3, np.linspace(0, 1, m)[:, None] * np.where(low + high > 0, high, low), U)
    U = np.where((kind == 4) & corners, rng.choice([0.0, 1e-40, 1e-310, -1e-38], (m, p)), U)
    U = np.clip(U, low, high).astype(dtype)
    # A cast may leave the range by a rounding, and there may be no number of the dtype in a narrow range.
    U = np.where(U.astype(float) < low, np.nextafter(U, dtype.type(np.inf)), U)
    U = np.where(U.astype(float) > high, np.nextafter(U, dtype.type(-np.inf)), U)
    return U[(np.clip(U, low, high) == U).all(axis=1)]


# --- what an export answers, and what is exact ------------------------------------------------------------------------


def outputs(folder, to, made, U):
    """Return the outputs of an export, with NaN in the rows of samples that failed."""
    if to == "numpy":
        return imported(folder).predict(U)
    if to == "onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
        return session.run(None, {"U": U})[0]
    run, Y = compiled(folder).idl_predict, np.empty((len(U), made.sizes[2]), U.dtype)
    run.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
    most = run(U.ctypes.data, len(U), Y.ctypes.data)
    assert (most == -1) == np.isnan(Y).any()
    assert most <= made.iterations
    return Y


def compiled(folder, name="idl"):
    library = folder / "model.so"
    flags = ["-std=c99", *FLAGS, "-fPIC", "-shared"]
    command = [COMPILER, *flags, "-o", str(library), str(folder / f"{name}_model.c"), "-lm"]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return ctypes.CDLL(str(library))


def exact(model, U):
    """Return the outputs in extended precision, by Newton's method."""
    wide = np.longdouble
    W = {name: F.astype(wide) for name, F in model.effective().items()}
    A = W["A"] if "A" in W else W["L"] @ W["R"].T
    u = U.astype(wide)
    if model.preprocessing is not None:
        u = (u - np.asarray(model.preprocessing.mean, wide)) / np.asarray(model.preprocessing.scale, wide)
    if model.bias:
        u = np.hstack([u, np.ones((len(u), 1), wide)])
    phi, n = get(model.activation), len(A)
    Z, X = W["B"] @ u.T, np.zeros((n, len(u)), wide)
    for _ in range(60):
        P = A @ X + Z
        R, S = phi.phi(P) - X, phi.slope(P).astype(float)
        steps = [np.linalg.solve(np.eye(n) - S[:, [j]] * A.astype(float), R[:, j].astype(float)) for j in range(len(u))]
        X = X + np.stack(steps, axis=1)
        if (np.abs(R) <= 1e-18 * (np.abs(A) @ np.abs(X) + np.abs(Z) + 1e-300)).all():
            break
    known = (np.abs(R) <= 1e-17 * (np.abs(A) @ np.abs(X) + np.abs(Z) + 1e-300)).all(axis=0)
    Y = W["C"] @ X
    return (Y + W["D"] @ u.T if "D" in W else Y).T, known


def trial(seed, to, m, checked):
    """Return the plan, the number of samples that failed, and the largest quotient of error and bound."""
    model, bounds = make(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = export(model, to, folder, bounds).plan
        U = samples(made, m, seed)
        Y = outputs(folder, to, made, U)
    some = np.linspace(0, len(U) - 1, min(len(U), checked)).astype(int)
    if not len(U):  # A narrow range may hold no number of the dtype.
        return made, 0, 0.0, 1.0
    truth, known = exact(model, U[some])
    error = np.abs(Y[some] - truth)[known].max(initial=0.0)
    return made, int((~np.isfinite(Y)).any(axis=1).sum()), float(error / made.error_bound), known.mean()


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
@pytest.mark.parametrize("to", ["c", "numpy", "onnx"])
def test_constants_that_the_dtype_cannot_hold_are_refused(tmp_path, to, model, bounds, message):
    with pytest.raises(ValueError, match=message):
        export(model, to, tmp_path, bounds)
    assert list(tmp_path.iterdir()) == []


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", type=int, default=600)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--checked", type=int, default=20)
    parser.add_argument("--targets", nargs="+", default=["c", "numpy", "onnx"])
    options = parser.parse_args()
    FLAGS[:] = ["-O3", "-march=native"]
    status = 0
    for to in options.targets:
        start, total, refused, worst, quotients = time.perf_counter(), 0, 0, 0, []
        for seed in range(options.first, options.first + options.models):
            try:
                made, failed, quotient, _ = trial(seed, to, options.samples, options.checked)
            except ValueError as reason:
                refused += 1
                print(f"{to} {seed}: refused: {reason}", flush=True)
                continue
            total, worst = total + failed, max(worst, made.iterations)
            quotients.append(quotient)
            if (seed + 1) % 100 == 0:
                print(f"{to} {seed}: {total} failed so far, {time.perf_counter() - start:.0f} s", flush=True)
            if failed or not quotient <= 1:
                status = 1
                print(f"{to} {seed}: {failed} failed, error/bound {quotient:.3g}", flush=True)
        print(
            f"{to}: {options.models - refused} models of {options.samples} samples, {refused} refused, {total} failed, "
            f"error/bound at most {max(quotients):.3g}, median {np.median(quotients):.2g}, at most {worst} iterations, "
            f"{time.perf_counter() - start:.0f} s",
            flush=True,
        )
    return status


if __name__ == "__main__":
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.exit(main())
