"""The CUDA twin against the NumPy twin: every kernel, at sizes that are not multiples of a tile or of the padding.

IDL_REF_CUDA=sim runs the kernels in numba.cuda's simulator, IDL_REF_CUDA=ptx interprets their PTX; without the variable
these tests are skipped.
"""

import ctypes
import itertools

import numpy as np
import pytest
from conftest import CUDA
from strategies import DTYPES, matrix, pair

import idl_ref
from idl_ref import (
    SGD,
    Adam,
    ImplicitFunction,
    ImplicitFunctionRows,
    ImplicitFunctionTriu,
    ImplicitModel,
    SolveOptions,
    Status,
    activations,
    datasets,
    fit,
    solve_adjoint,
    solve_equilibrium,
    wellposed,
)
from idl_ref.backends.methods import NEWTON_LIMIT

pytestmark = pytest.mark.cuda
if not CUDA:
    pytest.skip("set IDL_REF_CUDA=sim or IDL_REF_CUDA=ptx", allow_module_level=True)
from idl_ref.backends.cuda import algebra as cuda_algebra  # noqa: E402
from idl_ref.backends.cuda import layer as cuda_  # noqa: E402
from idl_ref.backends.cuda import plans as cuda_plans  # noqa: E402
from idl_ref.backends.cuda import trainer as cuda_training  # noqa: E402

KINDS = ("shared", "streamed", "low_rank", "large", "large low_rank")
METHODS = ("picard", "anderson")
SHAPES = ((1, 1), (7, 3), (8, 4), (9, 5), (17, 9)) if CUDA == "sim" else ((1, 1), (40, 5), (70, 9), (17, 4))


def options(dtype, **changes):
    """Return options with a tolerance for the dtype and at most 60 iterations, with some of them changed."""
    tol = 1e-5 if dtype is np.float32 else 1e-10
    return SolveOptions(**{"tol": tol, "max_iter": 60, "on_failure": "ignore", **changes})


@pytest.fixture
def only(monkeypatch):
    """Return a function that leaves only one kind of kernel in TABLE."""

    def leave(kind):
        rows = tuple(row for row in cuda_plans.TABLE if row.kind == kind.split()[0])
        monkeypatch.setattr(cuda_plans, "TABLE", rows)

    return leave


def problem(kind, n, m, dtype, seed=0):
    """Return A for a kind of kernel, a random Z (n, m), and the random generator for further arrays."""
    rng = np.random.default_rng(seed)
    r = min(3, n)
    A = pair(n, r, 0.8, rng, dtype) if kind.endswith("low_rank") else matrix("random", n, 0.8, rng, dtype)
    return A, rng.standard_normal((n, m)).astype(dtype), rng


def agree(ours, theirs, dtype, exact_counts=True):
    """Assert the same answers up to rounding, the same statuses, and as many iterations but for one.

    `exact_counts` False: statuses and iterations may differ, except NONFINITE.
    """
    scale = 1 + np.nanmax(abs(theirs.X), initial=0)
    np.testing.assert_allclose(ours.X, theirs.X, atol=scale * (5e-5 if dtype is np.float32 else 1e-9))
    np.testing.assert_array_equal(ours.status == Status.NONFINITE, theirs.status == Status.NONFINITE)
    assert ours.X.dtype == dtype
    if exact_counts:
        np.testing.assert_array_equal(ours.status, theirs.status)
        assert abs(ours.iterations - theirs.iterations).max() <= 1
    np.testing.assert_array_equal(np.isfinite(ours.error_bound), np.isfinite(theirs.error_bound))


CASES = [
    (kind, method, dtype, activation, *SHAPES[i // 4 % len(SHAPES)])
    for i, (kind, method, dtype, activation) in enumerate(itertools.product(KINDS, METHODS, DTYPES, activations.TABLE))
][:: 1 if CUDA == "sim" else 4]  # the slow interpreter gets a quarter, with some cases of every kernel and activation


@pytest.mark.parametrize(("kind", "method", "dtype", "activation", "n", "m"), CASES)
def test_forward(only, kind, method, dtype, activation, n, m):
    only(kind)
    A, Z, _ = problem(kind, n, m, dtype)
    how = {"activation": activation, "options": options(dtype, method=method)}
    agree(solve_equilibrium(A, Z, **how, backend="cuda"), solve_equilibrium(A, Z, **how, backend="numpy"), dtype)


MIX = list(activations.TABLE)
MIXED = [
    (kind, method, dtype, *SHAPES[i % 3 + 1])
    for i, (kind, method, dtype) in enumerate(
        itertools.product((*KINDS, "triangle"), ("picard", "anderson", "newton"), DTYPES)
    )
][:: 1 if CUDA == "sim" else 4]


@pytest.mark.parametrize(("kind", "method", "dtype", "n", "m"), MIXED)
def test_an_activation_per_row(only, kind, method, dtype, n, m):
    """Answers, bounds and counts are those of the NumPy twin, for rows with all activations in turn."""
    if kind == "triangle":
        A, Z, _ = problem("shared", n, m, dtype)
        A, method = np.triu(A, 1), "auto"
    else:
        if method != "newton":  # whose kernel is one for all kinds
            only(kind)
        A, Z, _ = problem(kind, n, m, dtype)
    how = {"activation": [MIX[i % 9] for i in range(n)], "options": options(dtype, method=method)}
    ours, theirs = (solve_equilibrium(A, Z, **how, backend=backend) for backend in ("cuda", "numpy"))
    agree(ours, theirs, dtype)
    np.testing.assert_allclose(ours.error_bound, theirs.error_bound, rtol=0.5)


def test_the_norm_of_rows_with_their_own_lipschitz_constant():
    """Two rows with sigmoid, of slope 1/4, may have a sum of 2: the bound is that of κ = ½."""
    A = np.array([[0.5, 0.0, 0.0], [1.0, 0.5, 0.5], [1.0, 1.0, 0.0]])
    how = {"activation": ["tanh", "sigmoid", "sigmoid"], "options": options(np.float64)}
    Z = np.ones((3, 2))
    ours, theirs = (solve_equilibrium(A, Z, **how, backend=backend) for backend in ("cuda", "numpy"))
    np.testing.assert_allclose(ours.error_bound, theirs.error_bound, rtol=0.1)
    assert (ours.error_bound < 1e-9).all()


NEWTON = [
    (low_rank, dtype, activation, *SHAPES[i % len(SHAPES)])
    for i, (low_rank, dtype, activation) in enumerate(itertools.product((False, True), DTYPES, activations.TABLE))
][:: 1 if CUDA == "sim" else 4]


@pytest.mark.parametrize(("low_rank", "dtype", "activation", "n", "m"), NEWTON)
def test_newton(low_rank, dtype, activation, n, m):
    A, Z, rng = problem("low_rank" if low_rank else "shared", n, m, dtype)
    X0 = rng.standard_normal((n, m)).astype(dtype)
    how = {"activation": activation, "X0": X0, "options": options(dtype, method="newton")}
    ours, theirs = (solve_equilibrium(A, Z, **how, backend=backend) for backend in ("cuda", "numpy"))
    agree(ours, theirs, dtype)
    np.testing.assert_allclose(ours.error_bound, theirs.error_bound, rtol=0.5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_auto_solves_the_adjoint_of_low_rank_exactly(dtype):
    A, G, rng = problem("low_rank", 17, 9, dtype)
    S = rng.uniform(0, 1, G.shape).astype(dtype)
    G[3, 4] = np.nan
    ours, theirs = (solve_adjoint(A, S, G, options=options(dtype), backend=backend) for backend in ("cuda", "numpy"))
    agree(ours, theirs, dtype)
    assert ours.iterations.tolist() == [2, 2, 2, 2, 0, 2, 2, 2, 2]
    scale = abs(np.nan_to_num(theirs.X)).max()
    np.testing.assert_allclose(ours.X / scale, theirs.X / scale, atol=1e-6 if dtype is np.float32 else 1e-15)


def test_newton_exchanges_rows_and_gives_a_singular_system_to_picard():
    A = np.array([[1.0, -1.5, 0.0], [0.8, 0.1, 0.0], [0.0, 0.0, 1.0]])  # entry (0, 0) of I − A, the first pivot, is 0
    Z, X0 = np.array([[1.0, 1.0], [2.0, -2.0], [-1.0, 0.0]]), np.array([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    how = {"X0": X0, "options": options(np.float64, method="newton")}
    ours, theirs = (solve_equilibrium(A, Z, **how, backend=backend) for backend in ("cuda", "numpy"))
    for name in ("status", "iterations"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    np.testing.assert_allclose(ours.X, theirs.X, atol=1e-14)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", KINDS)
def test_adjoint(only, kind, method, dtype):
    only(kind)
    for n, m in SHAPES[1:4]:
        A, G, rng = problem(kind, n, m, dtype)
        S, V0 = rng.uniform(0, 1, (n, m)).astype(dtype), rng.standard_normal((n, m)).astype(dtype)
        how = {"V0": V0, "options": options(dtype, method=method)}
        ours = solve_adjoint(A, S, G, **how, backend="cuda")
        theirs = solve_adjoint(A, S, G, **how, backend="numpy")
        agree(ours, theirs, dtype)
        np.testing.assert_allclose(ours.error_bound, theirs.error_bound, rtol=0.5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_column_that_is_not_finite_changes_no_other(only, kind):
    only(kind)
    A, Z, rng = problem(kind, 9, 6, np.float32)
    Z[2, 1], Z[0, 3] = np.nan, -np.inf
    X0 = rng.standard_normal(Z.shape).astype(np.float32)
    X0[4, 5] = np.inf
    for method in METHODS:
        how = {"X0": X0, "options": options(np.float32, method=method)}
        ours = solve_equilibrium(A, Z, **how, backend="cuda")
        agree(ours, solve_equilibrium(A, Z, **how, backend="numpy"), np.float32)
        assert ours.status.tolist() == [0, 3, 0, 3, 0, 3]
        assert ours.iterations[[1, 3, 5]].tolist() == [0, 0, 0]


@pytest.mark.parametrize("method", METHODS)
def test_minus_infinity_into_relu_is_0(method):
    A, Z = np.array([[0, 0], [-3e38, 0.1]], np.float32), np.array([[1e30], [1.0]], np.float32)
    how = {"options": options(np.float32, method=method)}
    ours = solve_equilibrium(A, Z, **how, backend="cuda")
    assert ours.X.ravel().tolist() == [np.float32(1e30), 0]
    assert ours.succeeded[0]


def test_overflow_is_reported_as_not_finite_and_changes_no_other_column():
    A, Z = np.full((3, 3), 1.5, np.float32), np.zeros((3, 2), np.float32)
    Z[0, 1] = 1e38
    ours = solve_equilibrium(A, Z, options=options(np.float32, method="picard"), backend="cuda")
    assert ours.status.tolist() == [0, 3]
    assert np.isnan(ours.X[:, 1]).all()


def hard(n, m, dtype):
    """Return A and Z for which Picard converges slowly."""
    rng = np.random.default_rng(3)
    return matrix("hard", n, 0.97, rng, dtype), rng.uniform(0.1, 1, (n, m)).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_auto_turns_to_anderson_where_picard_is_slow(dtype):
    A, Z = hard(12, 6, dtype)
    Z[:, 2] = 0
    how = {"options": options(dtype, max_iter=100)}
    ours, theirs = (solve_equilibrium(A, Z, **how, backend=backend) for backend in ("cuda", "numpy"))
    agree(ours, theirs, dtype, exact_counts=False)
    assert ours.converged
    assert ours.iterations.max() <= theirs.iterations.max() + 5 <= 40
    assert ours.iterations[2] == 1


@pytest.mark.parametrize("low_rank", [False, True])
def test_answers_of_newton_are_bitwise_the_same_alone(low_rank):
    A, Z, _ = problem("low_rank" if low_rank else "shared", 9, 21, np.float32)
    Z *= np.float32(10.0) ** np.linspace(-5, 5, 21).astype(np.float32)
    how = {"activation": "tanh", "options": options(np.float32, method="newton"), "backend": "cuda"}
    whole = solve_equilibrium(A, Z, **how)
    for j in (0, 17):
        alone = solve_equilibrium(A, Z[:, [j]], **how)
        for name in ("status", "iterations", "step"):
            assert getattr(alone, name)[0] == getattr(whole, name)[j]
        np.testing.assert_array_equal(alone.X[:, 0], whole.X[:, j])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_answers_are_bitwise_the_same_for_every_tile_and_alone(only, method, kind):
    only(kind)
    A, Z, _ = problem(kind, 20, 11, np.float32)
    Z *= np.float32(10.0) ** np.arange(-5, 6)
    whole = solve_equilibrium(A, Z, options=options(np.float32, method=method, max_iter=8), backend="cuda")
    for tile in (4, 8) if CUDA == "sim" else (4, 16, 32):
        how = options(np.float32, method=method, max_iter=8, tile=tile)
        tiled = solve_equilibrium(A, Z, options=how, backend="cuda")
        for name in ("X", "status", "iterations", "step"):
            np.testing.assert_array_equal(getattr(tiled, name), getattr(whole, name))
    alone = solve_equilibrium(A, Z[:, [7]], options=options(np.float32, method=method, max_iter=8), backend="cuda")
    np.testing.assert_array_equal(alone.X[:, 0], whole.X[:, 7])


@pytest.mark.parametrize("turn", [np.triu, np.tril])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_triangular_matrix_is_one_sweep_forward_and_adjoint(turn, dtype):
    rng = np.random.default_rng(4)
    A = turn(3 * rng.standard_normal((11, 11)), 1 if turn is np.triu else -1).astype(dtype)
    Z, S = rng.standard_normal((11, 5)).astype(dtype), rng.uniform(0, 1, (11, 5)).astype(dtype)
    for method in ("auto", "substitution"):
        how = {"options": options(dtype, method=method)}
        pairs = [
            [solve_equilibrium(A, Z, activation="tanh", **how, backend=backend) for backend in ("cuda", "numpy")],
            [solve_adjoint(A, S, Z, **how, backend=backend) for backend in ("cuda", "numpy")],
        ]
        for ours, theirs in pairs:
            scale = abs(theirs.X).max()
            np.testing.assert_allclose(ours.X / scale, theirs.X / scale, atol=1e-5 if dtype is np.float32 else 1e-12)
            assert ours.converged
            assert ours.iterations.tolist() == [1] * 5
            assert np.isfinite(ours.error_bound).all()


def test_newton_of_large_n_and_substitution_are_refused_with_a_way_out():
    A, Z, _ = problem("shared", 5, 2, np.float32)
    big = np.eye(NEWTON_LIMIT + 1, dtype=np.float32) / 2
    with pytest.raises(ValueError, match=r'"newton" solves an n × n system .* got n = 2049: use method="auto"'):
        solve_equilibrium(big, big[:, :1], options=SolveOptions(method="newton"), backend="cuda")
    with pytest.raises(ValueError, match='"substitution" needs a strictly triangular A'):
        solve_equilibrium(A, Z, options=SolveOptions(method="substitution"), backend="cuda")


# --- arrays on the device ---------------------------------------------------------------------------------------------


class Foreign:
    """A device array of another library. Without a device, its memory is host memory."""

    def __init__(self, array):
        self.array = array
        interface = dict(array.__array_interface__)
        interface["strides"] = None if array.flags.c_contiguous else array.strides
        self.__cuda_array_interface__ = interface | {"version": 3}


@pytest.fixture
def foreign(monkeypatch):
    """Return `Foreign`, and let the interpreter read the memory of foreign arrays, as the simulator does by itself."""
    if CUDA == "ptx":
        from ptx.host import DeviceArray

        class View(DeviceArray):
            """A foreign array, wrapped without a copy; its methods are those that `api.matrix` uses."""

            def __init__(self, array):
                interface = array.__cuda_array_interface__
                kind = ctypes.c_float if interface["typestr"] == "<f4" else ctypes.c_double
                size = int(np.prod(interface["shape"]))
                flat = np.ctypeslib.as_array((kind * size).from_address(interface["data"][0]))
                super().__init__(flat, True)
                self.shape = interface["shape"]
                self.order = "C" if not interface.get("strides") or interface["strides"][-1] == flat.itemsize else "F"

            def is_c_contiguous(self):
                return self.order == "C"

            def is_f_contiguous(self):
                return self.order == "F"

            def reshape(self, size):
                return self

            @property
            def T(self):
                return self

        monkeypatch.setattr(cuda_.api, "view", View)
        monkeypatch.setattr(DeviceArray, "reshape", lambda self, n, m: self.values.reshape(n, m), raising=False)
    return Foreign


@pytest.mark.parametrize("low_rank", [False, True])
def test_arrays_on_the_device_give_an_answer_on_the_device(foreign, low_rank):
    A, Z, rng = problem("low_rank" if low_rank else "shared", 9, 5, np.float32)
    S = rng.uniform(0, 1, Z.shape).astype(np.float32)
    d_A = tuple(foreign(F) for F in A) if low_rank else foreign(A)
    how = {"options": options(np.float32)}
    ours = solve_equilibrium(d_A, foreign(Z), **how, backend="cuda")
    theirs = solve_equilibrium(A, Z, **how, backend="cuda")
    if CUDA == "sim":
        assert not isinstance(ours.X, np.ndarray)
        np.testing.assert_array_equal(ours.X.copy_to_host(), theirs.X)
    else:
        np.testing.assert_array_equal(ours.X, theirs.X)
    np.testing.assert_array_equal(ours.error_bound, theirs.error_bound)
    adjoint = solve_adjoint(d_A, foreign(S), foreign(np.asfortranarray(Z)), **how, backend="cuda")
    expected = solve_adjoint(A, S, Z, **how, backend="cuda")
    X = adjoint.X.copy_to_host() if CUDA == "sim" else adjoint.X
    np.testing.assert_array_equal(X, expected.X)


def test_the_warning_for_arrays_on_the_device_does_not_need_the_norm_of_a(foreign):
    A, Z = hard(6, 2, np.float32)
    with pytest.warns(idl_ref.ConvergenceWarning, match='try method="auto", or check ‖A‖∞\\.$'):
        solve_equilibrium(
            foreign(A), foreign(Z), options=SolveOptions(max_iter=3, method="picard"), backend="cuda"
        )  # fmt: skip


def test_no_samples_on_the_device(foreign):
    A, _, _ = problem("shared", 3, 2, np.float32)
    solution = solve_equilibrium(foreign(A), foreign(np.zeros((3, 0), np.float32)), backend="cuda")
    assert tuple(solution.X.shape) == (3, 0)
    assert solution.converged


def test_rank_0_on_the_device_is_phi_of_z(foreign):
    L, Z = np.zeros((3, 0), np.float32), np.arange(-2, 4, dtype=np.float32).reshape(3, 2)
    solution = solve_equilibrium((foreign(L), foreign(L)), foreign(Z), backend="cuda")
    X = solution.X.copy_to_host() if CUDA == "sim" else solution.X
    assert X.tolist() == [[0, 0], [0, 1], [2, 3]]


@pytest.mark.parametrize("method", ["auto", "picard", "anderson", "newton", "substitution"])
@pytest.mark.parametrize("low_rank", [False, True])
def test_copies_and_kernels_are_queued_on_the_given_stream(monkeypatch, method, low_rank):
    if method == "substitution":
        A, Z = np.triu(np.ones((9, 9), np.float32), 1), np.ones((9, 5), np.float32)
    else:
        A, Z, _ = problem("low_rank" if low_rank else "large", 9, 5, np.float32)
    stream = cuda_.api.cuda.stream() if CUDA == "sim" else 77
    queued, api = [], cuda_.api
    for original, place in ((api.upload, 1), (api.empty, 2), (api.download, 1), (api.launch, 4)):

        def noted(*arguments, place=place, original=original):
            queued.append(arguments[place] if len(arguments) > place else 0)  # the place of the argument `stream`
            return original(*arguments)

        monkeypatch.setattr(api, original.__name__, noted)
    for solve, more in ((solve_equilibrium, ()), (solve_adjoint, (np.ones_like(Z),))):
        queued.clear()
        how = options(np.float32, method=method, stream=stream)
        ours = solve(A, *more, Z, options=how, backend="cuda")
        assert queued
        assert all(where is stream for where in queued)
        theirs = solve(A, *more, Z, options=options(np.float32, method=method), backend="numpy")
        agree(ours, theirs, np.float32)


# --- models and training ----------------------------------------------------------------------------------------------


def test_a_model_uses_the_cuda_twin_for_every_solve():
    U, y = datasets.two_moons(6)
    ours, theirs = (ImplicitModel(2, 2, 5, bias=True, seed=0, dtype="float64", backend=b) for b in ("cuda", "numpy"))
    (loss, gradients), (expected, exact) = (model.loss_and_gradients(U, y) for model in (ours, theirs))
    assert abs(loss - expected) < 1e-6
    for name, G in exact.items():
        np.testing.assert_allclose(gradients[name], G, atol=1e-5)
    packed = ours.layer()._packed
    assert None not in packed  # A was packed for the forward and for the adjoint equation
    ours(U)
    assert ours.layer()._packed is packed


FUNCTIONS = [
    {},
    {"f": ImplicitFunctionRows},
    {"f": ImplicitFunctionTriu, "activation": "tanh"},
    {"f": ImplicitFunction, "no_D": True},
    {"is_low_rank": True, "rank": 2, "bias": True},
    {"f": ImplicitFunctionRows, "is_low_rank": True, "rank": 2},
    {"straight_through": True, "activation": "softplus"},
    {"activation": ["relu", "tanh", "sigmoid", "relu", "hardtanh"], "bias": True},
]


OPTIMIZERS = {
    "sgd": lambda: SGD(0.5, nesterov=True, weight_decay=0.01, schedule="cosine"),
    "adam": lambda: Adam(0.1, weight_decay=0.01, clip=0.1),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("settings", FUNCTIONS, ids=str)
def test_training_on_the_device_takes_the_same_steps(settings, optimizer, monkeypatch):
    """The weights are outside of the ball of `f`, so that `f` changes them; small tolerances leave only rounding."""
    if CUDA == "sim":
        monkeypatch.setattr(cuda_algebra, "TILE", 2)
        monkeypatch.setattr(cuda_training, "THREADS", 4)
    x, y = datasets.two_moons(9)
    models = []
    for backend in ("numpy", "cuda"):
        tight = {"tol": 1e-11, "grad_tol": 1e-11, "mitr": 1000, "grad_mitr": 1000}
        model = ImplicitModel(2, 2, 5, seed=0, dtype="float64", backend=backend, kappa=0.5, **tight, **settings)
        for name in "ALR":
            if name in model.parameters:
                model.parameters[name] *= 2
        history = fit(model, x, y, epochs=1, batch_size=5, progress=False, optimizer=optimizer())
        models.append((model, history))
    (theirs, expected), (ours, history) = models
    for name, W in theirs.parameters.items():
        np.testing.assert_allclose(ours.parameters[name], W, atol=1e-8)
    assert abs(history.loss[0] - expected.loss[0]) < 1e-8
    assert history.accuracy == expected.accuracy
    assert abs(history.norm[0] - expected.norm[0]) < 1e-8


@pytest.mark.parametrize("dtype", DTYPES)
def test_kappa_is_not_lost_beside_large_entries_on_the_device(dtype, monkeypatch):
    if CUDA == "sim":
        monkeypatch.setattr(cuda_training, "THREADS", 4)
    rng = np.random.default_rng(0)
    A = np.array([[1e17, 1, 0], [1e8, 1, -2], [1e30, 1e30, -1e30], [0.1, 0.2, 0.3]], dtype)
    G, levels = rng.standard_normal(A.shape).astype(dtype), (dtype(0.99), np.finfo(dtype).eps)
    d_A, d_G = (cuda_.api.matrix(M, np.dtype(dtype)) for M in (A, G))
    projected = cuda_training.project(d_A, levels).download()
    np.testing.assert_allclose(projected, wellposed.project_rows(A, 0.99), rtol=1e-5)
    assert np.abs(projected).sum(axis=1, dtype=np.float64).max() <= 0.99
    pulled = cuda_training.pull_project(d_A, d_G, levels).download()
    np.testing.assert_allclose(pulled, wellposed.project_rows_pullback(A, 0.99, G), rtol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_always_zero_has_no_gradient_on_the_device(dtype):
    """With κ = 0, f gives 0 for every A, also for A = 0."""
    levels, G = (dtype(0), np.finfo(dtype).eps), np.ones((3, 3), dtype)
    for A in (np.zeros((3, 3), dtype), np.eye(3, dtype=dtype)):
        d_A, d_G = (cuda_.api.matrix(M, np.dtype(dtype)) for M in (A, G))
        for pull in (cuda_training.pull_scale, cuda_training.pull_project):
            assert not pull(d_A, d_G, levels).download().any()
        for of_f in (cuda_training.scale, cuda_training.project):
            assert not of_f(d_A, levels).download().any()


def test_training_stops_before_a_gradient_that_is_not_finite(monkeypatch):
    if CUDA == "sim":
        monkeypatch.setattr(cuda_algebra, "TILE", 2)
        monkeypatch.setattr(cuda_training, "THREADS", 4)
    model = ImplicitModel(2, 1, 4, seed=0, backend="cuda")
    before = {name: W.copy() for name, W in model.parameters.items()}
    U = np.array([[1e30, 1.0], [1.0, 1.0]])
    with pytest.raises(FloatingPointError, match=r"epoch 1, batch 1: the (loss|gradient of \w) is not finite|is inf"):
        fit(model, U, np.ones((2, 1)), loss="mse", epochs=1, optimizer=SGD(), progress=False)
    for name, W in before.items():
        np.testing.assert_array_equal(model.parameters[name], W)


class Mine(ImplicitFunction):
    """An `f` of a user, for which the CUDA twin has no kernel."""

    name = "mine"


def test_an_f_that_the_device_does_not_know_is_refused():
    model = ImplicitModel(2, 2, 4, f=Mine, seed=0, backend="cuda")
    with pytest.raises(ValueError, match=r"f must be one of .* to be trained on the device; got Mine: train with"):
        fit(model, *datasets.two_moons(4), epochs=1, progress=False)
