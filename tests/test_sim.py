"""These tests check the optima of state-driven training against scikit-learn, SciPy and formulas, and its promises."""

import itertools
import math
import warnings
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import idl_ref
from idl_ref import ConvergenceWarning, ImplicitFunctionRows, ImplicitModel
from idl_ref.analysis import lasso, sim
from idl_ref.preprocessing import Standardise

KAPPA = 0.9


def network(sizes, seed=0, dtype=np.float64):
    """Return random layers whose norms are above 1, so that the ball matters."""
    rng = np.random.default_rng(seed)
    return [
        ((rng.standard_normal((n, p)) * 1.5 / p**0.5).astype(dtype), rng.standard_normal(n).astype(dtype) / 2)
        for p, n in itertools.pairwise(sizes)
    ]


def found(sizes=(3, 6, 4, 2), m=60, seed=0, dtype=np.float64):
    return sim.states(network(sizes, seed, dtype), np.random.default_rng(seed + 1).standard_normal((m, sizes[0])))


def in_the_ball(model, kappa):
    """Tell whether the exact sums of |A| by rows are at most κ; for low rank, those of |L||R|ᵀ."""
    factors = [np.abs(F).astype(float).tolist() for F in model.effective_weights().factors]
    if len(factors) == 1:
        return all(math.fsum(row) <= kappa for row in factors[0])
    sums = [sum(map(Fraction, row)) for row in factors[1]]
    # √κ is rounded, so that its square may differ from κ in the last place.
    return all(
        sum(Fraction(x) * s for x, s in zip(row, sums, strict=True)) <= kappa * (1 + 1e-15) for row in factors[0]
    )


def by_lars(data, kappa):
    """Return the smallest ½‖A X + B V − Z‖² in the ball, from the path of least angle regression, row by row."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    V = np.vstack([data.U, np.ones((1, data.U.shape[1]))])
    explained = np.linalg.pinv(V) @ V
    X, Z = data.X - data.X @ explained, data.Z - data.Z @ explained
    total = 0.0
    for z in Z:
        path = linear_model.lars_path(X.T, z, method="lasso")[2]
        norms = np.abs(path).sum(axis=0)
        k = np.searchsorted(norms, kappa)
        t = (kappa - norms[k - 1]) / (norms[k] - norms[k - 1]) if 0 < k < len(norms) else 0.0
        w = path[:, -1] if k == len(norms) else (1 - t) * path[:, k - 1] + t * path[:, k]
        total += 0.5 * np.square(z - w @ X).sum()
    return total


def by_quadratic_program(data, kappa, penalty, penalty_B):
    """Return the smallest objective by SLSQP, row by row, with a, b as differences of numbers ≥ 0."""
    optimize = pytest.importorskip("scipy.optimize")
    n, p, total = len(data.X), len(data.U), 0.0
    J = np.vstack([data.X, data.U, np.ones((1, data.U.shape[1]))])
    costs = np.repeat([penalty, penalty_B, 0.0], [n, p, 1])
    for z in data.Z:

        def value(v, z=z):
            r = (v[: n + p + 1] - v[n + p + 1 :]) @ J - z
            g = J @ r
            return 0.5 * r @ r + np.append(costs, costs) @ v, np.append(g + costs, costs - g)

        ball = {"type": "ineq", "fun": lambda v: kappa - v[:n].sum() - v[n + p + 1 : 2 * n + p + 1].sum()}
        start = np.full(2 * (n + p + 1), kappa / (4 * n))
        options = {"maxiter": 2000, "ftol": 1e-15}
        best = optimize.minimize(
            value, start, jac=True, method="SLSQP", bounds=[(0, None)] * len(start), constraints=[ball], options=options
        )
        total += best.fun
    return total


# --- states ---


def test_the_states_of_a_network():
    layers, U = network((3, 6, 4, 2)), np.random.default_rng(5).standard_normal((7, 3))
    data = sim.states(layers, U, "tanh")
    first = layers[0][0] @ U.T + layers[0][1][:, None]
    second = layers[1][0] @ np.tanh(first) + layers[1][1][:, None]
    np.testing.assert_allclose(data.Z, np.vstack([second, first]), rtol=1e-13)
    np.testing.assert_array_equal(data.X, np.tanh(data.Z))
    np.testing.assert_allclose(data.Y, layers[2][0] @ np.tanh(second) + layers[2][1][:, None], rtol=1e-13)
    np.testing.assert_array_equal(data.U, U.T)
    assert (data.activation, data.preprocessing, data.classes) == ("tanh", None, None)


@pytest.mark.parametrize("settings", [{}, {"bias": True, "no_D": True}, {"is_low_rank": True, "rank": 2}])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_states_of_a_model(settings, dtype):
    teacher = ImplicitModel(3, 2, 5, dtype=dtype, seed=0, activation="tanh", **settings)
    teacher.preprocessing, teacher.classes = Standardise(1.0, 2.0), np.array(["no", "yes"])
    U = np.random.default_rng(5).standard_normal((7, 3))
    data = sim.states(teacher, U)
    np.testing.assert_allclose(data.X, np.tanh(data.Z), atol=2e-5)
    np.testing.assert_allclose(data.Y, teacher(U).T, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(data.U, (U.T - 1) / 2, rtol=1e-6)
    assert all(array.dtype == dtype for array in data[:4])
    assert sim.objective(teacher, data) < 1e-10
    assert (data.activation, data.preprocessing) == ("tanh", teacher.preprocessing)


# --- the optimum ---


@pytest.mark.parametrize("kappa", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_objective_is_that_of_least_angle_regression(kappa, seed):
    data = found(seed=seed)
    model = sim.fit(data, kappa)
    expected = by_lars(data, kappa)
    assert expected > 0.5
    assert sim.objective(model, data) == pytest.approx(expected, rel=1e-9)
    assert in_the_ball(model, kappa)


@pytest.mark.parametrize(("penalty", "penalty_B"), [(0.5, 0), (0.5, 0.5), (0, 2.0), (20.0, 5.0)])
def test_the_objective_is_that_of_a_quadratic_program(penalty, penalty_B):
    data = found(sizes=(3, 4, 2, 2), m=40)
    model = sim.fit(data, 0.3, penalty, penalty_B=penalty_B)
    expected = by_quadratic_program(data, 0.3, penalty, penalty_B)
    assert sim.objective(model, data, penalty, penalty_B) == pytest.approx(expected, rel=1e-6)
    assert in_the_ball(model, 0.3)


def test_large_penalties_leave_zeros():
    data = found()
    model = sim.fit(data, KAPPA, 1e6, penalty_B=1e6)
    assert not model.parameters["A"].any()
    assert not model.parameters["B"][:, :3].any()
    np.testing.assert_allclose(model.parameters["B"][:, 3], data.Z.mean(axis=1), rtol=1e-12)


UNITS = [("float64", *units) for units in [(0.0, 1.0), (1e6, 1.0), (1.7e9, 1e5), (0.0, 1e12), (-3.0, 1e-3)]]
UNITS += [("float32", 0.0, 1.0), ("float32", 0.0, 1e9), ("float32", -3.0, 1.0)]


@pytest.mark.parametrize(("dtype", "mean", "deviation"), UNITS)
@pytest.mark.parametrize("rank", [None, 2])
def test_a_teacher_of_one_layer_is_found_whatever_the_units_of_the_inputs_are(mean, deviation, dtype, rank):
    """B V alone explains it. Neither a warning nor an output tells in which units U is."""
    rng = np.random.default_rng(0)
    U = np.round(rng.standard_normal((400, 2)), 3)
    W = rng.standard_normal((5, 2))
    layers = [(W, rng.standard_normal(5)), (rng.standard_normal((1, 5)), np.ones(1))]
    usual = sim.states([(M.astype(dtype), b.astype(dtype)) for M, b in layers], U.astype(dtype))
    raw = (mean + deviation * U).astype(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = sim.fit(usual._replace(U=raw.T.copy()), 0.5, rank=rank)
    error = np.abs(model(raw).T - usual.Y).max() / np.abs(usual.Y).max()
    assert error < (2e-5 if dtype == "float32" else 1e-8 if mean else 1e-13)


@pytest.mark.parametrize("m", [500, 10_000])
@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("no_D", [False, True])
def test_the_readout_is_as_good_as_least_squares_allows(m, scale, no_D):
    rng = np.random.default_rng(0)
    U = (scale * rng.standard_normal((m, 3))).astype(np.float32)
    layers = [(rng.standard_normal((6, 3)) / scale, rng.standard_normal(6)), (rng.standard_normal((1, 6)), np.zeros(1))]
    data = sim.states([(W.astype(np.float32), b.astype(np.float32)) for W, b in layers], U)
    model = sim.fit(data, 0.5, no_D=no_D)
    error = np.sqrt(np.square(model(U).T - data.Y).mean())
    X = model.equilibrium(U).X.astype(float)
    features = X if no_D else np.vstack([X, U.T / scale, np.ones((1, m))])
    best = np.linalg.lstsq(features.T, data.Y.T.astype(float), rcond=None)[0].T @ features
    assert error < 1.5 * np.sqrt(np.square(best - data.Y).mean()) + 1e-6


def test_the_readout_keeps_states_that_differ_by_little():
    """Y is the difference of two states, which is a millionth of their size."""
    rng = np.random.default_rng(0)
    W, U = rng.standard_normal((1, 3)), rng.standard_normal((300, 3))
    layers = [
        (np.vstack([W, W + 1e-6 * rng.standard_normal((1, 3))]), np.zeros(2)),
        (np.array([[1e6, -1e6]]), np.zeros(1)),
    ]
    data = sim.states(layers, U)
    error = np.abs(sim.fit(data, 0.5)(U).T - data.Y).max()
    assert error < 1e-6 * np.abs(data.Y).max()


problems = st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(0, 5), st.integers(1, 12), st.integers(0, 2**31))


@given(problems, st.sampled_from([0.0, 0.3, 0.9, 5.0]), st.sampled_from([0.1, 1.0, 10.0]))
def test_the_gap_is_a_bound(drawn, kappa, penalty):
    n, k, more, m, seed = drawn
    rng = np.random.default_rng(seed)
    J, Z = rng.standard_normal((k + more, m)), rng.standard_normal((n, m))
    sizes = np.concatenate([rng.choice([0.0, penalty], k), np.full(more, penalty)])
    problem = lasso.Problem(J @ J.T, Z @ J.T, np.square(Z).sum(axis=1), kappa, sizes, k)
    best = lasso.solve(problem, 1e-6, 5000)
    assert best.relative_gap(problem) <= 1e-6
    value = 0.5 * np.square(best.W @ J - Z).sum(axis=1) + np.abs(best.W) @ sizes
    np.testing.assert_allclose(best.objective, value, rtol=1e-9, atol=1e-9 * np.square(Z).sum())
    for _ in range(20):  # No W in the ball is below the objective of any answer by more than its gap.
        some = [lasso.Answer.of(problem, problem.project(rng.standard_normal(problem.F.shape))) for _ in range(2)]
        for one in some:
            assert (np.minimum(best.objective, some[1].objective) >= one.objective - one.gap - 1e-9 * value.max()).all()


@given(st.integers(1, 5), st.integers(0, 2**31), st.sampled_from([0.05, 0.7, 3.0]), st.sampled_from([0.0, 0.4, 2.0]))
def test_the_proximal_map_is_exact(n, seed, kappa, penalty):
    rng = np.random.default_rng(seed)
    V = 2 * rng.standard_normal((1, n))
    problem = lasso.Problem(np.eye(n), V, np.square(V).sum(axis=1), kappa, np.full(n, penalty), n)
    W = problem.project(lasso.shrink(V, penalty))
    assert lasso.Answer.of(problem, W).gap.sum() <= 1e-12 * (1 + np.square(V).sum())


# --- low rank ---


def test_a_low_rank_fit_without_the_ball_is_the_best_of_its_rank():
    data = found(sizes=(3, 5, 3, 2), m=80)
    V = np.vstack([data.U, np.ones((1, 80))])
    explained = np.linalg.pinv(V) @ V
    X, Z = data.X - data.X @ explained, data.Z - data.Z @ explained
    fitted = Z @ np.linalg.pinv(X) @ X
    singular = np.linalg.svd(fitted, compute_uv=False)
    wide = data._replace(activation=idl_ref.Activation("none", lambda x: 0 * x, lambda x: 0 * x, lipschitz=1e-3))
    for rank in (1, 2, 3, 8):
        model = sim.fit(wide, 100.0, rank=rank)  # With this φ, κ = 100 is allowed, and the ball does not matter.
        expected = 0.5 * (np.square(Z - fitted).sum() + np.square(singular[rank:]).sum())
        assert sim.objective(model, data) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("rank", [1, 3, 10])
def test_a_low_rank_fit_lies_in_the_ball(rank):
    data = found()
    model, dense = sim.fit(data, 0.4, rank=rank), sim.fit(data, 0.4)
    assert in_the_ball(model, 0.4)
    assert sim.objective(model, data) >= sim.objective(dense, data) * (1 - 1e-6)
    assert model.rank == rank
    if rank == 10:  # A basis of the whole space is the identity, for which the two balls are one.
        assert sim.objective(model, data) == pytest.approx(sim.objective(dense, data), rel=1e-6)


# --- the model ---


@pytest.mark.parametrize("settings", [{}, {"penalty": 2.0}, {"penalty": 1.0, "penalty_B": 1.0}, {"rank": 2}])
@pytest.mark.parametrize("no_D", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_model_is_whole(settings, no_D, dtype, tmp_path):
    data = found(dtype=dtype)
    model = sim.fit(data, KAPPA, no_D=no_D, **settings)
    assert (model.dtype, model.no_D, model.bias, model.f) == (dtype, no_D, True, ImplicitFunctionRows)
    assert all(W.dtype == dtype and np.isfinite(W).all() for W in model.parameters.values())
    assert in_the_ball(model, KAPPA)
    for name in model.parameters:  # f changes nothing, so that the raw weights are those that the equation uses.
        np.testing.assert_array_equal(model.effective()[name], model.parameters[name])
    model.save(tmp_path / "student.npz")
    np.testing.assert_array_equal(idl_ref.load(tmp_path / "student.npz")(data.U.T), model(data.U.T))


def test_the_readout_is_the_best_one():
    data = found()
    model = sim.fit(data, KAPPA)
    X = model.equilibrium(data.U.T).X
    features = np.vstack([X, data.U, np.ones((1, 60))])
    residual = model(data.U.T).T - data.Y
    assert np.abs(residual @ features.T).max() < 1e-6 * np.abs(data.Y @ features.T).max()


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_a_teacher_in_the_ball_is_found(activation):
    teacher = ImplicitModel(3, 2, 5, bias=True, kappa=0.6, activation=activation, dtype="float64", tol=1e-13, seed=0)
    teacher.parameters["A"] *= 3  # outside, so that f scales it to norm κ
    teacher.preprocessing, teacher.classes = Standardise(0.1, 2.0), np.array(["no", "yes"])
    U = np.random.default_rng(0).standard_normal((300, 3))
    student = sim.fit(sim.states(teacher, U), 0.6)
    new = np.random.default_rng(1).standard_normal((50, 3))
    np.testing.assert_allclose(student(new), teacher(new), atol=2e-5)
    np.testing.assert_array_equal(student.classes, teacher.classes)
    if activation == "tanh":  # No neuron of tanh is linear, so that the weights are unique.
        np.testing.assert_allclose(student.parameters["A"], teacher.effective()["A"], atol=1e-5)


def test_a_rescaled_teacher_is_fitted_exactly():
    """ReLU layers times positive numbers are the same network; in small units, its weights lie in the ball."""
    (W1, b1), (W2, b2), last = network((3, 6, 4, 2))
    small = 2.0 ** -np.ceil(np.log2(np.abs(W2).sum(axis=1).max() / KAPPA))
    U = np.random.default_rng(0).standard_normal((200, 3))
    far, near = (sim.states([(W1, b1), (s * W2, s * b2), (last[0] / s, last[1])], U) for s in (1, small))
    np.testing.assert_array_equal(far.Y, near.Y)
    assert sim.objective(sim.fit(far, KAPPA), far) > 0.1
    student = sim.fit(near, KAPPA)
    assert sim.objective(student, near) < 1e-9
    np.testing.assert_allclose(student(U), near.Y.T, atol=1e-4)


@pytest.mark.slow
def test_dead_and_dependent_neurons():
    (W1, b1), (W2, b2), last = network((3, 6, 4, 2))
    W1[0], b1[0], W1[1], b1[1] = 0, -1, W1[2], b1[2]  # one neuron is never on, and two are the same
    U = np.random.default_rng(0).standard_normal((60, 3))
    U[:, 2] = 0
    data = sim.states([(W1, b1), (W2, b2), last], U)
    model = sim.fit(data, 0.5)
    assert in_the_ball(model, 0.5)
    expected = by_quadratic_program(data, 0.5, 0, 0)
    assert sim.objective(model, data) == pytest.approx(expected, rel=1e-6)
    low_rank = sim.fit(data, 0.5, rank=9)
    assert in_the_ball(low_rank, 0.5)
    assert sim.objective(low_rank, data) >= expected * (1 - 1e-6)


def test_one_sample_and_kappa_zero():
    data = found(m=1)
    assert sim.objective(sim.fit(data, KAPPA), data) < 1e-20
    data = found()
    for settings in ({}, {"rank": 2}):
        model = sim.fit(data, 0.0, **settings)
        assert not any(model.effective()[name].any() for name in "AL" if name in model.parameters)
        V = np.vstack([data.U, np.ones((1, 60))])
        expected = 0.5 * np.square(data.Z - data.Z @ np.linalg.pinv(V) @ V).sum()
        assert sim.objective(model, data) == pytest.approx(expected, rel=1e-12)


# --- what is refused ---


def test_too_few_iterations_are_told():
    with pytest.warns(ConvergenceWarning, match=r"fit: the objective may be .* of itself above .* after 3 iterations"):
        model = sim.fit(found(), KAPPA, 0.1, penalty_B=0.1, max_iter=3)
    assert in_the_ball(model, KAPPA)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"kappa": 1.0}, ValueError, "kappa must be a number ≥ 0 and < 1; got 1.0"),
        ({"kappa": -1.0}, ValueError, "kappa must be a number ≥ 0; got -1.0"),
        ({"penalty": -1.0}, ValueError, "penalty must be a number ≥ 0; got -1.0"),
        ({"penalty_B": "much"}, TypeError, "penalty_B must be a number ≥ 0; got 'much'"),
        ({"rank": 11}, ValueError, "rank must be a whole number, at least 1 and at most 10; got 11"),
        ({"rank": 2, "penalty": 1.0}, ValueError, "penalty must be 0 with a rank.*got 1.0: leave rank out"),
        ({"rank": 2, "penalty_B": 1.0}, ValueError, "penalty_B must be 0 with a rank.*got 1.0: leave rank out"),
        ({"max_iter": 0}, ValueError, "max_iter must be a whole number, at least 1; got 0"),
        ({"tol": -1}, ValueError, "tol must be a number ≥ 0; got -1"),
    ],
)
def test_wrong_arguments_of_fit(arguments, kind, message):
    with pytest.raises(kind, match=message):
        sim.fit(found(), **arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Z": np.ones((3, 60))}, r"Z must have shape \(10, 60\), one column per sample; got \(3, 60\)"),
        ({"U": np.full((3, 60), np.nan)}, "U must be finite; got NaN or inf in 60 of 60 samples"),
        ({"U": np.ones((3, 0)), **dict.fromkeys("ZX", np.ones((10, 0))), "Y": np.ones((2, 0))}, "at least one sample"),
    ],
)
def test_wrong_states(change, message):
    with pytest.raises(ValueError, match=message):
        sim.fit(found()._replace(**change), KAPPA)


def test_what_is_no_states():
    with pytest.raises(TypeError, match=r"states must be what sim.states returns; got ndarray: call sim.states first"):
        sim.fit(np.ones((3, 3)))
    with pytest.raises(ValueError, match="model must have the 3 inputs of the states; got 4: use the same teacher"):
        sim.objective(ImplicitModel(4, 2, 10), found())


@pytest.mark.parametrize(
    ("teacher", "kind", "message"),
    [
        (np.ones((3, 3)), TypeError, "teacher must be an ImplicitModel or a list of at least two layers"),
        ([(np.ones((2, 2)), np.ones(2))], TypeError, "at least two layers"),
        ([np.ones((2, 3)), np.ones((2, 2))], TypeError, r"layer 0 of the teacher must be a pair \(W, b\); got"),
        ([(np.ones((2, 3)), np.ones(3))] * 2, ValueError, r"b of layer 0 must have shape \(2,\)"),
        (
            [(np.ones((2, 3)), np.ones(2))] * 2,
            ValueError,
            "W of layer 1 must have 2 columns.*W.T may be what was meant",
        ),
        ([(np.ones(3), np.ones(2))] * 2, ValueError, r"W of layer 0 must be a matrix of shape \(n_out, n_in\)"),
    ],
)
def test_wrong_teachers(teacher, kind, message):
    with pytest.raises(kind, match=message):
        sim.states(teacher, np.ones((4, 3)))


def test_wrong_inputs():
    with pytest.raises(ValueError, match="U must be finite"):
        sim.states(network((3, 2, 2)), np.full((4, 3), np.inf))
    with pytest.raises(ValueError, match=r"U must have shape \(m, p\) with p = 3"):
        sim.states(network((3, 2, 2)), np.ones((4, 2)))
    with pytest.raises(ValueError, match="activation is for a network; got activation='relu' and a model"):
        sim.states(ImplicitModel(3, 2, 5), np.ones((4, 3)), "relu")
    with pytest.raises(idl_ref.NotConvergedError):
        sim.states(ImplicitModel(3, 2, 5, mitr=1, tol=0, seed=0), np.ones((4, 3)))


# --- the digits ---


@pytest.fixture(scope="module")
def digits():
    """Return the states of a 64-24-12-10 network on the digits, its test outputs, and the test data."""
    MLPClassifier = pytest.importorskip("sklearn.neural_network").MLPClassifier
    x, y, x_test, y_test = (array.astype(float) for array in idl_ref.datasets.digits())
    net = MLPClassifier(
        (24, 12), learning_rate_init=3e-3, batch_size=64, max_iter=25, random_state=0, tol=0, n_iter_no_change=99
    )
    with pytest.warns(UserWarning, match="Maximum iterations"):
        net.fit(x, y)
    teacher = [(W.T, b) for W, b in zip(net.coefs_, net.intercepts_, strict=True)]
    return sim.states(teacher, x), sim.states(teacher, x_test).Y, x_test, y_test


@pytest.mark.slow
def test_the_student_is_as_good_as_the_teacher(digits):
    data, Y, x_test, y_test = digits
    teacher = (Y.argmax(axis=0) == y_test).mean()
    assert teacher > 0.95
    student = sim.fit(data, 0.99)
    assert in_the_ball(student, 0.99)
    assert (student(x_test).argmax(axis=1) == y_test).mean() >= teacher - 0.001
    assert sim.objective(student, data) == pytest.approx(by_lars(data, 0.99), rel=1e-6)
    sparse = sim.fit(data, 0.99, 30, penalty_B=30)
    assert in_the_ball(sparse, 0.99)
    assert np.count_nonzero(sparse.parameters["A"]) < 0.3 * 36**2
    assert (sparse(x_test).argmax(axis=1) == y_test).mean() >= 0.93


def test_the_objective_of_a_sparse_model_is_that_of_the_dense_one():
    teacher = ImplicitModel(3, 2, 8, dtype="float64", seed=0)
    data = sim.states(teacher, np.random.default_rng(0).standard_normal((20, 3)))
    sparse, dense = (idl_ref.analysis.prune(teacher, 0.5, sparse=sparse) for sparse in (True, False))
    assert sim.objective(sparse, data, 0.1) == sim.objective(dense, data, 0.1) > 0.01
