"""This module has the layer of the Numba twin, whose passes and solvers are compiled for the CPU.

A kernel solves a tile, which is a group of columns, and several threads share the tiles of a large problem. The answer
of a column depends neither on the other columns of the batch, nor on the width of the tiles, nor on the number of
threads, because every sum has a fixed order and no operation mixes two columns.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from idl_ref import factors as fac
from idl_ref.activations import MIXED, RANGES, Activation, get
from idl_ref.backends import methods
from idl_ref.backends.equation import Equation
from idl_ref.backends.numba import blocks, launches, preparing, recurrent
from idl_ref.backends.numba.blocks import Levels
from idl_ref.backends.numba.launches import Prepared
from idl_ref.backends.numba.losses import LOSSES
from idl_ref.backends.numba.one_sample import OneSample
from idl_ref.backends.numba.sparse import CompiledSparse
from idl_ref.backends.numpy import layer as definition
from idl_ref.choices import Method
from idl_ref.solution import Solution, SolveOptions
from idl_ref.weights import BackwardPass, ForwardPass, Options, Weights

KNOWN = (*methods.COMPILED, "blocks")  # the methods that this twin has; the definition solves by others


class Layer(definition.Layer):
    """The layer of the NumPy twin with compiled passes.

    Notes
    -----
    The product F x sums over k in the same order for every number of columns, tile width and number of threads, so that
    answers are equal bit for bit. X is returned in Fortran order: the entries of each column are contiguous.
    """

    memory = "F"
    losses = LOSSES
    sample_class = OneSample
    _prepared: tuple[Prepared | None, Prepared | None] = (None, None)  # for the forward and the adjoint equation
    _levels: tuple[Levels | None, Levels | None] = (None, None)  # for the forward and the adjoint equation

    def __init__(self, weights: Weights, activation: Activation, options: Options) -> None:
        if fac.is_sparse(weights.factors):  # The definition solves the equation, with compiled products.
            weights = weights._replace(factors=(CompiledSparse.compiled(weights.factors[0]),))
        super().__init__(weights, activation, options)

    def prepared(self, equation: Equation, options: SolveOptions) -> Prepared | None:
        """Return the data of a solve that do not depend on its columns; None if there is nothing to compile for it."""
        adjoint = equation.S is not None
        F = equation.factors[-1]
        if options.method not in KNOWN or not (equation.Z.size and F.size) or type(F) is CompiledSparse:
            return None
        prepared = self._prepared[adjoint]
        if prepared is None or prepared.options is not options:
            prepared = preparing.prepare(equation, options, prepared)
            if self.parts(options.method, equation.factors, adjoint):
                prepared = prepared._replace(method="blocks")
            self._prepared = (self._prepared[0], prepared) if adjoint else (prepared, self._prepared[1])
        return prepared

    def levels(self, prepared: Prepared, equation: Equation) -> Levels | None:
        """Return the blocks by which an equation is solved, in compiled form; None if there are none, or cycles.

        They have one φ; where every row has its own, blocks are taken one by one, with compiled products.
        """
        if prepared.method != "blocks" or equation.activation.code == MIXED:
            return None
        adjoint = equation.S is not None
        parts = self.parts(prepared.options.method, equation.factors, adjoint)
        if not parts or any(part.layer for part in parts):
            return None
        known = self._levels[adjoint]
        if known is None:
            known = Levels.of(parts, len(equation.Z), equation.Z.dtype)
            self._levels = (self._levels[0], known) if adjoint else (known, self._levels[1])
        return known

    def iterate(self, equation: Equation, X0: np.ndarray | None, options: SolveOptions) -> Solution:
        """Solve an equation of this layer by compiled kernels."""
        prepared = self.prepared(equation, options)
        if prepared is not None and not math.isfinite(prepared.roundings[0]):
            equation = self.unspoiled(equation)
        if prepared is None or prepared.method == "blocks":
            levels = None if prepared is None else self.levels(prepared, equation)
            return super().iterate(equation, X0, options) if levels is None else blocks.solve(levels, equation, X0)
        if X0 is not None:
            X0 = self.certifier(equation).start(X0, equation.S, equation.Z)
        return launches.solve(prepared, equation, X0)

    def forward(self, U: np.ndarray, X0: np.ndarray | None = None) -> ForwardPass:
        """Compute Z = B U, X and Y = C X + D U, in one launch for Picard's method, and for blocks without a cycle."""
        weights, options = self.weights, self.options.forward
        Z = np.empty((U.shape[1], len(weights.B)), weights.B.dtype).T
        equation = Equation(weights.factors, self.activation, None, Z)
        prepared = self.prepared(equation, options) if U.size else None
        levels = None if prepared is None else self.levels(prepared, equation)
        whole = levels is not None or (X0 is None and prepared is not None and prepared.method != "blocks")
        if prepared is None or not whole or not math.isfinite(prepared.roundings[0]):
            return super().forward(U, X0)
        U = self.inputs(U)
        if levels is not None:
            solution, Y = blocks.forward(levels, equation, weights, U, X0)
        else:
            solution, Y = launches.forward(prepared, equation, weights, U)
        phi = self.activation
        if options.certificate == "sharp" or phi.name in RANGES or phi.code == MIXED:
            solution = self.finished(solution, equation, options)
        return ForwardPass(weights, U, Z, solution, Y)

    def inputs(self, U: np.ndarray) -> np.ndarray:
        """Return U, with the constant feature 1 as last row if there is a bias, and with contiguous columns."""
        if not self.weights.bias:
            return U
        p, m = U.shape
        samples = np.empty((m, p + 1), U.dtype)
        samples[:, :p], samples[:, p] = U.T, 1
        return samples.T

    def part(self, A: np.ndarray, activation: Activation) -> Layer:
        """Return a layer for the equation of some units, with their A and their φ."""
        return Layer(Weights.of((A,)), activation, self.options)

    @staticmethod
    def multiply(F: np.ndarray, X: np.ndarray) -> np.ndarray:
        """Return F X, with contiguous columns."""
        return launches.product(F, X) if X.size else F @ X

    def readout(self, U: np.ndarray, Z: np.ndarray, solution: Solution) -> ForwardPass:
        """Compute Y = C X + D U, and return the complete forward pass."""
        if not U.size:
            return super().readout(U, Z, solution)
        return ForwardPass(self.weights, U, Z, solution, launches.readout(self.weights, U, solution.X))

    def backward(self, forward: ForwardPass, G_Y: np.ndarray, inputs: bool = False) -> BackwardPass:
        """Compute G = Cᵀ G_Y, S = φ′(A X + Z), V = S ∘ (Aᵀ V + G) and the gradients of all weights."""
        X, options = forward.solution.X, self.options.adjoint
        S_and_G = np.empty((2, X.shape[1], len(X)), X.dtype)
        equation = self.adjoint(S_and_G[0].T, S_and_G[1].T)
        forth, back = self.prepared(self.equation(forward.Z), self.options.forward), self.prepared(equation, options)
        if forth is None or back is None or not forward.U.size:
            return super().backward(forward, G_Y, inputs)
        answer = self.iterate if back.method == "blocks" else None
        backward = launches.backward((forth, back), equation, forward, np.asarray(G_Y, X.dtype), inputs, answer)
        if options.certificate == "sharp":
            return backward._replace(solution=self.finished(backward.solution, equation, options))
        return backward

    def unrolled(self, U: np.ndarray, H0: np.ndarray) -> Any:
        """Return all time steps of a recurrent cell from one launch, or None if a column needs another method."""
        return recurrent.forward(self, U, H0)

    def unrolled_back(self, whole: Any, G_H: np.ndarray, tiny: float) -> Any:
        """Return all gradients of what `unrolled` returned from one launch, or None as there."""
        return recurrent.backward(self, whole, G_H, tiny)

    def prepare(self) -> None:
        """Compile the kernels of forward passes, and of iterations in parts, by passes and solves of zeros."""
        (factors, B, _, _, bias), options = self.weights, self.options.forward
        zeros = np.zeros((B.shape[1] - bias, 1), B.dtype)
        self.forward(zeros)
        if self.method() == "auto":  # Columns that are slow go to other methods.
            U = self.inputs(zeros)
            equation = self.equation(self.constant(U))
            ways: tuple[Method, ...] = ("picard", "anderson", "newton")
            for method in ways if methods.newton_cost(factors) < math.inf else ways[:2]:
                solution = self.solve(equation, options=SolveOptions(options.tol, options.max_iter, method))
            self.readout(U, equation.Z, solution)


def warmup(dtype: np.dtype) -> None:
    """Compile every solver for one dtype by solving a small equation with each of them."""
    half, shift = np.eye(2, dtype=dtype) / 2, np.eye(2, k=1, dtype=dtype)
    Z = np.ones((2, 2), dtype)
    methods_used: tuple[Method, ...] = ("picard", "anderson", "newton", "substitution", "blocks")
    for A, method in zip((half, half, half, shift, shift), methods_used, strict=True):
        options = SolveOptions(method=method)
        layer = Layer(Weights.of((A,)), get("relu"), Options(options, options))
        layer.solve(layer.equation(Z))
    Layer(Weights((shift,), shift, shift), get("relu"), Options(options, options)).forward(Z)  # the last one: blocks
