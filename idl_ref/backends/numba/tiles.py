"""This module divides columns into tiles, and gives arrays the flat form that kernels read."""

from __future__ import annotations

import numba
import numpy as np

from idl_ref import checks
from idl_ref.backends import methods
from idl_ref.backends.numba.products import GROUP, ROWS

# Several threads are used if one application takes more flops than this. To wake a thread takes 0.1 ms.
PARALLEL_FLOPS = 15e6
# A tile has at most TILE columns, and all vectors of its columns take at most TILE_BYTES, so that they stay in the L2
# cache.
TILE = 64
TILE_BYTES = 3 << 19

Flat = tuple[np.ndarray, int, int]  # The entries of a matrix, and the distances between its rows and its columns.
NOTHING: dict[np.dtype, Flat] = {
    dtype: (np.empty(0, dtype), 0, 0) for dtype in checks.FLOAT_DTYPES
}  # The form of None.


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


def tiles(m: int, column_bytes: int, tile: int | None, flops: int) -> tuple[int, int]:
    """Return the number of threads that save time, and the number of columns of a tile.

    A tile is wide, so that each entry of A is used often, but its vectors fit into the cache. All threads get the same
    number of tiles. A `tile` that is given is used as it is.
    """
    workers = numba.get_num_threads() if m * flops > PARALLEL_FLOPS else 1
    if tile is None:
        share = -(-m // workers)
        most = max(GROUP, min(TILE, TILE_BYTES // column_bytes) // GROUP * GROUP)
        if m <= most and workers == 1:
            return 1, m
        width = -(-share // -(-share // most))
        tile = -(-width // GROUP) * GROUP
    return min(workers, -(-m // tile)), tile


def packed_size(height: int, width: int) -> int:
    """Return the size of an array for the panels of a factor, with ROWS to spare for an aligned start."""
    return methods.filled(height, ROWS) * width + ROWS
