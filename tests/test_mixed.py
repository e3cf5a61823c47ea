"""An activation per row, against rational equilibria, differences, models solved one after the other, and exports."""

import copy
import ctypes
import importlib.util
import itertools
import json
import pickle
import shutil
import subprocess
from fractions import Fraction

import naive
import numpy as np
import pytest

import idl_ref
from idl_ref import (
    Activation,
    ImplicitClassifier,
    ImplicitFunction,
    ImplicitFunctionTriu,
    ImplicitModel,
    SolveOptions,
    certify,
    solve_adjoint,
    solve_equilibrium,
)
from idl_ref.activation_names import from_plain
from idl_ref.activations import LEAK, TABLE, get
from idl_ref.analysis import (
    ImplicitRNN,
    absorb_diagonal,
    add,
    cascade,
    feedback,
    network,
    parallel,
    rescale,
    residual,
    robust,
    stack,
    unrolled,
)
from idl_ref.certificate import Certifier
from idl_ref.export import export
from idl_ref.gradcheck import check_gradients
from idl_ref.wellposed import norm_inf

rng = np.random.default_rng(20)
NAMES = list(TABLE)
PIECES = {  # For each activation that has pieces: (slope, value at 0) on each of them, and the ends of the pieces.
    "identity": ([(1, 0)], []),
    "relu": ([(0, 0), (1, 0)], [0]),
    "leaky_relu": ([(Fraction(LEAK), 0), (1, 0)], [0]),
    "hardtanh": ([(0, -1), (1, 0), (0, 1)], [-1, 1]),
}
METHODS = ("auto", "picard", "anderson", "newton", "blocks")


def mix(n, names=NAMES, seed=0):
    """n names, of which at least two differ."""
    drawn = np.random.default_rng(seed).integers(0, len(names), n)
    drawn[0], drawn[-1] = 0, 1
    return [names[k] for k in drawn]


def hard(n, m, dtype, kappa=0.99):
    """A nonnegative A whose rows all have the sum κ, and Z."""
    A, Z = rng.random((n, n)), 2 * rng.standard_normal((n, m))
    return (A * (kappa / A.sum(axis=1, keepdims=True))).astype(dtype), Z.astype(dtype)


def model(n=14, names=None, seed=0, **settings):
    fixed = {"dtype": "float64", "tol": 1e-14, "grad_tol": 1e-14, "mitr": 5000, "grad_mitr": 5000, "kappa": 0.9}
    return ImplicitModel(4, 3, n, activation=names or mix(n), seed=seed, **fixed | settings)


def apply(names, P):
    """φ(P), row by row, by the table."""
    return np.stack([TABLE[name].phi(row) for name, row in zip(names, P, strict=True)])


def rational(A, z, names, x):
    """The equilibrium in rational numbers, on the pieces that an approximate x is on."""
    n, exact = len(z), [[Fraction(float(a)) for a in row] for row in A]
    p = A.astype(float) @ x + z
    found = [PIECES[name][0][sum(v > end for end in PIECES[name][1])] for name, v in zip(names, p, strict=True)]
    M = [[(i == j) - Fraction(found[i][0]) * exact[i][j] for j in range(n)] for i in range(n)]
    b = [Fraction(s) * Fraction(float(v)) + c for (s, c), v in zip(found, z, strict=True)]
    X = naive.solve_exact(M, b) if hasattr(naive, "solve_exact") else eliminate(M, b)
    for i, name in enumerate(names):  # X solves the equation itself, not only that of the pieces.
        v = sum(a * x for a, x in zip(exact[i], X, strict=True)) + Fraction(float(z[i]))
        s, c = PIECES[name][0][sum(v > end for end in PIECES[name][1])]
        assert X[i] == Fraction(s) * v + c
    return X


def eliminate(M, b):
    """Solve M x = b by elimination."""
    M, n = [[*row, value] for row, value in zip(M, b, strict=True)], len(b)
    for k in range(n):
        pivot = next(i for i in range(k, n) if M[i][k])
        M[k], M[pivot] = M[pivot], M[k]
        for i in range(n):
            if i != k and M[i][k]:
                ratio = M[i][k] / M[k][k]
                M[i] = [a - ratio * c for a, c in zip(M[i], M[k], strict=True)]
    return [M[i][n] / M[i][i] for i in range(n)]


# --- the equation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("method", METHODS)
def test_the_rational_equilibrium(backend, dtype, method):
    names = mix(9, ["relu", "hardtanh", "leaky_relu", "identity"], seed=3)
    A, Z = hard(9, 4, dtype)
    options = SolveOptions(tol=0.0, max_iter=20_000, method=method)
    solution = solve_equilibrium(A, Z, activation=names, backend=backend, options=options)
    assert solution.converged
    bound = certify(A, Z, solution.X, activation=names)
    for j in range(4):
        exact = rational(A, Z[:, j].astype(float), names, solution.X[:, j].astype(float))
        error = [abs(Fraction(float(x)) - y) for x, y in zip(solution.X[:, j], exact, strict=True)]
        assert float(max(error)) <= solution.error_bound[j] < (1e-2 if dtype == "float32" else 1e-10)
        assert all(float(e) <= b for e, b in zip(error, bound[:, j], strict=True))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [1, 2, 7, 16, 33, 70])
def test_the_twins_agree_with_the_table(n, dtype):
    names, eps = mix(n) if n > 1 else ["tanh"], np.finfo(dtype).eps
    A, Z = hard(n, 5, dtype, 0.8)
    L, R = (rng.standard_normal((n, 2)).astype(dtype) for _ in range(2))
    L, R = (F * np.array(0.8 / norm_inf(F.T if F is R else F), dtype) for F in (L, R))
    for given, methods in (((A,), METHODS), ((np.triu(A, 1),), ("substitution", "auto")), ((L, R), METHODS[:4])):
        F = given[0] if len(given) == 1 else given
        dense = given[0] if len(given) == 1 else L.astype(float) @ R.T
        for backend, method in itertools.product(("numpy", "numba"), methods):
            options = SolveOptions(tol=0.0, max_iter=5000, method=method)
            X = solve_equilibrium(F, Z, activation=names, backend=backend, options=options).require().X
            assert np.abs(apply(names, dense.astype(float) @ X + Z) - X).max() <= 200 * eps


@pytest.mark.parametrize("upper", [True, False])
def test_the_certificate_of_a_triangle_has_the_slopes_of_each_row(upper):
    """A bound row by row takes row i alone, whose φ is flat where that of row 0 is not, and the other way round."""
    names = ["hardtanh", "identity", "relu", "hardtanh", "identity", "relu"]
    A, Z = rng.standard_normal((6, 6)), np.array([[3.0, 1.0, -4.0, 0.2, 2.0, 1.0]]).T
    A = 2 * (np.triu(A, 1) if upper else np.tril(A, -1))
    exact = solve_equilibrium(A, Z, activation=names, options=SolveOptions(tol=0, method="substitution")).X
    for size in (1e-3, 0.3):
        for _ in range(20):
            X = exact + size * rng.uniform(-1, 1, exact.shape)
            assert (np.abs(X - exact) <= certify(A, Z, X, activation=names) + 1e-12).all()


def test_bits_do_not_depend_on_tiles_mates_or_threads():
    n, m = 70, 41
    A, Z = hard(n, m, "float32", 0.97)
    for method in ("auto", "anderson", "newton"):

        def solve(Z, tile, method=method):
            options = SolveOptions(tol=1e-6, max_iter=3000, method=method, tile=tile)
            return solve_equilibrium(A, Z, activation=mix(n), backend="numba", options=options).X

        whole = solve(Z, None)
        for tile in (1, 3, 16):
            np.testing.assert_array_equal(solve(Z, tile), whole)
        np.testing.assert_array_equal(np.hstack([solve(Z[:, [j]], None) for j in range(m)]), whole)


def test_equal_entries_are_the_plain_activation():
    A, Z = hard(20, 6, "float32")
    for name, backend in itertools.product(("relu", "tanh", "sigmoid"), ("numpy", "numba")):
        one, many = (solve_equilibrium(A, Z, activation=phi, backend=backend) for phi in (name, [TABLE[name]] * 20))
        np.testing.assert_array_equal(one.X, many.X)
    assert model(names=["tanh"] * 14).activation == "tanh"
    assert get(["relu"] * 3) is TABLE["relu"]


def test_rows_with_a_flatter_activation_may_have_a_larger_norm():
    names = ["sigmoid"] * 5 + ["relu"] * 5
    A, Z = hard(10, 3, "float64", 0.9)
    A[:5] *= 3.9
    assert norm_inf(A) > 3
    certifier = Certifier((A,), get(names, 10), False, A.dtype)
    assert certifier.kappa(None, 1)[0] == pytest.approx(0.9)
    for backend in ("numpy", "numba"):
        solution = solve_equilibrium(A, Z, activation=names, backend=backend, options=SolveOptions(tol=1e-9))
        exact = solve_equilibrium(A, Z, activation=names, options=SolveOptions(tol=0, max_iter=5000)).X
        assert (np.abs(solution.X - exact).max(axis=0) <= solution.error_bound).all()
        assert solution.error_bound.max() < 1e-7
    options = SolveOptions(on_failure="ignore", max_iter=3)
    weak = solve_equilibrium(10 * A[::-1], Z, activation=["tanh"] * 5 + ["hardtanh"] * 5, options=options)
    assert (weak.error_bound <= 2 * (1 + 1e-8)).all()  # because all rows are bounded


# --- gradients --------------------------------------------------------------------------------------------------------


@pytest.mark.sampled(3)
@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("settings", [{}, {"is_low_rank": True, "rank": 3}, {"f": ImplicitFunctionTriu, "bias": True}])
def test_gradients_are_differences_of_the_loss(backend, settings):
    one = model(backend=backend, **settings)
    U, T = rng.standard_normal((5, 4)), rng.standard_normal((5, 3))
    assert check_gradients(one, U, T, loss="mse").verdict == "ok"
    _, gradients = one.loss_and_gradients(U, T, "mse")
    for name, W in one.parameters.items():
        E, h = rng.standard_normal(W.shape), 1e-6
        values = []
        for side in (1, -1):
            W += side * h * E
            values.append(one.loss_and_gradients(U, T, "mse")[0])
            W -= side * h * E
        difference = (values[0] - values[1]) / (2 * h)
        assert difference == pytest.approx(float((gradients[name] * E).sum()), rel=1e-6, abs=1e-8), name


def test_the_adjoint_identity():
    names, n = mix(12, seed=5), 12
    A, Z = hard(n, 4, "float64", 0.9)
    X = solve_equilibrium(A, Z, activation=names, options=SolveOptions(tol=0, max_iter=5000)).X
    S = get(names, n).slope(A @ X + Z)
    G, Zdot = rng.standard_normal((2, n, 4))
    V = solve_adjoint(A, S, G, options=SolveOptions(tol=1e-15, max_iter=5000)).X
    Xdot = np.stack([np.linalg.solve(np.eye(n) - s[:, None] * A, s * z) for s, z in zip(S.T, Zdot.T, strict=True)]).T
    assert (V * Zdot).sum() == pytest.approx((G * Xdot).sum(), rel=1e-12)


@pytest.mark.slow
def test_training_and_its_twins():
    U, labels = rng.standard_normal((64, 4)), rng.integers(0, 3, 64)
    found = {}
    for backend in ("numpy", "numba"):
        one = model(backend=backend, seed=3)
        before = one.loss_and_gradients(U, labels)[0]
        idl_ref.fit(one, U, labels, epochs=4, batch_size=16, progress=False)
        assert one.loss_and_gradients(U, labels)[0] < before
        found[backend] = one.parameters
    for name, W in found["numpy"].items():
        np.testing.assert_allclose(found["numba"][name], W, rtol=1e-9, atol=1e-12)


# --- models -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_frozen_copied_and_saved(tmp_path, dtype, backend):
    for settings in ({}, {"is_low_rank": True, "rank": 2}):
        one = model(dtype=dtype, backend=backend, tol=1e-6, **settings)
        U = rng.standard_normal((9, 4))
        Y, frozen, bar = one(U), one.freeze(), 200 * np.finfo(dtype).eps
        np.testing.assert_allclose(frozen(U), Y, atol=max(bar, 1e-5))
        for u in U:
            np.testing.assert_allclose(frozen(u[None]), one(u[None]), atol=1e-5)
        one.save(tmp_path / "m.npz")
        loaded = idl_ref.load(tmp_path / "m.npz", backend="auto")
        for other in (copy.deepcopy(one), pickle.loads(pickle.dumps(one)), loaded):
            assert other.activation == one.activation
            assert hash(other.activation) == hash(one.activation)
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(one))(U), Y)


def test_a_mix_in_text_and_in_a_file(tmp_path):
    one = model(7, ["relu"] * 3 + ["hardtanh"] * 4)
    assert 'activation=["relu"] * 3 + ["hardtanh"] * 4, dtype' in repr(one)
    assert one.settings.plain()["activation"] == [["relu", 3], ["hardtanh", 4]]
    assert eval(repr(one), {**vars(idl_ref), "ImplicitModel": ImplicitModel}).activation == one.activation
    many = model(40, ["relu", "tanh"] * 20)
    assert len(repr(many)) < 300
    assert one.activation != many.activation
    assert one.activation != "relu"
    big = model(30, ["relu"] * 15 + ["tanh"] * 15)
    assert len(json.dumps(big.settings.plain())) - len(json.dumps(model(30, ["relu"] * 30).settings.plain())) < 40


@pytest.mark.parametrize(
    "hostile",
    [
        [],
        [["relu", 4]],
        [["relu", 2], ["tanh", 3]],
        [["relu", 2], ["tanh", 1]],
        [["relu", 2], ["relu", 1], ["tanh", 1]],
        [["relu", 0], ["tanh", 4]],
        [["relu", True], ["tanh", 3]],
        [["relu", 2.0], ["tanh", 2]],
        [["relu", -1], ["tanh", 5]],
        [["swish", 2], ["tanh", 2]],
        [["relu", 10**30], ["tanh", 2]],
        ["relu", "relu", "tanh", "tanh"],
        [["relu", 2], {"tanh": 2}],
        [["relu", 2, 2], ["tanh", 2]],
        [[["relu"], 2], ["tanh", 2]],
        {"relu": 2, "tanh": 2},
    ],
)
def test_hostile_lists_are_refused(tmp_path, hostile):
    one = model(4, ["relu", "relu", "tanh", "tanh"])
    one.save(tmp_path / "m.npz")
    with np.load(tmp_path / "m.npz") as file:
        arrays = dict(file)
    header = json.loads(arrays["header"].tobytes())
    header["settings"]["activation"] = hostile
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(idl_ref.FileFormatError):
        idl_ref.load(tmp_path / "bad.npz")


def test_a_file_cannot_ask_for_a_long_list():
    with pytest.raises(ValueError, match="at most 1000000"):
        from_plain([["relu", 10**9], ["tanh", 10**9]], 2 * 10**9)
    with pytest.raises(ValueError, match=r"runs of equal ones.*order the hidden units"):
        model(100_000, ["relu", "tanh"] * 50_000, is_low_rank=True, rank=1).settings.plain()


def test_own_activations_in_rows():
    arctan = Activation("arctan", np.arctan, lambda P: 1 / (1 + P * P), 1.0)
    names = ["relu", arctan, "sigmoid", arctan]
    A, Z = hard(4, 3, "float64", 0.9)
    X = solve_equilibrium(A, Z, activation=names, options=SolveOptions(tol=1e-14)).X
    P = A @ X + Z
    np.testing.assert_allclose(X[[1, 3]], np.arctan(P[[1, 3]]), rtol=1e-12)
    np.testing.assert_allclose(X[0], np.maximum(P[0], 0), rtol=1e-12)
    one = model(4, names)
    assert check_gradients(one, rng.standard_normal((4, 4)), rng.integers(0, 3, 4)).verdict == "ok"
    for refused in (
        lambda: solve_equilibrium(A, Z, activation=names, backend="numba"),
        lambda: one.save("nowhere.npz"),
        lambda: export(one, "numpy", "nowhere"),
    ):
        with pytest.raises(ValueError, match="of your own"):
            refused()


def test_refusals_name_a_way_out():
    A, Z = hard(4, 1, "float64")
    for call, message in (
        (lambda: solve_equilibrium(A, Z, activation=["relu"] * 3), "n = 4 names, one per row; got 3: pass for"),
        (lambda: ImplicitModel(2, 2, 4, activation=["relu"] * 5), "n = 4 names, one per row; got 5"),
        (lambda: ImplicitModel(2, 2, 4, activation=[]), "one per row; got 0"),
        (lambda: certify(A, Z, Z, activation=("relu", "tanh")), "n = 4 names"),
        (lambda: get(["relu", "rellu"]), "activation must be one of"),
        (lambda: rescale(model(4, ["relu", "tanh"] * 2)), "in every row.*got relu, tanh"),
        (lambda: network([(np.eye(2), None)] * 3, ["relu"]), "one per hidden layer, of which there are 2; got 1"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match="activation of row 1 must be a name or an Activation; got 3"):
        get(["relu", 3])


def test_other_places_take_a_mix():
    U, labels = rng.standard_normal((30, 3)), rng.integers(0, 2, 30)
    estimator = ImplicitClassifier(hidden_dim=6, activation=("relu", "tanh") * 3, max_iter=2, random_state=0).fit(
        U, labels
    )
    assert estimator.predict(U).shape == (30,)
    rnn = ImplicitRNN(2, 1, 6, 3, activation=["relu", "hardtanh"] * 3, dtype="float64", seed=0, kappa=0.5)
    V = rng.standard_normal((4, 5, 2))
    same = ImplicitRNN(
        2, 1, 6, 3, activation=["relu", "hardtanh"] * 3, dtype="float64", seed=0, kappa=0.5, backend="numpy"
    )
    np.testing.assert_allclose(rnn(V), same(V), rtol=1e-4, atol=1e-5)


# --- compositions -----------------------------------------------------------------------------------------------------


def close(one, other):
    return np.abs(one - other).max() <= 1e-14 * max(1.0, np.abs(other).max())


def test_compositions_equal_models_solved_one_after_the_other():
    U = rng.standard_normal((6, 4))
    exact = {"tol": 0.0, "mitr": 3000, "kappa": 0.5, "dtype": "float64"}
    first = ImplicitModel(4, 4, 7, activation="relu", bias=True, seed=1, **exact)
    second = ImplicitModel(4, 4, 5, activation="hardtanh", seed=2, **exact)
    third = ImplicitModel(4, 4, 6, activation=mix(6), seed=3, is_low_rank=True, rank=2, **exact)
    for one, two in itertools.permutations((first, second, third), 2):
        joint = cascade(two, one)
        assert close(joint(U), two(one(U)))
        assert get(joint.activation).rows[: two.hidden_dim] == tuple(get(n) for n in names_of(two))
        assert close(add(one, two)(U), one(U) + two(U))
        assert close(stack(one, two)(U), np.hstack([one(U), two(U)]))
        assert close(parallel(one, two)(np.hstack([U, 2 * U])), np.hstack([one(U), two(2 * U)]))
        assert close(residual(one, two)(U), U + one(U) + two(U + one(U)))
    for W in second.parameters.values():
        W *= 0.2
    loop = feedback(first, second)
    Y = loop(U)
    assert close(first(U + second(Y)), Y)
    steps = unrolled(third, 40)
    assert np.abs(steps(U) - third(U)).max() < 1e-10
    assert steps.activation.names == third.activation.names * 40


def names_of(one):
    phi = get(one.activation)
    return phi.names if hasattr(phi, "names") else [phi.name] * one.hidden_dim


def test_a_net_with_an_activation_per_layer_or_unit():
    sizes, kinds = (3, 5, 4, 6, 2), ["relu", ["hardtanh", "tanh"] * 2, "sigmoid"]
    layers = [(rng.standard_normal((q, p)), rng.standard_normal(q)) for p, q in itertools.pairwise(sizes)]
    U = rng.standard_normal((7, 3))
    X = U.T
    for (W, b), kind in zip(layers, kinds, strict=False):
        P = W @ X + b[:, None]
        X = apply(kind if isinstance(kind, list) else [kind] * len(b), P)
    W, b = layers[-1]
    for backend in ("numpy", "numba"):
        assert close(network(layers, kinds, backend=backend)(U), (W @ X + b[:, None]).T)
    assert network(layers, "relu").activation == "relu"


def test_large_nets_are_solved_by_blocks():
    layers = [(rng.standard_normal((q, p)) / p**0.5, rng.standard_normal(q)) for p, q in ((9, 80), (80, 50), (50, 3))]
    U = rng.standard_normal((7, 9))
    (W1, b1), (W2, b2), (W3, b3) = layers
    truth = np.clip(np.maximum(U @ W1.T + b1, 0) @ W2.T + b2, -1, 1) @ W3.T + b3
    for method, backend in itertools.product(("auto", "blocks", "substitution"), ("numpy", "numba")):
        net = network(layers, ["relu", "hardtanh"], method=method, backend=backend)
        assert close(net(U), truth)
        assert np.isfinite(net.equilibrium(U).error_bound).all()
    small = model(14, f=ImplicitFunctionTriu, method="blocks")
    assert check_gradients(small, rng.standard_normal((4, 4)), rng.integers(0, 3, 4)).verdict == "ok"


def test_rescaling_mixed_homogeneous_rows():
    layers = [(4 * rng.standard_normal((q, p)), rng.standard_normal(q)) for p, q in ((3, 6), (6, 5), (5, 2))]
    net, U = network(layers, ["relu", "leaky_relu"]), rng.standard_normal((5, 3))
    scaled = rescale(net)
    assert norm_inf(scaled.effective()["A"]) <= 0.99
    np.testing.assert_array_equal(scaled(U), net(U))
    assert scaled.activation == net.activation
    one = model(6, ["relu", "identity"] * 3, f=ImplicitFunction, kappa=0.5)
    assert np.abs(absorb_diagonal(one)(U[:, [0, 1, 2, 0]]) - one(U[:, [0, 1, 2, 0]])).max() < 1e-12


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_intervals_hold_every_output():
    one = model(12, kappa=0.7)
    U = rng.standard_normal((3, 4))
    box = robust.interval(one, U - 0.1, U + 0.1)
    S = robust.sensitivity(one)
    for _ in range(200):
        V = U + rng.uniform(-0.1, 0.1, U.shape)
        Y = one(V)
        assert ((box.lower <= Y) & (box.upper >= Y)).all()
        assert (np.abs(Y - one(U)).T <= S @ np.abs(V - U).T + 1e-12).all()


@pytest.mark.parametrize("method", ["interval", "crown", "exact"])
def test_margins_of_mixed_convex_rows(method):
    pytest.importorskip("scipy")
    one = model(8, ["relu", "leaky_relu", "identity", "relu"] * 2, kappa=0.6)
    U = rng.standard_normal((3, 4))
    labels = one(U).argmax(axis=1)
    found = robust.margins(one, U, labels, 0.05, method=method, clip=None)
    least = np.full(3, np.inf)
    for corner in itertools.product((-0.05, 0, 0.05), repeat=4):
        Y = one(U + np.array(corner))
        Y_label = Y[np.arange(3), labels].copy()
        Y[np.arange(3), labels] = -np.inf
        least = np.minimum(least, Y_label - Y.max(axis=1))
    lower = found.lower.min(axis=1)
    assert (lower > -np.inf).all()
    assert (lower <= least + 1e-9).all()
    if method == "exact":
        assert (lower >= least - 0.05).all()


# --- exports ----------------------------------------------------------------------------------------------------------


def exported(to, folder, U, q, dtype):
    """The outputs of an export."""
    if to == "numpy":
        spec = importlib.util.spec_from_file_location("predict", folder / "predict.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.predict(U)
    if to == "onnx":
        reference = pytest.importorskip("onnx.reference")
        return reference.ReferenceEvaluator(str(folder / "model.onnx")).run(None, {"U": U})[0]
    compiler = shutil.which("cc") or pytest.skip("no C compiler")
    flags = ["-std=c99", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run([compiler, *flags, folder / "idl_model.c", "-o", folder / "m.so", "-lm"], check=True)
    Y, pointer = np.empty((len(U), q), dtype), ctypes.c_void_p
    took = ctypes.CDLL(str(folder / "m.so")).idl_predict(
        U.ctypes.data_as(pointer), ctypes.c_size_t(len(U)), Y.ctypes.data_as(pointer)
    )
    assert took >= 1
    return Y


@pytest.mark.sampled(4)
@pytest.mark.parametrize("to", ["numpy", "c", "onnx"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_exports_agree_with_the_model(tmp_path, to, dtype):
    if to == "onnx":
        pytest.importorskip("onnx")
    mixes = (["relu", "hardtanh"], ["tanh", "softsign"], ["sigmoid", "relu"], NAMES)
    for k, (names, settings) in enumerate(
        itertools.product(mixes, ({}, {"is_low_rank": True, "rank": 2}, {"f": ImplicitFunctionTriu, "bias": True}))
    ):
        one = model(11, mix(11, names, seed=k), dtype=dtype, tol=1e-7, seed=k, kappa=0.8, **settings)
        U = np.clip(rng.standard_normal((9, 4)), -3, 3).astype(dtype)
        (folder := tmp_path / str(k)).mkdir()
        plan = export(one, to, folder, bounds=(-3, 3)).plan
        truth = ImplicitModel.from_parameters(one.settings, one.parameters)(U)
        error = np.abs(exported(to, folder, U, 3, dtype) - truth).max()
        assert error <= plan.error_bound + 1e-6
        assert error < (1e-4 if dtype == "float32" else 1e-6)
