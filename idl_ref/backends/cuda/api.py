"""The one module that imports numba.cuda: what the kernels are decorated with, memory, matrices, launches.

To import it needs no driver. In the simulator (NUMBA_ENABLE_CUDASIM=1) device functions are plain Python functions.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from numba import config, cuda
from numba.core import types

SIMULATED = bool(config.ENABLE_CUDASIM)
FREE_SHARED = 48 << 10  # bytes of dynamic shared memory that a launch may ask for without a word before
BOUNDS = 256, 2  # threads of a block at most, and blocks of that size on a multiprocessor at least
SIMULATED_SHARED = 227 << 10  # what the simulator is taken to have: the most of an sm_90


def reason() -> str:
    """Why no kernel can run here; "" if one can."""
    if SIMULATED:
        return ""
    if not cuda.cudadrv.driver.driver.is_available:
        return "no CUDA driver found"
    if not cuda.is_available() or not len(cuda.gpus):
        return "the CUDA driver finds no usable device"
    return ""


# --- compiling: always lazily, an eager signature would need a driver -------------------------------------------------


def device(function: Callable) -> Any:
    """A function that kernels call."""
    return function if SIMULATED else cuda.jit(device=True)(function)


def kernel(function: Callable) -> Any:
    """A function that the host launches; BOUNDS leave 128 registers to a thread."""
    return cuda.jit(function) if SIMULATED else cuda.jit(function, launch_bounds=BOUNDS)


if SIMULATED:

    def load4(array: Any, i: int) -> Any:
        """array[i : i + 4] for a 16-byte aligned i"""
        return array[i], array[i + 1], array[i + 2], array[i + 3]

    def store4(array: Any, i: int, four: Any) -> None:
        """array[i : i + 4] = four"""
        array[i], array[i + 1], array[i + 2], array[i + 3] = four

    def renew(i: int) -> int:
        """i"""
        return i

else:
    from llvmlite import ir
    from numba.cuda.extending import intrinsic

    def _address(context: Any, builder: Any, kind: Any, array: Any, i: Any) -> Any:
        """Where array[i] stands, as the address of four numbers."""
        data = builder.gep(context.make_array(kind)(context, builder, array).data, [i], inbounds=True)
        four = ir.VectorType(context.get_value_type(kind.dtype), 4)
        return builder.bitcast(data, four.as_pointer(data.type.addrspace))

    # The compiler knows only that a number is aligned to its own size, and would load four of them one by one.
    @intrinsic
    def load4(typing: Any, array: Any, i: Any) -> Any:
        """array[i : i + 4] for a 16-byte aligned i"""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            four = builder.load(_address(context, builder, signature.args[0], *arguments))
            four.align = 16
            lanes = [builder.extract_element(four, ir.Constant(ir.IntType(32), j)) for j in range(4)]
            return context.make_tuple(builder, signature.return_type, lanes)

        return types.UniTuple(array.dtype, 4)(array, types.intp), generate

    @intrinsic
    def store4(typing: Any, array: Any, i: Any, four: Any) -> Any:
        """array[i : i + 4] = four"""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            address = _address(context, builder, signature.args[0], *arguments[:2])
            vector = ir.Constant(address.type.pointee, ir.Undefined)
            for j in range(4):
                lane = builder.extract_value(arguments[2], j)
                vector = builder.insert_element(vector, lane, ir.Constant(ir.IntType(32), j))
            builder.store(vector, address).align = 16
            return context.get_dummy_value()

        return types.void(array, types.intp, types.UniTuple(array.dtype, 4)), generate

    # Else whatever follows from the number of a thread would be computed once, before the loops, and wait in registers.
    @intrinsic
    def renew(typing: Any, i: Any) -> Any:
        """i, of which the compiler knows nothing any more"""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            kind = ir.FunctionType(ir.IntType(64), [ir.IntType(64)])
            return builder.asm(kind, "mov.b64 $0, $1;", "=l,l", arguments, side_effect=True)

        return types.intp(types.intp), generate


# --- memory -----------------------------------------------------------------------------------------------------------


def stream(value: Any) -> Any:
    """A stream as numba.cuda takes it: its own, of another library, by number, or 0, the default one, for None."""
    if value is None or (SIMULATED and not isinstance(value, cuda.stream)):  # the simulator knows no other streams
        return 0
    if SIMULATED or isinstance(value, cuda.cudadrv.driver.Stream):
        return value
    handle = int(value.__cuda_stream__()[1] if hasattr(value, "__cuda_stream__") else value)
    return cuda.external_stream(handle) if handle else 0


def upload(array: np.ndarray, stream: Any = 0) -> Any:
    """A copy on the device, flat."""
    return cuda.to_device(np.ascontiguousarray(array).reshape(-1), stream)


def empty(size: int, dtype: Any, stream: Any = 0) -> Any:
    """Uninitialised numbers on the device."""
    return cuda.device_array(size, dtype, stream=stream)


def download(d_array: Any, stream: Any = 0) -> np.ndarray:
    """A copy on the host; waits for the stream."""
    array = d_array.copy_to_host(stream=stream)
    if stream:
        stream.synchronize()
    return array


def view(array: Any) -> Any:
    """An array of any library with __cuda_array_interface__, as numba.cuda takes it; nothing is copied."""
    if SIMULATED:  # its memory is the host's
        return cuda.to_device(np.asarray(SimpleNamespace(__array_interface__=array.__cuda_array_interface__)))
    return cuda.as_cuda_array(array)


class Matrix(NamedTuple):
    """A flat array on the device as a matrix, for the host and for kernels: entry (i, k) at i·down + k·right."""

    array: Any
    shape: tuple[int, int]
    down: int
    right: int

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self.array.dtype)

    @property
    def T(self) -> Matrix:
        """The transpose; nothing moves."""
        return Matrix(self.array, self.shape[::-1], self.right, self.down)

    def download(self, stream: Any = 0) -> np.ndarray:
        """A copy on the host."""
        if self.right == 1:
            return download(self.array, stream).reshape(self.shape)
        return self.T.download(stream).T


def by_rows(array: Any, rows: int, columns: int) -> Matrix:
    """A flat array on the device, row by row."""
    return Matrix(array, (rows, columns), columns, 1)


def on_device(array: Any) -> bool:
    return isinstance(array, Matrix) or hasattr(array, "__cuda_array_interface__")


def matrix(array: Any, dtype: Any, stream: Any = 0) -> Matrix:
    """Any matrix on the device; None is an empty one. What is there already stays and must be contiguous."""
    if array is None:
        return by_rows(empty(0, dtype, stream), 0, 0)
    if isinstance(array, Matrix):
        return array
    if on_device(array):
        array = view(array)
        if array.is_c_contiguous():
            return by_rows(array.reshape(array.size), *array.shape)
        if not array.is_f_contiguous():
            raise ValueError("an array on the device must be contiguous; got one with gaps: pass a copy of it.")
        return by_rows(array.T.reshape(array.size), *array.shape[::-1]).T
    if array.flags.f_contiguous:
        return by_rows(upload(array.T, stream), *array.shape[::-1]).T
    return by_rows(upload(array, stream), *array.shape)


# --- launches ---------------------------------------------------------------------------------------------------------


def shared_limit() -> int:
    """Bytes of shared memory that a block of this device may have at most."""
    return SIMULATED_SHARED if SIMULATED else cuda.get_current_device().MAX_SHARED_MEMORY_PER_BLOCK_OPTIN


def multiprocessors() -> int:
    """How many blocks this device runs at the same time at least."""
    return 132 if SIMULATED else cuda.get_current_device().MULTIPROCESSOR_COUNT


def launch(kernel: Any, grid: int, block: int, shared: int, stream: Any, *arguments: Any) -> None:
    """Run `grid` blocks of `block` threads with `shared` bytes of dynamic shared memory each."""
    if shared > FREE_SHARED and not SIMULATED:
        _allow(kernel, shared, arguments)
    kernel[grid, block, stream, shared](*arguments)


def _allow(kernel: Any, shared: int, arguments: tuple) -> None:
    """Above 48 KB a kernel needs leave, which numba.cuda has no word for."""
    from cuda.bindings.driver import CUfunction_attribute

    compiled = kernel.compile(tuple(kernel.typeof_pyval(argument) for argument in arguments))
    function = compiled._codelibrary.get_cufunc()
    attribute = CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    cuda.cudadrv.driver.driver.cuKernelSetAttribute(attribute, shared, function.handle, function.device.id)
