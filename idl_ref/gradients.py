"""The whole flow in the paper's columns, each name bound once:

U → Z → X → Y → (loss: G_Y) → G → S → V → ∂A, ∂B, ∂C, ∂D, ∂U

forward    Z = B U          X = φ(A X + Z)       Y = C X + D U
adjoint    G = Cᵀ G_Y       S = φ′(A X + Z)      V = S ∘ (Aᵀ V + G)
gradients  ∂A = V Xᵀ        ∂B = V Uᵀ            ∂C = G_Y Xᵀ          ∂D = G_Y Uᵀ       ∂U = Bᵀ V + Dᵀ G_Y
low rank   ∂L = V (Rᵀ X)ᵀ   ∂R = X (Lᵀ V)ᵀ       neither A nor ∂A is ever formed
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from idl_ref import activations
from idl_ref import factors as fac
from idl_ref.adjoint import solve_adjoint
from idl_ref.equilibrium import solve_equilibrium
from idl_ref.factors import Factors
from idl_ref.solution import Solution, SolveOptions


@dataclass(frozen=True)
class Weights:
    """The effective weights: A as factors (n, n) or (n, r)(r, n), B (n, p), C (q, n), D (q, p) or None for no D."""

    factors: Factors
    B: np.ndarray
    C: np.ndarray
    D: np.ndarray | None

    @property
    def A(self) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """A, or the pair (L, R)."""
        return self.factors[0] if len(self.factors) == 1 else (self.factors[0], self.factors[1].T)


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
    solution = solve_equilibrium(weights.A, Z, activation=activation, X0=X0, options=options, backend=backend)
    Y = weights.C @ solution.X
    if weights.D is not None:
        Y += weights.D @ U
    return ForwardPass(weights, activation, U, Z, solution, Y)


def backward_pass(forward: ForwardPass, G_Y: np.ndarray, options: SolveOptions, backend: str) -> BackwardPass:
    """G = Cᵀ G_Y,   S = φ′(A X + Z),   V = S ∘ (Aᵀ V + G),   and the gradients.   G_Y (q, m)"""
    weights, U, X = forward.weights, forward.U, forward.solution.X
    G = weights.C.T @ G_Y
    S = activations.get(forward.activation).slope(fac.apply(weights.factors, X) + forward.Z)
    solution = solve_adjoint(weights.A, S, G, options=options, backend=backend)
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
    return G_U if weights.D is None else G_U + weights.D.T @ G_Y
