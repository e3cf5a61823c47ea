"""The backends that come with idl_ref: its own solvers, and a plain one in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from idl_ref import gradients
from idl_ref.backends import resolve
from idl_ref.conformance.bugs.plain import Plain
from idl_ref.conformance.truth.backend import EVERYTHING
from idl_ref.conformance.truth.problem import Arrays, Problem
from idl_ref.factors import by_name
from idl_ref.gradients import ForwardPass, Weights
from idl_ref.solution import SolveOptions

__all__ = ["IdlRef", "Plain", "numpy"]


class IdlRef:
    """The solvers of idl_ref as a backend.

    Parameters
    ----------
    backend : {"auto", "numpy", "numba", "cuda"}
    method : str
        The method of the solver; see `SolveOptions`.
    """

    capabilities = EVERYTHING

    def __init__(self, backend: str = "auto", method: str = "auto") -> None:
        self.backend, self.method = resolve(backend), method
        self.name = f"idl_ref {self.backend}" + (f" {method}" if method != "auto" else "")

    def _options(self, problem: Problem) -> SolveOptions:
        return SolveOptions(tol=problem.tol, max_iter=problem.max_iter, method=self.method, on_failure="ignore")

    def _pass(self, problem: Problem) -> ForwardPass:
        factors = problem.function.effective(problem.factors)
        weights = Weights(factors, problem.B, problem.C, problem.D)
        options = self._options(problem)
        return gradients.forward_pass(weights, problem.activation, problem.U, problem.X0, options, self.backend)

    def forward(self, problem: Problem) -> dict[str, Any]:
        """Solve the equation: outputs "Y" and hidden states "X"; per column "converged" and "iterations"."""
        with np.errstate(over="ignore", invalid="ignore"):
            p = self._pass(problem)
        s = p.solution
        return {"Y": p.Y, "X": s.X, "converged": s.succeeded, "iterations": s.iterations}

    def vjp(self, problem: Problem, G_Y: np.ndarray) -> Arrays:
        """The gradients of Σ G_Y ∘ Y: "A", or "L" and "R"; "B", "C" and "U"; "D" where the problem has one."""
        with np.errstate(over="ignore", invalid="ignore"):
            p = self._pass(problem)
            back = gradients.backward_pass(p, G_Y, self._options(problem), self.backend)
            G_U = gradients.input_gradient(p.weights, back.solution.X, G_Y)
        raw = problem.function.pullback(problem.factors, back.factors)
        out = {**by_name(raw), "B": back.B, "C": back.C, "U": G_U}
        return out if back.D is None else out | {"D": back.D}


numpy = IdlRef("numpy")
