"""Models that are hard on the rounding of an export, samples inside the range, and the outputs of each target.

The models have κ up to 0.999, cycles in the last digits, rows of very different size, A outside the ball with a Perron
root below 1, and any tolerance. As a program, the file counts the samples that fail and compares errors with bounds:

    python tests/hard_exports.py --models 600 --samples 10000 --targets c numpy onnx
    python tests/hard_exports.py --models 100 --samples 40 --targets js
"""

import argparse
import ctypes
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import js_export_backend
import numpy as np
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
    low, high = (np.broadcast_to(end, (p,)) for end in (made.inputs.low, made.inputs.high))
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
    if to == "js":
        return js_export_backend.outputs(js_export_backend.predictions(folder / "model.mjs", U), made.sizes[2])
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
    subprocess.run(command, check=True, capture_output=True, timeout=600)
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
