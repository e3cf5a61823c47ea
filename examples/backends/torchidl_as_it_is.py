"""This backend is torchidl 0.0.4, used through its own model class; examples/verify_torchidl.py reads the report.

The conformance kit runs it by

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
    """Runs the unchanged torchidl through its model class.

    Parameters
    ----------
    defaults : bool
        Keep torchidl's defaults, mitr = 300 and tol = 3e-6; otherwise use the limits of each problem.

    Notes
    -----
    torchidl returns only Y, has only the activation relu, and offers the functions f "inf" and "triu". A problem with
    effective weights uses its base class ImplicitFunction, and for low rank a radius so large that nothing is scaled.
    """

    capabilities: Any = {"activations": ["relu"], "f": ["inf", "triu"], "X": False, "X0": True, "phi0": 0.0}  # noqa: RUF012

    def __init__(self, defaults: bool = False) -> None:
        self.defaults = defaults
        self.name = "torchidl" + (" with its defaults" if defaults else "")

    def _model(self, p: Problem) -> Any:
        """Return a torchidl model with the weights of a problem."""
        n, features, q, _ = p.sizes
        rank = None if p.L is None else p.L.shape[1]
        f = F["none" if rank is not None and p.f == "inf" else p.f]  # torchidl scales L and R for every f.
        limits: dict[str, Any] = {}
        if not self.defaults:
            limits = {"mitr": p.max_iter, "grad_mitr": p.max_iter, "tol": p.tol, "grad_tol": p.tol}
        kappa = p.kappa if p.f == "inf" else 1e30
        kind = getattr(torch, p.dtype.name)
        if rank is not None:
            limits |= {"is_low_rank": True, "rank": rank}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # PyTorch warns of how torchidl defines its function.
            model: Any = torchidl.ImplicitModel(features, q, n, f=f, no_D=p.D is None, kappa=kappa, **limits).to(kind)
        if p.D is None:
            model.D = model.D.to(kind)  # D is neither a parameter nor a buffer, so that `to` above ignored it.
        with torch.no_grad():
            for name, M in p.arrays.items():
                if name not in ("U", "X0"):
                    getattr(model, name).copy_(torch.tensor(np.ascontiguousarray(M)))
        return model

    def _run(self, p: Problem) -> tuple[Any, Any, Any]:
        """Return the model, its inputs U with samples as rows, and its outputs."""
        rows = {name: torch.tensor(np.ascontiguousarray(p.arrays[name].T)) for name in ("U", "X0") if name in p.arrays}
        model, U = self._model(p), rows["U"].requires_grad_()
        return model, U, model(U, rows.get("X0"))

    def forward(self, p: Problem) -> dict[str, Any]:
        """Return a dict with Y."""
        return {"Y": self._run(p)[2].detach().numpy().T}

    def vjp(self, p: Problem, G_Y: np.ndarray) -> dict[str, np.ndarray]:
        """Return a dict with the gradients of the parameters and of U."""
        model, U, Y = self._run(p)
        Y.backward(torch.tensor(np.ascontiguousarray(G_Y.T)))
        out = {name: W.grad.numpy() for name, W in model.named_parameters()}
        return out | {"U": U.grad.numpy().T}
