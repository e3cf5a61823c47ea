"""The Numba twin: `fixed_point` compiled, tile by tile of columns, on as many threads as pay.

The answer of a column depends neither on its batch mates nor on the tile width or the number of threads: every sum has
one order, and columns never meet.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy as np

from idl_ref import activations, certificate, checks
from idl_ref import factors as fac
from idl_ref.activations import Activation
from idl_ref.backends import Memory, columns, kernels, methods, numpy_, vectors
from idl_ref.solution import Solution, SolveOptions

# Flops of one application from which several threads pay. Numba's threads meet those of BLAS, which go on spinning for
# milliseconds after a product: a model, which multiplies by B and C around each solve, gains only with long solves.
PARALLEL_FLOPS, PARALLEL_FLOPS_IN_A_MODEL = 100e6, 1e9
ENTRY_FLOPS = 40  # what φ, the step and the norms of one entry cost, in flops of a product
TILE = 64  # columns of a tile at most
TILE_BYTES = 1 << 20  # of x, g and z of a tile at most: they stay in the L2 cache
NOTHING = {dtype: (np.empty(0, dtype), 0, 0) for dtype in checks.FLOAT_DTYPES}  # the flat form of None


# --- running ----------------------------------------------------------------------------------------------------------

_process = os.getpid()  # a forked child must not touch its parent's threads
_launch = threading.Lock()  # the workqueue layer aborts the process when two launches meet


def call(kernel: Callable, *arguments: Any) -> Any:
    """Call a kernel, which compiles it when it is new."""
    for _ in range(2):
        try:
            return kernel(*arguments)
        except OSError:  # compiled, but it could not be kept: the disk is full, or the directory is gone
            continue
    return kernel(*arguments)


def run(name: str, parallel: bool, tile: int, *arguments: Any) -> None:
    """Tile by tile, on several threads if that pays and nobody else is at it; the answer is the same."""
    m = len(arguments[-2])  # the iterations
    if parallel and os.getpid() == _process and _launch.acquire(blocking=False):
        try:
            call(getattr(kernels, f"{name}_parallel"), tile, *arguments)
        finally:
            _launch.release()
    else:
        for first in range(0, m, tile):
            call(getattr(kernels, name), first, min(m, first + tile), *arguments)


# --- arguments --------------------------------------------------------------------------------------------------------


class Packed(NamedTuple):
    """What the kernels want to know of A: its factors in panels, and what the certificate makes of it."""

    F1: np.ndarray
    F2: np.ndarray  # empty for a dense A
    roundings: tuple[float, ...]  # a Rounding; Numba takes a plain tuple faster


def flat(array: np.ndarray) -> tuple[np.ndarray, int, int]:
    """A matrix as a flat array, and how far apart its rows and its columns are in it; copied only if it has to be."""
    flags = array.flags
    if flags.f_contiguous and flags.behaved and not flags.c_contiguous:
        return array.T.reshape(-1), 1, array.shape[0]
    if not flags.carray:  # Numba would compile all again for arrays of another kind
        array = np.array(array, order="C")
    return array.reshape(-1), array.shape[1], 1


def pack(factors: fac.Factors, activation: Activation, adjoint: bool) -> Packed:
    """The factors in panels, and ‖A‖∞ on the way: |F₁| |F₂| … 1, for the adjoint |… F₂ F₁|ᵀ 1."""
    dtype = factors[0].dtype
    weights = np.empty(0, dtype)  # stands for ones
    panels = [weights, weights]
    for i in range(len(factors)) if adjoint else reversed(range(len(factors))):
        height, width = factors[i].shape
        panels[i] = np.empty(filled(height) * width, dtype)
        sums = np.empty(filled(width if adjoint else height), dtype)
        top = call(columns.pack, *flat(factors[i]), height, width, panels[i], adjoint, weights, sums)
        weights = sums
    lengths = sum(F.shape[0] + F.shape[1] for F in factors)
    norm = top * (1 + (lengths + columns.ROWS) * certificate.limits(dtype)[0])  # the sums were rounded
    if not norm < 1:  # then it matters
        norm = fac.norm_inf(fac.transpose(factors) if adjoint else factors)
    return Packed(panels[0], panels[1], tuple(certificate.rounding(factors, activation, dtype, norm)))


def filled(entries: int) -> int:
    """`entries`, filled up to a multiple of ROWS."""
    return -(-entries // columns.ROWS) * columns.ROWS


def tiles(factors: fac.Factors, m: int, options: SolveOptions, parallel_flops: float) -> tuple[bool, int]:
    """Whether several threads pay, and the columns of a tile: enough to use each entry of A often, few enough for the
    cache and for every thread."""
    n = factors[0].shape[0]
    flops = m * (sum(2 * F.size for F in factors) + ENTRY_FLOPS * n)
    threads = numba.get_num_threads() if m > 1 and flops > parallel_flops else 1
    if options.tile is None:
        group = vectors.GROUP
        width = min(TILE, TILE_BYTES // (3 * n * factors[0].itemsize), -(-m // threads))
        tile = max(group, -(-width // group) * group)
    else:
        tile = int(options.tile)
    return threads > 1 and m > tile, tile


# --- solving ----------------------------------------------------------------------------------------------------------


class Equation(NamedTuple):
    """X = S ∘ f(F₁ F₂ … X + Z), and how it is solved."""

    factors: fac.Factors
    packed: Packed
    activation: Activation
    Z: np.ndarray
    S: np.ndarray | None
    X0: np.ndarray | None
    options: SolveOptions
    parallel_flops: float


class Answer(NamedTuple):
    """What the kernels write."""

    out: np.ndarray  # (m, n)
    status: np.ndarray  # (m,)
    iterations: np.ndarray  # (m,), and are counted on from what stands there
    numbers: np.ndarray  # (5, m): the rows STEP … LIPSCHITZ


def solve(method: str, e: Equation, iterations: np.ndarray) -> Answer:
    """Every column of one equation by one method; "auto" is Picard, which leaves slow columns with the status SLOW."""
    n, m = e.Z.shape
    answer = Answer(np.empty((m, n), e.Z.dtype), np.empty(m, np.int8), iterations, np.empty((5, m)))
    nothing = NOTHING[e.Z.dtype]
    Z, z_down, z_right = flat(e.Z)
    S, s_down, s_right = nothing if e.S is None else flat(e.S)
    X0, x_down, x_right = nothing if e.X0 is None else flat(e.X0)
    where = (z_down, z_right, s_down, s_right, x_down, x_right)
    F1, F2, roundings = e.packed
    parallel, tile = tiles(e.factors, m, e.options, e.parallel_flops)
    code, tol, max_iter = e.activation.code, float(e.options.tol), int(e.options.max_iter)
    r = e.factors[0].shape[1] if len(e.factors) == 2 else 0
    skip = int(e.X0 is None and math.isfinite(roundings[0]))  # A·0 = 0, unless A holds NaN or inf
    if method == "substitution":
        kind = n, code, int(fac.triangle(e.factors) == "upper")
        run("substitute", False, tile, transposed(e.factors), F1, Z, S, kind, where, tol, roundings, *answer)
    elif method in ("anderson", "newton"):
        rules, levels = (n, r, code, max_iter, methods.LEASH, methods.RESPITE, skip), (tol, methods.DECREASE)
        Lt = transposed(e.factors) if method == "newton" else None
        run("guarded", parallel, tile, F1, F2, Lt, Z, S, X0, rules, where, levels, roundings, *answer)
    else:
        slow_steps = methods.SLOW_STEPS if method == "auto" else 1 << 62
        sizes, levels = (n, r, code, max_iter, slow_steps, skip), (tol, methods.SLOW)
        run("picard", parallel, tile, F1, F2, Z, S, X0, sizes, where, levels, roundings, *answer)
    return answer


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
    if Z.size == 0 or factors[-1].size == 0:
        return numpy_.fixed_point(factors, activation, S, Z, X0, options, memory)
    adjoint = S is not None
    parallel_flops = PARALLEL_FLOPS if memory is None else PARALLEL_FLOPS_IN_A_MODEL
    memory = {} if memory is None else memory
    known = (adjoint, activation.code, options.method)
    if known not in memory:
        memory[known] = methods.choose(options.method, factors, adjoint), pack(factors, activation, adjoint)
    method, packed = memory[known]
    equation = Equation(factors, packed, activation, Z, S, X0, options, parallel_flops)
    answer = solve(method, equation, np.zeros(Z.shape[1], np.intp))
    if method == "auto" and answer.status.max() == kernels.SLOW:
        slow = np.flatnonzero(answer.status == kernels.SLOW)
        S_slow = None if S is None else S.T[slow].T
        equation = equation._replace(Z=Z.T[slow].T, S=S_slow, X0=answer.out[slow].T)
        rest = solve("anderson", equation, answer.iterations[slow])
        answer.out[slow], answer.status[slow], answer.iterations[slow] = rest[:3]
        answer.numbers[:, slow] = rest.numbers
    step, bound = answer.numbers[:2]
    if not packed.roundings[0] < 1:  # κ ≥ 1: the norm of A alone says nothing
        numerator, kappa, lipschitz = answer.numbers[kernels.EXCESS :]
        forward_factors = fac.transpose(factors) if adjoint else factors
        bound = certificate.divide(numerator, kappa, lipschitz, forward_factors, adjoint)
    return Solution(answer.out.T, answer.status, answer.iterations, step, bound)


def warmup(dtype: np.dtype) -> None:
    """Compile every kernel for one dtype, by one small solve with each."""
    relu = activations.get("relu")
    half, shift = np.eye(2, dtype=dtype) / 2, np.eye(2, k=1, dtype=dtype)
    Z = np.ones((2, 2), dtype)
    for method in ("picard", "anderson", "newton"):
        fixed_point((half,), relu, None, Z, None, SolveOptions(method=method))
    fixed_point((shift,), relu, None, Z, None, SolveOptions(method="substitution"))
    for name in ("picard", "guarded"):  # the same arguments, but a tile width for the first and the last column
        for signature in getattr(kernels, name).signatures:
            call(getattr(kernels, f"{name}_parallel").compile, (signature[0], *signature[2:]))
