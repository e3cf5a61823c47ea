import warnings

import numpy as np
import pytest

from idl_ref import ImplicitFunction, ImplicitFunctionInf, ImplicitFunctionRows, ImplicitFunctionTriu, ImplicitModel

P, Q, N, R, M = 4, 3, 6, 2, 5


def state(low_rank=False, bias=False, no_D=False, size=6.0, dtype=np.float64):
    """Return weights as training with torchidl produces them, with ‖A‖∞ far above κ."""
    rng = np.random.default_rng(0)
    p = P + bias
    shapes = {"L": (N, R), "R": (N, R)} if low_rank else {"A": (N, N)}
    shapes |= {"B": (N, p), "C": (Q, N)} | ({} if no_D else {"D": (Q, p)})
    return {
        name: (rng.standard_normal(s) * (size / s[1] if name in "ALR" else 1)).astype(dtype)
        for name, s in shapes.items()
    }


def inputs():
    return np.random.default_rng(1).standard_normal((M, P))


def scaled(A, kappa):
    norm = np.abs(A).sum(axis=1).max()
    return kappa / norm * A if norm > kappa else A


def torchidl_forward(state, U, f="inf", bias=False, kappa=0.99, mitr=3000, tol=1e-13):
    """Compute what torchidl computes: Picard's iteration from 0, which returns the last but one iterate."""
    U = U.T
    if bias:
        U = np.vstack([U, np.ones((1, U.shape[1]))])
    A = scaled(state["L"], kappa) @ scaled(state["R"].T, kappa) if "L" in state else state["A"]
    A = {"inf": lambda: scaled(A, kappa), "triu": lambda: np.triu(A, 1), "none": lambda: A}[f]()
    X = np.zeros((len(A), U.shape[1]))
    for _ in range(mitr):
        X_new = np.maximum(A @ X + state["B"] @ U, 0)
        if np.abs(X_new - X).max() < tol:
            break
        X = X_new
    Y = state["C"] @ X
    return (Y + state["D"] @ U if "D" in state else Y).T


@pytest.mark.parametrize("low_rank", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("no_D", [False, True])
def test_outputs_are_those_of_torchidl(low_rank, bias, no_D):
    weights = state(low_rank, bias, no_D)
    model = ImplicitModel.from_torchidl(weights, bias=bias, tol=1e-13, mitr=3000)
    assert (model.input_dim, model.output_dim, model.hidden_dim) == (P, Q, N)
    assert (model.is_low_rank, model.rank, model.no_D, model.bias) == (low_rank, R if low_rank else None, no_D, bias)
    assert model.f is ImplicitFunctionInf
    assert model.dtype == np.float64
    np.testing.assert_allclose(model(inputs()), torchidl_forward(weights, inputs(), bias=bias), rtol=1e-10, atol=1e-11)


def test_triu_and_kappa():
    weights = state()
    model = ImplicitModel.from_torchidl(weights, f=ImplicitFunctionTriu)
    np.testing.assert_allclose(model(inputs()), torchidl_forward(weights, inputs(), "triu"), rtol=1e-10)
    model = ImplicitModel.from_torchidl(weights, kappa=0.3, tol=1e-13)
    np.testing.assert_allclose(model(inputs()), torchidl_forward(weights, inputs(), kappa=0.3), rtol=1e-10)


@pytest.mark.parametrize("low_rank", [False, True])
def test_weights_stay_raw_and_are_copied(low_rank):
    weights = state(low_rank)
    model = ImplicitModel.from_torchidl(weights)
    for name, value in weights.items():
        np.testing.assert_array_equal(model.parameters[name], value)
        assert not np.shares_memory(model.parameters[name], value)


def test_low_rank_without_f_takes_the_scaled_factors_over():
    """torchidl scales L and R for every f, whereas our ImplicitFunction leaves them unchanged."""
    weights = state(low_rank=True)
    model = ImplicitModel.from_torchidl(weights, f=ImplicitFunction, kappa=0.7, tol=1e-13)
    assert model.f is ImplicitFunction
    np.testing.assert_allclose(model.parameters["L"], scaled(weights["L"], 0.7), rtol=1e-12)
    np.testing.assert_allclose(model.parameters["R"].T, scaled(weights["R"].T, 0.7), rtol=1e-12)
    np.testing.assert_allclose(model(inputs()), torchidl_forward(weights, inputs(), "none", kappa=0.7), rtol=1e-10)


def test_dense_without_f_stays_as_it_is():
    weights = state(size=0.1)
    model = ImplicitModel.from_torchidl(weights, f=ImplicitFunction)
    np.testing.assert_array_equal(model.effective()["A"], weights["A"])


def test_dtype_is_that_of_the_weights_unless_given():
    assert ImplicitModel.from_torchidl(state(dtype=np.float32)).dtype == np.float32
    assert ImplicitModel.from_torchidl(state(dtype=np.float32), dtype="float64").dtype == np.float64
    assert ImplicitModel.from_torchidl(state(), dtype=np.float32).dtype == np.float32


def test_settings_go_to_the_model():
    model = ImplicitModel.from_torchidl(state(), activation="tanh", mitr=7, kappa=0.5, on_failure="raise", input_dim=P)
    assert (model.activation, model.mitr, model.kappa, model.on_failure) == ("tanh", 7, 0.5, "raise")
    assert ImplicitModel.from_torchidl(state(), f=ImplicitFunctionRows).f is ImplicitFunctionRows


def test_a_class_of_torchidl_is_known_by_its_name():
    theirs = type("ImplicitFunctionTriu", (), {})
    assert ImplicitModel.from_torchidl(state(), f=theirs).f is ImplicitFunctionTriu
    with pytest.raises(TypeError, match="f must be a subclass"):
        ImplicitModel.from_torchidl(state(), f=type("Custom", (), {}))


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.pop("A"),
        lambda s: s.pop("B"),
        lambda s: s.pop("C"),
        lambda s: s.update(L=np.zeros((N, 2))),
        lambda s: s.update(E=np.zeros((N, 2))),
        lambda s: s.clear(),
    ],
)
def test_other_names_are_refused(change):
    weights = state()
    change(weights)
    with pytest.raises(ValueError, match=r"state_dict must hold A \(or L and R\), B, C and perhaps D; got \["):
        ImplicitModel.from_torchidl(weights)


@pytest.mark.parametrize(
    ("name", "value"),
    [("A", np.zeros((N, N + 1))), ("C", np.zeros((Q, N - 1))), ("D", np.zeros((Q, P + 1))), ("B", np.zeros(N))],
)
def test_shapes_that_disagree_are_refused(name, value):
    with pytest.raises(ValueError, match="must"):
        ImplicitModel.from_torchidl({**state(), name: value})


def test_complex_weights_are_refused():
    with pytest.raises(TypeError, match="B must hold real numbers"):
        ImplicitModel.from_torchidl({**state(), "B": np.zeros((N, P), complex)})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"hidden_dim": 7}, "hidden_dim must be 6 for these weights; got 7: leave out hidden_dim"),
        ({"input_dim": P + 1}, "input_dim must be 4 for these weights; got 5"),
        ({"no_D": True}, "no_D must be False for these weights; got True"),
        ({"is_low_rank": True}, "is_low_rank must be False for these weights; got True"),
        ({"rank": 2}, "rank must be None for these weights; got 2"),
        ({"bias": 1}, "bias must be True or False"),
        ({"kappa": 1.0}, "kappa must be"),
    ],
)
def test_settings_that_contradict_the_weights_are_refused(settings, words):
    with pytest.raises((ValueError, TypeError), match=words):
        ImplicitModel.from_torchidl(state(), **settings)


@pytest.mark.parametrize("low_rank", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("f", ["ImplicitFunctionInf", "ImplicitFunctionTriu", "ImplicitFunction"])
def test_against_torchidl_itself(low_rank, bias, f):
    """Outputs and all gradients agree with torchidl, where torch and torchidl are installed."""
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torchidl = pytest.importorskip("torchidl")
        from torchidl import implicit_function

        theirs = getattr(implicit_function, f)
        if low_rank and f == "ImplicitFunctionTriu":
            return  # torchidl uses the triangle of L Rᵀ, which our library refuses.
        rank = R if low_rank else None
        torch.manual_seed(0)
        torch_model = torchidl.ImplicitModel(
            P, Q, N, f=theirs, bias=bias, is_low_rank=low_rank, rank=rank, tol=1e-14, grad_tol=1e-14, mitr=5000,
            grad_mitr=5000,
        ).double()  # fmt: skip
        with torch.no_grad():
            for name in ("A", "L", "R"):
                if hasattr(torch_model, name) and f != "ImplicitFunction":
                    getattr(torch_model, name).mul_(8)
        straight = not low_rank and f == "ImplicitFunctionInf"
        model = ImplicitModel.from_torchidl(
            torch_model.state_dict(), f=theirs, bias=bias, tol=1e-14, grad_tol=1e-14, mitr=5000, grad_mitr=5000,
            straight_through=straight,
        )  # fmt: skip
        U = torch.tensor(inputs(), requires_grad=True)
        Y_theirs = torch_model(U)
        G_Y = np.random.default_rng(2).standard_normal((M, Q))
        Y_theirs.backward(torch.tensor(G_Y))
    Y, pullback = model.vjp(inputs())
    np.testing.assert_allclose(Y, Y_theirs.detach().numpy(), rtol=1e-9, atol=1e-10)
    G = pullback(G_Y)
    names = dict(torch_model.named_parameters())
    for name in model.parameters:
        np.testing.assert_allclose(G[name], names[name].grad.numpy(), rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(G["U"], U.grad.numpy(), rtol=1e-8, atol=1e-9)
