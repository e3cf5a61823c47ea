"""One sample from U to Ŷ in a single compiled call: Z = B U, Picard's steps, Ŷ = C X + D U, and what certifies it.

`fixed_point` serves any number of columns and every method, and most of its time for one sample is Python. Here the
weights are packed once, the scratch is there already, and one call does everything. What it cannot finish, a sample
that is slow, not finite or at the iteration limit, it leaves to `fixed_point`. `one_numpy` is its twin.
"""

from __future__ import annotations

import numpy as np

from idl_ref.backends import methods, numba_
from idl_ref.backends.columns import ROWS, pack
from idl_ref.backends.one import TOL, Layer
from idl_ref.backends.one_kernel import VECTORS, predict


class OneSample:
    """Weights packed for `predict`, and scratch for as many calls as ever ran at once."""

    def __init__(self, layer: Layer) -> None:
        r = layer.factors[1].shape[0] if len(layer.factors) == 2 else 0
        n, width = layer.B.shape
        q, p = len(layer.C), width - layer.bias
        nothing = np.empty((0, 0), layer.B.dtype)
        matrices = [layer.B, layer.factors[0], layer.factors[1] if r else nothing, layer.readout]
        starts = np.cumsum([0, *(numba_.filled(len(F)) * F.shape[1] + ROWS for F in matrices)])
        self.W, self.tol = np.zeros(starts[-1], layer.B.dtype), layer.tol
        for first, last, F in zip(starts, starts[1:], matrices, strict=False):
            if F.size:  # packed where it stays: panels begin at a boundary in memory
                sums, ones = np.empty(numba_.filled(len(F)), F.dtype), numba_.NOTHING[F.dtype][0]
                numba_.call(pack, *numba_.flat(F), *F.shape, self.W[first:last], False, ones, sums)
        limit, patience = min(layer.max_iter, 1 << 62), methods.SLOW_STEPS if layer.impatient else 1 << 62
        self.sizes = np.array([n, r, p, q, layer.bias, layer.activation.code, limit, patience, *starts], np.int64)
        self.room = VECTORS * numba_.filled(max(n, q, r)) + n + width + 2 * ROWS
        self.free = [self._scratch()]
        M, numbers = self.free[0]
        blank = np.zeros((1, p), layer.B.dtype), np.empty((1, q), layer.B.dtype)
        numba_.call(predict, *blank, self.W, M, self.sizes, numbers)  # compiles

    def _scratch(self) -> tuple[np.ndarray, np.ndarray]:
        numbers = np.zeros(TOL + 1)
        numbers[TOL] = self.tol
        return np.empty(self.room, self.W.dtype), numbers

    def __call__(self, U: np.ndarray, Y: np.ndarray, measured: np.ndarray | None = None) -> bool:
        """Fill Y (1, q) for U (1, p), both contiguous; False if that did not work. `measured` takes the norms."""
        try:  # taken from the list and given back: no two calls share it, whatever threads or signals do
            mine = self.free.pop()
        except IndexError:
            mine = self._scratch()
        done = predict(U, Y, self.W, mine[0], self.sizes, mine[1])
        if measured is not None:
            measured[:] = mine[1]
        self.free.append(mine)
        return done
