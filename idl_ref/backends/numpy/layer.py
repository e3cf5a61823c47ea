"""The layer, which is the definition of every twin's: from U to Ŷ, and from G_Y to the gradients.

U → Z → X → Y → (loss: G_Y) → G → S → V → ∂A, ∂B, ∂C, ∂D, ∂U, each bound once:

forward    Z = B U          X = φ(A X + Z)       Y = C X + D U
adjoint    G = Cᵀ G_Y       S = φ′(A X + Z)      V = S ∘ (Aᵀ V + G)
gradients  ∂A = V Xᵀ        ∂B = V Uᵀ            ∂C = G_Y Xᵀ          ∂D = G_Y Uᵀ       ∂U = Bᵀ V + Dᵀ G_Y
low rank   ∂L = V (Rᵀ X)ᵀ   ∂R = X (Lᵀ V)ᵀ       neither A nor ∂A is ever formed
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np

from idl_ref import factors as fac
from idl_ref.activations import Activation, get
from idl_ref.backends import methods
from idl_ref.backends.equation import Equation
from idl_ref.backends.numpy.one_sample import OneSample
from idl_ref.backends.numpy.solve import solve
from idl_ref.certificate import Certifier
from idl_ref.solution import Solution, SolveOptions
from idl_ref.weights import BackwardPass, ForwardPass, Options, Weights

LINEAR = get("identity")


class Layer:
    """X = φ(A X + B U), Ŷ = C X + D U and the gradients, for weights that stay as they are.

    What depends on the weights alone is computed once, when it is first needed. A column that fails says so in the
    status of its solution; nothing here warns or raises.

    Parameters
    ----------
    weights : Weights
    activation : Activation
        φ.
    options : Options
        How the forward and the adjoint equation are solved.

    Examples
    --------
    >>> from idl_ref.solution import SolveOptions
    >>> weights = Weights((np.array([[0.5]]),), B=np.array([[1.0]]), C=np.array([[2.0]]))
    >>> layer = Layer(weights, get("relu"), Options(SolveOptions(tol=1e-12), SolveOptions(tol=1e-12)))
    >>> forward = layer.forward(np.array([[1.0, 3.0]]))
    >>> print(forward.Y.round(6), layer.backward(forward, np.ones((1, 2))).B.round(6))
    [[ 4. 12.]] [[16.]]
    """

    # Computed when they are first needed; the class holds the value for "not yet".
    _transposed: fac.Factors | None = None
    _certifiers: tuple[Certifier | None, Certifier | None] = (None, None)  # forward and adjoint

    sample_class: ClassVar[Callable[..., Callable[..., bool]]] = OneSample

    def __init__(self, weights: Weights, activation: Activation, options: Options) -> None:
        self.weights, self.activation, self.options = weights, activation, options

    def equation(self, Z: np.ndarray) -> Equation:
        """The forward equation, X = φ(A X + Z).   Z (n, m)"""
        return Equation(self.weights.factors, self.activation, None, Z)

    def adjoint(self, S: np.ndarray, G: np.ndarray) -> Equation:
        """The adjoint equation, V = S ∘ (Aᵀ V + G).   S, G (n, m)"""
        if self._transposed is None:
            self._transposed = fac.transpose(self.weights.factors)
        return Equation(self._transposed, LINEAR, S, G)

    def solve(self, equation: Equation, X0: np.ndarray | None = None, options: SolveOptions | None = None) -> Solution:
        """The solution of `equation` or `adjoint` of this layer.

        Parameters
        ----------
        equation : Equation
        X0 : (n, m) array, optional
            Where to start; 0 if not given.
        options : SolveOptions, optional
            In the place of the layer's own.

        Notes
        -----
        Cost of an iteration: 2 n² m flops; low rank, 4 n r m.
        """
        adjoint = equation.S is not None
        certifier = self._certifiers[adjoint]
        if certifier is None:
            with np.errstate(over="ignore", invalid="ignore"):
                certifier = Certifier(equation.factors, equation.activation, adjoint, equation.Z.dtype)
            self._certifiers = (self._certifiers[0], certifier) if adjoint else (certifier, self._certifiers[1])
        return solve(equation, X0, options or self.options[adjoint], certifier)

    def forward(self, U: np.ndarray, X0: np.ndarray | None = None) -> ForwardPass:
        """Z = B U,   X = φ(A X + Z),   Y = C X + D U.   U (p, m) without the constant feature, X0 (n, m)"""
        U = self.inputs(U)
        with np.errstate(over="ignore", invalid="ignore"):  # a sample that is not finite is reported by its status
            Z = self.weights.B @ U
            return self.readout(U, Z, self.solve(self.equation(Z), X0))

    def inputs(self, U: np.ndarray) -> np.ndarray:
        """U with the constant feature 1 as its last row where there is a bias.   (p, m) -> (p, m) or (p + 1, m)"""
        return np.concatenate([U.T, np.ones((U.shape[1], 1), U.dtype)], axis=1).T if self.weights.bias else U

    def readout(self, U: np.ndarray, Z: np.ndarray, solution: Solution) -> ForwardPass:
        """Y = C X + D U.   U with the constant feature, Z (n, m)"""
        _, _, C, D, _ = self.weights
        Y = C @ solution.X
        if D is not None:
            Y += D @ U
        return ForwardPass(self.weights, U, Z, solution, Y)

    def backward(self, forward: ForwardPass, G_Y: np.ndarray, inputs: bool = False) -> BackwardPass:
        """G = Cᵀ G_Y,   S = φ′(A X + Z),   V = S ∘ (Aᵀ V + G),   and the gradients (∂U with `inputs`).   G_Y (q, m)"""
        factors, _, C, D, _ = self.weights
        U, X = forward.U, forward.solution.X
        with np.errstate(over="ignore", invalid="ignore"):
            G = C.T @ G_Y
            S = self.activation.slope(fac.apply(factors, X) + forward.Z)
            solution = self.solve(self.adjoint(S, G))
            V = solution.X
            return BackwardPass(
                solution=solution,
                factors=fac.gradients(factors, X, V),
                B=V @ U.T,
                C=G_Y @ X.T,
                D=None if D is None else G_Y @ U.T,
                U=self.input_gradient(V, G_Y) if inputs else None,
            )

    def input_gradient(self, V: np.ndarray, G_Y: np.ndarray) -> np.ndarray:
        """∂U = Bᵀ V + Dᵀ G_Y, without the row of the constant feature.   V (n, m), G_Y (q, m) -> (p, m)"""
        _, B, _, D, bias = self.weights
        G_U = B.T @ V
        if D is not None:
            G_U += D.T @ G_Y
        return G_U[:-1] if bias else G_U

    def method(self, options: SolveOptions | None = None) -> str:
        """The method by which the forward equation is solved: what "auto" stands for depends on A."""
        return methods.choose((options or self.options.forward).method, self.weights.factors, False)

    def prepare(self) -> None:
        """Do now what the first calls would do once, for a layer that serves: a compiled twin compiles here."""

    def one_sample(self) -> Callable[..., bool] | None:
        """A quick path for single samples, or None where the method is not Picard's, by name or by "auto".

        It is called with U (1, p) and Y (1, q), fills Y, and tells whether the sample converged; see OneSample.
        """
        method = self.method()
        if method not in ("auto", "picard") or not self.weights.factors[-1].size:
            return None
        return self.sample_class(self.weights, self.activation, self.options.forward, method == "auto")


def warmup(dtype: np.dtype) -> None:
    """NumPy has nothing to compile."""
