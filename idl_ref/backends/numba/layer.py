"""The Numba twin: `fixed_point` compiled, tile by tile of columns, on as many threads as pay.

The answer of a column depends neither on its batch mates nor on the tile width or the number of threads: every sum has
one order, and columns never meet.
"""

from __future__ import annotations

import math
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numba
import numpy as np

from idl_ref import activations, certificate, checks
from idl_ref import factors as fac
from idl_ref.activations import Activation
from idl_ref.backends import methods
from idl_ref.backends.methods import Memory
from idl_ref.backends.numba import kernels, products
from idl_ref.backends.numpy import solve as numpy_
from idl_ref.solution import Solution, SolveOptions

PARALLEL_FLOPS = 15e6  # of one application, from which several threads pay: waking one takes 0.1 ms
ENTRY_FLOPS = 40  # what φ, the step and the norms of one entry cost, in flops of a product
TILE = 64  # columns of a tile at most
TILE_BYTES = 3 << 19  # of all that is kept of the columns of a tile at most: it stays in the L2 cache
KEPT = {"auto": 3, "picard": 3, "substitution": 3, "newton": 5, "anderson": 5 + kernels.HISTORY}  # vectors of a column
NOTHING = {dtype: (np.empty(0, dtype), 0, 0) for dtype in checks.FLOAT_DTYPES}  # the flat form of None


# --- running ----------------------------------------------------------------------------------------------------------

# Threads of our own, which take one tile after the other, and not `prange`: OpenMP's go on spinning when their work is
# done, so do those of BLAS, and a training step, in which both want the same cores, took many times as long.
# These sleep; any number of callers may share them; a forked child gets its own.
_pools: dict[int, ThreadPoolExecutor] = {}  # by process


def call(kernel: Any, *arguments: Any) -> Any:
    """Call a kernel, which compiles it when it is new."""
    return kernel(*arguments)


def run(name: str, threads: int, tile: int, m: int, *arguments: Any) -> int:
    """Tile by tile; the answer is the same on any number of threads. Tells how many columns the kernel left slow."""
    kernel = getattr(kernels, name)
    if m <= tile:
        return call(kernel, 0, m, *arguments)
    firsts = iter(range(0, m, tile))

    def work() -> int:
        return sum([call(kernel, first, min(m, first + tile), *arguments) for first in firsts])

    helpers, start, alone = [], threading.Event(), False

    def help_out() -> int:
        start.wait()
        return 0 if alone else work()

    try:
        for _ in range(1, threads):
            helpers.append(pool().submit(help_out))
    except RuntimeError:  # no more threads, or the interpreter is ending; what was asked for may still come to run
        alone = True
    start.set()
    return work() + sum([helper.result() for helper in helpers if not helper.cancel()])


def pool() -> ThreadPoolExecutor:
    """The threads of this process; started when they are needed."""
    process = os.getpid()
    if process not in _pools:
        _pools.setdefault(process, ThreadPoolExecutor(os.cpu_count(), "idl_ref"))
    return _pools[process]


# --- what depends on A alone ------------------------------------------------------------------------------------------


class Plan(NamedTuple):
    """What a solve needs besides its columns: made once for as long as the factors stay as they are."""

    method: str
    r: int  # 0 for a dense A
    code: int  # of the activation
    F1: np.ndarray  # the factors in panels
    F2: np.ndarray  # empty for a dense A
    roundings: tuple[float, ...]  # a Rounding; Numba takes a plain tuple faster
    flops: int  # of one application to one column


def plan(factors: fac.Factors, activation: Activation, adjoint: bool, method: str) -> Plan:
    """Choose the method and pack the factors; ‖A‖∞ on the way: |F₁| |F₂| … 1, for the adjoint |… F₂ F₁|ᵀ 1."""
    method = methods.choose(method, factors, adjoint)
    dtype, n = factors[0].dtype, factors[0].shape[0]
    weights = NOTHING[dtype][0]  # stands for ones
    panels, roundings, flops = [weights, weights], products.ROWS, ENTRY_FLOPS * n
    for i in range(len(factors)) if adjoint else reversed(range(len(factors))):
        height, width = factors[i].shape
        panels[i] = np.empty(filled(height) * width + products.ROWS, dtype)  # some to spare, for its boundary
        sums = np.empty(filled(width if adjoint else height), dtype)
        top = call(products.pack, *flat(factors[i]), height, width, panels[i], adjoint, weights, sums)
        weights = sums
        roundings += height + width
        flops += 2 * height * width
    eps, tiny = certificate.limits(dtype)
    norm = top * (1 + roundings * eps) + (roundings * tiny if len(factors) > 1 else 0)  # products may underflow
    if not norm < 1:  # then it matters
        norm = fac.norm_inf(fac.transpose(factors) if adjoint else factors)
    r = factors[0].shape[1] if len(factors) == 2 else 0
    known = tuple(certificate.rounding(factors, activation, dtype, norm))
    return Plan(method, r, activation.code, panels[0], panels[1], known, flops)


def filled(entries: int) -> int:
    """`entries`, filled up to a multiple of ROWS."""
    return -(-entries // products.ROWS) * products.ROWS


# --- what depends on the columns --------------------------------------------------------------------------------------


def flat(array: np.ndarray) -> tuple[np.ndarray, int, int]:
    """A matrix as a flat array, and how far apart its rows and its columns are in it; copied only if it has to be."""
    flags = array.flags
    if flags.f_contiguous and flags.behaved and not flags.c_contiguous:
        return array.T.reshape(-1), 1, array.shape[0]
    if not flags.carray:  # Numba would compile all again for arrays of another kind
        array = np.array(array, order="C")
    return array.reshape(-1), array.shape[1], 1


def tiles(m: int, column_bytes: int, options: SolveOptions, flops: int) -> tuple[int, int]:
    """How many threads pay, and the columns of a tile: enough to use each entry of A often, few enough for the cache,
    and as many tiles for every thread."""
    if m == 1:
        return 1, 1
    threads = numba.get_num_threads() if m * flops > PARALLEL_FLOPS else 1
    if options.tile is not None:
        tile = int(options.tile)
    else:
        group, share = products.GROUP, -(-m // threads)
        most = max(group, min(TILE, TILE_BYTES // column_bytes) // group * group)
        width = -(-share // -(-share // most))
        tile = -(-width // group) * group
    return min(threads, -(-m // tile)), tile


# --- solving ----------------------------------------------------------------------------------------------------------


def solve(
    method: str,
    p: Plan,
    factors: fac.Factors,
    Z: np.ndarray,
    S: np.ndarray | None,
    X0: np.ndarray | None,
    options: SolveOptions,
    answer: tuple[np.ndarray, ...],
) -> int:
    """Every column by one method; "auto" is Picard, which leaves slow columns with the status SLOW, and tells how many.

    `answer` is filled; its iterations are counted on from what stands there.
    """
    n, m = Z.shape
    if method == "substitution" and X0 is not None:  # it needs no start, but does not hide that one was not finite
        Z = np.where(np.isfinite(X0).all(axis=0), Z, Z.dtype.type(np.nan))
    nothing = NOTHING[Z.dtype]
    Z, z_down, z_right = flat(Z)
    S, s_down, s_right = nothing if S is None else flat(S)
    skip = int(X0 is None and math.isfinite(p.roundings[0]))  # A·0 = 0, unless A holds NaN or inf
    X0, x_down, x_right = nothing if X0 is None else flat(X0)
    where = (z_down, z_right, s_down, s_right, x_down, x_right)
    tol, max_iter = float(options.tol), min(int(options.max_iter), 1 << 62)
    threads, tile = tiles(m, KEPT[method] * n * Z.itemsize, options, p.flops)
    if method == "substitution":
        kind = n, p.code, int(fac.triangle(factors) == "upper")
        A = transposed(factors)
        return run("substitute", threads, tile, m, A, p.F1, (Z, S), kind, where, tol, p.roundings, answer)
    columns = Z, S, X0
    if method in ("anderson", "newton"):
        rules = n, p.r, p.code, max_iter, methods.LEASH, methods.RESPITE, skip
        levels, Lt = (tol, methods.DECREASE), transposed(factors) if method == "newton" else None
        return run("guarded", threads, tile, m, p.F1, p.F2, Lt, columns, rules, where, levels, p.roundings, answer)
    sizes = n, p.r, p.code, max_iter, methods.SLOW_STEPS if method == "auto" else 1 << 62, skip
    levels = tol, methods.SLOW
    return run("picard", threads, tile, m, p.F1, p.F2, columns, sizes, where, levels, p.roundings, answer)


def blank(n: int, m: int, dtype: np.dtype, iterations: np.ndarray) -> tuple[np.ndarray, ...]:
    """What the kernels write: x column by column (m n,), status (m,), iterations (m,), the rows STEP … LIPSCHITZ."""
    return np.empty(m * n, dtype), np.empty(m, np.int8), iterations, np.empty((5, m))


def transposed(factors: fac.Factors) -> np.ndarray:
    """The columns of the first factor, one after the other."""
    return np.array(factors[0].T, order="C").reshape(-1)


def fixed_point(
    factors: fac.Factors,
    activation: Activation,
    S: np.ndarray | None,
    Z: np.ndarray,
    X0: np.ndarray | None,
    options: SolveOptions,
    memory: Memory | None = None,
) -> Solution:
    """The same function as `numpy_.fixed_point`; see there.

    Notes
    -----
    The product F x sums over k in one order for every number of columns, tile width and thread count: answers are
    equal bit for bit. X comes back in Fortran order, a column per sample contiguous.
    """
    n, m = Z.shape
    if n == 0 or m == 0 or factors[-1].size == 0:
        return numpy_.fixed_point(factors, activation, S, Z, X0, options, memory)
    adjoint = S is not None
    known = (adjoint, activation.code, options.method)
    p = None if memory is None else memory.get(known)
    if p is None:
        p = plan(factors, activation, adjoint, options.method)
        if memory is not None:
            memory[known] = p
    answer = blank(n, m, Z.dtype, np.zeros(m, np.intp))
    left = solve(p.method, p, factors, Z, S, X0, options, answer)
    X, status, iterations, numbers = answer[0].reshape(m, n), *answer[1:]
    if left == m:
        solve("anderson", p, factors, Z, S, X.T, options, answer)
    elif left:
        slow = np.flatnonzero(status == kernels.SLOW)
        rest = blank(n, left, Z.dtype, iterations[slow])
        S_slow = None if S is None else S.T[slow].T
        solve("anderson", p, factors, Z.T[slow].T, S_slow, X[slow].T, options, rest)
        X[slow], status[slow], iterations[slow], numbers[:, slow] = rest[0].reshape(left, n), *rest[1:]
    step, bound = numbers[kernels.STEP], numbers[kernels.BOUND]
    if not p.roundings[0] < 1:  # κ ≥ 1: the norm of A alone says nothing
        numerator, kappa, lipschitz = numbers[kernels.EXCESS :]
        forward_factors = fac.transpose(factors) if adjoint else factors
        bound = certificate.divide(numerator, kappa, lipschitz, forward_factors, adjoint)
    return Solution(X.T, status, iterations, step, bound)


def warmup(dtype: np.dtype) -> None:
    """Compile every kernel for one dtype, by one small solve with each."""
    relu = activations.get("relu")
    half, shift = np.eye(2, dtype=dtype) / 2, np.eye(2, k=1, dtype=dtype)
    Z = np.ones((2, 2), dtype)
    for method in ("picard", "anderson", "newton"):
        fixed_point((half,), relu, None, Z, None, SolveOptions(method=method))
    fixed_point((shift,), relu, None, Z, None, SolveOptions(method="substitution"))
