"""This module has the layer of the Numba twin, whose solvers are compiled for the CPU.

A kernel solves a tile, which is a group of columns, and several threads share the tiles of a large problem. The answer
of a column depends neither on the other columns of the batch, nor on the width of the tiles, nor on the number of
threads, because every sum has a fixed order and no operation mixes two columns.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from idl_ref import certificate
from idl_ref import factors as fac
from idl_ref.activations import get
from idl_ref.backends import methods
from idl_ref.backends.equation import Equation
from idl_ref.backends.numba import kernels, threads
from idl_ref.backends.numba.matrices import Packed, affine, outer, packed
from idl_ref.backends.numba.one_sample import OneSample
from idl_ref.backends.numba.products import ROWS, pack
from idl_ref.backends.numba.tiles import NOTHING, flat, packed_size, tiles, transposed
from idl_ref.backends.numpy import layer as definition
from idl_ref.choices import Method
from idl_ref.solution import Solution, SolveOptions
from idl_ref.weights import BackwardPass, ForwardPass, Options, Weights

# The activation, the step and the norms of one entry take as long as this many flops of a product.
ENTRY_FLOPS = 40
# The number of vectors that a method needs for each column.
KEPT = {"auto": 3, "picard": 3, "substitution": 3, "newton": 5, "anderson": 5 + kernels.HISTORY}
Answer = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # The arrays that `blank` allocates.


class Prepared(NamedTuple):
    """The data of a solve that do not depend on its columns. A layer computes them once for each of its equations."""

    asked: str  # the method that the options name
    method: str  # the method that this name stands for
    r: int  # the rank, or 0 for a dense A
    code: int  # the code of the activation
    F1: np.ndarray  # the first factor, packed in panels
    F2: np.ndarray  # the second factor, packed in panels; empty for a dense A
    roundings: tuple[float, ...]  # a Rounding as a plain tuple, which a kernel receives faster than a named one
    flops: int  # the flops of one application to one column


def prepare(equation: Equation, asked: Method, known: Prepared | None) -> Prepared:
    """Choose the method and pack the factors; `known`, prepared for another method, saves packing them again.

    Packing also computes |F₁| |F₂| … 1, or |… F₂ F₁|ᵀ 1 for the adjoint. Its largest entry bounds ‖A‖∞.
    """
    factors, activation, S, _ = equation
    adjoint = S is not None
    method = methods.choose(asked, factors, adjoint)
    if known is not None:
        return known._replace(asked=asked, method=method)
    dtype = factors[0].dtype
    weights = NOTHING[dtype][0]  # An empty array stands for ones.
    panels, terms, flops, largest = [weights, weights], ROWS, ENTRY_FLOPS * factors[0].shape[0], 0.0
    for i in range(len(factors)) if adjoint else range(len(factors) - 1, -1, -1):
        height, width = factors[i].shape
        panels[i] = np.empty(packed_size(height, width), dtype)
        sums = np.empty(methods.filled(width if adjoint else height, ROWS), dtype)
        largest = pack(*flat(factors[i]), height, width, panels[i], adjoint, weights, sums)
        weights = sums
        terms += height + width
        flops += 2 * height * width
    norm = methods.norm_bound(largest, terms, dtype, len(factors) > 1)
    if not norm < 1:  # The certificate then depends on the exact value.
        norm = fac.norm_inf(fac.transpose(factors) if adjoint else factors)
    r = factors[0].shape[1] if len(factors) == 2 else 0
    roundings = tuple(certificate.rounding(factors, activation, dtype, norm))
    return Prepared(asked, method, r, activation.code, panels[0], panels[1], roundings, flops)


class Layer(definition.Layer):
    """The layer of the NumPy twin with compiled solvers.

    Notes
    -----
    The product F x sums over k in the same order for every number of columns, tile width and number of threads, so that
    answers are equal bit for bit. X is returned in Fortran order: the entries of each column are contiguous.
    """

    sample_class = OneSample
    _prepared: tuple[Prepared | None, Prepared | None] = (None, None)  # for the forward and the adjoint equation
    _packs: Mapping[str, Packed] = MappingProxyType({})  # the packed matrices of the weights, when first needed

    def iterate(self, equation: Equation, X0: np.ndarray | None, options: SolveOptions) -> Solution:
        """Solve an equation of this layer by compiled kernels."""
        factors, _, S, Z = equation
        (n, m), adjoint = Z.shape, S is not None
        if n == 0 or m == 0 or factors[-1].size == 0 or options.method not in methods.COMPILED:
            return super().iterate(equation, X0, options)
        prepared = self._prepared[adjoint]
        if prepared is None or prepared.asked != options.method:
            prepared = prepare(equation, options.method, prepared)
            self._prepared = (self._prepared[0], prepared) if adjoint else (prepared, self._prepared[1])
        answer = blank(n, m, Z.dtype, np.zeros(m, np.intp))
        if X0 is not None:
            X0 = self.certifier(equation).start(X0, S, Z)
        left = solve_columns(prepared.method, prepared, equation, X0, options, answer)
        if prepared.method == "auto":
            for method in ("anderson", "newton"):
                if left:
                    left = self._solve_slow(method, prepared, equation, options, answer)
        X, status, iterations, numbers = answer[0].reshape(m, n), *answer[1:4]
        step, bound = numbers[kernels.STEP], numbers[kernels.BOUND]
        if not prepared.roundings[0] < 1:  # The norm of A alone then shows no contraction.
            numerator, kappa, lipschitz = numbers[kernels.EXCESS :]
            forward = fac.transpose(factors) if adjoint else factors
            bound = certificate.divide(numerator, kappa, lipschitz, forward, adjoint)
        return Solution(X.T, status, iterations, step, bound)

    def _solve_slow(
        self, method: str, prepared: Prepared, equation: Equation, options: SolveOptions, answer: Answer
    ) -> int:
        """Continue with the columns of the status SLOW by another method, and return how many are slow again."""
        X, status, iterations, numbers = answer[0].reshape(len(answer[1]), -1), *answer[1:4]
        slow = np.flatnonzero(status == kernels.SLOW)
        if slow.size == status.size:
            return solve_columns(method, prepared, equation, X.T, options, answer)
        rest = blank(X.shape[1], slow.size, X.dtype, iterations[slow])
        S, Z = equation.S, equation.Z
        some = equation._replace(S=None if S is None else S.T[slow].T, Z=Z.T[slow].T)
        left = solve_columns(method, prepared, some, X[slow].T, options, rest)
        X[slow], status[slow], iterations[slow], numbers[:, slow] = rest[0].reshape(slow.size, -1), *rest[1:4]
        return left

    def packed(self, name: str) -> Packed:
        """Return B, [C D], Cᵀ (named Ct) or [B; D]ᵀ (named BDt), packed at the first call."""
        found = self._packs.get(name)
        if found is None:
            _, B, C, D, _ = self.weights
            if name == "B":
                M = B
            elif name == "Ct":
                M = C.T
            elif name == "CD":
                M = C if D is None else np.concatenate([C, D], axis=1)
            else:
                M = (B if D is None else np.concatenate([B, D])).T
            found = packed(M)
            self._packs = {**self._packs, name: found}
        return found

    def factors(self, adjoint: bool) -> tuple[Packed, ...]:
        """Return the factors of the forward equation, or those of the adjoint equation, packed."""
        p, (A, *_) = self._prepared[adjoint], self.weights
        if p is None:
            return tuple(packed(F) for F in (fac.transpose(A) if adjoint else A))
        n = len(A[0])
        return (Packed(p.F1, n, n),) if len(A) == 1 else (Packed(p.F1, n, p.r), Packed(p.F2, p.r, n))

    def constant(self, U: np.ndarray) -> np.ndarray:
        """Return Z = B U."""
        return affine(self.packed("B"), U) if U.size and self.weights.B.size else super().constant(U)

    def readout(self, U: np.ndarray, Z: np.ndarray, solution: Solution) -> ForwardPass:
        """Compute Y = [C D] [X; U], and return the complete forward pass."""
        _, _, C, D, _ = self.weights
        if not (C.size and U.size):
            return super().readout(U, Z, solution)
        Y = affine(self.packed("CD"), solution.X, None if D is None else U)
        return ForwardPass(self.weights, U, Z, solution, Y)

    def backward(self, forward: ForwardPass, G_Y: np.ndarray, inputs: bool = False) -> BackwardPass:
        """Compute G, S, V and the gradients, of which ∂[A; C] = [V; G_Y] Xᵀ and ∂[B; D] = [V; G_Y] Uᵀ."""
        (_, _, C, D, bias), U, X, Z = self.weights, forward.U, forward.solution.X, forward.Z
        if not (C.size and U.size and X.size and self.weights.factors[-1].size):
            return super().backward(forward, G_Y, inputs)
        G_Y = np.asarray(G_Y, X.dtype)
        *inner, F1 = reversed(self.factors(False))
        T = [X]
        for F in inner:
            T.append(affine(F, T[-1]))
        with np.errstate(over="ignore", invalid="ignore"):
            S = self.activation.slope(affine(F1, T[-1], None, Z))
        solution = self.solve(self.adjoint(S, affine(self.packed("Ct"), G_Y)))
        V = solution.X
        n, both = len(V), np.concatenate([V.T, G_Y.T], axis=1)
        dense = len(self.weights.factors) == 1
        to_U = outer(V.T if D is None else both, U)
        to_X = outer(both if dense else G_Y.T, X)
        G_U = None
        if inputs:
            G_U = affine(self.packed("BDt"), V, None if D is None else G_Y)[: U.shape[0] - bias]
        return BackwardPass(
            solution=solution,
            factors=(to_X[:n],) if dense else self._factor_gradients(T[-1], X, V),
            B=to_U[:n],
            C=to_X[n:] if dense else to_X,
            D=None if D is None else to_U[n:],
            U=G_U,
        )

    def _factor_gradients(self, T: np.ndarray, X: np.ndarray, V: np.ndarray) -> fac.Factors:
        """Return ∂L = V (Rᵀ X)ᵀ and ∂Rᵀ = (Lᵀ V) Xᵀ, where T = Rᵀ X."""
        return outer(V.T, T), outer(affine(self.factors(True)[1], V).T, X)

    def prepare(self) -> None:
        """Compile the kernels that a forward solve can call, by solving the equation for one column of zeros."""
        method, options = self.method(), self.options.forward
        zeros = np.zeros((len(self.weights.factors[0]), 1), self.weights.B.dtype)
        for needed in (method, "anderson") if method == "auto" else (method,):
            self.solve(self.equation(zeros), options=SolveOptions(options.tol, options.max_iter, needed))


def blank(n: int, m: int, dtype: np.dtype, iterations: np.ndarray) -> Answer:
    """Return the arrays that kernels write: the columns x (m n,), status (m,), iterations (m,), and numbers (5, m).

    The last array is a flag that ends kernels before they are done, where it is not 0.
    """
    return np.empty(m * n, dtype), np.empty(m, np.int8), iterations, np.empty((5, m)), np.zeros(1, np.int64)


def solve_columns(
    method: str, p: Prepared, equation: Equation, X0: np.ndarray | None, options: SolveOptions, answer: Answer
) -> int:
    """Solve all columns by one method and write the results to `answer`, whose iterations are added to.

    Here "auto" means Picard, which gives up slow columns with the status SLOW. The number of these columns is returned.
    """
    factors, _, S, Z = equation
    (n, m), nothing = Z.shape, NOTHING[Z.dtype]
    if method == "substitution" and X0 is not None:  # Only a start that is not finite has an effect.
        Z = np.where(np.isfinite(X0).all(axis=0), Z, Z.dtype.type(np.nan))
    Z, z_down, z_right = flat(Z)
    S, s_down, s_right = nothing if S is None else flat(S)
    skip = int(X0 is None and math.isfinite(p.roundings[0]))  # A·0 = 0, unless A has an entry NaN or inf.
    X0, x_down, x_right = nothing if X0 is None else flat(X0)
    where = (z_down, z_right, s_down, s_right, x_down, x_right)
    tol, max_iter = float(options.tol), min(int(options.max_iter), methods.ENDLESS)
    workers, tile = tiles(m, KEPT[method] * n * Z.itemsize, options.tile, p.flops)
    kernel: Callable[..., int]
    arguments: tuple
    if method == "substitution":
        kind = n, p.code, int(fac.triangle(factors) == "upper")
        kernel = kernels.substitute
        arguments = transposed(factors[0]), p.F1, (Z, S), kind, where, tol, p.roundings
    elif method in ("anderson", "newton"):
        rules = n, p.r, p.code, max_iter, methods.LEASH, methods.RESPITE, skip
        cheaper = p.method == "auto" and method == "anderson"
        other = methods.newton_cost(factors) if cheaper else math.inf
        levels, Lt = (tol, methods.DECREASE, other), transposed(factors[0]) if method == "newton" else None
        kernel, arguments = kernels.guarded, (p.F1, p.F2, Lt, (Z, S, X0), rules, where, levels, p.roundings)
    else:
        sizes = n, p.r, p.code, max_iter, methods.SLOW_STEPS if method == "auto" else methods.ENDLESS, skip
        kernel, arguments = kernels.picard, (p.F1, p.F2, (Z, S, X0), sizes, where, (tol, methods.SLOW), p.roundings)
    work = m * max_iter * (p.flops + (n**3 if method == "newton" and not p.r else 0))
    patient = work > min(m, 5) * threads.LONG_FLOPS and threading.current_thread() is threading.main_thread()
    if m <= tile and not patient:
        return kernel(0, m, *arguments, answer)
    return threads.share(kernel, workers, tile, m, patient, *arguments, answer)


def warmup(dtype: np.dtype) -> None:
    """Compile every kernel for one dtype by solving a small equation with each of them."""
    half, shift = np.eye(2, dtype=dtype) / 2, np.eye(2, k=1, dtype=dtype)
    Z = np.ones((2, 2), dtype)
    methods_used: tuple[Method, ...] = ("picard", "anderson", "newton", "substitution")
    for A, method in zip((half, half, half, shift), methods_used, strict=True):
        options = SolveOptions(method=method)
        layer = Layer(Weights.of((A,)), get("relu"), Options(options, options))
        layer.solve(layer.equation(Z))
