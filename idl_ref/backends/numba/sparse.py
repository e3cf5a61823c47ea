"""This module has the compiled product of a sparse matrix with columns, and the gradient on its pattern.

p_ij = Σ_k a_ik x_kj over the entries of row i, one after the other. This order depends on the pattern alone, so that a
product has the same bits for any number of columns and threads: threads share rows, which never meet. In the same way,
∂a_ik = Σ_j v_ij x_kj is added up in the order of the samples.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from idl_ref.backends.numba import threads
from idl_ref.backends.numba.compiling import entry
from idl_ref.sparse import Sparse

# Several threads are used if a product takes more flops than this; each then takes PARTS groups of rows one by one.
PARALLEL_FLOPS = 2e6
PARTS = 8


@entry
def rows_product(first: int, last: int, data: Any, indices: Any, indptr: Any, X: Any, P: Any) -> int:
    """Write rows first … last − 1 of P = A X.   X (columns, m), P (rows, m)"""
    m = X.shape[1]
    for i in range(first, last):
        begin, end = indptr[i], indptr[i + 1]
        if m == 1:
            total = P.dtype.type(0)
            for k in range(begin, end):
                total += data[k] * X[indices[k], 0]
            P[i, 0] = total
            continue
        for j in range(m):
            P[i, j] = 0
        for k in range(begin, end):
            value, row = data[k], indices[k]
            for j in range(m):
                P[i, j] += value * X[row, j]
    return last - last


@entry
def rows_gradient(first: int, last: int, G: Any, indices: Any, indptr: Any, V: Any, X: Any) -> int:
    """Write the entries of rows first … last − 1 of V Xᵀ on a pattern.   V, X (n, m), G (entries,)"""
    m = X.shape[1]
    for i in range(first, last):
        for k in range(indptr[i], indptr[i + 1]):
            row, total = indices[k], G.dtype.type(0)
            for j in range(m):
                total += V[i, j] * X[row, j]
            G[k] = total
    return last - last


class CompiledSparse(Sparse):
    """A sparse matrix whose products are compiled."""

    @classmethod
    def compiled(cls, A: Sparse) -> CompiledSparse:
        """Return a matrix with the entries of another one, in arrays of the one kind for which kernels are compiled."""
        other = cls.__new__(cls)
        other.shape, other._transposed, other._scipy = A.shape, None, None
        other.data, other.indices, other.indptr = (
            np.require(M, None, ["C", "W"]) for M in (A.data, A.indices, A.indptr)
        )
        return other

    def _product(self, X: np.ndarray) -> np.ndarray:
        """Return A X.   X (columns, m) -> (rows, m)"""
        dtype = np.result_type(self.data, X)
        X = np.require(X, dtype, ["C", "W"])
        P = np.empty((self.shape[0], X.shape[1]), dtype)
        data = self.data.astype(dtype, copy=False)
        self._share(rows_product, X.shape[1], data, self.indices, self.indptr, X, P)
        return P

    def gradient(self, V: np.ndarray, X: np.ndarray) -> Sparse:
        """Return V Xᵀ on the pattern of this matrix."""
        dtype = np.result_type(V, X)
        V, X = (np.require(M, dtype, ["C", "W"]) for M in (V, X))
        G = np.empty(self.entries, dtype)
        self._share(rows_gradient, X.shape[1], G, self.indices, self.indptr, V, X)
        return self.with_data(G)

    def _share(self, kernel: Any, m: int, *arrays: Any) -> None:
        """Let several threads take groups of rows, if the product with m columns is large."""
        n = self.shape[0]
        workers = numba.get_num_threads() if 2 * self.entries * m > PARALLEL_FLOPS else 1
        tile = max(1, -(-n // (workers * PARTS))) if workers > 1 else max(1, n)
        threads.share(kernel, workers, tile, n, False, np.zeros(1, np.int64), *arrays)
