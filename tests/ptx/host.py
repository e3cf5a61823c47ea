"""The interpreter in the place of a device: the host code of the CUDA twin runs unchanged, its kernels on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np

from idl_ref.backends.cuda import api as cuda_api
from ptx import compiler
from ptx.machine import Kernel
from ptx.memory import Reports
from ptx.program import parse

SHARED_LIMIT = 163 << 10  # bytes of shared memory per block on compute capability 8.0
_kernels: dict[Any, Kernel] = {}  # by kernel, types of the arguments, and compute capability


class DeviceArray:
    """A flat array that stands for one in device memory, with a flag for each entry: whether it was ever written."""

    def __init__(self, values: np.ndarray, written: bool) -> None:
        self.values, self.written = values, np.full(values.size, written)

    @property
    def size(self) -> int:
        """The number of entries."""
        return self.values.size

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the entries."""
        return self.values.dtype


class Device:
    """A device whose methods replace the functions of the same names in `idl_ref.backends.cuda.api`.

    Attributes
    ----------
    reports : Reports
        The errors of kernels that a GPU would not report.
    launches : list of str
        The names of the launched kernels, in order.
    launched : set of (kernel, tuple)
        The launched kernels, and the types of their arguments.
    """

    def __init__(self, cc: tuple[int, int] = (8, 0), threads: int | None = None, executes: bool = True) -> None:
        self.cc, self.threads, self.executes = cc, threads, executes
        self.reports = Reports()
        self.launches: list[str] = []
        self.launched: set[tuple[Any, Any]] = set()

    def functions(self) -> dict[str, Callable[..., Any]]:
        """Return the methods that replace functions of `idl_ref.backends.cuda.api`: all that need a driver."""
        copies = {"upload": self.upload, "empty": self.empty, "download": self.download}
        limits = {"shared_limit": self.shared_limit, "multiprocessors": self.multiprocessors}
        return copies | limits | {"stream": self.stream, "launch": self.launch}

    def stream(self, value: Any) -> Any:
        """Return the stream as it was given; the interpreter executes every launch at once, on any stream."""
        return value or 0

    def upload(self, array: np.ndarray, stream: Any = 0) -> DeviceArray:
        """Copy a host array; all entries count as written."""
        return DeviceArray(np.ascontiguousarray(array).reshape(-1).copy(), True)

    def empty(self, size: int, dtype: Any, stream: Any = 0) -> DeviceArray:
        """Allocate an array; no entry counts as written."""
        return DeviceArray(np.zeros(size, dtype), False)

    def download(self, d_array: DeviceArray, stream: Any = 0) -> np.ndarray:
        """Copy an array to the host, and report entries that were never written."""
        if not d_array.written.all():
            self.reports.add("download of entries that no kernel wrote", "")
        values = d_array.values.copy()
        if not self.executes:
            d_array.values[:] = 0
        return values

    def shared_limit(self) -> int:
        """Return the bytes of shared memory per block of this device."""
        return SHARED_LIMIT

    def multiprocessors(self) -> int:
        """Return a small number, so that small problems use tiles of several widths."""
        return 2

    def launch(self, kernel: Any, grid: int, block: int, shared: int, stream: Any, *arguments: Any) -> None:
        """Record the launch; compile the kernel for the types of its arguments, and execute it on the CPU."""
        arrays: list[DeviceArray] = []
        flat: list[Any] = []
        kinds = tuple(self._flatten(argument, arrays, flat) for argument in arguments)
        self.launches.append(kernel.py_func.__name__)
        self.launched.add((kernel, kinds))
        if not self.executes:
            for array in arrays:
                array.values[~array.written], array.written[:] = 1, True
            return
        key = kernel, kinds, self.cc
        if key not in _kernels:
            _kernels[key] = Kernel(parse(compiler.ptx(kernel, kinds, self.cc)))
        for report in _kernels[key].launch(grid, self.threads or block, shared, flat, arrays):
            self.reports.add(*report)

    def _flatten(self, argument: Any, arrays: list[DeviceArray], flat: list[Any]) -> Any:
        """Return the Numba type of an argument, and append its numbers and arrays to `flat` and `arrays`.

        numba.cuda passes the fields of nested tuples as separate parameters, in this order. In `flat`, an array is
        represented by ("array", its place in `arrays`).
        """
        from numba import types

        if isinstance(argument, DeviceArray):
            if not any(argument is array for array in arrays):
                arrays.append(argument)
            flat.append(("array", next(i for i, array in enumerate(arrays) if array is argument)))
            return types.Array(compiler.argument(argument.dtype.type(0)), 1, "C")
        if isinstance(argument, tuple):
            kinds = [self._flatten(item, arrays, flat) for item in argument]
            return types.BaseTuple.from_types(kinds, type(argument))
        flat.append(argument)
        return compiler.argument(argument)


@contextmanager
def interpreted(cc: tuple[int, int] = (8, 0), threads: int | None = None, executes: bool = True) -> Iterator[Device]:
    """In this context, backend "cuda" is available, and the PTX of its kernels is executed on the CPU.

    cc: the compute capability to compile for. threads: of every block, in the place of what the host code asks for.
    executes: if false, launches are only recorded. A new array is then downloaded as ones, and as zeros after that, so
    that a loop of the host code which lasts while columns are running is passed once.
    """
    device = Device(cc, threads, executes)
    with mock.patch.multiple(cuda_api, reason=lambda: "", **device.functions()):
        yield device
