"""The layers for PyTorch and JAX in examples/backends give the outputs and gradients of ImplicitModel.

Those for JAX stand in jax_layer_cases.py, which runs in a process of its own: once JAX is imported, no test may fork.
"""

import copy
import os
import pickle
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import idl_ref
from idl_ref import ImplicitFunction, ImplicitFunctionRows, ImplicitFunctionTriu, NotConvergedError

ROOT = Path(__file__).parents[1]
LAYERS = [ROOT / "examples" / "backends" / f"{name}_layer.py" for name in ("torch", "jax")]
EXACT = {"tol": 1e-13, "grad_tol": 1e-13}
LOW = {"is_low_rank": True, "rank": 2}
SETTINGS = [
    {}, LOW, {"kappa": 0.3}, {"kappa": 0.3, **LOW}, {"activation": "tanh", "bias": True}, {"activation": "tanh", **LOW},
    {"f": ImplicitFunctionRows, "kappa": 0.3, "activation": "elu"},
    {"f": ImplicitFunctionTriu, "activation": "softsign"}, {"backend": "numpy", "activation": "sigmoid"},
]  # fmt: skip


@pytest.mark.parametrize("path", LAYERS, ids=lambda path: path.stem)
def test_a_layer_is_short_and_runs_as_a_script(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 100
    framework = path.stem.partition("_")[0]
    if find_spec(framework) is None:
        pytest.skip(f"{framework} is not installed")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run([sys.executable, str(path)], env=environment, check=True, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    if framework == "torch":
        assert [line.endswith("True") for line in lines[:2]] == [True, True]
        assert float(lines[-1].rpartition(" ")[2]) > 0.92
    else:
        for line in lines:
            before, after = (float(word) for word in line.split() if word[0].isdigit())
            assert after < 0.8 * before


def test_the_layer_for_jax():
    if find_spec("jax") is None:
        pytest.skip("jax is not installed")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/jax_layer_cases.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


# --- PyTorch ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def torch(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples" / "backends")
    return pytest.importorskip("torch")


def made(torch, dtype="float64", **settings):
    """A layer whose norm is above the κ of most settings, so that `f` acts."""
    from torch_layer import ImplicitLayer

    torch.manual_seed(1)
    layer = ImplicitLayer(3, 6, dtype=getattr(torch, dtype), **(EXACT if dtype == "float64" else {}), **settings)
    with torch.no_grad():
        for name in "ALR":
            if hasattr(layer, name):
                getattr(layer, name).mul_(1.2)
    return layer


def model_of(layer, dtype="float64"):
    """The ImplicitModel with the same parameters and the outputs X."""
    s = layer.settings
    model = idl_ref.ImplicitModel(
        3, 6, 6, s.f, True, s.bias, tol=s.tol, grad_tol=s.grad_tol, kappa=s.kappa, is_low_rank=s.is_low_rank,
        rank=s.rank, activation=s.activation, dtype=dtype, backend=s.backend,
    )  # fmt: skip
    for name, W in layer.named_parameters():
        model.parameters[name][...] = W.detach().numpy()
    model.parameters["C"][...] = np.eye(6)
    return model


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize(("dtype", "rtol"), [("float64", 1e-10), ("float32", 1e-4)])
def test_outputs_and_gradients_are_those_of_a_model(torch, settings, dtype, rtol):
    layer = made(torch, dtype, **settings)
    rng = np.random.default_rng(0)
    U, G = rng.standard_normal((5, 3)).astype(dtype), rng.standard_normal((5, 6)).astype(dtype)
    Y, pullback = model_of(layer, dtype).vjp(U)
    rows = torch.from_numpy(U).requires_grad_()
    X = layer(rows)
    X.backward(torch.from_numpy(G))
    assert X.dtype == rows.dtype
    np.testing.assert_allclose(X.detach().numpy(), Y, rtol, rtol)
    found = {"U": rows.grad} | {name: W.grad for name, W in layer.named_parameters()}
    expected = pullback(G)
    assert found.keys() == expected.keys() - {"C"}
    for name, gradient in found.items():
        np.testing.assert_allclose(gradient.numpy(), expected[name], rtol, rtol, err_msg=name)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_gradcheck(torch, settings):
    from torch_layer import Equilibrium

    layer = made(torch, **settings)
    U = torch.randn(4, 3, dtype=torch.float64)
    U = torch.nn.functional.pad(U, (0, int(layer.settings.bias)), value=1.0).requires_grad_()
    smooth = activation_is_smooth_at(layer, U)
    assert smooth, "the seed puts an argument of φ at a kink"
    assert torch.autograd.gradcheck(
        Equilibrium.apply, (layer.settings, U, *layer.parameters()), eps=1e-6, atol=1e-8, rtol=1e-7
    )


def activation_is_smooth_at(layer, U):
    """Whether no argument of φ is within 1e-4 of a kink."""
    kinks = idl_ref.activations.get(layer.settings.activation).kinks
    model = model_of(layer)
    X = layer(U[:, :3]).detach().numpy().T
    P = idl_ref.factors.apply(model.effective_weights().factors, X) + model.parameters["B"] @ U.detach().numpy().T
    return all((abs(P - kink) > 1e-4).all() for kink in kinks)


def test_a_finite_difference_through_the_whole_layer(torch):
    layer = made(torch, activation="tanh")
    U, direction = torch.randn(2, 4, 3, dtype=torch.float64)
    loss = lambda U: layer(U).square().sum()  # noqa: E731
    (G,) = torch.autograd.grad(loss(U.requires_grad_()), U)
    h = 1e-5
    difference = (loss(U + h * direction) - loss(U - h * direction)) / (2 * h)
    assert float((G * direction).sum()) == pytest.approx(difference.item(), rel=1e-8)


def test_a_layer_twice_in_one_graph(torch):
    layer = made(torch, activation="tanh")
    U = torch.randn(4, 3, dtype=torch.float64)
    (layer(U).sum() + layer(2 * U).square().sum()).backward()
    together = layer.A.grad.clone()
    apart = []
    for loss in (lambda: layer(U).sum(), lambda: layer(2 * U).square().sum()):
        layer.zero_grad()
        loss().backward()
        apart.append(layer.A.grad.clone())
    torch.testing.assert_close(together, apart[0] + apart[1])


def test_backward_may_be_repeated(torch):
    layer = made(torch)
    loss = layer(torch.randn(4, 3, dtype=torch.float64)).sum()
    loss.backward(retain_graph=True)
    once = layer.A.grad.clone()
    loss.backward()
    torch.testing.assert_close(layer.A.grad, 2 * once)


def test_without_gradients_the_adjoint_is_not_solved(torch, monkeypatch):
    import torch_layer

    def refuse(*_, **__):
        raise AssertionError("the adjoint equation was solved")

    monkeypatch.setattr(torch_layer, "solve_adjoint", refuse)
    layer = made(torch)
    with torch.no_grad():
        assert not layer(torch.ones(2, 3, dtype=torch.float64)).requires_grad
    assert not layer.requires_grad_(False)(torch.ones(2, 3, dtype=torch.float64)).requires_grad


def test_frozen_parameters_get_no_gradient(torch):
    layer = made(torch)
    layer.A.requires_grad_(False)
    layer(torch.ones(2, 3, dtype=torch.float64)).sum().backward()
    assert layer.A.grad is None
    assert layer.B.grad is not None


def test_a_second_derivative_is_refused(torch):
    layer = made(torch, activation="tanh")
    U = torch.ones(2, 3, dtype=torch.float64, requires_grad=True)
    for loss in (layer(U).sum(), layer(U).square().sum()):
        with pytest.raises(RuntimeError, match="first derivatives only; got create_graph=True: leave it out"):
            torch.autograd.grad(loss, U, create_graph=True)
    with pytest.raises(RuntimeError, match="first derivatives only"):
        torch.autograd.functional.hessian(lambda U: layer(U).sum(), U)


def test_a_weight_that_changes_before_backward_is_refused(torch):
    layer = made(torch)
    loss = layer(torch.ones(2, 3, dtype=torch.float64)).sum()
    with torch.no_grad():
        layer.A.mul_(0.5)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_other_devices_and_dtypes_are_refused(torch):
    layer = made(torch)
    with pytest.raises(ValueError, match=r"must be in the memory of the CPU; got device meta: call \.cpu\(\)"):
        layer(torch.ones(2, 3, dtype=torch.float64, device="meta"))
    with pytest.raises(TypeError, match=r"float32, or all float64; got torch.float32, torch.float64: call \.to"):
        layer(torch.ones(2, 3))
    with pytest.raises(TypeError, match=r"got torch\.bfloat16, torch\.bfloat16"):
        layer.to(torch.bfloat16)(torch.ones(2, 3, dtype=torch.bfloat16))


def test_samples_that_do_not_converge_are_refused(torch):
    U = torch.ones(4, 3, dtype=torch.float64)
    with pytest.raises(NotConvergedError, match="forward: 4 of 4 samples not converged after 2 iterations"):
        made(torch, mitr=2, method="picard")(U)
    expansive = made(torch, f=ImplicitFunction, mitr=50)
    with torch.no_grad():
        expansive.A.fill_(2.0)
        expansive.B.fill_(1.0)
    with pytest.raises(NotConvergedError, match="forward: 4 of 4"):
        expansive(U)
    loss = made(torch, grad_mitr=2, method="picard", activation="tanh")(U).sum()
    with pytest.raises(NotConvergedError, match="adjoint: 4 of 4"):
        loss.backward()
    U[2, 1] = torch.nan
    with pytest.raises(NotConvergedError, match="1 of 4"):
        made(torch)(U)


@pytest.mark.parametrize("shape", [(3,), (0, 3), (2, 5, 3)])
def test_shapes_are_those_of_a_linear_layer(torch, shape):
    layer = made(torch)
    U = torch.randn(*shape, dtype=torch.float64, requires_grad=True)
    X = layer(U)
    assert X.shape == (*shape[:-1], 6)
    X.sum().backward()
    assert U.grad.shape == shape
    torch.testing.assert_close(X.reshape(-1, 6), layer(U.reshape(-1, 3)))


def test_strided_tensors(torch):
    layer = made(torch)
    U = torch.randn(3, 8, dtype=torch.float64).T[::2]
    torch.testing.assert_close(layer(U), layer(U.contiguous()))


def test_the_solver_reads_the_memory_of_the_tensors(torch, monkeypatch):
    import torch_layer

    seen, solve = [], torch_layer.solve_equilibrium
    monkeypatch.setattr(torch_layer, "solve_equilibrium", lambda A, *a, **k: seen.append(A) or solve(A, *a, **k))
    layer = made(torch, f=ImplicitFunction)
    X = layer(torch.ones(2, 3, dtype=torch.float64))
    assert X.is_contiguous()
    assert np.shares_memory(seen[0], layer.A.detach().numpy())
    assert X.detach().numpy().flags.writeable


def test_a_layer_is_copied_pickled_and_restored(torch):
    layer, other = made(torch), made(torch)
    U = torch.ones(2, 3, dtype=torch.float64)
    assert list(layer.state_dict()) == ["A", "B"]
    assert list(made(torch, **LOW).state_dict()) == ["L", "R", "B"]
    with torch.no_grad():
        other.A.mul_(0.1)
    other.load_state_dict(layer.state_dict())
    for same in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), other):
        assert torch.equal(same(U), layer(U))


def test_torch_compile_leaves_the_solver_alone(torch):
    layer, U = made(torch), torch.ones(2, 3, dtype=torch.float64)
    assert torch.equal(torch.compile(layer, backend="eager")(U), layer(U))


def test_the_seed_of_torch_decides(torch):
    assert torch.equal(made(torch).A, made(torch).A)
    from torch_layer import ImplicitLayer

    assert not torch.equal(made(torch).A, ImplicitLayer(3, 6, dtype=torch.float64).A)
    assert ImplicitLayer(3, 6).A.dtype == torch.get_default_dtype()


def test_settings_are_checked(torch):
    from torch_layer import ImplicitLayer

    with pytest.raises(ValueError, match="kappa"):
        ImplicitLayer(3, 6, kappa=1.5)
    with pytest.raises(ValueError, match="rank is used with is_low_rank"):
        ImplicitLayer(3, 6, rank=2)
