"""The Numba twin: `fixed_point` compiled, tile by tile of columns, on as many threads as pay.

The answer of a column depends neither on its batch mates nor on the tile width or the number of threads: every sum has
one order, and columns never meet.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numba
import numpy as np

from idl_ref import activations, certificate
from idl_ref import factors as fac
from idl_ref.activations import Activation
from idl_ref.backends import Memory, columns, kernels, methods, numpy_, vectors
from idl_ref.certificate import Rounding
from idl_ref.solution import Solution, SolveOptions

# Flops of one application from which several threads pay. Numba's threads meet those of BLAS, which go on spinning for
# milliseconds after a product: a model, which multiplies by B and C around each solve, gains only where solves are
# long. (n = 100, m = 64, two cores: a training step took 2.2 ms on one thread and 17 ms on two; a solve alone, 0.25
# and 0.17.)
PARALLEL_FLOPS, PARALLEL_FLOPS_IN_A_MODEL = 100e6, 1e9
ENTRY_FLOPS = 40  # what φ, the step and the norms of one entry cost, in flops of a product
TILE = 64  # columns of a tile at most
TILE_BYTES = 1 << 20  # of x, g and z of a tile at most: they stay in the L2 cache


# --- running ----------------------------------------------------------------------------------------------------------

_process = os.getpid()  # a forked child must not touch its parent's threads
_launch = threading.Lock()  # the workqueue layer aborts the process when two launches meet


def call(kernel: Callable, *arguments: Any) -> None:
    """Call a kernel, which compiles it when it is new."""
    for _ in range(2):
        try:
            return kernel(*arguments)
        except OSError:  # compiled, but it could not be kept: the disk is full, or the directory is gone
            continue
    return kernel(*arguments)


def run(name: str, parallel: bool, tile: int, *arguments: Any) -> None:
    """Tile by tile, on several threads if that pays and nobody else is at it; the answer is the same."""
    m = len(arguments[-1])
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
    dtype = factors[0].dtype
    weights = np.ones(filled(factors[0].shape[0]), dtype)
    panels = [np.empty(0, dtype)] * 2
    for i in range(len(factors)) if adjoint else reversed(range(len(factors))):
        height, width = factors[i].shape
        source, down, right = flat(factors[i])
        panels[i] = np.empty(filled(height) * width, dtype)
        sums = np.empty(filled(width if adjoint else height), dtype)
        call(columns.pack, source, height, width, down, right, panels[i], adjoint, weights, sums)
        weights = sums
    lengths = sum(F.shape[0] + F.shape[1] for F in factors)
    norm = float(weights.max()) * (1 + (lengths + columns.ROWS) * certificate.limits(dtype)[0])  # the sums were rounded
    if not norm < 1:  # then it matters
        norm = fac.norm_inf(fac.transpose(factors) if adjoint else factors)
    return Packed(panels[0], panels[1], certificate.rounding(factors, activation, dtype, norm))


def filled(entries: int) -> int:
    """`entries`, filled up to a multiple of ROWS."""
    return -(-entries // columns.ROWS) * columns.ROWS


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
    in_a_model, memory = memory is not None, {} if memory is None else memory
    known = (adjoint, activation, options.method)
    if known not in memory:
        memory[known] = methods.choose(options.method, factors, adjoint), pack(factors, activation, adjoint)
    method, packed = memory[known]
    flops = PARALLEL_FLOPS_IN_A_MODEL if in_a_model else PARALLEL_FLOPS
    problem = _Problem(factors, activation, S, Z, packed, options, flops)
    out, record = np.empty((Z.shape[1], Z.shape[0]), Z.dtype), np.zeros((Z.shape[1], 7))
    if method == "substitution":
        problem.sweep(out, record)
    elif method in ("anderson", "newton"):
        problem.guarded(method, Z, S, X0, out, record)
    else:
        problem.picard(X0, out, record, leave_slow=method == "auto")
        if record[:, kernels.STATUS].max() == kernels.SLOW:
            slow = np.flatnonzero(record[:, kernels.STATUS] == kernels.SLOW)
            out_slow, record_slow = out[slow], record[slow]
            S_slow = None if S is None else S.T[slow].T
            problem.guarded("anderson", Z.T[slow].T, S_slow, out_slow.T.copy(), out_slow, record_slow)
            out[slow], record[slow] = out_slow, record_slow
    return Solution(
        X=out.T,
        status=record[:, kernels.STATUS].astype(np.int8),
        iterations=record[:, kernels.COUNT].astype(np.intp),
        step=record[:, kernels.STEP].copy(),
        error_bound=_bounds(record, problem.packed, factors, adjoint),
    )


@dataclass
class _Problem:
    """What one call of `fixed_point` hands to the kernels."""

    factors: fac.Factors
    activation: Activation
    S: np.ndarray | None
    Z: np.ndarray
    packed: Packed
    options: SolveOptions
    parallel_flops: float

    def _arrays(self, *arrays: np.ndarray | None) -> tuple[list[np.ndarray], tuple[int, ...]]:
        """Flat, empty for None, and how far apart the rows and columns of each are."""
        parts = [(np.empty(0, self.Z.dtype), 0, 0) if array is None else flat(array) for array in arrays]
        return [part[0] for part in parts], tuple(apart for part in parts for apart in part[1:])

    def _tiles(self, m: int) -> tuple[bool, int]:
        """Whether several threads pay, and the width of a tile."""
        flops = m * (sum(2 * F.size for F in self.factors) + ENTRY_FLOPS * self.Z.shape[0])
        pays = m > 1 and flops > self.parallel_flops
        threads = numba.get_num_threads() if pays else 1
        tile = tile_width(self.options, self.Z.shape[0], m, self.Z.itemsize, threads)
        return threads > 1 and m > tile, tile

    def _sizes(self, X0: np.ndarray | None, *rules: int) -> tuple[int, ...]:
        n, r = self.Z.shape[0], self.factors[0].shape[1] if len(self.factors) == 2 else 0
        skip = X0 is None and math.isfinite(self.packed.roundings.norm)  # A·0 = 0, unless A holds NaN or inf
        return n, r, self.activation.code, int(self.options.max_iter), *rules, int(skip)

    def picard(self, X0: np.ndarray | None, out: np.ndarray, record: np.ndarray, leave_slow: bool) -> None:
        arrays, where = self._arrays(self.Z, self.S, X0)
        parallel, tile = self._tiles(len(record))
        sizes = self._sizes(X0, methods.SLOW_STEPS if leave_slow else 1 << 62)
        levels, (F1, F2, roundings) = (float(self.options.tol), methods.SLOW), self.packed
        run("picard", parallel, tile, F1, F2, *arrays, sizes, where, levels, roundings, out, record)

    def guarded(
        self,
        method: str,
        Z: np.ndarray,
        S: np.ndarray | None,
        X0: np.ndarray | None,
        out: np.ndarray,
        record: np.ndarray,
    ) -> None:
        arrays, where = self._arrays(Z, S, X0)
        parallel, tile = self._tiles(len(record))
        sizes = self._sizes(X0, methods.LEASH, methods.RESPITE)
        levels, (F1, F2, roundings) = (float(self.options.tol), methods.DECREASE), self.packed
        Lt = self._transposed() if method == "newton" else None
        run("guarded", parallel, tile, F1, F2, Lt, *arrays, sizes, where, levels, roundings, out, record)

    def sweep(self, out: np.ndarray, record: np.ndarray) -> None:
        arrays, where = self._arrays(self.Z, self.S, None)
        upper = fac.triangle(self.factors) == "upper"
        kind = (self.Z.shape[0], self.activation.code, where, float(self.options.tol), upper, self.packed.roundings)
        run("substitute", False, int(self.options.tile or TILE), self._transposed(), self.packed.F1, *arrays[:2], *kind,
            out, record)  # fmt: skip

    def _transposed(self) -> np.ndarray:
        """The columns of the first factor, one after the other."""
        return np.array(self.factors[0].T, order="C").reshape(-1)


def _bounds(record: np.ndarray, packed: Packed, factors: fac.Factors, adjoint: bool) -> np.ndarray:
    """The bounds of the kernel; where κ ≥ 1, those that need more than the norm of A."""
    if packed.roundings.norm < 1:
        return record[:, kernels.BOUND].copy()
    forward_factors = fac.transpose(factors) if adjoint else factors
    numerator, kappa, lipschitz = (record[:, i] for i in (kernels.EXCESS, kernels.KAPPA, kernels.LIPSCHITZ))
    return certificate.divide(numerator, kappa, lipschitz, forward_factors, adjoint)


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
