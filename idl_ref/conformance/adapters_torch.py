"""Backends on PyTorch: one as somebody would write it with autograd, and torchidl as it is."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from idl_ref.conformance.capabilities import F
from idl_ref.conformance.problem import Arrays, Problem


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        raise ImportError("this backend needs PyTorch: pip install torch") from None
    return torch


class TorchAutograd:
    """Picard iteration without a graph, one application with one, and a hook that solves the adjoint equation.

    `f` is written in PyTorch too and differentiated by autograd: no pullback is written by hand.

    Examples
    --------
    >>> from idl_ref.conformance import check_backend                              # doctest: +SKIP
    >>> check_backend(TorchAutograd()).ok                                           # doctest: +SKIP
    True
    """

    name = "PyTorch autograd"
    capabilities: Any = {"X0": True, "f": F, "straight_through": True}  # noqa: RUF012

    def __init__(self) -> None:
        torch = self.torch = _torch()
        nn = torch.nn.functional
        self.phi = {
            "identity": lambda P: P,
            "relu": torch.relu,
            "leaky_relu": lambda P: nn.leaky_relu(P, 0.01),
            "tanh": torch.tanh,
            "sigmoid": torch.sigmoid,
            "softplus": lambda P: torch.logaddexp(P, torch.zeros_like(P)),
            "elu": nn.elu,
            "hardtanh": nn.hardtanh,
            "softsign": nn.softsign,
        }

    def _iterate(self, g: Any, Z: Any, X: Any, p: Problem) -> tuple[Any, Any]:
        """X, and which columns converged."""
        torch, eps = self.torch, float(np.finfo(p.dtype).eps)
        if X.numel() == 0:
            return X, torch.ones(X.shape[1], dtype=torch.bool)
        z = Z.abs().amax(0)
        floor = p.tol * z.clamp(max=1)
        for _ in range(p.max_iter):
            X, last = g(X), X
            step = (X - last).abs().amax(0)
            done = step <= torch.maximum(floor, 4 * eps * torch.maximum(z, X.abs().amax(0)))
            lost = ~torch.isfinite(X).all(0)
            if (done | lost).all():
                break
        return X, done & ~lost

    def _tensors(self, p: Problem) -> dict[str, Any]:
        return {name: self.torch.tensor(np.ascontiguousarray(M)) for name, M in p.arrays.items()}

    def _effective(self, p: Problem, M: Any) -> Any:
        """What `f` makes of a raw factor."""
        if p.f == "none":
            return M
        if p.f == "triu":
            return self.torch.triu(M, 1)
        mapped = (self._scaled if p.f == "inf" else self._projected)(M, p.kappa)
        return mapped.detach() + (M - M.detach()) if p.straight_through else mapped

    def _scaled(self, M: Any, kappa: float) -> Any:
        norm = M.abs().sum(1).max(0).values
        return M * (kappa / norm) if norm > kappa else M

    def _projected(self, M: Any, kappa: float) -> Any:
        """Rows outside the ℓ1 ball: |a| shrinks by θ, the largest over k of (sum of the k largest − κ)/k."""
        size = M.abs()
        counts = self.torch.arange(1, M.shape[1] + 1, dtype=M.dtype)
        theta = ((size.sort(1, descending=True).values.cumsum(1) - kappa) / counts).max(1, keepdim=True).values
        return self.torch.where(theta > 0, M.sign() * (size - theta).clamp(min=0), M)

    def _solve(self, p: Problem, W: dict[str, Any]) -> tuple[Any, Any, Any]:
        """The map as a function of X, and its fixed point."""
        Z = W["B"] @ W["U"]
        factors = [self._effective(p, M) for M in ((W["A"],) if "A" in W else (W["L"], W["R"].T))]
        apply = (lambda X: factors[0] @ X) if "A" in W else (lambda X: factors[0] @ (factors[1] @ X))
        phi = self.phi[p.activation]
        with self.torch.no_grad():
            start = W.get("X0", self.torch.zeros_like(Z))
            X, converged = self._iterate(lambda X: phi(apply(X) + Z), Z, start, p)
        return (lambda X: phi(apply(X) + Z)), X, converged

    def _readout(self, W: dict[str, Any], X: Any) -> Any:
        return W["C"] @ X + (W["D"] @ W["U"] if "D" in W else 0)

    def forward(self, p: Problem) -> dict[str, Any]:
        """{"Y", "X", "converged"}."""
        W = self._tensors(p)
        _, X, converged = self._solve(p, W)
        Y = self._readout(W, X)
        return {"Y": Y.numpy(), "X": X.numpy(), "converged": converged.numpy()}

    def vjp(self, p: Problem, G_Y: np.ndarray) -> Arrays:
        """{"A"} or {"L", "R"}, "B", "C", "D", "U"."""
        torch = self.torch
        W = {name: M.requires_grad_(name != "X0") for name, M in self._tensors(p).items()}
        g, X, _ = self._solve(p, W)
        attached = g(X)
        X = attached.detach().requires_grad_()
        once = g(X)

        def solve(G: Any) -> Any:
            pull = lambda V: torch.autograd.grad(once, X, V, retain_graph=True)[0] + G  # noqa: E731
            return self._iterate(pull, G, torch.zeros_like(G), p)[0]

        attached.register_hook(solve)
        self._readout(W, attached).backward(torch.tensor(np.ascontiguousarray(G_Y)))
        zero = lambda M: np.zeros(M.shape, p.dtype)  # noqa: E731
        return {n: zero(M) if M.grad is None else M.grad.numpy() for n, M in W.items() if n != "X0"}


class TorchIdl:
    """torchidl as it is, through its model class.

    Parameters
    ----------
    defaults : bool
        Keep its own mitr = 300 and tol = 3e-6; else it is given those of each problem.

    Notes
    -----
    It gives Y alone, knows relu alone, and maps by "inf" and "triu". Effective weights go through its base function,
    and for low rank with a radius that leaves them as they are.
    """

    capabilities: Any = {"activations": ["relu"], "f": ["inf", "triu"], "X": False, "X0": True, "phi0": 0.0}  # noqa: RUF012

    def __init__(self, defaults: bool = False) -> None:
        self.torch, self.defaults = _torch(), defaults
        try:
            import torchidl
            from torchidl.implicit_function import ImplicitFunction, ImplicitFunctionInf, ImplicitFunctionTriu
        except ImportError:
            raise ImportError("this backend needs torchidl: pip install torchidl") from None
        self.Model = torchidl.ImplicitModel
        self.f = {"none": ImplicitFunction, "inf": ImplicitFunctionInf, "triu": ImplicitFunctionTriu}
        self.name = "torchidl" + (" with its defaults" if defaults else "")

    def _model(self, p: Problem) -> Any:
        n, features, q, _ = p.sizes
        rank = None if p.L is None else p.L.shape[1]
        f = self.f["none" if rank is not None and p.f == "inf" else p.f]  # low rank is scaled whatever f is
        limits: dict[str, Any] = {}
        if not self.defaults:
            limits = {"mitr": p.max_iter, "grad_mitr": p.max_iter, "tol": p.tol, "grad_tol": p.tol}
        kappa = p.kappa if p.f == "inf" else 1e30
        kind = getattr(self.torch, p.dtype.name)
        if rank is not None:
            limits |= {"is_low_rank": True, "rank": rank}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # PyTorch's, of how torchidl makes its function
            model: Any = self.Model(features, q, n, f=f, no_D=p.D is None, kappa=kappa, **limits).to(kind)
        if p.D is None:
            model.D = model.D.to(kind)  # neither a parameter nor a buffer: `to` leaves it behind
        with self.torch.no_grad():
            for name, M in p.arrays.items():
                if name not in ("U", "X0"):
                    getattr(model, name).copy_(self.torch.tensor(np.ascontiguousarray(M)))
        return model

    def _run(self, p: Problem) -> tuple[Any, Any, Any]:
        rows = {
            name: self.torch.tensor(np.ascontiguousarray(p.arrays[name].T)) for name in ("U", "X0") if name in p.arrays
        }
        model, U = self._model(p), rows["U"].requires_grad_()
        return model, U, model(U, rows.get("X0"))

    def forward(self, p: Problem) -> dict[str, Any]:
        """{"Y"}."""
        return {"Y": self._run(p)[2].detach().numpy().T}

    def vjp(self, p: Problem, G_Y: np.ndarray) -> Arrays:
        """The gradients of its parameters, and of U."""
        model, U, Y = self._run(p)
        Y.backward(self.torch.tensor(np.ascontiguousarray(G_Y.T)))
        out = {name: W.grad.numpy() for name, W in model.named_parameters()}
        return out | {"U": U.grad.numpy().T}
