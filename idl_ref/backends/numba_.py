"""The Numba twin: `fixed_point` compiled, tile by tile of columns, on as many threads as pay.

The answer of a column depends neither on its batch mates nor on the tile width or the number of threads: every sum has
one order, and columns never meet.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np

from idl_ref import activations, certificate
from idl_ref import factors as fac
from idl_ref.activations import Activation
from idl_ref.backends import columns, kernels, methods, numpy_, trials, vectors
from idl_ref.certificate import Rounding
from idl_ref.solution import Solution, SolveOptions

PARALLEL_FLOPS = 400_000  # of one application; below, starting threads costs more than they save
TILE = 64  # columns of a tile at most
TILE_BYTES = 1 << 20  # of x, g and z of a tile at most: they stay in the L2 cache
CODES = {"picard": kernels.PICARD, "auto": kernels.AUTO, "anderson": kernels.ANDERSON, "newton": kernels.NEWTON}
RULES = (methods.SLOW_STEPS, methods.LEASH, methods.RESPITE)


# --- entry points -----------------------------------------------------------------------------------------------------


class Entry:
    """A compiled function that is kept on disk where that is possible, and compiled anew in each process elsewhere."""

    def __init__(self, function: Callable, parallel: bool = False) -> None:
        self.function = function
        self.options: dict[str, Any] = {"error_model": "numpy", "nogil": True, "parallel": parallel}
        try:
            self.compiled = numba.njit(function, cache=True, **self.options)
        except RuntimeError:  # neither the package nor the user's cache directory can be written
            self.compiled = numba.njit(function, **self.options)

    def __call__(self, *arguments: Any) -> None:
        try:
            self.compiled(*arguments)
        except OSError:  # the disk is full, or the directory is gone
            self.compiled = numba.njit(self.function, **self.options)
            self.compiled(*arguments)


def _fingerprint() -> int:
    """Of every file that compiled code is made of."""
    digest = hashlib.sha256()
    for module in (kernels, trials, columns, vectors, certificate, activations):
        digest.update(Path(str(module.__file__)).read_bytes())
    return int.from_bytes(digest.digest()[:7], "big")


_functions = kernels.entries(_fingerprint())
prepare, solve_serial, solve_parallel, sweep = (
    Entry(function, parallel=function.__name__ == "solve_parallel") for function in _functions
)

_process = os.getpid()  # a forked child must not touch its parent's threads
_launch = threading.Lock()  # the workqueue layer aborts the process when two launches meet


def run(parallel: bool, arguments: tuple) -> None:
    """On several threads if that pays and nobody else is at it, else on this one; the answer is the same."""
    if parallel and os.getpid() == _process and _launch.acquire(blocking=False):
        try:
            solve_parallel(*arguments)
        finally:
            _launch.release()
    else:
        solve_serial(*arguments)


# --- arguments --------------------------------------------------------------------------------------------------------


class Packed(NamedTuple):
    """What the kernels want to know of A: its factors in panels, and what the certificate makes of it."""

    F1: np.ndarray
    F2: np.ndarray  # empty for a dense A
    roundings: Rounding


def flat(array: np.ndarray) -> tuple[np.ndarray, int, int]:
    """A matrix as a flat array, and how far apart its rows and its columns are in it; copied only if it has to be."""
    flags = array.flags
    if not (flags.writeable and flags.aligned and (flags.c_contiguous or flags.f_contiguous)):
        array = np.array(array, order="C")  # Numba would compile all again for arrays of another kind
    if array.flags.c_contiguous:
        return array.reshape(-1), array.shape[1], 1
    return array.T.reshape(-1), 1, array.shape[0]


def pack(factors: fac.Factors, activation: Activation, adjoint: bool) -> Packed:
    """The factors in panels, and ‖A‖∞ on the way: |F₁| |F₂| … 1, for the adjoint |… F₂ F₁|ᵀ 1."""
    weights = np.ones(factors[0].shape[0])
    panels = [np.empty(0, factors[0].dtype)] * 2
    for i in range(len(factors)) if adjoint else reversed(range(len(factors))):
        height, width = factors[i].shape
        source, down, right = flat(factors[i])
        panels[i] = np.empty(-(-height // columns.ROWS) * columns.ROWS * width, source.dtype)
        sums = np.empty(width if adjoint else height)
        prepare(source, height, width, down, right, panels[i], adjoint, weights, sums)
        weights = sums
    norm = float(weights.max())
    return Packed(panels[0], panels[1], certificate.rounding(factors, activation, factors[0].dtype, norm))


def tile_width(options: SolveOptions, n: int, m: int, itemsize: int, threads: int) -> int:
    """Columns per tile: enough to use each entry of A often, few enough for the cache and for every thread."""
    if options.tile is not None:
        return int(options.tile)
    width = min(TILE, TILE_BYTES // (3 * n * itemsize), -(-m // threads))
    group = vectors.GROUP
    return max(group, -(-width // group) * group)


def fixed_point(
    factors: fac.Factors,
    activation: Activation,
    S: np.ndarray | None,
    Z: np.ndarray,
    X0: np.ndarray | None,
    options: SolveOptions,
) -> Solution:
    """The same function as `numpy_.fixed_point`; see there.

    Notes
    -----
    The product F x sums over k in one order for every number of columns, tile width and thread count: answers are
    equal bit for bit. X comes back in Fortran order, a column per sample contiguous.
    """
    if Z.size == 0 or factors[-1].size == 0:
        return numpy_.fixed_point(factors, activation, S, Z, X0, options)
    adjoint = S is not None
    method = methods.choose(options.method, factors, adjoint)
    packed = pack(factors, activation, adjoint)
    (n, m), r = Z.shape, factors[0].shape[1] if len(factors) == 2 else 0
    nothing = np.empty(0, Z.dtype)
    (z, *z_apart), (s, *s_apart), (x, *x_apart) = (
        (nothing, 0, 0) if array is None else flat(array) for array in (Z, S, X0)
    )
    where = (*z_apart, *s_apart, *x_apart)
    skip = X0 is None and np.isfinite(packed.roundings.norm)
    sizes = (n, r, activation.code, CODES.get(method, 0), int(options.max_iter), int(skip))
    out, record = np.empty((m, n), Z.dtype), np.empty((m, 7))
    transposed = None  # the columns of the first factor
    if method in ("newton", "substitution"):
        transposed = np.array(factors[0].T, order="C").reshape(-1)
    if method == "substitution":
        upper = fac.triangle(factors) == "upper"
        tile = int(options.tile or TILE)
        kind = (n, activation.code, where, float(options.tol), upper, packed.roundings)
        sweep(tile, packed.F1, transposed, z, s, *kind, out, record)
    else:
        parallel = m > 1 and 2 * m * sum(F.size for F in factors) > PARALLEL_FLOPS
        threads = numba.get_num_threads() if parallel else 1
        tile = tile_width(options, n, m, Z.itemsize, threads)
        levels = (float(options.tol), methods.SLOW, methods.DECREASE)
        arguments = (packed.F1, packed.F2, transposed, z, s, x, sizes, where, RULES, levels, packed.roundings)
        run(threads > 1 and m > tile, (tile, *arguments, out, record))
    return Solution(
        X=out.T,
        status=record[:, kernels.STATUS].astype(np.int8),
        iterations=record[:, kernels.COUNT].astype(np.intp),
        step=record[:, kernels.STEP].copy(),
        error_bound=_bounds(record, packed, factors, adjoint),
    )


def _bounds(record: np.ndarray, packed: Packed, factors: fac.Factors, adjoint: bool) -> np.ndarray:
    """The bounds of the kernel; where κ ≥ 1, those that need more than the norm of A."""
    if packed.roundings.norm < 1:
        return record[:, kernels.BOUND].copy()
    forward_factors = fac.transpose(factors) if adjoint else factors
    numerator, kappa, lipschitz = (record[:, i] for i in (kernels.EXCESS, kernels.KAPPA, kernels.LIPSCHITZ))
    return certificate.divide(numerator, kappa, lipschitz, forward_factors, adjoint)


def warmup(dtype: np.dtype) -> None:
    """Compile every kernel for one dtype, by one small solve with each."""
    relu, Z = activations.get("relu"), np.ones((2, 2), dtype)
    for method, A in (("auto", np.eye(2)), ("newton", np.eye(2)), ("substitution", np.eye(2, k=1))):
        fixed_point((np.asarray(A / 2, dtype),), relu, None, Z, None, SolveOptions(method=method))
    wide = np.ones((2, PARALLEL_FLOPS), dtype)
    for method in ("auto", "newton"):
        fixed_point((np.asarray(np.eye(2) / 2, dtype),), relu, None, wide, None, SolveOptions(method=method))
