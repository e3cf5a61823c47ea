"""The whole flow in the paper's columns, each name bound once:

U → Z → X → Y → (loss: G_Y) → G → S → V → ∂A, ∂B, ∂C, ∂D, ∂U

forward    Z = B U          X = φ(A X + Z)       Y = C X + D U
adjoint    G = Cᵀ G_Y       S = φ′(A X + Z)      V = S ∘ (Aᵀ V + G)
gradients  ∂A = V Xᵀ        ∂B = V Uᵀ            ∂C = G_Y Xᵀ          ∂D = G_Y Uᵀ       ∂U = Bᵀ V + Dᵀ G_Y
low rank   ∂L = V (Rᵀ X)ᵀ   ∂R = X (Lᵀ V)ᵀ       neither A nor ∂A is ever formed
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from idl_ref import activations
from idl_ref import factors as fac
from idl_ref.backends import solver
from idl_ref.backends.methods import Memory
from idl_ref.equilibrium import report
from idl_ref.factors import Factors
from idl_ref.solution import Solution, SolveOptions

__all__ = ["BackwardPass", "ForwardPass", "Weights", "backward_pass", "forward_pass", "input_gradient"]


@dataclass(frozen=True)
class Weights:
    """The effective weights: A as factors (n, n) or (n, r)(r, n), B (n, p), C (q, n), D (q, p) or None for no D."""

    factors: Factors
    B: np.ndarray
    C: np.ndarray
    D: np.ndarray | None
    memory: Memory = field(default_factory=dict, repr=False, compare=False)  # what a backend makes of the factors

    @property
    def A(self) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """A, or the pair (L, R)."""
        return self.factors[0] if len(self.factors) == 1 else (self.factors[0], self.factors[1].T)


class Kept:
    """Effective weights for as long as nothing changed of what they were made of, in place or by name.

    B, C and D are used as they are. A, or L and R, are compared with copies: n² comparisons instead of `f`, the norms
    and what a backend makes of A.
    """

    def __init__(self, settings: Any, parameters: Mapping[str, np.ndarray], weights: Weights) -> None:
        self.settings, self.parameters, self.weights = settings, dict(parameters), weights
        self.copies = {name: W.copy() for name, W in parameters.items() if name in "ALR"}

    def holds(self, settings: Any, parameters: Mapping[str, np.ndarray]) -> bool:
        if settings is not self.settings or parameters.keys() != self.parameters.keys():
            return False
        for name, W in self.parameters.items():
            if parameters[name] is not W:
                return False
        for name, copy in self.copies.items():
            W = parameters[name]
            if W.shape != copy.shape or not (copy == W).all():
                return False
        return True


@dataclass(frozen=True)
class ForwardPass:
    """What the forward direction leaves behind for the backward one.   U (p, m), Z (n, m), Y (q, m)"""

    weights: Weights
    activation: str
    U: np.ndarray
    Z: np.ndarray
    solution: Solution
    Y: np.ndarray


@dataclass(frozen=True)
class BackwardPass:
    """The adjoint solution, V in `solution.X`, and the gradients of the effective weights.   ∂A as factors"""

    solution: Solution
    factors: Factors
    B: np.ndarray
    C: np.ndarray
    D: np.ndarray | None


def forward_pass(
    weights: Weights, activation: str, U: np.ndarray, X0: np.ndarray | None, options: SolveOptions, backend: str
) -> ForwardPass:
    """Z = B U,   X = φ(A X + Z),   Y = C X + D U."""
    Z = weights.B @ U
    phi = activations.get(activation)
    solution = solver(backend)(weights.factors, phi, None, Z, X0, options, weights.memory)
    report(solution, weights.factors, options, "forward", "max_iter")
    Y = weights.C @ solution.X
    if weights.D is not None:
        Y += weights.D @ U
    return ForwardPass(weights, activation, U, Z, solution, Y)


def backward_pass(forward: ForwardPass, G_Y: np.ndarray, options: SolveOptions, backend: str) -> BackwardPass:
    """G = Cᵀ G_Y,   S = φ′(A X + Z),   V = S ∘ (Aᵀ V + G),   and the gradients.   G_Y (q, m)"""
    weights, U, X = forward.weights, forward.U, forward.solution.X
    G = weights.C.T @ G_Y
    S = activations.get(forward.activation).slope(fac.apply(weights.factors, X) + forward.Z)
    identity, transposed = activations.get("identity"), fac.transpose(weights.factors)
    solution = solver(backend)(transposed, identity, S, G, None, options, weights.memory)
    report(solution, weights.factors, options, "adjoint", "max_iter")
    V = solution.X
    return BackwardPass(
        solution=solution,
        factors=fac.gradients(weights.factors, X, V),
        B=V @ U.T,
        C=G_Y @ X.T,
        D=None if weights.D is None else G_Y @ U.T,
    )


def input_gradient(weights: Weights, V: np.ndarray, G_Y: np.ndarray) -> np.ndarray:
    """∂U = Bᵀ V + Dᵀ G_Y.   V (n, m), G_Y (q, m) -> (p, m)"""
    G_U = weights.B.T @ V
    if weights.D is not None:
        G_U += weights.D.T @ G_Y
    return G_U
