"""torchidl 0.0.4 as a backend, through its own model class; examples/verify_torchidl.py reads the report.

idl-ref conformance run --backend examples.backends.torchidl_as_it_is:TorchIdl
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
import torchidl
from torchidl.implicit_function import ImplicitFunction, ImplicitFunctionInf, ImplicitFunctionTriu

from idl_ref.conformance import Problem

F = {"none": ImplicitFunction, "inf": ImplicitFunctionInf, "triu": ImplicitFunctionTriu}


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
        self.defaults = defaults
        self.name = "torchidl" + (" with its defaults" if defaults else "")

    def _model(self, p: Problem) -> Any:
        n, features, q, _ = p.sizes
        rank = None if p.L is None else p.L.shape[1]
        f = F["none" if rank is not None and p.f == "inf" else p.f]  # low rank is scaled whatever f is
        limits: dict[str, Any] = {}
        if not self.defaults:
            limits = {"mitr": p.max_iter, "grad_mitr": p.max_iter, "tol": p.tol, "grad_tol": p.tol}
        kappa = p.kappa if p.f == "inf" else 1e30
        kind = getattr(torch, p.dtype.name)
        if rank is not None:
            limits |= {"is_low_rank": True, "rank": rank}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # PyTorch's, of how torchidl makes its function
            model: Any = torchidl.ImplicitModel(features, q, n, f=f, no_D=p.D is None, kappa=kappa, **limits).to(kind)
        if p.D is None:
            model.D = model.D.to(kind)  # neither a parameter nor a buffer: `to` leaves it behind
        with torch.no_grad():
            for name, M in p.arrays.items():
                if name not in ("U", "X0"):
                    getattr(model, name).copy_(torch.tensor(np.ascontiguousarray(M)))
        return model

    def _run(self, p: Problem) -> tuple[Any, Any, Any]:
        rows = {name: torch.tensor(np.ascontiguousarray(p.arrays[name].T)) for name in ("U", "X0") if name in p.arrays}
        model, U = self._model(p), rows["U"].requires_grad_()
        return model, U, model(U, rows.get("X0"))

    def forward(self, p: Problem) -> dict[str, Any]:
        """{"Y"}."""
        return {"Y": self._run(p)[2].detach().numpy().T}

    def vjp(self, p: Problem, G_Y: np.ndarray) -> dict[str, np.ndarray]:
        """The gradients of its parameters, and of U."""
        model, U, Y = self._run(p)
        Y.backward(torch.tensor(np.ascontiguousarray(G_Y.T)))
        out = {name: W.grad.numpy() for name, W in model.named_parameters()}
        return out | {"U": U.grad.numpy().T}
