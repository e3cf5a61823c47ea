"""The interpreter in the place of a device: the host side of the CUDA twin runs as it is, its launches on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np

from idl_ref.backends.cuda import api as cuda_api
from ptx import compiler
from ptx.machine import Kernel
from ptx.memory import Reports
from ptx.program import parse

SHARED_LIMIT = 163 << 10  # of an sm_80
_kernels: dict[Any, Kernel] = {}


class DeviceArray:
    """A flat array on the device, which knows what of it was ever written."""

    def __init__(self, values: np.ndarray, written: bool) -> None:
        self.values, self.written = values, np.full(values.size, written)

    @property
    def size(self) -> int:
        return self.values.size

    @property
    def dtype(self) -> np.dtype:
        return self.values.dtype


class Device:
    """What stands for `cuda_api`; `reports` holds what the launches noticed, `launches` how often each kernel ran."""

    def __init__(self, cc: tuple[int, int] = (8, 0), threads: int | None = None) -> None:
        self.cc, self.threads = cc, threads
        self.reports = Reports()
        self.launches: list[str] = []
        self.compiled: set[tuple[Any, Any]] = set()  # kernels, and the types of their arguments

    def stream(self, value: Any) -> Any:
        return value or 0

    def upload(self, array: np.ndarray, stream: Any = 0) -> DeviceArray:
        return DeviceArray(np.ascontiguousarray(array).reshape(-1).copy(), True)

    def empty(self, size: int, dtype: Any, stream: Any = 0) -> DeviceArray:
        return DeviceArray(np.zeros(size, dtype), False)

    def download(self, d_array: DeviceArray, stream: Any = 0) -> np.ndarray:
        if not d_array.written.all():
            self.reports.add("download of what no kernel wrote", "")
        return d_array.values.copy()

    def shared_limit(self) -> int:
        return SHARED_LIMIT

    def multiprocessors(self) -> int:
        return 2

    def launch(self, kernel: Any, grid: int, block: int, shared: int, stream: Any, *arguments: Any) -> None:
        """Compile, and execute on the CPU."""
        arrays: list[DeviceArray] = []
        flat: list[Any] = []
        kinds = tuple(self._flatten(argument, arrays, flat) for argument in arguments)
        key = kernel, kinds, self.cc
        if key not in _kernels:
            _kernels[key] = Kernel(parse(compiler.ptx(kernel, kinds, self.cc)))
        self.launches.append(kernel.py_func.__name__)
        self.compiled.add((kernel, kinds))
        for report in _kernels[key].launch(grid, self.threads or block, shared, flat, arrays):
            self.reports.add(*report)

    def _flatten(self, argument: Any, arrays: list[DeviceArray], flat: list[Any]) -> Any:
        """Numbers and arrays one after the other, as a kernel gets them, and the type of the argument."""
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
def interpreted(cc: tuple[int, int] = (8, 0), threads: int | None = None) -> Iterator[Device]:
    """Within this, backend "cuda" is available, and its kernels are executed on the CPU from their PTX."""
    device = Device(cc, threads)
    names = ("stream", "upload", "empty", "download", "shared_limit", "multiprocessors", "launch")
    replaced = {name: getattr(device, name) for name in names} | {"reason": lambda: ""}
    with mock.patch.multiple(cuda_api, **replaced):
        yield device
