"""Planted bugs of products with an A that is stored by its entries, row by row."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from idl_ref.conformance.bugs.plain import Plain, registered_in

BUGS: dict[str, type[Plain]] = {}
planted = registered_in(BUGS)


# --- matrices by their entries ----------------------------------------------------------------------------------------


class Entries(NamedTuple):
    """The entries of a matrix that are not 0, row by row.

    Attributes
    ----------
    values, columns, rows : (entries,) arrays
    starts : (n + 1,) int array
        Where the entries of each row begin, and where those of the last one end.
    """

    values: np.ndarray
    columns: np.ndarray
    rows: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, A: np.ndarray) -> Entries:
        """The entries of a matrix with all its zeros."""
        rows, columns = np.nonzero(A)
        return cls(A[rows, columns], columns, rows, _starts(np.bincount(rows, minlength=len(A))))

    @property
    def lengths(self) -> np.ndarray:
        """The numbers of entries of the rows.   (n,)"""
        return np.diff(self.starts)

    @property
    def places(self) -> np.ndarray:
        """The place of each entry in its row, from 0.   (entries,)"""
        return np.arange(len(self.rows)) - self.starts[self.rows]

    def dense(self) -> np.ndarray:
        """The matrix with all its zeros; entries in the same place are added.   (n, n)"""
        A = np.zeros((len(self.starts) - 1,) * 2, self.values.dtype)
        np.add.at(A, (self.rows, self.columns), self.values)
        return A


def _starts(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)])


def taking_next(A: np.ndarray, alone: bool) -> np.ndarray:
    """A as `numpy.add.reduceat` sums it: a row without entries takes the next entry, or the last one of all.

    Without `alone`, rows whose next row has entries are right, and so are those after which no row has any.
    """
    entries = Entries.of(A)
    empty = np.flatnonzero(entries.lengths == 0)
    if not alone:
        empty = empty[[entries.starts[i] < len(entries.rows) and i + 1 in empty for i in empty]]
    if len(empty) == 0 or len(entries.rows) == 0:
        return A
    taken = np.minimum(entries.starts[empty], len(entries.rows) - 1)
    wrong = A.copy()
    wrong[empty, entries.columns[taken]] = entries.values[taken]
    return wrong


def cut(A: np.ndarray, width: int) -> np.ndarray:
    """A with the first entries of each row, `width` at most."""
    entries = Entries.of(A)
    kept = entries.places < width
    return entries._replace(values=entries.values[kept], columns=entries.columns[kept], rows=entries.rows[kept]).dense()


# --- the equation -----------------------------------------------------------------------------------------------------


class _Stored(Plain):
    """A backend that makes another A of the entries of a dense one."""

    def stored(self, A, p):
        raise NotImplementedError

    def factors(self, p):
        factors = super().factors(p)
        return factors if len(factors) > 1 else (self.stored(factors[0], p),)


@planted
class EmptyRowTakesNext(_Stored):
    """a row of A without entries takes the first entry of the next row, as in a sum by reduceat"""

    def stored(self, A, p):
        return taking_next(A, True)


@planted
class EmptyRowsInARow(_Stored):
    """a row of A without entries takes the first entry after it where the next row has no entries either"""

    def stored(self, A, p):
        return taking_next(A, False)


@planted
class FirstEntryToEmptyRow(_Stored):
    """the first entry after rows of A without entries counted to the first of these rows"""

    def stored(self, A, p):
        entries = Entries.of(A)
        row_of = np.searchsorted(entries.starts, np.arange(len(entries.rows)), side="left")
        first = entries.places == 0
        return entries._replace(rows=np.where(first, row_of, entries.rows)).dense()


@planted
class LastRowOfBefore(_Stored):
    """the last rows of A X left with the values of the row before where they have no entries"""

    def stored(self, A, p):
        filled = np.flatnonzero(Entries.of(A).lengths)
        wrong = A.copy()
        if len(filled):
            wrong[filled[-1] + 1 :] = A[filled[-1]]
        return wrong


@planted
class LongRowsCut(_Stored):
    """rows of A cut to twice the mean number of entries, as in a format of a fixed width"""

    def stored(self, A, p):
        return cut(A, int(np.ceil(2 * np.count_nonzero(A) / max(len(A), 1))))


@planted
class CancelledRows(_Stored):
    """rows of A whose entries have the sum 0 taken for rows without entries"""

    def stored(self, A, p):
        return np.where(A.sum(axis=1, keepdims=True) == 0, A.dtype.type(0), A)


@planted
class RowsByLength(_Stored):
    """rows of A sorted by their numbers of entries, and put back in that order and not in its inverse"""

    def stored(self, A, p):
        order = np.argsort(-Entries.of(A).lengths, kind="stable")
        return A[order][order]


@planted
class RowsWithoutInputs(_Stored):
    """rows of A left out where the row of B U has no entries"""

    def stored(self, A, p):
        return np.where(np.any(self.Z(p) != 0, axis=1, keepdims=True), A, A.dtype.type(0))


@planted
class InputsOfEmptyRows(Plain):
    """B U left out where the row of A has no entries"""

    def Z(self, p):
        Z = super().Z(p)
        return Z if p.A is None else np.where(np.any(p.A != 0, axis=1, keepdims=True), Z, Z.dtype.type(0))


# --- the adjoint ------------------------------------------------------------------------------------------------------


class _StoredTransposed(Plain):
    """A backend that makes another Aᵀ of the entries of a dense A, in the adjoint alone."""

    def stored(self, A):
        raise NotImplementedError

    def transposed(self, factors):
        return super().transposed(factors) if len(factors) > 1 else (self.stored(factors[0]),)


@planted
class AdjointTakesNext(_StoredTransposed):
    """a column of A without entries takes the first entry of the next column in the adjoint"""

    def stored(self, A):
        return taking_next(A.T, True)


@planted
class AdjointCutToRows(_StoredTransposed):
    """columns of A cut in the adjoint to the number of entries of the longest row"""

    def stored(self, A):
        return cut(A.T, int(Entries.of(A).lengths.max(initial=0)))


@planted
class TransposedOnPattern(_StoredTransposed):
    """the entries of Aᵀ kept only in the places where A has entries"""

    def stored(self, A):
        return np.where(A != 0, A.T, A.dtype.type(0))


@planted
class TransposedByRowLengths(_StoredTransposed):
    """the rows of Aᵀ begun where those of A begin"""

    def stored(self, A):
        entries = Entries.of(A.T)
        rows = np.repeat(np.arange(len(A)), Entries.of(A).lengths)
        return entries._replace(rows=rows).dense()


@planted
class TransposedWithoutValues(_StoredTransposed):
    """the entries of Aᵀ in their places, but with the values in the order of the rows of A"""

    def stored(self, A):
        return Entries.of(A.T)._replace(values=Entries.of(A).values).dense()


@planted
class AdjointCancelledColumns(_StoredTransposed):
    """columns of A whose entries have the sum 0 left out of the adjoint"""

    def stored(self, A):
        return np.where(A.T.sum(axis=1, keepdims=True) == 0, A.dtype.type(0), A.T)


# --- gradients --------------------------------------------------------------------------------------------------------


@planted
class GradientOnPattern(Plain):
    """∂A equal to zero where A has no entry"""

    def factor_gradients(self, factors, X, V):
        gradients = super().factor_gradients(factors, X, V)
        return gradients if len(factors) > 1 else (np.where(factors[0] != 0, gradients[0], X.dtype.type(0)),)
