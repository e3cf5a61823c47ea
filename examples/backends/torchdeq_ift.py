"""This backend is torchdeq: its fixed-point iteration in both directions, with implicit differentiation.

idl-ref conformance run --backend examples.backends.torchdeq_ift:TorchDeq \
    --expected-failures examples/backends/expected/torchdeq.json
"""

import numpy as np
import torch
from torchdeq import get_deq

from .pytorch_autograd import PHI


class TorchDeq:
    """Solves for X in units of ‖z‖∞ of each column, because torchdeq has one absolute tolerance for a whole batch.

    In units of subnormal numbers, cotangents lose their digits.
    """

    name, capabilities = "torchdeq", {"empty": False, "subnormal": False}

    def _run(self, p, G_Y):
        """Return the tensors of the problem, X and Y with samples as columns, and which of them converged."""
        W = {name: torch.tensor(np.ascontiguousarray(M), requires_grad=True) for name, M in p.arrays.items()}
        with torch.no_grad():
            noise, Z, G = 4 * torch.finfo(W["B"].dtype).eps, W["B"] @ W["U"], W["C"].T @ G_Y
            size, pulled = Z.abs().amax(0), G.abs().amax(0)
            unit = torch.where((size > 0) & size.isfinite(), size, 1)
            stop = (p.tol * unit.clamp(max=1) / unit).clamp(min=noise)
            back = unit * torch.maximum(p.tol * pulled.clamp(max=1), noise * pulled)
        limits = {"f_max_iter": p.max_iter, "b_max_iter": p.max_iter, "f_tol": stop.min().item(), "ift": True}
        limits["b_tol"] = back[back > 0].min().item() if (back > 0).any() else noise
        apply = (lambda X: X @ W["A"].T) if "A" in W else (lambda X: X @ W["R"] @ W["L"].T)
        deq = get_deq(f_solver="fixed_point_iter", b_solver="fixed_point_iter", **limits)
        unit, Z = unit[:, None], (W["B"] @ W["U"]).T
        (X,), info = deq(lambda X: PHI[p.activation](apply(unit * X) + Z) / unit, torch.zeros_like(Z))
        converged = info["abs_lowest"] <= torch.maximum(stop, noise * X.detach().norm(dim=1))
        X = (unit * X).T
        return W, X, W["C"] @ X + (W["D"] @ W["U"] if "D" in W else 0), converged

    def forward(self, p):
        _, X, Y, converged = self._run(p, torch.zeros(len(p.C), p.U.shape[1], dtype=getattr(torch, p.dtype.name)))
        return {"X": X.detach().numpy(), "Y": Y.detach().numpy(), "converged": converged.numpy()}

    def vjp(self, p, G_Y):
        G_Y = torch.tensor(np.ascontiguousarray(G_Y))
        W, _, Y, _ = self._run(p, G_Y)
        Y.backward(G_Y)
        return {name: np.zeros(M.shape, p.dtype) if M.grad is None else M.grad.numpy() for name, M in W.items()}
