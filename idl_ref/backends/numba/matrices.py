"""This module multiplies matrices in compiled code, so that the Numba twin calls no BLAS.

A factor F is packed once. Then every column of F [X; Y] + Z is computed by itself, from left to right over the entries
of the column. It depends neither on the other columns, nor on the number of threads and the width of their tiles.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from idl_ref.backends import methods
from idl_ref.backends.numba import threads
from idl_ref.backends.numba.products import ROWS, multiply, pack
from idl_ref.backends.numba.tiles import NOTHING, flat, packed_size, tiles

NO_FLAG = np.zeros(1, np.int64)


class Packed(NamedTuple):
    """A matrix F (rows, inner) in panels, which kernels multiply with columns."""

    panels: np.ndarray
    rows: int
    inner: int


def packed(F: np.ndarray) -> Packed:
    """Pack a matrix F (rows, inner) in panels."""
    nothing = NOTHING[F.dtype][0]
    panels, sums = np.empty(packed_size(*F.shape), F.dtype), np.empty(methods.filled(len(F), ROWS), F.dtype)
    pack(*flat(F), *F.shape, panels, False, nothing, sums)
    return Packed(panels, *F.shape)


def affine(F: Packed, X: np.ndarray, Y: np.ndarray | None = None, Z: np.ndarray | None = None) -> Any:
    """Return F [X; Y] + Z, where Y and Z may be left out.   F (rows, inner), [X; Y] (inner, m) -> (rows, m)"""
    m, out, nothing = X.shape[1], np.empty((X.shape[1], F.rows), X.dtype), NOTHING[X.dtype]
    above = F.inner if Y is None else F.inner - len(Y)
    X, x_down, x_right = flat(X)
    Y, y_down, y_right = nothing if Y is None else flat(Y)
    Z, z_down, z_right = nothing if Z is None else flat(Z)
    sizes, where = (F.rows, above, F.inner - above), (x_down, x_right, y_down, y_right, z_down, z_right)
    arguments = F.panels, (X, Y, Z), sizes, where
    workers, tile = tiles(m, (F.rows + F.inner) * out.itemsize, None, 2 * F.rows * F.inner)
    if workers > 1:
        threads.share(multiply, workers, tile, m, False, *arguments, (out.ravel(), np.zeros(1, np.int64)))
    else:
        for first in range(0, m, tile):
            multiply(first, min(m, first + tile), *arguments, (out.ravel(), NO_FLAG))
    return out.T


def outer(Lt: np.ndarray, R: np.ndarray) -> np.ndarray:
    """Return the sum L Rᵀ over samples, one after the other, for Lt = Lᵀ.   Lt (m, a), R (b, m) -> (a, b)"""
    return affine(packed(R), Lt).T
