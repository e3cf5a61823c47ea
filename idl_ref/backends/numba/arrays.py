"""Host arrays in the form that the compiled kernels read, and the factors packed into panels."""

from __future__ import annotations

import numpy as np

from idl_ref import checks
from idl_ref.backends import methods
from idl_ref.backends.numba import columns

Flat = tuple[np.ndarray, int, int]  # entries, and how far apart rows and columns are
NOTHING: dict[np.dtype, Flat] = {dtype: (np.empty(0, dtype), 0, 0) for dtype in checks.FLOAT_DTYPES}  # stands for None


def flat(array: np.ndarray) -> Flat:
    """A matrix as a flat array, and how far apart its rows and its columns are in it; copied only if it has to be."""
    flags = array.flags
    if flags.f_contiguous and flags.behaved and not flags.c_contiguous:
        return array.T.reshape(-1), 1, array.shape[0]
    if not flags.carray:  # Numba would compile a second kernel for arrays with gaps, and a third for read-only ones
        array = np.array(array, order="C")
    return array.reshape(-1), array.shape[1], 1


def transposed(F: np.ndarray) -> np.ndarray:
    """The columns of a factor, one after the other."""
    return np.array(F.T, order="C").reshape(-1)


def filled(entries: int) -> int:
    """`entries` rounded up to a multiple of ROWS, the unit of columns and panels."""
    return methods.filled(entries, columns.ROWS)


def packed_size(F: np.ndarray) -> int:
    """Numbers that the panels of F take, with ROWS to spare so that the panels can start at an aligned address."""
    return filled(F.shape[0]) * F.shape[1] + columns.ROWS


def pack(F: np.ndarray, panels: np.ndarray, by_columns: bool, weights: np.ndarray) -> tuple[float, np.ndarray]:
    """Write F into `panels`; the largest of |F| weights, or of |F|ᵀ weights with `by_columns`, and all of them."""
    height, width = F.shape
    sums = np.empty(filled(width if by_columns else height), F.dtype)
    return columns.pack(*flat(F), height, width, panels, by_columns, weights, sums), sums
