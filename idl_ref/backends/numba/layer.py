"""The Numba twin: solvers compiled for the CPU, tile by tile of columns, on as many threads as pay.

The answer of a column depends neither on its batch mates nor on the tile width or the number of threads: every sum has
one order, and columns never meet.
"""

from __future__ import annotations

import math
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
from idl_ref.solution import Solution, SolveOptions
from idl_ref.weights import Options, Weights

PARALLEL_FLOPS = 15e6  # of one application, from which several threads pay: waking one takes 0.1 ms
ENTRY_FLOPS = 40  # what φ, the step and the norms of one entry cost, in flops of a product
TILE = 64  # columns of a tile at most
TILE_BYTES = 3 << 19  # of all that is kept of the columns of a tile at most: it stays in the L2 cache
KEPT = {"auto": 3, "picard": 3, "substitution": 3, "newton": 5, "anderson": 5 + kernels.HISTORY}  # vectors of a column


Flat = tuple[np.ndarray, int, int]  # a matrix as a flat array, and how far apart its rows and its columns are
NOTHING: dict[np.dtype, Flat] = {dtype: (np.empty(0, dtype), 0, 0) for dtype in checks.FLOAT_DTYPES}  # for None
Answer = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # see `blank`


class Prepared(NamedTuple):
    """What a solve needs besides its columns: computed once for as long as the factors stay as they are."""

    asked: str  # the method by its name in the options …
    method: str  # … and the one that it stands for
    r: int  # 0 for a dense A
    code: int  # of the activation
    F1: np.ndarray  # the factors in panels
    F2: np.ndarray  # empty for a dense A
    roundings: tuple[float, ...]  # a Rounding, as a plain tuple, which Numba takes faster
    flops: int  # of one application to one column


def prepare(equation: Equation, asked: str, known: Prepared | None) -> Prepared:
    """Choose the method and pack the factors; what is known of them already, for another method, is taken over.

    Packing bounds ‖A‖∞ on the way: |F₁| |F₂| … 1, for the adjoint |… F₂ F₁|ᵀ 1.
    """
    factors, activation, S, _ = equation
    adjoint = S is not None
    method = methods.choose(asked, factors, adjoint)
    if known is not None:
        return known._replace(asked=asked, method=method)
    dtype = factors[0].dtype
    weights = NOTHING[dtype][0]  # stands for ones
    panels, terms, flops, largest = [weights, weights], ROWS, ENTRY_FLOPS * factors[0].shape[0], 0.0
    for i in range(len(factors)) if adjoint else reversed(range(len(factors))):
        height, width = factors[i].shape
        panels[i] = np.empty(packed_size(height, width), dtype)
        sums = np.empty(methods.filled(width if adjoint else height, ROWS), dtype)
        largest = pack(*flat(factors[i]), height, width, panels[i], adjoint, weights, sums)
        weights = sums
        terms += height + width
        flops += 2 * height * width
    norm = methods.norm_bound(largest, terms, dtype, len(factors) > 1)
    if not norm < 1:  # the certificate then depends on the exact value
        norm = fac.norm_inf(fac.transpose(factors) if adjoint else factors)
    r = factors[0].shape[1] if len(factors) == 2 else 0
    roundings = tuple(certificate.rounding(factors, activation, dtype, norm))
    return Prepared(asked, method, r, activation.code, panels[0], panels[1], roundings, flops)


class Layer(definition.Layer):
    """The layer of the NumPy twin with compiled solvers.

    Notes
    -----
    The product F x sums over k in one order for every number of columns, tile width and thread count: answers are
    equal bit for bit. X comes back in Fortran order, a column per sample contiguous.
    """

    sample_class = OneSample
    _prepared: tuple[Prepared | None, Prepared | None] = (None, None)  # forward and adjoint, when they are needed

    def solve(self, equation: Equation, X0: np.ndarray | None = None, options: SolveOptions | None = None) -> Solution:
        factors, _, S, Z = equation
        (n, m), adjoint = Z.shape, S is not None
        options = options or self.options[adjoint]
        if n == 0 or m == 0 or factors[-1].size == 0 or options.method not in methods.COMPILED:
            return super().solve(equation, X0, options)
        prepared = self._prepared[adjoint]
        if prepared is None or prepared.asked != options.method:
            prepared = prepare(equation, options.method, prepared)
            self._prepared = (self._prepared[0], prepared) if adjoint else (prepared, self._prepared[1])
        answer = blank(n, m, Z.dtype, np.zeros(m, np.intp))
        left = solve_columns(prepared.method, prepared, equation, X0, options, answer)
        X, status, iterations, numbers = answer[0].reshape(m, n), *answer[1:]
        if left == m:
            solve_columns("anderson", prepared, equation, X.T, options, answer)
        elif left:
            slow = np.flatnonzero(status == kernels.SLOW)
            rest = blank(n, left, Z.dtype, iterations[slow])
            some = equation._replace(S=None if S is None else S.T[slow].T, Z=Z.T[slow].T)
            solve_columns("anderson", prepared, some, X[slow].T, options, rest)
            X[slow], status[slow], iterations[slow], numbers[:, slow] = rest[0].reshape(left, n), *rest[1:]
        step, bound = numbers[kernels.STEP], numbers[kernels.BOUND]
        if not prepared.roundings[0] < 1:  # κ ≥ 1: the norm of A alone shows no contraction
            numerator, kappa, lipschitz = numbers[kernels.EXCESS :]
            forward = fac.transpose(factors) if adjoint else factors
            bound = certificate.divide(numerator, kappa, lipschitz, forward, adjoint)
        return Solution(X.T, status, iterations, step, bound)

    def prepare(self) -> None:
        """Compile what a forward solve can need, by solving for one column of zeros."""
        method, options = self.method(), self.options.forward
        zeros = np.zeros((len(self.weights.factors[0]), 1), self.weights.B.dtype)
        for needed in (method, "anderson") if method == "auto" else (method,):
            self.solve(self.equation(zeros), options=SolveOptions(options.tol, options.max_iter, needed))


def flat(array: np.ndarray) -> Flat:
    """The matrix in the form that kernels read; it is copied only where it has to be."""
    flags = array.flags
    if flags.f_contiguous and flags.behaved and not flags.c_contiguous:
        return array.T.reshape(-1), 1, array.shape[0]
    if not flags.carray:  # Numba would compile a second kernel for arrays with gaps, and a third for read-only ones
        array = np.array(array, order="C")
    return array.reshape(-1), array.shape[1], 1


def transposed(F: np.ndarray) -> np.ndarray:
    """The columns of a factor, one after the other."""
    return np.array(F.T, order="C").reshape(-1)


def tiles(m: int, column_bytes: int, options: SolveOptions, flops: int) -> tuple[int, int]:
    """How many threads pay, and the columns of a tile: enough to use each entry of A often, few enough for the cache,
    and as many tiles for every thread."""
    if m == 1:
        return 1, 1
    workers = numba.get_num_threads() if m * flops > PARALLEL_FLOPS else 1
    if options.tile is not None:
        tile = int(options.tile)
    else:
        share = -(-m // workers)
        most = max(GROUP, min(TILE, TILE_BYTES // column_bytes) // GROUP * GROUP)
        width = -(-share // -(-share // most))
        tile = -(-width // GROUP) * GROUP
    return min(workers, -(-m // tile)), tile


def blank(n: int, m: int, dtype: np.dtype, iterations: np.ndarray) -> Answer:
    """What the kernels write: x column by column (m n,), status (m,), iterations (m,), the rows STEP … LIPSCHITZ."""
    return np.empty(m * n, dtype), np.empty(m, np.int8), iterations, np.empty((5, m))


def solve_columns(
    method: str, p: Prepared, equation: Equation, X0: np.ndarray | None, options: SolveOptions, answer: Answer
) -> int:
    """Every column by one method, into `answer`, whose iterations are counted on from what stands there.

    "auto" is Picard, which leaves slow columns with the status SLOW; the number of these columns is returned.
    """
    factors, _, S, Z = equation
    (n, m), nothing = Z.shape, NOTHING[Z.dtype]
    if method == "substitution" and X0 is not None:  # it needs no start, but a start that is not finite is reported
        Z = np.where(np.isfinite(X0).all(axis=0), Z, Z.dtype.type(np.nan))
    Z, z_down, z_right = flat(Z)
    S, s_down, s_right = nothing if S is None else flat(S)
    skip = int(X0 is None and math.isfinite(p.roundings[0]))  # A·0 = 0, unless A holds NaN or inf
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
        levels, Lt = (tol, methods.DECREASE), transposed(factors[0]) if method == "newton" else None
        kernel, arguments = kernels.guarded, (p.F1, p.F2, Lt, (Z, S, X0), rules, where, levels, p.roundings)
    else:
        sizes = n, p.r, p.code, max_iter, methods.SLOW_STEPS if method == "auto" else methods.ENDLESS, skip
        kernel, arguments = kernels.picard, (p.F1, p.F2, (Z, S, X0), sizes, where, (tol, methods.SLOW), p.roundings)
    if m <= tile:
        return kernel(0, m, *arguments, answer)
    return threads.share(kernel, workers, tile, m, *arguments, answer)


def warmup(dtype: np.dtype) -> None:
    """Compile every kernel for one dtype, by one small solve with each."""
    half, shift = np.eye(2, dtype=dtype) / 2, np.eye(2, k=1, dtype=dtype)
    Z = np.ones((2, 2), dtype)
    for A, method in ((half, "picard"), (half, "anderson"), (half, "newton"), (shift, "substitution")):
        options = SolveOptions(method=method)
        layer = Layer(Weights.of((A,)), get("relu"), Options(options, options))
        layer.solve(layer.equation(Z))
