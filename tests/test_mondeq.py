"""These tests compare imported monDEQs, in the layout of their code, with splitting methods written out here."""

import numpy as np
import pytest
from test_monotone import by_splitting

import idl_ref
from idl_ref import ImplicitFunctionMonotone, ImplicitModel
from idl_ref.analysis import from_mondeq, reasons


def network(p=784, n=40, q=10, scale=1.0, dtype=np.float32, prefix="mon.linear_module.", seed=0):
    """Return the state_dict of a SingleFcNet of the public code, with weights drawn as torch.nn.Linear draws them."""
    rng = np.random.default_rng(seed)

    def linear(rows, columns, factor=1.0):
        return (factor * rng.uniform(-1, 1, (rows, columns)) / columns**0.5).astype(dtype)

    return {
        f"{prefix}U.weight": linear(n, p),
        f"{prefix}U.bias": linear(1, n)[0],
        f"{prefix}A.weight": linear(n, n, scale),
        f"{prefix}B.weight": linear(n, n, scale),
        "Wout.weight": linear(q, n),
        "Wout.bias": linear(1, q)[0],
    }


def parts(state):
    return [state[next(name for name in state if f".{name}".endswith(f".{part}"))].astype(float)
            for part in ("U.weight", "U.bias", "A.weight", "B.weight", "Wout.weight", "Wout.bias")]  # fmt: skip


def by_forward_backward(W, Z, m, steps=20_000):
    """Return the solution of x = relu(W x + z) by x ← relu(x − α ((I − W) x − z)), which contracts for this α."""
    F = np.eye(len(W)) - W
    alpha, X = m / np.linalg.norm(F, 2) ** 2, np.zeros_like(Z)
    for _ in range(steps):
        X = np.maximum(X - alpha * (F @ X - Z), 0)
    return X


@pytest.mark.parametrize("m", [0.1, 1.0, 1.5])
@pytest.mark.parametrize("scale", [1.0, 6.0])
@pytest.mark.parametrize("method", ["auto", "newton"])
def test_answers_agree_with_a_splitting_method(m, scale, method):
    state = network(scale=scale)
    U, b, A, B, C, c = parts(state)
    model = from_mondeq(state, m, dtype="float64", tol=1e-10, method=method)
    n = len(U)
    W = (1 - m) * np.eye(n) - A.T @ A + B - B.T
    np.testing.assert_allclose(model.effective()["A"], W, atol=1e-12 * (1 + np.abs(W).max()) * n)
    images = np.random.default_rng(1).standard_normal((20, 784))
    X = by_splitting(W, U @ images.T + b[:, None])
    solution = model.equilibrium(images)
    assert solution.converged
    assert np.abs(solution.X - X).max() < 1e-7
    assert np.abs(model(images) - (C @ X + c[:, None]).T).max() < 1e-6
    assert idl_ref.wellposed.norm_inf(W) > 1
    assert "monotone" in [reason.name for reason in reasons(model)]


def test_the_two_splitting_methods_agree():
    U, b, A, B, _, _ = parts(network(p=5, n=6))
    W = 0.5 * np.eye(6) - A.T @ A + B - B.T
    Z = U @ np.random.default_rng(0).standard_normal((5, 8)) + b[:, None]
    np.testing.assert_allclose(by_splitting(W, Z), by_forward_backward(W, Z, 0.5), atol=1e-9)


def test_it_trains_on_and_stays_monotone(tmp_path):
    model = from_mondeq(network(p=2, n=12, q=2), 0.3)
    assert (model.f, model.bias, model.no_D, model.activation, model.dtype) == (
        ImplicitFunctionMonotone, True, False, "relu", np.float32
    )  # fmt: skip
    x, y = idl_ref.datasets.two_moons(100)
    history = idl_ref.fit(model, x, y, optimizer=idl_ref.SGD(0.1), epochs=30, batch_size=20, progress=False)
    assert history.accuracy[-1] > 0.85
    assert idl_ref.wellposed.monotone(model.effective()["A"]).m >= 0.3 - 1e-9
    model.save(tmp_path / "model.npz")
    np.testing.assert_array_equal(idl_ref.load(tmp_path / "model.npz")(x), model(x))


def test_the_layer_alone_with_another_readout_name():
    state = network(p=3, n=4, q=2, prefix="")
    state = {("readout." + name[5:] if name.startswith("Wout") else name): W for name, W in state.items()}
    assert from_mondeq(state, 1.0)(np.zeros((2, 3))).shape == (2, 2)
    assert from_mondeq(state, 1.0).kappa == 0


def test_a_singular_part():
    """AᵀA may be singular, for which a Cholesky decomposition would fail."""
    state = network(p=3, n=4, q=2, dtype=np.float64)
    state["mon.linear_module.A.weight"][:, 1] = 0
    _, _, A, B, _, _ = parts(state)
    W = 0.75 * np.eye(4) - A.T @ A + B - B.T
    np.testing.assert_allclose(from_mondeq(state, 0.25).effective()["A"], W, atol=1e-14)


def changed(**entries):
    """Return the state_dict with some entries replaced, or left out where they are None."""
    state = network(p=3, n=4, q=2)
    names = {"U": "mon.linear_module.U.weight", "A": "mon.linear_module.A.weight", "C": "Wout.weight"}
    for name, value in entries.items():
        state[names.get(name, name)] = value
    return {name: W for name, W in state.items() if W is not None}


@pytest.mark.parametrize(
    ("state", "m", "message"),
    [
        (changed(U=np.zeros((4, 3, 3, 3))), 1.0, "matrix .* as convolutions are not read"),
        (changed(A=np.zeros((4, 4, 3, 3))), 1.0, r"A.weight must have shape \(4, 4\)"),
        (changed(A=None), 1.0, "must hold one A.weight"),
        (changed(C=None), 1.0, "must hold one weight"),
        (changed(**{"other.A.weight": np.zeros((4, 4))}), 1.0, "must hold one A.weight.*got .*other"),
        (changed(**{"mon.linear_module.g": np.ones(1)}), 1.0, "got also .*linear_module.g.*another network"),
        (changed(C=np.zeros((2, 5))), 1.0, r"Wout.weight must have shape \(2, 4\)"),
        (changed(), 0.0, "m must be above 0"),
        (changed(), -1.0, "m must be a number ≥ 0"),
    ],
)
def test_what_is_refused(state, m, message):
    with pytest.raises(ValueError, match=message):
        from_mondeq(state, m)


def test_settings_that_follow_are_refused():
    for name, value in {"kappa": 0.5, "bias": True, "activation": "tanh"}.items():
        with pytest.raises(ValueError, match=f"{name} follows from the weights and m"):
            from_mondeq(changed(), 1.0, **{name: value})
    with pytest.raises(TypeError, match=r"state_dict must be a mapping.*model\.state_dict\(\)"):
        from_mondeq([1, 2], 1.0)


def test_the_modules_of_torch():
    """The network, with the products of its layers as its authors wrote them, solved by a splitting method in torch."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    p, n, q, m = 20, 15, 4, 0.1
    net = torch.nn.ModuleDict({"linear_module": torch.nn.ModuleDict({
        "U": torch.nn.Linear(p, n), "A": torch.nn.Linear(n, n, bias=False), "B": torch.nn.Linear(n, n, bias=False),
    }), "Wout": torch.nn.Linear(n, q)}).double()  # fmt: skip
    layer, x = net["linear_module"], torch.randn(6, p, dtype=torch.float64)
    z = torch.zeros(6, n, dtype=torch.float64)
    for _ in range(4000):  # z ← relu(z − α ((I − W) z − U x))
        Wz = (1 - m) * z - layer["A"](z) @ layer["A"].weight + layer["B"](z) - z @ layer["B"].weight
        z = torch.relu(z - 0.05 * (z - Wz - layer["U"](x)))
    model = from_mondeq(net.state_dict(), m, tol=1e-10)
    np.testing.assert_allclose(model(x.numpy()), net["Wout"](z).detach().numpy(), atol=1e-6)


def test_a_model_is_not_a_state_dict():
    model = ImplicitModel(2, 2, 3)
    with pytest.raises(ValueError, match=r"must hold one U\.weight"):
        from_mondeq(model.parameters, 1.0)
