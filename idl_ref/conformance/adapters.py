"""The backends that come with idl_ref: its own solvers, and a plain one in NumPy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from idl_ref import activations
from idl_ref.backends import resolve, twin
from idl_ref.backends.numpy import Layer
from idl_ref.choices import Backend, Method, TwinName
from idl_ref.conformance.bugs.plain import Plain
from idl_ref.conformance.truth.backend import WITH_STORAGE
from idl_ref.conformance.truth.problem import Arrays, Problem
from idl_ref.solution import SolveOptions
from idl_ref.weights import Options, Weights, by_name

__all__ = ["IdlRef", "Plain"]


class IdlRef:
    """The solvers of idl_ref as a backend.

    Parameters
    ----------
    backend : {"auto", "numpy", "numba", "cuda"}
    method : str
        The method of the solver; see `SolveOptions`.
    """

    capabilities: Any = WITH_STORAGE
    name: str
    backend: TwinName
    method: Method

    def __init__(self, backend: Backend = "auto", method: Method = "auto") -> None:
        self.backend, self.method = resolve(backend), method
        self.name = f"idl_ref {self.backend}" + (f" {method}" if method != "auto" else "")

    def _layer(self, problem: Problem) -> Layer:
        options = SolveOptions(tol=problem.tol, max_iter=problem.max_iter, method=self.method, on_failure="ignore")
        with np.errstate(over="ignore", invalid="ignore"):
            factors = problem.function.effective(problem.factors)
        weights = Weights(factors, problem.B, problem.C, problem.D)
        return twin(self.backend).Layer(weights, activations.get(problem.activation), Options(options, options))

    def forward(self, problem: Problem) -> dict[str, Any]:
        """Solve the equation: outputs "Y" and hidden states "X"; per column "converged" and "iterations"."""
        wide = computed_in(problem)
        p = self._layer(wide).forward(wide.U, wide.X0)
        s, dtype = p.solution, problem.dtype
        Y, X = (M.astype(dtype, copy=False) for M in (p.Y, s.X))
        return {"Y": Y, "X": X, "converged": s.succeeded, "iterations": s.iterations}

    def vjp(self, problem: Problem, G_Y: np.ndarray) -> Arrays:
        """The gradients of Σ G_Y ∘ Y: "A", or "L" and "R"; "B", "C" and "U"; "D" where the problem has one."""
        wide = computed_in(problem)
        layer = self._layer(wide)
        backward = layer.backward(layer.forward(wide.U, wide.X0), G_Y.astype(wide.dtype, copy=False), inputs=True)
        with np.errstate(over="ignore", invalid="ignore"):
            raw = problem.function.pullback(wide.factors, backward.factors)
        others = {"B": backward.B, "C": backward.C, "D": backward.D, "U": backward.U}
        named = by_name(raw) | {name: G for name, G in others.items() if G is not None}
        return {name: G.astype(problem.dtype, copy=False) for name, G in named.items()}


def computed_in(problem: Problem) -> Problem:
    """The problem in a dtype with which the twins compute: float32 in place of float16."""
    if problem.dtype != np.float16:
        return problem
    wide = {name: M.astype(np.float32) for name, M in problem.arrays.items()}
    return replace(problem.with_arrays(wide), dtype=np.dtype(np.float32))


numpy: IdlRef = IdlRef("numpy")
