"""This module has the layer, which computes outputs and gradients; the layers of all twins follow its definition.

The variables have the names of the equations, and each is assigned once. A loss gives G_Y = ∂ℓ/∂Y. For a low-rank A,
neither A nor ∂A is formed.

forward    Z = B U          X = φ(A X + Z)       Y = C X + D U
adjoint    G = Cᵀ G_Y       S = φ′(A X + Z)      V = S ∘ (Aᵀ V + G)
gradients  ∂A = V Xᵀ        ∂B = V Uᵀ            ∂C = G_Y Xᵀ          ∂D = G_Y Uᵀ       ∂U = Bᵀ V + Dᵀ G_Y
low rank   ∂L = V (Rᵀ X)ᵀ   ∂R = X (Lᵀ V)ᵀ
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import numpy as np

from idl_ref import blocks as ordering
from idl_ref import factors as fac
from idl_ref.activations import MIXED, RANGES, Activation
from idl_ref.backends import entrywise, methods
from idl_ref.backends.equation import Equation
from idl_ref.backends.numpy import blocks
from idl_ref.backends.numpy.blocks import LINEAR, Part
from idl_ref.backends.numpy.one_sample import OneSample
from idl_ref.backends.numpy.solve import solve
from idl_ref.certificate import Certifier, contracting
from idl_ref.choices import Method
from idl_ref.solution import Solution, SolveOptions
from idl_ref.weights import BackwardPass, ForwardPass, Options, Weights


class Layer:
    """Computes X = φ(A X + B U), Ŷ = C X + D U and the gradients, for weights that do not change.

    Everything that depends on the weights alone is computed once, when it is first needed. A column that does not
    converge causes neither a warning nor an exception; the status of the solution tells it.

    Parameters
    ----------
    weights : Weights
        The effective weights.
    activation : Activation
        The activation φ.
    options : Options
        The options for the forward and for the adjoint equation.

    Examples
    --------
    >>> from idl_ref.activations import get
    >>> from idl_ref.solution import SolveOptions
    >>> weights = Weights((np.array([[0.5]]),), B=np.array([[1.0]]), C=np.array([[2.0]]))
    >>> layer = Layer(weights, get("relu"), Options(SolveOptions(tol=1e-12), SolveOptions(tol=1e-12)))
    >>> forward = layer.forward(np.array([[1.0, 3.0]]))
    >>> print(forward.Y.round(6), layer.backward(forward, np.ones((1, 2))).B.round(6))
    [[ 4. 12.]] [[16.]]
    """

    # These attributes are computed when they are first needed. Until then, the values of the class stand for "not yet".
    _transposed: fac.Factors | None = None
    _parts: tuple[dict[Method, tuple[Part, ...]], ...] | None = None
    _certifiers: tuple[Certifier | None, Certifier | None] = (None, None)  # for the forward and the adjoint equation

    memory: ClassVar[Literal["C", "F"]] = "C"  # the order in which the entries of an answer lie in memory
    losses: ClassVar[dict[str, Callable] | None] = None  # the losses of a twin by name, where it has its own
    sample_class: ClassVar[Callable[..., Callable[..., bool]]] = OneSample

    def __init__(self, weights: Weights, activation: Activation, options: Options) -> None:
        self.weights, self.activation, self.options = weights, activation, options

    def equation(self, Z: np.ndarray) -> Equation:
        """Return the forward equation X = φ(A X + Z).   Z (n, m)"""
        return Equation(self.weights.factors, self.activation, None, Z)

    def adjoint(self, S: np.ndarray, G: np.ndarray) -> Equation:
        """Return the adjoint equation V = S ∘ (Aᵀ V + G).   S, G (n, m)"""
        if self._transposed is None:
            self._transposed = fac.transpose(self.weights.factors)
        return Equation(self._transposed, LINEAR, S, G)

    def solve(self, equation: Equation, X0: np.ndarray | None = None, options: SolveOptions | None = None) -> Solution:
        """Solve an equation of this layer, X = S ∘ f(F₁ F₂ … X + Z).

        Parameters
        ----------
        equation : Equation
            The result of `equation` or of `adjoint` of this layer, or some of its columns.
        X0 : (n, m) array, optional
            The start of the iteration; 0 if not given.
        options : SolveOptions, optional
            Options that replace those of the layer.

        Notes
        -----
        Cost of an iteration: 2 n² m flops for a dense A, 4 n r m flops for rank r.
        """
        options = options or self.options[equation.S is not None]
        return self.finished(self.iterate(equation, X0, options), equation, options)

    def finished(self, solution: Solution, equation: Equation, options: SolveOptions) -> Solution:
        """Return a solution with a sharp error bound if the options ask for it, and with X in the range of φ."""
        if options.certificate == "sharp":
            return entrywise.sharpened(solution, *self.on_host(equation, solution.X))
        phi = equation.activation
        if (phi.name in RANGES or phi.code == MIXED) and entrywise.exceeds_range(solution, equation):
            return entrywise.capped(solution, *self.on_host(equation, solution.X))
        return solution

    @staticmethod
    def on_host(equation: Equation, X: np.ndarray) -> tuple[Equation, np.ndarray]:
        """Return an equation and its answer with all arrays in the memory of the host."""
        return equation, X

    def iterate(self, equation: Equation, X0: np.ndarray | None, options: SolveOptions) -> Solution:
        """Solve an equation, with an error bound from norms alone; each twin has its own solvers."""
        equation = self.unspoiled(equation)
        if parts := self.parts(options.method, equation.factors, equation.S is not None):
            return blocks.solve(self, parts, equation, X0, options)
        return solve(equation, X0, options, self.certifier(equation))

    def unspoiled(self, equation: Equation) -> Equation:
        """Return the equation, with NaN in Z if A has an entry NaN or inf, which a φ of bounded range could hide."""
        return equation._replace(Z=np.full_like(equation.Z, np.nan)) if self.certifier(equation).spoiled else equation

    def parts(self, method: Method, factors: fac.Factors, adjoint: bool) -> tuple[Part, ...]:
        """Return the blocks by which the forward or the adjoint equation is solved; none if it is solved as a whole.

        `factors` are those of the equation.
        """
        if method == "auto" and (len(factors) > 1 or len(factors[0]) < ordering.FROM or fac.is_sparse(factors)):
            return ()  # Blocks are not cheaper, which is told without a look at the entries.
        if method not in ("auto", "blocks"):
            return ()
        if self._parts is None:
            self._parts = {}, {}
        if method not in self._parts[adjoint]:
            if method == "blocks":
                methods.choose(method, factors, adjoint)  # refuses a product of factors
            found = ordering.order(factors[0]) if method == "blocks" else ordering.pays(factors[0])
            self._parts[adjoint][method] = tuple([Part.of(block, adjoint, self) for block in found])
        return self._parts[adjoint][method]

    def part(self, A: np.ndarray, activation: Activation) -> Layer:
        """Return a layer for the equation of some units, with their A and their φ."""
        return Layer(Weights.of((A,)), activation, self.options)

    @staticmethod
    def multiply(F: np.ndarray, X: np.ndarray) -> np.ndarray:
        """Return F X."""
        return F @ X

    def certifier(self, equation: Equation) -> Certifier:
        """Return the certifier of the forward or of the adjoint equation of this layer."""
        adjoint = equation.S is not None
        certifier = self._certifiers[adjoint]
        if certifier is None:
            with np.errstate(over="ignore", invalid="ignore"):
                certifier = Certifier(equation.factors, equation.activation, adjoint, equation.Z.dtype)
            self._certifiers = (self._certifiers[0], certifier) if adjoint else (certifier, self._certifiers[1])
        return certifier

    def forward(self, U: np.ndarray, X0: np.ndarray | None = None) -> ForwardPass:
        """Compute Z = B U, X = φ(A X + Z), Y = C X + D U.   U (p, m) without the constant feature, X0 (n, m)"""
        U = self.inputs(U)
        with np.errstate(over="ignore", invalid="ignore"):  # The status of a sample reports overflow, not a warning.
            Z = self.constant(U)
            return self.readout(U, Z, self.solve(self.equation(Z), X0))

    def inputs(self, U: np.ndarray) -> np.ndarray:
        """Return U, with the constant feature 1 as last row if there is a bias.   (p, m) -> (p, m) or (p + 1, m)"""
        return np.concatenate([U.T, np.ones((U.shape[1], 1), U.dtype)], axis=1).T if self.weights.bias else U

    def constant(self, U: np.ndarray) -> np.ndarray:
        """Return the constant term Z = B U.   U with the constant feature -> (n, m)"""
        parts, B = self.parts(self.options.forward.method, self.weights.factors, False), self.weights.B
        return blocks.constant(self, parts, B, U) if parts else self.multiply(B, U)

    def readout(self, U: np.ndarray, Z: np.ndarray, solution: Solution) -> ForwardPass:
        """Compute Y = C X + D U, and return the complete forward pass.   U with the constant feature, Z (n, m)"""
        _, _, C, D, _ = self.weights
        Y = C @ solution.X
        if D is not None:
            Y += D @ U
        return ForwardPass(self.weights, U, Z, solution, Y)

    def backward(self, forward: ForwardPass, G_Y: np.ndarray, inputs: bool = False) -> BackwardPass:
        """Compute G = Cᵀ G_Y, S = φ′(A X + Z), V = S ∘ (Aᵀ V + G) and the gradients of all weights.   G_Y (q, m)

        The gradient of U is computed if `inputs` is true.
        """
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
        """Return ∂U = Bᵀ V + Dᵀ G_Y without the row of the constant feature.   V (n, m), G_Y (q, m) -> (p, m)"""
        _, B, _, D, bias = self.weights
        G_U = B.T @ V
        if D is not None:
            G_U += D.T @ G_Y
        return G_U[:-1] if bias else G_U

    def unrolled(self, U: np.ndarray, H0: np.ndarray) -> Any:
        """Return all time steps of a recurrent cell from one call, or None if the backend takes them one by one.

        The outputs h_t of a cell are its last inputs in the next time step.   U (p, T, m), H0 (h, m)
        """
        return None

    def unrolled_back(self, whole: Any, G_H: np.ndarray, tiny: float) -> Any:
        """Return all gradients of what `unrolled` returned from one call, or None as there.   G_H (h, m)

        Gradients of h_t whose absolute value is below `tiny` count as 0.
        """
        return None

    def method(self) -> Method:
        """Return the method by which the forward equation is solved; for "auto", it depends on A."""
        method, factors = self.options.forward.method, self.weights.factors
        return "blocks" if self.parts(method, factors, False) else methods.choose(method, factors, False)

    def prepare(self) -> None:
        """Prepare for serving, so that the first call is as fast as later ones: a compiled twin compiles here."""

    def one_sample(self) -> Callable[..., bool] | None:
        """Return a faster function for single samples, or None if it does not apply.

        It applies if the method is Picard's or "auto", A is not sparse, and the map is a contraction. The function
        takes U (1, p) and Y (1, q), fills Y, and returns whether the sample converged; see OneSample.
        """
        method, factors = self.method(), self.weights.factors
        norm = fac.norm_inf(contracting(factors, self.activation))
        contracts = self.activation.lipschitz * norm < 1
        if method not in ("auto", "picard") or not factors[-1].size or not contracts or fac.is_sparse(factors):
            return None
        return self.sample_class(self.weights, self.activation, self.options.forward, method == "auto")


def warmup(dtype: np.dtype) -> None:
    """Do nothing, because NumPy has nothing to compile."""
