"""This module starts the compiled solution by blocks, for equations whose units form no cycle; see `levels`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from idl_ref import certificate
from idl_ref.backends.equation import Equation
from idl_ref.backends.methods import filled
from idl_ref.backends.numba import launches, levels
from idl_ref.backends.numba.compiling import vec
from idl_ref.backends.numba.products import ROWS
from idl_ref.backends.numpy.blocks import Columns, Part
from idl_ref.solution import Solution
from idl_ref.weights import Weights


class Levels(NamedTuple):
    """The blocks of an equation in the form that the kernels read."""

    parts: tuple[Part, ...]
    F: np.ndarray  # the F of all blocks, in panels
    table: np.ndarray  # (blocks, 6): see `levels`
    units: np.ndarray  # the unit at each place of a column
    end: int  # the length of a column
    flops: int  # of one column

    @classmethod
    def of(cls, parts: tuple[Part, ...], n: int, dtype: np.dtype) -> Levels:
        """Return the form of blocks without a cycle, of n units in all."""
        blocks = [part.block for part in parts]
        lanes, every = vec.VECTOR_BYTES // dtype.itemsize, np.arange(n)
        table, units, places, panels = np.zeros((len(blocks), 6), np.int64), [], np.zeros(n, np.int64), []
        at = packed = 0
        for entry, block in zip(table, blocks, strict=True):
            rows, sources = every[block.rows], places[every[block.columns]]
            count, low, high = len(rows), sources.min(initial=n * ROWS), sources.max(initial=-1) + 1
            end, low = filled(count, ROWS), min(low, high)
            F = np.zeros((end, high - low), dtype)
            F[:count, sources - low] = block.F
            panels.append(F.reshape(end // lanes, lanes, high - low).transpose(0, 2, 1).ravel())
            entry[:] = at, count, low, high, packed, rows[0] if isinstance(block.rows, slice) else -1
            places[rows] = np.arange(at, at + count)
            units.append(np.concatenate([rows, np.zeros(end - count, np.int64)]))
            at, packed = at + end, packed + F.size
        flops = sum(2 * block.F.size for block in blocks) + launches.ENTRY_FLOPS * n
        return cls(parts, aligned(panels, packed, dtype), table, np.concatenate(units), at, flops)


def aligned(panels: list[np.ndarray], size: int, dtype: np.dtype) -> np.ndarray:
    """Return an array with the panels from its first element on that is aligned to the size of a vector."""
    packed = np.empty(size + ROWS, dtype)
    start = (-packed.ctypes.data & (vec.VECTOR_BYTES - 1)) // dtype.itemsize
    np.concatenate(panels, out=packed[start : start + size])
    return packed


def solve(known: Levels, equation: Equation, X0: np.ndarray | None) -> Solution:
    """Solve an equation whose units form no cycle."""
    (n, m), S = equation.Z.shape, equation.S
    X, measured = np.empty(n * m, equation.Z.dtype), np.empty((3, len(known.parts), m))
    given = launches.by_columns(equation.Z), launches.NOTHING[X.dtype][0] if S is None else launches.by_columns(S)
    how = launches.tiles(m, (2 if S is None else 3) * known.end * X.itemsize, None, known.flops)
    sizes = n, known.end, equation.activation.code
    launches.launch(levels.solve, m, how, known.F, known.table, known.units, given, sizes, (X, measured))
    return _certified(known.parts, equation, X0, X.reshape(m, n).T, measured)


def forward(
    known: Levels, equation: Equation, weights: Weights, U: np.ndarray, X0: np.ndarray | None
) -> tuple[Solution, np.ndarray]:
    """Compute Z = B U, which is written to the equation, the solution, and Y.   U (p, m) with the constant feature"""
    (n, m), Z = equation.Z.shape, equation.Z.T.reshape(-1)
    around = launches.Forward.of(weights, U)
    (B, C, D), p, q = around.weights, len(U), len(weights.C)
    packed, spans = np.empty(known.end * p + ROWS, B.dtype), np.empty((len(known.parts), 3), np.int64)
    flops = known.flops + 2 * q * (n + p) + levels.pack_inputs(B, p, known.table, known.units, spans, packed)
    X, measured = np.empty(n * m, B.dtype), np.empty((3, len(known.parts), m))
    how = launches.tiles(m, (2 * known.end + p) * B.itemsize, None, flops)
    sizes, answer = (n, p, q, known.end, equation.activation.code), (Z, X, around.Y, measured)
    inputs = (packed, spans), (C, D), around.U
    launches.launch(levels.forward, m, how, known.F, known.table, known.units, inputs, sizes, answer)
    return _certified(known.parts, equation, X0, X.reshape(m, n).T, measured), around.Y.reshape(m, q).T


def _certified(
    parts: tuple[Part, ...], equation: Equation, X0: np.ndarray | None, X: np.ndarray, measured: np.ndarray
) -> Solution:
    """Return the solution with its certificate, from the norms that the kernels measured, block by block."""
    columns = Columns(parts, equation, X0, X)
    entries = 1
    if equation.S is not None:
        columns.lipschitz, entries = measured[levels.SLOPE], len(X)
    rounded = certificate.norms_rounding(entries, parts[0].rounding.unit)  # of the sums in a 1-norm
    columns.constants, columns.sizes = rounded * measured[levels.CONSTANT], rounded * measured[levels.SIZE]
    with np.errstate(over="ignore", invalid="ignore"):
        for number in range(len(parts)):
            columns.bound(number)
        return columns.solution()
