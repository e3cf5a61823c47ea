"""These tests check that bounds over boxes of inputs hold, also under rounding, and that they are close.

The truth is computed with 64 bits of mantissa, at corners, at random points and at the inputs that attacks find.
`IDL_REF_ROBUST_MODELS=10000 pytest tests/test_robust.py -k random_models` checks as many random models.
"""

import itertools
import os
import subprocess
import sys
import time
import warnings
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import ACTIVATIONS

from idl_ref import (
    SGD,
    Activation,
    ImplicitFunction,
    ImplicitFunctionInf,
    ImplicitFunctionRows,
    ImplicitFunctionTriu,
    ImplicitModel,
    activations,
    datasets,
    fit,
)
from idl_ref.analysis import crown, exact_margins, intervals, questions, robust
from idl_ref.analysis import margins as margins_module
from idl_ref.analysis.attacks import precise
from idl_ref.analysis.balls import Ball, ball, least, span
from idl_ref.analysis.boxes import Resolvent, System
from idl_ref.analysis.intervals import region
from idl_ref.analysis.rivals import rivals
from idl_ref.preprocessing import Standardise

FUNCTIONS = (ImplicitFunctionInf, ImplicitFunctionRows, ImplicitFunctionTriu)
PIECEWISE = ("relu", "leaky_relu", "identity")
COUNT = int(os.environ.get("IDL_REF_ROBUST_MODELS", 48))
GROUPS = 4
LONG = np.longdouble
needs_long = pytest.mark.skipif(
    np.finfo(LONG).nmant < 60, reason="the truth needs a long double of 64 bits of mantissa"
)


# --- the truth --------------------------------------------------------------------------------------------------------


def truth(model, U):
    """Return the outputs (m, q) of the model in extended precision, for raw inputs U (m, p)."""
    W, phi = model.effective(), activations.get(model.activation).phi
    W = {name: value.astype(LONG) for name, value in W.items()}
    A = W["A"] if "A" in W else W["L"] @ W["R"].T
    u = np.asarray(U, LONG).T
    if model.preprocessing is not None:
        mean, scale = (
            np.asarray(v, LONG).reshape(-1, 1) for v in (model.preprocessing.mean, model.preprocessing.scale)
        )
        u = (u - mean) / scale
    if model.bias:
        u = np.vstack([u, np.ones((1, u.shape[1]), LONG)])
    Z = W["B"] @ u
    X = np.zeros_like(Z)
    for _ in range(3000):
        new = phi(A @ X + Z)
        if (new == X).all() or np.abs(new - X).max(initial=0) < 1e-20 * max(np.abs(new).max(initial=0), 1e-3):
            break
        X = new
    return (W["C"] @ new + (W["D"] @ u if "D" in W else 0)).T


def least_margin(Y, label):
    """Return the least margin of each row of outputs."""
    return (Y[:, [label]] - np.delete(Y, label, axis=1)).min(axis=1)


def random_model(rng, activation=None, f=None):
    """Return a small model of any kind, whose weights are not small and whose A is often on the border of its ball."""
    p, q, n = rng.integers(1, 4), rng.integers(2, 4), rng.integers(1, 6)
    f = f or FUNCTIONS[rng.integers(3)]
    rank = int(rng.integers(1, n + 1)) if f.low_rank and rng.random() < 0.3 else None
    model = ImplicitModel(
        int(p), int(q), int(n), f=f, bias=bool(rng.random() < 0.5), no_D=bool(rng.random() < 0.3),
        kappa=float(rng.choice([0.3, 0.8, 0.95])), is_low_rank=rank is not None, rank=rank,
        activation=activation or str(rng.choice(ACTIVATIONS)), dtype=str(rng.choice(["float32", "float64"])),
        seed=int(rng.integers(2**31)), backend="numpy", mitr=3000,
    )  # fmt: skip
    for W in model.parameters.values():
        W *= rng.choice([0.3, 1, 4])
    if rng.random() < 0.3:
        model.preprocessing = Standardise(rng.standard_normal(p), rng.uniform(0.1, 3, p))
    return model


def points(low, high, rng, some=6):
    """Return the corners of a box, and random points of it, some of them with coordinates at its ends.   (k, p)"""
    corners = np.array(list(itertools.product(*zip(low, high, strict=True))))
    inside = rng.uniform(low, high, (some, len(low)))
    ends = np.where(rng.random(inside.shape) < 0.5, low, high)
    return np.vstack([corners, inside, np.where(rng.random(inside.shape) < 0.5, inside, ends)])


def check(model, rng, exact):
    """Assert that every bound of a random box holds at corners, random points and the inputs of the attack."""
    m, p, eps = 3, model.input_dim, float(rng.choice([0, 1e-15, 1e-3, 0.1, 0.5]))
    U, labels = rng.random((m, p)), rng.integers(0, model.output_dim, m)
    low, high = np.clip(U - eps, 0, 1), np.clip(U + eps, 0, 1)
    box, S = robust.interval(model, low, high), robust.sensitivity(model)
    methods = ["sensitivity", "interval", *(["crown"] if model.activation in PIECEWISE else [])]
    found = {method: robust.margins(model, U, labels, eps, method) for method in methods}
    if exact and model.activation in PIECEWISE:
        found["exact"] = robust.margins(model, U, labels, eps, "exact")
    attacked = robust.attack(model, U, labels, eps, steps=6, restarts=2)
    centre = truth(model, U)
    for j in range(m):
        V = np.vstack([points(low[j], high[j], rng), attacked.inputs[j], *(f.inputs[j] for f in found.values())])
        Y = truth(model, V)
        assert (box.lower[j] <= Y).all()
        assert (box.upper[j] >= Y).all()
        rounding = 1e-17 * (1 + abs(Y).max())  # of the truth; the difference may be as small as that
        assert (abs(Y - centre[j]) <= abs(V.astype(LONG) - U[j]) @ S.astype(LONG).T + rounding).all()
        rows = Y[:, [labels[j]]] - Y
        for method, bounds in found.items():
            mine = bounds.lower[j].copy()
            assert mine[labels[j]] == np.inf
            mine[labels[j]] = 0
            assert (mine <= rows).all(), method
            assert least_margin(truth(model, bounds.inputs[j][None]), labels[j])[0] <= bounds.upper[j]
            assert not (bounds.certified[j] and attacked.broken[j])
        assert least_margin(truth(model, attacked.inputs[j][None]), labels[j])[0] <= attacked.margin[j]
        assert (abs(attacked.inputs[j].astype(LONG) - U[j]) <= eps).all()
    if "exact" in found:
        assert (found["exact"].lower >= found["crown"].lower).all()
        ties = found["exact"].undecided  # Only margins that are 0 but for rounding remain undecided.
        assert (abs(found["exact"].upper[ties]) < 1e-7).all()


@pytest.mark.sampled(4)
@needs_long
@pytest.mark.parametrize("group", range(GROUPS))
def test_random_models_break_no_bound(group):
    for seed in range(group, COUNT, GROUPS):
        rng = np.random.default_rng(seed)
        check(random_model(rng), rng, exact=seed % 5 == 0)


# --- the arithmetic of balls ------------------------------------------------------------------------------------------


def fractions(M):
    return np.vectorize(Fraction, otypes=[object])(M)


def holds(computed, exact):
    """Tell whether a ball, and its lower and upper bounds, hold an array of fractions."""
    mid, rad = fractions(computed.mid), fractions(np.broadcast_to(computed.rad, computed.mid.shape))
    inside = (abs(mid - exact) <= rad).all()
    return inside and (fractions(computed.lower()) <= exact).all() and (fractions(computed.upper()) >= exact).all()


@given(st.integers(0, 2**32 - 1), st.sampled_from([1.0, 1e-300, 1e150, 1e-160]), st.booleans())
def test_balls_hold_what_their_members_give(seed, scale, wide):
    """The members are the ends of the balls; products underflow for the small scales."""
    rng = np.random.default_rng(seed)
    mids = [rng.standard_normal((3, 3)) * scale, rng.standard_normal((3, 3)) * 10.0 ** rng.integers(-5, 5, (3, 3))]
    balls = [Ball(M, abs(M) * rng.choice([1e-16, 1e-3])) if wide else ball(M) for M in mids]
    signs = rng.choice([-1, 1], (2, 3, 3))
    members = [
        fractions(b.mid) + fractions(np.broadcast_to(b.rad, (3, 3))) * s for b, s in zip(balls, signs, strict=True)
    ]
    (a, b), (x, y) = balls, members
    assert holds(a + b, x + y)
    assert holds(a - b, x - y)
    assert holds(a * b, x * y)
    assert holds(a @ b, x @ y)
    assert holds(a.T @ b, x.T @ y)
    assert holds(a.sum(), x.sum(axis=0))
    assert holds((mids[1] @ a)[1:], (fractions(mids[1]) @ x)[1:])
    assert (fractions(a.size()) >= abs(x)).all()
    low, high = np.minimum(mids[1], 0), np.maximum(mids[1], 0)
    ends = span(a, low, high)
    least_value, largest_value = np.minimum(x, 0) @ fractions(high), np.maximum(x, 0) @ fractions(high)
    least_value, largest_value = (
        least_value + np.maximum(x, 0) @ fractions(low),
        largest_value + np.minimum(x, 0) @ fractions(low),
    )
    assert holds(ends[0], least_value)
    assert holds(ends[1], largest_value)
    assert holds(
        least(a, low, high), (np.maximum(x, 0) * fractions(low) + np.minimum(x, 0) * fractions(high)).sum(axis=0)
    )


def test_where_there_is_no_bound_it_is_infinite():
    bounds = Ball(np.array([np.nan, np.inf, -np.inf, 1.0]), np.array([0.0, 0.0, 0.0, np.nan]))
    assert bounds.lower().tolist() == [-np.inf] * 4
    assert bounds.upper().tolist() == [np.inf] * 4
    assert ball(np.array([1.0])).upper() == np.nextafter(1.0, 2)


@pytest.mark.parametrize("kappa", [0.5, 0.99, 1 - 1e-6])
def test_resolvents_bound_the_exact_one(kappa, monkeypatch):
    rng = np.random.default_rng(0)
    A = rng.random((8, 8))
    A *= kappa / A.sum(axis=1, keepdims=True) * (1 - 1e-13)
    model = ImplicitModel(1, 2, 8, f=ImplicitFunction, dtype="float64")
    model.parameters["A"][...] = A
    D = np.abs(rng.standard_normal((8, 3)))
    exact = np.array(solved(fractions(np.eye(8)) - fractions(A), fractions(D)))
    bound = Resolvent(System.of(model))(D)
    assert (fractions(bound) >= exact).all()
    assert (bound <= (exact * Fraction(1.001)).astype(float)).all() or kappa > 0.999
    far = Resolvent(System.of(model))
    monkeypatch.setattr(far, "_approximate", np.zeros_like)  # The proof alone must be enough.
    far.v, far.w = far.v / 100, far.w / 100
    assert (fractions(far(D)) >= exact).all()
    model.parameters["A"] *= 1.1 / kappa
    assert not Resolvent(System.of(model)).exists
    assert np.isinf(Resolvent(System.of(model))(D)).all()


def solved(M, R):
    """Solve M X = R in fractions by Gauss's elimination, without pivots, which a matrix I − A with ‖A‖ < 1 allows."""
    M, R = M.copy(), R.copy()
    for i in range(len(M)):
        R[i], M[i] = R[i] / M[i, i], M[i] / M[i, i]
        for k in range(len(M)):
            if k != i:
                R[k], M[k] = R[k] - M[k, i] * R[i], M[k] - M[k, i] * M[i]
    return R


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_images_allow_for_the_error_of_a_computed_activation(activation):
    """The table allows 16 units of rounding; relu, hardtanh and identity select numbers, and have no error."""
    system = System.of(ImplicitModel(1, 1, 4, activation=activation, dtype="float64", seed=0))
    P = np.array([[-1.5], [-0.3], [0.2], [1.7]])
    (low, high), X = system.image(P, P), activations.get(activation).phi(P)
    allowed = 0.0 if activation in ("relu", "hardtanh", "identity") else 16 * 2.0**-53
    assert (low <= X - allowed * abs(X)).all()
    assert (high >= X + allowed * abs(X)).all()
    assert (high - low <= 3e-14).all()


# --- nothing rests on the solvers -------------------------------------------------------------------------------------


@pytest.mark.sampled(3)
@needs_long
@pytest.mark.parametrize("wrong", [1e-8, 0.3, np.nan])
def test_intervals_hold_for_any_answer_of_the_solver(monkeypatch, wrong):
    solve, rng = intervals._solve, np.random.default_rng(0)
    noise = lambda X: X + wrong * rng.standard_normal(X.shape)  # noqa: E731
    monkeypatch.setattr(intervals, "_solve", lambda *arguments: tuple(map(noise, solve(*arguments))))
    for seed in range(10):
        case = np.random.default_rng(seed)
        check(random_model(case), case, exact=False)


@needs_long
@pytest.mark.parametrize("wrong", [1e-8, 0.5])
def test_crown_holds_for_any_multipliers(monkeypatch, wrong):
    solve, rng = crown._solve, np.random.default_rng(0)

    def noisy(A, C, lines):
        L = solve(A, C, lines)
        return L + wrong * rng.standard_normal(L.shape)

    monkeypatch.setattr(crown, "_solve", noisy)
    for seed in range(10):
        case = np.random.default_rng(seed)
        check(random_model(case, activation=PIECEWISE[seed % 3]), case, exact=False)


class Liar:
    """scipy.optimize with wrong duals, and with a minimum that is far too large."""

    def __init__(self, solver, rng):
        self.solver, self.rng = solver, rng
        self.Bounds, self.LinearConstraint = solver.Bounds, solver.LinearConstraint

    def milp(self, *arguments, **named):
        result = self.solver.milp(*arguments, **named)
        result.fun = 1e3
        return result

    def linprog(self, *arguments, **named):
        result = self.solver.linprog(*arguments, **named)
        if result.status == 0:
            for rows in (result.ineqlin, result.eqlin):
                rows.marginals = rows.marginals + self.rng.standard_normal(rows.marginals.shape)
        return result


@needs_long
def test_proofs_hold_for_any_duals(monkeypatch):
    liar = Liar(exact_margins.optimise(), np.random.default_rng(0))
    monkeypatch.setattr(exact_margins, "optimise", lambda: liar)
    for seed in range(12):
        rng = np.random.default_rng(seed)
        model = random_model(rng, activation="relu", f=ImplicitFunctionInf)
        U, labels = rng.random((2, model.input_dim)), rng.integers(0, model.output_dim, 2)
        found = robust.margins(model, U, labels, 0.3, "exact", time_limit=0.3)
        for j in range(2):
            V = points(np.clip(U[j] - 0.3, 0, 1), np.clip(U[j] + 0.3, 0, 1), rng)
            assert (least_margin(truth(model, V), labels[j]) >= found.lower[j].min()).all()


@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
def test_relaxations_lie_between_crown_and_the_truth(activation):
    grid = np.stack(np.meshgrid(np.linspace(0, 1, 41), np.linspace(0, 1, 41)), axis=-1).reshape(-1, 2)
    closer = 0
    for seed in range(10):
        model = ImplicitModel(2, 2, 8, kappa=0.9, bias=True, activation=activation, dtype="float64", seed=seed)
        for W in model.parameters.values():
            W *= 3
        system, label = System.of(model), np.array([0])
        found = crown.narrowed(system, region(system, np.zeros((1, 2)), np.ones((1, 2))))
        _, _, c, d = rivals(system, label)
        problem = exact_margins.Problem(system, found, c, d)
        bound, gaps = exact_margins._relaxed(problem, 10.0)
        margins = least_margin(precise(model)(grid), 0)
        assert bound <= margins.min() + 1e-9
        assert bound >= crown.margin_bounds(system, found, label)[0, 1] - 1e-6
        i = int(gaps.argmax())
        parts = [exact_margins._relaxed(exact_margins._part(problem, i, above), 10.0)[0] for above in (0, 1)]
        assert bound - 1e-6 <= min(parts) <= margins.min() + 1e-9
        closer += min(parts) > bound + 1e-3
    assert closer >= 5


@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
def test_proofs_are_found_where_the_least_margin_is_positive_and_only_there(activation):
    """The bias of the margin moves its least value, which SciPy's solver finds, to 0.01 and to −0.01."""
    branched = 0
    for seed in range(10):
        model = ImplicitModel(2, 2, 8, kappa=0.9, bias=True, activation=activation, dtype="float64", seed=seed)
        for W in model.parameters.values():
            W *= 3
        system = System.of(model)
        found = crown.narrowed(system, region(system, np.zeros((1, 2)), np.ones((1, 2))))
        _, _, c, d = rivals(system, np.array([0]))
        u = exact_margins.minimum(exact_margins.Problem(system, found, c, d), 10.0)
        value = least_margin(precise(model)(u[None, :2]), 0)[0]
        for target in (0.01, -0.01):
            moved = exact_margins.Problem(system, found, c, d + np.array([[0], [0], [target - value]]))
            bound = exact_margins.proof(moved, time.monotonic() + 10)
            assert (bound is not None and 0 < bound <= target + 1e-6) if target > 0 else bound is None
            branched += exact_margins._relaxed(moved, 10.0)[0] <= 0 < target
    assert branched >= 5


def test_a_part_without_a_point_is_proved_empty():
    """The arguments of the two neurons are u − 0.5 and 0.4 − u, which cannot both be positive."""
    model = ImplicitModel(1, 2, 2, f=ImplicitFunction, bias=True, dtype="float64", seed=0)
    model.parameters["A"][...] = 0
    model.parameters["B"][...] = [[1, -0.5], [-1, 0.4]]
    system = System.of(model)
    found = region(system, np.array([[0.0]]), np.array([[1.0]]))
    _, _, c, d = rivals(system, np.array([0]))
    problem = exact_margins.Problem(system, found, c, d)
    signs = {(a, b): exact_margins._part(exact_margins._part(problem, 0, a), 1, b) for a in (0, 1) for b in (0, 1)}
    bounds = {key: exact_margins._relaxed(part, 10.0)[0] for key, part in signs.items()}
    assert bounds[1, 1] == np.inf
    assert all(np.isfinite(bounds[key]) for key in ((0, 0), (0, 1), (1, 0)))
    for part in (signs[0, 0], signs[0, 1], signs[1, 0]):
        lines = crown.Lines.between(*part.found.arguments, 0.0)
        assert exact_margins._emptiness(part, lines, {}) == -np.inf


# --- as good as known -------------------------------------------------------------------------------------------------


def mlp(sizes, activation, rng):
    """Return the weights of a feed-forward network, and the same network as a model with a strictly upper A."""
    layers = [(rng.standard_normal((k, j)) / np.sqrt(j), rng.standard_normal(k)) for j, k in itertools.pairwise(sizes)]
    hidden = sizes[1:-1][::-1]
    ends = np.cumsum([0, *hidden])
    model = ImplicitModel(
        sizes[0], sizes[-1], sum(hidden), f=ImplicitFunction, bias=True, activation=activation, dtype="float64"
    )
    for W in model.parameters.values():
        W[...] = 0
    P, count = model.parameters, len(hidden)
    place = [slice(ends[count - 1 - i], ends[count - i]) for i in range(count)]  # the first layer has the last rows
    P["B"][place[0], :-1] = layers[0][0]
    for i, (W, b) in enumerate(layers[:-1]):
        P["B"][place[i], -1] = b
        if i:
            P["A"][place[i], place[i - 1]] = W
    P["C"][:, place[-1]], P["D"][:, -1] = layers[-1]
    return layers, model


def ibp(layers, phi, low, high):
    """Interval bound propagation, one layer after the other.   (m, p) -> (m, q)"""
    for i, (W, b) in enumerate(layers):
        low, high = (
            low @ np.maximum(W, 0).T + high @ np.minimum(W, 0).T + b,
            high @ np.maximum(W, 0).T + low @ np.minimum(W, 0).T + b,
        )
        if i < len(layers) - 1:
            low, high = phi(low), phi(high)
    return low, high


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_interval_is_ibp_on_feed_forward_networks(activation):
    rng = np.random.default_rng(0)
    layers, model = mlp([6, 20, 15, 10, 3], activation, rng)
    U = rng.standard_normal((8, 6))
    box = robust.interval(model, U - 0.1, U + 0.1)
    low, high = ibp(layers, activations.get(activation).phi, U - 0.1, U + 0.1)
    assert np.abs(box.lower - low).max() <= 1e-9
    assert np.abs(box.upper - high).max() <= 1e-9
    assert (box.lower <= low).all()
    assert (box.upper >= high).all()


@pytest.fixture(scope="module")
def digits():
    """A classifier of the digits with n = 40 and κ = 0.99, and the test images."""
    x, y, x_test, y_test = datasets.digits()
    model = ImplicitModel(64, 10, 40, bias=True, seed=0)
    fit(model, x, y, epochs=20, optimizer=SGD(0.1), progress=False)
    return model, x_test, y_test


@pytest.mark.slow
def test_the_sandwich_closes_on_digits(digits):
    model, x, y = digits
    x, y = x[:50], y[:50]
    found = {m: robust.margins(model, x, y, 0.05, m) for m in ("sensitivity", "interval", "crown", "exact")}
    shares = [found[method].certified.mean() for method in ("sensitivity", "interval", "crown", "exact")]
    assert shares == sorted(shares)
    assert not found["exact"].undecided.any()
    attacked = robust.attack(model, x, y, 0.05)
    assert not (attacked.broken & found["exact"].certified).any()
    assert (attacked.margin >= found["exact"].lower.min(axis=1)).all()
    assert abs((~attacked.broken).mean() - shares[-1]) <= 0.05


@pytest.mark.slow
def test_crown_certifies_most_digits(digits):
    assert robust.margins(*digits, 0.05, "crown").certified.mean() >= 0.78


@pytest.mark.slow
def test_the_exact_accuracy_of_digits(digits):
    found = robust.margins(*digits, 0.05, "exact")
    assert not found.undecided.any()
    assert 0.82 <= found.certified.mean() <= 0.86


@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
def test_exact_minima_are_those_of_a_grid(activation):
    for seed in range(10):
        model = ImplicitModel(1, 2, 5, kappa=0.9, bias=True, activation=activation, dtype="float64", seed=seed)
        for W in model.parameters.values():
            W *= 3
        U = np.array([[0.5]])
        margins = least_margin(precise(model)(np.linspace(0, 1, 4001)[:, None]), 0)
        crown_, exact = (robust.margins(model, U, [0], 0.5, method) for method in ("crown", "exact"))
        assert exact.certified[0] == (margins.min() > 0)
        assert exact.broken[0] == (margins.min() <= 0)
        if crown_.undecided[0] and exact.certified[0]:  # The solver looked for the minimum, and found it.
            assert exact.upper[0] == pytest.approx(float(margins.min()), abs=2e-3 * float(np.ptp(margins)))


# --- raw inputs, labels and batches -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", margins_module.METHODS)
def test_preprocessing_is_the_first_layer(method):
    """Folding the preprocessing into B and D gives the same bounds, for the same eps in raw units."""
    rng = np.random.default_rng(0)
    model = ImplicitModel(4, 3, 12, kappa=0.8, bias=True, dtype="float64", seed=1)
    mean, scale = rng.standard_normal(4), rng.uniform(0.2, 4, 4)
    folded = ImplicitModel.from_parameters(model.settings, {k: W.copy() for k, W in model.parameters.items()})
    model.preprocessing = Standardise(mean, scale)
    for name in "BD":
        W = folded.parameters[name]
        W[:, :-1] /= scale
        W[:, -1] -= W[:, :-1] @ mean
    U = rng.random((6, 4))
    labels, eps = model(U).argmax(axis=1), np.array([0.05, 0.1, 0.0, 0.2])
    one, other = (robust.margins(each, U, labels, eps, method) for each in (model, folded))
    np.testing.assert_allclose(one.lower, other.lower, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(one.upper, other.upper, rtol=1e-4, atol=1e-6)
    assert (abs(one.inputs.astype(LONG) - U) <= eps).all()
    np.testing.assert_allclose(robust.sensitivity(model), robust.sensitivity(folded), rtol=1e-9)


def test_labels_are_those_of_the_model():
    model = ImplicitModel(4, 3, 12, seed=1)
    U = np.random.default_rng(0).random((6, 4))
    labels = model(U).argmax(axis=1)
    places = robust.margins(model, U, labels, 0.01).lower
    model.classes = np.array(["cat", "dog", "owl"])
    words = robust.margins(model, U, np.array(["cat", "dog", "owl"])[labels], 0.01).lower
    np.testing.assert_array_equal(words, places)


def test_batches_and_no_samples(monkeypatch):
    model, rng = ImplicitModel(4, 3, 12, seed=1), np.random.default_rng(0)
    U, labels = rng.random((20, 4)), rng.integers(0, 3, 20)
    for method in margins_module.METHODS:
        whole = robust.margins(model, U, labels, 0.05, method)
        monkeypatch.setattr(questions, "BATCH", 7)
        parts = robust.margins(model, U, labels, 0.05, method)
        monkeypatch.undo()
        np.testing.assert_allclose(parts.lower, whole.lower, atol=1e-9)
        none = robust.margins(model, U[:0], labels[:0], 0.05, method)
        assert none.lower.shape == (0, 3)
        assert none.inputs.shape == (0, 4)
    assert robust.attack(model, U[:0], labels[:0], 0.05).margin.shape == (0,)
    assert robust.interval(model, U[:0], U[:0]).lower.shape == (0, 3)


def test_boxes_end_at_the_limits_of_the_inputs():
    model, U = ImplicitModel(4, 3, 12, seed=1), np.zeros((1, 4))
    clipped, free = (robust.margins(model, U, [0], 0.3, clip=clip).lower for clip in ((0, 1), None))
    assert (clipped[0, 1:] > free[0, 1:]).all()
    found = robust.attack(model, U, [0], 0.3)
    assert (found.inputs >= 0).all()


# --- ill-posed models, limits and refusals ----------------------------------------------------------------------------


def test_ill_posed_models_have_no_bound_or_that_of_the_range():
    model = ImplicitModel(2, 2, 3, f=ImplicitFunction, dtype="float64", seed=0, on_failure="ignore")
    model.parameters["A"][...] = 0.7 * np.ones((3, 3))
    U = np.full((1, 2), 0.5)
    assert (robust.sensitivity(model) == np.inf).all()
    box = robust.interval(model, U, U)
    assert (box.X_lower >= 0).all()
    assert (box.X_upper == np.inf).all()
    for method in margins_module.METHODS:
        found = robust.margins(model, U, [0], 0.1, method)
        assert found.lower.min() == -np.inf
        assert not found.certified.any()
    bounded = ImplicitModel(2, 2, 3, f=ImplicitFunction, activation="tanh", dtype="float64", on_failure="ignore")
    bounded.parameters["A"][...] = 2 * np.eye(3)  # tanh(2x) = x has three solutions.
    bounded.parameters["B"][...] = 0
    box = robust.interval(bounded, U, U)
    root = 0.9575040240772688
    assert (box.X_lower <= -root).all()
    assert (box.X_upper >= root).all()
    assert (box.X_lower >= -1).all()


def test_a_perron_root_below_one_is_enough():
    model = ImplicitModel(1, 2, 2, f=ImplicitFunction, dtype="float64", seed=0)
    model.parameters["A"][...] = [[0.0, 50.0], [0.001, 0.0]]
    assert np.isfinite(robust.interval(model, [[0.0]], [[1.0]]).lower).all()


@pytest.mark.slow
def test_the_time_limit_leaves_samples_undecided(digits):
    model, x, y = digits
    x, y = x[:60], y[:60]
    started = time.monotonic()
    found, crown_ = (robust.margins(model, x, y, 0.08, method, time_limit=0.0) for method in ("exact", "crown"))
    assert time.monotonic() - started < 20
    assert (found.certified == crown_.certified).all()
    assert found.undecided.any()


MODEL = ImplicitModel(4, 3, 5, seed=0)
ONES = np.full((2, 4), 0.5)
OWN = Activation("arctan", np.arctan, lambda P: 1 / (1 + P * P), lipschitz=1.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: robust.margins(MODEL, ONES, [0, 1], -0.1), "eps must be a finite number ≥ 0, or 4 of them.*got -0.1"),
        (lambda: robust.margins(MODEL, ONES, [0, 1], [0.1, 0.2]), "eps must be a finite number ≥ 0, or 4 of them"),
        (
            lambda: robust.margins(MODEL, ONES * 4, [0, 1], 0.1),
            "U must lie between the limits.*got 2 … 2: pass clip=None",
        ),
        (lambda: robust.margins(MODEL, ONES, [0, 1], 0.1, clip=3), r"clip must be a pair \(lowest, highest\).*got 3"),
        (lambda: robust.margins(MODEL, ONES, [0, 1], 0.1, "sdp"), "method must be one of 'sensitivity', .*got 'sdp'"),
        (lambda: robust.margins(MODEL, ONES, [0, 3], 0.1), "labels must be labels in 0 … 2"),
        (lambda: robust.margins(MODEL, ONES * np.nan, [0, 1], 0.1), "U must be finite; got NaN"),
        (lambda: robust.margins(ImplicitModel(4, 1, 5), ONES, [0, 0], 0.1), "model must have two outputs or more"),
        (
            lambda: robust.margins(ImplicitModel(4, 3, 5, activation="tanh"), ONES, [0, 1], 0.1, "crown"),
            'method="crown" needs an activation with one kink at 0: .*got \'tanh\': use method="interval"',
        ),
        (
            lambda: robust.interval(ImplicitModel(4, 3, 5, activation=OWN), ONES, ONES),
            "interval needs an activation that does not decrease.*got 'arctan'.*use sensitivity",
        ),
        (lambda: robust.interval(MODEL, ONES, ONES - 1), "lower must not exceed upper; got 0.5 > -0.5 in sample 0"),
        (lambda: robust.interval(MODEL, ONES[:, :2], ONES), r"lower must have shape \(m, p\) with p = 4"),
        (lambda: robust.attack(MODEL, ONES, [0, 1], 0.1, steps=0), "steps must be a whole number, at least 1"),
        (lambda: robust.certified_accuracy(MODEL, ONES, [0, 1], []), "eps must be a sequence with one entry or more"),
        (lambda: robust.certified_accuracy(MODEL, ONES, [0, 1], 0.1, "crown"), "methods must be a sequence.*'crown'"),
        (lambda: robust.certified_accuracy(MODEL, ONES[:0], [], 0.1), "U must have one sample or more"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_what_is_no_model_is_refused():
    with pytest.raises(TypeError, match="model must be an ImplicitModel; got ndarray: pass the model itself"):
        robust.sensitivity(ONES)
    broken = ImplicitModel(4, 3, 5)
    broken.parameters["B"][0, 0] = np.nan
    with pytest.raises(ValueError, match="model must have finite weights"):
        robust.interval(broken, ONES, ONES)


def test_sensitivity_takes_any_activation():
    model = ImplicitModel(4, 3, 5, kappa=0.5, activation=OWN, dtype="float64", seed=0)
    Y = model(np.vstack([ONES[:1], ONES[:1] + 0.2]))
    assert (abs(Y[1] - Y[0]) <= robust.sensitivity(model) @ np.full(4, 0.2)).all()


def test_scipy_is_imported_when_used(monkeypatch):
    code = "import sys, idl_ref.analysis; assert 'scipy' not in sys.modules and 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(ImportError, match=r'method="exact" needs SciPy: pip install "idl-ref\[analysis\]", or use'):
        robust.margins(MODEL, ONES, [0, 1], 0.1, "exact")


# --- accuracy, progress and the picture -------------------------------------------------------------------------------


def accuracy(**named):
    rng = np.random.default_rng(0)
    U, labels = rng.random((30, 4)), MODEL(rng.random((30, 4))).argmax(axis=1)
    return robust.certified_accuracy(MODEL, U, labels, [0.0, 0.02, 0.2], ("interval", "crown", "exact"), **named)


def test_accuracies_stand_in_order():
    found = accuracy(progress=False)
    assert found.certified["interval"][0] == found.certified["exact"][0] == found.attacked[0] == found.clean
    for share in (*found.certified.values(), found.attacked):
        assert (np.diff(share) <= 0).all()
    lines = [*found.certified.values(), found.attacked]
    assert all((a <= b).all() for a, b in itertools.pairwise(lines))
    assert not found.undecided.any()
    assert str(found).splitlines()[0].split() == ["eps", "interval", "crown", "exact", "attack", "undecided"]
    assert len(str(found).splitlines()) == 4


@pytest.mark.parametrize("bar", [True, False])
def test_progress_is_shown(bar, monkeypatch, capsys):
    if not bar:
        monkeypatch.setitem(sys.modules, "tqdm", None)
    accuracy(progress=True)
    text = capsys.readouterr().err
    if bar:
        assert "robustness: 100%" in text
        assert "360/360" in text
    else:
        assert len(text.splitlines()) == 12
        assert text.startswith("eps 0: interval ")
    accuracy(progress=False)
    assert capsys.readouterr().err == ""


def test_the_picture_shows_both_sides():
    found = accuracy(progress=False)
    axes = robust.plot_accuracy(found).axes[0]
    lines = {line.get_label(): line.get_ydata() for line in axes.lines}
    assert list(lines) == ["attack (PGD)", "certified, interval", "certified, crown", "exact"]
    np.testing.assert_array_equal(lines["exact"], 100 * found.certified["exact"])


def test_the_picture_needs_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'plots need matplotlib: pip install "idl-ref\[plot\]"'):
        robust.plot_accuracy(accuracy(progress=False))


def test_rivals_are_differences_of_outputs():
    model = ImplicitModel(3, 4, 6, bias=True, dtype="float64", seed=0)
    U, labels = np.random.default_rng(0).random((5, 3)), np.array([0, 1, 2, 3, 0])
    Y, X = model(U), model.equilibrium(U).X
    j, k, c, d = rivals(System.of(model), labels)
    assert len(j) == 15
    u = np.vstack([U.T, np.ones((1, 5))])
    expected = Y[j, labels[j]] - Y[j, k]
    np.testing.assert_allclose((c.mid * X[:, j]).sum(0) + (d.mid * u[:, j]).sum(0), expected, atol=1e-4)


def test_a_box_as_large_as_float64_is_attacked_without_a_warning():
    model = ImplicitModel(3, 3, 6, dtype="float64", seed=0)
    U = np.random.default_rng(0).random((4, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = robust.attack(model, U, model(U).argmax(axis=1), 1.7e308, clip=None)
    assert found.broken.any()
    assert np.isfinite(found.inputs).all()


def test_labels_are_called_labels_where_they_are_refused():
    model = ImplicitModel(3, 2, 6, dtype="float64", seed=0)
    model.classes = np.array(["no", "yes"])
    with pytest.raises(ValueError, match="labels must hold only the classes 'no', 'yes'; got also 'maybe'"):
        robust.margins(model, np.zeros((1, 3)), ["maybe"], 0.1)
