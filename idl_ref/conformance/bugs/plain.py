"""The plain backend, of which each planted bug overrides a method."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np

from idl_ref import activations
from idl_ref import factors as fac
from idl_ref.conformance.truth.backend import WITH_STORAGE
from idl_ref.conformance.truth.problem import Arrays, Problem
from idl_ref.factors import Factors
from idl_ref.functions import ImplicitFunction
from idl_ref.weights import by_name

Map = Callable[[np.ndarray], np.ndarray]
Iterated = tuple[np.ndarray, np.ndarray, int]


class Plain:
    """Picard iteration in plain NumPy; every step is a method of its own, which a planted bug can override.

    Examples
    --------
    >>> from idl_ref.conformance import check_backend
    >>> check_backend(Plain(), groups=["kinks"]).ok
    True
    """

    name = "plain"
    capabilities: Any = WITH_STORAGE | {"iterations": True, "iteration_slack": 0}

    # --- the equation -------------------------------------------------------------------------------------------------

    def factors(self, p: Problem) -> Factors:
        """The effective A as factors."""
        return self.function(p).effective(p.factors)

    def function(self, p: Problem) -> ImplicitFunction:
        """The map f from raw to effective weights."""
        return p.function

    def apply(self, factors: Factors, X: np.ndarray) -> np.ndarray:
        """A X."""
        return fac.apply(factors, X)

    def transposed(self, factors: Factors) -> Factors:
        """Aᵀ as factors."""
        return fac.transpose(factors)

    def Z(self, p: Problem) -> np.ndarray:
        """B U."""
        return p.B @ p.U

    def phi(self, p: Problem, P: np.ndarray) -> np.ndarray:
        """φ(P)."""
        return activations.get(p.activation).phi(P)

    def slope(self, p: Problem, P: np.ndarray) -> np.ndarray:
        """φ′(P)."""
        return activations.get(p.activation).slope(P)

    def readout(self, p: Problem, X: np.ndarray) -> np.ndarray:
        """Y = C X + D U."""
        Y = p.C @ X
        return Y if p.D is None else Y + p.D @ p.U

    # --- the iteration ------------------------------------------------------------------------------------------------

    def noise(self, factors: Factors, slopes: float | np.ndarray, Z: np.ndarray, X: np.ndarray) -> np.ndarray:
        """What rounding explains of a step, entry by entry: 4 eps (slope (|A||X| + |Z|) + |X|)."""
        explained = slopes * (fac.apply(tuple(map(np.abs, factors)), np.abs(X)) + np.abs(Z)) + np.abs(X)
        return np.where(np.isfinite(explained), 4 * np.finfo(X.dtype).eps * explained, 0).astype(X.dtype)

    def stop(self, p: Problem, z: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """The largest step with which each entry counts as converged, given ‖z‖∞ of its column and its noise."""
        return np.maximum(p.tol * np.minimum(1, z), noise)

    def done(self, step: np.ndarray, stop: np.ndarray) -> np.ndarray:
        """Which columns have converged: those in which every entry has."""
        return np.all(step <= stop, axis=0)

    def back(self, change: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Which columns have returned to an earlier iterate, given the change since."""
        return np.all(change <= noise, axis=0)

    def limit(self, p: Problem) -> int:
        """The largest number of iterations."""
        return p.max_iter

    def contracts(self, p: Problem) -> bool:
        """Whether the map is known to be a contraction: the infinity norm of the effective |A| is below 1."""
        norm = reduce(np.matmul, map(np.abs, self.factors(p))).sum(axis=1).max(initial=0.0)
        return bool(norm < 1)

    def iterate(self, g: Map, noise: Map, Z: np.ndarray, X: np.ndarray, p: Problem) -> Iterated:
        """Iterate X ← g(X); return X, which columns have converged, and the number of applications of g.

        In float32 an iteration may go round in a cycle of the last digits, of any period. A contraction that returns to
        an earlier iterate, up to its noise, comes no nearer to its fixed point, so that it has converged.
        """
        if X.size == 0:
            return X, np.ones(X.shape[1], bool), 0
        z, contracts = np.abs(Z).max(axis=0), self.contracts(p)
        earlier = last = X
        for k in range(1, self.limit(p) + 1):
            G = g(X)
            explained = noise(G)
            done = self.done(np.abs(G - X), self.stop(p, z, explained))
            if contracts and k > 64:
                done = done | self.back(np.abs(G - earlier), explained)
            if done.all():
                break
            X, last = G, X
            if k & (k - 1) == 0:
                earlier = G  # at powers of two, because the period is not known
            if k % 64 == 0 and (done | ~np.isfinite(X).all(axis=0)).all():
                break  # a column that is not finite any more does not converge
        return self.returned(self.answer(p, X, G), last), self.verdict(done, G), k

    def answer(self, p: Problem, X: np.ndarray, G: np.ndarray) -> np.ndarray:
        """The last application G = g(X) where it is nearer than X; elsewhere X, whose residual has been judged."""
        return G if self.contracts(p) else X

    def returned(self, G: np.ndarray, last: np.ndarray) -> np.ndarray:
        """The result of the iteration: the last application of the map."""
        return G

    def verdict(self, done: np.ndarray, G: np.ndarray) -> np.ndarray:
        """Which columns are reported as converged."""
        return done & np.isfinite(G).all(axis=0)

    def start(self, p: Problem, Z: np.ndarray) -> np.ndarray:
        """The X where the iteration starts."""
        return np.zeros_like(Z) if p.X0 is None else p.X0.copy()

    def equilibrium(self, p: Problem) -> Iterated:
        """Solve X = φ(A X + Z); see `iterate` for what is returned."""
        A, Z, lipschitz = self.factors(p), self.Z(p), activations.get(p.activation).lipschitz
        g: Map = lambda X: self.phi(p, self.apply(A, X) + Z)  # noqa: E731
        return self.iterate(g, lambda X: self.noise(A, lipschitz, Z, X), Z, self.start(p, Z), p)

    def forward(self, p: Problem) -> dict[str, Any]:
        """Solve the problem: "Y" and "X"; per column "converged" and "iterations"."""
        with np.errstate(all="ignore"):
            X, converged, k = self.equilibrium(p)
            return {"Y": self.readout(p, X), "X": X, "converged": converged, "iterations": np.full(X.shape[1], k)}

    # --- gradients ----------------------------------------------------------------------------------------------------

    def preactivation(self, p: Problem, X: np.ndarray) -> np.ndarray:
        """A X + Z."""
        return self.apply(self.factors(p), X) + self.Z(p)

    def G(self, p: Problem, G_Y: np.ndarray) -> np.ndarray:
        """G = Cᵀ G_Y."""
        return p.C.T @ G_Y

    def adjoint(self, p: Problem, S: np.ndarray, G: np.ndarray) -> np.ndarray:
        """The solution V of V = S ∘ (Aᵀ V + G)."""
        At = self.transposed(self.factors(p))
        noise = lambda V: self.noise(At, S, G, V)  # noqa: E731
        return self.iterate(lambda V: S * (self.apply(At, V) + G), noise, G, np.zeros_like(G), p)[0]

    def vjp(self, p: Problem, G_Y: np.ndarray) -> Arrays:
        """The gradients of Σ G_Y ∘ Y: "A", or "L" and "R"; "B", "C" and "U"; "D" where the problem has one."""
        with np.errstate(all="ignore"):
            X = self.equilibrium(p)[0]
            V = self.adjoint(p, self.slope(p, self.preactivation(p, X)), self.G(p, G_Y))
            return self.gradients(p, X, V, G_Y)

    def gradients(self, p: Problem, X: np.ndarray, V: np.ndarray, G_Y: np.ndarray) -> Arrays:
        """All gradients by name, from X and V."""
        U = p.B.T @ V
        out = {"B": V @ p.U.T, "C": G_Y @ X.T, "U": U if p.D is None else U + p.D.T @ G_Y}
        if p.D is not None:
            out["D"] = G_Y @ p.U.T
        return out | self.raw(p, self.factor_gradients(self.factors(p), X, V))

    def factor_gradients(self, factors: Factors, X: np.ndarray, V: np.ndarray) -> Factors:
        """∂A = V Xᵀ; ∂L = V (Rᵀ X)ᵀ, ∂Rᵀ = (Lᵀ V) Xᵀ."""
        return fac.gradients(factors, X, V)

    def raw(self, p: Problem, gradients: Factors) -> Arrays:
        """The gradients of the raw weights by name, from those of the effective weights."""
        return by_name(self.function(p).pullback(p.factors, gradients))


def registered_in(bugs: dict[str, type[Plain]]) -> Callable[[type[Plain]], type[Plain]]:
    """A class decorator that names a planted bug after its class and enters it in `bugs`."""

    def planted(bug: type[Plain]) -> type[Plain]:
        bug.name = bug.__name__
        bugs[bug.name] = bug
        return bug

    return planted
