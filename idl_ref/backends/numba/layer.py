"""This module has the layer of the Numba twin, whose solvers are compiled for the CPU.

A kernel solves a tile, which is a group of columns, and several threads share the tiles of a large problem. The answer
of a column depends neither on the other columns of the batch, nor on the width of the tiles, nor on the number of
threads, because every sum has a fixed order and no operation mixes two columns.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import NamedTuple

import numba
import numpy as np

from idl_ref import certificate, checks
from idl_ref import factors as fac
from idl_ref.activations import get
from idl_ref.backends import methods
from idl_ref.backends.equation import Equation
from idl_ref.backends.numba import kernels, threads
from idl_ref.backends.numba.one_sample import OneSample, packed_size
from idl_ref.backends.numba.products import GROUP, ROWS, pack
from idl_ref.backends.numpy import layer as definition
from idl_ref.choices import Method
from idl_ref.solution import Solution, SolveOptions
from idl_ref.weights import Options, Weights

# Several threads are used if one application takes more flops than this. To wake a thread takes 0.1 ms.
PARALLEL_FLOPS = 15e6
# The activation, the step and the norms of one entry take as long as this many flops of a product.
ENTRY_FLOPS = 40
# A tile has at most TILE columns, and all vectors of its columns take at most TILE_BYTES, so that they stay in the L2
# cache. KEPT is the number of vectors that a method needs for each column.
TILE = 64
TILE_BYTES = 3 << 19
KEPT = {"auto": 3, "picard": 3, "substitution": 3, "newton": 5, "anderson": 5 + kernels.HISTORY}

Flat = tuple[np.ndarray, int, int]  # The entries of a matrix, and the distances between its rows and its columns.
NOTHING: dict[np.dtype, Flat] = {
    dtype: (np.empty(0, dtype), 0, 0) for dtype in checks.FLOAT_DTYPES
}  # The form of None.
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

    def prepare(self) -> None:
        """Compile the kernels that a forward solve can call, by solving the equation for one column of zeros."""
        method, options = self.method(), self.options.forward
        zeros = np.zeros((len(self.weights.factors[0]), 1), self.weights.B.dtype)
        for needed in (method, "anderson") if method == "auto" else (method,):
            self.solve(self.equation(zeros), options=SolveOptions(options.tol, options.max_iter, needed))


def flat(array: np.ndarray) -> Flat:
    """Return a matrix in the form that kernels read. It is copied only if its memory is read-only or not contiguous."""
    if not array.flags.carray:
        if array.flags.farray:
            return array.T.ravel(), 1, array.shape[0]
        array = np.array(array, order="C")  # Numba would compile other kernels for arrays with gaps, or read-only ones.
    return array.ravel(), array.shape[1], 1


def transposed(F: np.ndarray) -> np.ndarray:
    """Return the entries of a factor in column-major order, as a flat array."""
    return np.array(F.T, order="C").reshape(-1)


def tiles(m: int, column_bytes: int, options: SolveOptions, flops: int) -> tuple[int, int]:
    """Return the number of threads that save time, and the number of columns of a tile.

    A tile is wide, so that each entry of A is used often, but its vectors fit into the cache. All threads get the same
    number of tiles.
    """
    workers = numba.get_num_threads() if m * flops > PARALLEL_FLOPS else 1
    if options.tile is not None:
        tile = int(options.tile)
    else:
        share = -(-m // workers)
        most = max(GROUP, min(TILE, TILE_BYTES // column_bytes) // GROUP * GROUP)
        if m <= most and workers == 1:
            return 1, m
        width = -(-share // -(-share // most))
        tile = -(-width // GROUP) * GROUP
    return min(workers, -(-m // tile)), tile


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
    workers, tile = tiles(m, KEPT[method] * n * Z.itemsize, options, p.flops)
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
