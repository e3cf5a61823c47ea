"""This script solves small problems with the Numba twin; `test_numba_plain.py` runs it in separate processes.

NUMBA_DISABLE_JIT=1 python plain_solves.py VECTOR_BYTES GROUP   compares plain Python with the NumPy twin
python plain_solves.py                                          prints a hash of every answer, compiled or not
"""

import hashlib
import importlib.util
import itertools
import sys
import warnings
from pathlib import Path

import numpy as np

import idl_ref
from idl_ref import (
    SGD,
    Adam,
    ImplicitModel,
    SolveOptions,
    activations,
    fit,
    functions,
    solve_adjoint,
    solve_equilibrium,
)

NAME = "idl_ref.backends.numba.simd_plain"
DTYPES = (np.float32, np.float64)
KINDS = ("random", "hard", "far", "large")


def use_vectors(size, group):
    """Set the vector size in bytes and the number of columns of a product, before the twin is imported."""
    path = Path(idl_ref.__file__).parent / "backends" / "numba" / "simd_plain.py"
    spec = importlib.util.spec_from_file_location(NAME, path)
    module = importlib.util.module_from_spec(spec)
    assert NAME not in sys.modules
    sys.modules[NAME] = module
    spec.loader.exec_module(module)
    module.VECTOR_BYTES, module.GROUP = size, group


def spoil_new_memory():
    """Fill every array of np.empty with inf, or the largest integer, so that memory that is read unwritten shows."""
    empty = np.empty

    def spoilt(*arguments, **options):
        array = empty(*arguments, **options)
        if array.dtype.kind in "if":
            array[...] = np.inf if array.dtype.kind == "f" else np.iinfo(array.dtype).max
        return array

    np.empty = spoilt


def matrix(kind, n, dtype, rng):
    """Return a matrix, or a pair of factors for "low".

    A "far" matrix has an ∞-norm above 1 and a Perron root below 1; a "large" one has both above 1.
    """
    A = rng.standard_normal((n, n))
    if kind == "low":
        L, R = rng.standard_normal((2, n, 2))
        return (0.9 * L / np.abs(L).sum(1).max()).astype(dtype), (R / np.abs(R).sum(0).max()).astype(dtype)
    if kind == "random":
        A *= 0.9 / np.abs(A).sum(axis=1).max()
    elif kind == "hard":
        A = np.abs(A) * 0.97 / np.abs(A).sum(axis=1, keepdims=True)
    elif kind == "far":
        A = np.triu(A, 1) / n**0.5
        A[0, -1], A[-1, 0] = 3.0, 0.01
    elif kind == "triangle":
        A = np.tril(A, -1) / n**0.5
    elif kind == "large":
        A *= 3 / n**0.5
    return A.astype(dtype)


def options(dtype, **changes):
    """Return options with a tolerance that suits the dtype."""
    return SolveOptions(**{"tol": 1e-5 if dtype == np.float32 else 1e-10, "on_failure": "ignore", **changes})


def agree(case, plain, numpy_twin):
    """Assert that both answers are within their bounds, and that columns end with the same kind of status."""
    assert np.array_equal(plain.status == 3, numpy_twin.status == 3), (case, plain.status, numpy_twin.status)
    if "large" in case:  # Whether and where such an iteration ends depends on rounding.
        return
    apart = np.abs(plain.X.astype(float) - numpy_twin.X).max(axis=0, initial=0.0)
    finite = np.isfinite(numpy_twin.error_bound)
    assert np.array_equal(plain.status > 1, numpy_twin.status > 1), (case, plain.status, numpy_twin.status)
    assert np.array_equal(np.isfinite(plain.error_bound), finite), (case, plain.error_bound, numpy_twin.error_bound)
    assert np.all(apart[finite] <= (plain.error_bound + numpy_twin.error_bound)[finite]), case
    compared = finite & (numpy_twin.status <= 1) & (plain.iterations == numpy_twin.iterations)
    a, b = plain.error_bound[compared], numpy_twin.error_bound[compared]
    assert np.all((a <= 5 * b) & (b <= 5 * a)), (case, a, b)


def same(case, a, b):
    """Assert that two solutions have the same bits."""
    for name in ("X", "status", "iterations", "step", "error_bound"):
        assert np.array_equal(getattr(a, name), getattr(b, name), equal_nan=True), (case, name)


def both(case, solve, *arrays, **how):
    """Solve with the Numba twin, compare the solution with that of the NumPy twin, and return it."""
    plain = solve(*arrays, backend="numba", **how)
    agree(case, plain, solve(*arrays, backend="numpy", **how))
    return plain


def every_method():
    """Solve by every method: forward and adjoint, dense and low rank, with and without a start, and with NaN."""
    for dtype, (kind, method) in itertools.product(
        DTYPES,
        [
            *itertools.product(KINDS, ("auto", "anderson", "newton")),
            *itertools.product(("low",), ("auto", "picard", "anderson", "newton")),
            ("random", "picard"),
            ("triangle", "substitution"),
        ],
    ):
        case = kind, method, dtype.__name__
        rng = np.random.default_rng(3)
        n, m = (9, 5) if kind != "low" else (17, 4)
        A, Z = matrix(kind, n, dtype, rng), rng.standard_normal((n, m)).astype(dtype)
        Z[2, 1] = np.nan
        how = {"options": options(dtype, method=method, max_iter=30)}
        both(("forward", *case), solve_equilibrium, A, Z, activation="tanh", **how)
        start = rng.standard_normal(Z.shape).astype(dtype)
        start[0, 2] = np.inf
        both(("start", *case), solve_equilibrium, A, Z, X0=start, **how)
        S = rng.random(Z.shape).astype(dtype)
        S[1, 3] = np.nan
        both(("adjoint", *case), solve_adjoint, A, S, Z, **how)


def every_activation():
    """Compute φ(Z) as the solution for A = 0, and compute slopes, which Newton's method uses."""
    edges = [0.0, -0.0, 1.0, -1.0, 1e-30, -1e-30, 30.0, -30.0, 800.0, -800.0, 0.3, -0.3]
    for dtype, (name, row) in itertools.product(DTYPES, activations.TABLE.items()):
        Z = np.array(edges, dtype)[:, None]
        how = {"activation": name, "options": options(dtype)}
        solution = solve_equilibrium(np.zeros((12, 12), dtype), Z, backend="numba", **how)
        with np.errstate(all="ignore"):
            expected = row.phi(Z.astype(float))
        limits = np.finfo(dtype)
        assert np.all(np.abs(solution.X - expected) <= 4 * limits.eps * np.abs(expected) + limits.tiny), (name, dtype)
        rng = np.random.default_rng(0)
        A, Z = matrix("random", 5, dtype, rng), rng.standard_normal((5, 2)).astype(dtype)
        how = {"activation": name, "options": options(dtype, method="newton")}
        both((name, dtype), solve_equilibrium, A, Z, **how)


def every_order():
    """Solve by blocks of units without a cycle, with and without gaps, forward and adjoint, and as a model."""
    rng = np.random.default_rng(6)
    for dtype, shuffled in itertools.product(DTYPES, (False, True)):
        units = rng.permutation(37) if shuffled else np.arange(37)
        A, Z = np.zeros((37, 37), dtype), rng.standard_normal((37, 9)).astype(dtype)
        A[17:36, :17], A[36, 17:36] = rng.standard_normal((19, 17)) / 4, 1
        A, S, how = (
            A[np.ix_(units, units)],
            rng.random(Z.shape).astype(dtype),
            {"options": options(dtype, method="blocks")},
        )
        both(("forward", dtype, shuffled), solve_equilibrium, A, Z, activation="sigmoid", **how)
        both(("adjoint", dtype, shuffled), solve_adjoint, A, S, Z, **how)
        U, outputs = rng.standard_normal((5, 21)), []
        for backend in ("numba", "numpy"):
            model = ImplicitModel(
                21, 2, 37, bias=True, f=functions.ImplicitFunction, dtype=np.dtype(dtype).name, seed=2, backend=backend,
                method="blocks",
            )  # fmt: skip
            model.parameters["A"][...] = A
            model.parameters["B"][units[17:], :-1] = 0
            outputs.append(model(U))
        assert np.allclose(*outputs, rtol=1e-4, atol=1e-5), (dtype, shuffled)


def every_layout():
    """Check that tiles, single columns, Fortran order and strides do not change a bit of the answer."""
    for dtype in DTYPES:
        rng = np.random.default_rng(1)
        A, Z = matrix("hard", 18, dtype, rng), rng.standard_normal((18, 11)).astype(dtype)
        how = {"backend": "numba", "options": options(dtype)}
        expected = solve_equilibrium(A, Z, **how)
        wide, strided = np.zeros((18, 22), dtype), np.zeros((36, 54), dtype)
        wide[:, ::2], strided[::2, ::3] = Z, A
        same("fortran", expected, solve_equilibrium(np.asfortranarray(A), np.asfortranarray(Z), **how))
        same("strides", expected, solve_equilibrium(strided[::2, ::3], wide[:, ::2], **how))
        for tile in (1, 4):
            same(tile, expected, solve_equilibrium(A, Z, backend="numba", options=options(dtype, tile=tile)))
        alone = solve_equilibrium(A, Z[:, [3]], **how)
        assert np.array_equal(alone.X[:, 0], expected.X[:, 3])


def every_product():
    """Compute products with one and several blocks, and with every number of panels."""
    for n in (40, 70, 150):
        rng = np.random.default_rng(n)
        for A in (matrix("low", n, np.float32, rng), matrix("random", n, np.float32, rng)):
            Z = rng.standard_normal((n, 1 if n == 150 else 2)).astype(np.float32)
            both((n, len(A)), solve_equilibrium, A, Z, options=options(np.float32, method="picard"))


def every_failure():
    """Solve systems without a solution, and equations whose trial points are rejected."""
    singular, Z = np.eye(4), np.array([[1.0, -1.0, 0.5]] * 4)
    for A, method in itertools.product((singular, (singular[:, :1], singular[:, :1])), ("newton", "anderson")):
        both(("singular", method), solve_equilibrium, A, Z, options=options(np.float64, method=method, max_iter=30))
    A = np.array([[1 - 2.0**-53]])  # Newton's δ overflows for this matrix.
    both(("overflow",), solve_equilibrium, A, Z[:1] * 1e300, options=options(np.float64, method="newton", max_iter=30))
    swap = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.5], [0.9, 0.9, 0.0]])  # Its elimination exchanges rows.
    both(("swap",), solve_equilibrium, swap, Z[:3], activation="identity", options=options(np.float64, method="newton"))
    rng = np.random.default_rng(5)
    A, Z = 4 * rng.standard_normal((12, 12)), rng.standard_normal((12, 6))
    how = {"options": options(np.float64, method="anderson", max_iter=90)}
    for name in ("relu", "hardtanh"):
        both(("large", name), solve_equilibrium, A, Z, activation=name, **how)


def one_sample():
    """Check a frozen model: single samples, their certificates, and slow samples, which the layer solves."""
    for dtype, low_rank, scale in itertools.product(("float32", "float64"), (False, True), (1.0, 1.3)):
        answers = []
        for backend in ("numba", "numpy"):
            rank = {"is_low_rank": True, "rank": 13} if low_rank else {}
            model = ImplicitModel(
                4, 3, 13, bias=True, dtype=dtype, seed=2, backend=backend, on_failure="ignore", kappa=0.95, **rank
            )
            for name in model.parameters.keys() & {"A", "L"}:
                model.parameters[name] = scale * np.abs(model.parameters[name])  # These weights converge slowly.
            U = np.random.default_rng(1).standard_normal((3, 4))
            predictor = model.freeze()
            certified = predictor.certified(U[:1])
            gradients = model.loss_and_gradients(U, np.array([0, 1, 2]), "cross_entropy")[1]
            answers.append((predictor(U[:1]), certified.Y, predictor(U), gradients["B"], certified.error_bound))
        for plain, numpy_twin in zip(*answers, strict=True):
            assert np.allclose(plain, numpy_twin, rtol=0.1, atol=1e-4), (dtype, low_rank, scale)
        assert np.abs(answers[0][0] - answers[1][0]).max() <= (answers[0][-1] + answers[1][-1]).max()


def passes():
    """Compare outputs, gradients and a training step with those of the NumPy twin, for sizes with and without rests."""
    for dtype, (low_rank, no_D, n, q, m), loss in itertools.product(
        DTYPES, ((False, False, 21, 5, 7), (True, True, 17, 2, 1), (False, True, 3, 1, 3)), ("cross_entropy", "mse")
    ):
        rank = {"is_low_rank": True, "rank": 3} if low_rank else {}
        rng, results = np.random.default_rng(4), []
        U = rng.standard_normal((m, 19))
        T = rng.integers(0, q, m) if loss == "cross_entropy" else rng.standard_normal((m, q))
        for backend in ("numba", "numpy"):
            model = ImplicitModel(
                19, q, n, bias=True, no_D=no_D, dtype=np.dtype(dtype).name, seed=2, backend=backend, tol=1e-6,
                activation="tanh", **rank
            )  # fmt: skip
            value, gradients = model.loss_and_gradients(U, T, loss)
            optimizer = SGD(0.1, nesterov=True) if no_D else Adam(0.01, clip=0.1)
            weights = None if low_rank else np.arange(1, m + 1)
            fit(
                model, U, T, loss=loss, epochs=2, batch_size=3, optimizer=optimizer, sample_weight=weights,
                progress=False,
            )  # fmt: skip
            alone = [model(U[[j]])[0] for j in range(m)]
            assert backend == "numpy" or np.array_equal(model(U), alone), (dtype, low_rank, loss)
            results.append([value, *gradients.values(), *model.parameters.values()])
        for plain, numpy_twin in zip(*results, strict=True):
            assert np.allclose(plain, numpy_twin, rtol=1e-3, atol=1e-4), (dtype, low_rank, loss)
    model = ImplicitModel(4, 3, 8, backend="numba")
    model.parameters["C"][...] = np.finfo(np.float32).max
    try:
        fit(model, np.full((4, 4), 1e30), np.zeros((4, 3)), loss="mse", epochs=1, progress=False)
    except FloatingPointError:
        return
    raise AssertionError("a loss that is not finite was used")


def maps():
    """Compare the maps f and their pullbacks with those of the definition, also for κ = 0, at the ball, and for inf."""
    from idl_ref.backends.numba.maps import KINDS
    from idl_ref.backends.numba.parametrisation import effective, pulled_back

    rng = np.random.default_rng(0)
    for name, kappa, dtype, scale, odd in itertools.product(KINDS, (0.5, 0.0), DTYPES, (0.05, 1.0), (0.0, np.inf)):
        f, (F, G) = functions.FUNCTIONS[name](kappa), (scale * rng.standard_normal((2, 9, 7))).astype(dtype)
        F[2, 3], tolerance = odd, 20 * np.finfo(dtype).eps
        F[4], F[4, 1] = 0, kappa  # Rounding could decide whether this row is outside the ball.
        with np.errstate(invalid="ignore"):  # inf − inf is NaN for both.
            expected = f.effective((F,))[0], f.pullback((F,), (G,))[0]
        results = effective(f, F, np.empty_like(F)), pulled_back(f, F, G, np.empty_like(F))
        for result, defined in zip(results, expected, strict=True):
            assert np.allclose(result, defined, tolerance, tolerance, equal_nan=True), (name, kappa, dtype, scale, odd)


def compare(size, group):
    """Check every part of the twin as plain Python, with vectors of the given size."""
    use_vectors(size, group)
    spoil_new_memory()
    warnings.simplefilter("error")
    for run in (
        every_method,
        every_activation,
        every_order,
        every_layout,
        every_product,
        every_failure,
        one_sample,
        maps,
        passes,
    ):
        run()
    from idl_ref.backends.numba import kernels, simd_plain

    assert kernels.picard.__wrapped__.__code__.co_filename.endswith("kernels.py")  # The kernel is plain Python.
    assert size == simd_plain.VECTOR_BYTES
    assert group == kernels.GROUP


def hashes():
    """Print a hash of the whole solution of each problem."""
    kernels = ((np.float32, "picard"), (np.float32, "newton"), (np.float64, "anderson"))  # Compiling more takes long.
    for (dtype, method), kind, name in itertools.product(
        kernels, ("random", "hard", "low"), ("relu", "tanh", "softplus", "elu")
    ):
        rng = np.random.default_rng(0)
        A, Z = matrix(kind, 17, dtype, rng), rng.standard_normal((17, 6)).astype(dtype)
        how = {"activation": name, "options": options(dtype, method=method, max_iter=30)}
        solution = solve_equilibrium(A, Z, backend="numba", **how)
        digest = hashlib.sha256()
        for part in (solution.X, solution.status, solution.iterations, solution.step, solution.error_bound):
            digest.update(np.ascontiguousarray(part).tobytes())
        print(dtype.__name__, kind, method, name, digest.hexdigest())


if __name__ == "__main__":
    if len(sys.argv) > 1:
        compare(*map(int, sys.argv[1:]))
    else:
        hashes()
