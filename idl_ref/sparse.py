"""This module has the sparse matrix, which stands in a tuple of factors where a dense A would, and its pattern.

The matrix holds the entries of its pattern row by row, in the format that is called CSR. SciPy is not needed: where it
is installed, the NumPy twin multiplies by its CSR product, and otherwise by sums of NumPy's, with the same results but
for rounding. The Numba twin has a compiled product of its own.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

__all__ = ["Pattern", "Sparse", "gradient"]

# Without SciPy, a product takes so many rows at a time that its terms do not fill more than about 8 MB.
TERMS = 1 << 20


class Sparse:
    """A real matrix of which only the entries of a pattern are held; all others are zero.

    Row i has the entries data[indptr[i] : indptr[i + 1]], in the columns indices[indptr[i] : indptr[i + 1]], which
    ascend. An entry of the pattern may be zero, and counts as a part of the pattern all the same.

    Parameters
    ----------
    data : (entries,) array
        The entries, row by row, in float32 or float64.
    indices : (entries,) array of int
        The column of each entry.
    indptr : (rows + 1,) array of int
        Where the rows begin, and where the last one ends.
    shape : tuple of two int
        The numbers of rows and of columns.

    Raises
    ------
    ValueError
        Arrays that do not describe such a matrix: wrong lengths, columns out of range, unsorted or repeated.

    Notes
    -----
    Memory: 8 bytes for each entry in float32, 12 in float64; a dense matrix takes 4 or 8 bytes for each of all n².
    Cost of a product with m columns: 2 m flops for each entry.

    Examples
    --------
    >>> A = Sparse(np.array([0.5, -0.25]), np.array([1, 0]), np.array([0, 1, 2]), (2, 2))
    >>> A.dense()
    array([[ 0.  ,  0.5 ],
           [-0.25,  0.  ]])
    >>> A @ np.array([[1.0], [2.0]])
    array([[ 1.  ],
           [-0.25]])
    """

    ndim = 2

    def __init__(self, data: Any, indices: Any, indptr: Any, shape: tuple[int, int]) -> None:
        rows, columns = (int(size) for size in shape)
        self.shape = rows, columns
        self.data = np.asarray(data)
        given = np.asarray(indices), np.asarray(indptr)
        _check_pattern(self.data, *given, self.shape)
        small = index_dtype(max(self.shape), len(self.data))
        self.indices, self.indptr = (array.astype(small, copy=False) for array in given)
        self._transposed: Sparse | None = None
        self._scipy: Any = None

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the entries."""
        return self.data.dtype

    @property
    def entries(self) -> int:
        """The number of entries of the pattern."""
        return len(self.data)

    @property
    def size(self) -> int:
        """The number of rows times the number of columns, as for a dense matrix."""
        return self.shape[0] * self.shape[1]

    @property
    def nbytes(self) -> int:
        """The number of bytes of the three arrays."""
        return int(self.data.nbytes + self.indices.nbytes + self.indptr.nbytes)

    @property
    def rows(self) -> np.ndarray:
        """The row of each entry.   (entries,)"""
        return np.repeat(np.arange(self.shape[0]), np.diff(self.indptr))

    @property
    def T(self) -> Sparse:
        """The transposed matrix, which is made once and kept."""
        if self._transposed is None:
            order = np.argsort(self.indices, kind="stable")  # Rows ascend already, so that they do in each column.
            counts = np.bincount(self.indices, minlength=self.shape[1])
            indptr = np.concatenate([[0], np.cumsum(counts)])
            self._transposed = type(self)(self.data[order], self.rows[order], indptr, self.shape[::-1])
            self._transposed._transposed = self
        return self._transposed

    @property
    def longest(self) -> int:
        """The number of entries of the row or the column that has most of them."""
        columns = np.bincount(self.indices, minlength=1)
        return int(max(np.diff(self.indptr).max(initial=0), columns.max(initial=0)))

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        part = self.entries / max(1, self.size)
        return f"Sparse({self.shape[0]} × {self.shape[1]}, {self.entries} entries, {part:.2%}, {self.dtype})"

    def __matmul__(self, X: np.ndarray) -> np.ndarray:
        """Return A X.   X (columns, m) or (columns,) -> (rows, m) or (rows,)"""
        if X.shape[0] != self.shape[1]:
            raise ValueError(f"A must have as many columns as X has rows; got {self.shape} and {X.shape}.")
        if X.ndim == 1:
            return self @ X[:, None] if X.size == 0 else self._product(X[:, None])[:, 0]
        return self._product(X)

    def __abs__(self) -> Sparse:
        return self.with_data(np.abs(self.data))

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        """Let NumPy's abs(A) be that of the entries, and refuse all else, which would need a dense matrix."""
        if ufunc is np.absolute and method == "__call__" and not options:
            return abs(self)
        raise TypeError(f"numpy.{ufunc.__name__} needs a dense matrix; got {self!r}: use A.dense().")

    def astype(self, dtype: Any, copy: bool = True) -> Sparse:
        """Return the matrix with its entries in another dtype."""
        return self if self.data.dtype == dtype and not copy else self.with_data(self.data.astype(dtype, copy=copy))

    def with_data(self, data: np.ndarray) -> Sparse:
        """Return a matrix with other entries on the same pattern, whose arrays both share."""
        other = type(self).__new__(type(self))
        other.shape, other.data, other.indices, other.indptr = self.shape, data, self.indices, self.indptr
        other._transposed, other._scipy = None, None
        return other

    @property
    def pattern(self) -> Pattern:
        """The pattern, which shares its arrays with this matrix."""
        return Pattern(self.indices, self.indptr, self.shape[1])

    def gradient(self, V: np.ndarray, X: np.ndarray) -> Sparse:
        """Return V Xᵀ on the pattern of this matrix, as the function `gradient` of this module does."""
        data, rows = np.empty(self.entries, np.result_type(V, X)), self.rows
        V, X = np.ascontiguousarray(V), np.ascontiguousarray(X)
        most = max(1, TERMS // max(1, X.shape[1]))
        for first in range(0, self.entries, most):
            some = slice(first, first + most)
            data[some] = np.einsum("em,em->e", V[rows[some]], X[self.indices[some]])
        return self.with_data(data)

    def row(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the entries of a row as a (1, k) matrix, and the columns (k,) in which they stand."""
        some = slice(self.indptr[i], self.indptr[i + 1])
        return self.data[some][None], self.indices[some]

    def dense(self) -> np.ndarray:
        """Return the matrix with all its zeros.   (rows, columns)"""
        A = np.zeros(self.shape, self.dtype)
        A[self.rows, self.indices] = self.data
        return A

    def nonzero(self) -> Sparse:
        """Return the matrix without those entries of its pattern that are 0."""
        kept = self.data != 0
        before = np.concatenate([[0], np.cumsum(kept)])
        return Sparse(self.data[kept], self.indices[kept], before[self.indptr], self.shape)

    @classmethod
    def of(cls, A: np.ndarray, pattern: np.ndarray | None = None) -> Sparse:
        """Return a dense matrix as a sparse one, with the entries where `pattern` is true, or those that are not 0.

        Examples
        --------
        >>> Sparse.of(np.array([[0.0, 0.5], [0.0, 0.0]])).indptr
        array([0, 1, 1], dtype=int32)
        """
        pattern = A != 0 if pattern is None else pattern
        rows, columns = np.nonzero(pattern)
        counts = np.bincount(rows, minlength=A.shape[0])
        return cls(A[rows, columns], columns, np.concatenate([[0], np.cumsum(counts)]), (A.shape[0], A.shape[1]))

    def _product(self, X: np.ndarray) -> np.ndarray:
        """Return A X by SciPy's product where SciPy is installed, otherwise by `sums`.   X (columns, m) -> (rows, m)"""
        if self._scipy is None:
            try:
                from scipy.sparse import csr_array
            except ImportError:
                self._scipy = False
            else:
                self._scipy = csr_array((self.data, self.indices, self.indptr), shape=self.shape)
        return self.sums(X) if self._scipy is False else self._scipy @ np.ascontiguousarray(X)

    def sums(self, X: np.ndarray) -> np.ndarray:
        """Return A X by NumPy alone: the terms of each row side by side, and their sums.   X (columns, m)"""
        P = np.zeros((self.shape[0], X.shape[1]), np.result_type(self.data, X))
        filled = np.flatnonzero(np.diff(self.indptr))  # `reduceat` has no sum of nothing.
        first, last = 0, len(filled)
        most = max(1, TERMS // max(1, X.shape[1]))
        while first < last:
            begin = self.indptr[filled[first]]
            end = max(first + 1, int(np.searchsorted(self.indptr[filled + 1], begin + most, side="right")))
            some = filled[first:end]
            terms = slice(begin, self.indptr[some[-1] + 1])
            P[some] = np.add.reduceat(self.data[terms, None] * X[self.indices[terms]], self.indptr[some] - begin)
            first = end
        return P


class Pattern:
    """Where a square sparse matrix has entries: what a model with a sparse A keeps, while training changes the entries.

    Parameters
    ----------
    indices : (entries,) array of int
        The column of each entry, row by row, ascending in each row.
    indptr : (n + 1,) array of int
        Where the rows begin, and where the last one ends.
    n : int
        The number of rows and of columns.

    Raises
    ------
    ValueError
        Arrays that do not describe such a pattern.

    Notes
    -----
    A pattern is immutable, and two patterns are equal if they have the same entries.

    Examples
    --------
    >>> pattern = Sparse.of(np.array([[0.0, 0.5], [0.0, 0.0]])).pattern
    >>> pattern
    Pattern(1 of 2 × 2 entries, crc32 0x030860c1)
    >>> pattern.matrix(np.array([0.25])).dense()
    array([[0.  , 0.25],
           [0.  , 0.  ]])
    """

    def __init__(self, indices: Any, indptr: Any, n: int) -> None:
        checked = Sparse(np.zeros(len(indices), np.float32), indices, indptr, (n, n))
        self.n = int(n)
        self.indices, self.indptr = (_frozen(array) for array in (checked.indices, checked.indptr))

    @property
    def entries(self) -> int:
        """The number of entries."""
        return len(self.indices)

    def matrix(self, data: np.ndarray) -> Sparse:
        """Return the matrix with the given entries on this pattern.   data (entries,)"""
        result = Sparse.__new__(Sparse)
        result.shape, result.data, result.indices, result.indptr = (self.n, self.n), data, self.indices, self.indptr
        result._transposed, result._scipy = None, None
        return result

    def padded(self, data: np.ndarray) -> np.ndarray:
        """Return the entries of each row side by side, and zeros after them.   (entries,) -> (n, longest row)

        For maps that treat all entries of a row alike, this matrix stands for the whole one.
        """
        rows, places = self._places()
        result = np.zeros((self.n, int(np.diff(self.indptr).max(initial=0))), data.dtype)
        result[rows, places] = data
        return result

    def unpadded(self, M: np.ndarray) -> np.ndarray:
        """Return the entries of which `padded` made M.   (n, longest row) -> (entries,)"""
        return M[self._places()]

    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the row of each entry, and its place among the entries of this row."""
        rows = np.repeat(np.arange(self.n), np.diff(self.indptr))
        return rows, np.arange(self.entries) - self.indptr[rows]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Pattern):
            return NotImplemented
        same = self.n == other.n and np.array_equal(self.indptr, other.indptr)
        return self is other or (same and np.array_equal(self.indices, other.indices))

    def __hash__(self) -> int:
        return hash((self.n, self._checksum()))

    def __repr__(self) -> str:
        return f"Pattern({self.entries} of {self.n} × {self.n} entries, crc32 {self._checksum():#010x})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Pattern, (self.indices, self.indptr, self.n)

    def _checksum(self) -> int:
        return zlib.crc32(self.indices.tobytes(), zlib.crc32(self.indptr.tobytes()))


def gradient(A: Sparse, V: np.ndarray, X: np.ndarray) -> Sparse:
    """Return ∂A = V Xᵀ on the pattern of A, whose other entries are not computed.

    Parameters
    ----------
    A : Sparse
        The matrix of the equation, (n, n).
    V, X : (n, m) arrays
        The solutions of the adjoint equation and of the equation.

    Returns
    -------
    Sparse
        The gradient, with the pattern of A.

    Notes
    -----
    Cost: 2 m flops per entry of the pattern.

    Examples
    --------
    >>> A = Sparse(np.array([0.5, 0.5]), np.array([1, 0]), np.array([0, 1, 2]), (2, 2))
    >>> gradient(A, np.array([[1.0], [2.0]]), np.array([[3.0], [4.0]])).data
    array([4., 6.])
    """
    return A.gradient(V, X)


def dense(F: Any) -> np.ndarray:
    """Return a matrix as an array with all its zeros."""
    return F.dense() if isinstance(F, Sparse) else F


def index_dtype(n: int, entries: int) -> np.dtype:
    """Return the dtype in which the columns of entries, and the beginnings of rows, are held."""
    return np.dtype(np.int32 if max(n, entries) < 2**31 else np.int64)


def _frozen(array: np.ndarray) -> np.ndarray:
    """Return a copy of an array that cannot be written."""
    array = array.copy()
    array.flags.writeable = False
    return array


def _check_pattern(data: np.ndarray, indices: np.ndarray, indptr: np.ndarray, shape: tuple[int, int]) -> None:
    """Refuse arrays that do not describe a sparse matrix."""
    rows, columns = shape
    if data.ndim != 1 or data.dtype not in (np.float32, np.float64):
        raise ValueError(f"data must be one row of float32 or float64; got {data.dtype} of shape {data.shape}.")
    if indices.shape != data.shape or indices.dtype.kind not in "iu":
        raise ValueError(f"indices must be integers, one per entry; got {indices.dtype} of shape {indices.shape}.")
    if indptr.shape != (rows + 1,) or indptr.dtype.kind not in "iu":
        raise ValueError(
            f"indptr must be integers of shape ({rows + 1},), one more than rows; got {indptr.dtype} {indptr.shape}."
        )
    if indptr[0] != 0 or indptr[-1] != len(data) or (indptr[1:] < indptr[:-1]).any():
        raise ValueError(f"indptr must ascend from 0 to {len(data)}, the number of entries; got others.")
    if len(indices) and not (indices.min() >= 0 and indices.max() < columns):
        raise ValueError(f"indices must be columns from 0 to {columns - 1}; got {indices.min()} to {indices.max()}.")
    descends = np.flatnonzero(indices[1:] <= indices[:-1]) + 1
    if not np.isin(descends, indptr).all():
        raise ValueError(
            "the columns of each row must ascend, without a repetition; got others: convert the matrix by "
            "scipy.sparse.csr_array, and call its sum_duplicates()."
        )
