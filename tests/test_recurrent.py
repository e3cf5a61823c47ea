"""These tests check the implicit RNN: outputs and gradients against plain loops, certificates, training, and files."""

import copy
import itertools
import pickle
import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import idl_ref
from idl_ref import (
    SGD,
    Adam,
    ConvergenceWarning,
    FileFormatError,
    ImplicitFunction,
    ImplicitFunctionInf,
    ImplicitFunctionRows,
    ImplicitFunctionTriu,
    NotConvergedError,
    certify,
)
from idl_ref.analysis import ImplicitRNN, through_time
from idl_ref.backends.numpy import Layer
from idl_ref.train import evaluate

P, Q, N, H, M, T = 2, 3, 6, 4, 5, 4
needs_numba = pytest.mark.skipif(idl_ref.available_backends()["numba"] != "available", reason="numba is not installed")
EXACT = {"dtype": "float64", "tol": 0.0, "grad_tol": 0.0, "mitr": 2000, "grad_mitr": 2000}
FUNCTIONS = (ImplicitFunctionInf, ImplicitFunctionRows, ImplicitFunctionTriu, ImplicitFunction)
KINDS = [
    pytest.param({"f": f, "bias": bias, "no_D": no_D, **rank}, id=f"{f.name}-{bias:d}{no_D:d}-{len(rank)}")
    for f, bias, no_D, rank in itertools.product(
        FUNCTIONS, (False, True), (False, True), ({}, {"is_low_rank": True, "rank": 2})
    )
    if f.low_rank or not rank
]


def make(f=ImplicitFunctionInf, seed=0, **settings):
    """Return an RNN in float64 that solves to rounding, whose raw A lies outside the ball of `f`, if `f` has one."""
    rnn = ImplicitRNN(P, Q, N, H, seed=seed, f=f, **{**EXACT, "kappa": 0.8, **settings})
    if f is not ImplicitFunction:
        for name in rnn.parameters.keys() & set("ALR"):
            rnn.parameters[name][...] *= 3
    rnn.w[...] = np.random.default_rng(seed).standard_normal(Q)
    return rnn


def data(loss="mse", m=M, length=T, seed=0):
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, Q, m) if loss == "cross_entropy" else rng.standard_normal((m, Q))
    return rng.standard_normal((m, length, P)), targets, rng.standard_normal((m, H))


# --- the truth, in plain loops that work for complex numbers ----------------------------------------------------------

PHI = {"relu": lambda x: np.where(x.real > 0, x, 0), "tanh": np.tanh, "identity": lambda x: x}


def plain_f(F, f, kappa):
    """Return the effective factor of one raw factor, with |a| for complex a = sign(Re a)·a."""
    absolute = np.where(F.real < 0, -F, F)
    if f is ImplicitFunctionTriu:
        return np.triu(F, 1)
    if f is ImplicitFunctionInf:
        sums = absolute.sum(axis=1)
        norm = sums[sums.real.argmax()]
        return F * (kappa / norm) if norm.real > kappa else F
    if f is ImplicitFunctionRows:
        rows = []
        for row, size in zip(F, absolute, strict=True):
            order = np.argsort(-size.real)
            levels = (np.cumsum(size[order]) - kappa) / np.arange(1, len(row) + 1)
            level = levels[np.flatnonzero(size[order].real > levels.real).max()]
            shrunk = np.where((size - level).real > 0, size - level, 0)
            rows.append(row if size.sum().real <= kappa else np.where(row.real < 0, -shrunk, shrunk))
        return np.array(rows)
    return F


def plain_outputs(V, settings, steps=150):
    """Return Ŷ (m, q) by Picard's iteration in every time step, for the arrays of V, which may be complex."""
    f, kappa, phi = settings.f, settings.kappa, PHI[settings.activation]
    A = plain_f(V["A"], f, kappa) if "A" in V else plain_f(V["L"], f, kappa) @ plain_f(V["R"].T, f, kappa)
    h = V["H0"].T
    for t in range(V["U"].shape[1]):
        v = np.concatenate([V["U"][:, t].T, h] + ([np.ones((1, h.shape[1]))] if settings.bias else []))
        x = np.zeros((len(A), h.shape[1]))
        for _ in range(steps):
            x = phi(A @ x + V["B"] @ v)
        h = V["C"] @ x + (V["D"] @ v if "D" in V else 0)
    return (V["W"] @ h + V["w"][:, None]).T


def plain_mse(V, settings, targets):
    return ((plain_outputs(V, settings) - targets) ** 2).mean()


@pytest.mark.sampled(3)
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_and_gradients_are_those_of_plain_loops(kind):
    rnn, (U, targets, H0) = make(**kind, backend="numpy"), data()
    V = {**rnn.parameters, "U": U, "H0": H0}
    value, G = rnn.loss_and_gradients(U, targets, "mse", H0)
    truth = plain_outputs(V, rnn.settings)
    np.testing.assert_allclose(rnn(U, H0), truth, rtol=1e-12, atol=1e-12 * np.abs(truth).max())
    assert value == pytest.approx(plain_mse(V, rnn.settings, targets), rel=1e-13)
    assert G.keys() == V.keys()
    rng = np.random.default_rng(1)
    for name, W in V.items():
        assert G[name].shape == W.shape
        for _ in range(3):  # random directions, and single entries, by the complex step
            E = rng.standard_normal(W.shape)
            derivative = plain_mse({**V, name: W + 1e-30j * E}, rnn.settings, targets).imag / 1e-30
            assert (G[name] * E).sum() == pytest.approx(derivative, rel=1e-12, abs=1e-12 * np.linalg.norm(G[name]))
        place = tuple(rng.integers(0, size) for size in W.shape)
        E = np.zeros(W.shape)
        E[place] = 1
        derivative = plain_mse({**V, name: W + 1e-30j * E}, rnn.settings, targets).imag / 1e-30
        assert G[name][place] == pytest.approx(derivative, rel=1e-12, abs=1e-12 * np.abs(G[name]).max())


@pytest.mark.parametrize("activation", ["tanh", "identity"])
@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_vjp_agrees_with_loss_and_gradients(activation, loss):
    rnn, (U, targets, H0) = make(activation=activation, bias=True, backend="numpy"), data(loss)
    _, G = rnn.loss_and_gradients(U, targets, loss, H0)
    Y, pullback = rnn.vjp(U, H0)
    rnn.parameters["A"][...] = 0  # The pullback belongs to the parameters of before.
    T_ = targets if loss == "cross_entropy" else targets.T
    for name, g in pullback(idl_ref.losses.get(loss)(Y.T, T_)[1].T).items():
        np.testing.assert_array_equal(g, G[name], err_msg=name)


def test_agreement_with_autograd_of_torch():
    torch = pytest.importorskip("torch")
    rnn, (U, labels, H0) = make(activation="tanh", bias=True), data("cross_entropy")
    V = {name: torch.tensor(W.copy(), requires_grad=True) for name, W in {**rnn.parameters, "U": U, "H0": H0}.items()}
    A, h = V["A"] * (0.8 / V["A"].abs().sum(1).max()), V["H0"]
    for t in range(T):
        v = torch.cat([V["U"][:, t], h, torch.ones(M, 1, dtype=torch.float64)], 1)
        x = torch.zeros(M, N, dtype=torch.float64)
        for _ in range(200):
            x = torch.tanh(x @ A.T + v @ V["B"].T)
        h = x @ V["C"].T + v @ V["D"].T
    torch.nn.functional.cross_entropy(h @ V["W"].T + V["w"], torch.tensor(labels)).backward()
    for name, G in rnn.loss_and_gradients(U, labels, H0=H0)[1].items():
        truth = V[name].grad.numpy()
        np.testing.assert_allclose(G, truth, rtol=0, atol=1e-12 * np.abs(truth).max(), err_msg=name)


@given(
    sizes=st.tuples(*(st.integers(1, 5) for _ in range(5))),
    length=st.integers(1, 6),
    m=st.integers(0, 4),
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 2**20),
)
def test_every_size(sizes, length, m, kind, seed):
    p, q, n, h, _ = sizes
    settings = dict(kind.values[0])
    if settings.pop("rank", None):
        settings["rank"] = min(2, n)
    rnn = ImplicitRNN(p, q, n, h, seed=seed, **{**EXACT, "kappa": 0.7, "backend": "numpy", **settings})
    rng = np.random.default_rng(seed)
    U, H0 = rng.standard_normal((m, length, p)), rng.standard_normal((m, h))
    truth = plain_outputs({**rnn.parameters, "U": U, "H0": H0}, rnn.settings)
    np.testing.assert_allclose(rnn(U, H0), truth, rtol=1e-11, atol=1e-11 * np.abs(truth).max(initial=1))
    _, G = rnn.loss_and_gradients(U, rng.standard_normal((m, q)), "mse", H0)
    assert all(np.isfinite(g).all() for g in G.values())


def test_one_time_step_is_the_cell():
    rnn, (U, targets, H0) = make(bias=True, backend="numpy"), data(length=1)
    Y, pullback = rnn.cell.vjp(np.hstack([U[:, 0], H0]))
    np.testing.assert_allclose(rnn(U, H0), Y @ rnn.W.T + rnn.w, rtol=1e-14)
    _, G = rnn.loss_and_gradients(U, targets, "mse", H0)
    G_Y = idl_ref.losses.mse(rnn(U, H0).T, targets.T)[1].T
    for name, g in pullback(G_Y @ rnn.W).items():
        expected = np.hstack([G["U"][:, 0], G["H0"]]) if name == "U" else G[name]
        np.testing.assert_allclose(g, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("settings", [{}, {"is_low_rank": True, "rank": 2}, {"bias": True}, {"no_D": True}])
def test_all_backends_agree(backend, settings):
    tolerance = {"tol": 0.0, "grad_tol": 0.0, "mitr": 500, "grad_mitr": 500}
    arguments = {**tolerance, "kappa": 0.7, "activation": "tanh", "dtype": np.dtype(backend.dtype).name, **settings}
    rnn, (U, targets, H0) = ImplicitRNN(P, Q, N, H, seed=0, backend=backend.name, **arguments), data()
    truth = make(**{**arguments, "dtype": "float64", "backend": "numpy"})
    for name, W in rnn.parameters.items():
        truth.parameters[name][...] = W
    np.testing.assert_allclose(rnn(U, H0), truth(U, H0), rtol=0, atol=20 * backend.tolerance)
    _, G = rnn.loss_and_gradients(U, targets, "mse", H0)
    for name, g in truth.loss_and_gradients(U, targets, "mse", H0)[1].items():
        assert G[name].dtype == backend.dtype
        np.testing.assert_allclose(G[name], g, rtol=0, atol=50 * backend.tolerance * np.abs(g).max(), err_msg=name)


@needs_numba
def test_an_output_does_not_depend_on_batch_mates():
    rnn = ImplicitRNN(P, Q, 40, 12, bias=True, seed=0, backend="numba")
    U = np.random.default_rng(0).standard_normal((50, 6, P)).astype(np.float32)
    whole, trajectory = rnn(U), rnn.trajectory(U)
    for part in (slice(7, 8), slice(0, 33), slice(49, 10, -3)):
        np.testing.assert_array_equal(rnn(U[part]), whole[part])
        np.testing.assert_array_equal(rnn.trajectory(U[part]).H, trajectory.H[part])


# --- all time steps in one launch -------------------------------------------------------------------------------------

WIDE = [{"bias": True}, {"no_D": True}, {"is_low_rank": True, "rank": 3}, {"f": ImplicitFunctionTriu}, {"m": 0}]


def whole(rnn, U):
    """Return the forward pass, after a check whether it was computed in one launch."""
    return rnn.layer().forward(rnn.checked_inputs("U", U).T).whole


def wide(dtype="float32", backend="numba", **settings):
    return ImplicitRNN(P, Q, 37, 11, seed=0, backend=backend, dtype=dtype, **settings)


@needs_numba
@pytest.mark.parametrize("settings", WIDE, ids=lambda s: "-".join(s))
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_one_launch_gives_what_steps_one_by_one_give(settings, activation, monkeypatch):
    settings = {"m": 21} | settings
    U, targets, _ = data("mse", settings.pop("m"), 6)
    rnn = wide(activation=activation, **settings)
    H0 = np.random.default_rng(5).standard_normal((len(U), 11))
    assert (whole(rnn, U) is not None) == (len(U) > 0 and rnn.settings.f is not ImplicitFunctionTriu)
    once, G = rnn.trajectory(U, H0), rnn.loss_and_gradients(U, targets, "mse", H0)[1]
    monkeypatch.setattr(type(rnn.cell.layer()), "unrolled", lambda self, U, H0: None)
    assert whole(rnn, U) is None
    for name, array in vars(rnn.trajectory(U, H0)).items():
        np.testing.assert_array_equal(getattr(once, name), array, err_msg=name)
    for name, g in rnn.loss_and_gradients(U, targets, "mse", H0)[1].items():
        np.testing.assert_allclose(G[name], g, rtol=0, atol=1e-5 * np.abs(g).max(initial=0), err_msg=name)


@needs_numba
def test_bits_depend_neither_on_tiles_nor_on_threads(monkeypatch):
    from idl_ref.backends.numba import launches

    rnn, (U, targets, _) = wide(bias=True), data("mse", 70, 6)
    Y, G = rnn(U), rnn.loss_and_gradients(U, targets, "mse")[1]
    monkeypatch.setattr(launches, "PARALLEL_FLOPS", 0)
    monkeypatch.setattr(launches, "TILE", 16)
    np.testing.assert_array_equal(rnn(U), Y)
    for name, g in rnn.loss_and_gradients(U, targets, "mse")[1].items():
        np.testing.assert_array_equal(g, G[name], err_msg=name)


@needs_numba
def test_slow_columns_leave_the_launch():
    """A nonnegative A with row sums κ needs another method than Picard's, which one launch does not have."""
    rnn, A = wide("float64", kappa=0.999, on_failure="raise"), np.random.default_rng(0).random((37, 37))
    rnn.parameters["A"][...] = 0.999 * A / A.sum(axis=1, keepdims=True)
    rnn.parameters["B"][...] = np.abs(rnn.parameters["B"])
    U = np.ones((4, 3, P))
    assert whole(rnn, U) is None
    agrees_with_newton(rnn, U)


@needs_numba
def test_slow_columns_of_the_adjoint_equation_leave_the_launch(monkeypatch):
    """No input reaches the unit with a slow eigenvalue, but the outputs read it."""
    rnn, U = wide("float64", f=ImplicitFunction, activation="identity", on_failure="raise"), np.ones((4, 3, P))
    rnn.parameters["A"][...] = np.diag([0.9999, *np.full(36, 0.1)])
    rnn.parameters["B"][0] = 0
    assert whole(rnn, U) is not None
    taken, kind = [], type(rnn.layer())
    original = kind._step_by_step
    monkeypatch.setattr(kind, "_step_by_step", lambda *a: taken.append(True) or original(*a))
    agrees_with_newton(rnn, U)
    assert taken


def agrees_with_newton(rnn, U):
    """Check outputs and gradients, to what tol and κ allow, against those of Newton's method."""
    exact = ImplicitRNN.from_parameters(
        replace(rnn.settings, backend="numpy", tol=0.0, grad_tol=0.0, method="newton"), dict(rnn.parameters)
    )
    np.testing.assert_allclose(rnn(U), exact(U), rtol=0, atol=1e-3 * np.abs(exact(U)).max())
    G, truth = (r.loss_and_gradients(U, np.zeros((len(U), Q)), "mse")[1] for r in (rnn, exact))
    for name, g in truth.items():
        np.testing.assert_allclose(G[name], g, rtol=0, atol=1e-3 * np.abs(g).max(), err_msg=name)


# --- certificates and failures ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_a_trajectory_satisfies_the_equations_and_its_bounds(dtype, activation):
    rnn = ImplicitRNN(P, Q, N, H, seed=0, bias=True, kappa=0.9, activation=activation, dtype=dtype)
    U, _, H0 = data(m=30)
    found = rnn.trajectory(U, H0)
    assert found.converged
    assert found.status.shape == found.iterations.shape == found.step.shape == found.error_bound.shape == (30, T)
    np.testing.assert_array_equal(found.Y, rnn(U, H0))
    W = [F.astype(np.float64) for F in (rnn.effective_weights().A, *rnn.effective_weights()[1:4])]
    h = H0.astype(dtype)
    for t in range(T):
        v = np.concatenate([U[:, t].astype(dtype), h, np.ones((30, 1), dtype)], axis=1).astype(np.float64).T
        x = found.X[:, t].astype(np.float64).T
        exact = x
        for _ in range(600):
            exact = np.maximum(W[0] @ exact + W[1] @ v, 0) if activation == "relu" else np.tanh(W[0] @ exact + W[1] @ v)
        assert (np.abs(x - exact).max(axis=0) <= found.error_bound[:, t] + 1e-15).all()
        assert np.isfinite(found.error_bound).all()
        assert (certify(W[0], W[1] @ v, x, activation=activation).max(axis=0) < 1e-4).all()
        h = found.H[:, t]
        np.testing.assert_allclose(h, (W[2] @ x + W[3] @ v).T, rtol=0, atol=20 * np.finfo(dtype).eps)
    np.testing.assert_allclose(found.Y, h @ rnn.W.T + rnn.w, rtol=0, atol=20 * np.finfo(dtype).eps)


def test_a_sample_that_is_not_finite_stains_only_itself():
    rnn, (U, _, _) = make(on_failure="ignore"), data()
    clean = rnn(U)
    U[2, 1, 0] = np.nan
    found = rnn.trajectory(U)
    assert np.isnan(found.Y[2]).all()
    assert not found.converged
    np.testing.assert_array_equal(np.delete(found.Y, 2, axis=0), np.delete(clean, 2, axis=0))
    bad = np.zeros((M, T), bool)
    bad[2, 1:] = True
    np.testing.assert_array_equal(found.status == idl_ref.Status.NONFINITE, bad)
    with pytest.warns(ConvergenceWarning, match=r"forward, time step 2 of 4: 1 of 5 samples not finite"):
        make()(U)


def test_a_failure_names_the_time_step():
    slow = {"tol": 1e-12, "mitr": 3, "method": "picard"}
    rnn, (U, targets, _) = make(**slow), data()
    with pytest.warns(ConvergenceWarning, match=r"forward, time step 1 of 4: 5 of 5 samples not converged") as caught:
        rnn(U)
    assert len(caught) == 1
    with pytest.raises(NotConvergedError, match="forward, time step 1 of 4"):
        make(**slow, on_failure="raise")(U)
    rnn = make(grad_tol=1e-12, grad_mitr=2, method="picard")
    with pytest.warns(ConvergenceWarning, match=r"adjoint, time step .*Raise grad_mitr"):
        rnn.loss_and_gradients(U, targets, "mse")


def test_a_vanishing_gradient_is_not_slow():
    """Subnormal numbers do not reach the products: from some step on, the gradient is 0."""
    rnn = ImplicitRNN(1, 1, 8, 4, seed=0, on_failure="raise")
    for W in rnn.parameters.values():
        W *= 0.05
    _, G = rnn.loss_and_gradients(np.ones((3, 60, 1)), np.ones((3, 1)), "mse")
    size = np.abs(G["U"]).max(axis=(0, 2))
    assert size[-1] > 0
    assert not size[:10].any()
    assert not (np.abs(G["U"][G["U"] != 0]) < np.finfo(np.float32).tiny).any()


# --- the pullback of f is taken once ----------------------------------------------------------------------------------


def test_f_and_its_pullback_are_called_once(monkeypatch):
    calls = []
    for name in ("effective", "pullback"):
        original = getattr(ImplicitFunctionRows, name)
        monkeypatch.setattr(
            ImplicitFunctionRows, name, lambda *a, name=name, original=original: calls.append(name) or original(*a)
        )
    rnn, (U, _, _) = make(ImplicitFunctionRows, backend="numpy"), data()
    layer = rnn.layer()
    calls.clear()
    rnn._gradients(layer, layer.forward(U.T), np.ones((Q, M)))
    assert calls == ["pullback"]


# --- planted bugs -----------------------------------------------------------------------------------------------------


def no_recurrence(original):
    return lambda *a, **k: (lambda b: b._replace(U=np.concatenate([b.U[:P], 0 * b.U[P:]])))(original(*a, **k))


def last_step_only(original):
    return lambda one, other: one


def h_without_d(original):
    def backward(self, forward, G_Y, inputs=False):
        b = original(self, forward, G_Y, inputs)
        return b._replace(U=b.U - 0.01 * (self.weights.D.T @ G_Y)[: len(b.U)])

    return backward


@pytest.mark.parametrize(
    ("place", "name", "bug"),
    [(Layer, "backward", no_recurrence), (through_time, "added", last_step_only), (Layer, "backward", h_without_d)],
)
def test_planted_bugs_are_found(monkeypatch, place, name, bug):
    rnn, (U, targets, H0) = make(bias=True, backend="numpy"), data("cross_entropy", 2, 2)
    monkeypatch.setattr(place, name, bug(getattr(place, name)))
    report = rnn.check_gradients(U, targets, H0=H0, entries=1)
    assert report.verdict == "WRONG", str(report)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("kind", KINDS[3::4])
def test_check_gradients_passes(kind):
    U, targets, H0 = data("cross_entropy", 3, 3)
    report = make(**kind, backend="numpy").check_gradients(U, targets, H0=H0, entries=2)
    assert report.passed, str(report)
    assert [row.name for row in report.rows][-4:] == ["W", "w", "U", "H0"]


# --- training ---------------------------------------------------------------------------------------------------------


def sums(m=300, length=5, seed=0):
    U = np.random.default_rng(seed).standard_normal((m, length, 1))
    return U, U.mean(axis=1)


@pytest.mark.parametrize("optimizer", [Adam(0.01), SGD(0.05), None], ids=["adam", "sgd", "auto"])
def test_training_learns(optimizer):
    rnn, validation = ImplicitRNN(1, 1, 10, 4, seed=0, bias=True), sums(100, seed=1)
    history = rnn.fit(*sums(), loss="mse", optimizer=optimizer, epochs=15, progress=False, validation=validation)
    assert history.validation_loss[-1] < 0.1 * validation[1].var()
    assert len(history.loss) == len(history.norm) == 15
    assert history.unconverged == [0] * 15
    assert evaluate(rnn, *validation, loss="mse")[0] == pytest.approx(history.validation_loss[-1], rel=1e-6)


def test_a_step_of_training_is_a_step_with_the_gradients():
    for f in (ImplicitFunctionInf, ImplicitFunctionRows):
        one = make(f, bias=True, backend="numpy")
        U, labels, _ = data("cross_entropy")
        two = copy.deepcopy(one)
        one.fit(U, labels, optimizer=SGD(0.1, momentum=0.5), epochs=2, batch_size=M, progress=False)
        optimizer = SGD(0.1, momentum=0.5)
        optimizer.start(2)
        for epoch in (1, 2):
            order = np.random.default_rng([0, epoch]).permutation(M)
            optimizer.step(two.parameters, two.loss_and_gradients(U[order], labels[order])[1])
            two.project()
        for name, W in one.parameters.items():
            np.testing.assert_allclose(W, two.parameters[name], rtol=1e-13, atol=1e-15, err_msg=name)


def test_training_resumes_from_a_checkpoint_bit_for_bit(tmp_path):
    U, targets = sums(90)
    arguments = {"loss": "mse", "optimizer": Adam(0.01), "progress": False, "batch_size": 20}
    whole, parts = (ImplicitRNN(1, 1, 10, 4, seed=0) for _ in range(2))
    whole.fit(U, targets, epochs=4, **arguments)
    for epochs in (2, 4):
        parts.fit(U, targets, epochs=epochs, checkpoint=tmp_path / "rnn.npz", **arguments)
    for name, W in whole.parameters.items():
        np.testing.assert_array_equal(W, parts.parameters[name])


U3 = np.zeros((4, 3, 2))
REFUSED = [
    ("sequence", lambda r: r.fit(np.zeros((4, 2)), [0, 1, 2, 0]), ValueError, "shape (m, T, p) with p = 2 and T ≥ 1"),
    ("one", lambda r: r(np.zeros((3, 2))), ValueError, "one sequence is U[None]"),
    ("swapped", lambda r: r(np.zeros((4, 2, 3))), ValueError, "numpy.swapaxes(U, 1, 2) may be what was meant"),
    ("no step", lambda r: r(np.zeros((4, 0, 2))), ValueError, "a sequence has at least one time step"),
    ("complex", lambda r: r(np.zeros((4, 3, 2), complex)), TypeError, "U must hold real numbers"),
    ("H0", lambda r: r(U3, np.zeros((4, 3))), ValueError, "H0 must have shape (m, h) with h = 4"),
    ("rows", lambda r: r(U3, np.zeros((3, 4))), ValueError, "one row per sample"),
    ("labels", lambda r: r.fit(U3, [0, 1, 2, 5]), ValueError, "labels in 0 … 2"),
    ("targets", lambda r: r.fit(U3, np.zeros((4, 2)), loss="mse"), ValueError, "targets must have shape (m, q)"),
    ("nan", lambda r: r.fit(U3 * np.nan, [0, 1, 2, 0]), ValueError, "numpy.isfinite(U).all(axis=(1, 2))"),
    ("empty", lambda r: r.fit(U3[:0], []), ValueError, "U must hold at least one sample"),
    ("loss", lambda r: r.fit(U3, [0, 1, 2, 0], loss="mae"), ValueError, "loss must be one of"),
    ("optimizer", lambda r: r.fit(U3, [0, 1, 2, 0], optimizer="adam"), TypeError, "optimizer must be"),
    ("validation", lambda r: r.fit(U3, [0, 1, 2, 0], validation=(U3[0], [0])), ValueError, "validation U must have"),
    ("option", lambda r: r.fit(U3, [0, 1, 2, 0], lr=1), TypeError, "lr"),
    ("entries", lambda r: r.check_gradients(U3, [0, 1, 2, 0], entries=0), ValueError, "entries must"),
    ("device", lambda r: r(type("D", (), {"__cuda_array_interface__": {"shape": (1, 1, 2), "typestr": "<f8"}})()),
     ValueError, "U must be in the memory of the host"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "words"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_refusals(call, kind, words):
    with pytest.raises(kind) as caught:
        call(make())
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0, 1, 2, 3), "input_dim must be a whole number, at least 1"),
        ((1, 1.5, 2, 3), "output_dim must"),
        ((1, 1, 0, 3), "implicit_hidden_dim must"),
        ((1, 1, 2, -3), "hidden_dim must"),
    ],
)
def test_sizes_are_checked(arguments, words):
    with pytest.raises((ValueError, TypeError), match=words):
        ImplicitRNN(*arguments)


def test_a_wrong_part_is_refused():
    rnn, (U, _, _) = make(), data()
    rnn.cell.preprocessing = idl_ref.preprocessing.Standardise(0.0, 1.0)
    with pytest.raises(ValueError, match="cell must have no preprocessing"):
        rnn(U)
    rnn.cell.preprocessing = None
    rnn.cell = idl_ref.analysis.prune(rnn.cell, 0.5, sparse=True)
    for call in (rnn, lambda U: rnn.save("not-written.npz"), lambda U: rnn.vjp(U)):
        with pytest.raises(ValueError, match="the cell of an ImplicitRNN has a dense A; got a sparse one"):
            call(U)
    rnn = make()
    rnn.W = rnn.W[:, :2]
    with pytest.raises(ValueError, match="parameter W must be"):
        rnn(U)
    with pytest.raises(TypeError):
        rnn.parameters["A"] = np.eye(N)  # Only the entries of the arrays change the RNN.


# --- files, copies, torchidl ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
@pytest.mark.parametrize("kind", KINDS[:3])
def test_a_file_restores_everything(tmp_path, suffix, kind):
    if suffix == "safetensors":
        pytest.importorskip("safetensors")
    rnn, (U, _, _) = make(**kind), data()
    rnn.save(tmp_path / f"rnn.{suffix}")
    loaded = ImplicitRNN.load(tmp_path / f"rnn.{suffix}", on_failure="raise")
    assert repr(loaded) == repr(rnn)
    assert loaded.settings.on_failure == "raise"
    for name, W in rnn.parameters.items():
        np.testing.assert_array_equal(loaded.parameters[name], W)
    np.testing.assert_array_equal(loaded(U), rnn(U))


def test_a_file_is_not_trusted(tmp_path):
    path, rnn = tmp_path / "rnn.npz", make()
    rnn.save(path)
    with pytest.raises(FileFormatError, match='format in its header is not "idl_ref model"'):
        idl_ref.load(path)
    rnn.cell.save(tmp_path / "cell.npz")
    with pytest.raises(FileFormatError, match="not an idl_ref recurrent model"):
        ImplicitRNN.load(tmp_path / "cell.npz")
    whole = path.read_bytes()
    for place in range(0, len(whole), 97):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            same = ImplicitRNN.load(path)
        except FileFormatError:
            continue
        for name, W in rnn.parameters.items():  # The changed byte is one that means nothing, such as a date.
            np.testing.assert_array_equal(same.parameters[name], W)
    rnn.w[0] = np.nan
    with pytest.raises(ValueError, match="w must be finite to be saved"):
        rnn.save(path)
    with pytest.raises(TypeError, match="load takes the settings"):
        ImplicitRNN.load(tmp_path / "cell.npz", kappa=0.5)


@pytest.mark.parametrize(
    "change",
    [{"output_dim": 0}, {"output_dim": "1"}, {"output_dim": 10**9}, {"settings": None}, {"settings": {"input_dim": 1}}],
)
def test_a_header_that_does_not_fit_is_refused(tmp_path, change):
    rnn = make()
    header = {"settings": rnn.settings.plain(), "output_dim": Q} | change
    idl_ref.io.write(tmp_path / "rnn.npz", header, dict(rnn.parameters), "idl_ref recurrent model")
    with pytest.raises(FileFormatError):
        ImplicitRNN.load(tmp_path / "rnn.npz")


def test_copies_are_independent():
    rnn, (U, _, _) = make(), data()
    before = rnn(U)
    for twin in (copy.deepcopy(rnn), pickle.loads(pickle.dumps(rnn))):
        np.testing.assert_array_equal(twin(U), before)
        for W in twin.parameters.values():
            W += 1
        np.testing.assert_array_equal(rnn(U), before)
    rnn.parameters["C"][...] = 0
    assert not np.array_equal(rnn(U), before)


def state(rnn):
    """Return the parameters by torchidl's names."""
    cell = {f"recurrent.layer.{name}": W for name, W in rnn.cell.parameters.items()}
    return cell | {"linear.weight": rnn.W, "linear.bias": rnn.w}


@pytest.mark.parametrize("kind", [k for k in KINDS if k.values[0]["f"] in (ImplicitFunctionInf, ImplicitFunctionTriu)])
def test_weights_of_torchidl(kind):
    rnn, (U, _, _) = make(**kind), data()
    settings = {name: kind[name] for name in ("f", "bias")}
    back = ImplicitRNN.from_torchidl(state(rnn), kappa=0.8, tol=0.0, mitr=2000, **settings)
    np.testing.assert_array_equal(back(U), rnn(U))
    assert (back.input_dim, back.output_dim, back.implicit_hidden_dim, back.hidden_dim) == (P, Q, N, H)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: list(s), "state_dict must be a mapping"),
        (lambda s: {n: W for n, W in s.items() if n != "linear.bias"}, "state_dict must hold recurrent.layer.A"),
        (lambda s: s | {"extra": np.ones(1)}, "state_dict must hold recurrent.layer.A"),
        (lambda s: s | {"linear.weight": np.ones((Q, H + 1))}, "linear.weight must have shape"),
        (lambda s: s | {"linear.bias": np.ones((Q, 1))}, "linear.bias must have shape"),
        (lambda s: {n.removeprefix("recurrent.layer."): W for n, W in s.items()}, "use ImplicitModel.from_torchidl"),
    ],
)
def test_other_weights_are_refused(change, words):
    with pytest.raises((TypeError, ValueError)) as caught:
        ImplicitRNN.from_torchidl(change(state(make())))
    assert words in str(caught.value)


def test_agreement_with_torchidl():
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("torchidl")
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = theirs.ImplicitRNN(P, Q, N, H, bias=True, tol=1e-12, grad_tol=1e-12, mitr=3000, grad_mitr=3000).double()
        U, labels, _ = data("cross_entropy")
        V = torch.tensor(U)
        outputs, h = [], torch.zeros(M, H, dtype=torch.float64)
        for t in range(T):  # Its cell writes float64 states into a float32 array, so that it is unrolled here.
            h = net.recurrent.layer(torch.cat((V[:, t], h), dim=-1))
        outputs = net.linear(h)
        torch.nn.functional.cross_entropy(outputs, torch.tensor(labels)).backward()
    rnn = ImplicitRNN.from_torchidl(net.state_dict(), **{**EXACT, "bias": True})
    np.testing.assert_allclose(rnn(U), outputs.detach().numpy(), rtol=0, atol=1e-11)
    G = rnn.loss_and_gradients(U, labels)[1]
    for name, parameter in net.named_parameters():
        ours = {"linear.weight": "W", "linear.bias": "w"}.get(name, name.rpartition(".")[2])
        np.testing.assert_allclose(G[ours], parameter.grad.numpy(), rtol=0, atol=1e-11, err_msg=name)
