"""Matrices on the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from idl_ref.backends import cuda_api as api


@dataclass(frozen=True)
class Matrix:
    """A flat array on the device as a matrix: `down` and `right` are how far apart its rows and its columns are."""

    d_array: Any
    shape: tuple[int, int]
    down: int
    right: int

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self.d_array.dtype)

    @property
    def size(self) -> int:
        return self.shape[0] * self.shape[1]

    @property
    def T(self) -> Matrix:
        """The transpose; nothing moves."""
        return Matrix(self.d_array, self.shape[::-1], self.right, self.down)

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """What the kernels want to know: rows, columns, down, right."""
        return *self.shape, self.down, self.right

    def download(self, stream: Any = 0) -> np.ndarray:
        """A copy on the host."""
        if self.right == 1:
            return api.download(self.d_array, stream).reshape(self.shape)
        return api.download(self.d_array, stream).reshape(self.shape[::-1]).T


def empty(rows: int, columns: int, dtype: Any, stream: Any = 0) -> Matrix:
    """An uninitialised matrix, row by row."""
    return Matrix(api.empty(rows * columns, dtype, stream), (rows, columns), columns, 1)


def on_device(array: Any) -> bool:
    return isinstance(array, Matrix) or hasattr(array, "__cuda_array_interface__")


def matrix(array: Any, dtype: Any, stream: Any = 0) -> Matrix:
    """Any matrix on the device; None is an empty one. What is there already stays and must be contiguous."""
    if array is None:
        return empty(0, 0, dtype, stream)
    if isinstance(array, Matrix):
        return array
    if on_device(array):
        array = api.view(array)
        if not (array.is_c_contiguous() or array.is_f_contiguous()):
            raise ValueError("an array on the device must be contiguous; got one with gaps: pass a copy of it.")
        if array.is_c_contiguous():
            return Matrix(array.reshape(array.size), array.shape, array.shape[1], 1)
        return Matrix(array.T.reshape(array.size), array.shape, 1, array.shape[0])
    if array.flags.f_contiguous:
        return Matrix(api.upload(array.T, stream), array.shape, 1, array.shape[0])
    return Matrix(api.upload(array, stream), array.shape, array.shape[1], 1)
