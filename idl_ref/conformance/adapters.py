"""Backends that are ours: the twins behind `idl_ref`'s own names, and a plain one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from idl_ref import activations
from idl_ref import factors as fac
from idl_ref.backends import resolve, twin
from idl_ref.backends.numpy import Layer
from idl_ref.conformance.problem import Arrays, F, Problem
from idl_ref.factors import Factors
from idl_ref.functions import ImplicitFunction
from idl_ref.solution import SolveOptions
from idl_ref.weights import Options, Weights, by_name

__all__ = ["IdlRef", "Plain"]

EVERYTHING: Any = {"X0": True, "f": F, "straight_through": True, "phi0": 0.0}
Map = Callable[[np.ndarray], np.ndarray]


class IdlRef:
    """A twin of idl_ref as a backend.

    Parameters
    ----------
    backend : {"auto", "numpy", "numba", "cuda"}
    method : str
        See SolveOptions.
    """

    capabilities = EVERYTHING
    name: str
    backend: str
    method: str

    def __init__(self, backend: str = "auto", method: str = "auto") -> None:
        self.backend, self.method = resolve(backend), method
        self.name = f"idl_ref {self.backend}" + (f" {method}" if method != "auto" else "")

    def _layer(self, problem: Problem) -> Layer:
        options = SolveOptions(tol=problem.tol, max_iter=problem.max_iter, method=self.method, on_failure="ignore")
        with np.errstate(over="ignore", invalid="ignore"):
            factors = problem.function.effective(problem.factors)
        weights = Weights(factors, problem.B, problem.C, problem.D)
        return twin(self.backend).Layer(weights, activations.get(problem.activation), Options(options, options))

    def forward(self, problem: Problem) -> dict[str, Any]:
        """{"Y", "X", "converged", "iterations"}."""
        p = self._layer(problem).forward(problem.U, problem.X0)
        s = p.solution
        return {"Y": p.Y, "X": s.X, "converged": s.succeeded, "iterations": s.iterations}

    def vjp(self, problem: Problem, G_Y: np.ndarray) -> Arrays:
        """{"A"} or {"L", "R"}, "B", "C", "D", "U"."""
        layer = self._layer(problem)
        backward = layer.backward(layer.forward(problem.U, problem.X0), G_Y, inputs=True)
        with np.errstate(over="ignore", invalid="ignore"):
            raw = problem.function.pullback(problem.factors, backward.factors)
        others = {"B": backward.B, "C": backward.C, "D": backward.D, "U": backward.U}
        return by_name(raw) | {name: G for name, G in others.items() if G is not None}


numpy: IdlRef = IdlRef("numpy")


class Plain:
    """Picard iteration in NumPy, to be read and to be broken: each planted bug in `bugs` changes one of its methods.

    Examples
    --------
    >>> from idl_ref.conformance import check_backend
    >>> check_backend(Plain(), groups=["kinks"]).ok
    True
    """

    name = "plain"
    capabilities = EVERYTHING

    # --- the equation -------------------------------------------------------------------------------------------------

    def factors(self, p: Problem) -> Factors:
        """The effective A as factors."""
        return self.function(p).effective(p.factors)

    def function(self, p: Problem) -> ImplicitFunction:
        return p.function

    def apply(self, factors: Factors, X: np.ndarray) -> np.ndarray:
        return fac.apply(factors, X)

    def transposed(self, factors: Factors) -> Factors:
        return fac.transpose(factors)

    def Z(self, p: Problem) -> np.ndarray:
        return p.B @ p.U

    def phi(self, p: Problem, P: np.ndarray) -> np.ndarray:
        return activations.get(p.activation).phi(P)

    def slope(self, p: Problem, P: np.ndarray) -> np.ndarray:
        return activations.get(p.activation).slope(P)

    def readout(self, p: Problem, X: np.ndarray) -> np.ndarray:
        Y = p.C @ X
        return Y if p.D is None else Y + p.D @ p.U

    # --- the iteration ------------------------------------------------------------------------------------------------

    def stop(self, p: Problem, z: np.ndarray, x: np.ndarray) -> np.ndarray:
        """The step at which each column may stop, from ‖z‖∞ and ‖x‖∞."""
        return np.maximum(p.tol * np.minimum(1, z), 4 * np.finfo(p.dtype).eps * np.maximum(z, x))

    def done(self, step: np.ndarray, stop: np.ndarray) -> np.ndarray:
        """Which columns have converged."""
        return step <= stop

    def limit(self, p: Problem) -> int:
        return p.max_iter

    def iterate(self, g: Map, Z: np.ndarray, X: np.ndarray, p: Problem) -> tuple[np.ndarray, np.ndarray, int]:
        """X, which columns converged, and how many applications that took."""
        if X.size == 0:
            return X, np.ones(X.shape[1], bool), 0
        z = np.abs(Z).max(axis=0)
        for k in range(1, self.limit(p) + 1):
            G = g(X)
            done = self.done(np.abs(G - X).max(axis=0), self.stop(p, z, np.abs(G).max(axis=0)))
            if done.all():
                break
            X, last = G, X
            if k % 64 == 0 and not (done | np.isfinite(X).all(axis=0)).any():
                break  # nothing is left that could converge
        return self.returned(G, last if k > 1 else X), self.verdict(done, G), k

    def returned(self, G: np.ndarray, last: np.ndarray) -> np.ndarray:
        """The last application of the map."""
        return G

    def verdict(self, done: np.ndarray, G: np.ndarray) -> np.ndarray:
        return done & np.isfinite(G).all(axis=0)

    def start(self, p: Problem, Z: np.ndarray) -> np.ndarray:
        return np.zeros_like(Z) if p.X0 is None else p.X0

    def equilibrium(self, p: Problem) -> tuple[np.ndarray, np.ndarray, int]:
        A, Z = self.factors(p), self.Z(p)
        return self.iterate(lambda X: self.phi(p, self.apply(A, X) + Z), Z, self.start(p, Z), p)

    def forward(self, p: Problem) -> dict[str, Any]:
        """{"Y", "X", "converged", "iterations"}."""
        with np.errstate(all="ignore"):
            X, converged, k = self.equilibrium(p)
            return {"Y": self.readout(p, X), "X": X, "converged": converged, "iterations": np.full(X.shape[1], k)}

    # --- gradients ----------------------------------------------------------------------------------------------------

    def preactivation(self, p: Problem, X: np.ndarray) -> np.ndarray:
        return self.apply(self.factors(p), X) + self.Z(p)

    def G(self, p: Problem, G_Y: np.ndarray) -> np.ndarray:
        return p.C.T @ G_Y

    def adjoint(self, p: Problem, S: np.ndarray, G: np.ndarray) -> np.ndarray:
        """V = S ∘ (Aᵀ V + G)."""
        At = self.transposed(self.factors(p))
        return self.iterate(lambda V: S * (self.apply(At, V) + G), G, np.zeros_like(G), p)[0]

    def vjp(self, p: Problem, G_Y: np.ndarray) -> Arrays:
        """{"A"} or {"L", "R"}, "B", "C", "D", "U"."""
        with np.errstate(all="ignore"):
            X = self.equilibrium(p)[0]
            V = self.adjoint(p, self.slope(p, self.preactivation(p, X)), self.G(p, G_Y))
            return self.gradients(p, X, V, G_Y)

    def gradients(self, p: Problem, X: np.ndarray, V: np.ndarray, G_Y: np.ndarray) -> Arrays:
        U = p.B.T @ V
        out = {"B": V @ p.U.T, "C": G_Y @ X.T, "U": U if p.D is None else U + p.D.T @ G_Y}
        if p.D is not None:
            out["D"] = G_Y @ p.U.T
        return out | self.raw(p, self.factor_gradients(self.factors(p), X, V))

    def factor_gradients(self, factors: Factors, X: np.ndarray, V: np.ndarray) -> Factors:
        """∂A = V Xᵀ; ∂L = V (Rᵀ X)ᵀ, ∂Rᵀ = (Lᵀ V) Xᵀ."""
        return fac.gradients(factors, X, V)

    def raw(self, p: Problem, gradients: Factors) -> Arrays:
        """The gradients of the raw weights."""
        return by_name(self.function(p).pullback(p.factors, gradients))
