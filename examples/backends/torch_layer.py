"""This is a layer for PyTorch that `idl_ref` computes and differentiates: X = φ(X Aᵀ + U Bᵀ), with samples as rows.

python examples/backends/torch_layer.py checks its gradients, and trains it in front of a linear layer of PyTorch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from idl_ref import activations, datasets, factors, solve_adjoint, solve_equilibrium
from idl_ref.settings import Settings
from idl_ref.weights import BackwardPass


class Equilibrium(torch.autograd.Function):
    """X (m, n) as a function of U (m, p) and of the parameters: A and B, or L, R and B."""

    @staticmethod
    def forward(ctx: Any, settings: Settings, U: Tensor, *W: Tensor) -> Tensor:
        raw = arrays(U, W)
        weights, Z = settings.parametrisation.weights(raw), raw["B"] @ raw["U"]
        options = {"activation": settings.activation, "options": settings.options.forward, "backend": settings.backend}
        X = torch.from_numpy(np.ascontiguousarray(solve_equilibrium(weights.A, Z, **options).X.T))
        ctx.settings, ctx.Z = settings, Z
        ctx.save_for_backward(X, U, *W)
        return X

    @staticmethod
    def backward(ctx: Any, G: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # `once_differentiable` would miss a G that does not depend on a parameter.
            raise RuntimeError("the layer has first derivatives only; got create_graph=True: leave it out.")
        s, (rows, U, *W) = ctx.settings, ctx.saved_tensors  # an error if one of them was changed in place
        X, raw = rows.detach().numpy().T, arrays(U, W)
        weights = s.parametrisation.weights(raw)
        S = activations.get(s.activation).slope(factors.apply(weights.factors, X) + ctx.Z)
        adjoint = solve_adjoint(weights.A, S, G.detach().numpy().T, options=s.options.adjoint, backend=s.backend)
        V = adjoint.X  # ∂ℓ/∂Z
        passed = BackwardPass(adjoint, factors.gradients(weights.factors, X, V), V @ raw["U"].T, raw["C"], None)
        gradients = s.parametrisation.pullback(raw, passed) | {"U": (raw["B"].T @ V).T}
        return None, *(torch.from_numpy(gradients[name]) for name in raw if name != "C")


def arrays(U: Tensor, W: Any) -> dict[str, np.ndarray]:
    """Return U, with samples as columns, and the parameters, as arrays by name that share the memory of the tensors."""
    for M in (U, *W):
        if M.device.type != "cpu":
            raise ValueError(f"all tensors must be in the memory of the CPU; got device {M.device}: call .cpu().")
        if M.dtype != U.dtype or M.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"all tensors must be float32, or all float64; got {U.dtype}, {M.dtype}: call .to(dtype).")
    named = dict(zip("AB" if len(W) == 2 else "LRB", [M.detach().numpy() for M in W], strict=True))
    return {"U": U.detach().numpy().T, **named, "C": np.empty((0, 0))}  # without C, because X is the output


class ImplicitLayer(nn.Module):
    """A layer from U (…, p) to the equilibrium X (…, n). Its settings are those of `idl_ref.ImplicitModel`.

    Its parameters are A, or L and R, which `f` maps as in a model, and B. A sample that does not converge is an error.
    """

    def __init__(self, input_dim: int, hidden_dim: int, *, dtype: torch.dtype | None = None, **settings: Any) -> None:
        super().__init__()
        self.settings = Settings(input_dim, 1, hidden_dim, no_D=True, on_failure="raise", **settings)
        rng = np.random.default_rng(int(torch.randint(2**31, ())))  # so that torch.manual_seed decides
        for name, W in self.settings.initial_parameters(rng).items():
            if name != "C":
                setattr(self, name, nn.Parameter(torch.from_numpy(W).to(dtype or torch.get_default_dtype())))

    @torch.compiler.disable  # torch.compile would translate the solver's own NumPy code.
    def forward(self, U: Tensor) -> Tensor:
        s, rows = self.settings, U.reshape(-1, U.shape[-1])
        if s.bias:  # The last column of B then belongs to a feature 1.
            rows = nn.functional.pad(rows, (0, 1), value=1.0)
        W = (self.L, self.R, self.B) if s.is_low_rank else (self.A, self.B)
        return Equilibrium.apply(s, rows, *W).reshape(*U.shape[:-1], s.hidden_dim)


def main() -> None:
    torch.manual_seed(0)
    for settings in ({"activation": "tanh"}, {"is_low_rank": True, "rank": 2}):
        layer = ImplicitLayer(3, 6, dtype=torch.float64, tol=1e-13, grad_tol=1e-13, **settings)
        arguments = (layer.settings, torch.randn(5, 3, dtype=torch.float64, requires_grad=True), *layer.parameters())
        print(f"gradcheck with {settings}: {torch.autograd.gradcheck(Equilibrium.apply, arguments, rtol=1e-6)}")
    x_train, y_train, x_test, y_test = map(torch.from_numpy, datasets.digits())
    net = nn.Sequential(ImplicitLayer(64, 50, bias=True), nn.Linear(50, 10))
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for epoch in range(1, 6):
        for batch in torch.randperm(len(x_train)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x_train[batch]), y_train[batch]).backward()
            optimizer.step()
        print(f"epoch {epoch}: test accuracy {(net(x_test).argmax(1) == y_test).double().mean():.3f}")


if __name__ == "__main__":
    main()
