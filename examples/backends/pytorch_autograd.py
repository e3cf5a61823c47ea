"""This backend in PyTorch uses autograd, and solves the adjoint equation by a fixed-point iteration in a backward hook.

The conformance kit runs it by

idl-ref conformance run --backend examples.backends.pytorch_autograd:TorchAutograd
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from idl_ref.conformance import Problem

nn = torch.nn.functional
PHI = {
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


class TorchAutograd:
    """Solves by Picard's iteration, and differentiates by autograd with a hook that solves the adjoint equation.

    The iteration runs without an autograd graph. One further application of the map is recorded in a graph. `f` is
    written in PyTorch too, so that autograd differentiates it, and no pullback is written by hand.
    """

    name = "PyTorch autograd"
    capabilities: Any = {"X0": True, "f": ("inf", "rows", "triu"), "straight_through": True}  # noqa: RUF012

    def _iterate(self, g: Any, size: Any, Z: Any, X: Any, p: Problem) -> tuple[Any, Any]:
        """Iterate X ← g(X), and return X and which columns converged; `size` is |A|, or |A|ᵀ for the adjoint.

        A column converges when tol or rounding explains the step of every row, or, if g is a contraction, when rounding
        explains every change since an earlier iterate: it then goes round in a cycle of the last digits.
        """
        eps = float(np.finfo(p.dtype).eps)
        if X.numel() == 0:
            return X, torch.ones(X.shape[1], dtype=torch.bool)
        floor = p.tol * Z.abs().amax(0).clamp(max=1)
        contracts, earlier = bool(size.sum(1).max() < 1), X
        for k in range(1, p.max_iter + 1):
            X, last = g(X), X
            noise = 4 * eps * (size @ X.abs() + Z.abs() + X.abs())
            done = ((X - last).abs() <= torch.maximum(floor, noise)).all(0)
            if contracts and k > 64:
                done |= ((X - earlier).abs() <= noise).all(0)
            lost = ~torch.isfinite(X).all(0)
            if (done | lost).all():
                break
            if k & (k - 1) == 0:  # at powers of two, because the period is not known
                earlier = X
        return (X if contracts else last), done & ~lost  # Without a contraction, only `last` has been judged.

    def _tensors(self, p: Problem) -> dict[str, Any]:
        """Return the arrays of a problem as tensors, by name."""
        return {name: torch.tensor(np.ascontiguousarray(M)) for name, M in p.arrays.items()}

    def _effective(self, p: Problem, M: Any) -> Any:
        """Return the effective factor that `f` makes from a raw factor M."""
        if p.f == "none":
            return M
        if p.f == "triu":
            return torch.triu(M, 1)
        mapped = (self._scaled if p.f == "inf" else self._projected)(M, p.kappa)
        return mapped.detach() + (M - M.detach()) if p.straight_through else mapped

    def _scaled(self, M: Any, kappa: float) -> Any:
        """Scale M to the ∞-norm κ if its norm is larger."""
        norm = M.abs().sum(1).max(0).values
        return M * (kappa / norm) if norm > kappa else M

    def _projected(self, M: Any, kappa: float) -> Any:
        """Project each row a on the ℓ1 ball of radius κ.

        In a row outside the ball, |a| is reduced by θ, which is the maximum over k of (sum of the k largest |a| − κ)/k.
        """
        size = M.abs()
        counts = torch.arange(1, M.shape[1] + 1, dtype=M.dtype)
        theta = ((size.sort(1, descending=True).values.cumsum(1) - kappa) / counts).max(1, keepdim=True).values
        return torch.where(theta > 0, M.sign() * (size - theta).clamp(min=0), M)

    def _solve(self, p: Problem, W: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
        """Return the map g as a function of X, |A|, the fixed point, and which columns converged."""
        Z = W["B"] @ W["U"]
        factors = [self._effective(p, M) for M in ((W["A"],) if "A" in W else (W["L"], W["R"].T))]
        apply = (lambda X: factors[0] @ X) if "A" in W else (lambda X: factors[0] @ (factors[1] @ X))
        phi = PHI[p.activation]
        with torch.no_grad():
            start = W.get("X0", torch.zeros_like(Z))
            size = factors[0].abs() if "A" in W else factors[0].abs() @ factors[1].abs()
            X, converged = self._iterate(lambda X: phi(apply(X) + Z), size, Z, start, p)
        return (lambda X: phi(apply(X) + Z)), size, X, converged

    def _readout(self, W: dict[str, Any], X: Any) -> Any:
        """Return Y = C X + D U."""
        return W["C"] @ X + (W["D"] @ W["U"] if "D" in W else 0)

    def forward(self, p: Problem) -> dict[str, Any]:
        """Return a dict with Y, X and the bool array converged."""
        W = self._tensors(p)
        _, _, X, converged = self._solve(p, W)
        Y = self._readout(W, X)
        return {"Y": Y.numpy(), "X": X.numpy(), "converged": converged.numpy()}

    def vjp(self, p: Problem, G_Y: np.ndarray) -> dict[str, np.ndarray]:
        """Return a dict with the gradients of A, or of L and R, and of B, C, D and U."""
        W = {name: M.requires_grad_(name != "X0") for name, M in self._tensors(p).items()}
        g, size, X, _ = self._solve(p, W)
        attached = g(X)
        X = attached.detach().requires_grad_()
        once = g(X)

        def solve(G: Any) -> Any:
            pull = lambda V: torch.autograd.grad(once, X, V, retain_graph=True)[0] + G  # noqa: E731
            return self._iterate(pull, size.T, G, torch.zeros_like(G), p)[0]

        attached.register_hook(solve)
        self._readout(W, attached).backward(torch.tensor(np.ascontiguousarray(G_Y)))
        zero = lambda M: np.zeros(M.shape, p.dtype)  # noqa: E731
        return {n: zero(M) if M.grad is None else M.grad.numpy() for n, M in W.items() if n != "X0"}
