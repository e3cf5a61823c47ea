"""All access of the CUDA twin to numba.cuda: decorators, device memory, matrices, launches. No other module imports it.

Importing this module needs no CUDA driver. In numba.cuda's simulator (NUMBA_ENABLE_CUDASIM=1) device functions are
plain Python functions.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from numba import config, cuda
from numba.core import types

from idl_ref import checks

SIMULATED = bool(config.ENABLE_CUDASIM)
# Bytes of dynamic shared memory per block that every kernel may use; above, an attribute of the kernel must be set.
DEFAULT_SHARED = 48 << 10
# Launch bounds: the most threads in a block, and the least number of such blocks that must fit on a multiprocessor.
BOUNDS = 256, 2
SIMULATED_SHARED = 227 << 10  # bytes of shared memory per block in the simulator: the maximum of compute capability 9.0


def reason() -> str:
    """Return why no kernel can run on this machine; "" if kernels can run."""
    if SIMULATED:
        return ""
    if not cuda.cudadrv.driver.driver.is_available:
        return "no CUDA driver found"
    if not cuda.is_available() or not len(cuda.gpus):
        return "the CUDA driver finds no usable device"
    return _trial()


# --- compiling --------------------------------------------------------------------------------------------------------
# Kernels are compiled lazily, at their first launch: with a signature, numba.cuda would ask the driver at import time.


def device(function: Callable) -> Any:
    """Decorate a device function: one that runs on the device and is called by kernels."""
    return function if SIMULATED else cuda.jit(device=True)(function)


def kernel(function: Callable) -> Any:
    """Decorate a kernel: a function that the host launches. BOUNDS limit it to 128 registers per thread."""
    return cuda.jit(function) if SIMULATED else cuda.jit(function, launch_bounds=BOUNDS)


if SIMULATED:

    def load4(array: Any, i: int) -> Any:
        """Return array[i : i + 4] as a tuple; the address of array[i] must be a multiple of 16 bytes."""
        return array[i], array[i + 1], array[i + 2], array[i + 3]

    def store4(array: Any, i: int, four: Any) -> None:
        """array[i : i + 4] = four; the address of array[i] must be a multiple of 16 bytes."""
        array[i], array[i + 1], array[i + 2], array[i + 3] = four

    def renew(i: int) -> int:
        """Return i: the simulator compiles nothing, so no optimisation has to be prevented."""
        return i

else:
    from llvmlite import ir
    from numba.cuda.extending import intrinsic

    def _address(context: Any, builder: Any, kind: Any, array: Any, i: Any) -> Any:
        """Return the LLVM pointer to array[i], cast to a pointer to a vector of four entries."""
        data = builder.gep(context.make_array(kind)(context, builder, array).data, [i], inbounds=True)
        four = ir.VectorType(context.get_value_type(kind.dtype), 4)
        return builder.bitcast(data, four.as_pointer(data.type.addrspace))

    # LLVM may assume only that an entry is aligned to its own size, and would emit four scalar loads or stores. These
    # two intrinsics emit vector instructions with an alignment of 16 bytes.
    @intrinsic
    def load4(typing: Any, array: Any, i: Any) -> Any:
        """Return array[i : i + 4] as a tuple; the address of array[i] must be a multiple of 16 bytes."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            four = builder.load(_address(context, builder, signature.args[0], *arguments))
            four.align = 16
            lanes = [builder.extract_element(four, ir.Constant(ir.IntType(32), j)) for j in range(4)]
            return context.make_tuple(builder, signature.return_type, lanes)

        return types.UniTuple(array.dtype, 4)(array, types.intp), generate

    @intrinsic
    def store4(typing: Any, array: Any, i: Any, four: Any) -> Any:
        """array[i : i + 4] = four; the address of array[i] must be a multiple of 16 bytes."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            address = _address(context, builder, signature.args[0], *arguments[:2])
            vector = ir.Constant(address.type.pointee, ir.Undefined)
            for j in range(4):
                lane = builder.extract_value(arguments[2], j)
                vector = builder.insert_element(vector, lane, ir.Constant(ir.IntType(32), j))
            builder.store(vector, address).align = 16
            return context.get_dummy_value()

        return types.void(array, types.intp, types.UniTuple(array.dtype, 4)), generate

    # LLVM hoists index arithmetic that depends only on the thread number out of the loops. The results would occupy
    # registers for the whole kernel and cause spills to local memory. An inline assembly instruction is opaque to LLVM:
    # what is computed from the result of `renew` stays where `renew` is called.
    @intrinsic
    def renew(typing: Any, i: Any) -> Any:
        """Return i, copied by inline assembly, so that LLVM can neither know its value nor hoist what depends on it."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            kind = ir.FunctionType(ir.IntType(64), [ir.IntType(64)])
            return builder.asm(kind, "mov.b64 $0, $1;", "=l,l", arguments, side_effect=True)

        return types.intp(types.intp), generate


@kernel
def double(d_array: Any) -> None:
    """Double the first entry: a kernel that is compiled and launched to find out whether that works here."""
    d_array[0] *= 2


@cache
def _trial() -> str:
    """Return why a small kernel cannot be compiled and run on this machine; "" if it can.

    A driver that is too old for the PTX of this compiler, or a missing library, shows only here.
    """
    try:
        d_array = upload(np.full(1, 21.0))
        launch(double, 1, 1, 0, 0, d_array)
        return "" if download(d_array)[0] == 42 else "a small kernel computes wrong results"
    except Exception as error:  # Driver, linker and compiler raise errors of their own kinds.
        return f"a small kernel does not run: {type(error).__name__}: {checks.printable(str(error))[:200]}"


# --- memory -----------------------------------------------------------------------------------------------------------


def stream(value: Any) -> Any:
    """Convert the `stream` of SolveOptions to what numba.cuda accepts.

    `value` is a stream of numba.cuda, an object of another library with `__cuda_stream__`, a handle as an integer, or
    None. None becomes 0, which stands for the default stream.
    """
    if value is None or (SIMULATED and not isinstance(value, cuda.stream)):  # the simulator has only its own streams
        return 0
    if SIMULATED or isinstance(value, cuda.cudadrv.driver.Stream):
        return value
    handle = int(value.__cuda_stream__()[1] if hasattr(value, "__cuda_stream__") else value)
    return cuda.external_stream(handle) if handle else 0


def upload(array: np.ndarray, stream: Any = 0) -> Any:
    """Copy a host array to the device, as a flat array in row-major order."""
    return cuda.to_device(np.ascontiguousarray(array).reshape(-1), stream)


def empty(size: int, dtype: Any, stream: Any = 0) -> Any:
    """Allocate a flat, uninitialised array on the device."""
    return cuda.device_array(size, dtype, stream=stream)


def download(d_array: Any, stream: Any = 0) -> np.ndarray:
    """Copy a flat device array to the host, and wait until the stream has done so."""
    _wait(stream)
    array = d_array.copy_to_host(stream=stream)
    if stream:
        stream.synchronize()
    return array


def _wait(stream: Any) -> None:
    """Wait for the work on a stream, in such a way that an interrupt from the keyboard ends the waiting.

    Python handles an interrupt only between two calls, and one call of the driver would wait for as long as a solve
    takes. After a millisecond, there is a pause between two questions. A kernel that is running goes on to its end.
    """
    if SIMULATED:
        return
    event, impatient = cuda.event(timing=False), time.perf_counter() + 1e-3
    event.record(stream)
    while not event.query():
        time.sleep(0 if time.perf_counter() < impatient else 1e-3)


def view(array: Any) -> Any:
    """Wrap a device array of any library with `__cuda_array_interface__` as an array of numba.cuda, without a copy."""
    if SIMULATED:  # simulated device memory is host memory
        return cuda.to_device(np.asarray(SimpleNamespace(__array_interface__=array.__cuda_array_interface__)))
    return cuda.as_cuda_array(array)


class Matrix(NamedTuple):
    """A matrix over a flat device array: entry (i, k) is array[i·down + k·right]. Host code and kernels both use it."""

    array: Any
    shape: tuple[int, int]
    down: int
    right: int

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the entries."""
        return np.dtype(self.array.dtype)

    @property
    def T(self) -> Matrix:
        """The transpose, over the same array: only the shape and the strides are exchanged."""
        return Matrix(self.array, self.shape[::-1], self.right, self.down)

    def download(self, stream: Any = 0) -> np.ndarray:
        """Copy the matrix to the host.   -> (rows, columns) array"""
        if self.right == 1:
            return download(self.array, stream).reshape(self.shape)
        return self.T.download(stream).T


def by_rows(array: Any, rows: int, columns: int) -> Matrix:
    """Return a flat device array as a matrix in row-major order."""
    return Matrix(array, (rows, columns), columns, 1)


def on_device(array: Any) -> bool:
    """Whether an argument of a solver is on the device: a Matrix, or an array with `__cuda_array_interface__`."""
    return isinstance(array, Matrix) or hasattr(array, "__cuda_array_interface__")


def matrix(array: Any, dtype: Any, stream: Any = 0) -> Matrix:
    """Return `array` as a Matrix; a host array is copied to the device, and None becomes an empty matrix.

    A device array is not copied; it must be contiguous, in row-major or column-major order.
    """
    if array is None:
        return by_rows(empty(0, dtype, stream), 0, 0)
    if isinstance(array, Matrix):
        return array
    if on_device(array):
        array = view(array)
        if array.is_c_contiguous():
            return by_rows(array.reshape(array.size), *array.shape)
        if not array.is_f_contiguous():
            raise ValueError("an array on the device must be contiguous; got a strided one: pass a contiguous copy.")
        return by_rows(array.T.reshape(array.size), *array.shape[::-1]).T
    if array.flags.f_contiguous:
        return by_rows(upload(array.T, stream), *array.shape[::-1]).T
    return by_rows(upload(array, stream), *array.shape)


# --- launches ---------------------------------------------------------------------------------------------------------


def shared_limit() -> int:
    """Return the most bytes of shared memory that one block of this device may use."""
    return SIMULATED_SHARED if SIMULATED else cuda.get_current_device().MAX_SHARED_MEMORY_PER_BLOCK_OPTIN


def multiprocessors() -> int:
    """Return the number of multiprocessors of this device, which is the least number of blocks that keeps it busy."""
    return 132 if SIMULATED else cuda.get_current_device().MULTIPROCESSOR_COUNT


def launch(kernel: Any, grid: int, block: int, shared: int, stream: Any, *arguments: Any) -> None:
    """Queue a kernel on `stream`: `grid` blocks of `block` threads, each block with `shared` bytes of shared memory."""
    if shared > DEFAULT_SHARED and not SIMULATED:
        _allow(kernel, shared, arguments)
    kernel[grid, block, stream, shared](*arguments)


def _allow(kernel: Any, shared: int, arguments: tuple) -> None:
    """Let a kernel use more than DEFAULT_SHARED bytes: the driver has an attribute for it, numba.cuda no function."""
    from cuda.bindings.driver import CUfunction_attribute

    compiled = kernel.compile(tuple(kernel.typeof_pyval(argument) for argument in arguments))
    function = compiled._codelibrary.get_cufunc()
    attribute = CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    cuda.cudadrv.driver.driver.cuKernelSetAttribute(attribute, shared, function.handle, function.device.id)
